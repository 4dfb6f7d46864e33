"""How WebSockets end when nobody closes them properly: one line each, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from random import Random

import pytest

from h2log.app.asgi import AsgiApp, Message, Receive, Scope, Send
from h2log.server.asgi_websocket import WebSocketCall
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawWebSocket,
    asgi,
    echo,
    echoing,
    frame,
    open_websocket,
)
from tests.support import PATIENCE, Running, eventually

GOING_AWAY = Frame(CLOSE, struct.pack(">H", 1001) + b"the server stops")


@pytest.fixture(params=["http1", "http2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Over which protocol the WebSocket comes."""
    return bool(request.param == "http2")


class Told:
    """An application that sends back what comes, and keeps what it was told at the end.

    It accepts when `may_accept` is set, and receives when `may_receive` is.
    """

    def __init__(self) -> None:
        self.ends: list[Message] = []
        self.connected = asyncio.Event()
        self.may_accept = asyncio.Event()
        self.may_receive = asyncio.Event()
        self.may_accept.set()
        self.may_receive.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.connected.set()
        await self.may_accept.wait()
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            self.ends.append(await receive())
            raise
        await self.may_receive.wait()
        with contextlib.suppress(OSError):
            self.ends.append(await echoing(receive, send))

    @property
    def app(self) -> AsgiApp:
        """What a server takes."""
        return asgi(self)

    async def ended(self, code: int, reason: str = "") -> None:
        """It is told once, that."""
        await eventually(lambda: self.ends)
        assert self.ends == [{"type": "websocket.disconnect", "code": code, "reason": reason}]


def the_call(server: Running) -> WebSocketCall:
    """Return the one call for a WebSocket."""
    assert server.shared.asgi is not None
    [call] = server.shared.asgi.websockets
    return call


@contextlib.asynccontextmanager
async def ends_as(server: Running, outcome: str, count: int = 1) -> AsyncIterator[None]:
    """What happens in the block ends every WebSocket as `outcome`, and leaves no call behind."""
    async with server:
        yield
        await server.logged(count)
        assert server.outcomes == {outcome: count}
        asgi = server.shared.asgi
        assert asgi is not None
        await eventually(lambda: not asgi.websockets and not asgi.tasks)


# The client is gone


async def test_lost(certs: Certificates, h2: bool) -> None:
    """A client that vanishes is PEER_LOST; the application is told 1006."""
    told = Told()
    async with (
        ends_as(server := Running(told.app, certs), "PEER_LOST"),
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, b"x")
        assert await websocket.read() == Frame(TEXT, b"x")
        websocket.wire.vanish()
        await told.ended(1006)


