"""The scene of an attack: a server over TLS, five clients that do no wrong, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from h2log import App, Request, Response
from h2log.access.record import AccessRecord
from h2log.app.request import Request as AppRequest
from h2log.cli.serve import SAMPLE_SITE
from h2log.http2.connection import Connection
from h2log.http2.stream import Stream
from h2log.server.certificates import Certificates
from h2log.server.content import ContentBuffer
from h2log.server.http2_leg import Http2Leg
from h2log.server.http2_reply import Http2Reply
from tests.server.h2_client import H2Client
from tests.server.wire import ACK, GOAWAY, PREFACE, SETTINGS, Frame, RawClient, frame, settings
from tests.support import Running, client_context, eventually

__all__ = [
    "ARTICLE",
    "CALM",
    "GOOD",
    "NEVER",
    "Flood",
    "Scene",
    "Site",
    "deaf",
    "flood",
    "held",
    "listening",
    "narrow",
    "scene",
]

CALM: Final = 11
"""ENHANCE_YOUR_CALM."""
GOOD: Final = 5
ARTICLES: Final = [
    f"/article/a2e12610c3f94d0b8e7f5a4b3c2d1e0f/{name}.html"
    for name in ("01-connection", "03-header-compression", "06-request", "08-log")
]
ARTICLE: Final = ARTICLES[0].encode()
NEVER: Final = {
    name: {"burst": 10**9, "rate": 1e9}
    for name in (
        "rapid_reset",
        "server_reset",
        "ping",
        "settings",
        "priority",
        "window_update",
        "empty_data",
        "stray_frame",
        "unknown_frame",
    )
}
"""Budgets that no test can spend: what else holds a flood is seen."""

_OBJECTS: Final = (Http2Leg, Http2Reply, Connection, Stream, ContentBuffer, AppRequest)

_ALONE: Final = Counter({"Http2Leg": GOOD, "Connection": GOOD})
"""What is alive while none but the good clients are there, whose articles need no stream."""


class Site:
    """What is attacked: the sample site, handlers that wait, and handlers that read."""

    def __init__(self, folder: Path | None = None) -> None:
        self.entered = 0
        self.cancelled: list[float] = []
        """When a waiting handler was cancelled, by the loop's time."""
        self.app = App()
        self.app.static(SAMPLE_SITE)
        if folder is not None:
            self.app.static(folder, at="/files/")
        self.app.get("/wait")(self.wait)
        self.app.get("/stream/{blocks}")(self.stream)
        self.app.post("/upload")(self.upload)

    async def wait(self, request: Request) -> Response:
        """Wait for ever."""
        self.entered += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(asyncio.get_running_loop().time())
            raise
        return Response.text("never")

    async def upload(self, request: Request) -> Response:
        """Count the content."""
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return Response.text(str(size))

    def stream(self, request: Request) -> Response:
        """Send that many blocks of 64 KiB."""

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(int(request.params["blocks"])):
                yield bytes(65536)

        return Response(blocks())


class _Messages(logging.Handler):
    """Messages as text: the records would hold what a test wants to see gone."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def listening(name: str) -> Iterator[list[str]]:
    """Gather what a logger says, at INFO and above."""
    logger, handler = logging.getLogger(name), _Messages()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _alive() -> list[object]:
    """Return the live objects of connections and requests."""
    gc.collect()
    return [found for found in gc.get_objects() if type(found) in _OBJECTS]


def _census(others: list[object]) -> Counter[str]:
    """Count those that are not of `others`, which were there before."""
    return Counter(type(o).__name__ for o in _alive()) - Counter(type(o).__name__ for o in others)


class _Good:
    """A client that loads articles for as long as it lasts."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self.loads = 0

    async def run(self, done: asyncio.Event) -> None:
        """Load every article in turn; each must arrive whole."""
        async with H2Client.connect(self._server) as client:
            while not done.is_set():
                reply = await client.get(ARTICLES[self.loads % len(ARTICLES)])
                assert (reply.status, reply.ended) == (200, True)
                assert len(reply.body) == int(reply.headers["content-length"])
                assert bytes(reply.body).rstrip().endswith(b"</html>")
                client.replies.clear()
                self.loads += 1


