"""ASGI applications behind the legs: the scope of a request, and a task for each.

See asgi.readthedocs.io: the HTTP and WebSocket specification, version 2.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, Protocol
from urllib.parse import unquote

from h2log.access.exchange import Exchange
from h2log.access.record import Origin, Outcome, RequestFacts
from h2log.access.redaction import redacted_target
from h2log.app.asgi import AsgiApp
from h2log.app.response import error_response
from h2log.clock import monotonic
from h2log.config import WebSocketSettings
from h2log.errors import HTTPError
from h2log.ids import request_id, session_id
from h2log.server.asgi_files import PathFiles
from h2log.server.asgi_http import HttpCall
from h2log.server.asgi_websocket import WebSocketCall, WebSockets
from h2log.server.background import Masked, ids_of
from h2log.server.content import ContentBuffer
from h2log.server.delivery import deliver_now
from h2log.server.networks import UNIX
from h2log.server.reply import Reply
from h2log.server.tls import tls_extension

__all__ = ["AsgiHost"]

_logger = logging.getLogger("h2log.app")

_HTTP_VERSIONS: Final = {"h2": "2", "1.1": "1.1", "1.0": "1.0"}


Task = asyncio.Task[None]


class Head(RequestFacts, Protocol):
    """What was asked, and what we remember of it."""

    memo: Any


class _Connection:
    """What the requests of a connection have in common."""

    __slots__ = ("context", "http", "left", "protocol", "tls")

    def __init__(self, app: AsgiApp, exchange: Exchange, reply: Reply) -> None:
        session = exchange.session
        self.context = copy_context()
        self.context.run(session_id.set, session.id)
        secure = session.tls is not None
        self.protocol = session.protocol
        self.left = 0  # calls that go on though the client has given them up
        self.http: dict[str, Any] = {
            "type": "http",
            "http_version": _HTTP_VERSIONS.get(session.protocol, session.protocol),
            "scheme": "https" if secure else "http",
            "root_path": app.root_path,
            "client": _client(session.client, session.port),
            "server": reply.local,
        }
        self.tls = tls_extension(session)


def _client(host: str, port: int) -> tuple[str, int] | None:
    """Return a scope's client: there is none by a Unix socket, nor one that nobody knows."""
    return None if host in (UNIX, "") else (host, port)


def _tell_origin(scope: dict[str, Any], origin: Origin) -> None:
    """Have a scope tell what a trusted proxy told."""
    scope["client"] = _client(*origin.client)
    scope["scheme"] = origin.scheme
    if origin.host:
        fields = [field for field in scope["headers"] if field[0] != b"host"]
        scope["headers"] = [(b"host", origin.host.encode("latin-1")), *fields]


