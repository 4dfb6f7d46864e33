"""The rules of rotation, without files: names, bounds, sizes, and what a configuration says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.errors import UsageError
from h2log.logfile.rotation import Keep, Names, Old, Rotation, parse_size

NOW = datetime(2026, 11, 20, 13, 31, 59, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("1", 1),
        ("512B", 512),
        ("64KB", 65_536),
        ("64k", 65_536),
        ("64 KiB", 65_536),
        ("5MB", 5 * 2**20),
        ("1.5G", 3 * 2**29),
        ("1GB", 2**30),
        ("2TB", 2**41),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    """Powers of 1024, as nginx and logrotate read them."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0KB", 0, -1, True, "KB", "1 XB", "1e3", "-1K", "1KBs"])
def test_what_is_no_size(text: Any) -> None:
    """The error names the key and shows what was found."""
    with pytest.raises(UsageError, match=rf"^rotate\.size: .*{re.escape(repr(text))}$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        (None, Keep()),
        (0, Keep(0)),
        (10, Keep(10)),
        ("10", Keep(10)),
        ("14d", Keep(age=14 * 86_400.0)),
        ("5m", Keep(age=300.0)),
        ("5M", Keep(size=5 * 2**20)),
        ("5GB", Keep(size=5 * 2**30)),
        ("100, 14d, 5GB", Keep(100, 14 * 86_400.0, 5 * 2**30)),
    ],
)
def test_keep(text: str | int | None, keep: Keep) -> None:
    """A number is files, lower-case units are ages, upper-case ones sizes."""
    assert Keep.parse(text) == keep
    assert Keep.parse(keep) is keep
    assert bool(keep) == (text is not None)


@pytest.mark.parametrize("text", ["", "x", "10,", "1 week", "-1", "1.5d"])
def test_what_is_no_keep(text: str) -> None:
    """The error names the key."""
    with pytest.raises(UsageError, match=r"^rotate\.keep: "):
        Keep.parse(text)


FILES = [Old(f"a.{n}", 100, NOW - 100 + n) for n in range(1, 11)]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (Keep(), 0),
        (Keep(10), 0),
        (Keep(3), 7),
        (Keep(0), 10),
        (Keep(age=95.0), 4),
        (Keep(size=250), 8),
        (Keep(size=1000), 0),
        (Keep(8, 95.0, 900), 4),
    ],
)
def test_surplus(keep: Keep, gone: int) -> None:
    """The oldest go, oldest first, in whichever order the folder shows them."""
    assert keep.surplus(FILES, NOW) == [old.name for old in FILES[:gone]]
    assert keep.surplus(reversed(FILES), NOW) == [old.name for old in FILES[:gone]]


def test_files_of_one_moment_are_told_apart_by_number() -> None:
    """9 is older than 10."""
    files = [Old(f"a.{n}", 1, NOW) for n in (10, 9, 11)]
    assert Keep(1).surplus(files, NOW) == ["a.9", "a.10"]


@pytest.mark.parametrize(
    ("pattern", "first", "second"),
    [
        ("access_%Y-%m-%d.log", "access_2026-11-20.log", "access_2026-11-20.1.log"),
        ("access.log-%Y%m%d", "access.log-20261120", "access.log-20261120.1"),
        ("%F", "2026-11-20", "2026-11-20.1"),
        ("a-{n}-%Y.log", "a-0-2026.log", "a-1-2026.log"),
        ("100%%.log", "100%.log", "100%.1.log"),
        ("w%G-%V.%u.log", "w2026-47.5.log", "w2026-47.5.1.log"),
    ],
)
def test_names(pattern: str, first: str, second: str) -> None:
    """The counter stands before the log's suffix, or where the pattern has it."""
    names = Names(pattern, "access.log", UTC)
    assert names.name(NOW, 0) == first
    assert names.name(NOW, 1) == second
    assert names.match(first) == names.match(second) == "plain"
    assert names.match(f"{first}.gz") == names.match(f"{second}.zst") == "compressed"
    for other in ("access.log", f"{first}x", f"x{first}", f".{first}.gz.part", f"{first}.bak", ""):
        assert names.match(other) == ""


