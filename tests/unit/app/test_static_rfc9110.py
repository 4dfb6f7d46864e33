"""Conditions and ranges of a folder's files, as a table: RFC 9110 sections 13, 14 and 15.

Each row is asked of a file in memory and of one that is read as it is sent; the answer has to be
the same to the last byte.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.conditional import MAX_RANGES, select_ranges
from h2log.app.headers import Headers
from h2log.app.static import SMALL, StaticFolder
from h2log.clock import http_date
from tests.unit.app.asking import CACHE, Reply, ask

WHEN: Final = 1_700_000_000
SAME, BEFORE, AFTER = (http_date(WHEN + d) for d in (0, -10, 10))
TAG, OTHER = "TAG", '"other"'  # TAG stands for the file's own
SIZES: Final = {"small": 1000, "large": SMALL + 1000}
"""In memory, and read as it is sent."""


def content(size: int) -> bytes:
    """Return bytes that tell where they are."""
    return bytes((at * 7 + at // 251) % 256 for at in range(size))


Spans = tuple[tuple[int, int], ...]


class Row(NamedTuple):
    """One request: where the rule stands, its fields, and what it is answered."""

    section: str
    fields: dict[str, str]
    status: int
    spans: Spans = ()
    method: str = "GET"


def row(section: str, status: int, *spans: tuple[int, int], method: str = "GET", **f: str) -> Row:
    """Return a row; keywords are fields, negative places are from the end."""
    return Row(section, f, status, spans, method)


TABLE: Final = [
    # 13.1.1 If-Match: strong comparison
    row("13.1.1", 200, if_match=TAG),
    row("13.1.1", 200, if_match="*"),
    row("13.1.1", 200, if_match=f"{OTHER}, {TAG}"),
    row("13.1.1", 412, if_match=OTHER),
    row("13.1.1", 412, if_match=f"W/{TAG}"),
    row("13.1.1", 412, if_match=""),
    row("13.1.1", 412, if_match=OTHER, method="HEAD"),
    # 13.1.2 If-None-Match: weak comparison
    row("13.1.2", 304, if_none_match=TAG),
    row("13.1.2", 304, if_none_match=f"W/{TAG}"),
    row("13.1.2", 304, if_none_match="*"),
    row("13.1.2", 304, if_none_match=f"{OTHER},{TAG}"),
    row("13.1.2", 200, if_none_match=OTHER),
    row("13.1.2", 200, if_none_match="TAG-without-quotes"),
    row("13.1.2", 304, if_none_match=TAG, method="HEAD"),
    # 13.1.3 If-Modified-Since
    row("13.1.3", 304, if_modified_since=SAME),
    row("13.1.3", 304, if_modified_since=AFTER),
    row("13.1.3", 200, if_modified_since=BEFORE),
    row("13.1.3", 200, if_modified_since="yesterday"),
    row("13.1.3", 200, if_modified_since=""),
    row("13.1.3", 304, if_modified_since="Tuesday, 14-Nov-23 22:13:20 GMT"),
    row("13.1.3", 304, if_modified_since="Tue Nov 14 22:13:20 2023"),
    row("13.1.3", 200, if_none_match=OTHER, if_modified_since=AFTER),
    row("13.1.3", 304, if_modified_since=SAME, method="HEAD"),
    # 13.1.4 If-Unmodified-Since
    row("13.1.4", 200, if_unmodified_since=SAME),
    row("13.1.4", 200, if_unmodified_since=AFTER),
    row("13.1.4", 412, if_unmodified_since=BEFORE),
    row("13.1.4", 200, if_unmodified_since="never"),
    row("13.1.4", 200, if_match=TAG, if_unmodified_since=BEFORE),
    # 13.2.2 the order
    row("13.2.2", 412, if_match=OTHER, if_none_match=TAG),
    row("13.2.2", 304, if_match=TAG, if_none_match=TAG),
    row("13.2.2", 412, if_unmodified_since=BEFORE, if_modified_since=AFTER),
    row("13.2.2", 304, if_none_match=TAG, if_modified_since=BEFORE),
    row("13.2.2", 304, if_none_match=TAG, range="bytes=0-9"),
    row("13.2.2", 412, if_match=OTHER, range="bytes=0-9"),
    row("13.2.2", 412, if_match=OTHER, range="bytes=99999999-"),
    row("13.2.2", 206, (0, 9), if_none_match=OTHER, range="bytes=0-9"),
    row("13.2.2", 206, (0, 9), if_match=TAG, range="bytes=0-9"),
    # 13.1.5 If-Range: strong comparison, exact date
    row("13.1.5", 206, (0, 9), range="bytes=0-9", if_range=TAG),
    row("13.1.5", 200, range="bytes=0-9", if_range=OTHER),
    row("13.1.5", 200, range="bytes=0-9", if_range=f"W/{TAG}"),
    row("13.1.5", 206, (0, 9), range="bytes=0-9", if_range=SAME),
    row("13.1.5", 200, range="bytes=0-9", if_range=BEFORE),
    row("13.1.5", 200, range="bytes=0-9", if_range=AFTER),
    row("13.1.5", 200, range="bytes=0-9", if_range="nonsense"),
    row("13.1.5", 200, if_range=TAG),
    row("13.1.5", 200, range="bytes=99999999-", if_range=OTHER),
    row("13.1.5", 416, range="bytes=99999999-", if_range=TAG),
    row("13.1.5", 206, (0, 9), (500, 509), range="bytes=0-9,500-509", if_range=TAG),
    # 14.1.2 one byte range
    row("14.1.2", 206, (0, 0), range="bytes=0-0"),
    row("14.1.2", 206, (0, 99), range="bytes=0-99"),
    row("14.1.2", 206, (500, 599), range="bytes=500-599"),
    row("14.1.2", 206, (900, -1), range="bytes=900-"),
    row("14.1.2", 206, (-10, -1), range="bytes=-10"),
    row("14.1.2", 206, (0, -1), range="bytes=-999999999"),
    row("14.1.2", 206, (0, -1), range="bytes=0-"),
    row("14.1.2", 206, (990, -1), range="bytes=990-999999999"),
    row("14.1.2", 206, (1, 2), range="BYTES = 1-2"),
    row("14.1.2", 206, (1, 2), range="bytes=001-0002"),
    row("14.1.2", 200, range="bytes=5-4"),
    row("14.1.2", 200, range="bytes=0-1,5-4"),
    row("14.1.2", 200, range="bytes=a-b"),
    row("14.1.2", 200, range="bytes=-"),
    row("14.1.2", 200, range="bytes="),
    row("14.1.2", 200, range="bytes=,"),
    row("14.1.2", 200, range="bytes=1- 2"),
    row("14.1.2", 200, range="bytes=0-9;x"),
    # 14.2 what else is ignored
    row("14.2", 200, range="lines=0-9"),
    row("14.2", 200, range="0-9"),
    row("14.2", 200, range=""),
    row("14.2", 200, range="bytes=0-9", method="HEAD"),
    row("14.2", 200, range="bytes=" + ",".join(["0-9"] * (MAX_RANGES + 1))),
    # 15.5.17 none of it is there
    row("15.5.17", 416, range="bytes=99999999-"),
    row("15.5.17", 416, range="bytes=99999999-999999999"),
    row("15.5.17", 416, range="bytes=-0"),
    row("15.5.17", 416, range="bytes=99999999-,-0"),
    # 15.3.7.2 several ranges: in the order asked for, but for those that are merged
    row("15.3.7.2", 206, (0, 9), (200, 209), range="bytes=0-9,200-209"),
    row("15.3.7.2", 206, (200, 209), (0, 9), range="bytes=200-209, 0-9"),
    row("15.3.7.2", 206, (0, 0), (-1, -1), range="bytes=0-0,-1"),
    row("15.3.7.2", 206, (300, 309), (0, 9), (600, 609), range="bytes=300-309,0-9,,600-609"),
    row("15.3.7.2", 206, (0, 9), range="bytes=0-9,99999999-"),
    row("15.3.7.2", 206, (0, 9), (200, 209), range="bytes=0-9,99999999-,200-209,-0"),
    row("15.3.7.2", 206, (0, 29), range="bytes=0-9,20-29"),
    row("15.3.7.2", 206, (0, 99), range="bytes=0-9,89-99"),
    row("15.3.7.2", 206, (0, 9), (90, 99), range="bytes=0-9,90-99"),
    row("15.3.7.2", 206, (0, 19), range="bytes=0-9,10-19"),
    row("15.3.7.2", 206, (0, 19), range="bytes=5-19,0-9"),
    row("15.3.7.2", 206, (0, 99), range="bytes=0-99,20-30"),
    row("15.3.7.2", 206, (500, 549), (0, 29), range="bytes=500-509,0-9,540-549,20-29"),
    row("15.3.7.2", 206, (0, -1), range="bytes=0-,-1,5-6"),
    row("15.3.7.2", 206, (0, 9), range="bytes=" + ",".join(["0-9"] * MAX_RANGES)),
]


def test_the_table_is_long_enough() -> None:
    """At least sixty rows, none twice."""
    assert len({repr(one) for one in TABLE}) == len(TABLE) >= 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file of each kind."""
    root = tmp_path_factory.mktemp("site")
    for name, size in SIZES.items():
        path = root / f"{name}.bin"
        path.write_bytes(content(size))
        os.utime(path, (WHEN, WHEN))
    (root / "empty.bin").write_bytes(b"")
    os.utime(root / "empty.bin", (WHEN, WHEN))
    return root