class AsgiHost:
    """Calls an ASGI application for each request: one host for each server.

    `masked` hides the secrets of a path that a message of the log tells, `cache_bytes` bounds the
    memory for small files that the application names. `most_left` is how many calls of a connection
    may still run whose client has reset them: an application is told, and not cancelled, so else a
    client could have any number of them run (CVE-2023-44487). Beyond, requests are answered 503.
    """

    def __init__(
        self,
        app: AsgiApp,
        masked: Masked = redacted_target,
        cache_bytes: int = 64 << 20,
        websocket: WebSocketSettings | None = None,
        most_left: int = 100,
    ) -> None:
        self._app = app
        self._websocket = websocket or WebSocketSettings()
        self.websockets = WebSockets()
        """The calls for WebSockets that have not returned."""
        self.files = PathFiles(cache_bytes)
        """Those that the application names in place of content."""
        self._masked = masked
        self._root = app.root_path
        self._most_left = most_left
        self.tasks: dict[Task, HttpCall | WebSocketCall] = {}
        """The calls that have not returned, by the tasks that they are."""
        self.settled: Callable[[], None] | None = None
        """Called, if set, when a call has returned."""

    def serve(
        self,
        head: Head,
        exchange: Exchange,
        reply: Reply,
        content: ContentBuffer | None,
        kind: str,
    ) -> None:
        """Have the application answer a request through `reply`; `kind` is `http` or `websocket`.

        `content` is None for a request that has none.
        """
        connection: _Connection | None = exchange.session.served
        if connection is not None and connection.left >= self._most_left:
            text = "the requests that were given up are still being worked on"
            self.refuse(HTTPError(503, text), exchange, reply)
            return
        if kind == "http":
            if head.method == "CONNECT":
                self.refuse(HTTPError(501), exchange, reply)
                return
            scope = self.scope(head, exchange, reply)
            call = HttpCall(self, self._app.call, scope, exchange, reply, content)
            self.begin(call, exchange)
            return
        scope = self.scope(head, exchange, reply)
        try:
            websocket = WebSocketCall(
                self, self._app.call, scope, exchange, reply, content, self._websocket
            )
        except HTTPError as error:
            if error.status == 400:
                exchange.verdict = Outcome.MALFORMED
            self.refuse(error, exchange, reply)
            return
        self.begin(websocket, exchange)

    def begin(self, call: HttpCall | WebSocketCall, exchange: Exchange) -> None:
        """Run a call in a task whose context has the ids; it calls `done` at its end."""
        context: Context = exchange.session.served.context.copy()
        context.run(request_id.set, exchange.id)
        task = asyncio.get_running_loop().create_task(call.run(), context=context)
        self.tasks[task] = call
        call.task = task

    def tick(self) -> None:
        """Let time pass: end the requests of calls that were cancelled before they began."""
        for task in [task for task in self.tasks if task.done()]:
            self.tasks[task].not_begun()
            self.done(task)

    def scope(self, head: Head, exchange: Exchange, reply: Reply) -> dict[str, Any]:
        """Return the scope of a request, its own down to the list of header fields."""
        session = exchange.session
        connection: _Connection | None = session.served
        if connection is None:
            connection = session.served = _Connection(self._app, exchange, reply)
        parts = head.memo
        if parts is None:
            parts = head.memo = self._parts(head)
        path, raw_path, query, fields = parts
        scope = connection.http.copy()
        scope["method"] = head.method
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["headers"] = fields.copy()
        origin = exchange.origin
        if origin is not None:
            _tell_origin(scope, origin)
        if session.protocol is not connection.protocol:  # HTTP/1.0 behind a request of HTTP/1.1
            scope["http_version"] = _HTTP_VERSIONS[session.protocol]
        scope["state"] = self._app.state.copy()
        # Made anew each time, so that nothing which is put in them comes to another request.
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        extensions: dict[str, dict[str, Any]] = {
            "http.response.trailers": {},
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "h2log": {
                "session_id": session.id,
                "request_id": exchange.id,
                "stream_id": exchange.stream_id,
            },
        }
        if connection.tls is not None:
            extensions["tls"] = connection.tls.copy()
        scope["extensions"] = extensions
        return scope

    def _parts(self, head: RequestFacts) -> tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]:
        """Return path, raw path, query and header fields as a scope has them."""
        target, _, query = head.path.partition("?")
        raw = target.encode("latin-1")
        rest = getattr(head, "rest", None)  # what heads that differ in their path alone share
        fields = None if rest is None else rest.memo
        if fields is None:
            fields = [field for field in head.fields if field[0] != b"host"]
            # Where HTTP/2 has :authority, a scope has `host`, in front.
            if head.authority:
                fields.insert(0, (b"host", head.authority.encode("latin-1")))
            if rest is not None:
                rest.memo = fields
        path = unquote(target.encode("latin-1").decode("utf-8", "replace"))
        return (
            self._root + path,
            self._root.encode() + raw,
            query.encode("latin-1"),
            fields,
        )

    # What goes wrong

    def refuse(self, error: HTTPError, exchange: Exchange, reply: Reply) -> None:
        """Answer a request that does not come to the application, or that it has not answered."""
        try:
            deliver_now(error_response(error, exchange.id), exchange, reply)
        except Exception as fault:  # whatever is wrong, the request must not stay open
            self.tell("the connection of %s %s failed", exchange, fault)
            self.give_up(Outcome.HANDLER_ERROR, exchange, reply)

    def give_up(self, outcome: Outcome, exchange: Exchange, reply: Reply) -> None:
        """End a response that has begun so that the client sees that it is not complete."""
        exchange.verdict = outcome
        reply.note()
        exchange.finish(outcome, monotonic())
        reply.abort()

    def tell(
        self, message: str, exchange: Exchange, error: BaseException | None, *more: object
    ) -> None:
        """Log a fault of the application's; `message` has the method, the path and `more` in it."""
        facts = exchange.facts
        _logger.error(
            message,
            facts.method,
            self._masked(facts.path),
            *more,
            exc_info=error,
            extra=ids_of(exchange),
        )

    def cut_off(self, exchange: Exchange) -> None:
        """Log that a call was cancelled in what it did once its response was complete."""
        facts = exchange.facts
        _logger.warning(
            "the call for %s %s was cancelled before it had returned",
            facts.method,
            self._masked(facts.path),
            extra=ids_of(exchange),
        )

    def left(self, exchange: Exchange, count: int) -> None:
        """Count calls of a connection that go on though their client has given them up."""
        exchange.session.served.left += count

    def done(self, task: Task | None) -> None:
        """A call has returned."""
        if task is not None:
            self.tasks.pop(task, None)
        if self.settled is not None:
            self.settled()
