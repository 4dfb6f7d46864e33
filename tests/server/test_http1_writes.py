"""What an HTTP/1.1 connection writes: joined, framed, and never more or less than was declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from h2log.access.exchange import Exchange
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.clock import monotonic
from h2log.config import build
from h2log.server.content import ContentBuffer
from h2log.server.dispatch import Dispatcher
from h2log.server.heads import response_head
from h2log.server.http1_head import FieldFacts, Http1Head
from h2log.server.http1_leg import Http1Leg
from h2log.server.http1_reply import Http1Reply
from h2log.server.session import Shared
from tests.server.http1_conversation import Line, answering

GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


class Served:
    """A leg on a line in memory."""

    def __init__(self, app: App, **limits: float) -> None:
        self.records: list[AccessRecord] = []
        self.shared = Shared(
            Dispatcher(app),
            build({"limits": limits}, "the test's limits").limits,
            self.records.append,
        )
        self.session = Session("0" * 32, "192.0.2.1", 1, 0.0, self.records.append, monotonic())
        self.shared.accepted(self.session)
        self.line = Line()
        self.leg = Http1Leg(self.session, self.shared, secure=False)
        self.leg.connection_made(self.line)

    def reply(self, method: str = "GET", *fields: tuple[bytes, bytes]) -> Http1Reply:
        """Return the reply to a request that is being answered."""
        head = Http1Head(method, "/", "http", "a", FieldFacts(((b"host", b"a"), *fields)))
        exchange = Exchange(self.session, head, "1" * 32, 1, 0.0, monotonic())
        made = self.leg._reply = Http1Reply(self.leg, exchange, persists=True)
        return made

    @property
    def text(self) -> bytes:
        """What was written."""
        return b"".join(self.line.writes)

    @property
    def content(self) -> bytes:
        """What was written behind the first header section."""
        return self.text.partition(b"\r\n\r\n")[2]


async def test_requests_that_come_together_are_answered_together() -> None:
    """A hundred of them: one write, and each has its line when it was written."""
    served = Served(answering())
    served.leg.data_received(GET % b"/now" * 100)
    assert len(served.line.writes) == 1
    assert served.text.count(b"HTTP/1.1 200 OK\r\n") == 100
    assert [record.outcome for record in served.records] == [Outcome.COMPLETE] * 100


async def test_no_more_is_gathered_than_the_transport_takes() -> None:
    """A client that asks for much and reads nothing: what it has asked for waits."""
    app = App()

    @app.get("/large")
    def large(request: Request) -> Response:
        return Response(bytes(50_000))

    served = Served(app)
    write = served.line.write

    def full(data: bytes) -> None:
        write(data)
        served.leg.pause_writing()

    served.line.write = full  # type: ignore[method-assign]
    served.leg.data_received(GET % b"/large" * 100)
    assert 50_000 < len(served.text) < 200_000
    assert served.session.requests == len(served.records) < 5
    served.line.write = write  # type: ignore[method-assign]
    served.leg.resume_writing()
    assert len(served.records) == 100
    assert len(served.text) > 5_000_000


async def test_a_response_from_a_task_is_one_write() -> None:
    """Its header and its content go out together, also in several pieces of one turn."""
    app = App()

    @app.get("/later")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.text("later")

    served = Served(app)
    served.leg.data_received(GET % b"/later")
    while not served.records:
        await asyncio.sleep(0)
    assert len(served.line.writes) == 1
    reply = served.reply()
    reply.start_head(response_head(200, []), end=False)
    for piece in (b"one", b"two", b"three"):
        reply.write(piece)
    assert len(served.line.writes) == 1
    await reply.drain()
    assert len(served.line.writes) == 2
    reply.write(b"four", end=True)
    assert len(served.line.writes) == 3
    assert served.text.endswith(
        b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n4\r\nfour\r\n0\r\n\r\n"
    )


async def test_what_nobody_waits_for_goes_out_with_the_turn() -> None:
    """A handler that never waits for room does not keep what it has written."""
    served = Served(answering())
    reply = served.reply()
    reply.start_head(response_head(200, []), end=False)
    reply.write(b"abc")
    assert not served.line.writes
    await asyncio.sleep(0)
    assert served.content == b"3\r\nabc\r\n"


async def test_pieces_that_are_large_are_not_copied_together() -> None:
    """They go out by themselves, in their order."""
    served = Served(answering())
    reply = served.reply()
    reply.start_head(response_head(200, [(b"content-length", b"200003")]), end=False)
    reply.write(b"abc")
    reply.write(bytes(100_000))
    reply.write(bytes(100_000), end=True)
    assert [len(data) for data in served.line.writes[1:]] == [100_000, 100_000]
    assert len(served.content) == 200_003
    assert served.session.sent == len(served.text)


# Framing: RFC 9112 section 6


@pytest.mark.parametrize(
    ("method", "status", "fields", "body", "framing", "content"),
    [
        ("GET", 200, [], b"abc", b"content-length: 3", b"abc"),
        ("GET", 200, [], b"", b"content-length: 0", b""),
        ("GET", 200, [(b"Content-Length", b"3")], b"abc", b"content-length: 3", b"abc"),
        ("HEAD", 200, [(b"content-length", b"3")], b"", b"content-length: 3", b""),
        ("HEAD", 200, [], b"", b"transfer-encoding: chunked", b""),
        ("GET", 204, [(b"content-length", b"0")], b"", b"", b""),
        ("GET", 304, [(b"content-length", b"3")], b"", b"content-length: 3", b""),
        ("GET", 304, [], b"", b"", b""),
    ],
)
async def test_a_whole_response(
    method: str,
    status: int,
    fields: list[tuple[bytes, bytes]],
    body: bytes,
    framing: bytes,
    content: bytes,
) -> None:
    """Says once, or not at all where there is none, how its content ends."""
    served = Served(answering())
    reply = served.reply(method)
    reply.whole(response_head(status, fields), body)
    section, _, rest = served.text.partition(b"\r\n\r\n")
    lines = section.split(b"\r\n")[1:]
    kinds = (b"content-length:", b"transfer-encoding:")
    assert [line for line in lines if line.startswith(kinds)] == ([framing] if framing else [])
    assert rest == content
    [record] = served.records
    assert (record.status, record.sent) == (status, len(content))
    assert record.header_sent == len(section) + 4


async def test_trailers_for_those_who_want_them() -> None:
    """Behind the last chunk; for others the response ends without."""
    for wishes, end in (
        ([], b"0\r\n\r\n"),
        ([(b"te", b"gzip, Trailers;q=1")], b"0\r\nx-end: yes\r\n\r\n"),
    ):
        served = Served(answering())
        reply = served.reply("GET", *wishes)
        reply.start_head(response_head(200, []), end=False)
        reply.write(b"abc")
        reply.finish([("x-end", "yes")])
        assert served.content == b"3\r\nabc\r\n" + end


async def test_more_or_less_than_was_declared() -> None:
    """Is refused before it is sent: what follows would be taken for another response."""
    served = Served(answering())
    with pytest.raises(ValueError, match="5 bytes of content, not its content-length of 3"):
        served.reply().whole(response_head(200, [(b"content-length", b"3")]), b"abcde")
    reply = served.reply()
    reply.start_head(response_head(200, [(b"content-length", b"3")]), end=False)
    with pytest.raises(ValueError, match="beyond its content-length, by 2 bytes"):
        reply.write(b"abcde")
    reply.write(b"ab")
    with pytest.raises(ValueError, match="1 bytes less than its content-length"):
        reply.write(b"", end=True)
    reply.abort()
    assert served.line.end == "cut"


async def test_a_tunnel_that_nobody_asked_for_is_closed() -> None:
    """After a 2xx a client takes all that follows for its tunnel's (RFC 9110 section 9.3.6)."""
    served = Served(answering())
    served.reply("CONNECT").whole(response_head(200, []), b"")
    assert b"\r\nconnection: close\r\n" in served.text
    assert served.line.end == "eof"