@dataclass
class Scene:
    """A server under attack."""

    server: Running
    site: Site
    good: list[_Good]
    said: list[str]
    """What the logger of HTTP/2 said."""
    others: list[object]
    """What other tests have left, and may be kept by whatever tells of them."""
    friends: set[str] = field(default_factory=set)
    """The session ids of the good clients."""

    @property
    def attacked(self) -> list[AccessRecord]:
        """The records of every request that was not a good client's."""
        return [r for r in self.server.records if r.session.id not in self.friends]

    @property
    def outcomes(self) -> Counter[str]:
        """How those ended."""
        return Counter(r.outcome.value if r.outcome else "none" for r in self.attacked)

    @property
    def requests(self) -> int:
        """How many requests they were, by the sessions' count."""
        return sum(s.requests for s in self.server.sessions if s.id not in self.friends)

    def legs(self) -> list[Http2Leg]:
        """The attackers' connections that are open."""
        return [leg for leg in self.server.h2_legs if leg._session.id not in self.friends]

    async def leg(self) -> Http2Leg:
        """Wait for the one attacker's connection."""
        await eventually(self.legs)
        [leg] = self.legs()
        return leg

    async def peace(self) -> None:
        """Wait until nothing is left of the attack, and the good clients are served as before."""
        shared = self.server.shared
        await eventually(lambda: len(shared.legs) == GOOD and not shared.dispatcher.tasks)
        await eventually(lambda: shared.clients == Counter({"127.0.0.1": GOOD}))
        listener = self.server.server._listener
        assert listener is not None
        await eventually(lambda: not listener.pending)
        loads = [good.loads for good in self.good]
        await eventually(lambda: all(g.loads > n for g, n in zip(self.good, loads, strict=True)))
        await eventually(lambda: _census(self.others) == _ALONE)
        assert len(self.attacked) == self.requests, "one record for each request"


@contextlib.asynccontextmanager
async def scene(
    certs: Certificates, folder: Path | None = None, **limits: Any
) -> AsyncIterator[Scene]:
    """Run a server and five good clients; afterwards nothing may be left of what else came."""
    site, others = Site(folder), _alive()
    with listening("h2log.http2") as said:
        async with Running(site.app, certs, **limits) as server:
            good = [_Good(server) for _ in range(GOOD)]
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for one in good:
                    group.create_task(one.run(done))
                await eventually(lambda: all(one.loads for one in good))
                found = Scene(server, site, good, said, others)
                found.friends = {session.id for session in server.sessions}
                try:
                    yield found
                    await found.peace()
                finally:
                    done.set()
        friendly = [r for r in server.records if r.session.id in found.friends]
        assert len(friendly) == sum(one.loads for one in good)
        assert {(r.status, r.outcome and r.outcome.value) for r in friendly} == {(200, "COMPLETE")}


# Attackers


@dataclass
class Flood:
    """What became of a flood."""

    sent: int
    """Pieces written; the server need not have read all of them."""
    seconds: float
    frames: list[Frame]

    def ended(self, code: int) -> str:
        """Assert that the connection ended with GOAWAY of `code`; return its debug data."""
        assert self.frames, "the server said nothing"
        last = self.frames[-1]
        assert last.kind == GOAWAY, f"after {self.sent} pieces the last frame is {last}"
        assert last.code == code, last
        return last.payload[8:].decode()

    def count(self, kind: int, flags: int = 0) -> int:
        """Count frames of a type that came back with all of `flags`."""
        return sum(f.kind == kind and f.flags & flags == flags for f in self.frames)


async def flood(
    client: RawClient, piece: Callable[[int], bytes], most: int = 20_000, batch: int = 100
) -> Flood:
    """Write `piece(0)`, `piece(1)`, ... and read, until the server closes or `most` were written.

    What is not closed a little after that fails the test.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    reading = asyncio.create_task(client.end())
    sent = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while sent < most and not reading.done():
            client.writer.write(b"".join(map(piece, range(sent, sent + batch))))
            sent += batch
            await client.writer.drain()
            await asyncio.sleep(0)  # the server's turn
    try:
        async with asyncio.timeout(3):
            frames = await reading
    except TimeoutError:
        raise AssertionError(f"{sent} pieces did not end the connection") from None
    return Flood(sent, loop.time() - began, frames)


def narrow(server: Running) -> None:
    """Have the kernel hold little of what the server sends on connections from now on."""
    listener = server.server._listener
    assert listener is not None
    for sock in listener._sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


@contextlib.asynccontextmanager
async def deaf(server: Running, values: dict[int, int] | None = None) -> AsyncIterator[RawClient]:
    """Connect with hardly any room for what the server says; who does not read has it all wait."""
    assert server.certs is not None
    narrow(server)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=client_context(server.certs, "h2"), server_hostname="127.0.0.1", limit=1024
    )
    writer.write(PREFACE + settings(values or {}) + frame(SETTINGS, ACK, 0))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def held(leg: Http2Leg) -> int:
    """Return the bytes that the leg, its engine and its transport hold for the peer."""
    conn, transport = leg._conn, leg._transport
    buffered = transport.get_write_buffer_size() if transport is not None else 0
    return max(leg._held, conn.queued) + conn.out_size + buffered
