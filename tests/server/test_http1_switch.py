"""An upgrade of HTTP/1.1 (RFC 9110 section 7.8) makes the connection a stream of bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.app.asgi import AsgiApp, Receive, Scope, Send
from h2log.clock import monotonic
from h2log.server.asgi import AsgiHost, Head
from h2log.server.certificates import Certificates
from h2log.server.content import ContentBuffer
from h2log.server.heads import response_head
from h2log.server.http1_leg import Http1Leg
from h2log.server.reply import Reply
from tests.server.wire import Http1Client
from tests.support import Running, eventually

HEAD = response_head(200, [(b"X-Kind", b"tunnel"), (b"Upgrade", b"dropped")])
ASKS = b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

Play = Callable[[Reply, ContentBuffer], Awaitable[None]]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the kind of the scope."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["type"].encode()})


class TunnelHost(AsgiHost):
    """Gives the stream of every upgrade to `play`, and all else to the application."""

    def __init__(self, app: AsgiApp, play: Play) -> None:
        super().__init__(app)
        self.play = play
        self.lost: list[str] = []
        self.playing: list[asyncio.Future[None]] = []

    def serve(
        self,
        head: Head,
        exchange: Exchange,
        reply: Reply,
        content: ContentBuffer | None,
        kind: str,
    ) -> None:
        if kind == "http":
            super().serve(head, exchange, reply, content, kind)
            return
        assert content is not None
        reply.on_lost = lambda: self.lost.append(exchange.id)
        self.playing.append(asyncio.ensure_future(self.play(reply, content)))


async def echo(reply: Reply, content: ContentBuffer) -> None:
    """Accept, and send back what comes until it is `end`."""
    reply.switch(HEAD)
    while piece := await content.read():
        reply.write(piece)
        await reply.drain()
        if piece.endswith(b"end"):
            break
    reply.write(b"", end=True)


class Tunnels(Running):
    """A server of tunnels, started by `async with`."""

    def __init__(self, certs: Certificates | None, play: Play, **limits: Any) -> None:
        app = AsgiApp(hello, "hello", lifespan="off")
        super().__init__(app, certs, **limits)
        self.host = TunnelHost(app, play)
        self.shared.asgi = self.host

    @property
    def plain_leg(self) -> Http1Leg:
        """The only connection."""
        [leg] = self.shared.legs
        assert isinstance(leg, Http1Leg)
        return leg


async def switched(client: Http1Client) -> dict[str, str]:
    """Read the 101; return its fields."""
    answer = await client.answer()
    assert answer.status == 101
    return answer.headers


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
async def test_bytes_go_both_ways(certs: Certificates, secure: bool) -> None:
    """Those that came with the head, and those that follow: none of them is HTTP any more."""
    async with Tunnels(certs if secure else None, echo) as server:
        async with Http1Client.connect(server) as client:
            client.send(ASKS + b"GET /x HTTP/1.1\r\n\r\n")
            fields = await switched(client)
            assert (fields["connection"], fields["upgrade"]) == ("upgrade", "websocket")
            assert fields["x-kind"] == "tunnel"
            assert "date" in fields and "content-length" not in fields
            assert await client.reader.readexactly(19) == b"GET /x HTTP/1.1\r\n\r\n"
            for _ in range(3):
                client.send(b"\x00\r\n\r\n\xff")
                assert await client.reader.readexactly(6) == b"\x00\r\n\r\n\xff"
            assert not server.records
            client.send(b"end")
            assert await client.rest() == b"end"
        [record] = server.records
    assert (record.status, record.outcome) == (101, Outcome.COMPLETE)
    assert (record.received, record.sent) == (19 + 18 + 3, 19 + 18 + 3)
    assert record.id == fields["x-request-id"]


async def test_more_than_a_request_may_have(certs: Certificates) -> None:
    """Neither `max_body_bytes` nor `body_timeout` holds for a stream."""
    server = Tunnels(certs, echo, max_body_bytes=10, body_timeout=0.01)
    async with server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await switched(client)
        ticks: list[float] = []
        leg = server.plain_leg
        tick = leg.tick
        leg.tick = lambda now: (ticks.append(now), tick(now))[1]  # type: ignore[method-assign,func-returns-value]
        await eventually(lambda: ticks)
        client.send(bytes(1000) + b"end")
        assert len(await client.rest()) == 1003
    assert server.outcomes == {"COMPLETE": 1}


async def test_a_refusal_is_a_response(certs: Certificates) -> None:
    """The connection goes on, with what the client has sent behind its handshake."""

    async def refuse(reply: Reply, content: ContentBuffer) -> None:
        reply.whole(response_head(403, []), b"no")

    async with Tunnels(certs, refuse) as server, Http1Client.connect(server) as client:
        client.send(ASKS + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        refused = await client.answer()
        assert (refused.status, refused.body) == (403, b"no")
        assert (await client.answer()).body == b"http"
        assert (await client.get("/again")).body == b"http"
    assert [record.status for record in server.records] == [403, 200, 200]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgraded\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: 1\r\n\r\nx",
    ],
)
async def test_what_is_no_handshake(certs: Certificates, head: bytes) -> None:
    """An upgrade that is not wholly one (RFC 6455 section 4.2.1) is ignored."""
    async with Tunnels(certs, echo) as server, Http1Client.connect(server) as client:
        client.send(head)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"http")


async def test_lists_in_any_case_are_a_handshake(certs: Certificates) -> None:
    """As browsers and proxies write them."""
    async with Tunnels(certs, echo) as server, Http1Client.connect(server) as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
            b"Upgrade: h2c, WebSocket\r\n\r\nend"
        )
        await switched(client)
        assert await client.rest() == b"end"


async def test_a_peer_that_ends_its_side_is_still_answered() -> None:
    """Without TLS: the end is read as b"", and what is written behind it arrives."""

    async def late(reply: Reply, content: ContentBuffer) -> None:
        reply.switch(HEAD)
        assert await content.read() == b"question"
        assert await content.read() == b""
        assert not reply.closed
        reply.write(b"answer", end=True)

    async with Tunnels(None, late) as server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await switched(client)
        client.send(b"question")
        client.writer.write_eof()
        assert await client.rest() == b"answer"
    assert server.outcomes == {"COMPLETE": 1}


@pytest.mark.parametrize("secure", [False, True])
async def test_a_peer_that_is_lost(certs: Certificates, secure: bool) -> None:
    """The stream ends, whoever serves it is told, and is not cancelled; the line says PEER_LOST."""
    ended: list[bytes] = []

    async def listen(reply: Reply, content: ContentBuffer) -> None:
        reply.switch(HEAD)
        ended.append(await content.read())
        assert reply.closed
        reply.write(b"into the void", end=True)

    async with Tunnels(certs if secure else None, listen) as server:
        async with Http1Client.connect(server) as client:
            client.send(ASKS)
            await switched(client)
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
        await eventually(lambda: server.records and not server.host.tasks)
    assert ended == [b""]
    assert len(server.host.lost) == 1
    assert server.outcomes == {"PEER_LOST": 1}


async def test_a_stop_leaves_a_stream_its_time(certs: Certificates) -> None:
    """Draining does not end it, and the server waits for it."""
    async with Tunnels(certs, echo, patience=10) as server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await switched(client)
        stopping = asyncio.create_task(server.server.stop(10))
        await eventually(lambda: server.shared.draining)
        client.send(b"still here")
        assert await client.reader.readexactly(10) == b"still here"
        client.send(b"end")
        assert await client.rest() == b"end"
        await stopping
    assert server.outcomes == {"COMPLETE": 1}


async def test_a_stream_that_outlives_the_stop(certs: Certificates) -> None:
    """Is cut, and its line says SHUTDOWN."""
    async with Tunnels(certs, echo) as server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await switched(client)
        await server.server.stop(0)
        assert await client.rest() == b""
    assert server.outcomes == {"SHUTDOWN": 1}
    assert len(server.host.lost) == 1


async def test_what_nobody_reads_is_not_taken(certs: Certificates) -> None:
    """Reading stops while much is unread, and goes on when it was read."""
    gate = asyncio.Event()

    async def slow(reply: Reply, content: ContentBuffer) -> None:
        reply.switch(HEAD)
        await gate.wait()
        size = 0
        while size < 8_000_000:
            size += len(await content.read())
        reply.write(b"%d" % size, end=True)

    async with Tunnels(certs, slow) as server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await switched(client)
        client.send(bytes(8_000_000))
        leg = server.plain_leg
        await eventually(lambda: leg._paused)
        taken = leg._session.received
        assert taken < 1_000_000
        gate.set()
        assert await client.rest() == b"8000000"


async def test_a_peer_that_does_not_read(certs: Certificates) -> None:
    """Holds the writer up, and after `stall_timeout` its connection is cut: TIMEOUT."""
    written = 0

    async def flood(reply: Reply, content: ContentBuffer) -> None:
        nonlocal written
        reply.switch(HEAD)
        while not reply.closed:
            reply.write(bytes(100_000))
            written += 100_000
            await reply.drain()

    server = Tunnels(certs, flood, stall_timeout=0.05)
    async with server, Http1Client.connect(server) as client:
        client.send(ASKS)
        await eventually(lambda: server.records)
    assert server.outcomes == {"TIMEOUT": 1}
    assert written < 100_000_000


async def test_the_log_holds_a_stream_up(certs: Certificates) -> None:
    """While it has no room nothing is read of a stream either."""

    class Log:
        overloaded = False

        def __init__(self) -> None:
            self.room = asyncio.Event()

        async def ready(self) -> None:
            await self.room.wait()

    log = Log()
    async with Tunnels(certs, echo) as server, Http1Client.connect(server) as client:
        server.server.wait_for(log)
        client.send(ASKS)
        await switched(client)
        log.overloaded = True
        client.send(b"a")
        assert await client.reader.readexactly(1) == b"a"
        await eventually(lambda: server.shared.held)
        before = server.plain_leg._session.received
        client.send(b"b")
        await client.writer.drain()
        server.plain_leg.tick(monotonic())
        assert server.plain_leg._session.received == before
        log.overloaded = False
        log.room.set()
        assert await client.reader.readexactly(1) == b"b"
        client.send(b"end")
        assert await client.rest() == b"end"
