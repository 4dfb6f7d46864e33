"""WebSocket clients that say exactly what a test wants, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Final, NamedTuple, Protocol

from wsproto.utilities import generate_accept_token

from h2log.app.asgi import Asgi, AsgiApp, Message, Receive, Scope, Send
from tests.server.h2_client import H2Client
from tests.server.wire import ACK, DATA, END_STREAM, HEADERS, RST_STREAM, Http1Client, RawClient
from tests.server.wire import PING as PING_FRAME
from tests.support import PATIENCE, Process, Running

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "KEY",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "RawWebSocket",
    "application",
    "asgi",
    "echo",
    "echoing",
    "frame",
    "open_websocket",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY: Final = base64.b64encode(b"0123456789abcdef").decode()
_MASK: Final = b"\x11\x22\x33\x44"


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """The code of a Close, None without one."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else None

    @property
    def reason(self) -> str:
        """The reason of a Close."""
        return self.payload[2:].decode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = _MASK,
    length: bytes | None = None,
) -> bytes:
    """Return a frame of a client; `length` in place of the field, its first bit not set."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 1 << 16:
            length = b"\x7e" + struct.pack(">H", size)
        else:
            length = b"\x7f" + struct.pack(">Q", size)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if mask is None:
        return head + length + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    body = masked.to_bytes(len(payload), "big")
    return head + bytes([length[0] | 0x80]) + length[1:] + mask + body


class Wire(Protocol):
    """A two-way stream of bytes."""

    async def read(self) -> bytes:
        """Return what has come; b"" at the end."""

    def write(self, data: bytes) -> None:
        """Send bytes, as far as nothing limits them."""

    async def push(self, data: bytes) -> None:
        """Send many bytes."""

    def end(self) -> None:
        """End our side, without a word."""

    def vanish(self) -> None:
        """Be gone, without a word."""


class _Http1Wire:
    def __init__(self, client: Http1Client) -> None:
        self._client = client

    async def read(self) -> bytes:
        try:
            return await self._client.reader.read(65536)
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> None:
        self._client.send(data)

    async def push(self, data: bytes) -> None:
        self._client.send(data)
        await self._client.writer.drain()

    def end(self) -> None:
        self._client.writer.write_eof()

    def vanish(self) -> None:
        self._client.writer.transport.abort()


class _Http2Wire:
    def __init__(self, client: H2Client, stream: int) -> None:
        self._client = client
        self._stream = stream
        self._turn = asyncio.Lock()
        self._reads = 0

    async def read(self) -> bytes:
        reply = self._client.replies[self._stream]
        with contextlib.suppress(ConnectionError):
            while not (reply.body or reply.over):
                await self._read_once()
        data = bytes(reply.body)
        reply.body.clear()
        return data

    async def _read_once(self) -> None:
        """Read, or wait for the one who does: who sends and who receives both need what comes."""
        before = self._reads
        async with self._turn:
            if self._reads == before:
                await self._client.read()
                self._reads += 1

    def write(self, data: bytes) -> None:
        if not self._client.replies[self._stream].over:
            self._client.conn.send_data(self._stream, data)
            self._client.flush()

    async def push(self, data: bytes) -> None:
        client = self._client
        while data and not client.replies[self._stream].over:
            room = client.conn.local_flow_control_window(self._stream)
            size = min(room, client.conn.max_outbound_frame_size, len(data))
            if size <= 0:
                await self._read_once()
                continue
            client.conn.send_data(self._stream, data[:size])
            client.flush()
            await client.writer.drain()
            data = data[size:]

    def end(self) -> None:
        self._client.conn.end_stream(self._stream)
        self._client.flush()

    def vanish(self) -> None:
        self._client.abort()


class _FrameWire:
    """HTTP/2 a frame at a time: the `h2` package does nothing any more after a GOAWAY."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    async def read(self) -> bytes:
        while True:
            try:
                found = await self._client.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            if found.kind == PING_FRAME and not found.flags & ACK:
                self._client.send(PING_FRAME, ACK, 0, found.payload)
            elif found.kind == DATA and found.payload:
                return found.payload
            elif found.kind == RST_STREAM or (found.kind == DATA and found.flags & END_STREAM):
                return b""

    def write(self, data: bytes) -> None:
        self._client.send(DATA, 0, 1, data)

    async def push(self, data: bytes) -> None:
        self.write(data)

    def end(self) -> None:
        self._client.send(DATA, END_STREAM, 1)

    def vanish(self) -> None:
        self._client.writer.transport.abort()


