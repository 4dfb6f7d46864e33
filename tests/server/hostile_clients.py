"""Clients that send hostile requests, many at once, and see what becomes of each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count as counter
from typing import Final

import hpack

from tests.server.hostile import (
    Sent,
    block,
    hostile_h1,
    hostile_h2,
    plain_h1,
    request_frames,
    undecodable,
    wait,
)
from tests.server.wire import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http1Client,
    frame,
    settings,
    stream_to,
)
from tests.support import Process

__all__ = ["LOST", "REFUSED", "WAITING", "Key", "send_all"]

Key = tuple[int, int, int]
"""The client's port, which of the connections from that port it was, and the stream."""

WAITING: Final = 100
"""Requests that are cancelled: as many as may be open."""
REFUSED: Final = 20
"""Requests beyond those."""
LOST: Final = 50
"""Requests that are open when their client goes."""
_WAVE: Final = 80
"""Requests that are sent at once."""
_CONNECTIONS: Final = 24
_CLIENTS: Final = 4
_PIPELINED: Final = 25
_PIPELINES: Final = 120
_ALONE: Final = 400
_PATIENCE: Final = 100.0
_INDEXED: Final = {0x88: 200, 0x89: 204, 0x8C: 400, 0x8D: 404}
"""Statuses that are one byte at the start of a header block (RFC 7541, appendix A)."""


class Hostile:
    """Clients of one server, and what they have sent."""

    def __init__(self, server: Process) -> None:
        self._server = server
        self.sent: dict[Key, Sent] = {}
        self._numbers = counter()
        self._uses: Counter[int] = Counter()

    def next(self) -> int:
        """Return a number that no other request has."""
        return next(self._numbers)

    def _name(self, writer: asyncio.StreamWriter) -> tuple[int, int]:
        """Return the port of a new connection, and how many came from there before."""
        port: int = writer.get_extra_info("sockname")[1]
        self._uses[port] += 1
        return port, self._uses[port] - 1

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_Connection]:
        """Connect by HTTP/2."""
        async with stream_to(self._server, "h2") as (reader, writer):
            yield _Connection(self.sent, self._name(writer), reader, writer)

    async def hostile(self, count: int, dice: random.Random) -> None:
        """Send that many by one connection, in waves, and see each of them answered or reset."""
        async with self.connect() as connection:
            while count:
                wave = [hostile_h2(self.next(), dice) for _ in range(min(_WAVE, count))]
                connection.send(wave, dice)
                await connection.over()
                count -= len(wave)

    async def too_large(self) -> None:
        """Send fields that are too large, and too many, and then what cannot be decoded."""
        async with self.connect() as connection:
            for more in (
                [(b"x-large", b"v" * 40_000)],
                [(b"x-many", b"%d" % n) for n in range(120)],
            ):
                made = wait(self.next())
                made.fields += more
                connection.send([made])
                await connection.over()
                assert made.status == 431
            connection.send_raw(*undecodable())
            await connection.ended()

    async def waiting(self) -> None:
        """Send more than may be open, and cancel those that are; let others be lost."""
        async with self.connect() as connection:
            await connection.known()
            held = [wait(self.next()) for _ in range(WAITING)]
            first = connection.send(held)
            connection.send([wait(self.next()) for _ in range(REFUSED)])
            await connection.over(WAITING)
            connection.reset(range(first, first + 2 * WAITING, 2))
            await connection.known()
        async with self.connect() as connection:
            connection.send([wait(self.next()) for _ in range(LOST)])
            await connection.known()

    async def http1(self, dice: random.Random) -> None:
        """Send requests of HTTP/1.1: many ahead of their answers, and some that are refused."""
        for _ in range(_PIPELINES):
            async with Http1Client.connect(self._server) as client:
                name = self._name(client.writer)
                made = [plain_h1(self.next(), dice) for _ in range(_PIPELINED)]
                client.send(b"".join([raw for _, raw in made]))
                for n, (sent, _) in enumerate(made, 1):
                    answer = await client.answer()
                    sent.status, sent.id = answer.status, answer.headers["x-request-id"]
                    self.sent[*name, n] = sent
        for _ in range(_ALONE):
            async with Http1Client.connect(self._server) as client:
                name = self._name(client.writer)
                sent, raw = hostile_h1(self.next(), dice)
                client.send(raw)
                answer = await client.answer()
                assert await client.rest() == b""
                sent.status, sent.id = answer.status, answer.headers["x-request-id"]
                self.sent[*name, 1] = sent


