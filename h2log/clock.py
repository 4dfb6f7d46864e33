"""Clocks: the monotonic one for durations, the wall clock for stamps.

Protocol code never asks for the time, it is told (`now`, seconds of `monotonic()`); only `server/`
and the floors above it read these clocks.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo

__all__ = ["DateCache", "LocalZone", "http_date", "iso_second", "monotonic", "wall"]

monotonic = time.monotonic
"""Seconds of a clock that never goes back; its zero means nothing."""

wall = time.time
"""Seconds since 1970-01-01 UTC."""


def http_date(when: float) -> str:
    """Return `when` (epoch seconds) as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    from email.utils import formatdate  # loads much, for what a log alone does not need

    return formatdate(when, usegmt=True)


def iso_second(when: int) -> str:
    """Return the whole second `when` (epoch) as `2026-11-20T13:31:59`, in UTC."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class DateCache:
    """The `Date` header's value, made anew at most once a second (RFC 9110 section 6.6.1)."""

    __slots__ = ("_text", "_until")

    def __init__(self) -> None:
        self._text = ""
        self._until = 0.0

    def __call__(self, now: float) -> str:
        """Return `now` (epoch seconds) as an IMF-fixdate; the same object within a second."""
        if now >= self._until or now < self._until - 2:  # the second case: the clock was set back
            self._text = http_date(now)
            self._until = int(now) + 1.0
        return self._text


class LocalZone(tzinfo):
    """The system's time zone with its clock changes, which `datetime` has only moment by moment."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """Return the offset from UTC at the local time `dt`."""
        return None if dt is None else self._at(dt).utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:
        """Return None: it is not known how much of the offset is daylight saving."""
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        """Return the zone's abbreviation at the local time `dt`."""
        return None if dt is None else self._at(dt).tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """Return the local time of `dt`, which is in UTC."""
        return dt.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    @staticmethod
    def _at(dt: datetime) -> datetime:
        return dt.replace(tzinfo=None).astimezone()
