"""Periods of the wall clock, in time zones that change their clocks."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.errors import UsageError
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


@pytest.mark.parametrize(
    ("every", "zone", "boundaries"),
    [
        # Forward at 2:00, back at 3:00.
        ("minutely", "Europe/Berlin", ["03-29T01:58+01", "03-29T01:59+01", "03-29T03:00+02"]),
        ("minutely", "Europe/Berlin", ["10-25T02:58+02", "10-25T02:59+02", "10-25T02:00+01"]),
        ("hourly", "Europe/Berlin", ["03-29T00:00+01", "03-29T01:00+01", "03-29T03:00+02"]),
        ("hourly", "Europe/Berlin", ["10-25T02:00+02", "10-25T02:00+01", "10-25T03:00+01"]),
        ("daily", "Europe/Berlin", ["03-28T00:00+01", "03-29T00:00+01", "03-30T00:00+02"]),
        ("daily", "Europe/Berlin", ["10-24T00:00+02", "10-25T00:00+02", "10-26T00:00+01"]),
        ("weekly", "Europe/Berlin", ["03-16T00:00+01", "03-23T00:00+01", "03-30T00:00+02"]),
        ("weekly", "Europe/Berlin", ["10-12T00:00+02", "10-19T00:00+02", "10-26T00:00+01"]),
        ("monthly", "Europe/Berlin", ["03-01T00:00+01", "04-01T00:00+02", "05-01T00:00+02"]),
        ("monthly", "Europe/Berlin", ["10-01T00:00+02", "11-01T00:00+01", "12-01T00:00+01"]),
        ("02:30", "Europe/Berlin", ["03-28T02:30+01", "03-29T03:30+02", "03-30T02:30+02"]),
        ("02:30", "Europe/Berlin", ["10-24T02:30+02", "10-25T02:30+02", "10-26T02:30+01"]),
        ("15m", "Europe/Berlin", ["03-29T01:30+01", "03-29T01:45+01", "03-29T03:00+02"]),
        # Elsewhere, on other days.
        ("daily", "America/New_York", ["03-07T00:00-05", "03-08T00:00-05", "03-09T00:00-04"]),
        ("hourly", "America/New_York", ["11-01T01:00-04", "11-01T01:00-05", "11-01T02:00-05"]),
        ("weekly", "America/New_York", ["10-26T00:00-04", "11-02T00:00-05", "11-09T00:00-05"]),
        ("yearly", "America/New_York", ["01-01T00:00-05", "2027-01-01T00:00-05"]),
        # By half an hour.
        ("daily", "Australia/Lord_Howe", ["04-04T00:00+11", "04-05T00:00+11", "04-06T00:00+1030"]),
        # A day that begins at one o'clock.
        ("daily", "Africa/Cairo", ["04-23T00:00+02", "04-24T01:00+03", "04-25T00:00+03"]),
    ],
)
def test_boundaries_across_a_change(every: str, zone: str, boundaries: list[str]) -> None:
    """In 2026, one after the other, from each to the next, as a clock on the wall there has it."""
    schedule = Schedule.parse(every, time_zone(zone))
    texts = [text if text.startswith("2027") else f"2026-{text}" for text in boundaries]
    moments = [datetime.fromisoformat(text).timestamp() for text in texts]
    for moment, after in pairwise(moments):
        assert schedule.start(moment) == moment
        assert schedule.next(moment) == after
        assert schedule.start((moment + after) / 2) == moment
        assert schedule.next((moment + after) / 2) == after
        assert schedule.start(after - 0.001) == moment


@pytest.mark.parametrize(
    ("text", "seconds"), [("3600", 3600), ("0.5", 0.5), ("3600s", 3600), (3600, 3600), (0.5, 0.5)]
)
def test_seconds(text: str | float, seconds: float) -> None:
    """As a number or as a text: an environment has only texts."""
    assert Schedule.parse(text) == Schedule("seconds", seconds)


@pytest.mark.parametrize("text", ["", "0", "-1", "0.05", "1e3", "99999999999", "1 h", "3600 "])
def test_what_is_no_schedule(text: str) -> None:
    """The message has what would be one, and what was found."""
    with pytest.raises(UsageError, match=f"expected one of .*, got '?{text}'?$"):
        Schedule.parse(text)


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
