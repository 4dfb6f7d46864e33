"""Dates as HTTP writes them, and the one that is made once a second."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st

from h2log.clock import DateCache, http_date, iso_second, monotonic, wall

SUNDAY = 784111777  # RFC 9110 section 5.6.7's own example


def test_a_date_is_an_imf_fixdate() -> None:
    """The example of RFC 9110 section 5.6.7; a part of a second does not show."""
    assert http_date(SUNDAY) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(SUNDAY + 0.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


@given(st.integers(-(2**31), 2**33))
def test_a_date_reads_back(when: int) -> None:
    """Every second from 1901 to 2242 is 29 characters of ASCII that mean that second."""
    text = http_date(when)
    assert len(text) == 29
    assert text.endswith(" GMT")
    assert parsedate_to_datetime(text).timestamp() == when


@given(st.integers(-(2**31), 2**33))
def test_an_iso_second_reads_back(when: int) -> None:
    """A stamp of the log is the UTC second, whatever the machine's time zone."""
    text = iso_second(when)
    assert len(text) == 19
    assert datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() == when


def test_the_date_is_made_once_a_second() -> None:
    """Within a second it is the same object; the next second has its own text."""
    date = DateCache()
    first = date(SUNDAY + 0.01)
    assert first == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert date(SUNDAY + 0.99) is first
    assert date(SUNDAY + 1.0) == "Sun, 06 Nov 1994 08:49:38 GMT"
    assert date(SUNDAY + 1.5) == "Sun, 06 Nov 1994 08:49:38 GMT"
    assert date(SUNDAY + 86400) == "Mon, 07 Nov 1994 08:49:37 GMT"


def test_a_clock_set_back_sets_the_date_back() -> None:
    """An hour back is an hour back, and the date goes on from there."""
    date = DateCache()
    date(SUNDAY)
    assert date(SUNDAY - 3600) == "Sun, 06 Nov 1994 07:49:37 GMT"
    assert date(SUNDAY - 3599) == "Sun, 06 Nov 1994 07:49:38 GMT"


@given(st.lists(st.floats(0, 2**33), min_size=1, max_size=20))
def test_the_date_is_never_wrong_by_more_than_a_set_back_clock(moments: list[float]) -> None:
    """Whatever the clock does, the date is that of the moment, or up to 2 s later."""
    date = DateCache()
    for now in moments:
        shown = parsedate_to_datetime(date(now)).timestamp()
        assert now - 1 <= shown <= now + 2


def test_the_clocks_are_the_system_s() -> None:
    """One for durations never goes back, one for stamps is the time of day."""
    assert monotonic() <= time.monotonic() <= monotonic()
    assert abs(wall() - time.time()) < 1
