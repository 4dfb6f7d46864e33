"""A request as a handler meets it."""

from __future__ import annotations

import asyncio

import pytest

from h2log.app.request import Request
from h2log.errors import HTTPError


class Pieces:
    """Content that comes in pieces; an exception among them is raised, each time again."""

    def __init__(self, *pieces: bytes | Exception, gate: asyncio.Event | None = None) -> None:
        self._pieces = list(pieces)
        self._gate = gate

    async def read(self) -> bytes:
        if self._gate is not None:
            await self._gate.wait()
        if not self._pieces:
            return b""
        piece = self._pieces[0]
        if isinstance(piece, Exception):
            raise piece
        del self._pieces[0]
        return piece


def request(target: str = "/", content: Pieces | None = None) -> Request:
    """Return a GET for `target`."""
    return Request(
        method="GET",
        target=target,
        scheme="https",
        authority="localhost",
        fields=((b"host", b"localhost"), (b"x-a", b"1")),
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=content,
    )


@pytest.mark.parametrize(
    ("target", "raw_path", "path"),
    [
        ("/a?b=c", "/a", "/a"),
        ("/a?b?c", "/a", "/a"),
        ("/?", "/", "/"),
        ("/a%20b", "/a%20b", "/a b"),
        ("/a%2Fb", "/a%2Fb", "/a/b"),
        ("/caf%C3%A9", "/caf%C3%A9", "/café"),
        ("/caf\xc3\xa9", "/caf\xc3\xa9", "/café"),
        ("/%E9", "/%E9", "/�"),
        ("/%zz%", "/%zz%", "/%zz%"),
        ("/a%3Fb?c", "/a%3Fb", "/a?b"),
        ("/a#b", "/a#b", "/a#b"),
        ("*", "*", "*"),
    ],
)
def test_a_target_is_a_path_and_a_query(target: str, raw_path: str, path: str) -> None:
    """The first question mark parts them; the path is decoded once, as UTF-8."""
    made = request(target)
    assert (made.target, made.raw_path, made.path) == (target, raw_path, path)


def test_fields_and_parameters_are_parsed_once() -> None:
    """Headers and query are made when they are asked for, and kept."""
    made = request("/a?b=c%26d")
    assert made.headers["Host"] == "localhost"
    assert made.headers is made.headers
    assert made.query["b"] == "c&d"
    assert made.query is made.query
    assert made.params == {}


def test_a_request_says_which_it_is() -> None:
    """Its ids are the log's, its repr names what was asked."""
    made = request("/a?b")
    assert (made.id, made.session_id, made.client) == ("r", "s", ("192.0.2.1", 40000))
    assert repr(made) == "<Request GET '/a?b' r>"


async def test_no_content_is_empty() -> None:
    """A request without content has an empty body and an empty stream."""
    assert await request().body() == b""
    assert [piece async for piece in request().stream()] == []


async def test_a_body_is_whole_and_stays() -> None:
    """The pieces are joined; asked again, they are the same bytes."""
    made = request(content=Pieces(b"a", b"bc", b"d"))
    assert await made.body() == b"abcd"
    assert await made.body() == b"abcd"


async def test_a_stream_gives_pieces_as_they_come() -> None:
    """Each piece is one of the content's, none is empty."""
    made = request(content=Pieces(b"a", b"bc", b"d"))
    assert [piece async for piece in made.stream()] == [b"a", b"bc", b"d"]


async def test_a_content_that_fails_fails_the_body() -> None:
    """413 and 408 come through to the handler."""
    made = request(content=Pieces(b"a", HTTPError(413)))
    with pytest.raises(HTTPError) as caught:
        await made.body()
    assert caught.value.status == 413


async def test_a_body_that_failed_does_not_become_an_empty_one() -> None:
    """Asked again after a 413, it is still too large, and not suddenly nothing."""
    made = request(content=Pieces(b"a", HTTPError(413)))
    with pytest.raises(HTTPError):
        await made.body()
    with pytest.raises(HTTPError):
        await made.body()


async def test_a_body_that_was_given_up_can_be_asked_for_again() -> None:
    """A handler that stops waiting for a body, and asks again, does not get an empty one."""
    gate = asyncio.Event()
    made = request(content=Pieces(b"ab", b"c", gate=gate))
    waiting = asyncio.create_task(made.body())
    await asyncio.sleep(0)  # a turn of the loop: it waits now
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await made.body() == b"abc"


async def test_two_that_want_the_body_get_the_same() -> None:
    """Tasks of one handler that ask at the same time both get the whole body."""
    gate = asyncio.Event()
    made = request(content=Pieces(b"ab", b"c", gate=gate))
    both = [asyncio.create_task(made.body()) for _ in range(2)]
    await asyncio.sleep(0)  # a turn of the loop: both have asked
    gate.set()
    assert await asyncio.gather(*both) == [b"abc", b"abc"]
