"""The HTTP/1.1 leg: one connection's requests between its transport and the handlers.

`RequestReader` reads requests, `Http1Reply` says how a response is written; this module keeps the
order: one request at a time is answered, what a client sends ahead (pipelining) waits in the
reader, and reading stops when it is much. A request's line is opened when its header is complete,
or when it turns out that it never will be.

The way of a small static file is the short one: it is found in memory and put in the output, which
`data_received` writes once. All else has a reply, and goes through `Dispatcher` or `AsgiHost`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, cast

import h11

from h2log.access.record import Outcome, Session
from h2log.app.response import error_response
from h2log.clock import monotonic
from h2log.errors import HTTPError
from h2log.server.content import ContentBuffer
from h2log.server.http1_head import Http1Head, fault
from h2log.server.http1_output import Http1Output
from h2log.server.http1_reader import RequestReader
from h2log.server.http1_reply import Http1Reply
from h2log.server.http1_requests import begun_exchange, handler_request, open_exchange, send_kept
from h2log.server.session import FIRST_WORDS, HangUp, Hold, Shared, local_address

__all__ = ["Http1Leg"]

_logger = logging.getLogger("h2log.http1")

_TURN: Final = 128
"""Requests, and pieces of content, of one connection that are taken up before others have their
turn: about a millisecond of small files, some ten of what goes through h11."""
_READ_AHEAD: Final = 64 * 1024
"""Bytes that may come ahead of their use before reading stops: content that no handler has read,
and requests behind the one that is answered."""


class Http1Leg(asyncio.BufferedProtocol):
    """One HTTP/1.1 connection."""

    def __init__(
        self, session: Session, shared: Shared, secure: bool, *, short: bool = True
    ) -> None:
        self._session = session
        self._shared = shared
        self._scheme = "https" if secure else "http"
        self._reader = RequestReader(shared.limits, self._scheme, short=short)
        self._transport: asyncio.Transport | None = None
        self._reply: Http1Reply | None = None
        self._advancing = False
        self._due = False  # `_advance` comes, in this turn or the next
        self._paused = False  # reading
        self._hold: Hold | None = None  # once the log had no room
        self._since = monotonic()  # when the request that is awaited was begun, or could have been
        self._begun = False  # some of it has come
        self._closed = False
        self._eof = False  # the peer has ended its side, and we have not
        self._hanging_up: HangUp | None = None
        self._ended_for = ""  # why we ended the connection, if we did
        self.going = False
        """No further request is answered."""
        self.output = Http1Output(session, shared)
        session.protocol = "1.1"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self.output.begin(self._transport)
        self._shared.legs.add(self)
        self.going = self._shared.draining
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
        self._hold = self._shared.hold(self._hold, self._transport, self._read_on)

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
        reply = self._reply
        if reply is not None and reply.switched:
            reply.feed(data)
            self.balance()
            return
        self._reader.receive(data)
        if self._due:
            self.balance()
        else:
            self._advance()

    def eof_received(self) -> bool:
        """The peer sends nothing more; what it asked is not answered into the void.

        A two-way stream may go on in the other direction, unless TLS is over with it.
        """
        while self._due and not self._closed:  # what came before it is taken up as ever
            self._advance()
        reply = self._reply
        if self._closed or self._transport is None or reply is None or not reply.switched:
            return False
        self._eof = True
        reply.feed_end()
        return self._transport.can_write_eof()

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
            exchange = reply.exchange
            outcome = exchange.verdict if reply.delivered else Outcome.PEER_LOST
            exchange.finish(outcome, monotonic())
            reply.lost()
        self._abandon(Outcome.PEER_LOST)
        self.output.lost()
        if _logger.isEnabledFor(logging.DEBUG):
            ids = {"session_id": self._session.id, "request_id": "-"}
            _logger.debug("closed after %d requests", self._session.requests, extra=ids)
        self._session.last_stream_id = self._session.requests
        self._shared.gone(self._session, reason)  # the last: it sums up what has ended
        # The transport knows us: its buffers and its TLS would be the collector's to free.
        self._transport = self._hanging_up = self._hold = self._reply = None

    def pause_writing(self) -> None:
        """The transport is full."""
        self.output.pause()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.output.resume()
        if self._reply is None:
            self._advance()

    # The server's side

    def drain(self) -> None:
        """Finish the request that is open and close; see `Leg`."""
        self.going = True
        # What is new has its first request on the way, and who was just answered perhaps the next:
        # closed now, that would fail. It gets its response, which says that it is the last.
        idle = self._reply is None and not self._begun and self._session.requests
        if idle and monotonic() - self._since > FIRST_WORDS:
            self.close()

    def shut(self) -> None:
        """Close now; see `Leg`."""
        self._ended_for = "app_shutdown_timeout"
        if self._reply is not None:
            self._reply.note()
            self._reply.exchange.finish(Outcome.SHUTDOWN, monotonic())
            self._reply.lost()
        self._abandon(Outcome.SHUTDOWN)
        self.abort()

    def abort(self) -> None:
        """Cut the connection; see `Leg`."""
        if self._transport is not None:
            self.output.flush()
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Let time pass; see `Leg`."""
        if self._closed:
            return
        limits = self._shared.limits
        if self.output.blocked:
            if self.output.stall.is_one(now):
                self._time_out()
        elif self._hold is not None and self._hold.active:
            return
        elif self._reply is None:
            if self._begun:
                if now - self._since > limits.header_timeout:
                    self._refuse(408, Outcome.TIMEOUT, "the request did not come in time")
            elif self.going and now - self._since > FIRST_WORDS:
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
        """Take all that has come and that can be used now, and write what it has led to."""
        if self._advancing:
            return
        output = self.output
        reader = self._reader
        self._due = False
        self._advancing = output.gathering = True
        try:
            for _ in range(_TURN):
                if self._closed:
                    break
                reply = self._reply
                if reply is None:
                    if output.full:  # the client has not read what it asked for before
                        if not self._begun and reader.ahead:
                            self._await_more(begun=True)
                        break
                    head = reader.head()
                    if head is None:
                        self._await_more(begun=reader.begun)
                        break
                    self._begun = False
                    self._open(head)
                elif reply.content_ended or reply.switched:
                    break
                else:
                    piece = reader.content()
                    if piece is None:
                        break
                    if piece:
                        reply.feed(piece)
                    else:
                        reply.feed_end()
                        self._next_if_done()
            else:
                if self._reply is None:
                    self._begun = bool(reader.ahead)
                    self._since = monotonic()
                self._advance_soon()
        except h11.RemoteProtocolError as error:
            self._malformed(error)
        finally:
            self._advancing = output.gathering = False
        output.flush()
        self.balance()

    def _advance_soon(self) -> None:
        """Go on in the next turn of the loop."""
        self._due = True
        asyncio.get_running_loop().call_soon(self._advance)

    def _await_more(self, *, begun: bool) -> None:
        """Nothing can be done before more has come, or gone out."""
        if begun and not self._begun:
            self._since = monotonic()
        self._begun = begun
        if self.going and not begun and self._session.requests:
            self.close()

    def balance(self) -> None:
        """Stop reading while more has come than can be used, and go on when it was used."""
        transport = self._transport
        if transport is None or self._closed:
            return
        reply = self._reply
        if reply is None:
            if not (self._paused or self._due or self.output.blocked):
                return
            # Of a head that is not complete more must come; of whole ones enough has.
            ahead = self._reader.ahead if self.output.full or self._due else 0
        elif reply.content_ended:
            ahead = self._reader.ahead
        else:
            ahead = reply.unread + (self._reader.ahead if self._due else 0)
        if ahead > _READ_AHEAD and not self._paused:
            self._paused = True
            transport.pause_reading()
        elif ahead <= _READ_AHEAD and self._paused:
            self._paused = False
            if self._hold is None or not self._hold.active:
                transport.resume_reading()

    def _open(self, head: Http1Head) -> None:
        """A request's header is complete."""
        session = self._session
        if head.version[:1] == "1":  # a minor version above ours is ours (RFC 9110 section 2.5)
            session.protocol = "1.0" if head.version == "1.0" else "1.1"
        exchange = open_exchange(head, session, self._shared)
        asgi = self._shared.asgi
        wrong = None if head.sound else fault(head, self._shared.limits)
        if asgi is None and wrong is None and head.method == "GET":
            if head.persists and not self.going:
                if send_kept(head, exchange, self._shared, self.output):
                    self._since = exchange.start
                    return
        reply = self._reply = Http1Reply(self, exchange, head.persists)
        websocket = asgi is not None and head.wants_websocket
        if head.facts.length or websocket:
            limits = self._shared.limits
            reply.content = ContentBuffer(
                limits.max_body_bytes,
                limits.body_timeout,
                limits.min_rate,
                reply.content_read,
                reply.go_on,
                self._held_for,
            )
            reply.content_ended = not head.facts.length
            reply.held_back = head.expects and not reply.content_ended
        if wrong is not None:
            error, ends = wrong
            self.going = self.going or ends
            if error.status in (400, 505):
                exchange.verdict = Outcome.MALFORMED
            self._answer_error(reply, error)
        elif asgi is not None:
            asgi.serve(head, exchange, reply, reply.content, "websocket" if websocket else "http")
        else:
            request = handler_request(head, exchange, reply, reply.content)
            reply.task = self._shared.dispatcher.answer(request, exchange, reply)

    def _answer_error(self, reply: Http1Reply, error: HTTPError) -> None:
        response = error_response(error, reply.exchange.id)
        self._shared.dispatcher.send_now(response, reply.exchange, reply)

    def _malformed(self, error: h11.RemoteProtocolError) -> None:
        """Answer what h11 refuses, once, and close."""
        reply = self._reply
        if reply is None:
            self._refuse(error.error_status_hint, Outcome.MALFORMED, str(error))
            return
        # The content of a request that is being answered is broken.
        if not reply.ended:
            reply.exchange.verdict = Outcome.MALFORMED
            self.going = True
            if reply.exchange.status:
                reply.note()
                reply.exchange.finish(Outcome.MALFORMED, monotonic())
            else:
                self._answer_error(reply, HTTPError(error.error_status_hint))
            reply.lost()
        self.close()

    def _abandon(self, outcome: Outcome) -> None:
        """Write the line of a request of which no more than a part of the header will come."""
        if self._begun and self._reply is None:
            self._begun = False
            begun_exchange(self._reader.first_line, self._session, self._scheme).finish(
                outcome, monotonic()
            )

    def _refuse(self, status: int, outcome: Outcome, reason: str) -> None:
        """Open the line of a request whose header never came to be, answer, and close."""
        exchange = begun_exchange(self._reader.first_line, self._session, self._scheme)
        self._begun = False
        exchange.verdict = outcome
        self.going = True
        reply = Http1Reply(self, exchange, persists=False)
        detail = HTTPError(status, reason if outcome is Outcome.TIMEOUT else "")
        self._answer_error(reply, detail)
        timed_out = outcome is Outcome.TIMEOUT
        self._ended_for = "request_headers_timeout" if timed_out else "error_reading_headers"
        self.close()
        exchange.finish(outcome, monotonic())  # if it could not be answered

    # Writing: what a reply needs

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port."""
        return local_address(self._transport)

    @property
    def full(self) -> bool:
        """The transport takes no more."""
        return self.output.full

    def completed(self, reply: Http1Reply) -> None:
        """The response is complete: the next request's turn, when this one's content is through."""
        self._since = monotonic()
        self.output.complete(reply.exchange)
        if reply.switched:
            self.close()
            return
        self._next_if_done()
        if not self._advancing:
            self.balance()

    def _next_if_done(self) -> None:
        """Begin the next cycle once both halves of this one are over."""
        reply = self._reply
        if reply is None or not reply.ended:
            return
        if reply.last:
            # A client that waits to be asked for its content will not be.
            if reply.content_ended or reply.unasked or not reply.may_discard():
                self.close()
            return
        if not reply.content_ended:
            if not reply.may_discard():
                self.close()
            return
        reply.content = None  # it knows the reply
        self._reply = None
        self._begun = bool(self._reader.ahead)
        self._since = monotonic()
        if self.going and not self._begun:
            # A client that a stop has overtaken may have sent another: `tick` does not wait long.
            if not self._shared.draining:
                self.close()
        elif self._begun and not self._advancing:
            # Not from inside a handler: a chain of pipelined requests would nest.
            self._advance_soon()

    def switched(self, reply: Http1Reply) -> None:
        """What has come behind the request, and all that comes, is the stream's."""
        ahead = self._reader.take()
        if ahead:
            reply.feed(ahead)
        self.balance()

    def give_up(self, reply: Http1Reply) -> None:
        """Close so that the client sees that the response is not complete."""
        reply.lost()
        self.abort()

    def close(self) -> None:
        """Close the connection, once what was written has gone out."""
        if self._closed:
            return
        self.output.flush()
        self._closed = self.output.closed = True
        if self._transport is not None:
            draining = self._shared.draining
            self._hanging_up = HangUp(self._transport, stopping=draining, ended=self._eof)

    def _reason(self, error: Exception | None) -> str:
        """Return why the connection ended (see `Session`)."""
        if self._ended_for:
            return self._ended_for
        if self.going and self._shared.draining:
            return "server_shutdown"
        return "connection_reset" if error is not None else "client_closed"
