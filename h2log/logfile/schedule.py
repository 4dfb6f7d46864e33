"""When a file of the log ends by time: periods of the wall clock in one time zone.

Pure: time is an argument, in epoch seconds. Every moment lies in exactly one period; `start` is
its first moment and `next` the first moment after it, so `start(next(t)) == next(t)` except where
a clock change swallows it. Rules:

1. Calendar periods begin where a clock on the wall says so: a day is 23 or 25 hours long when the
   clocks change. A week begins on Monday.
2. A number of seconds that divides a day counts from local midnight (`6h`: 00, 06, 12, 18 o'clock);
   any other counts from 1970-01-01 UTC.
3. `next(t) > t`, whatever the clocks do: a rotation can never be due for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from h2log.errors import UsageError

__all__ = ["Schedule", "time_zone"]

_DAY: Final = 86_400
_UNITS: Final = {
    "minutely": "minute",
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
}
_SPANS: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_PATTERNS: Final = {
    "minute": "%Y-%m-%dT%H%M",
    "hour": "%Y-%m-%dT%H",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m",
    "year": "%Y",
    "seconds": "%Y-%m-%dT%H%M%S",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Periods of one kind: `unit` is minute, hour, day, week, month, year or seconds."""

    unit: str
    seconds: float = 0.0
    """The length of a period of the unit `seconds`."""
    at: tuple[int, int] = (0, 0)
    """Hour and minute at which a day begins."""
    zone: tzinfo | None = None
    """None is the system's local time."""

    @classmethod
    def parse(cls, every: str | float, zone: tzinfo | None = None) -> Schedule:
        """Return the periods that `every` names.

        `minutely`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`; a number of seconds, also as
        a text, or `30s`, `15m`, `6h`, `2d`; `03:30`, daily at that time. Raises UsageError.
        """
        seconds = 0.0 if isinstance(every, str | bool) else float(every)
        if isinstance(every, str):
            if every in _UNITS:
                return cls(_UNITS[every], zone=zone)
            if clock := re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])", every):
                return cls("day", at=(int(clock[1]), int(clock[2])), zone=zone)
            if span := re.fullmatch(r"([0-9]{1,9})([smhd])", every):
                seconds = float(int(span[1]) * _SPANS[span[2]])
            elif re.fullmatch(r"[0-9]{1,10}(?:\.[0-9]{1,9})?", every):
                seconds = float(every)
        if not 0.1 <= seconds < 2**31:
            raise UsageError(
                f"rotate.every: expected one of {', '.join(_UNITS)}, seconds from 0.1 on, a span "
                f"such as 15m or 6h, or a time of day such as 03:30, got {every!r}"
            )
        return cls("seconds", seconds, zone=zone)

    @property
    def pattern(self) -> str:
        """The strftime pattern that tells its periods apart."""
        return _PATTERNS[self.unit]

    def start(self, when: float) -> float:
        """Return the first moment of the period that `when` lies in."""
        local = datetime.fromtimestamp(when, self.zone)
        if self.unit == "minute":
            return when - local.second - local.microsecond / 1e6
        if self.unit == "hour":
            return when - local.minute * 60 - local.second - local.microsecond / 1e6
        if self.unit == "seconds":
            if _DAY % self.seconds:
                return when // self.seconds * self.seconds
            midnight = self._midnight(local).timestamp()
            return midnight + (when - midnight) // self.seconds * self.seconds
        return self._first(local, when).timestamp()

    def next(self, when: float) -> float:
        """Return the first moment after the period that `when` lies in: later than `when`."""
        start = self.start(when)
        local = datetime.fromtimestamp(start, self.zone)
        if self.unit == "minute":
            return _after(when, start + 60, 60)
        if self.unit == "hour":
            return _after(when, start + 3600, 3600)
        if self.unit == "seconds":
            end = start + self.seconds
            if _DAY % self.seconds == 0:
                midnight = self._midnight(datetime.fromtimestamp(when, self.zone))
                # Where the clocks change, the day's last period ends at midnight all the same.
                end = min(end, (midnight + timedelta(days=1)).timestamp())
            return _after(when, end, self.seconds)
        begin = self._first(datetime.fromtimestamp(when, self.zone), when)
        if self.unit == "day":
            later = begin + timedelta(days=1)
        elif self.unit == "week":
            later = begin + timedelta(days=7)
        elif self.unit == "month":
            later = (begin + timedelta(days=32)).replace(day=1)
        else:
            later = begin.replace(year=local.year + 1)
        return _after(when, later.timestamp(), _DAY)

    def _midnight(self, local: datetime) -> datetime:
        return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)

    def _first(self, local: datetime, when: float) -> datetime:
        """Return the wall-clock time at which the calendar period of `local` began."""
        hour, minute = self.at
        begin = local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
        if self.unit == "week":
            begin -= timedelta(days=local.weekday())
        elif self.unit == "month":
            begin = begin.replace(day=1)
        elif self.unit == "year":
            begin = begin.replace(month=1, day=1)
        if begin.timestamp() > when:  # today's time of day is still to come
            begin -= timedelta(days=1)
        return begin


def _after(when: float, candidate: float, step: float) -> float:
    return candidate if candidate > when else when + step


def time_zone(name: str) -> tzinfo | None:
    """Return the time zone `local` (None), `utc`, or an IANA name. Raises UsageError."""
    if name == "local":
        return None
    if name.lower() == "utc":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # most logs are in UTC, which needs none

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"rotate.timezone: expected local, utc or a name such as Europe/Berlin, got {name!r}"
        ) from None