def parts_of(reply: Reply) -> list[tuple[str, str, bytes]]:
    """Return the parts of a multipart/byteranges: type, range, content."""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})",
                         reply.headers["content-type"])  # fmt: skip
    assert match is not None
    boundary = match[1].encode()
    first, *parts, last = reply.body.split(b"--" + boundary)
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        assert set(fields) == {"content-type", "content-range"}
        assert part.startswith(b"\r\n")
        assert body.endswith(b"\r\n")
        found.append((fields["content-type"], fields["content-range"], body[:-2]))
    return found


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("one", TABLE, ids=lambda one: f"{one.section}-{one.status}")
async def test_rfc9110(site: Path, kind: str, one: Row) -> None:
    """The status, the fields and the bytes, before the file is in memory and after."""
    whole = content(SIZES[kind])
    length = len(whole)
    target = f"/{kind}.bin"
    folder = StaticFolder(site, "/", CACHE)
    plain = await ask(StaticFolder(site, "/", CACHE), target)
    etag = plain.headers["etag"]
    fields: dict[str, Any] = {name: value.replace(TAG, etag) for name, value in one.fields.items()}
    spans = [(a % length, b % length) for a, b in one.spans]
    for _ in range(2):
        reply = await ask(folder, target, one.method, **fields)
        assert reply.status == one.status
        if one.status == 200:
            assert (reply.headers, reply.body) == (plain.headers, whole)
            assert reply.condition == ""
        elif one.status == 304:  # section 15.4.5
            assert reply.body == b""
            assert set(reply.headers) == {"etag", "cache-control", "x-content-type-options"}
            assert reply.headers["etag"] == etag
        elif one.status == 416:
            assert reply.headers == {"content-range": f"bytes */{length}"}
            assert reply.condition == "range"
        elif one.status == 206 and len(spans) == 1:
            [(first, last)] = spans
            assert reply.body == whole[first : last + 1]
            span = {"content-range": f"bytes {first}-{last}/{length}"}
            assert reply.headers == plain.headers | span
            assert reply.condition == "range"
        elif one.status == 206:
            assert "content-range" not in reply.headers
            assert parts_of(reply) == [
                ("application/octet-stream", f"bytes {a}-{b}/{length}", whole[a : b + 1])
                for a, b in spans
            ]
            if "content-length" in reply.headers:
                assert reply.headers["content-length"] == str(len(reply.body))
            assert reply.headers["etag"] == etag
        else:
            assert reply.condition == ("etag" if "if_match" in fields else "date")


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-1,0-5"])
async def test_an_empty_file_has_no_ranges(site: Path, asked: str) -> None:
    """All of it is sent, as RFC 9110 section 14.2 allows: who asks for the last lines of a file
    that is empty yet has made no mistake."""
    folder = StaticFolder(site, "/", CACHE)
    for _ in range(2):
        reply = await ask(folder, "/empty.bin", range=asked)
        assert (reply.status, reply.body) == (200, b"")
        assert "content-range" not in reply.headers