def test_numbers_go_on_after_the_highest() -> None:
    """Also when those before are gone, and when only compressed ones are left."""
    names = Names("a-%Y.log", "a.log", UTC)
    assert names.first_free(NOW, []) == 0
    assert names.first_free(NOW, ["a-2025.log", "a-2025.3.log", "b", "a-2026.log.old"]) == 0
    assert names.first_free(NOW, ["a-2026.log"]) == 1
    assert names.first_free(NOW, ["a-2026.log.gz"]) == 1
    assert names.first_free(NOW, ["a-2026.9.log", "a-2026.10.log.gz"]) == 11
    numbered = Names("a.log.{n}", "a.log", UTC)
    assert numbered.first_free(NOW, []) == 1
    assert numbered.first_free(NOW, ["a.log.1.gz", "a.log.2", "a.log"]) == 3


@given(
    st.floats(0, 4e9),
    st.integers(0, 10**6),
    st.sampled_from(["a_%Y-%m-%d.log", "a.log-%s", "%H.%j{n}x", "a.log.{n}", "%y%W"]),
)
def test_a_name_is_recognised(when: float, number: int, pattern: str) -> None:
    """Every name that a pattern gives is one that it matches, and the next is free."""
    names = Names(pattern, "a.log", UTC)
    name = names.name(when, number)
    assert names.match(name) == "plain"
    assert names.match(f"{name}.gz") == "compressed"
    free = names.first_free(when, [name, f"{name}.gz"])
    assert free == number + 1
    assert names.name(when, free) != name


@pytest.mark.parametrize(
    "pattern", ["", "a/b", "..", "access.log", "a\0", "%Q.log", "%x.log", "50%", "a-%Y-%b.log"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    """A folder, the log itself, or a directive that depends on the locale."""
    with pytest.raises(UsageError, match=r"^rotate\.name: "):
        Names(pattern, "access.log")


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ({"every": "minutely"}, "access-2026-11-20T1331.log"),
        ({"every": "hourly"}, "access-2026-11-20T13.log"),
        ({"every": "daily"}, "access-2026-11-20.log"),
        ({"every": "03:30", "size": "1GB"}, "access-2026-11-20.log"),
        ({"every": "weekly"}, "access-2026-11-16.log"),
        ({"every": "monthly"}, "access-2026-11.log"),
        ({"every": "yearly"}, "access-2026.log"),
        ({"every": 15}, "access-2026-11-20T133145.log"),
        ({"size": "1GB"}, "access.log.0"),
        ({"size": "1GB", "name": "a-%H%M%S"}, "a-133159"),
    ],
)
def test_the_default_names_are_as_fine_as_the_schedule(rules: dict[str, Any], name: str) -> None:
    """And tell the period that the lines are of."""
    made = Rotation.of(**rules, timezone="utc")
    assert made.names("access.log").name(made.period(NOW), 0) == name


def test_odd_names_of_logs() -> None:
    """A percent sign in the log's own name is no directive."""
    rules = Rotation.of(every="daily", timezone="utc")
    assert rules.names("100%d").name(NOW, 0) == "100%d-2026-11-20"
    assert rules.names(".hidden").name(NOW, 2) == ".hidden-2026-11-20.2"


def test_by_size_alone_no_time_ends_a_file() -> None:
    """And the name tells of when it was begun."""
    rules = Rotation.of(size=1)
    assert rules.ends(NOW) == float("inf")
    assert rules.period(NOW) == NOW


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({}, "rotate: "),
        ({"keep": 3}, "rotate: "),
        ({"every": "dayly"}, "rotate.every: "),
        ({"every": 0}, "rotate.every: "),
        ({"every": True}, "rotate.every: "),
        ({"every": "24:00"}, "rotate.every: "),
        ({"size": "big"}, "rotate.size: "),
        ({"size": 1, "compress": "rar"}, "rotate.compress: "),
        ({"size": 1, "current": "copy"}, "rotate.current: "),
        ({"size": 1, "timezone": "Mars/Base"}, "rotate.timezone: "),
        ({"size": 1, "timezone": "../etc"}, "rotate.timezone: "),
        ({"size": 1, "name": "a/b"}, "rotate.name: "),
        ({"size": 1, "keep": "some"}, "rotate.keep: "),
    ],
)
def test_what_cannot_be(rules: dict[str, Any], key: str) -> None:
    """The error begins with the key."""
    with pytest.raises(UsageError) as caught:
        Rotation.of(**rules)
    assert str(caught.value).startswith(key)


@pytest.mark.parametrize(
    ("given", "method"), [(None, ""), (False, ""), (True, "gzip"), ("gzip", "gzip")]
)
def test_compress(given: Any, method: str) -> None:
    """True is gzip."""
    assert Rotation.of(size=1, compress=given).compress == method
