"""How a request ends, and that each end is logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from h2log import App, Request, Response
from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import RST_STREAM, Http1Client, RawClient
from tests.support import PATIENCE, Running, eventually

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
INTERNAL_ERROR, CANCEL, REFUSED_STREAM = 2, 8, 7


class Gate:
    """An application whose handlers wait for the test, and note what happens to them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = 0
        self.cancelled = 0
        self.app = App()
        self.app.get("/wait")(self.wait)
        self.app.get("/stream")(self.stream)
        self.app.post("/body")(self.body)
        self.app.get("/now")(lambda request: Response.text("now"))

    async def _pass(self) -> None:
        self.entered += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def wait(self, request: Request) -> Response:
        await self._pass()
        return Response.text("through")

    async def stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await self._pass()
            yield b"last"

        return Response(pieces())

    async def body(self, request: Request) -> Response:
        self.entered += 1
        return Response.text(str(len(await request.body())))


@BOTH_LOOPS
async def test_a_client_that_resets_is_client_reset(certs: Certificates) -> None:
    """RST_STREAM ends the request as CLIENT_RESET, status -, and cancels its handler."""
    gate = Gate()
    async with Running(gate.app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/wait")
        await eventually(lambda: gate.entered)
        client.reset(stream)
        [record] = await server.logged(1)
        await eventually(lambda: gate.cancelled == 1)
        assert (await client.get("/now")).status == 200
    assert (record.outcome, record.status) == (Outcome.CLIENT_RESET, 0)
    assert server.outcomes == {"CLIENT_RESET": 1, "COMPLETE": 1}


async def test_a_reset_in_the_middle_keeps_the_status_that_was_sent(certs: Certificates) -> None:
    """Status and bytes are those of what went out before the reset."""
    gate = Gate()
    async with Running(gate.app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/stream")
        await client.until(lambda: client.replies[stream].body == b"first")
        client.reset(stream)
        [record] = await server.logged(1)
        await eventually(lambda: gate.cancelled == 1)
    assert (record.outcome, record.status, record.sent) == (Outcome.CLIENT_RESET, 200, 5)


@BOTH_LOOPS
@pytest.mark.parametrize("path", ["/wait", "/stream"])
async def test_a_client_that_vanishes_is_peer_lost(certs: Certificates, path: str) -> None:
    """A lost connection ends its requests as PEER_LOST and cancels their handlers."""
    gate = Gate()
    async with (
        Running(gate.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        two.send("GET", path)
        two.send("GET", path)
        one.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await eventually(lambda: gate.entered == 3)
        two.abort()
        one.writer.transport.abort()
        await server.logged(3)
        await eventually(lambda: gate.cancelled == 3)
    assert server.outcomes == {"PEER_LOST": 3}


async def test_closing_the_connection_in_order_is_peer_lost_too(certs: Certificates) -> None:
    """A client that closes while it has requests open has not seen their responses."""
    gate = Gate()
    async with Running(gate.app, certs) as server:
        async with H2Client.connect(server) as client:
            client.send("GET", "/wait")
            await eventually(lambda: gate.entered)
        await server.logged(1)
    assert server.outcomes == {"PEER_LOST": 1}
    assert gate.cancelled == 1


def failing() -> App:
    """Return an application whose handlers fail in every way."""
    app = App()

    @app.get("/plain")
    def plain(request: Request) -> Response:
        raise RuntimeError("the secret of plain")

    @app.get("/async")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        raise KeyError("the secret of async")

    @app.get("/none")
    async def none(request: Request) -> Response:
        return None  # type: ignore[return-value]

    @app.get("/plain-none")
    def plain_none(request: Request) -> Response:
        return None  # type: ignore[return-value]

    @app.get("/cancelled")
    async def cancelled(request: Request) -> Response:
        raise asyncio.CancelledError

    @app.get("/plain-cancelled")
    def plain_cancelled(request: Request) -> Response:
        raise asyncio.CancelledError

    @app.get("/started")
    async def started(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"some"
            raise RuntimeError("the secret of started")

        return Response(pieces())

    @app.get("/short")
    async def short(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"four"

        return Response(pieces(), headers={"content-length": "10"})

    @app.get("/long")
    async def long(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"too long by far"

        return Response(pieces(), headers={"content-length": "3"})

    @app.get("/fine")
    def fine(request: Request) -> Response:
        return Response.text("fine")

    return app


BEFORE_START = ["/plain", "/async", "/none", "/plain-none", "/cancelled", "/plain-cancelled"]
AFTER_START = ["/started", "/short", "/long"]


@pytest.mark.parametrize("path", BEFORE_START)
async def test_a_handler_that_raises_is_a_500_with_the_id(
    certs: Certificates, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The body has the request id and no word of the exception; h2log's own log has it all."""
    async with (
        Running(failing(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        async with asyncio.timeout(PATIENCE):
            a = await two.get(path)
            b = await one.get(path)
        assert (await two.get("/fine")).status == (await one.get("/fine")).status == 200
    assert (a.status, b.status) == (500, 500)
    assert server.outcomes == {"HANDLER_ERROR": 2, "COMPLETE": 2}
    for body, record in zip((bytes(a.body), b.body), server.records, strict=False):
        assert record.id in body.decode()
        assert b"secret" not in body and b"Traceback" not in body
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(record.exc_info for record in errors)


@pytest.mark.parametrize("path", AFTER_START)
async def test_a_handler_that_fails_after_the_start_is_cut_off(
    certs: Certificates, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees that the response is not whole: INTERNAL_ERROR on h2, a closed connection."""
    async with Running(failing(), certs) as server:
        async with H2Client.connect(server) as two:
            reply = await two.get(path)
            assert (reply.status, reply.ended, reply.reset) == (200, False, INTERNAL_ERROR)
            assert (await two.get("/fine")).status == 200
        async with Http1Client.connect(server) as one:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await one.get(path)
    assert server.outcomes == {"HANDLER_ERROR": 2, "COMPLETE": 1}
    assert {record.status for record in server.records} == {200}
    assert "secret" not in bytes(reply.body).decode()
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2


async def test_content_that_does_not_come_is_408(certs: Certificates) -> None:
    """A handler that waits too long for content is answered for: 408, TIMEOUT, on both."""
    gate = Gate()
    async with (
        Running(gate.app, certs, body_timeout=0.2) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        stream = two.send("POST", "/body", end=False)
        one.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
        assert (await two.reply(stream)).status == 408
        assert (await one.answer()).status == 408
        assert (await two.get("/now")).status == 200
    assert server.outcomes == {"TIMEOUT": 2, "COMPLETE": 1}


@pytest.mark.parametrize("path", [b"/small", b"/streamed", b"/large.bin", b"/cached.bin"])
async def test_a_window_that_stays_shut_is_timeout(
    certs: Certificates, path: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A stream whose peer never opens its window is given up: bytes, streams, files of any size."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "large.bin").write_bytes(bytes(600_000))
    (folder / "cached.bin").write_bytes(bytes(20_000))
    app = App()
    app.static(folder)

    @app.get("/small")
    def small(request: Request) -> Response:
        return Response(b"x" * 1000)

    @app.get("/streamed")
    async def streamed(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(10_000)

        return Response(pieces())

    async with (
        Running(app, certs, stall_timeout=0.3) as server,
        RawClient.connect(server, {4: 0}) as client,  # INITIAL_WINDOW_SIZE
    ):
        client.get(1, path)
        assert (await client.expect(RST_STREAM, 1)).code == CANCEL
        record = (await server.logged(1))[0]
    assert (record.outcome, record.status) == (Outcome.TIMEOUT, 200)


async def test_the_101st_stream_is_refused(certs: Certificates) -> None:
    """REFUSED_STREAM for it alone; the hundred before it, and one after them, are answered."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        for stream in range(1, 203, 2):
            client.get(stream, b"/wait")
        assert (await client.expect(RST_STREAM)).stream == 201
        assert client.seen[-1].code == REFUSED_STREAM
        gate.open.set()
        await server.logged(101)
        client.get(203, b"/wait")
        await client.expect(0, 203, flags=1)
    assert server.outcomes == {"REFUSED": 1, "COMPLETE": 101}
    [refused] = [record for record in server.records if record.outcome is Outcome.REFUSED]
    assert (refused.status, refused.stream_id) == (0, 201)


async def test_a_wrong_content_length_is_malformed(certs: Certificates) -> None:
    """More or less content than announced ends that stream alone, as MALFORMED."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        head = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x")]
        for stream, sent in ((1, b"abcdef"), (3, b"ab")):
            fields = [*head, (b":path", b"/body"), (b"content-length", b"4")]
            client.headers(stream, fields, end=False)
            client.send(0, 1, stream, sent)
            assert (await client.expect(RST_STREAM, stream)).code == 1
        client.get(5, b"/now")
        await client.expect(0, 5, flags=1)
    assert server.outcomes == {"MALFORMED": 2, "COMPLETE": 1}


async def test_broken_chunks_are_malformed(certs: Certificates) -> None:
    """An HTTP/1.1 request whose content breaks off its framing ends as MALFORMED."""
    gate = Gate()
    async with Running(gate.app, certs) as server, Http1Client.connect(server) as client:
        client.send(
            b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        await eventually(lambda: gate.entered)
        client.send(b"zz\r\n")
        await client.rest()
        await server.logged(1)
    assert server.outcomes == {"MALFORMED": 1}


async def test_an_error_of_the_connection_ends_every_request_once(certs: Certificates) -> None:
    """A frame that breaks the connection: GOAWAY, and its open requests are SERVER_RESET."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        for stream in (1, 3, 5):
            client.get(stream, b"/wait")
        await eventually(lambda: gate.entered == 3)
        client.send(0, 0, 0, b"data on stream 0")
        seen = await client.end()
        assert [f.code for f in seen if f.kind == 7] == [1]
    assert server.outcomes == {"SERVER_RESET": 3}
    assert gate.cancelled == 3


@BOTH_LOOPS
async def test_what_is_open_when_the_drain_ends_is_shutdown(certs: Certificates) -> None:
    """`stop(0)` ends open requests of both protocols as SHUTDOWN and cancels their handlers."""
    gate = Gate()
    async with (
        Running(gate.app, certs) as server,
        RawClient.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        two.get(1, b"/wait")
        two.get(3, b"/stream")
        one.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: gate.entered == 3)
        await server.server.stop(0)
        await server.logged(3)
        seen = await two.end()
        assert [f.code for f in seen if f.kind == RST_STREAM] == [CANCEL, CANCEL]
        assert await one.rest() == b""
    assert server.outcomes == {"SHUTDOWN": 3}
    assert gate.cancelled == 3