async def test_rfc9110_8_8_2_2(site: Path) -> None:
    """A date of this very second may be two versions': no range by it, a tag is as good as ever."""
    path = site / "fresh.bin"
    path.write_bytes(content(100))
    folder = StaticFolder(site, "/", CACHE)
    future = http_date(path.stat().st_mtime + 3600)
    os.utime(path, (path.stat().st_mtime + 3600,) * 2)
    plain = await ask(folder, "/fresh.bin")
    assert (await ask(folder, "/fresh.bin", range="bytes=0-9", if_range=future)).status == 200
    tag = plain.headers["etag"]
    assert (await ask(folder, "/fresh.bin", range="bytes=0-9", if_range=tag)).status == 206


@pytest.mark.parametrize("size", [100, SMALL + 1])
async def test_rfc9110_8_8_2_1(tmp_path: Path, size: int) -> None:
    """A date to come is sent as now, and what a client sends back is compared with what was sent:
    the file has not been modified since then."""
    path = tmp_path / "ahead.bin"
    path.write_bytes(content(size))
    os.utime(path, (4e9, 4e9))
    folder = StaticFolder(tmp_path, "/", CACHE)
    sent = (await ask(folder, "/ahead.bin")).headers["last-modified"]
    assert sent != http_date(4e9)
    for _ in range(2):
        assert (await ask(folder, "/ahead.bin", if_modified_since=sent)).status == 304
        assert (await ask(folder, "/ahead.bin", if_unmodified_since=sent)).status == 200
        assert (await ask(folder, "/ahead.bin", if_unmodified_since=BEFORE)).status == 412


