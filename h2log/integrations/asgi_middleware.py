"""The access log around an ASGI application, whichever server it runs in.

    from h2log.asgi import AccessLogMiddleware
    app = AccessLogMiddleware(app, settings="h2log.toml")

Each http request and each WebSocket has its one line when it ends, however it ends, in the outputs
of `[[log.access]]`: formats, rotation, `skip`, redaction and all. What cannot be known is `-`:
the bytes of header sections, waiting for flow control and for the socket, and, unless the server
lets us see it, the stream. The rest is told as the application and its server see it:

- Milliseconds end when the server has taken the last of the response. Bytes are those of content,
  received as far as the application read them.
- COMPLETE is a response that was sent whole, or, to a client that left then, up to the length that
  it declared. The client that left is noticed when the application asks (`http.disconnect`), when
  `send` raises OSError, and under uvicorn and Hypercorn whenever it sends; PEER_LOST then,
  CLIENT_RESET where Hypercorn says so. HANDLER_ERROR is an exception, or a return without a whole
  response: before it began servers answer 500, and so says the line, but for a WebSocket in another
  server than uvicorn and Hypercorn, whose answer is its own. A 5xx that is sent first is one too
  when the exception follows, as with Starlette's. An application that is cancelled has SHUTDOWN.
- The session is the connection's under uvicorn and Hypercorn. Elsewhere it is that of an address
  and port until they were quiet for 75 seconds, 10,000 of them at most; without an address and port
  each request has its own. The client is who the server says, for each request: by the word of a
  proxy if it is told to believe that. Granian tells of a WebSocket that was lost as of one that
  was closed.
- What never reaches an application has no line here: malformed requests, those that a server
  refuses. `h2log run --server hypercorn` sees more.

The response has `x-request-id`; `scope["extensions"]["h2log"]` and the variables of `h2log.ids`
have the ids for the application. The files are opened when the server starts the application's
lifespan (one that cannot be opened stops the start), else at the first request, and closed with
the lifespan or the process, also by a SIGTERM that nobody else handles (see `log_thread`). Where no
lifespan is run each line is written at once. Several processes may write one file: the first of
them rotates it, the others follow (see `rotation_lock`); `:sequence` counts in each process. The
application log of the settings is not used: how to log is the server's to say.

Under h2log itself, and under another of its kind, it does nothing: there is a line already.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from h2log.access.exchange import Exchange
from h2log.access.record import UNKNOWN, Outcome
from h2log.app.asgi import Asgi, Message, Receive, Scope, Send
from h2log.app.response import NO_CONTENT_STATUS
from h2log.clock import monotonic
from h2log.config import FILE_VARIABLE, SessionOutput, Settings, build, load
from h2log.errors import UsageError
from h2log.ids import request_id, session_id
from h2log.integrations.asgi_facts import (
    Answered,
    Asked,
    bytes_of,
    ended_so,
    message_bytes,
    open_exchange,
)
from h2log.integrations.asgi_sessions import Peer, Sessions, origin_of, peer_of
from h2log.integrations.log_thread import LogThread
from h2log.server.asgi_notes import route_of

__all__ = ["AccessLogMiddleware", "settings_of"]

_logger = logging.getLogger("h2log.asgi")

_WEBSOCKET_SHUTDOWN: Final = 1012
"""What uvicorn tells an application when the server stops (Service Restart)."""
_WEBSOCKET_LOST: Final = 1006
"""The connection ended without a close (RFC 6455 section 7.4.1)."""

GivenSettings = Settings | Mapping[str, Any] | str | os.PathLike[str] | None
"""Settings, their values nested as in a file, the path of a file, or None for what is in force."""


def settings_of(given: GivenSettings) -> Settings:
    """Return the settings that are meant; a file's, and those in force, with the environment's.

    In force without a file is `h2log.toml` of the working directory, or what `H2LOG_CONFIG` names.
    Raises UsageError.
    """
    if isinstance(given, Settings):
        return given
    if isinstance(given, Mapping):
        return build(dict(given))
    if given is None:
        return load(os.environ.get(FILE_VARIABLE), os.environ).settings
    return load(os.fspath(given), os.environ).settings


class AccessLogMiddleware:
    """An ASGI application that is `app`, with a line in the access log for whatever it is asked.

    `settings` are an `h2log.config.Settings`, nested values such as
    `{"log": {"access": [{"path": "-"}]}}`, the path of a settings file, or None: then `h2log.toml`
    and the environment, as for `h2log run`. Only `[log]` without `[log.app]` and `[log.session]`
    is used. Raises UsageError for settings that are wrong; see the module for what is logged.
    """

    def __init__(self, app: Asgi, *, settings: GivenSettings = None) -> None:
        self.app = app
        log = settings_of(settings).log
        # Of connections we know no more than their requests.
        self._log = LogThread(msgspec.structs.replace(log, session=SessionOutput()))
        self._log.hurried = True
        self._sessions = Sessions(self._log.put, self._log.opening)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection as `app` does."""
        kind = scope["type"]
        if "h2log" in (scope.get("extensions") or ()):
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._serve(_HttpCall, scope, receive, send)
        elif kind == "websocket":
            await self._serve(_WebSocketCall, scope, receive, send)
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(
        self, make: type[_HttpCall | _WebSocketCall], scope: Scope, receive: Receive, send: Send
    ) -> None:
        log = self._log
        if not log.running:
            log.start()
        if log.overloaded:
            await log.ready()
        peer = peer_of(receive, send)
        session = self._sessions.of(scope, peer)
        stream_id = peer.stream_id
        if stream_id == UNKNOWN and session.protocol in ("1.1", "1.0"):
            stream_id = session.requests + 1  # as h2log numbers them
        asked = _asked(scope)
        origin = origin_of(scope, session, asked.scheme)
        exchange = open_exchange(session, asked, stream_id, origin)
        ids = {"session_id": session.id, "request_id": exchange.id, "stream_id": stream_id}
        if stream_id == UNKNOWN:
            del ids["stream_id"]
        inner = {**scope, "extensions": {**(scope.get("extensions") or {}), "h2log": ids}}
        call = make(exchange, peer, inner, receive, send)
        before = session_id.set(session.id), request_id.set(exchange.id)
        try:
            await self.app(inner, call.receive, call.send)
        except BaseException as error:
            call.failed(error)
            raise
        else:
            call.returned()
        finally:
            try:
                session_id.reset(before[0])
                request_id.reset(before[1])
            except ValueError:  # ended in another context than it began in
                pass

    # The lifespan

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the log, take part in the lifespan as the application does, close the log."""
        first: Message | None = await receive()
        try:
            self._log.start()
        except UsageError as error:
            await send({"type": "lifespan.startup.failed", "message": f"h2log: {error}"})
            return
        self._log.hurried = False
        begun = False  # the application takes part

        async def from_server() -> Message:
            nonlocal first
            if first is not None:
                message, first = first, None
                return message
            return await receive()

        async def to_server(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"].startswith("lifespan.shutdown."):
                self._log.close()
            await send(message)

        try:
            await self.app(scope, from_server, to_server)
        except Exception as error:
            if begun:
                self._log.hurried = True  # nobody will tell us of the end
                raise
            _logger.debug("the application takes no part in lifespan: %r", error)
        if begun:
            return
        # In its place: the server's word is how we know of the end.
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._log.close()
        await send({"type": "lifespan.shutdown.complete"})


def _asked(scope: Scope) -> Asked:
    path = scope.get("raw_path") or quote(scope.get("path") or "", safe="/:@!$&'()*+,;=~").encode()
    query = scope.get("query_string") or b""
    target = path + b"?" + query if query and b"?" not in path else path
    secure = scope.get("scheme") in ("https", "wss")
    return Asked(
        scope.get("method") or "GET",
        target,
        "https" if secure else "http",
        scope.get("headers") or (),
    )


class _Call:
    """One request or WebSocket: what passes between the application and its server is noted."""

    def __init__(
        self, exchange: Exchange, peer: Peer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.exchange = exchange
        self._peer = peer
        self._scope = scope
        self._receive = receive
        self._send = send
        self._whole_at = 0.0  # when a 5xx was sent, whose reason may yet be raised

    def whole(self) -> None:
        """The response was sent; frameworks answer 500 for an exception, then raise it."""
        if self.exchange.status >= 500 and self.exchange.outcome is None:
            self._whole_at = monotonic()
        else:
            self.end(self.exchange.verdict)

    def end(self, outcome: Outcome) -> None:
        """Write the line, once."""
        exchange = self.exchange
        if exchange.outcome is None:
            route = route_of(self._scope)
            if route is not None:
                exchange.details().route = route
            if self.has_begun():
                outcome = ended_so(outcome, exchange)
            exchange.finish(outcome, self._whole_at or monotonic())

    def begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Note that the server has taken the head of a response."""
        exchange = self.exchange
        if exchange.outcome is None:
            exchange.status = status
            exchange.response = Answered(fields)
            exchange.details().headers_at = monotonic()

    def sent(self, size: int) -> None:
        """Note that it has taken so much content."""
        exchange = self.exchange
        if size and exchange.outcome is None:
            if not exchange.sent:
                exchange.details().first_byte_at = monotonic()
            exchange.sent += size

    async def pass_on(self, message: Message) -> None:
        """Give the server a message."""
        if not self._whole_at and (gone := self._peer.gone()) is not None:
            self.end(gone)
        try:
            await self._send(message)
        except OSError:  # what the specification has for a client that left
            self.end(self._peer.gone() or Outcome.PEER_LOST)
            raise
        if (gone := self._peer.gone()) is not None:
            self.end(gone)

    def named(self, message: Message) -> tuple[Message, list[tuple[bytes, bytes]]]:
        """Return a head with our `x-request-id`, and its fields without."""
        fields = [
            (name, value)
            for name, value in message.get("headers") or ()
            if bytes(name).lower() != b"x-request-id"
        ]
        own = (b"x-request-id", self.exchange.id.encode())
        return {**message, "headers": [*fields, own]}, fields

    def failed(self, error: BaseException) -> None:
        """The application raised."""
        if self.exchange.outcome is not None:
            return
        gone = None if self._whole_at else self._peer.gone()
        if gone is not None:
            self.end(gone)
        elif isinstance(error, Exception | SystemExit) or _is_its_own(error):
            self.in_error()
        elif self._whole_at:
            self.end(self.exchange.verdict)
        else:
            self.end(Outcome.SHUTDOWN)

    def in_error(self) -> None:
        """It is to blame: servers answer 500 if nothing was begun."""
        if self.has_begun() is False:
            self.begin(500, [])
        self.end(Outcome.HANDLER_ERROR)

    def has_begun(self) -> bool | None:
        """Say whether a response has begun, by the server's word if we see it."""
        begun = self._peer.begun()
        return self.begun() if begun is None else begun

    def begun(self) -> bool | None:
        """Say whether a server has begun a response that does not tell; None if nobody knows."""
        return bool(self.exchange.status)


