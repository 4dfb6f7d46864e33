"""WSGI applications (PEP 3333) as ASGI ones, each request in a thread of a pool.

`a2wsgi` (extra `wsgi`) has the pool, the environ and the way between thread and loop. What is
around it here: the header waits for the first piece of content, so that an application may change
its mind; the content can be read in every way that PEP 3333 asks for; a thread whose client has
gone is told so where it reads, writes or yields, and does not wait for ever; and small content has
come before a thread is taken, so that a slow client does not keep one.

A header field with an underscore in its name is left out: in the environ, `X_Remote_User` would be
`X-Remote-User`, which a proxy may vouch for (as nginx, Gunicorn and waitress leave it out).
"""

from __future__ import annotations

import importlib
import io
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from h2log.errors import UsageError

__all__ = ["wsgi"]

_Message = MutableMapping[str, Any]

_KEY: Final = "h2log.wsgi"
"""Of a scope: the call that it is of."""
_WAITING: Final = 10
"""Pieces of content that wait to be sent, before the thread has to."""
_BUFFER: Final = 64 * 1024
_SMALL: Final = 64 * 1024
"""Bytes of content, when declared, that are read before a thread is taken."""


def wsgi(app: Callable[..., Any], threads: int) -> Callable[[_Message, Any, Any], Any]:
    """Return the ASGI 3 application that the WSGI application `app` is, in up to `threads` threads.

    Raises UsageError where `a2wsgi` is not installed.
    """
    try:
        a2wsgi: Any = importlib.import_module("a2wsgi")
    except ImportError:
        raise UsageError(
            "a WSGI application needs a2wsgi; install it with: pip install 'h2log[wsgi]'"
        ) from None

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        call: _Call = environ["asgi.scope"].pop(_KEY)
        return call.answer(app, environ, start_response)

    serve = a2wsgi.WSGIMiddleware(answer, workers=threads, send_queue_size=_WAITING)

    async def asgi(scope: _Message, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # 403
        elif scope["type"] == "http":
            await _Call(scope, receive, send).run(serve)
        else:
            raise ValueError(f"a WSGI application has no {scope['type']}")

    return asgi


class _Call:
    """A request, seen from the loop (`run`, `receive`, `send`) and from its thread (`answer`)."""

    def __init__(self, scope: _Message, receive: Any, send: Any) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ahead: deque[_Message] = deque()  # what was read before there was a thread
        self._over = False  # nothing can be sent any more
        self._left: int | None = None  # bytes of content to come, where that is declared
        self._whole = False  # all of it was sent
        self._read = False  # the application has all of the request's content
        self._fault: Exception | None = None

    # In the loop

    async def run(self, serve: Any) -> None:
        """Answer the request; raises what the application has raised, or what could not be sent."""
        scope = self._scope
        fields = [field for field in scope["headers"] if b"_" not in field[0]]
        if not await self._read_ahead(fields):
            return
        # What is no ASCII, `a2wsgi` does not take: `answer` has the query as it was sent.
        seen = {**scope, "headers": fields, "query_string": b"", _KEY: self}
        try:
            await serve(seen, self.receive, self.send)
        except OSError:
            if not self._over:  # of its own, nothing to do with the client
                raise
        finally:
            self._over = True  # whatever the thread is at
        if self._fault is not None:
            raise self._fault

    async def _read_ahead(self, fields: list[tuple[bytes, bytes]]) -> bool:
        """Read content that is declared to be small; False when the client is gone meanwhile."""
        asked = dict(fields)
        length = asked.get(b"content-length", b"")
        more = length.isdigit() and int(length) <= _SMALL and b"expect" not in asked
        # HTTP/2 has no need to say that there is content.
        sure = self._scope["http_version"][0] == "1" or self._scope["method"] in ("GET", "HEAD")
        self._read = sure and not length and b"transfer-encoding" not in asked
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                return False
            self._ahead.append(message)
            more = message.get("more_body", False)
            self._read = not more
        return True

    async def receive(self) -> _Message:
        """Return a piece of content. Raises OSError, in the thread's `read`, without a client."""
        if self._ahead:
            return self._ahead.popleft()
        message: _Message = await self._receive()
        if message["type"] != "http.request":
            self._over = True
            raise ConnectionAbortedError("the client is gone")
        self._read = not message.get("more_body", False)
        return message

    async def send(self, message: _Message) -> None:
        """Send an event; what cannot be sent is dropped, and the thread told.

        The last byte of a declared length is the response's end, as PEP 3333 has it: a client that
        has it all may be gone before the thread has come to say so.
        """
        if self._over:
            return
        try:
            if self._ends(message):
                return
            await self._send(message)
        except OSError:
            self._over = True
        except Exception as error:
            self._over = True
            self._fault = error

    def _ends(self, message: _Message) -> bool:
        """Mark the event that completes the response; True for one that comes after it.

        Not while content of the request may be there to read, which the end would cut off. Raises
        ValueError for content beyond the end.
        """
        if message["type"] == "http.response.start":
            length = dict(message["headers"]).get(b"content-length", b"")
            self._left = int(length) if length.isdigit() else None
            return False
        size = len(message["body"])
        if self._whole:
            if size:
                raise ValueError(f"{size} bytes of content beyond its content-length")
            return True
        if self._left is not None and size:
            self._left -= size
            if not self._left and self._read:
                self._whole = True
                message["more_body"] = False
        return False

    # In the thread

    def answer(
        self, app: Callable[..., Any], environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterator[bytes]:
        """Call the application, and yield its content."""
        head: list[Any] = []
        write: Callable[[bytes], Any] | None = None

        def begin() -> Callable[[bytes], Any]:
            nonlocal write
            if write is None:
                if not head:
                    raise RuntimeError("the application has not called start_response")
                status, fields = head
                write = start_response(status if " " in status else f"{status} ", fields)
            assert write is not None
            return write

        def start(status: str, fields: list[tuple[str, str]], error: Any = None) -> Any:
            try:
                if error is not None and write is not None:
                    raise error[1].with_traceback(error[2])
            finally:
                error = None  # PEP 3333: no circle through the traceback
            if head and write is not None:
                raise RuntimeError("start_response was called after the response had begun")
            head[:] = (status, fields)
            return put

        def put(data: bytes) -> None:
            self._look()
            if data:
                begin()(data)

        self._complete(environ)
        parts: Iterable[bytes] = app(environ, start)
        try:
            for part in parts:
                self._look()
                if part:
                    begin()
                    yield part
            begin()
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _complete(self, environ: dict[str, Any]) -> None:
        """Have an environ as PEP 3333 has it: texts are bytes, each a character of Latin-1."""
        scope = self._scope
        path = scope.get("raw_path")
        if path is not None:
            path = path.removeprefix(scope.get("root_path", "").encode())
            environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        environ["QUERY_STRING"] = scope["query_string"].decode("latin-1")
        environ["wsgi.input"] = io.BufferedReader(_Content(environ["wsgi.input"]), _BUFFER)
        if "CONTENT_LENGTH" not in environ:
            # Its end is the content's. Where there is a length, Werkzeug goes by it, and knows a
            # client that is gone before from a fault of the application, only without this.
            environ["wsgi.input_terminated"] = True
        environ["wsgi.errors"] = sys.stderr

    def _look(self) -> None:
        """Raise OSError when nobody waits for the response any more."""
        if self._over:
            raise ConnectionAbortedError("the client is gone")


class _Content(io.RawIOBase):
    """A request's content as a raw stream, from what `a2wsgi` makes of it."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        piece = self._content.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
