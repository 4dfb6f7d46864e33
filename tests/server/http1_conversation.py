"""Conversations with an HTTP/1.1 leg in memory: bytes in, bytes and records out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from h2log.access.record import AccessRecord, Session
from h2log.app.application import App
from h2log.app.asgi import AsgiApp, Receive, Scope, Send
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.clock import monotonic
from h2log.config import Limits, build
from h2log.server.asgi import AsgiHost
from h2log.server.dispatch import Dispatcher
from h2log.server.http1_leg import Http1Leg
from h2log.server.session import Shared

__all__ = ["Line", "Told", "answering", "asgi_answering", "converse", "limits_of"]

_TURNS: Final = 8
"""Turns of the loop that handlers are given between two pieces."""


class Line(asyncio.Transport):
    """A transport in memory: what was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.end = ""
        self.paused = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There are none."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.2", 80) if name == "sockname" else default

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.end = self.end or "eof"

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.end == "cut"

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "cut"


@dataclass(frozen=True)
class Told:
    """What came of a conversation: all that differs in it each time left out."""

    text: bytes
    lines: tuple[tuple[object, ...], ...]
    end: str
    paused: bool
    session: tuple[object, ...]


_OWN: Final = re.compile(rb"(?<=\r\nx-request-id: )[0-9a-f]{32}|(?<=\r\ndate: )[^\r]+")
_OWN_ID: Final = re.compile(rb"(?<=request id: )[0-9a-f]{32}")


def _told(record: AccessRecord) -> tuple[object, ...]:
    facts, response = record.facts, record.response
    return (
        record.protocol,
        facts.method,
        facts.path,
        facts.scheme,
        facts.authority,
        facts.fields,
        record.status,
        record.outcome,
        record.received,
        record.sent,
        record.header_received,
        record.header_sent,
        record.stream_id,
        record.cache,
        None if response is None else tuple(response.headers),
    )


@cache
def limits_of(**limits: float) -> Limits:
    """Return the limits of a server, but for some the usual ones."""
    return build({"limits": limits}, "the test's limits").limits


async def converse(
    app: App | AsgiApp, pieces: Sequence[bytes], *, short: bool, **limits: float
) -> Told:
    """Send `pieces`, with some turns of the loop behind each, then hang up."""
    records: list[AccessRecord] = []
    shared = Shared(
        Dispatcher(app),  # type: ignore[arg-type]
        limits_of(**limits),
        records.append,
        asgi=AsgiHost(app) if isinstance(app, AsgiApp) else None,
    )
    tasks = shared.dispatcher.tasks if shared.asgi is None else shared.asgi.tasks
    session = Session("0" * 32, "192.0.2.1", 1, 0.0, records.append, monotonic())
    shared.accepted(session)
    line = Line()
    leg = Http1Leg(session, shared, secure=False, short=short)
    leg.connection_made(line)
    for piece in pieces:
        leg.data_received(piece)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    end, paused = line.end, line.paused
    text = b"".join(line.writes)
    leg.connection_lost(None)
    while tasks:
        await asyncio.wait(tasks, timeout=10)
    return Told(
        _OWN_ID.sub(b"", _OWN.sub(b"", text)),
        tuple(map(_told, records)),
        end,
        paused,
        (session.protocol, session.requests, session.finished, session.sent, session.reason),
    )


def answering() -> App:
    """Return an application that answers at once, later, in pieces, and with what it was sent."""
    app = App()

    @app.get("/now")
    def now(request: Request) -> Response:
        return Response.text(f"{request.method} {request.target} {request.authority}")

    @app.get("/later")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.text(repr(request.fields))

    @app.get("/pieces")
    async def pieces(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(0)
            yield b"two"

        return Response(body(), trailers={"x-end": "yes"})

    @app.get("/none")
    def none(request: Request) -> Response:
        return Response(status=204)

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    return app


def asgi_answering() -> AsgiApp:
    """Return an ASGI application that does the same."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        content = b""
        while True:
            message = await receive()
            content += message.get("body", b"")
            if not message.get("more_body", False):
                break
        status = 204 if scope["path"] == "/none" else 200
        start = {"type": "http.response.start", "status": status, "headers": []}
        told = repr((scope["method"], scope["path"], scope["query_string"], scope["headers"]))
        if scope["path"] == "/now":
            start["headers"] = [(b"content-length", b"%d" % len(told))]
        await send(start)
        if scope["path"] == "/pieces":
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await send(
            {
                "type": "http.response.body",
                "body": content if scope["path"] == "/echo" else told.encode(),
            }
        )

    return AsgiApp(call, "answering", lifespan="off")
