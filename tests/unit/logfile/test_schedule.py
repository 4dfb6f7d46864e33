"""Periods of the wall clock, in time zones that change their clocks."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.logfile.schedule import Schedule, time_zone

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    """Return the epoch time of a wall clock."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("every", "when", "start", "end"),
    [
        ("minutely", "2026-11-20T13:31:59.5", "2026-11-20T13:31", "2026-11-20T13:32"),
        ("hourly", "2026-11-20T13:31:59", "2026-11-20T13:00", "2026-11-20T14:00"),
        ("daily", "2026-11-20T13:31:59", "2026-11-20", "2026-11-21"),
        ("daily", "2026-11-20", "2026-11-20", "2026-11-21"),
        ("03:30", "2026-11-20T13:31:59", "2026-11-20T03:30", "2026-11-21T03:30"),
        ("03:30", "2026-11-20T03:29:59", "2026-11-19T03:30", "2026-11-20T03:30"),
        ("weekly", "2026-11-20T13:31:59", "2026-11-16", "2026-11-23"),
        ("monthly", "2026-01-31T13:31:59", "2026-01-01", "2026-02-01"),
        ("monthly", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("yearly", "2024-02-29", "2024-01-01", "2025-01-01"),
        (15, "2026-11-20T13:31:59", "2026-11-20T13:31:45", "2026-11-20T13:32"),
        ("6h", "2026-11-20T13:31:59", "2026-11-20T12:00", "2026-11-20T18:00"),
        ("2d", "2026-11-20T13:31:59", "2026-11-19T01:00", "2026-11-21T01:00"),
        # The clocks go back at 3:00, and forward at 2:00.
        ("daily", "2026-10-25T12:00", "2026-10-25", "2026-10-26"),
        ("daily", "2026-03-29T12:00", "2026-03-29", "2026-03-30"),
        ("6h", "2026-10-25T23:30", "2026-10-25T23:00", "2026-10-26"),
        ("02:30", "2026-03-29T12:00", "2026-03-29T03:30", "2026-03-30T02:30"),
    ],
)
def test_periods(every: str | float, when: str, start: str, end: str) -> None:
    """As a clock on a wall in Berlin shows them."""
    schedule = Schedule.parse(every, BERLIN)
    assert schedule.start(at(when)) == at(start)
    assert schedule.next(at(when)) == at(end)


def test_the_hour_that_comes_twice() -> None:
    """Is two periods."""
    schedule = Schedule.parse("hourly", BERLIN)
    first, second = (at("2026-10-25T02:30", fold=fold) for fold in (0, 1))
    assert second - first == 3600
    assert schedule.next(first) == schedule.start(second) == first + 1800


UNITS = ["minutely", "hourly", "daily", "weekly", "monthly", "yearly", "02:30", "6h", 0.25, 7]
ZONES = [
    "local",
    "utc",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
]


@given(st.floats(86_400, 4e9), st.sampled_from(UNITS), st.sampled_from(ZONES))
def test_every_moment_lies_in_one_period(when: float, every: str | float, zone: str) -> None:
    """`start <= when < next`, the period's end is in another, and is not far."""
    schedule = Schedule.parse(every, time_zone(zone))
    start, end = schedule.start(when), schedule.next(when)
    assert start <= when + 1e-3
    assert end > when
    assert schedule.start(end + 1e-3) > start
    assert end - when <= 367 * 86_400


@given(st.floats(86_400, 4e9), st.sampled_from(UNITS), st.sampled_from(ZONES))
def test_periods_have_names_of_their_own(when: float, every: str | float, zone: str) -> None:
    """But for the hour that a clock shows twice, and periods below a second."""
    tz = time_zone(zone)
    schedule = Schedule.parse(every, tz)
    start = schedule.start(when)
    after = schedule.start(schedule.next(when) + 1e-3)
    names = [
        datetime.fromtimestamp(t + 1e-6, tz).strftime(schedule.pattern) for t in (start, after)
    ]
    local = [datetime.fromtimestamp(t, tz).astimezone().utcoffset() for t in (start, after)]
    if every != 0.25 and local[0] == local[1] and _offset(start, tz) == _offset(after, tz):
        assert names[0] != names[1]


def _offset(when: float, zone: object) -> object:
    return datetime.fromtimestamp(when, zone).utcoffset() if zone else None  # type: ignore[arg-type]