@pytest.mark.parametrize(
    ("h2", "tls"),
    [(False, False), (True, False), (True, True)],  # TLS has no half-closed connections
    ids=["http1", "http2", "http2 over TLS"],
)
async def test_ended_without_a_close(certs: Certificates, h2: bool, tls: bool) -> None:
    """A stream that is ended without a Close is PEER_LOST as well, and ended by us too."""
    told = Told()
    async with (
        ends_as(server := Running(told.app, certs if tls else None), "PEER_LOST"),
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.wire.write(frame(TEXT, b"not all of it")[:-1])
        websocket.wire.end()
        assert await websocket.rest() == []
        await told.ended(1006)


async def test_reset(certs: Certificates) -> None:
    """A client that resets the stream of a WebSocket is CLIENT_RESET (RFC 8441 section 5)."""
    told = Told()
    async with (
        ends_as(server := Running(told.app, certs), "CLIENT_RESET"),
        H2Client.connect(server) as client,
    ):
        await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
        fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        stream = client.send("CONNECT", "/", fields, end=False)
        await client.until(lambda: client.replies[stream].status)
        client.reset(stream)
        await told.ended(1006)


async def test_lost_before_accept(certs: Certificates, h2: bool) -> None:
    """A client that goes before it was accepted: accepting raises OSError, and that is no news."""
    told = Told()
    told.may_accept.clear()
    async with ends_as(server := Running(told.app, certs), "PEER_LOST"):
        with contextlib.suppress(TimeoutError, EOFError, ConnectionError):
            async with asyncio.timeout(PATIENCE) as limit:
                asking = asyncio.ensure_future(_hold_open(server, h2))
                await told.connected.wait()
                limit.reschedule(asyncio.get_running_loop().time())
                await asking
        await server.logged(1)
        told.may_accept.set()
        await told.ended(1006)


async def _hold_open(server: Running, h2: bool) -> None:
    async with open_websocket(server, h2=h2):
        pass


async def test_many_vanish(certs: Certificates) -> None:
    """Clients that vanish wherever they are leave nothing, and each has its line."""
    random = Random(6455)

    async def one(server: Running, n: int) -> None:
        async with open_websocket(server, f"/{n}", h2=n % 2 == 0) as websocket:
            message = frame(TEXT, b"x" * 5000)
            websocket.wire.write(message[: random.randrange(len(message))])
            if random.random() < 0.5:
                websocket.wire.write(frame(PING))
                await asyncio.sleep(0)
            websocket.wire.vanish()

    async with Running(echo(), certs) as server:
        await asyncio.gather(*(one(server, n) for n in range(60)))
        await server.logged(60)
        host = server.shared.asgi
        assert host is not None
        await eventually(lambda: not host.websockets and not host.tasks)
    assert set(server.outcomes) <= {"PEER_LOST", "MALFORMED"}


# Keeping alive


async def test_pings_are_sent(certs: Certificates, h2: bool) -> None:
    """A client that answers pings stays as long as it likes."""
    settings = {"ping_interval": 0.01, "ping_timeout": PATIENCE}
    async with (
        ends_as(server := Running(echo(), certs, websocket=settings), "COMPLETE"),
        open_websocket(server, h2=h2) as websocket,
    ):
        payloads = set()
        for _ in range(5):
            ping = await websocket.read()
            assert ping.opcode == PING and len(ping.payload) == 4
            payloads.add(ping.payload)
            websocket.send(PONG, ping.payload)
        assert len(payloads) == 5
        await websocket.close()


async def test_no_answer_to_a_ping(certs: Certificates, h2: bool) -> None:
    """A client that answers nothing is TIMEOUT; the application is told 1006, and why."""
    told = Told()
    settings = {"ping_interval": 0.01, "ping_timeout": 0.05}
    async with (
        ends_as(server := Running(told.app, certs, websocket=settings), "TIMEOUT"),
        open_websocket(server, h2=h2) as websocket,
    ):
        *pings, close = await websocket.rest()
        assert {ping.opcode for ping in pings} == {PING}
        assert (close.code, close.reason) == (1011, "no answer to a ping")
        await told.ended(1006, "no answer to a ping")


async def test_whatever_comes_is_a_sign_of_life(certs: Certificates) -> None:
    """A pong cannot come while a large message does: what comes of that is an answer."""
    settings = {"ping_interval": 0.02, "ping_timeout": 0.4}
    async with (
        ends_as(server := Running(echo(), certs, websocket=settings), "COMPLETE"),
        open_websocket(server, h2=True) as websocket,
    ):
        whole = frame(BINARY, bytes(60))
        for at in range(len(whole)):
            assert (await websocket.read()).opcode == PING
            websocket.wire.write(whole[at : at + 1])
        while (answer := await websocket.read()).opcode == PING:
            pass
        assert answer == Frame(BINARY, bytes(60))
        await websocket.close()


async def test_our_own_slowness_is_not_the_clients(certs: Certificates, h2: bool) -> None:
    """Nobody is given up for a pong that we do not read, as long as we do not."""
    told = Told()
    told.may_receive.clear()
    settings = {"ping_interval": 0.01, "ping_timeout": 0.25, "max_queue": 1}
    async with (
        ends_as(server := Running(told.app, certs, websocket=settings), "COMPLETE"),
        open_websocket(server, h2=h2) as websocket,
    ):
        for _ in range(3):
            websocket.send(TEXT, b"x")
        await asyncio.sleep(0.3)  # more than it may take to answer
        told.may_receive.set()
        answers = [f async for f in _data(websocket, 3)]
        assert answers == [Frame(TEXT, b"x")] * 3
        websocket.send(CLOSE, b"\x03\xe8")
        await websocket.rest()


async def _data(websocket: RawWebSocket, count: int) -> AsyncIterator[Frame]:
    """Yield data frames, answering pings."""
    while count:
        found = await websocket.read()
        if found.opcode == PING:
            websocket.send(PONG, found.payload)
        else:
            count -= 1
            yield found


async def test_no_pings(certs: Certificates) -> None:
    """With an interval of 0 none is sent, and nobody is given up."""
    settings = {"ping_interval": 0, "ping_timeout": 0.01}
    async with (
        ends_as(server := Running(echo(), certs, websocket=settings), "COMPLETE"),
        open_websocket(server) as websocket,
    ):
        await asyncio.sleep(0.05)
        assert (await websocket.close()).code == 1000


# Closing that is not answered


async def test_our_close_is_not_answered(certs: Certificates, h2: bool) -> None:
    """A client that does not answer the application's Close is TIMEOUT."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    settings = {"close_timeout": 0.05}
    async with (
        ends_as(server := Running(asgi(call), certs, websocket=settings), "TIMEOUT"),
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, b"I go on")
        assert await websocket.rest() == [Frame(CLOSE, b"\x03\xe8")]


# The server stops


async def test_stop(certs: Certificates, h2: bool) -> None:
    """Clients are told 1001; who answers has a line that says COMPLETE."""
    told = Told()
    async with ends_as(server := Running(told.app, certs), "COMPLETE"):
        async with open_websocket(server, h2=h2, frames=True) as websocket:
            stopping = asyncio.ensure_future(server.server.stop(PATIENCE))
            assert await websocket.read() == GOING_AWAY
            websocket.send(CLOSE, GOING_AWAY.payload[:2])
            assert await websocket.rest() == []
            await told.ended(1001, "the server stops")
        await stopping


@pytest.mark.parametrize("close_timeout", [0.05, PATIENCE], ids=["in time", "too late"])
async def test_stop_without_an_answer(certs: Certificates, h2: bool, close_timeout: float) -> None:
    """Who does not answer, until its time or the server's is over, is SHUTDOWN."""
    told = Told()
    settings = {"close_timeout": close_timeout}
    async with (
        ends_as(server := Running(told.app, certs, websocket=settings), "SHUTDOWN"),
        open_websocket(server, h2=h2, frames=True) as websocket,
    ):
        stopping = asyncio.ensure_future(server.server.stop(0.3))
        assert await websocket.rest() == [GOING_AWAY]
        await stopping
        await told.ended(1001, "the server stops")


async def test_stop_before_accept(certs: Certificates, h2: bool) -> None:
    """One that is accepted while the server stops is told at once."""
    told = Told()
    told.may_accept.clear()

    async def talk() -> None:
        async with open_websocket(server, h2=h2, frames=True) as websocket:
            assert await websocket.read() == GOING_AWAY
            websocket.send(CLOSE, GOING_AWAY.payload[:2])
            await websocket.rest()

    async with ends_as(server := Running(told.app, certs), "COMPLETE"):
        talking = asyncio.ensure_future(talk())
        await told.connected.wait()
        stopping = asyncio.ensure_future(server.server.stop(PATIENCE))
        await eventually(lambda: server.shared.draining)
        told.may_accept.set()
        await talking
        await stopping


# Floods

FLOODS = {
    "pings": frame(PING),
    "pongs": frame(PONG, b"*" * 125),
    "empty fragments": frame(CONTINUATION, fin=False),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_flood(
    certs: Certificates, h2: bool, flood: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames that are for nothing end it with 1008, SERVER_RESET, and a warning."""
    async with (
        ends_as(server := Running(echo(), certs), "SERVER_RESET"),
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, b"begun", fin=False)
        await websocket.wire.push(flood * 300)
        *pongs, close = await websocket.rest()
        assert {pong.opcode for pong in pongs} <= {PONG} and len(pongs) <= 101
        assert close.code == 1008 and "budget" in close.reason
    [told] = [record for record in caplog.records if record.name == "h2log.websocket"]
    assert (told.levelname, told.__dict__["request_id"]) == ("WARNING", server.records[0].id)


async def test_ping_flood_without_reading(certs: Certificates) -> None:
    """Their answers, which nobody takes, are bounded by the same budget."""
    async with (
        Running(echo(), certs) as server,
        H2Client.connect(server, window=0, credit=False) as client,
    ):
        await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
        fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        stream = client.send("CONNECT", "/", fields, end=False)
        await client.until(lambda: client.replies[stream].status)
        await client.send_body(stream, frame(PING, b"*" * 125) * 300, end=False)
        [record] = await server.logged(1)
        leg = await server.leg()
        assert leg._conn.queued <= 101 * 127 + 127
    assert record.outcome is not None and record.outcome.value == "SERVER_RESET"


# Messages that are too large


async def test_9_too_large_a_frame(certs: Certificates, h2: bool) -> None:
    """A frame that says that it is too long is refused before it comes: 1009."""
    settings = {"max_message": 100_000}
    async with (
        ends_as(server := Running(echo(), certs, websocket=settings), "SERVER_RESET"),
        open_websocket(server, h2=h2) as websocket,
    ):
        await websocket.wire.push(frame(BINARY, bytes(100_000)))
        assert await websocket.read() == Frame(BINARY, bytes(100_000))
        websocket.wire.write(frame(BINARY, bytes(100_001))[:14])
        [close] = await websocket.rest()
        assert close.code == 1009
        assert close.reason == "a message of more than 100000 bytes"


async def test_9_too_large_a_message(certs: Certificates, h2: bool) -> None:
    """Fragments count together, and text in bytes."""
    settings = {"max_message": 10_000}
    async with (
        ends_as(server := Running(echo(), certs, websocket=settings), "SERVER_RESET"),
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, "ä".encode() * 2500, fin=False)
        websocket.send(CONTINUATION, "ä".encode() * 2500)
        assert await websocket.read() == Frame(TEXT, "ä".encode() * 5000)
        websocket.send(TEXT, "ä".encode() * 2500, fin=False)
        websocket.send(CONTINUATION, "ä".encode() * 2500 + b"x")
        [close] = await websocket.rest()
        assert close.code == 1009


# Back-pressure


async def test_unread_messages_stop_the_reading(certs: Certificates, h2: bool) -> None:
    """What an application leaves waiting is bounded; when it goes on everything comes."""
    told = Told()
    told.may_receive.clear()
    message = bytes(64 * 1024)
    settings = {"max_queue": 2}
    async with (
        ends_as(server := Running(told.app, certs, websocket=settings), "COMPLETE"),
        open_websocket(server, h2=h2) as websocket,
    ):

        async def send_all() -> None:
            for _ in range(200):
                await websocket.wire.push(frame(BINARY, message))

        websocket_ = the_call(server)._websocket
        assert websocket_ is not None
        sending = asyncio.ensure_future(send_all())
        await eventually(lambda: websocket_._paused)
        assert not h2 or not sending.done()
        assert len(websocket_._messages) == 2
        assert the_call(server)._exchange.received < 2_000_000
        told.may_receive.set()
        answers = 0
        while answers < 200:
            assert len((await websocket.read()).payload) == len(message)
            answers += 1
        await sending
        await websocket.close()


async def test_a_slow_reader_holds_up_the_application(certs: Certificates, h2: bool) -> None:
    """`send` waits for a client that reads slowly, and nothing is lost."""
    done = asyncio.Event()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(400):
            await send({"type": "websocket.send", "bytes": bytes(64 * 1024)})
        done.set()
        await receive()

    async with (
        ends_as(server := Running(asgi(call), certs), "COMPLETE"),
        open_websocket(server, h2=h2) as websocket,
    ):
        found = the_call(server)._websocket
        assert found is not None
        await eventually(lambda: found._sending)
        assert not done.is_set()
        for _ in range(400):
            assert len((await websocket.read()).payload) == 64 * 1024
        await websocket.close()
    [record] = server.records
    assert record.sent >= 400 * 64 * 1024


async def test_a_reader_that_stands_still(certs: Certificates, h2: bool) -> None:
    """After `limits.stall_timeout` it is TIMEOUT, and `send` raises OSError."""
    raised = asyncio.Event()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(64 * 1024)})
        except OSError:
            raised.set()
            raise

    async with (
        ends_as(server := Running(asgi(call), certs, stall_timeout=0.2), "TIMEOUT"),
        open_websocket(server, h2=h2),
    ):
        await raised.wait()


# Anything at all


async def test_garbage(certs: Certificates) -> None:
    """Whatever bytes come, it ends with a Close that says why, and the connection goes on."""
    random = Random(1002)
    async with Running(echo(), certs) as server:
        async with H2Client.connect(server) as client:
            await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
            for _ in range(200):
                fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
                offer = ("sec-websocket-extensions", "permessage-deflate")
                stream = client.send("CONNECT", "/", [*fields, offer], end=False)
                reply = client.replies[stream]
                while not reply.status:
                    await client.read()
                await client.send_body(stream, random.randbytes(random.randrange(1, 400)))
                await client.reply(stream)
                assert reply.ended and reply.status == 200
        await server.logged(200)
    assert set(server.outcomes) <= {"MALFORMED", "PEER_LOST", "SERVER_RESET", "COMPLETE"}
    assert server.outcomes["MALFORMED"] > 100
