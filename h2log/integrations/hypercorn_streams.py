"""Hypercorn's streams, one for each request, with a line each.

See `hypercorn_trace` for how they come in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from hypercorn.config import Config
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request, Response, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import WorkerContext
from wsproto.connection import ConnectionState
from wsproto.events import Ping

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.clock import monotonic
from h2log.ids import request_id, session_id
from h2log.integrations.asgi_facts import Answered, Asked, ended_so, open_exchange
from h2log.integrations.hypercorn_tracer import session_of, tracer_of
from h2log.server.asgi_notes import route_of

__all__ = ["Stream", "Streams", "TracedHTTPStream", "TracedWSStream"]

_logger = logging.getLogger("h2log.hypercorn")

_ABNORMAL: Final = 1006
"""A WebSocket that ended without a close (RFC 6455 section 7.4.1)."""


class Stream:
    """One request or WebSocket; comes before Hypercorn's class in the order of its bases.

    It hears what its protocol tells it (`handle`), what the application has it send (`app_send`),
    and what it sends to its protocol in turn (`send`).
    """

    config: Config
    context: WorkerContext
    app: Any
    send: Callable[[Any], Awaitable[None]]
    stream_id: int
    closed: bool
    exchange: Exchange | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.exchange = None
        self.reset: tuple[bool, int] | None = None
        """Whether it was the peer that reset it, and the code."""
        self._over = False  # the application has ended: what is sent now is in its place
        self._failed = False  # by an exception
        self._cut = False  # it was cancelled, as its connection was
        self._whole_at = 0.0  # when its own 5xx was sent, which it may yet raise the reason of
        self._closing = False  # our side of a WebSocket has closed
        self._leaving = False  # the response is whole, and its end not sent yet
        self._blamed = False  # and it is Hypercorn's, in place of the application's
        self._ending: Outcome | None = None  # how it ends that Hypercorn says no end of
        self._protocol: Any = getattr(self.send, "__self__", None)
        self._to_protocol = self.send
        if tracer_of(self.config) is not None and session_of(self._protocol) is not None:
            self.send = self._send
            self.app = partial(_run, self.app, self)

    # From the protocol

    async def handle(self, event: Any) -> None:
        """Hear of the request, its content and its end."""
        exchange = self.exchange
        if isinstance(event, Request):
            session = session_of(self._protocol)
            if session is not None and tracer_of(self.config) is not None:
                self._open(event, session)
        elif exchange is not None and exchange.outcome is None:
            if isinstance(event, Body | Data):
                exchange.received += len(event.data)
            elif isinstance(event, StreamClosed):
                self.lost()
        was_closed = self.closed
        await super().handle(event)  # type: ignore[misc]
        if self.closed and not was_closed and isinstance(event, Request | Body | Data):
            await self._refused()

    async def _refused(self) -> None:
        """Hypercorn has refused it, and would leave connection and application waiting."""
        put = getattr(self, "app_put", None)
        if put is not None:  # a WebSocket that sent before it was accepted
            await put({"type": "websocket.disconnect", "code": _ABNORMAL})
        if self.exchange is not None:
            await self._to_protocol(StreamClosed(stream_id=self.stream_id))

    def _open(self, event: Request, session: Session) -> None:
        scheme: str = self.scheme  # type: ignore[attr-defined]
        scheme = "https" if scheme in ("https", "wss") else "http"
        asked = Asked(event.method, event.raw_path, scheme, event.headers)
        if session.protocol in ("1.1", "1.0", "-"):
            session.protocol = "1.0" if event.http_version == "1.0" else "1.1"
            stream_id = session.requests + 1  # as h2log numbers them
        else:
            stream_id = session.last_stream_id = self.stream_id
        self.exchange = open_exchange(session, asked, stream_id)

    def lost(self) -> None:
        """The protocol has ended the stream before the response was whole."""
        exchange = self.exchange
        if exchange is None or exchange.outcome is not None or self._whole_at or self._leaving:
            return
        if self.reset is not None:
            theirs, code = self.reset
            detail = exchange.details()
            detail.reset_by, detail.reset_code = ("client" if theirs else "server"), code
            outcome = Outcome.CLIENT_RESET if theirs else Outcome.SERVER_RESET
        elif self._closing:
            outcome = exchange.verdict
        elif self._cut:
            outcome = self._cut_for()
        else:
            outcome = getattr(self._protocol, "ended_for", None) or Outcome.PEER_LOST
        self.end(outcome)

    def end(self, outcome: Outcome) -> None:
        """Write the line, once; frameworks answer 500 for an exception, then raise it."""
        exchange = self.exchange
        if exchange is None or exchange.outcome is not None:
            return
        route = route_of(getattr(self, "scope", {}))
        if route is not None:
            exchange.details().route = route
        exchange.finish(ended_so(outcome, exchange), self._whole_at or monotonic())

    # From the application

    async def app_send(self, message: Any) -> None:
        """Hear of its end."""
        if message is None:
            self._over = True
            if self._whole_at and self.exchange is not None:
                self.end(Outcome.HANDLER_ERROR if self._failed else self.exchange.verdict)
            elif self._cut and self.exchange is not None and not self._leaving:
                # Hypercorn would answer 500, and wait for ever for a task that was cancelled, too.
                self.end(self._cut_for())
                self.closed = True
                return
            await self._conclude()
            return
        await super().app_send(message)  # type: ignore[misc]

    async def _conclude(self) -> None:
        """Have Hypercorn end it; what fails at that is no reason to end the connection."""
        if self.exchange is None:
            await super().app_send(None)  # type: ignore[misc]
            return
        try:
            await super().app_send(None)  # type: ignore[misc]
        except Exception as error:
            _logger.error("the end of a response could not be sent", exc_info=error)
            with contextlib.suppress(Exception):
                await self._break_off(Outcome.HANDLER_ERROR)
                await self._to_protocol(StreamClosed(stream_id=self.stream_id))

    def _cut_for(self) -> Outcome:
        """Return how it ends that was cancelled: the server stops, or its connection failed."""
        tracer = tracer_of(self.config)
        stops = self.context.terminated.is_set() or (tracer is not None and tracer.hurried)
        return Outcome.SHUTDOWN if stops else Outcome.SERVER_RESET

    def ended_with(self, error: BaseException) -> None:
        """It raised; CancelledError may be its own."""
        self._failed = True
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None:
            self._cut = task.cancelling() > 0

    # To the protocol

    async def _send(self, event: Any) -> None:
        exchange = self.exchange
        if exchange is None or exchange.outcome is not None:
            await self._to_protocol(event)
        elif isinstance(event, Response):
            await self._send_head(event, exchange)
        elif isinstance(event, Body | Data):
            await self._to_protocol(event)
            if not hasattr(self._protocol, "leaves"):  # which tells us itself
                self.sent(len(event.data))
        elif isinstance(event, EndBody):
            over = self._over  # then it is Hypercorn's 500, for one that raised or had no answer
            await self._to_protocol(event)
            if exchange.outcome is None:
                self._leaving = True
                self._blamed = over
                leaves = getattr(self._protocol, "when_left", None)
                if leaves is None:
                    self.left()
                else:
                    leaves(self)
        elif isinstance(event, EndData):
            self._closing = True
            await self._to_protocol(event)
        elif isinstance(event, StreamClosed):
            if not self._whole_at and not self._leaving:
                await self._break_off(self._closed(exchange))
            await self._to_protocol(event)
        else:
            await self._to_protocol(event)

    @property
    def broken(self) -> bool:
        """The client must see that the response is not complete; a WebSocket's Close says so."""
        return self._ending is Outcome.HANDLER_ERROR and getattr(self, "connection", None) is None

    async def _break_off(self, outcome: Outcome) -> None:
        """End a stream that Hypercorn closes without a word, and its line when all of it has left.

        A server that stops closes the connection with its last stream, and waits for nothing.
        """
        conclude = getattr(self._protocol, "conclude", None)
        if conclude is None or self.context.terminated.is_set():
            self.end(outcome)
            return
        self._ending = outcome
        self._leaving = True
        await conclude(self)

    def was_reset(self, code: int) -> None:
        """We have reset it."""
        if self.exchange is not None:
            detail = self.exchange.details()
            detail.reset_by, detail.reset_code = "server", code

    async def _send_head(self, event: Response, exchange: Exchange) -> None:
        fields = [item for item in event.headers if item[0].lower() != b"x-request-id"]
        own = (b"x-request-id", exchange.id.encode())
        await self._to_protocol(replace(event, headers=[*fields, own]))
        if exchange.outcome is None:
            exchange.status = event.status_code
            exchange.response = Answered(fields)
            exchange.details().headers_at = monotonic()

    def sent(self, size: int) -> None:
        """So much content was sent."""
        exchange = self.exchange
        if exchange is not None and exchange.outcome is None and size:
            if not exchange.sent:
                exchange.details().first_byte_at = monotonic()
            exchange.sent += size

    def left(self) -> None:
        """The response has left whole."""
        exchange = self.exchange
        self._leaving = False
        if exchange is None or exchange.outcome is not None:
            return
        if self._ending is not None:
            self.end(self._ending)
        elif self._blamed:
            self.end(Outcome.HANDLER_ERROR)
        elif exchange.status >= 500 and isinstance(self, HTTPStream):
            self._whole_at = monotonic()
            if self._over:
                self.end(Outcome.HANDLER_ERROR if self._failed else exchange.verdict)
        else:
            self.end(exchange.verdict)

    def stayed(self) -> None:
        """The end of the response was never sent: its connection has ended, or it was reset."""
        self._leaving = False
        if self._ending is not None:
            self.end(self._ending)
        else:
            self.lost()

    def _closed(self, exchange: Exchange) -> Outcome:
        """Return how a stream ended that ends itself without a whole response."""
        if self._failed:
            return Outcome.HANDLER_ERROR
        if isinstance(self, WSStream) and exchange.status:
            if self.state is ASGIWebsocketState.RESPONSE:
                return Outcome.HANDLER_ERROR  # a denial that was begun
            if getattr(self.connection, "state", None) is ConnectionState.OPEN:
                return Outcome.MALFORMED  # what the client sent, and neither side has closed it
            return exchange.verdict
        return Outcome.HANDLER_ERROR if self._over else Outcome.PEER_LOST