class _HttpCall(_Call):
    """An http request."""

    _trailers = False
    _passed = False  # content, or that there is none
    _ending = False  # the server has the last of the response, or is about to

    def begun(self) -> bool:
        """Say whether it has: a head waits for the first content (the specification, 2.5)."""
        return self._passed

    async def receive(self) -> Message:
        """As the server's."""
        message = await self._receive()
        if message["type"] == "http.request":
            if self.exchange.outcome is None:
                self.exchange.received += bytes_of(message.get("body"))
        elif message["type"] == "http.disconnect" and not self._ending:
            # With the end of the response it says nothing new: that comes to who waits for it, too.
            self.end(self._peer.gone() or Outcome.PEER_LOST)
        return message

    async def send(self, message: Message) -> None:
        """As the server's."""
        kind = message["type"]
        if kind == "http.response.start":
            message, fields = self.named(message)
            await self.pass_on(message)
            self._trailers = bool(message.get("trailers"))
            self.begin(int(message["status"]), fields)
            return
        last = self._is_last(message)
        self._ending = self._ending or last
        await self.pass_on(message)
        self._passed = self._passed or kind != "http.response.early_hint"
        if not self._is_bare():
            if kind == "http.response.body":
                self.sent(bytes_of(message.get("body")))
            elif kind == "http.response.pathsend":
                self.sent(_size(message["path"]))
            elif kind == "http.response.zerocopysend":
                self.sent(message.get("count") or 0)
        if last:
            self.whole()

    def _is_last(self, message: Message) -> bool:
        """Say whether a message completes the response."""
        kind = message["type"]
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if self._trailers:
            return False
        if kind in ("http.response.body", "http.response.zerocopysend"):
            return not message.get("more_body", False)
        return bool(kind == "http.response.pathsend")

    def _is_bare(self) -> bool:
        """Say whether the server leaves the content out (RFC 9110 section 6.4.1)."""
        status = self.exchange.status
        return self.exchange.facts.method == "HEAD" or status in NO_CONTENT_STATUS

    def returned(self) -> None:
        """The application has returned."""
        if self._whole_at:
            self.end(self.exchange.verdict)
        elif self.exchange.outcome is None:
            gone = self._peer.gone()
            if gone is not None:
                self.end(gone)
            else:
                self.in_error()