class RawWebSocket:
    """A WebSocket a frame at a time. Nothing is answered but by the test."""

    def __init__(self, wire: Wire, status: int, headers: dict[str, str], body: bytes) -> None:
        self.wire = wire
        self.status = status
        self.headers = headers
        self.body = body
        """Of a response that denies it."""
        self._data = b""

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        """Send a frame."""
        self.wire.write(frame(opcode, payload, fin=fin, rsv=rsv))

    async def read(self, timeout: float = PATIENCE) -> Frame:
        """Return the next frame. Raises EOFError at the end."""
        async with asyncio.timeout(timeout):
            head = await self._exactly(2)
            assert not head[1] & 0x80, "a server does not mask"
            size = head[1]
            if size == 126:
                size = int.from_bytes(await self._exactly(2), "big")
                assert size > 125, "the length has its shortest form"
            elif size == 127:
                size = int.from_bytes(await self._exactly(8), "big")
                assert size > 65535, "the length has its shortest form"
            payload = await self._exactly(size)
        return Frame(head[0] & 15, payload, bool(head[0] & 128), head[0] >> 4 & 7)

    async def _exactly(self, size: int) -> bytes:
        pieces, have = [self._data], len(self._data)
        while have < size:
            piece = await self.wire.read()
            if not piece:
                raise EOFError
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self._data = data[size:]
        return data[:size]

    async def rest(self) -> list[Frame]:
        """Read until the server ends the stream; return every frame."""
        frames = []
        with contextlib.suppress(EOFError):
            while True:
                frames.append(await self.read())
        assert not self._data, "the stream has ended inside a frame"
        return frames

    async def close(self, code: int = 1000, reason: bytes = b"") -> Frame:
        """Close, and return the last frame that has come: the server's Close."""
        self.send(CLOSE, struct.pack(">H", code) + reason)
        return (await self.rest())[-1]


Fields = Iterable[tuple[str, str]]


@contextlib.asynccontextmanager
async def open_websocket(
    server: Running | Process,
    path: str = "/",
    fields: Fields = (),
    *,
    h2: bool = False,
    frames: bool = False,
) -> AsyncIterator[RawWebSocket]:
    """Ask for a WebSocket; whatever the answer is, it is read.

    `frames` is HTTP/2 without the `h2` package.
    """
    if h2 and frames:
        async with RawClient.connect(server) as raw:
            pseudo = [
                (b":method", b"CONNECT"),
                (b":protocol", b"websocket"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path.encode()),
                (b"sec-websocket-version", b"13"),
            ]
            more = [(name.encode(), value.encode()) for name, value in fields]
            raw.headers(1, [*pseudo, *more], end=False)
            wire = _FrameWire(raw)
            while (found := await raw.read()).kind != HEADERS:
                if found.kind == PING_FRAME and not found.flags & ACK:
                    raw.send(PING_FRAME, ACK, 0, found.payload)
            headers = raw.fields(found)
            yield RawWebSocket(wire, int(headers[":status"]), headers, b"")
        return
    if h2:
        async with H2Client.connect(server) as client:
            await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
            wanted = [(":protocol", "websocket"), ("sec-websocket-version", "13"), *fields]
            stream = client.send("CONNECT", path, wanted, end=False)
            reply = client.replies[stream]
            await client.until(lambda: reply.status or reply.over)
            if reply.status != 200:
                await client.reply(stream)
            websocket = RawWebSocket(
                _Http2Wire(client, stream), reply.status, reply.headers, bytes(reply.body)
            )
            yield websocket
        return
    async with Http1Client.connect(server) as http1:
        lines = [
            f"GET {path} HTTP/1.1",
            "host: localhost",
            "connection: keep-alive, Upgrade",
            "upgrade: WebSocket",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {KEY}",
            *(f"{name}: {value}" for name, value in fields),
        ]
        http1.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = await http1.answer()
        if answer.status == 101:
            accept = generate_accept_token(KEY.encode()).decode()
            assert answer.headers["sec-websocket-accept"] == accept
            assert answer.headers["upgrade"].lower() == "websocket"
            assert answer.headers["connection"].lower() == "upgrade"
        yield RawWebSocket(_Http1Wire(http1), answer.status, answer.headers, answer.body)


# Applications


def asgi(call: Asgi) -> AsgiApp:
    """Return what a server takes, of an application without a lifespan."""
    return AsgiApp(call, "the test's application", lifespan="off")


async def echoing(receive: Receive, send: Send) -> Message:
    """Send every message back; return the disconnect."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return message
        assert message["type"] == "websocket.receive"
        await send({**message, "type": "websocket.send"})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a WebSocket, and send back what comes."""
    assert scope["type"] == "websocket"
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    await echoing(receive, send)


def echo() -> AsgiApp:
    """Return an application that accepts every WebSocket, and sends back what comes."""
    return asgi(application)
