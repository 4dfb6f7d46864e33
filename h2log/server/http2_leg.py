"""The HTTP/2 leg: one connection's engine between its transport and the handlers.

The way of a small static file is the short one: `on_request` finds it in memory and puts its
prepared bytes in the output; `data_received` writes everything once and finishes the records. All
else takes a stream and goes through `Dispatcher`.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from h2.errors import ErrorCodes

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.app.conditional import CONDITIONS, one_range, place
from h2log.app.files.negotiation import part_wish, wish
from h2log.app.files.partial import OpenWhole, Part
from h2log.app.request import Request
from h2log.app.response import error_response
from h2log.clock import monotonic, wall
from h2log.errors import HTTPError
from h2log.http2 import frames
from h2log.http2.budget import OUTPUT_LIMIT
from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.hpack import encode, literal_name
from h2log.http2.sending import Prepared
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream
from h2log.id_source import new_id
from h2log.server.content import ContentBuffer
from h2log.server.framed import MOST_FRAMED
from h2log.server.http2_reply import Http2Reply, header_block
from h2log.server.http2_wire import Http2Wire
from h2log.server.session import Shared, local_address

__all__ = ["Http2Leg"]

_logger = logging.getLogger("h2log.http2")

# The two fields that differ a response, at the end of its block: raw literals of a fixed size
# (RFC 7541 section 6.2.2), `date` by its index in the static table.
_DATE_HEAD: Final = literal_name(b"date") + b"\x1d"
_ID_HEAD: Final = literal_name(b"x-request-id") + b"\x20"
_RANGE_HEAD: Final = literal_name(b"content-range")
_LENGTH_HEAD: Final = literal_name(b"content-length")
_TAIL_SIZE: Final = len(_DATE_HEAD) + 29 + len(_ID_HEAD) + 32

_OUTCOMES: Final = {
    Cause.PEER_RESET: Outcome.CLIENT_RESET,
    Cause.MALFORMED: Outcome.MALFORMED,
    Cause.STREAM_ERROR: Outcome.SERVER_RESET,
    Cause.TIMEOUT: Outcome.TIMEOUT,
}


class _PartWish(str):
    """The wish of a GET for a part of a file, and which: see `conditional.place`."""

    __slots__ = ("asked",)

    asked: re.Match[str]


def _plain_wish(head: RequestHead, scheme: str) -> str:
    """Return the wish of a GET for a whole file, or one part of it; nothing for any other request.

    So it is what all is told by that the answer depends on, but for the path.
    """
    if head.method != "GET" or head.content_length or head.too_large:
        return ""
    if any(name in CONDITIONS for name, _ in head.fields):
        asked = one_range(head.fields)
        if asked is None:
            return ""
        part = _PartWish(part_wish(scheme))
        part.asked = asked
        return part
    return wish(scheme, head.fields)


def _part_head(whole: OpenWhole) -> bytes:
    """Return what the header blocks of a file's parts begin with."""
    fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in whole.headers]
    whole.part_head = encode([(b":status", b"206"), *fields])
    return whole.part_head


class Http2Leg(Http2Wire):
    """One HTTP/2 connection: the engine's `Events`, over its wire."""

    __slots__ = ("_asgi", "_date", "_date_tail", "_kept", "_scheme", "_special")

    def __init__(self, session: Session, shared: Shared, limits: EngineLimits) -> None:
        super().__init__(session, shared)
        # What the connection is, whatever a client calls it: `:scheme` is for the log alone.
        self._scheme = "http" if session.tls is None else "https"
        self._kept = shared.dispatcher.kept
        self._asgi = shared.asgi
        # Whether more is to be done of each request than to look for it in memory.
        usual = shared.asgi is None and shared.proxies is None
        self._special = not usual or session.opening is not None
        self._conn = Connection(self, limits, monotonic())
        self._date = ""
        self._date_tail = b""

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
                    if isinstance(response, OpenWhole):
                        assert isinstance(wished, _PartWish)
                        if not self._send_part(stream_id, exchange, response, wished.asked):
                            self._take(stream_id, exchange, head, ended)
                        return
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

    def _send_part(
        self, stream_id: int, exchange: Exchange, whole: OpenWhole, asked: re.Match[str]
    ) -> bool:
        """Send a part of a large file, if there is nothing to wait for; say whether it was sent."""
        conn = self._conn
        span = place(asked, whole.size)
        number = whole.opened.number
        if span is None or number is None or not self._has_turn:
            return False
        first, last = span
        size = last - first + 1
        if size > MOST_FRAMED or not conn.fits(size):
            return False
        self.frames.begin()
        if self.frames.add(number, stream_id, first, size, end=True) != size:
            return False
        whole.opened.asked = True
        stated = b"bytes %d-%d/%d" % (first, last, whole.size)
        length = b"%d" % size
        block = b"".join(
            (
                whole.part_head or _part_head(whole),
                _RANGE_HEAD,
                bytes((len(stated),)),
                stated,
                _LENGTH_HEAD,
                bytes((len(length),)),
                length,
                self.tail(exchange, exchange.wall),
            )
        )
        exchange.status = 206
        exchange.sent = size
        exchange.header_sent = len(block)
        exchange.response = Part(whole, first, last)
        exchange.cache = "miss"
        exchange.condition = "range"
        conn.framed_whole(size)
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
        self.write_frames(conn.take() + head)
        self._done.append(exchange)
        return True

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
        exchange = reply.exchange
        reply.ended()
        if reply.had_all:  # a client that does not wait for the end may be gone before it is out
            exchange.finish(exchange.verdict, monotonic())
        else:
            self._done.append(exchange)
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
        if outcome is Outcome.PEER_LOST:
            if reply.delivered:
                outcome = reply.exchange.verdict
        else:
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
        self.windows_opened()
        self.wake_waiters()
