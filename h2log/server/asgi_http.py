"""One HTTP request of an ASGI application: its `receive` and `send`, and how its call ends.

The states of a response (ASGI, HTTP specification 2.5):

    START --http.response.start--> HEAD --http.response.body--> BODY --the last of them--> DONE
      HEAD, BODY --the last body, where trailers were announced--> TRAILERS --the last--> DONE
      HEAD --http.response.pathsend--> FILE --it is there--> DONE, or TRAILERS
      FILE --it is not--> HEAD
      any but DONE --the client goes away--> LOST

The header waits for the first piece of content: until then the response can still be another one.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any, Final

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.app.asgi import Asgi, Message
from h2log.app.files.threads import in_thread
from h2log.app.response import NO_CONTENT_STATUS, FileContent, Response, check_trailers
from h2log.errors import HTTPError
from h2log.server.asgi_calls import Host
from h2log.server.asgi_lost import ClientGoneError, only_lost
from h2log.server.asgi_notes import take_notes
from h2log.server.background import ends_task
from h2log.server.content import ContentBuffer
from h2log.server.delivery import FILE_CHUNK, deliver
from h2log.server.heads import ResponseHead, response_head
from h2log.server.reply import Reply

__all__ = ["HttpCall"]

_START: Final = 0
_HEAD: Final = 1
_FILE: Final = 2  # one is looked for, to be sent in place of content
_BODY: Final = 3
_TRAILERS: Final = 4
_DONE: Final = 5
_LOST: Final = 6
_REFUSED: Final = 7  # the server itself has answered: the application may go on, unheard

_TURN: Final = 256 * 1024
_PIECE: Final = 2048
"""Bytes that are sent before the loop has a turn, and what each piece counts besides: while there
is room `send` does not wait, and an application that does nothing else would keep all others from
being served. A millisecond or two, of pieces of one byte as of large ones."""

_EXPECTED: Final = {
    _START: "http.response.start",
    _HEAD: "http.response.body",
    _FILE: "http.response.body",
    _BODY: "http.response.body",
    _TRAILERS: "http.response.trailers",
}


class HttpCall:
    """A call of the application, which has `receive` and `send`."""

    __slots__ = (
        "_bare",
        "_call",
        "_content",
        "_exchange",
        "_head",
        "_held",
        "_host",
        "_owes",
        "_reply",
        "_scope",
        "_sent",
        "_state",
        "_trailers",
        "_trailing",
        "_turn",
        "_waiters",
        "task",
    )

    def __init__(
        self,
        host: Host,
        call: Asgi,
        scope: dict[str, Any],
        exchange: Exchange,
        reply: Reply,
        content: ContentBuffer | None,
    ) -> None:
        self._host = host
        self._call = call
        self._scope = scope
        self._exchange = exchange
        self._reply = reply
        self._content = content
        self._owes = True  # the application has not had all of the content
        self._state = _START
        self._head: ResponseHead | None = None
        self._bare = False  # the response has no content, whatever is sent (RFC 9110, 6.4.1)
        self._trailing = False  # trailers were announced
        self._trailers: list[tuple[str, str]] = []
        self._sent = 0  # bytes of content
        self._turn = 0  # what was sent since the loop had one
        self._held: asyncio.Handle | None = None  # what sends a whole response
        self._waiters: list[asyncio.Future[None]] | None = None
        self.task: asyncio.Task[None] | None = None
        """The task that `run` is."""
        reply.on_lost = self._lost
        reply.noting = self._note

    # The task

    async def run(self) -> None:
        """Call the application, and see to it that the request ends."""
        try:
            await self._call(self._scope, self.receive, self.send)
            if self._state < _DONE:
                self._unfinished()
        except BaseException as error:
            if ends_task(error, self.task):
                self._cancelled(error)
                raise
            self._failed(error)
        finally:
            # Through these, what the application keeps of its call would keep the request.
            self._let_go()
            self._content = None
            self._host.done(self.task)

    def not_begun(self) -> None:
        """The task was cancelled before it began: the application itself must have done it."""
        self._cancelled(asyncio.CancelledError())
        self._let_go()

    def _let_go(self) -> None:
        self._reply.on_lost = self._reply.noting = None
        if self._state == _LOST:
            self._host.left(self._exchange, -1)

    def _cancelled(self, error: BaseException) -> None:
        """The task is made to end; a server that stops has ended the request before."""
        if self._state < _DONE:
            if isinstance(error, asyncio.CancelledError):
                self._host.tell("the call for %s %s was cancelled", self._exchange, error)
                self._end_as_error()
            else:
                self._host.give_up(Outcome.SHUTDOWN, self._exchange, self._reply)
        elif self._state == _DONE:
            self._host.cut_off(self._exchange)

    def _unfinished(self) -> None:
        """The application has returned, and has not sent a whole response."""
        host, exchange = self._host, self._exchange
        begun = self._state >= _BODY
        host.tell(
            "the application returned from %s %s without a %s",
            exchange,
            None,
            _EXPECTED[self._state] if not begun else "last " + _EXPECTED[self._state],
        )
        self._end_as_error()

    def _failed(self, error: BaseException) -> None:
        """The application has raised."""
        if self._state == _LOST and only_lost(error):
            return  # it was told so by `send`, and had no other answer
        if self._state == _REFUSED:
            return  # it has lost its request to a refusal that was answered
        self._host.tell("unhandled exception for %s %s", self._exchange, error)
        if self._held is not None:
            self._exchange.verdict = Outcome.HANDLER_ERROR
        if self._state < _DONE:
            self._end_as_error()

    def _end_as_error(self) -> None:
        exchange = self._exchange
        self._note()
        exchange.verdict = Outcome.HANDLER_ERROR
        begun = self._state >= _BODY
        self._finish(_DONE)
        if begun:
            self._host.give_up(Outcome.HANDLER_ERROR, exchange, self._reply)
        else:
            self._host.refuse(HTTPError(500), exchange, self._reply)

    def _lost(self) -> None:
        """The client is gone."""
        if self._state < _DONE:
            self._finish(_LOST)
            self._host.left(self._exchange, 1)

    def _finish(self, state: int) -> None:
        """The response is over: whoever waits in `receive` is told."""
        self._state = state
        if self._content is not None:
            self._content.cut()
        if self._waiters is not None:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # The application's side

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of content, then, when there is nothing more, `http.disconnect`.

        That is when the client is gone, or has its response.
        """
        if self._state >= _DONE:
            return {"type": "http.disconnect"}
        if self._owes:
            content = self._content
            if content is None or content.finished:
                self._owes = False
                return {"type": "http.request", "body": b"", "more_body": False}
            try:
                piece = await content.read()
            except HTTPError as error:
                self._refuse(error)
                return {"type": "http.disconnect"}
            if self._state < _DONE:
                self._owes = bool(piece) and not content.finished
                return {"type": "http.request", "body": piece, "more_body": self._owes}
            return {"type": "http.disconnect"}
        if self._waiters is None:
            self._waiters = []
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
        return {"type": "http.disconnect"}

    def _refuse(self, error: HTTPError) -> None:
        """The content is too large, or does not come: the server answers."""
        if self._state >= _DONE:
            return
        exchange = self._exchange
        outcome = Outcome.TIMEOUT if error.status == 408 else Outcome.COMPLETE
        begun = self._state >= _BODY
        self._finish(_REFUSED)
        if begun:
            if outcome is Outcome.COMPLETE:
                outcome = Outcome.SERVER_RESET
            self._host.give_up(outcome, exchange, self._reply)
        else:
            exchange.verdict = outcome
            self._host.refuse(error, exchange, self._reply)

    async def send(self, message: Message) -> None:
        """Take an event of the response, and return when there is room for more.

        Raises RuntimeError for one out of order, OSError when the client is gone, and ValueError or
        TypeError for what cannot be sent.
        """
        kind = message["type"]
        state = self._state
        if state == _START:
            if kind == "http.response.start":
                self._start(message)
                return
        elif state in (_HEAD, _BODY):
            if kind == "http.response.body":
                await self._body(message)
                return
            if kind == "http.response.pathsend" and state == _HEAD:
                await self._file(message)
                return
        elif state == _FILE:
            raise RuntimeError(f"a file is being sent; unexpected {kind!r}")
        elif state == _TRAILERS:
            if kind == "http.response.trailers":
                self._trail(message)
                return
        elif state == _DONE:
            raise RuntimeError(f"the response is complete; unexpected {kind!r}")
        else:
            raise ClientGoneError("the client is gone")
        if kind == "http.response.early_hint" and state <= _HEAD:
            self._hint(message)
            return
        raise RuntimeError(f"expected {_EXPECTED[state]!r}, got {kind!r}")

    def _start(self, message: Message) -> None:
        status = message["status"]
        if status < 200:
            raise ValueError(f"the status of a response is from 200 to 599, not {status}")
        self._head = response_head(status, message.get("headers") or ())
        self._trailing = bool(message.get("trailers", False))
        self._bare = status in NO_CONTENT_STATUS or self._exchange.facts.method == "HEAD"
        self._state = _HEAD
        self._note()

    def _note(self) -> None:
        take_notes(self._scope, self._exchange)

    async def _body(self, message: Message) -> None:
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        if type(body) is not bytes:
            if not isinstance(body, bytes | bytearray | memoryview):
                raise TypeError(f"the body is {type(body).__name__}, expected bytes")
            body = bytes(body)
        head, reply = self._head, self._reply
        assert head is not None
        length = None if self._bare else head.length
        if length is not None:
            sent = self._sent + len(body)
            if sent > length:
                raise ValueError(f"more content than the content-length of {length}")
            if last and sent < length:
                raise ValueError(f"{sent} bytes of content, not its content-length of {length}")
        if self._state == _HEAD and last and not self._trailing:
            self._finish(_DONE)
            content = b"" if self._bare else body
            if head.status >= 500:
                # Frameworks answer for an exception, and raise it right behind the response.
                self._held = asyncio.get_running_loop().call_soon(self._let_out, head, content)
                return
            reply.whole(head, content)
            if not reply.closed:  # some of it waits for a window or for the socket
                await reply.drain()
            return
        if self._state == _HEAD:
            self._state = _BODY
            reply.start_head(head, self._bare and not self._trailing and last)
        self._sent += len(body)
        if self._bare:
            body = b""
        if not last:
            if body:
                reply.write(body)
            await reply.drain()
            self._turn += len(body) + _PIECE
            if self._turn > _TURN:
                self._turn = 0
                await asyncio.sleep(0)
            self._look()
        elif self._trailing:
            if body:
                reply.write(body)
            self._state = _TRAILERS
        else:
            self._finish(_DONE)
            reply.write(body, end=True)
            await reply.drain()

    def _let_out(self, head: ResponseHead, content: bytes) -> None:
        """Send the response that `_body` has held back to the end of the loop's turn."""
        self._held = None
        if not self._reply.closed:
            self._reply.whole(head, content)

    def _look(self) -> None:
        """Raise OSError when the client went away while it was waited for."""
        if self._state >= _LOST:
            raise ClientGoneError("the client is gone")

    def _trail(self, message: Message) -> None:
        fields = message.get("headers") or ()
        self._trailers += check_trailers(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        )
        if not message.get("more_trailers", False):
            self._finish(_DONE)
            self._reply.finish([] if self._bare else self._trailers)

    def _hint(self, message: Message) -> None:
        links = [bytes(link).decode("latin-1") for link in message["links"]]
        for link in links:
            if not link.isprintable() or link != link.strip(" "):
                raise ValueError(f"invalid Link {link!r}")
        if links:
            self._reply.interim(103, [("link", link) for link in links])

    async def _file(self, message: Message) -> None:
        """Send a whole file in place of content."""
        head, path, files = self._head, os.fsdecode(message["path"]), self._host.files
        assert head is not None
        found: bytes | FileContent | None = files.kept(path)
        if found is None:
            found = await self._find(path)
        if isinstance(found, bytes):
            await self._body({"body": found})
            return
        if self._trailing:
            await self._copy(found)
            return
        self._finish(_DONE)
        try:
            await deliver(Response(found, head.status, head.headers), self._exchange, self._reply)
        except BaseException as error:
            # Also when the application has set a time for it, and the task is only interrupted.
            if not self._reply.closed:
                self._exchange.verdict = Outcome.HANDLER_ERROR
                if self._exchange.status:
                    self._host.give_up(Outcome.HANDLER_ERROR, self._exchange, self._reply)
                else:
                    self._host.refuse(HTTPError(500), self._exchange, self._reply)
            elif isinstance(error, Exception):
                return
            raise

    async def _find(self, path: str) -> bytes | FileContent:
        """Return a file that is to be sent; what else is sent meanwhile is out of order."""
        self._state = _FILE
        try:
            found = await self._host.files.find(path)
        except OSError as error:
            # Not the client's absence, of which `send` tells by an OSError as well.
            raise RuntimeError(f"cannot send {path}: {error.strerror}") from None
        finally:
            state = self._state
            if state == _FILE:
                self._state = _HEAD
        if state != _FILE:
            if isinstance(found, FileContent):
                found.file.close()
            self._look()
            raise RuntimeError("the response was completed while its file was looked for")
        return found

    async def _copy(self, found: FileContent) -> None:
        """Send a file that trailers follow, as the content that it is."""
        reading: asyncio.Future[bytes] | None = None
        left = found.length
        try:
            while left:
                size = min(left, FILE_CHUNK)
                reading = asyncio.ensure_future(in_thread(partial(found.file.read, size)))
                piece = await asyncio.shield(reading)
                left -= len(piece)
                if not piece:
                    raise RuntimeError("the file became shorter while it was sent")
                self._look()
                await self._body({"body": piece, "more_body": left > 0})
        finally:
            if reading is None or reading.done():
                found.file.close()
            else:  # closed under the thread, its number could be another file's
                reading.add_done_callback(lambda _: found.file.close())
