"""For every session, requests opened = lines written: thousands of random sessions of both legs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from h2log.access.record import AccessRecord, Outcome, Session
from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.clock import monotonic
from h2log.config import build
from h2log.errors import HTTPError
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.server.dispatch import Dispatcher
from h2log.server.http1_leg import Http1Leg
from h2log.server.http2_leg import Http2Leg
from h2log.server.http2_limits import engine_limits
from h2log.server.session import Shared
from tests.protocol.frames import (
    PREFACE,
    data,
    goaway,
    headers,
    ping,
    plain,
    rst_stream,
    window_update,
)
from tests.protocol.frames import settings as settings_frame
from tests.protocol.sequences import HEADS, WRONG_HEADS
from tests.protocol.wire import GET, POST


class Wire(asyncio.Transport):
    """A transport in memory, which its test fills up, drains and cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is none."""

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """The test sends what it sends."""

    def resume_reading(self) -> None:
        """The test sends what it sends."""

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class CountingLeg(Http2Leg):
    """Counts what the engine opened, apart from what the log was told."""

    opened: ClassVar[Counter[int]] = Counter()

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        self.opened[id(self)] += 1
        super().on_request(stream_id, head, ended)

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        self.opened[id(self)] += 1
        super().on_refused(stream_id, head, cause)


def application(root: Path, gate: asyncio.Event) -> App:
    """Return an application of every kind of handler."""
    app = App()

    @app.get("/now")
    def now(request: Request) -> Response:
        return Response.text("now")

    @app.get("/later")
    async def later(request: Request) -> Response:
        await gate.wait()
        return Response.text("later")

    @app.get("/turns")
    async def turns(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(b"x" * 100_000)

    @app.get("/pieces")
    async def pieces(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for number in range(5):
                await asyncio.sleep(0)
                yield b"%d" % number * 20_000
            if request.query:
                raise ValueError("after the start")

        return Response(body())

    @app.get("/wrong")
    async def wrong(request: Request) -> Response:
        raise ValueError("before the start")

    @app.get("/refused")
    def refused(request: Request) -> Response:
        raise HTTPError(409)

    @app.post("/read")
    async def read(request: Request) -> Response:
        return Response.json({"size": len(await request.body())})

    app.static(root)
    return app


PATHS = ["/now", "/later", "/turns", "/pieces", "/pieces?x=1", "/wrong", "/refused", "/read",
         "/page.html", "/page.html?q=1", "/large.bin", "/absent", "/.hidden", "*"]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a small and a large file."""
    (tmp_path / "page.html").write_text("page")
    (tmp_path / "large.bin").write_bytes(bytes(400_000))
    return tmp_path


def h2_bytes(rng: random.Random, stream_id: int) -> bytes:
    """Return some frames of a client that is mostly right."""
    kind = rng.random()
    other = rng.choice([stream_id, max(1, stream_id - 2), 1, stream_id + 2])
    if kind < 0.55:
        fields = [*GET[:3], (b":path", rng.choice(PATHS).encode())]
        return headers(stream_id, plain(fields))
    if kind < 0.65:
        fields = [*POST[:3], (b":path", b"/read")]
        return headers(stream_id, plain(fields), end=rng.random() < 0.3)
    if kind < 0.72:
        return headers(stream_id, plain(rng.choice(HEADS)), end=rng.random() < 0.7)
    if kind < 0.79:
        return headers(stream_id, plain(rng.choice(WRONG_HEADS)))
    if kind < 0.86:
        return rst_stream(other, 8)
    if kind < 0.92:
        return data(other, bytes(rng.choice([0, 5, 1000])), end=rng.random() < 0.5)
    if kind < 0.97:
        return window_update(rng.choice([0, other]), rng.choice([1, 1000, 100_000]))
    return rng.choice([ping(), settings_frame((4, rng.choice([0, 100, 10**6]))), goaway(0)])


