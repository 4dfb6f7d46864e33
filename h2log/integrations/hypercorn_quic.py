"""HTTP/3 as Hypercorn has it, traced: a session for each QUIC connection, a line for each request.

See `hypercorn_trace` for how the classes come in Hypercorn's place. Some of what they do is more
than telling. Hypercorn's HTTP/3 does not look at a stream that the client resets, nor at what is
open when a connection ends; the application would wait for ever, and the request would have no
line. It stops altogether at content for a request that was answered already, and when it drains it
waits for a datagram that nobody sends. So: such streams are closed (the application is told, as
HTTP/2's is), such content is left out, requests that come while it drains are rejected
(H3_REQUEST_REJECTED, RFC 9114 section 8.1), and connections without a request are closed then,
once the client has acknowledged what it was sent. A connection that fails ends by itself: Hypercorn
would stop serving all of them.

A stream whose application fails in the middle of its response is reset, as HTTP/2's is.

What stays is Hypercorn's: one queue for the datagrams of all connections, so that an application
which does not read its request's content holds up the others; and the peer that vanishes without a
word is noticed after a minute (aioquic's idle timeout).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import Any, Final

import hypercorn.asyncio.run as hypercorn_run
import hypercorn.protocol.h3 as hypercorn_h3
import hypercorn.protocol.quic as hypercorn_quic
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from hypercorn.asyncio.udp_server import UDPServer
from hypercorn.events import RawData
from hypercorn.protocol.events import Response, StreamClosed
from hypercorn.protocol.h3 import H3Protocol
from hypercorn.protocol.quic import QuicProtocol

from h2log.access.record import Outcome, Session, TlsFacts
from h2log.clock import monotonic
from h2log.integrations.asgi_facts import Answered, open_exchange
from h2log.integrations.hypercorn_protocols import asked_of, declined
from h2log.integrations.hypercorn_streams import Stream, Streams, TracedHTTPStream, TracedWSStream
from h2log.integrations.hypercorn_tracer import tracer_of

__all__ = ["TracedH3Protocol", "TracedUDPServer", "install_quic"]

_logger = logging.getLogger("h2log.hypercorn")

_NO_ERROR: Final = 0x100
_INTERNAL_ERROR: Final = 0x102
_REJECTED: Final = 0x10B
_CANCELLED: Final = 0x10C


class TracedH3Protocol(H3Protocol):
    """A QUIC connection that speaks HTTP/3."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.session: Session | None = None
        self.closed = False
        self.ended_for: Outcome | None = None
        """How what is open ends with the connection."""
        tracer = tracer_of(self.config)
        if tracer is None:
            return
        self.tracer = tracer
        self.quic: QuicConnection = arguments[7]
        session = self.session = tracer.session(self.client, "h3")
        session.alpn = "h3"
        session.tls = _tls_facts(self.quic)
        tracer.opened(session)
        self.streams = Streams()
        connection: Any = self.connection
        self._handle_event = connection.handle_event
        connection.handle_event = self._events
        self._send_stream_data = self.quic.send_stream_data
        self.quic.send_stream_data = self._leaves

    async def handle(self, quic_event: QuicEvent) -> None:
        """Hear of resets and of the end; fail for this connection, not for that of others."""
        if self.session is None:
            await super().handle(quic_event)
            return
        try:
            await self._take(quic_event)
        except Exception:
            extra = {"session_id": self.session.id, "request_id": "-"}
            _logger.exception("a connection of HTTP/3 failed and is closed", extra=extra)
            self.ended_for = self.ended_for or Outcome.SERVER_RESET
            self.quic.close(error_code=_INTERNAL_ERROR)
            await self.end(_INTERNAL_ERROR, "error")

    async def _take(self, quic_event: QuicEvent) -> None:
        assert self.session is not None
        if isinstance(quic_event, StreamDataReceived):
            self.session.received += len(quic_event.data)
        if isinstance(quic_event, StreamReset | StopSendingReceived):
            stream = self.streams.get(quic_event.stream_id)
            if isinstance(stream, Stream):
                stream.reset = (True, quic_event.error_code)
            await self._close_stream(quic_event.stream_id)
        elif isinstance(quic_event, ConnectionTerminated):
            await self.end(quic_event.error_code)
        await super().handle(quic_event)

    def _events(self, quic_event: QuicEvent) -> list[H3Event]:
        """Return what an event of QUIC is in HTTP/3, of what can be used."""
        found: list[H3Event] = []
        assert self.session is not None
        for event in self._handle_event(quic_event):
            if isinstance(event, HeadersReceived):
                self.session.last_stream_id = max(self.session.last_stream_id, event.stream_id)
                if all(name != b":method" for name, _ in event.headers):
                    # Trailers, which ASGI has no place for.
                    event = DataReceived(b"", event.stream_id, event.stream_ended)
                elif self.context.terminated.is_set():
                    self._reject(event)
                    continue
                elif (status := declined(event.headers)) is not None:
                    self._decline(event, status)
                    continue
                else:
                    event = replace(event, headers=_with_one_cookie(event.headers))
            found.append(event)
        return found

    def _reject(self, event: HeadersReceived) -> None:
        assert self.session is not None
        exchange = open_exchange(self.session, asked_of(event.headers), event.stream_id)
        exchange.finish(Outcome.REFUSED, monotonic())
        with contextlib.suppress(Exception):  # aioquic's, when the stream is over
            self.quic.reset_stream(event.stream_id, _REJECTED)

    def _decline(self, event: HeadersReceived, status: int) -> None:
        """Answer in Hypercorn's place, for what it fails at."""
        assert self.session is not None
        exchange = open_exchange(self.session, asked_of(event.headers), event.stream_id)
        head = [(b":status", b"%d" % status), (b"content-length", b"0")]
        own = (b"x-request-id", exchange.id.encode())
        with contextlib.suppress(Exception):  # aioquic's, when the stream is over
            fields = [*head, own, *self.config.response_headers("h3")]
            self.connection.send_headers(event.stream_id, fields, end_stream=True)
            exchange.status = status
            exchange.response = Answered(head[1:])
            exchange.details().headers_at = monotonic()
        exchange.finish(Outcome.MALFORMED if status == 400 else exchange.verdict, monotonic())

    def _leaves(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        assert self.session is not None
        self.session.sent += len(data)
        self._send_stream_data(stream_id, data, end_stream)

    async def stream_send(self, event: Any) -> None:
        """Send nothing for a stream that is closed: QUIC would not have it."""
        if isinstance(event, Response):
            # Hypercorn's own errors have it, and no client of HTTP/3 may accept it (RFC 9114, 4.2).
            fields = [item for item in event.headers if item[0].lower() != b"connection"]
            event = replace(event, headers=fields)
        if self.session is None or event.stream_id in self.streams:
            await super().stream_send(event)
            if isinstance(event, StreamClosed) and not self.streams:
                self.tracer.rested.set()

    async def conclude(self, stream: Stream) -> None:
        """End a stream that Hypercorn would leave open, and its client waiting."""
        with contextlib.suppress(Exception):  # aioquic's, when the stream is over
            if stream.broken:
                self.quic.reset_stream(stream.stream_id, _INTERNAL_ERROR)
                stream.was_reset(_INTERNAL_ERROR)
            else:
                self.connection.send_data(stream.stream_id, b"", True)
            await self.send()
        stream.left()

    async def _close_stream(self, stream_id: int) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            with contextlib.suppress(Exception):
                self.quic.reset_stream(stream_id, _CANCELLED)
            await stream.handle(StreamClosed(stream_id=stream_id))

    async def end(self, code: int, reason: str = "") -> None:
        """The connection has ended: so has everything that is open."""
        if self.closed or self.session is None:
            return
        self.closed = True
        if getattr(self.connection, "_is_done", False):  # we ended it, for what the client did
            self.ended_for = Outcome.SERVER_RESET
        if self.ended_for is not None:
            self.session.goaway = code
        streams, self.streams = self.streams, Streams()
        for stream_id, stream in streams.items():
            await stream.handle(StreamClosed(stream_id=stream_id))
        if reason:
            pass
        elif self.ended_for is not None:
            reason = "protocol_error"
        elif self.context.terminated.is_set():
            reason = "server_shutdown"
        else:
            reason = "client_closed" if code in (0, _NO_ERROR) else "connection_reset"
        self.tracer.rested.set()
        self.tracer.gone(self.session, reason)


def _with_one_cookie(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return a request's fields with its cookies in one: applications expect no more.

    Browsers send each as a field of its own (RFC 9114 section 4.2.1); in HTTP/2 `h2` joins them.
    """
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    others = [field for field in fields if field[0] != b"cookie"]
    return [*others, (b"cookie", b"; ".join(cookies))]


def _tls_facts(quic: QuicConnection) -> TlsFacts | None:
    tls = getattr(quic, "tls", None)
    suite = getattr(getattr(tls, "key_schedule", None), "cipher_suite", None)
    if tls is None or suite is None:
        return None
    cipher = f"TLS_{suite.name}" if not suite.name.startswith("TLS_") else suite.name
    return TlsFacts("TLSv1.3", cipher, "", bool(tls.session_resumed))


class TracedQuicProtocol(QuicProtocol):
    """The connections of a socket; what aioquic fails at is left out, and the others go on."""

    async def handle(self, event: Any) -> None:
        """Take a datagram."""
        try:
            await super().handle(event)
        except Exception:
            _logger.exception("a datagram of HTTP/3 could not be taken, and is left out")

    async def _handle_timer(self, *arguments: Any) -> None:
        try:
            await super()._handle_timer(*arguments)
        except Exception:
            _logger.exception("a timer of HTTP/3 failed")


class TracedUDPServer(UDPServer):
    """The UDP socket of HTTP/3; it ends when it is drained, or cancelled."""

    async def run(self) -> None:
        """Serve until the server stops and every connection has ended."""
        tracer = tracer_of(self.config)
        if tracer is None:
            await super().run()
            return
        task = asyncio.current_task()
        assert task is not None
        tracer.tasks.add(task)
        tracer.datagrams.add(self)
        draining = asyncio.create_task(self._drain(tracer.rested))
        try:
            await super().run()
        except asyncio.CancelledError:
            if not tracer.hurried:
                raise
        except Exception:
            _logger.exception("HTTP/3 failed, and is served no more")
        finally:
            draining.cancel()
            tracer.tasks.discard(task)
            tracer.datagrams.discard(self)
            for protocol in self._protocols():
                await protocol.end(_NO_ERROR)

    def _protocols(self) -> list[TracedH3Protocol]:
        connections = getattr(getattr(self, "protocol", None), "connections", {})
        found = {id(one.h3): one.h3 for one in connections.values()}
        return [h3 for h3 in found.values() if isinstance(h3, TracedH3Protocol)]

    async def _drain(self, rested: asyncio.Event) -> None:
        """When the server stops, close each connection that has nothing open, then stop waiting."""
        await self.context.terminated.wait()
        quic = self.protocol
        while not quic.idle:
            rested.clear()
            for connection in {id(one): one for one in quic.connections.values()}.values():
                if connection.h3 is None or _is_at_rest(connection):
                    connection.quic.close(error_code=_NO_ERROR)
                    await quic.send_all(connection)
            # A closed one is forgotten after three probe timeouts (RFC 9000 section 10.2).
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rested.wait(), 0.05)
        # It waits for a datagram: one that is none.
        await self.protocol_queue.put(RawData(data=b"", address=("", 0)))


def _is_at_rest(connection: Any) -> bool:
    """Say whether a connection has nothing open, and its peer has all that was sent to it.

    What is not acknowledged when a connection is closed is never sent again.
    """
    if connection.h3.streams:
        return False
    sending = getattr(connection.quic, "_streams", {})
    return all(
        stream.sender.is_finished
        for stream_id, stream in sending.items()
        if stream_id % 4 == 0  # requests (RFC 9000 section 2.1)
    )


def install_quic() -> None:
    """Put the traced classes in Hypercorn's place; harmless when it was done."""
    replaced: tuple[tuple[Any, str, type], ...] = (
        (hypercorn_run, "UDPServer", TracedUDPServer),
        (hypercorn_quic, "QuicProtocol", TracedQuicProtocol),
        (hypercorn_quic, "H3Protocol", TracedH3Protocol),
        (hypercorn_h3, "HTTPStream", TracedHTTPStream),
        (hypercorn_h3, "WSStream", TracedWSStream),
    )
    for module, name, traced in replaced:
        setattr(module, name, traced)
