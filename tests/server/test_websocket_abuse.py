"""WebSockets of applications and clients that do what none should."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest

from h2log.access.record import Outcome
from h2log.app.asgi import Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.websocket_client import (
    CLOSE,
    PING,
    TEXT,
    Frame,
    asgi,
    frame,
    open_websocket,
)
from tests.server.wire import DATA, END_STREAM, HEADERS, RST_STREAM, RawClient
from tests.support import Running, eventually

CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/"),
    (b"sec-websocket-version", b"13"),
]


@pytest.fixture(params=["http1", "http2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Over which protocol the WebSocket comes."""
    return bool(request.param == "http2")


async def _accept(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


# The client


@pytest.mark.parametrize("closes", [False, True])
async def test_rfc8441_all_before_the_accept(certs: Certificates, closes: bool) -> None:
    """What a client has sent before it is accepted is read, and so is that it has ended."""
    go = asyncio.Event()
    seen: list[object] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await _accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
        seen.append(message["code"])

    async with Running(asgi(call), certs) as server, RawClient.connect(server) as client:
        client.headers(1, CONNECT, end=False)
        data = frame(TEXT, b"early") + (frame(CLOSE, b"\x03\xe8") if closes else b"")
        client.send(DATA, END_STREAM, 1, data)
        client.send(6, 0, 0, b"12345678")
        await client.expect(6, flags=1)
        go.set()
        await client.expect(HEADERS, 1)
        [record] = await server.logged(1)
        assert record.outcome is (Outcome.COMPLETE if closes else Outcome.PEER_LOST)
        assert record.received == len(data)
    assert seen == ["early", 1000 if closes else 1006]


async def test_rfc8441_no_path(certs: Certificates) -> None:
    """An extended CONNECT without its path is malformed, and the connection goes on."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        await receive()

    async with Running(asgi(call), certs) as server, RawClient.connect(server) as client:
        client.headers(1, [field for field in CONNECT if field[0] != b":path"], end=False)
        assert (await client.expect(RST_STREAM, 1)).code == 1
        client.headers(3, CONNECT, end=False)
        assert client.fields(await client.expect(HEADERS, 3))[":status"] == "200"
        client.send(RST_STREAM, 0, 3, struct.pack(">I", 8))
        ends = [record.outcome for record in await server.logged(2)]
        assert ends == [Outcome.MALFORMED, Outcome.CLIENT_RESET]


async def test_calls_whose_clients_have_closed(certs: Certificates) -> None:
    """They count as those that were given up do: one connection cannot have any number of them."""
    go = asyncio.Event()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        await go.wait()

    async def status(client: RawClient, stream: int) -> str:
        client.headers(stream, CONNECT, end=False)
        found = client.fields(await client.expect(HEADERS, stream))[":status"]
        client.send(DATA, END_STREAM, stream, frame(CLOSE, b"\x03\xe8"))
        return found

    server = Running(asgi(call), certs, max_streams=5)
    async with server, RawClient.connect(server) as client:
        assert [await status(client, n) for n in range(1, 15, 2)] == ["200"] * 5 + ["503"] * 2
        go.set()
        host = server.shared.asgi
        await eventually(lambda: host is not None and not host.tasks)
        assert await status(client, 15) == "200"
        await server.logged(8)


async def test_many_small_messages(certs: Certificates, h2: bool) -> None:
    """Thousands of messages that come together are taken one by one, and none is lost."""
    got = 0

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal got
        await _accept(receive, send)
        while (await receive())["type"] == "websocket.receive":
            got += 1

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        await websocket.wire.push(frame(TEXT, b"x") * 20_000)
        await websocket.close()
        assert got == 20_000
        assert server.shared.asgi is not None


# The application


async def test_empty_messages_without_end(certs: Certificates, h2: bool) -> None:
    """Messages without content fill the way to the client, too: `send` waits for it."""
    sent = 0

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await _accept(receive, send)
        while True:
            sent += 1
            await send({"type": "websocket.send", "bytes": b""})

    async with Running(asgi(call), certs) as server:
        if not h2:
            async with open_websocket(server):
                assert 0 < sent < 10_000  # the loop has its turns, though there is room
        else:
            async with RawClient.connect(server, {4: 1000}) as client:
                client.headers(1, CONNECT, end=False)
                await client.expect(DATA, 1)
                client.send(6, 0, 0, b"12345678")
                await client.expect(6, flags=1)
                assert sent < 200_000
        [record] = await server.logged(1)
        assert record.outcome is Outcome.PEER_LOST


async def test_several_tasks_send(certs: Certificates, h2: bool) -> None:
    """All who wait for a slow client go on when it reads."""
    done: list[object] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        sending = [send({"type": "websocket.send", "bytes": bytes(600_000)}) for _ in range(4)]
        done.append(await asyncio.gather(*sending))
        await receive()

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        for _ in range(4):
            assert len((await websocket.read()).payload) == 600_000
        await eventually(lambda: done)
        assert (await websocket.close()).code == 1000


async def test_several_tasks_send_and_the_client_goes(certs: Certificates) -> None:
    """All who wait for a client are told when it is gone."""
    ended: list[object] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        sending = [send({"type": "websocket.send", "bytes": bytes(200_000)}) for _ in range(4)]
        ended.extend(await asyncio.gather(*sending, return_exceptions=True))

    async with (
        Running(asgi(call), certs) as server,
        H2Client.connect(server, window=65_535, credit=False) as client,
    ):
        await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
        wanted = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        stream = client.send("CONNECT", "/", wanted, end=False)
        await client.until(lambda: len(client.replies[stream].body) == 65_535)
        client.reset(stream)
        await eventually(lambda: len(ended) == 4)
    assert all(isinstance(error, OSError) for error in ended)


async def test_a_reason_that_is_no_text(certs: Certificates, h2: bool) -> None:
    """A reason that UTF-8 does not have raises, and the WebSocket can still be closed."""
    raised: list[Exception] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        try:
            await send({"type": "websocket.close", "reason": "\ud800"})
        except ValueError as error:
            raised.append(error)
        await send({"type": "websocket.close", "reason": "in order"})

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        assert await websocket.read() == Frame(CLOSE, b"\x03\xe8in order")
        websocket.send(CLOSE, b"\x03\xe8")
        assert await websocket.rest() == []
        assert raised
        [record] = await server.logged(1)
        assert record.outcome is Outcome.COMPLETE


async def test_a_call_that_cancels_itself(
    certs: Certificates, h2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that is cancelled while nobody stops the server is an error: 1011."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        assert await websocket.rest() == [Frame(CLOSE, b"\x03\xf3")]
        [record] = await server.logged(1)
        assert record.outcome is Outcome.HANDLER_ERROR
    assert "was cancelled" in caplog.text


async def test_a_call_that_cancels_itself_before_the_accept(certs: Certificates, h2: bool) -> None:
    """Before the WebSocket is accepted it is a 500."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        assert websocket.status == 500
        [record] = await server.logged(1)
        assert record.outcome is Outcome.HANDLER_ERROR


async def test_an_oserror_of_the_applications_own(
    certs: Certificates, h2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the client is gone a fault that is not of its absence is logged like any other."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        await receive()
        raise FileNotFoundError("the database is gone")

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        websocket.wire.vanish()
        await server.logged(1)
        await eventually(lambda: "the database is gone" in caplog.text)
    assert [r for r in caplog.records if r.levelno == logging.ERROR]


# What the log tells


class _Route:
    path = "/chat/{room}"


class _User:
    display_name = "ann"


@pytest.mark.parametrize("end", ["closed", "denied", "vanished", "failed"])
async def test_route_and_user(certs: Certificates, h2: bool, end: str) -> None:
    """The line has the route and the user that a framework has noted, however it ended."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"], scope["user"] = _Route(), _User()
        await receive()
        if end == "failed":
            raise KeyError("x")
        if end == "denied":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        await receive()

    async with Running(asgi(call), certs) as server, open_websocket(server, h2=h2) as websocket:
        if end == "closed":
            await websocket.close()
        elif end == "vanished":
            websocket.wire.vanish()
        [record] = await server.logged(1)
        assert record.detail is not None
        assert (record.detail.route, record.detail.user) == ("/chat/{room}", "ann")


# A log that holds up


class _Log:
    """A log that has no room until it is told that it has."""

    def __init__(self) -> None:
        self.overloaded = False
        self._room = asyncio.Event()

    async def ready(self) -> None:
        await self._room.wait()

    def make_room(self) -> None:
        self.overloaded = False
        self._room.set()


async def test_a_close_that_is_not_read_for_the_log(certs: Certificates, h2: bool) -> None:
    """A client whose Close is not read, since the log has no room, is not late with it."""
    go = asyncio.Event()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await _accept(receive, send)
        await go.wait()
        await send({"type": "websocket.close"})

    log = _Log()
    server = Running(asgi(call), certs, websocket={"close_timeout": 0.2})
    async with server:
        server.server.wait_for(log)
        async with open_websocket(server, h2=h2, frames=True) as websocket:
            log.overloaded = True
            websocket.send(PING)
            await websocket.read()
            go.set()
            assert await websocket.read() == Frame(CLOSE, b"\x03\xe8")
            websocket.send(CLOSE, b"\x03\xe8")
            # That was longer than the client has, and its Close lies in front of the server.
            await asyncio.sleep(0.5)
            assert not server.records
            log.make_room()
            [record] = await server.logged(1)
            assert record.outcome is Outcome.COMPLETE
