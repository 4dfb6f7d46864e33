"""Clients that say exactly what a test wants: frames of HTTP/2, bytes of HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import hpack

from tests.support import PATIENCE, Process, Running, client_context

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")

    @property
    def last_stream(self) -> int:
        """The last stream that a GOAWAY names."""
        return int.from_bytes(self.payload[:4], "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in values.items()))


def get_fields(path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the fields of a GET."""
    return [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path),
        *more,
    ]


@contextlib.asynccontextmanager
async def stream_to(
    server: Running | Process, *alpn: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect, over TLS where the server has it; closed at the end of the block."""
    context = None if server.certs is None else client_context(server.certs, *alpn)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2):
                await writer.wait_closed()


class RawClient:
    """HTTP/2 a frame at a time: nothing is sent or acknowledged but what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.seen: list[Frame] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, server: Running | Process, values: dict[int, int] | None = None
    ) -> AsyncIterator[RawClient]:
        """Connect and exchange SETTINGS."""
        async with stream_to(server, "h2") as (reader, writer):
            client = cls(reader, writer)
            writer.write(PREFACE + settings(values or {}) + frame(SETTINGS, ACK, 0))
            await client.expect(SETTINGS)
            yield client

    def send(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        """Send a frame."""
        self.writer.write(frame(kind, flags, stream, payload))

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return a header block, of literals alone."""
        return bytes(self._encoder.encode([(*pair, True) for pair in fields]))

    def headers(
        self, stream: int, fields: Iterable[tuple[bytes, bytes]], *, end: bool = True
    ) -> None:
        """Send a HEADERS frame of whatever fields."""
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(HEADERS, flags, stream, self.block(fields))

    def get(self, stream: int, path: bytes, *more: tuple[bytes, bytes]) -> None:
        """Send a GET."""
        self.headers(stream, get_fields(path, *more))

    async def read(self, timeout: float = PATIENCE) -> Frame:
        """Return the next frame. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(timeout):
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        found = Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)
        self.seen.append(found)
        return found

    async def expect(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """Read until a frame of that type, on that stream, with those flags."""
        while True:
            found = await self.read()
            if found.kind == kind and stream in (None, found.stream):
                if found.flags & flags == flags:
                    return found

    def fields(self, found: Frame) -> dict[str, str]:
        """Return the fields of a HEADERS frame."""
        decoded = self._decoder.decode(found.payload, raw=True)
        return {bytes(k).decode("latin-1"): bytes(v).decode("latin-1") for k, v in decoded}

    async def end(self) -> list[Frame]:
        """Read until the server closes; return every frame seen."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                await self.read()
        return self.seen


@dataclass
class Answer:
    """An HTTP/1.1 response."""

    status: int
    headers: dict[str, str]
    body: bytes
    version: str = "HTTP/1.1"
    trailers: tuple[bytes, ...] = ()


class Http1Client:
    """HTTP/1.1 by the byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, server: Running | Process) -> AsyncIterator[Http1Client]:
        """Connect, over TLS where the server has it."""
        async with stream_to(server, "http/1.1") as (reader, writer):
            yield cls(reader, writer)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def answer(self, *, head: bool = False, timeout: float = PATIENCE) -> Answer:
        """Read one response; `head` when it has no content whatever its fields say."""
        async with asyncio.timeout(timeout):
            section = await self.reader.readuntil(b"\r\n\r\n")
            first, *rest = section.decode("latin-1").rstrip("\r\n").split("\r\n")
            version, status = first.split(" ")[:2]
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
            body, trailers = b"", tuple[bytes, ...]()
            if not (head or status in ("204", "304") or status.startswith("1")):
                body, trailers = await self._content(headers)
        return Answer(int(status), headers, body, version, trailers)

    async def _content(self, headers: dict[str, str]) -> tuple[bytes, tuple[bytes, ...]]:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"])), ()
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read(), ()
        pieces = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
        trailers = []
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            trailers.append(line.rstrip(b"\r\n"))
        return b"".join(pieces), tuple(trailers)

    async def get(self, path: str, *fields: str, method: str = "GET") -> Answer:
        """Make a request; `fields` are whole lines."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return await self.answer(head=method == "HEAD")

    async def rest(self, timeout: float = PATIENCE) -> bytes:
        """Read until the server closes."""
        pieces = b""
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while piece := await self.reader.read(65536):
                    pieces += piece
        return pieces
