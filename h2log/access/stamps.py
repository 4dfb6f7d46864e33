"""Points in time as text. Each maker returns a function that remembers the latest seconds.

Records of a batch lie in one or two seconds and long requests reach back further, so nearly every
stamp is found, not made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Final

from h2log.clock import http_date, iso_second

__all__ = [
    "DATE_NAMES",
    "MONTHS",
    "Stamp",
    "clf",
    "date_stamp",
    "iso",
    "iso_z",
    "locale",
    "strftime",
    "web",
]

Stamp = Callable[[float], str]
"""Returns epoch seconds as text."""

DATE_NAMES: Final = ("clf", "iso", "locale", "web")
"""The arguments that `:date` knows by name."""

_MAX_SECONDS: Final = 16
MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
"""The months of the common log format, whatever the locale."""

# What the C library of Linux and Python's documentation agree on, less %n and %t (control
# characters) and %s (which takes every time for a local one).
_DIRECTIVE = re.compile(r"%([-_0^#]?[aAbBcCdDeFfGgHhIjklmMpPrRSTuUVwWxXyYzZ%])?")


def _remembered(make: Callable[[int], str]) -> Stamp:
    """Return the stamp that `make` makes of whole seconds, once for each."""
    seconds: dict[int, str] = {}

    def stamp(when: float) -> str:
        second = int(when)
        try:
            return seconds[second]
        except KeyError:
            if len(seconds) >= _MAX_SECONDS:
                seconds.clear()
            text = seconds[second] = make(second)
            return text

    return stamp


def _with_milliseconds(tail: str) -> Stamp:
    second_text = _remembered(iso_second)
    milliseconds = tuple(f".{n:03d}{tail}" for n in range(1000))

    def stamp(when: float) -> str:
        second = int(when)
        # The millisecond that has begun: .9996 is .999, and not the next second.
        return second_text(second) + milliseconds[int((when - second) * 1000)]

    return stamp


def iso() -> Stamp:
    """Return the stamp `2026-11-20T13:31:59.123+00:00`."""
    return _with_milliseconds("+00:00")


def iso_z() -> Stamp:
    """Return the stamp `2026-11-20T13:31:59.123Z`."""
    return _with_milliseconds("Z")


def web() -> Stamp:
    """Return the stamp `Fri, 20 Nov 2026 13:31:59 GMT`."""
    return _remembered(http_date)


def clf() -> Stamp:
    """Return the stamp of the common log format, `20/Nov/2026:13:31:59 +0000`."""

    def make(second: int) -> str:
        t = datetime.fromtimestamp(second, UTC)
        return f"{t.day:02d}/{MONTHS[t.month - 1]}/{t.year:04d}:{t:%H:%M:%S} +0000"

    return _remembered(make)


def locale(zone: tzinfo = UTC) -> Stamp:
    """Return the stamp `4/21/2021, 1:31:59 PM`, JavaScript's `toLocaleString` in en-US."""

    def make(second: int) -> str:
        t = datetime.fromtimestamp(second, zone)
        half = "AM" if t.hour < 12 else "PM"
        return f"{t.month}/{t.day}/{t.year}, {t.hour % 12 or 12}:{t:%M:%S} {half}"

    return _remembered(make)


def strftime(form: str, zone: tzinfo = UTC) -> Stamp:
    """Return the stamp that `form` describes. Raises ValueError for an unknown directive."""
    for found in _DIRECTIVE.finditer(form):
        if found[1] is None:
            raise ValueError(f"unknown directive {form[found.start() : found.start() + 2]!r}")
    datetime.fromtimestamp(0, zone).strftime(form)  # raises where the C library knows less
    if "%f" in form:
        return lambda when: datetime.fromtimestamp(when, zone).strftime(form)
    return _remembered(lambda second: datetime.fromtimestamp(second, zone).strftime(form))


def date_stamp(argument: str | None, zone: tzinfo = UTC) -> Stamp:
    """Return the stamp of `:date[argument]`; `web` without one. Raises ValueError for a bad one."""
    if argument is not None and "%" in argument:
        return strftime(argument, zone)
    match argument:
        case None | "web":
            return web()
        case "clf":
            return clf()
        case "iso":
            return iso_z()
        case "locale":
            return locale(zone)
    raise ValueError(f"expected {', '.join(DATE_NAMES)} or a text with % as of strftime")
