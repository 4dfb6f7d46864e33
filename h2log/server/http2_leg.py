"""The HTTP/2 leg: one connection's engine between its transport and the handlers.

The way of a small static file is the short one: `on_request` finds it in memory and puts its
prepared bytes in the output; `data_received` writes everything once and finishes the records. All
else takes a stream and goes through `Dispatcher`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, cast

from h2.errors import ErrorCodes

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.app.conditional import CONDITIONS
from h2log.app.files.negotiation import wish
from h2log.app.request import Request
from h2log.app.response import error_response
from h2log.clock import monotonic, wall
from h2log.errors import HTTPError
from h2log.http2.budget import OUTPUT_LIMIT
from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.hpack import literal_name
from h2log.http2.sending import Prepared
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream
from h2log.id_source import new_id
from h2log.server.content import ContentBuffer
from h2log.server.http2_reply import Http2Reply, header_block
from h2log.server.http2_room import HIGH_WATER, Room
from h2log.server.session import READ_SIZE, HangUp, Hold, Shared, Stall, local_address

__all__ = ["Http2Leg"]

_logger = logging.getLogger("h2log.http2")

_LONG: Final = 0.002
"""Seconds of work with one full read after which other connections have their turn: content of
64 KiB takes less than a tenth of it, thousands of small frames ten times as much."""

# The two fields that differ a response, at the end of its block: raw literals of a fixed size
# (RFC 7541 section 6.2.2), `date` by its index in the static table.
_DATE_HEAD: Final = literal_name(b"date") + b"\x1d"
_ID_HEAD: Final = literal_name(b"x-request-id") + b"\x20"
_TAIL_SIZE: Final = len(_DATE_HEAD) + 29 + len(_ID_HEAD) + 32

_OUTCOMES: Final = {
    Cause.PEER_RESET: Outcome.CLIENT_RESET,
    Cause.MALFORMED: Outcome.MALFORMED,
    Cause.STREAM_ERROR: Outcome.SERVER_RESET,
    Cause.TIMEOUT: Outcome.TIMEOUT,
}


def _plain_wish(head: RequestHead, scheme: str) -> str:
    """Return the wish of a GET whose fields ask for a whole file, nothing for any other request."""
    if head.method != "GET" or head.content_length or head.too_large:
        return ""
    if any(name in CONDITIONS for name, _ in head.fields):
        return ""
    return wish(scheme, head.fields)


class Http2Leg(Room, asyncio.BufferedProtocol):
    """One HTTP/2 connection: the engine's `Events`, and asyncio's protocol."""

    __slots__ = (
        "_asgi",
        "_conn",
        "_date",
        "_date_tail",
        "_done",
        "_flush_due",
        "_hanging_up",
        "_hold",
        "_kept",
        "_lost",
        "_reading",
        "_scheme",
        "_session",
        "_shared",
        "_shutting",
        "_special",
        "_stall",
        "_stalled",
        "_transport",
    )

    def __init__(self, session: Session, shared: Shared, limits: EngineLimits) -> None:
        super().__init__(shared.limits.send_buffer)
        self._session = session
        # What the connection is, whatever a client calls it: `:scheme` is for the log alone.
        self._scheme = "http" if session.tls is None else "https"
        self._shared = shared
        self._kept = shared.dispatcher.kept
        self._asgi = shared.asgi
        # Whether more is to be done of each request than to look for it in memory.
        usual = shared.asgi is None and shared.proxies is None
        self._special = not usual or session.opening is not None
        self._conn = Connection(self, limits, monotonic())
        self._transport: asyncio.Transport | None = None
        self._done: list[Exchange] = []  # responses in the output that is to be flushed
        self._date = ""
        self._date_tail = b""
        self._flush_due = False
        self._reading = False  # inside data_received, which flushes at its end
        self._stall = Stall(shared.limits)
        self._lost = False
        self._hold: Hold | None = None  # once the log had no room
        self._hanging_up: HangUp | None = None
        self._shutting = False
        self._stalled = False
        session.protocol = "h2"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: our SETTINGS go out."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._shared.legs.add(self)
        if self._shared.draining:
            self._conn.drain(monotonic())
        self._flush()
        log = self._shared.log
        if log is not None and log.overloaded:
            self._wait_for_log()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what to read into."""
        return self._shared.buffer

    def buffer_updated(self, size: int) -> None:
        """Take what was read."""
        self._session.received += size
        shared = self._shared
        began = monotonic() if size == READ_SIZE else 0.0
        self.data_received(bytes(shared.buffer[:size]))
        if began and monotonic() - began > _LONG:
            self._let_others()
        if shared.log is not None and shared.log.overloaded:
            self._wait_for_log()

    def data_received(self, data: bytes) -> None:
        """Read every whole frame in `data`, answer, and write once."""
        self._reading = True
        try:
            self._conn.receive(data, monotonic())
        finally:
            self._reading = False
        self._flush()

    def _let_others(self) -> None:
        """Read on in the next turn of the loop: uvloop would read up to 32 times in this one."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_again)

    def _read_again(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._hold is None or not self._hold.active:
            transport.resume_reading()

    def _wait_for_log(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._hold is None:
            self._hold = Hold(transport, self._read_on)
        if not self._hold.active:
            self._shared.hold(self._hold)

    def _read_on(self, seconds: float) -> None:
        assert self._transport is not None
        self._conn.excuse(seconds)
        self._transport.resume_reading()

    def _held_for(self) -> float:
        return 0.0 if self._hold is None else self._hold.seconds()

    def eof_received(self) -> bool:
        """The peer sends nothing more: nothing more can be asked."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was open has lost its peer."""
        self._lost = True
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        self._shared.left(self)
        conn = self._conn
        session = self._session
        session.last_stream_id = conn.last_stream_id
        session.goaway = conn.goaway
        reason = self._reason(error)
        if not self._conn.closing:
            self._conn.end()
        now = monotonic()
        for exchange in self._done:  # complete, but never handed over
            exchange.finish(Outcome.PEER_LOST, now)
        self._done.clear()
        self.wake_waiters()
        self._tell_closed()
        self._shared.gone(session, reason)  # the last: it sums up what has ended
        self._let_go()

    def _let_go(self) -> None:
        """Break the circles of leg, engine and transport: who has them frees them.

        Else each connection would keep its buffers and its TLS until the collector comes by.
        """
        self._conn.release()
        self._stall.begin(None)
        self._transport = self._hanging_up = self._hold = None

    def pause_writing(self) -> None:
        """The transport is full."""
        self._conn.blocked = True
        self._stall.begin(self._transport)

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._conn.blocked = False
        self._conn.now = monotonic()
        self._conn.pump()
        self._flush()
        self.wake_waiters()

    # The server's side

    def drain(self) -> None:
        """Begin to go; see `Leg`."""
        self._conn.drain(monotonic())
        self._flush()

    def abort(self) -> None:
        """Cut the connection; see `Leg`."""
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Let time pass; see `Leg`."""
        conn = self._conn
        if conn.closing:
            return
        if conn.blocked and self._stall.is_one(now):
            self._stalled = True
            conn.end(Cause.TIMEOUT)
            assert self._transport is not None
            self._transport.abort()
            return
        if self._hold is not None and self._hold.active:
            return
        conn.tick(now)
        self._flush()

    def shut(self) -> None:
        """Close now; see `Leg`."""
        self._shutting = True
        conn = self._conn
        for stream in list(conn.streams.values()):
            conn.reset(stream, ErrorCodes.CANCEL)
            self.on_reset(stream, Cause.CONNECTION, ErrorCodes.CANCEL)
        conn.stop()
        self._flush()
        if self._transport is not None and conn.blocked:
            self._transport.abort()

    def flush_soon(self) -> None:
        """Write what the engine has gathered, after the running callback."""
        if not (self._reading or self._flush_due):
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Hand the output to the transport, and finish what was completed by it."""
        self._flush_due = False
        conn = self._conn
        transport = self._transport
        if self._lost or transport is None:
            return
        if transport.is_closing() and self._hanging_up is None:
            return  # the peer is gone: `connection_lost` follows, and says so of what is open
        while conn.out_size and not conn.blocked:
            self._session.sent += conn.out_size
            transport.write(conn.take())
            if conn.pending:
                conn.pump()
        if self._done and not conn.out_size:
            now = monotonic()
            for exchange in self._done:
                exchange.finish(exchange.verdict, now)
            self._done.clear()
        conn.settle()
        if conn.closing:
            if conn.out_size:
                self._session.sent += conn.out_size
                transport.write(conn.take())
            if self._hanging_up is None:
                self._hanging_up = HangUp(transport, stopping=self._shared.draining)

    # The engine's events

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        """Open an exchange, and answer it now if what it asks for is ready."""
        now = monotonic()
        stamp = wall()
        conn = self._conn
        session = self._session
        exchange = Exchange(session, head, new_id(stamp), stream_id, stamp, now)
        exchange.header_received = conn.block_size
        active = exchange.active = len(conn.streams) + 1
        if active > session.peak:
            session.peak = active
        wished: str | None = None
        if self._special:
            proxies = self._shared.proxies
            if proxies is not None:
                exchange.origin = proxies.of(session, head.fields, self._scheme)
            exchange.announce()
            if self._asgi is not None:
                self._take(stream_id, exchange, head, ended)
                return
            if exchange.origin is not None:
                wished = _plain_wish(head, exchange.origin.scheme)
        if wished is None:
            wished = head.rest.memo
            if wished is None:
                wished = head.rest.memo = _plain_wish(head, self._scheme)
        if wished and ended:
            path: str | None = head.memo
            if path is None:
                path = head.memo = head.path.partition("?")[0]
            response = self._kept(path, now, wished)
            if response is not None:
                prepared: Prepared | None = response.wire
                if prepared is None:
                    assert isinstance(response.body, bytes)
                    prepared = response.wire = Prepared(
                        header_block(response), _TAIL_SIZE, response.body
                    )
                if conn.out_size > OUTPUT_LIMIT and not conn.blocked:
                    assert self._transport is not None
                    self._session.sent += conn.out_size
                    self._transport.write(conn.take())
                if conn.send_prepared(stream_id, prepared, self.tail(exchange, stamp)):
                    exchange.status = 200
                    exchange.sent = prepared.size
                    exchange.header_sent = prepared.head_size
                    exchange.response = response
                    exchange.cache = "hit"
                    self._done.append(exchange)
                    return
        self._take(stream_id, exchange, head, ended)

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port."""
        return local_address(self._transport)

    def tail(self, exchange: Exchange, now: float) -> bytes:
        """Return the end of a header block at `now` (epoch): `date` and `x-request-id`."""
        date = self._shared.date(now)
        if date is not self._date:
            self._date = date
            self._date_tail = _DATE_HEAD + date.encode() + _ID_HEAD
        return self._date_tail + exchange.id.encode()

    def _take(self, stream_id: int, exchange: Exchange, head: RequestHead, ended: bool) -> None:
        """Take the request as a stream, and have it answered."""
        stream = self._conn.open_stream(stream_id)
        reply = Http2Reply(self, self._conn, stream, exchange)
        stream.context = reply
        session = self._session
        limits = self._shared.limits
        refusal = None
        if head.too_large:
            refusal = HTTPError(431)
        elif head.content_length is not None and head.content_length > limits.max_body_bytes:
            refusal = HTTPError(413, f"the content is larger than {limits.max_body_bytes} bytes")
        if refusal is not None:
            answer = error_response(refusal, exchange.id)
            self._shared.dispatcher.send_now(answer, exchange, reply)
            return
        if not ended:
            expects = any(n == b"expect" and v.lower() == b"100-continue" for n, v in head.fields)
            reply.content = ContentBuffer(
                limits.max_body_bytes,
                limits.body_timeout,
                limits.min_rate,
                reply.content_read,
                reply.go_on if expects else None,
                self._held_for,
            )
        if self._asgi is not None:
            kind = "websocket" if head.protocol == "websocket" else "http"
            self._asgi.serve(head, exchange, reply, reply.content, kind)
            return
        origin = exchange.origin
        request = Request(
            method=head.method,
            target=head.path,
            scheme=self._scheme if origin is None else origin.scheme,
            authority=head.authority if origin is None else origin.host or head.authority,
            fields=head.fields,
            client=exchange.client,
            session_id=session.id,
            request_id=exchange.id,
            content=reply.content,
            interim=reply.interim,
            protocol=head.protocol,
        )
        reply.task = self._shared.dispatcher.answer(request, exchange, reply)

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        """Log a request that was opened and refused at once."""
        now = monotonic()
        exchange = Exchange(self._session, head, new_id(), stream_id, wall(), now)
        exchange.header_received = self._conn.block_size
        exchange.active = len(self._conn.streams) + 1
        proxies = self._shared.proxies
        if proxies is not None:
            exchange.origin = proxies.of(self._session, head.fields, self._scheme)
        exchange.announce()
        detail = exchange.details()
        detail.reset_by = "server"
        if cause is Cause.MALFORMED:
            detail.reset_code = ErrorCodes.PROTOCOL_ERROR
        elif not self._conn.going:
            detail.reset_code = ErrorCodes.REFUSED_STREAM
        outcome = Outcome.MALFORMED if cause is Cause.MALFORMED else Outcome.REFUSED
        exchange.finish(outcome, now)
        if _logger.isEnabledFor(logging.DEBUG):
            reason = head.fault or "no room for another request"
            self.debug("refused stream %d: %s", stream_id, reason, request=exchange.id)

    def on_data(self, stream: Stream, data: bytes) -> None:
        """Content has come."""
        reply: Http2Reply = stream.context
        reply.exchange.received += len(data)
        if reply.content is not None:
            reply.content.feed(data)
        else:
            self._conn.consumed(stream, len(data))

    def on_end(self, stream: Stream) -> None:
        """The content is complete."""
        reply: Http2Reply = stream.context
        if reply.content is not None:
            reply.content.end()

    def on_progress(self, stream: Stream) -> None:
        """Some of the queue went out."""
        stream.context.progressed()

    def on_sent(self, stream: Stream) -> None:
        """The response is in the output: it is complete once that is flushed."""
        reply: Http2Reply = stream.context
        self._done.append(reply.exchange)
        reply.ended()
        stream.context = None  # no event follows, and a circle would be the collector's to find

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        """The stream is gone before its time."""
        reply: Http2Reply = stream.context
        if cause is Cause.CONNECTION:
            if self._shutting:
                outcome = Outcome.SHUTDOWN
            elif self._conn.error is not None:
                outcome = Outcome.SERVER_RESET
            else:
                outcome = Outcome.PEER_LOST
        else:
            outcome = _OUTCOMES[cause]
        reply.note()
        detail = reply.exchange.details()
        if outcome is not Outcome.PEER_LOST:
            detail.reset_by = "client" if cause is Cause.PEER_RESET else "server"
            detail.reset_code = code
        reply.exchange.finish(outcome, monotonic())
        if _logger.isEnabledFor(logging.DEBUG):
            self.debug(
                "stream %d ended as %s, code %d",
                stream.id,
                outcome.value,
                code,
                request=reply.exchange.id,
            )
        reply.ended()
        reply.cancel()
        stream.context = None

    def on_window(self) -> None:
        """A window has opened."""
        self.wake_waiters()

    def _reason(self, error: Exception | None) -> str:
        """Return why the connection ended (see `Session`)."""
        conn = self._conn
        if conn.error is not None:
            if "rapid_reset" in conn.error.detail or "server_reset" in conn.error.detail:
                return "stream_reset_limit_exceeded"
            return conn.error.code.name.lower()
        if self._stalled:
            return "min_response_data_rate"
        if self._shutting:
            return "app_shutdown_timeout"
        if conn.idle:
            return "keep_alive_timeout"
        if conn.going and self._shared.draining:
            return "server_shutdown"
        return "connection_reset" if error is not None else "client_closed"

    # The story of a connection, at debug level

    def debug(self, message: str, *args: object, request: str = "-") -> None:
        """Log at debug level, under the session's id."""
        _logger.debug(message, *args, extra={"session_id": self._session.id, "request_id": request})

    def _tell_closed(self) -> None:
        """Tell of the connection's end; a spent budget is for the person who runs the server."""
        error, level = self._conn.error, logging.DEBUG
        if error is not None:
            spent = error.code == ErrorCodes.ENHANCE_YOUR_CALM
            level = logging.WARNING if spent else logging.INFO
        _logger.log(
            level,
            "closed the connection of %s after %d requests: %s",
            self._session.client,
            self._session.requests,
            error or "by agreement",
            extra={"session_id": self._session.id, "request_id": "-"},
        )