class _Connection:
    """One HTTP/2 connection, read for nothing but how its streams end."""

    def __init__(
        self,
        sent: dict[Key, Sent],
        name: tuple[int, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._sent = sent
        self._reader = reader
        self._writer = writer
        self._name = name
        self._stream = 1
        self._open: set[int] = set()
        self._rest = b""
        self._pings = 0
        self._going = False
        self._decode = hpack.Decoder().decode
        writer.write(
            PREFACE
            + settings({4: 2**31 - 1})
            + frame(SETTINGS, ACK, 0)
            + frame(WINDOW_UPDATE, 0, 0, (2**31 - 65_536).to_bytes(4, "big"))
        )

    def send(self, wave: list[Sent], dice: random.Random | None = None) -> int:
        """Send requests at once; return the first one's stream."""
        first, frames = self._stream, []
        for made in wave:
            frames.append(request_frames(self._stream, block(made.fields, dice)))
            made.fields = []
            self._add(made)
        self._writer.write(b"".join(frames))
        return first

    def send_raw(self, made: Sent, coded: bytes) -> None:
        """Send a request whose header block is `coded`."""
        self._writer.write(request_frames(self._stream, coded))
        self._add(made)

    def _add(self, made: Sent) -> None:
        self._sent[*self._name, self._stream] = made
        self._open.add(self._stream)
        self._stream += 2

    def reset(self, streams: range) -> None:
        """Cancel requests."""
        self._open.difference_update(streams)
        code = (8).to_bytes(4, "big")
        self._writer.write(b"".join([frame(RST_STREAM, 0, n, code) for n in streams]))

    async def over(self, but: int = 0) -> None:
        """Return when all but so many streams have ended."""
        while len(self._open) > but:
            assert not self._going, "the server ended the connection"
            assert await self._read(), "the server closed the connection"

    async def known(self) -> None:
        """Return when the server has read all that was sent."""
        self._pings += 1
        wanted = self._pings
        self._writer.write(frame(PING, 0, 0, wanted.to_bytes(8, "big")))
        while self._pings == wanted:
            assert await self._read(), "the server closed the connection"

    async def ended(self) -> None:
        """Return when the server has ended the connection."""
        while await self._read():
            pass
        assert self._going

    async def _read(self) -> bool:
        async with asyncio.timeout(_PATIENCE):
            data = await self._reader.read(262_144)
        if not data:
            return False
        data, at = self._rest + data, 0
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            self._take(
                kind, flags, int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end]
            )
            at = end
        self._rest = data[at:]
        return True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS and stream in self._open:
            made = self._sent[*self._name, stream]
            # The server's blocks depend on no other block: not all of them need be decoded.
            made.status = _INDEXED.get(payload[0])
            if made.status is None or stream % 8 == 1:
                fields = {bytes(k): bytes(v) for k, v in self._decode(payload, raw=True)}
                made.status, made.id = int(fields[b":status"]), fields[b"x-request-id"].decode()
        if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self._open.discard(stream)
        elif kind == PING and flags & ACK:
            self._pings += 1
        elif kind == GOAWAY:
            self._going = True


async def send_all(server: Process, count: int) -> dict[Key, Sent]:
    """Send `count` requests from several clients at once; return all of them."""
    clients = Hostile(server)
    others = 3 + WAITING + REFUSED + LOST + _PIPELINES * _PIPELINED + _ALONE
    each, more = divmod(count - others, _CONNECTIONS)
    jobs: list[Callable[[], Awaitable[None]]] = [
        partial(clients.hostile, each + (more if n == 0 else 0), random.Random(n))
        for n in range(_CONNECTIONS)
    ]
    jobs += [clients.too_large, clients.waiting, partial(clients.http1, random.Random(-1))]

    async def work() -> None:
        while jobs:
            await jobs.pop()()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(work())
    assert len(clients.sent) == count
    return clients.sent
