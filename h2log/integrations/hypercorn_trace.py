"""Lines that are true, with Hypercorn doing the protocol.

Hypercorn's own access log sees what its streams see: a request that was answered or dropped. This
module takes part one level deeper, by subclasses of its connections, protocols and streams, put in
their place by `install` for the whole process; they do nothing for a `Config` that has no `Tracer`.

- `TracedTCPServer` tells of the session: TLS, bytes, its end and why.
- `TracedH11Protocol` of malformed requests, which never become streams.
- `TracedH2Protocol` of resets with their codes, violations, requests that are refused while it
  drains, and of content when it leaves.
- `TracedHTTPStream` and `TracedWSStream` of a request: its head, the response that was really sent
  (Hypercorn's own 404 and 500 too), its end.
- `hypercorn_quic` has the same for HTTP/3.

The names that are replaced are no promise of Hypercorn's, so `install` refuses a version that it
does not know. What Hypercorn cannot tell: a connection before its TLS handshake is done, and so
those that fail; the bytes of header sections (`-`); waiting for flow control and for the socket
(`-`); the request that made the `h2` package or aioquic end a connection, when no stream was begun
(too many at once, a header block that cannot be decoded, fields that RFC 9114 does not allow): of
it there is only the session's reason.

Some of it is more than telling: what Hypercorn fails at is refused with a line (see `declined`),
in place of the connection; one that the client has closed ends then, and not at its idle timeout;
a WebSocket that Hypercorn refuses by itself does not stay open; nor does an HTTP/2 stream whose
application fails in the middle of its response, which is reset, or whose WebSocket is closed; and
`sys.exit` in an application ends its request, not the connection, and with it all of HTTP/3.
"""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from typing import Any, Final

import hypercorn.asyncio.run as hypercorn_run
import hypercorn.protocol as hypercorn_protocol
import hypercorn.protocol.h2 as hypercorn_h2
import hypercorn.protocol.h11 as hypercorn_h11
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, RawData, Updated

from h2log.access.record import Outcome, Session
from h2log.errors import UsageError
from h2log.integrations.asgi_facts import tls_facts
from h2log.integrations.hypercorn_protocols import TracedH2Protocol, TracedH11Protocol
from h2log.integrations.hypercorn_streams import Stream, TracedHTTPStream, TracedWSStream
from h2log.integrations.hypercorn_tracer import tracer_of

__all__ = ["TracedTCPServer", "install"]

_logger = logging.getLogger("h2log.hypercorn")

_KNOWN: Final = "0.18."
"""The version of Hypercorn whose insides are as this module takes them to be."""


class _Reader:
    """A connection's reader that counts, and waits for the log when that is wished."""

    def __init__(self, reader: asyncio.StreamReader, server: TracedTCPServer) -> None:
        self._reader = reader
        self._server = server

    def at_eof(self) -> bool:
        """As the reader's."""
        over = self._reader.at_eof()
        if over:
            self._server.end_for("client_closed")
        return over

    async def read(self, size: int) -> bytes:
        """As the reader's."""
        server = self._server
        assert server.tracer is not None and server.session is not None
        log = server.tracer.log
        if log is not None and log.overloaded:
            await log.ready()
        try:
            data = await self._reader.read(size)
        except OSError:
            server.end_for("connection_reset")
            raise
        server.session.received += len(data)
        if not data:
            server.end_for("client_closed")
        return data


class TracedTCPServer(TCPServer):
    """A connection, which has a session."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tracer = tracer_of(self.config)
        self.session: Session | None = None
        self._reason = ""
        self._deaf = False  # nothing more will be read
        if self.tracer is not None:
            session = self.session = self.tracer.session(self.writer.get_extra_info("peername"))
            tls = self.writer.get_extra_info("ssl_object")
            session.tls = tls_facts(tls)
            if session.tls is not None:
                session.alpn = tls.selected_alpn_protocol() or ""
            self.reader: Any = _Reader(self.reader, self)

    def became(self, protocol: str) -> None:
        """The protocol is known."""
        assert self.tracer is not None and self.session is not None
        self.session.protocol = protocol
        self.tracer.opened(self.session)

    def end_for(self, reason: str) -> None:
        """Note why the connection ends; the first reason is the one."""
        self._reason = self._reason or reason

    async def run(self) -> None:
        """Serve the connection to its end."""
        if self.tracer is None or self.session is None:
            await super().run()
            return
        task = asyncio.current_task()
        assert task is not None
        self.tracer.tasks.add(task)
        extra = {"session_id": self.session.id, "request_id": "-"}
        try:
            await super().run()
        except asyncio.CancelledError:
            self.end_for("app_shutdown_timeout")
            # asyncio would log each one that is cancelled while the server stops, with a traceback.
            if not (self.tracer.hurried or self.context.terminated.is_set()):
                raise
        except Exception:  # Hypercorn would let it end the draining of all others
            self.end_for("error")
            _logger.exception("a connection failed and is closed", extra=extra)
            self._end_open(Outcome.SERVER_RESET)
        finally:
            self.tracer.tasks.discard(task)
            self.tracer.gone(self.session, self._reason or "server_closed")

    def _end_open(self, outcome: Outcome) -> None:
        """End what has a line to come and no application to end it."""
        protocol: Any = getattr(getattr(self, "protocol", None), "protocol", None)
        streams = [*getattr(protocol, "streams", {}).values(), getattr(protocol, "stream", None)]
        for stream in streams:
            if isinstance(stream, Stream):
                stream.end(outcome)

    async def protocol_send(self, event: Any) -> None:
        """Count what is sent."""
        if self.session is not None:
            if isinstance(event, RawData):
                self.session.sent += len(event.data)
            elif isinstance(event, Updated) and self._deaf:
                return
            elif isinstance(event, Closed):
                self.end_for("server_closed")
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        await super()._read_data()
        if self.session is not None:
            # It would wait for the idle timeout of a connection that has ended.
            self._deaf = True
            await self.idle_task.stop()

    async def _close(self) -> None:
        task = asyncio.current_task()
        if self.tracer is not None and task is not None and task.cancelling():
            # It would wait for the client to close, too.
            self.writer.transport.abort()
        await super()._close()

    async def _initiate_server_close(self) -> None:
        over = self.context.terminated.is_set()
        self.end_for("server_shutdown" if over else "keep_alive_timeout")
        await super()._initiate_server_close()


def install() -> None:
    """Put the traced classes in Hypercorn's place; harmless when it was done.

    Raises UsageError for a Hypercorn that this module does not know.
    """
    found = version("hypercorn")
    if not found.startswith(_KNOWN):
        raise UsageError(
            f"Hypercorn {found} is not one that this h2log can trace: "
            f"pip install 'hypercorn=={_KNOWN}*'"
        )
    replaced: tuple[tuple[Any, str, type], ...] = (
        (hypercorn_run, "TCPServer", TracedTCPServer),
        (hypercorn_protocol, "H11Protocol", TracedH11Protocol),
        (hypercorn_protocol, "H2Protocol", TracedH2Protocol),
        *((module, "HTTPStream", TracedHTTPStream) for module in (hypercorn_h11, hypercorn_h2)),
        *((module, "WSStream", TracedWSStream) for module in (hypercorn_h11, hypercorn_h2)),
    )
    for module, name, traced in replaced:
        setattr(module, name, traced)
