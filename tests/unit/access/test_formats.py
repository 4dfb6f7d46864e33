"""The default line: seven columns, exact, whatever was asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from h2log.access.formats import h2log_format
from h2log.access.lines import parse
from h2log.access.record import AccessRecord, Outcome, Session

SESSION: Final = "0193a0b1c2d37e4f8a9b0c1d2e3f4a5b"
REQUEST: Final = "0193a0b1c2d47e4f8a9b0c1d2e3f4a5c"
WALL: Final = datetime(2026, 11, 20, 13, 31, 59, 125000, UTC).timestamp()

latin_1 = st.binary().map(lambda raw: raw.decode("latin-1"))


@dataclass(frozen=True)
class Facts:
    """What was asked."""

    method: str = "GET"
    path: str = "/a"
    scheme: str = "https"
    authority: str = "localhost:8443"
    fields: tuple[tuple[bytes, bytes], ...] = ()


def record(
    *,
    facts: Facts | None = None,
    wall: float = WALL,
    start: float = 100.0,
    end: float = 100.0,
    status: int = 200,
    protocol: str = "h2",
) -> AccessRecord:
    """Return a finished record."""
    session = Session(SESSION, "192.0.2.1", 40000, wall, lambda _: None)
    session.protocol = protocol
    made = AccessRecord(session, facts or Facts(), REQUEST, 1, wall, start)
    made.status, made.end, made.outcome = status, end, Outcome.COMPLETE
    return made


def columns(made: AccessRecord) -> list[str]:
    """Return the columns of a record's line, which ends with its one newline."""
    line = h2log_format()(made)
    assert line.endswith("\n")
    return line[:-1].split("\t")


def test_a_line_is_exactly_this() -> None:
    """The seven columns of the documentation, byte for byte."""
    facts = Facts(path="/article/a2e12610/06-request.html")
    line = h2log_format()(record(facts=facts, end=100.0078125))
    assert line == (
        "2026-11-20T13:31:59.125+00:00\t200\t7.812\t"
        f"{SESSION}\t{REQUEST}\th2\t/article/a2e12610/06-request.html\n"
    )


@pytest.mark.parametrize(("status", "shown"), [(0, "-"), (100, "100"), (200, "200"), (599, "599")])
def test_no_response_is_a_dash(status: int, shown: str) -> None:
    """A request without a response has no status."""
    made = columns(record(status=status))
    assert made[1] == shown
    assert parse("\t".join(made)).status == (status or None)


def test_a_request_that_has_only_arrived_has_no_milliseconds() -> None:
    """A dash in their column, which a request that has ended never has."""
    made = columns(record(facts=Facts(path="/a?b=c")).opening())
    assert made == ["2026-11-20T13:31:59.125+00:00", "-", "-", SESSION, REQUEST, "h2", "/a?b=c"]
    assert parse("\t".join(made)).milliseconds is None


def test_paths_that_come_again_are_masked_again() -> None:
    """What is remembered of a path is what may be seen of it."""
    line = h2log_format()
    for _ in range(3):
        for path in ("/a", "/a?token=4711", "/a?token=4712"):
            shown = line(record(facts=Facts(path=path))).rpartition("\t")[2]
            assert shown == ("/a\n" if path == "/a" else "/a?token=REDACTED\n")


@pytest.mark.parametrize("protocol", ["h2", "1.1", "1.0", "-"])
def test_the_version_is_the_session_s(protocol: str) -> None:
    """Each protocol has its word, also none."""
    assert columns(record(protocol=protocol))[5] == protocol


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.000"),
        (2**-11, "0.488"),
        (2**-12, "0.244"),
        (0.0004, "0.400"),
        (0.0000004, "0.000"),
        (0.0000006, "0.001"),
        (0.9999999, "1000.000"),
        (1.0, "1000.000"),
        (61.5, "61500.000"),
        (864000.0, "864000000.000"),
    ],
)
def test_milliseconds_have_three_decimals(seconds: float, shown: str) -> None:
    """Microseconds, rounded; long requests are as exact."""
    assert columns(record(start=0.0, end=seconds))[2] == shown


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(0.0, "000"), (0.0009, "000"), (0.0625, "062"), (0.5, "500"), (0.9996, "999")],
)
def test_a_timestamp_never_runs_ahead(fraction: float, shown: str) -> None:
    """The millisecond is the one that has begun: .9996 is .999, and not the next second."""
    assert columns(record(wall=int(WALL) + fraction))[0] == f"2026-11-20T13:31:59.{shown}+00:00"


def test_lines_of_many_seconds_have_each_their_own() -> None:
    """One format function serves records of a hundred seconds, in any order, and again."""
    line = h2log_format()
    base = int(WALL)
    order = [(n * 37) % 100 for n in range(100)] * 2
    for offset in order:
        stamp = parse(line(record(wall=base + offset + 0.25)).removesuffix("\n")).when
        assert stamp.timestamp() == base + offset + 0.25


def test_a_new_year_is_a_new_year() -> None:
    """The last millisecond of a year and the first of the next are written as such."""
    year = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert columns(record(wall=year - 2**-10))[0] == "2026-12-31T23:59:59.999+00:00"
    assert columns(record(wall=year))[0] == "2027-01-01T00:00:00.000+00:00"


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (Facts("CONNECT", "", authority="example.org:443"), "example.org:443"),
        (Facts("OPTIONS", "*"), "*"),
        (Facts("GET", "", authority=""), "-"),
        (Facts("", "", "", ""), "-"),
        (Facts("CONNECT", "", authority="a\tb\n"), "a\\x09b\\x0A"),
        (Facts(path="/a?b=c&d=%20"), "/a?b=c&d=%20"),
        (Facts(path="/a\\x41"), "/a\\x5Cx41"),
    ],
)
def test_what_stands_for_the_path(facts: Facts, shown: str) -> None:
    """The target; of a CONNECT the authority; a dash where nothing could be read."""
    assert columns(record(facts=facts))[6] == shown


@given(
    path=latin_1,
    status=st.sampled_from([0, 200, 206, 304, 404, 500, 599]),
    wall=st.floats(0, 4e9),
    start=st.floats(0, 1e7),
    took=st.floats(0, 1e6),
    protocol=st.sampled_from(["h2", "1.1", "1.0", "-"]),
)
@example("\t\n\r\x00\x1b[31m\x7f\x85\xa0\xff\\", 0, 0.0, 0.0, 0.0, "-")
@example("\\x0A", 200, WALL, 1.0, 0.5, "h2")
def test_any_record_is_one_line_that_reads_back(
    path: str, status: int, wall: float, start: float, took: float, protocol: str
) -> None:
    """Whatever bytes a client put into a path: one line, seven columns, and the same values."""
    made = record(
        facts=Facts(path=f"/{path}"),
        wall=wall,
        start=start,
        end=start + took,
        status=status,
        protocol=protocol,
    )
    line = h2log_format()(made)
    assert line.splitlines() == [line[:-1]]
    assert line.count("\t") == 6
    read = parse(line[:-1])
    assert read.path == f"/{path}"
    assert read.status == (status or None)
    assert read.milliseconds is not None
    assert read.milliseconds == pytest.approx(made.milliseconds, abs=0.0006)
    assert (read.session, read.request, read.version) == (SESSION, REQUEST, protocol)
    # A float of today's seconds is exact to a quarter of a microsecond.
    assert -1e-6 <= wall - read.when.timestamp() < 0.001 + 1e-6