async def test_an_unread_stream_is_lifted() -> None:
    """What a switched connection was given before the switch is there to be read."""
    content = ContentBuffer(3, 0.01, 0, lambda size: None)
    content.end()
    assert await content.read() == b""
    content.lift()
    content.feed(b"more than three")
    assert await content.read() == b"more than three"


# Files that are kept in memory


def told(record: AccessRecord) -> tuple[object, ...]:
    """Return what a record says of the response."""
    assert record.response is not None
    return (record.status, record.cache, record.sent, sorted(record.response.headers))


async def test_a_kept_file_is_the_same_either_way(tmp_path: Path) -> None:
    """By the short way, or by that of everything else, as a HEAD or a last request takes it."""
    (tmp_path / "page.html").write_bytes(b"page" * 1000)
    app = App()
    app.static(tmp_path)
    served = Served(app)
    for _ in range(2):
        served.leg.data_received(GET % b"/page.html")
        while served.leg._reply is not None:
            await asyncio.sleep(0)
    served.line.writes.clear()
    served.records.clear()
    served.leg.data_received(GET % b"/page.html?x=1")
    assert served.leg._reply is None
    short, body = served.text.split(b"\r\n\r\n", 1)
    assert body == b"page" * 1000
    served.line.writes.clear()
    served.leg.data_received(b"GET /page.html?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    while len(served.records) < 2:
        await asyncio.sleep(0)
    long, body = served.text.split(b"\r\n\r\n", 1)
    assert body == b"page" * 1000
    names = [line.partition(b":")[0] for line in short.split(b"\r\n")]
    assert [*names, b"connection"] == [line.partition(b":")[0] for line in long.split(b"\r\n")]
    assert told(served.records[0]) == told(served.records[1])


async def test_a_stream_of_pieces_in_its_order() -> None:
    """An iterator's pieces arrive as it gave them, each as soon as there is room."""
    app = App()

    @app.get("/pieces")
    async def pieces(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for number in range(5):
                yield b"%d" % number
                await asyncio.sleep(0)

        return Response(body())

    served = Served(app)
    served.leg.data_received(GET % b"/pieces")
    while not served.records:
        await asyncio.sleep(0)
    assert served.content == b"".join(b"1\r\n%d\r\n" % n for n in range(5)) + b"0\r\n\r\n"
    assert len(served.line.writes) == 7
