"""What compiles the texts among the settings, so that a mistake in one is told at start."""

from __future__ import annotations

from typing import Any, Final

from h2log.access.session_formats import SESSION_FORMATS
from h2log.config import Check
from h2log.config.imports import make_importable
from h2log.errors import UsageError
from h2log.http2.budget import BUDGETS
from h2log.logfile.destination import destination
from h2log.logfile.rotation import Keep, Names, Rotation
from h2log.logfile.schedule import Schedule, time_zone
from h2log.server.logs import format_of, skip_of
from h2log.server.networks import check_network

__all__ = ["CHECKS"]


def _known_budget(name: str) -> None:
    if name not in BUDGETS:
        raise ValueError(f"unknown budget; there are {', '.join(sorted(BUDGETS))}")


def _known_session_format(name: str) -> None:
    if name not in SESSION_FORMATS:
        raise ValueError(f"expected one of {', '.join(SESSION_FORMATS)}, got {name!r}")


def _known_timezone(name: str) -> None:
    try:
        time_zone(name)
    except UsageError:
        raise ValueError(
            f"expected utc, local or a name such as Europe/Berlin, got {name!r}"
        ) from None


def _output(path: str, rules: dict[str, Any] | None, mode: int | None) -> None:
    """Make what a log is written to, of its rules together; nothing is opened."""
    destination(path, None if rules is None else Rotation.of(**rules), mode=mode)


CHECKS: Final[dict[str, Check]] = {
    "app dir": make_importable,
    "format": format_of,
    "network": check_network,
    "session format": _known_session_format,
    "skip": skip_of,
    "log path": destination,
    "output": _output,
    "budget": _known_budget,
    "rotate.every": lambda text: text == "never" or Schedule.parse(text),
    "rotate.name": lambda text: Names(text, ""),
    "rotate.keep": Keep.parse,
    "rotate.timezone": time_zone,
    "timezone": _known_timezone,
}
"""By what they check, as the settings name it."""