class _WebSocketCall(_Call):
    """A WebSocket: its line is written when either side has closed it."""

    _denying = False

    def begun(self) -> bool | None:
        """Say whether it has; what another server than we know answers before is its own to say."""
        return True if self.exchange.status else False if self._peer.connection else None

    async def receive(self) -> Message:
        """As the server's."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            if self.exchange.outcome is None:
                self.exchange.received += message_bytes(message)
        elif message["type"] == "websocket.disconnect":
            code = message.get("code", 1005)
            lost = self._peer.lost() if self.exchange.status else True
            if code == _WEBSOCKET_SHUTDOWN:
                self.end(Outcome.SHUTDOWN)
            elif lost or (lost is None and code == _WEBSOCKET_LOST):
                self.end(Outcome.PEER_LOST)
            else:
                self.end(self.exchange.verdict)
        return message

    async def send(self, message: Message) -> None:
        """As the server's."""
        kind = message["type"]
        if kind == "websocket.accept":
            message, fields = self.named(message)
            await self.pass_on(message)
            # RFC 6455 section 4.2.2; over HTTP/2 and HTTP/3 RFC 8441 section 5.
            self.begin(101 if self._scope.get("http_version") == "1.1" else 200, fields)
        elif kind == "websocket.http.response.start":
            message, fields = self.named(message)
            await self.pass_on(message)
            self._denying = True
            self.begin(int(message["status"]), fields)
        else:
            await self.pass_on(message)
            if kind == "websocket.send":
                self.sent(message_bytes(message))
            elif kind == "websocket.http.response.body":
                if self.exchange.status not in NO_CONTENT_STATUS:
                    self.sent(bytes_of(message.get("body")))
                if not message.get("more_body", False):
                    self.end(self.exchange.verdict)
            elif kind == "websocket.close":
                if not self.exchange.status:
                    self.begin(403, [])  # what the specification has for it
                self.end(self.exchange.verdict)

    def returned(self) -> None:
        """The application has returned; servers close what it has left open."""
        if not self.exchange.status or self._denying:
            if self.exchange.outcome is None:
                self.in_error()
        else:
            self.end(self.exchange.verdict)


def _is_its_own(error: BaseException) -> bool:
    """Say whether an application met a cancellation that is not its own task's."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
