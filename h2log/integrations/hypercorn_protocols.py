"""Hypercorn's HTTP/1.1 and HTTP/2, with lines for the requests that never become streams.

See `hypercorn_trace` for how they come in their place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

import h2.events
import h2.exceptions
import h11
from h2.errors import ErrorCodes
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol

from h2log.access.record import Outcome, Session
from h2log.clock import monotonic
from h2log.integrations.asgi_facts import Answered, Asked, open_exchange
from h2log.integrations.hypercorn_streams import Stream, Streams
from h2log.integrations.hypercorn_tracer import server_of, session_of

__all__ = ["TracedH2Protocol", "TracedH11Protocol", "asked_of", "declined"]

_HEAD: Final = 8192
"""Bytes of a request's head that are kept for the line of one that is malformed."""

_DECODED: Final = (b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol")
"""Fields that Hypercorn takes for ASCII when it opens a WebSocket."""


class _UnservableError(Exception):
    """A request that Hypercorn fails at."""


class _OverError(Exception):
    """The connection has ended while its next request waited."""


class _Turn:
    """The event that the next request waits for; there is none on a connection that has ended."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self._over = False
        self.clear, self.set = event.clear, event.set

    async def end(self) -> None:
        """Let whoever waits, or will, go: with an _OverError."""
        self._over = True
        await self._event.set()

    async def wait(self) -> None:
        """As the event's."""
        if not self._over:
            await self._event.wait()
        if self._over:
            raise _OverError


class TracedH11Protocol(H11Protocol):
    """HTTP/1.1: what h11 refuses has a line, too."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._turn = _Turn(self.can_read)
        if session_of(self) is not None:
            can_read: Any = self._turn
            self.can_read = can_read
        self._begun = b""  # of a head that is not complete
        self._eof = False
        self._left = False  # the client, as far as one can know
        self.ended_for: Outcome | None = None
        """How what is open ends with the connection."""

    async def handle(self, event: Any) -> None:
        """Keep the beginning of a head, for the line of a malformed one."""
        if isinstance(event, RawData):
            self._eof = not event.data
            if self.stream is None and len(self._begun) < _HEAD:
                self._begun += event.data
        await super().handle(event)
        if isinstance(event, Closed):  # Hypercorn has who reads wait for ever
            self._left = session_of(self) is not None
            await self._turn.end()

    async def stream_send(self, event: Any) -> None:
        """Send nothing to who has left: the line has said so, and how much was sent by then.

        Hypercorn goes on, in case that it is but the client's half that has ended.
        """
        if not self._left or isinstance(event, StreamClosed):
            await super().stream_send(event)

    async def _maybe_recycle(self) -> None:
        over = (self.connection.our_state, self.connection.their_state) != (h11.DONE, h11.DONE)
        await super()._maybe_recycle()
        if over:
            await self._turn.end()
        if self.stream is None:  # the next request may have come with the one before
            self._begun = bytes(self.connection.trailing_data[0][:_HEAD])

    async def _handle_events(self) -> None:
        try:
            await super()._handle_events()
        except _OverError:
            return
        except _UnservableError:
            await self._send_error_response(400)
            self.stream = None
            await self.send(Closed())
            return
        # Its content is malformed, and its response had begun: h11 is in no state to answer.
        stream: Any = self.stream
        if isinstance(stream, Stream) and self.connection.their_state is h11.ERROR:
            stream.end(self._fault())

    async def _create_stream(self, request: h11.Request) -> None:
        self._begun = b""
        self._speaks(session_of(self))
        try:
            await super()._create_stream(request)
        except UnicodeError as error:  # a WebSocket's fields
            if session_of(self) is None:
                raise
            raise _UnservableError from error

    def _speaks(self, session: Session | None) -> None:
        if session is not None and session.protocol == "-":
            server_of(self).became("1.1")

    async def _send_error_response(self, status_code: int) -> None:
        session = session_of(self)
        if session is None:
            await super()._send_error_response(status_code)
            return
        stream: Any = self.stream
        exchange = stream.exchange if isinstance(stream, Stream) else None
        if exchange is None:
            self._speaks(session)
            asked = _asked_so_far(self._begun, "https" if self.ssl else "http")
            exchange = open_exchange(session, asked, session.requests + 1)
        await super()._send_error_response(status_code)
        if exchange.outcome is None and not exchange.status:
            exchange.status = status_code
            exchange.response = Answered(())
            exchange.details().headers_at = monotonic()
        self._begun = b""
        exchange.finish(self._fault(), monotonic())
        server_of(self).end_for("error_reading_headers")

    def _fault(self) -> Outcome:
        """Return whose fault it is that a request is not whole: who hangs up may mean well."""
        return Outcome.PEER_LOST if self._eof else Outcome.MALFORMED


def _asked_so_far(begun: bytes, scheme: str) -> Asked:
    """Return the facts of a request whose head never came to be, from its first line."""
    parts = begun.lstrip(b"\r\n").split(b"\n", 1)[0].rstrip(b"\r").split(b" ")
    method, target = (parts[0], parts[1]) if len(parts) > 1 else (b"", b"")
    return Asked(method.decode("latin-1"), target, scheme)


class TracedH2Protocol(H2Protocol):
    """HTTP/2: resets with their codes, and content when it leaves."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ended_for: Outcome | None = None
        """How what is open ends with the connection."""
        self._last = 0  # the highest stream that we heard of
        self._idle_since = 0  # the highest of them when nothing was open
        self._left: set[int] = set()  # streams whose response has left whole
        self._leaving: dict[int, Stream] = {}  # those whose response is whole, but for its end
        connection: Any = self.connection
        self._receive_data = connection.receive_data
        self._send_content = connection.send_data
        self._send_headers = connection.send_headers
        self._end_stream = connection.end_stream
        if session_of(self) is not None:
            self.streams = Streams()
            connection.receive_data = self._receiving
            connection.send_data = self.leaves
            connection.send_headers = self._heads_leave
            connection.end_stream = self._ends

    async def initiate(self, *arguments: Any) -> None:
        """The protocol is known."""
        session = session_of(self)
        if session is not None:
            server_of(self).became("h2")
        await super().initiate(*arguments)

    async def handle(self, event: Any) -> None:
        """Let nobody wait for a connection that is closed."""
        await super().handle(event)
        if isinstance(event, Closed) and session_of(self) is not None:
            for buffer in self.stream_buffers.values():
                await buffer.close()
            while self._leaving:
                self._leaving.popitem()[1].stayed()

    # What h2 is given and gives

    def _receiving(self, data: bytes) -> Any:
        try:
            return self._receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._violated(error)
            raise

    def _violated(self, error: h2.exceptions.ProtocolError) -> None:
        """The peer has broken the protocol, and h2 ends the connection for it."""
        session = session_of(self)
        assert session is not None
        code = error.error_code
        self.ended_for = Outcome.SERVER_RESET
        session.goaway = int(code)
        server_of(self).end_for(getattr(code, "name", "protocol_error").lower())
        # Those that came in the same read: h2 does not tell of them any more.
        for stream_id in sorted(self.connection.streams):
            if stream_id % 2 and stream_id > self._last:
                asked = Asked("", b"", "https" if self.ssl else "http")
                exchange = open_exchange(session, asked, stream_id)
                detail = exchange.details()
                detail.reset_by, detail.reset_code = "server", int(code)
                exchange.finish(Outcome.SERVER_RESET, monotonic())

    def leaves(self, stream_id: int, data: Any, *arguments: Any, **named: Any) -> None:
        """Content of a stream is sent."""
        self._send_content(stream_id, data, *arguments, **named)
        stream = self._leaving.get(stream_id) or self.streams.get(stream_id)
        if isinstance(stream, Stream):
            stream.sent(len(data))

    def _heads_leave(self, stream_id: int, headers: Any, end_stream: bool = False) -> None:
        self._send_headers(stream_id, headers, end_stream=end_stream)
        if end_stream:
            self._left.add(stream_id)

    def _ends(self, stream_id: int) -> None:
        stream = self._leaving.pop(stream_id, None)
        if stream is not None and stream.broken:
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            stream.was_reset(int(ErrorCodes.INTERNAL_ERROR))
        else:
            self._end_stream(stream_id)
        if stream is not None:
            stream.left()
        elif stream_id in self.streams:
            self._left.add(stream_id)

    def when_left(self, stream: Stream) -> None:
        """Tell a stream, whose response is whole, when its end has been sent, or will never be."""
        stream_id = stream.stream_id
        if stream_id in self._left:
            self._left.discard(stream_id)
            stream.left()
        elif self.closed or stream_id not in self.stream_buffers:
            stream.stayed()
        else:  # the task that sends comes to it soon
            self._leaving[stream_id] = stream

    async def conclude(self, stream: Stream) -> None:
        """End a stream that Hypercorn would leave open, once what there is of it has left.

        Its client would wait, and no more than so many may be open.
        """
        buffer = self.stream_buffers.get(stream.stream_id)
        if self.closed or buffer is None:
            stream.stayed()
            return
        self._leaving[stream.stream_id] = stream
        buffer.set_complete()
        self.priority.unblock(stream.stream_id)
        await self.has_data.set()

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        self._left.discard(stream_id)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        session = session_of(self)
        served: list[h2.events.Event] = []
        for event in events if session is not None else ():
            assert session is not None
            if isinstance(event, h2.events.RequestReceived):
                self._last = max(self._last, event.stream_id)
                if self.context.terminated.is_set():
                    self._refused(event, session)
                elif (status := declined(event.headers)) is not None:
                    await super()._handle_events(served)  # what came before it
                    served = []
                    self._decline(event, session, status)
                    continue
            elif isinstance(event, h2.events.StreamReset):
                leaving = self._leaving.pop(event.stream_id, None)
                stream = leaving or self.streams.get(event.stream_id)
                if isinstance(stream, Stream):
                    stream.reset = (event.remote_reset, int(event.error_code))
                    if leaving is not None:
                        leaving.stayed()
            elif isinstance(event, h2.events.ConnectionTerminated):
                server_of(self).end_for("client_closed")  # it says so before it does
            served.append(event)
        await super()._handle_events(events if session is None else served)
        if session is not None and not self.streams and self._last > self._idle_since:
            self._idle_since = self._last  # what Hypercorn refused by itself it takes for open
            await self.send(Updated(idle=True))

    def _decline(self, event: h2.events.RequestReceived, session: Session, status: int) -> None:
        """Answer in Hypercorn's place, for what it fails at and ends the connection."""
        exchange = open_exchange(session, asked_of(event.headers), event.stream_id)
        head = [(b":status", b"%d" % status), (b"content-length", b"0")]
        own = (b"x-request-id", exchange.id.encode())
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it was reset in the same read
            fields = [*head, own, *self.config.response_headers("h2")]
            self._send_headers(event.stream_id, fields, end_stream=True)
            exchange.status = status
            exchange.response = Answered(head[1:])
            exchange.details().headers_at = monotonic()
        exchange.finish(Outcome.MALFORMED if status == 400 else exchange.verdict, monotonic())

    def _refused(self, event: h2.events.RequestReceived, session: Session) -> None:
        """Hypercorn, which is draining, resets it."""
        asked = asked_of(event.headers)
        open_exchange(session, asked, event.stream_id).finish(Outcome.REFUSED, monotonic())


def declined(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the status for a request of HTTP/2 or HTTP/3 that Hypercorn fails at, None for others.

    400 for a method or path that is not ASCII (RFC 9113 section 8.3.1), 501 for a CONNECT that is
    no WebSocket's: it is a proxy's (RFC 9110 section 9.3.6).
    """
    fields = dict(headers)
    method, path = fields.get(b":method", b""), fields.get(b":path")
    if method.upper() == b"CONNECT":
        if path is None:
            return 501
        if not all(fields.get(name, b"").isascii() for name in _DECODED):
            return 400
    return None if path is not None and method.isascii() and path.isascii() else 400


def asked_of(headers: Iterable[tuple[bytes, bytes]]) -> Asked:
    """Return the facts of a request from its fields and pseudo fields (RFC 9113 section 8.3)."""
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    fields = [(name, value) for name, value in headers if name[:1] != b":"]
    if b":authority" in pseudo:
        fields.append((b"host", pseudo[b":authority"]))
    return Asked(
        pseudo.get(b":method", b"").decode("latin-1"),
        pseudo.get(b":path", b""),
        pseudo.get(b":scheme", b"").decode("latin-1"),
        fields,
    )