async def live(leg: Http1Leg | CountingLeg, wire: Wire, rng: random.Random, steps: int) -> None:
    """Lead one session from its start to its end."""
    h2 = isinstance(leg, CountingLeg)
    leg.connection_made(wire)
    if h2:
        leg.data_received(PREFACE + settings_frame((4, rng.choice([0, 65_535, 10**7]))))
        if rng.random() < 0.7:
            leg.data_received(window_update(0, 10**7))
    paused = False
    stream_id = 1
    for _ in range(steps):
        if wire.closed:
            break
        event = rng.random()
        if event < 0.75:
            sent = b""
            for _ in range(rng.randrange(1, 4)):
                if h2:
                    sent += h2_bytes(rng, stream_id)
                    stream_id += rng.choice([0, 2, 2, 2])
                else:
                    sent += h1_bytes(rng)
            cut = rng.randrange(len(sent) + 1)
            leg.data_received(sent[:cut]) if cut else None
            leg.data_received(sent[cut:]) if cut < len(sent) else None
        elif event < 0.80:
            paused = not paused
            leg.pause_writing() if paused else leg.resume_writing()
        elif event < 0.82:
            leg.tick(monotonic() + rng.choice([0.0, 2.0, 100.0]))
        elif event < 0.83:
            leg.drain()
        elif event < 0.835:
            leg.shut()
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
    leg.connection_lost(None if rng.random() < 0.5 else ConnectionResetError())


def h1_bytes(rng: random.Random) -> bytes:
    """Return a request, or what is none."""
    path = rng.choice(PATHS).encode()
    kind = rng.random()
    if kind < 0.6:
        return b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path
    if kind < 0.7:
        return b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
    if kind < 0.8:
        return b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    if kind < 0.86:
        return b"0\r\n\r\n"
    if kind < 0.92:
        return b"HEAD %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
    return rng.choice([b"\x00\xff\r\n\r\n", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", b"GET /nohost"])


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_requests_opened_are_lines_written(site: Path, protocol: str, seed: int) -> None:
    """Whatever clients and handlers do, each opened request has one record, and no task is left."""
    rng = random.Random(seed)
    gate = asyncio.Event()
    records: list[AccessRecord] = []
    shared = Shared(Dispatcher(application(site, gate)), build({}).limits, records.append)
    limits = engine_limits(shared)
    sessions: list[Session] = []
    legs: list[Http1Leg | CountingLeg] = []
    CountingLeg.opened = Counter()
    for number in range(600):
        session = Session(f"{number:032x}", "192.0.2.1", 1, 0.0, records.append, monotonic())
        shared.clients[session.client] += 1
        leg: Http1Leg | CountingLeg
        if protocol == "h2":
            leg = CountingLeg(session, shared, limits)
        else:
            leg = Http1Leg(session, shared, secure=False)
        await live(leg, Wire(), rng, rng.randrange(1, 25))
        sessions.append(session)
        legs.append(leg)
        if number % 50 == 0:
            gate.set()
            gate.clear()
    gate.set()
    while shared.dispatcher.tasks:
        await asyncio.wait(shared.dispatcher.tasks, timeout=10)
    lines = Counter(record.session.id for record in records)
    for session, leg in zip(sessions, legs, strict=True):
        assert lines[session.id] == session.requests == session.finished
        assert sum(session.outcomes().values()) == session.requests
        if protocol == "h2":
            assert CountingLeg.opened[id(leg)] == session.requests
    assert len({record.id for record in records}) == len(records)
    assert all(record.outcome is not None for record in records)
    assert not shared.legs and not shared.clients
    # It was worth it: nearly every way out was taken.
    outcomes = {record.outcome for record in records}
    assert outcomes >= {
        Outcome.COMPLETE,
        Outcome.PEER_LOST,
        Outcome.HANDLER_ERROR,
        Outcome.MALFORMED,
    }
    if protocol == "h2":
        assert outcomes >= {Outcome.CLIENT_RESET, Outcome.SERVER_RESET}