class _Nobody:
    """In place of a stream that is closed."""

    async def handle(self, event: Any) -> None:
        """Take no notice."""


class Streams(dict[int, Any]):
    """The streams of a connection; one that is not there takes no notice of what comes for it.

    Hypercorn's connections end with a KeyError at content for a request that was answered already.
    """

    def __missing__(self, stream_id: int) -> _Nobody:
        return _Nobody()


async def _run(app: Any, stream: Stream, scope: Any, receive: Any, send: Any, *rest: Any) -> None:
    """Run the application in its task, with the ids where its code finds them."""
    exchange = stream.exchange
    if exchange is not None:
        session = exchange.session
        session_id.set(session.id)
        request_id.set(exchange.id)
        scope["extensions"]["h2log"] = {
            "session_id": session.id,
            "request_id": exchange.id,
            "stream_id": exchange.stream_id,
        }
    try:
        await app(scope, receive, send, *rest)
    except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit) as error:
        stream.ended_with(error)
        raise
    except BaseException as error:
        # `sys.exit`, for one: Hypercorn would end the connection, and all of HTTP/3, for it.
        stream.ended_with(error)
        raise RuntimeError(f"the application raised {type(error).__name__}") from error


class TracedHTTPStream(Stream, HTTPStream):
    """An http request."""


class TracedWSStream(Stream, WSStream):
    """A WebSocket; between two pings it does not outlive its connection, as Hypercorn's does."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gone = asyncio.Event()

    async def handle(self, event: Any) -> None:
        """Hear of the end."""
        await super().handle(event)
        if self.closed:
            self._gone.set()

    async def _send_pings(self) -> None:
        while not self.closed:
            await self._send_wsproto_event(Ping())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), self.config.websocket_ping_interval)
