"""The `websockets` package as a client: independent of what the server reads frames with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from h2log.app.asgi import AsgiApp, Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.websocket_client import CLOSE, TEXT, asgi, echo, echoing, frame
from tests.support import PATIENCE, Process, Running, client_context


def dial(server: Running | Process, path: str = "/", **options: Any) -> connect:
    """Return a connection to be."""
    context = None if server.certs is None else client_context(server.certs)
    scheme = "ws" if context is None else "wss"
    return connect(f"{scheme}://localhost:{server.port}{path}", ssl=context, **options)


@pytest.fixture(params=["deflate", None], ids=["deflate", "plain"])
def compression(request: pytest.FixtureRequest) -> str | None:
    """What the client offers."""
    value: str | None = request.param
    return value


async def test_messages(certs: Certificates, compression: str | None) -> None:
    """Messages of every kind and size come back, whole or in fragments."""

    async def fragments() -> AsyncIterator[str]:
        for n in range(50):
            yield f"fragment {n} ä "

    async with (
        Running(echo(), certs) as server,
        dial(server, compression=compression) as client,
    ):
        for message in ("", "ä" * 3, b"\xff" * 300, "text " * 50_000, bytes(1_000_000)):
            await client.send(message)
            assert await client.recv() == message
        await client.send(fragments())
        assert await client.recv() == "".join(f"fragment {n} ä " for n in range(50))
        await (await client.ping())
    assert server.outcomes == {"COMPLETE": 1}


async def test_large_fragments(certs: Certificates, compression: str | None) -> None:
    """9: messages of megabytes, in one frame and in many."""

    async def fragments(message: bytes, size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(message), size):
            yield message[at : at + size]

    message = bytes(range(256)) * 4096 * 4
    async with (
        Running(echo(), certs) as server,
        dial(server, compression=compression, max_size=None) as client,
    ):
        for size in (len(message), 1 << 20, 1 << 16, 4096):
            await client.send(fragments(message, size))
            assert await client.recv() == message


async def test_many_messages(certs: Certificates, compression: str | None) -> None:
    """9.7, 9.8: a thousand small messages sent ahead come back in order."""
    async with (
        Running(echo(), certs) as server,
        dial(server, compression=compression) as client,
    ):

        async def send() -> None:
            for n in range(1000):
                await client.send(f"{n} " * 20)

        sending = asyncio.ensure_future(send())
        for n in range(1000):
            assert await client.recv() == f"{n} " * 20
        await sending


async def test_subprotocol_and_fields(certs: Certificates) -> None:
    """The subprotocol that the application chose is the client's."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        chosen = scope["subprotocols"][-1]
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-a", b"b")]})
        await echoing(receive, send)

    wanted = [Subprotocol("one"), Subprotocol("two")]
    async with (
        Running(asgi(call), certs) as server,
        dial(server, subprotocols=wanted) as client,
    ):
        assert client.subprotocol == "two"
        assert client.response is not None and client.response.headers["x-a"] == "b"


async def _closed(client: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        await client.recv()
    return client.close_code, client.close_reason


async def test_closed_by_the_application(certs: Certificates) -> None:
    """The client has its code and reason."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4321, "reason": "enough"})

    async with Running(asgi(call), certs) as server, dial(server) as client:
        assert await _closed(client) == (4321, "enough")
    assert server.outcomes == {"COMPLETE": 1}


async def test_closed_by_the_client(certs: Certificates) -> None:
    """The application has its code and reason."""
    ends = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.append(await echoing(receive, send))

    async with Running(asgi(call), certs) as server, dial(server) as client:
        await client.close(4000, "bye")
    assert ends == [{"type": "websocket.disconnect", "code": 4000, "reason": "bye"}]


async def test_denied(certs: Certificates) -> None:
    """A denial is the response that the client sees."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 402})
        await send({"type": "websocket.http.response.body", "body": b"pay"})

    async with Running(asgi(call), certs) as server:
        with pytest.raises(InvalidStatus) as denied:
            await dial(server)
        assert denied.value.response.status_code == 402
        assert denied.value.response.body == b"pay"
    assert server.outcomes == {"COMPLETE": 1}


@pytest.mark.parametrize("app", [echo()])
async def test_keeping_alive_from_both_sides(certs: Certificates, app: AsgiApp) -> None:
    """Both ping, both answer."""
    settings = {"ping_interval": 0.02, "ping_timeout": 5}
    async with (
        Running(app, certs, websocket=settings) as server,
        dial(server, ping_interval=0.02) as client,
    ):
        for n in range(20):
            await client.send(str(n))
            assert await client.recv() == str(n)
            await asyncio.sleep(0.01)
    assert server.outcomes == {"COMPLETE": 1}


async def test_many_on_one_connection(certs: Certificates) -> None:
    """WebSockets and requests share an HTTP/2 connection, each in its own line."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        await echoing(receive, send)

    async with Running(asgi(call), certs) as server, H2Client.connect(server) as client:
        await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
        fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        streams = [client.send("CONNECT", f"/{n}", fields, end=False) for n in range(20)]
        await client.until(lambda: all(client.replies[n].status == 200 for n in streams))
        for word in (b"one", b"two"):
            for stream in streams:
                await client.send_body(stream, frame(TEXT, b"%b %d" % (word, stream)), end=False)
            assert (await client.get("/between")).status == 204
        expected = [b"\x81%c" % len(b"one %d" % n) for n in streams]
        for stream, head in zip(streams, expected, strict=True):
            wanted = head + b"one %d" % stream + head + b"two %d" % stream
            reply = client.replies[stream]
            await client.until(lambda r=reply, w=wanted: r.body == w)  # type: ignore[misc]
            await client.send_body(stream, frame(CLOSE, b"\x03\xe8"), end=False)
            assert (await client.reply(stream)).body == wanted + b"\x88\x02\x03\xe8"
    assert server.outcomes == {"COMPLETE": 22}
    assert len(server.sessions) == 1


async def test_sigterm(certs: Certificates, tmp_path: Path) -> None:
    """A process that is told to stop tells its clients, writes their lines, and ends with 0."""
    target = "tests.server.websocket_client:application"
    with Process(
        "run", target, "--lifespan", "off", certs=certs, log=tmp_path / "access.log"
    ) as server:
        async with dial(server, "/open?token=secret") as client:
            await client.send("x")
            assert await client.recv() == "x"
            server.signal()
            assert await _closed(client) == (1001, "the server stops")
        assert await asyncio.to_thread(server.popen.wait, PATIENCE) == 0
        [line] = server.lines
    assert (line.status, line.version, line.path) == (101, "1.1", "/open?token=REDACTED")


async def test_stop(certs: Certificates) -> None:
    """A client of a server that stops is told that it goes away."""
    async with Running(echo(), certs) as server, dial(server) as client:
        stopping = asyncio.ensure_future(server.server.stop(5))
        assert await _closed(client) == (1001, "the server stops")
        await stopping
    assert server.outcomes == {"COMPLETE": 1}
