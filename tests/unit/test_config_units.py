"""Sizes and durations as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.config.units import duration, duration_text, size, size_text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0B", 0),
        ("1B", 1),
        ("64KB", 65_536),
        ("64kb", 65_536),
        ("64 KiB", 65_536),
        ("64K", 65_536),
        (" 5MB ", 5 * 2**20),
        ("1GB", 2**30),
        ("1.5GB", 3 * 2**29),
        ("2TB", 2**41),
    ],
)
def test_a_size(text: str, count: int) -> None:
    """A number and a unit, powers of 1024, in either case."""
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "5", "KB", "-1KB", "1 0KB", "1e3KB", "1KBB", "1.KB", "٣KB"])
def test_no_size(text: str) -> None:
    """Anything else is refused, a number without a unit too."""
    with pytest.raises(ValueError, match="no size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("100ms", 0.1),
        ("10s", 10),
        ("1.5m", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    """A number and a unit, or several of them."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "10S", "1h30", "1e3s", "5 min", "1MB"])
def test_no_duration(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="no duration"):
        duration(text)


@given(st.integers(0, 2**50))
def test_a_size_is_written_as_it_is_read(count: int) -> None:
    """The shortest text for a number of bytes means that number."""
    assert size(size_text(count)) == count


@given(st.one_of(st.integers(0, 10**9), st.integers(1, 10**6).map(lambda n: n / 1000)))
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    """So does that for seconds, down to the millisecond."""
    assert duration(duration_text(seconds)) == seconds


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """With the same exception always."""
    for read in (size, duration):
        try:
            assert read(text) >= 0
        except ValueError as error:
            assert str(error).startswith("no ")  # noqa: PT017 - most texts raise, some do not
