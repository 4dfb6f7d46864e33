"""The HTTP/1.1 leg: one connection's h11 between its transport and the handlers.

h11 keeps the rules of RFC 9112; this module keeps the order: one request at a time is answered,
what a client sends ahead (pipelining) waits in h11, and reading stops when it is much. A request's
line is opened when its header is complete, or when it turns out that it never will be.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, cast

import h11

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.app.request import Request
from h2log.app.response import Response, check_fields, error_response
from h2log.clock import monotonic, wall
from h2log.errors import HTTPError, reason_phrase
from h2log.http2.head import BAD_IN_AUTHORITY
from h2log.http2.hpack import FIELD_OVERHEAD
from h2log.ids import new_id
from h2log.server.content import ContentBuffer
from h2log.server.http1_reply import Http1Reply
from h2log.server.session import FIRST_WORDS, HangUp, Hold, Shared, Stall

__all__ = ["Http1Head", "Http1Leg"]

_logger = logging.getLogger("h2log.http1")

_HIGH_WATER: Final = 128 * 1024
_READ_AHEAD: Final = 64 * 1024
"""Bytes that may come ahead of their use before reading stops: content that no handler has read,
and requests behind the one that is answered."""
_MAX_LINE: Final = 8192
"""Bytes of a request line that are kept for the log while its header is not complete."""

# The server says itself how a message ends and whether the connection goes on.
_DROPPED: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
        "date",
    )
)


class Http1Head:
    """What an HTTP/1.1 request asked (see `RequestFacts`)."""

    __slots__ = ("authority", "fields", "method", "path", "scheme")

    def __init__(
        self,
        method: str = "",
        path: str = "",
        scheme: str = "",
        authority: str = "",
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.method = method
        self.path = path
        self.scheme = scheme
        self.authority = authority
        self.fields = fields


def _head_of(event: h11.Request, scheme: str) -> Http1Head:
    """Return the head of a request; an absolute target is split (RFC 9112 section 3.2.2)."""
    target = event.target.decode("latin-1")
    fields = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    authority = next((v.decode("latin-1") for n, v in fields if n == b"host"), "")
    method = event.method.decode("ascii")
    if method != "CONNECT" and not target.startswith("/"):
        prefix, mark, rest = target.partition("://")
        if mark and prefix.lower() in ("http", "https"):
            authority, slash, path = rest.partition("/")
            if "?" in authority:  # http://host?query
                authority, _, query = rest.partition("?")
                slash, path = "/", f"?{query}"
            target = f"/{path}" if slash else "/"
    return Http1Head(method, target, scheme, authority, fields)


class Http1Leg(asyncio.BufferedProtocol):
    """One HTTP/1.1 connection."""

    def __init__(self, session: Session, shared: Shared, secure: bool) -> None:
        self._session = session
        self._shared = shared
        self._scheme = "https" if secure else "http"
        limits = shared.limits
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)
        self._transport: asyncio.Transport | None = None
        self._reply: Http1Reply | None = None
        self._paused = False  # reading
        self._hold: Hold | None = None  # once the log had no room
        self._since = monotonic()  # when the request that is awaited was begun, or could have been
        self._begun = False  # some of it has come
        self._going = False
        self._closed = False
        self._hanging_up: HangUp | None = None
        self._blocked = False  # the transport is full
        self._stall = Stall(shared.limits)
        self._ended_for = ""  # why we ended the connection, if we did
        self._first_line = b""
        self._drain_waiters: list[asyncio.Future[None]] = []
        session.protocol = "1.1"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._shared.legs.add(self)
        self._going = self._shared.draining
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
        self.data_received(bytes(shared.buffer[:size]))
        if shared.log is not None and shared.log.overloaded:
            self._wait_for_log()

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
        self._since += seconds
        if not self._paused:
            self._transport.resume_reading()

    def _held_for(self) -> float:
        return 0.0 if self._hold is None else self._hold.seconds()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._closed:
            return
        if self._reply is None and not self._begun:
            data = data.lstrip(b"\r\n")  # RFC 9112 section 2.2
            if not data:
                return
            self._begun = True
            self._since = monotonic()
            self._first_line = b""
        if self._reply is None and len(self._first_line) < _MAX_LINE:
            self._first_line += data[: _MAX_LINE - len(self._first_line)]
        self._h11.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """The peer sends nothing more; what it asked is not answered into the void."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was open has lost its peer."""
        self._shared.left(self)
        reason = self._reason(error)
        self._closed = True
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        reply = self._reply
        if reply is not None:
            reply.note()
            reply.exchange.finish(Outcome.PEER_LOST, monotonic())
            reply.lost()
        self._abandon(Outcome.PEER_LOST)
        self._wake()
        if _logger.isEnabledFor(logging.DEBUG):
            self._debug("closed after %d requests", self._session.requests)
        self._session.last_stream_id = self._session.requests
        self._shared.gone(self._session, reason)  # the last: it sums up what has ended

    def pause_writing(self) -> None:
        """The transport is full."""
        self._blocked = True
        self._stall.begin(self._transport)

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._blocked = False
        self._wake()
        if self._reply is None:
            self._advance()

    # The server's side

    def drain(self) -> None:
        """Finish the request that is open and close; see `Leg`."""
        self._going = True
        # What is new has its first request on the way: closed now, that would fail.
        if self._reply is None and not self._begun and self._session.requests:
            self.close()

    def shut(self) -> None:
        """Close now; see `Leg`."""
        self._ended_for = "app_shutdown_timeout"
        if self._reply is not None:
            self._reply.note()
            self._reply.exchange.finish(Outcome.SHUTDOWN, monotonic())
            self._reply.lost()
        self._abandon(Outcome.SHUTDOWN)
        if self._transport is not None:
            self._transport.abort()

    def abort(self) -> None:
        """Cut the connection; see `Leg`."""
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Let time pass; see `Leg`."""
        if self._closed:
            return
        limits = self._shared.limits
        if self._blocked:
            if self._stall.is_one(now):
                self._time_out()
        elif self._hold is not None and self._hold.active:
            return
        elif self._reply is None:
            if self._begun:
                if now - self._since > limits.header_timeout:
                    self._refuse(408, Outcome.TIMEOUT, "the request did not come in time")
            elif self._going and now - self._since > FIRST_WORDS:
                self.close()
            elif now - self._since > limits.idle_timeout:
                self._ended_for = "keep_alive_timeout"
                self.close()
        elif self._reply.ended and now - self._since > limits.body_timeout:
            self.close()  # unwanted content that does not end

    def _time_out(self) -> None:
        self._ended_for = "min_response_data_rate"
        if self._reply is not None:
            self._reply.note()
            self._reply.exchange.finish(Outcome.TIMEOUT, monotonic())
            self._reply.lost()
        assert self._transport is not None
        self._transport.abort()

    # Reading

    def _advance(self) -> None:
        """Take every event that h11 has and that can be used now."""
        try:
            while not self._closed:
                if self._reply is None and self.full:
                    break  # the client has not read what it asked for before
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Request):
                    self._open(event)
                elif isinstance(event, h11.Data):
                    if self._reply is not None:
                        self._reply.feed(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    if self._reply is not None:
                        self._reply.feed_end()
                        self._next_if_done()
                elif isinstance(event, h11.ConnectionClosed):
                    self.close()
        except h11.RemoteProtocolError as error:
            self._malformed(error)
        self.balance()

    def balance(self) -> None:
        """Stop reading while more has come than can be used, and go on when it was used."""
        transport = self._transport
        if transport is None or self._closed:
            return
        reply = self._reply
        ahead = 0
        if reply is None and self.full:
            ahead = len(self._h11.trailing_data[0])
        elif reply is not None:
            ahead = reply.unread if not reply.content_ended else len(self._h11.trailing_data[0])
        if ahead > _READ_AHEAD and not self._paused:
            self._paused = True
            transport.pause_reading()
        elif ahead <= _READ_AHEAD and self._paused:
            self._paused = False
            if self._hold is None or not self._hold.active:
                transport.resume_reading()

    def _open(self, event: h11.Request) -> None:
        """A request's header is complete."""
        version = event.http_version
        if version[:1] == b"1":  # a minor version above ours is ours (RFC 9110 section 2.5)
            self._session.protocol = "1.0" if version == b"1.0" else "1.1"
        now = monotonic()
        head = _head_of(event, self._scheme)
        exchange = Exchange(self._session, head, new_id(), self._session.requests + 1, wall(), now)
        exchange.header_received = len(event.target) + sum(
            len(name) + len(value) + 4 for name, value in head.fields
        )
        exchange.announce()
        self._session.peak = 1
        self._begun = False
        limits = self._shared.limits
        content = ContentBuffer(
            limits.max_body_bytes,
            limits.body_timeout,
            limits.min_rate,
            lambda size: self._content_read(reply, size),
            self._continue,
            self._held_for,
        )
        reply = self._reply = Http1Reply(self, exchange, content)
        error = self._fault(head, version)
        if error is not None:
            if error.status in (400, 505):
                exchange.verdict = Outcome.MALFORMED
            self._answer_error(reply, error)
            return
        session = self._session
        request = Request(
            method=head.method,
            target=head.path,
            scheme=head.scheme,
            authority=head.authority,
            fields=head.fields,
            client=(session.client, session.port),
            session_id=session.id,
            request_id=exchange.id,
            content=content,
            interim=reply.interim,
        )
        reply.task = self._shared.dispatcher.answer(request, exchange, reply)

    def _fault(self, head: Http1Head, version: bytes) -> HTTPError | None:
        """Return why a request must not reach a handler, or None."""
        limits = self._shared.limits
        names = [name for name, _ in head.fields]
        hosts = [value for name, value in head.fields if name == b"host"]
        if any(BAD_IN_AUTHORITY(value) for value in hosts):
            return HTTPError(400, "invalid host")
        if version[:1] != b"1":
            self._going = True
            return HTTPError(505)
        if b"transfer-encoding" in names and b"content-length" in names:
            # Two lengths are how a request is smuggled past a proxy (RFC 9112 section 6.3).
            self._going = True
            return HTTPError(400, "both transfer-encoding and content-length")
        size = sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in head.fields)
        if len(names) > limits.max_header_fields or size > limits.max_header_bytes:
            return HTTPError(431)
        if head.method != "CONNECT" and not head.path.startswith("/") and head.path != "*":
            return HTTPError(400, "the request target is not a path")
        length = next((int(value) for name, value in head.fields if name == b"content-length"), 0)
        if length > limits.max_body_bytes:
            return HTTPError(413, f"the content is larger than {limits.max_body_bytes} bytes")
        return None

    def _answer_error(self, reply: Http1Reply, error: HTTPError) -> None:
        response = error_response(error, reply.exchange.id)
        self._shared.dispatcher.send_now(response, reply.exchange, reply)

    def _malformed(self, error: h11.RemoteProtocolError) -> None:
        """Answer what h11 refuses, once, and close."""
        reply = self._reply
        if reply is None:
            self._refuse(error.error_status_hint, Outcome.MALFORMED, str(error))
            return
        if reply.content_ended:
            return  # what follows a request that is the connection's last is not read
        # The content of a request that is being answered is broken.
        if not reply.ended:
            reply.exchange.verdict = Outcome.MALFORMED
            self._going = True
            if reply.exchange.status:
                reply.note()
                reply.exchange.finish(Outcome.MALFORMED, monotonic())
            else:
                self._answer_error(reply, HTTPError(error.error_status_hint))
            reply.lost()
        self.close()

    def _abandon(self, outcome: Outcome) -> None:
        """Write the line of a request of which no more than a part of the header will come."""
        if self._begun and self._reply is None and self._first_line:
            self._begun = False
            self._begun_exchange().finish(outcome, monotonic())

    def _begun_exchange(self) -> Exchange:
        """Open the exchange of a request whose header never came to be."""
        parts = self._first_line.split(b"\n", 1)[0].rstrip(b"\r").split(b" ")
        method, target = (parts[0], parts[1]) if len(parts) > 1 else (b"", b"")
        head = Http1Head(method.decode("latin-1"), target.decode("latin-1"), self._scheme)
        nth = self._session.requests + 1
        exchange = Exchange(self._session, head, new_id(), nth, wall(), monotonic())
        exchange.announce()
        self._session.peak = 1
        return exchange

    def _refuse(self, status: int, outcome: Outcome, reason: str) -> None:
        """Open the line of a request whose header never came to be, answer, and close."""
        exchange = self._begun_exchange()
        self._begun = False
        exchange.verdict = outcome
        if self._h11.our_state is h11.IDLE or self._h11.our_state is h11.SEND_RESPONSE:
            reply = Http1Reply(self, exchange, None)
            self._going = True
            detail = HTTPError(status, reason if outcome is Outcome.TIMEOUT else "")
            self._answer_error(reply, detail)
        exchange.finish(outcome, monotonic())
        timed_out = outcome is Outcome.TIMEOUT
        self._ended_for = "request_headers_timeout" if timed_out else "error_reading_headers"
        self.close()

    def _continue(self) -> None:
        """A handler waits for content that the client holds back (RFC 9110 section 10.1.1)."""
        if self._h11.they_are_waiting_for_100_continue and not self._closed:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _content_read(self, reply: Http1Reply, size: int) -> None:
        if reply is self._reply and not reply.ended:
            reply.unread -= size
            self.balance()

    # Writing

    def _send(self, event: h11.Event) -> int:
        data = self._h11.send(event)
        if data and self._transport is not None and not self._closed:
            self._session.sent += len(data)
            self._transport.write(data)
            return len(data)
        return 0

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response."""
        if self._session.protocol != "1.0":
            fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
            self._send(h11.InformationalResponse(status_code=status, headers=fields))

    def respond(self, reply: Http1Reply, response: Response) -> None:
        """Send status and header. Raises h11.LocalProtocolError for what cannot be sent."""
        check_fields(response.headers)
        # A response that has no content has no length (RFC 9110 section 8.6), and one in chunks,
        # as trailers want it, neither (RFC 9112 section 6.2).
        unsized = response.status == 204 or reply.trailing
        headers = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in response.headers
            if name not in _DROPPED
            and not (unsized and name == "content-length")
            and not (name == "trailer" and not reply.trailing)
        ]
        sized = any(name == b"content-length" for name, _ in headers)
        length = response.content_length()
        if not (sized or unsized) and length is not None and response.status != 304:
            headers.append((b"content-length", b"%d" % length))
        headers.append((b"date", self._shared.date(wall()).encode()))
        headers.append((b"x-request-id", reply.exchange.id.encode()))
        reply.last = self._going or reply.must_close()
        if reply.last:
            headers.append((b"connection", b"close"))
        exchange = reply.exchange
        exchange.response = response
        exchange.details().headers_at = monotonic()
        exchange.header_sent = self._send(
            h11.Response(
                status_code=response.status,
                headers=headers,
                reason=reason_phrase(response.status).encode(),
            )
        )

    def content(self, data: bytes | bytearray) -> None:
        """Send content."""
        self._send(h11.Data(data=cast(bytes, data)))

    def complete(self, reply: Http1Reply, trailers: list[tuple[str, str]]) -> None:
        """The response is complete: the next request's turn, when this one's content is through."""
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in trailers]
        self._send(h11.EndOfMessage(headers=fields))
        self._since = monotonic()
        lost = self._transport is not None and self._transport.is_closing()
        outcome = Outcome.PEER_LOST if lost and not self._closed else reply.exchange.verdict
        reply.exchange.finish(outcome, self._since)
        self._next_if_done()

    def _next_if_done(self) -> None:
        """Begin the next cycle once both halves of this one are over."""
        reply = self._reply
        if reply is None or not reply.ended:
            return
        if reply.last and not reply.content_ended and reply.unasked:
            self.close()  # the client waits to be asked for its content, and will not be
            return
        if self._h11.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            if reply.content_ended or not reply.may_discard():
                self.close()
            return
        if not reply.content_ended:
            if not reply.may_discard():
                self.close()
            return
        self._reply = None
        self._begun = bool(self._h11.trailing_data[0])
        self._since = monotonic()
        self._first_line = self._h11.trailing_data[0][:_MAX_LINE]
        if self._going and not self._begun:
            self.close()
            return
        self._h11.start_next_cycle()
        # Not from inside h11's loop: a chain of pipelined requests would nest.
        asyncio.get_running_loop().call_soon(self._advance)

    def close(self) -> None:
        """Close the connection, once what was written has gone out."""
        if self._closed:
            return
        self._closed = True
        if self._transport is not None:
            self._hanging_up = HangUp(self._transport, stopping=self._shared.draining)

    def give_up(self, reply: Http1Reply) -> None:
        """Close so that the client sees that the response is not complete."""
        reply.lost()
        if self._transport is not None:
            self._transport.abort()

    @property
    def content_is_held_back(self) -> bool:
        """The client waits for 100 (Continue) before it sends content."""
        return bool(self._h11.they_are_waiting_for_100_continue)

    @property
    def full(self) -> bool:
        """The transport takes no more."""
        return self._blocked and not self._closed

    async def wait_writable(self) -> None:
        """Return when the transport has room, or is gone."""
        while self.full:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _reason(self, error: Exception | None) -> str:
        """Return why the connection ended (see `Session`)."""
        if self._ended_for:
            return self._ended_for
        if self._going and self._shared.draining:
            return "server_shutdown"
        return "connection_reset" if error is not None else "client_closed"

    def _debug(self, message: str, *args: object) -> None:
        _logger.debug(message, *args, extra={"session_id": self._session.id, "request_id": "-"})
