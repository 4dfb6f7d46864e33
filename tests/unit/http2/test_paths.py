"""Literal paths: what is remembered of them, and what never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from h2log.http2 import huffman
from h2log.http2.paths import known, path_of
from tests.protocol.frames import integer, string

PATH = 4


def literal(path: bytes, *, coded: bool = True) -> bytes:
    """Return `path` as a literal `:path` without indexing."""
    if not coded:
        return integer(PATH, 4) + string(path)
    return integer(PATH, 4) + string(huffman.encode(path), huffman=True)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Begin and end with nothing known: it is the process's."""
    known.clear()
    yield
    known.clear()


@pytest.mark.parametrize("coded", [True, False])
def test_what_comes_again_is_known(coded: bool) -> None:
    """Not yet at the first time, and as the same text from then on."""
    block = literal(b"/article/a2e12610/06-request.html?\xe9", coded=coded)
    path = path_of(block)
    assert path == "/article/a2e12610/06-request.html?\xe9"
    if block not in known:  # else another has been at its place at the door
        assert path_of(block) == path
    assert known[block] == path


def test_what_comes_once_does_not_fill_the_memory() -> None:
    """A crawler's thousands of paths leave next to none behind."""
    for number in range(3000):
        assert path_of(literal(b"/once/%d" % number)) == f"/once/{number}"
    assert len(known) < 1000


def test_the_memory_is_bounded() -> None:
    """What everybody asks for is forgotten when there is too much of it, and then learnt again."""
    for number in range(10_000):
        block = literal(b"/twice/%d" % number)
        for _ in range(2):
            assert path_of(block) == f"/twice/{number}"
        assert len(known) <= 4096
    long = literal(b"/" + b"x" * 1000)
    for _ in range(2):
        assert path_of(long) == "/" + "x" * 1000
    assert long not in known


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x04",
        b"\x44\x01/",  # indexed: the table's matter
        b"\x05\x01/",  # another name
        literal(b""),
        literal(b"*"),
        literal(b"no-slash"),
        literal(b"/a b"),
        literal(b"/a\r\nb"),
        literal(b"/\x00"),
        literal(b"/\x7f"),
        literal(b"/cut", coded=False)[:-1],
        literal(b"/more", coded=False) + b"\x82",
        b"\x04\x83\xff\xff\xff",  # nothing but padding
    ],
)
def test_what_is_no_such_literal_is_none(block: bytes) -> None:
    """And is not remembered, however often it comes."""
    for _ in range(3):
        assert path_of(block) is None
    assert block not in known
