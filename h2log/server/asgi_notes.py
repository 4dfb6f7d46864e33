"""What frameworks note in a scope about its request, taken over for the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h2log.access.exchange import Exchange

__all__ = ["route_of", "take_notes"]


def take_notes(scope: dict[str, Any], exchange: Exchange) -> None:
    """Have the record tell the route and the user that a framework has noted so far.

    A record that was handed to the log does not change any more.
    """
    if exchange.outcome is not None:
        return
    route: Any = scope.get("route")
    user: Any = scope.get("user")
    if route is None and user is None:
        return
    pattern = route_of(scope)
    if pattern is not None:
        exchange.details().route = pattern
    # Starlette's. An object that would ask a database for it must not be touched.
    if hasattr(type(user), "display_name"):
        try:
            exchange.details().user = str(user.display_name) or None
        except Exception:  # a user class of the application's that has none after all
            return


def route_of(scope: Mapping[str, Any]) -> str | None:
    """Return the pattern of the route that Starlette or FastAPI has noted, None for none.

    What another framework keeps there may raise anything when it is asked: it has none.
    """
    try:
        pattern = getattr(scope.get("route"), "path", None)
    except Exception:
        return None
    return pattern if isinstance(pattern, str) else None