def headers(value: str) -> Headers:
    """Return a Range."""
    return Headers([(b"range", value.encode("latin-1"))])


SPEC: Final = st.one_of(
    st.tuples(st.integers(0, 600), st.integers(0, 600)).map(
        lambda pair: f"{min(pair)}-{max(pair)}"
    ),
    st.integers(0, 600).map(lambda first: f"{first}-"),
    st.integers(0, 600).map(lambda last: f"-{last}"),
)


@given(st.lists(SPEC, min_size=1, max_size=12), st.integers(1, 500))
def test_ranges_are_what_was_asked_for(specs: list[str], length: int) -> None:
    """Every byte that was asked for and is there, at most 80 more between two, none twice."""
    wanted: set[int] = set()
    for spec in specs:
        first, _, last = spec.partition("-")
        if not first:
            wanted |= set(range(max(0, length - int(last)), length))
        else:
            wanted |= set(range(int(first), min(int(last or length) + 1, length)))
    found = select_ranges(headers("bytes=" + ",".join(specs)), '"v"', 0, length)
    assert found is not None
    sent = [at for first, last in found for at in range(first, last + 1)]
    assert len(sent) == len(set(sent))
    assert wanted <= set(sent)
    for at in set(sent) - wanted:
        assert any(at - d in wanted for d in range(1, 81))
        assert any(at + d in wanted for d in range(1, 81))
    ordered = sorted(found)
    for one, other in pairwise(ordered):
        assert other[0] - one[1] > 80


@given(st.text(st.sampled_from("bytes=0123456789-, \t;x"), max_size=40))
def test_no_range_breaks_the_reader(value: str) -> None:
    """Whatever is sent is ranges inside the content, or is ignored."""
    found = select_ranges(headers(value), '"v"', 0, 100)
    assert found is None or all(0 <= first <= last < 100 for first, last in found)
