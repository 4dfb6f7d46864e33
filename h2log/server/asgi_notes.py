"""What frameworks note in a scope about its request, taken over for the record."""

from __future__ import annotations

from typing import Any

from h2log.access.exchange import Exchange

__all__ = ["take_notes"]


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
    pattern = getattr(route, "path", None)  # Starlette's and FastAPI's
    if isinstance(pattern, str):
        exchange.details().route = pattern
    # Starlette's. An object that would ask a database for it must not be touched.
    if hasattr(type(user), "display_name"):
        try:
            exchange.details().user = str(user.display_name) or None
        except Exception:  # a user class of the application's that has none after all
            return
