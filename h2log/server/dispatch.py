"""From an opened request to its response, whichever protocol it came by.

A leg (`http2_leg`, `http1_leg`) opens an `Exchange`, builds the `Request` and calls `answer` in its
own call: what the application answers at once needs no task. Everything else goes on in a task,
`finish_later`. Either way the response reaches the leg through its `Reply`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from io import FileIO
from typing import Any, Protocol

import aiofiles.threadpool

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import NO_CONTENT_STATUS, FileContent, Response, error_response
from h2log.app.static import FILE_THREADS
from h2log.clock import monotonic
from h2log.errors import HTTPError
from h2log.ids import request_id, session_id

__all__ = ["FILE_CHUNK", "Dispatcher", "Reply", "spawn"]

_logger = logging.getLogger("h2log.app")

FILE_CHUNK = 240 * 1024
"""Bytes of a large file that are read at a time: a thread's round trip costs as much as copying
this many; below the size from which the allocator maps memory anew (see `process`)."""


# What a handler's code may raise that ends its request and nothing else.
_HANDLER_ERRORS = (Exception, asyncio.CancelledError, SystemExit)


class Reply(Protocol):
    """Where one response goes. After `closed` everything but `closed` does nothing."""

    @property
    def closed(self) -> bool:
        """The client is gone, or the response is complete."""

    def start(self, response: Response, end: bool) -> None:
        """Send status and header; `end` when nothing follows."""

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response (1xx) before the final one; nothing after that has begun."""

    def write(self, data: bytes, end: bool = False) -> None:
        """Send content, and the end of the response after it."""

    async def drain(self) -> None:
        """Return when there is room for more content."""

    async def room(self, most: int) -> int:
        """Return how many bytes, from 1 to `most`, may be read for this response now.

        They count as held until they are written and sent, or given back. 0 when closed.
        """

    def give_back(self, size: int) -> None:
        """Say that `size` bytes of `room` will not be written."""

    def abort(self) -> None:
        """End a response that cannot be completed so that the client sees that it is not."""


def spawn(
    coroutine: Coroutine[Any, Any, None], context: Context, tasks: set[asyncio.Task[None]]
) -> asyncio.Task[None]:
    """Run `coroutine` in a task of its own, kept in `tasks` until it is done."""
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


class Dispatcher:
    """Answers requests with an application, and turns what goes wrong into responses."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.kept: Callable[[str, float], Response | None] = app.kept
        """See `App.kept`."""
        self.tasks: set[asyncio.Task[None]] = set()
        """The requests that are being answered in tasks."""

    def context(self, exchange: Exchange) -> Context:
        """Return a context in which the running code knows the ids of `exchange`."""
        context = copy_context()
        context.run(session_id.set, exchange.session.id)
        context.run(request_id.set, exchange.id)
        return context

    def answer(
        self, request: Request, exchange: Exchange, reply: Reply
    ) -> asyncio.Task[None] | None:
        """Answer `request` through `reply`: now, or in the task that is returned."""
        context = self.context(exchange)
        try:
            answer = context.run(self._app.answer, request, exchange.start)
        except _HANDLER_ERRORS as error:
            answer = self._failure(error, exchange)
        _note(request, exchange)
        if isinstance(answer, Response) and not _needs_task(answer):
            try:
                self.send_now(answer, exchange, reply)
            except Exception as error:
                self._broken(error, exchange, reply)
            return None
        task = spawn(self._later(answer, request, exchange, reply), context, self.tasks)
        if isinstance(answer, Coroutine):
            # A task that is cancelled before it began has never awaited the handler.
            task.add_done_callback(lambda _: answer.close())
        return task

    async def _later(
        self,
        answer: Response | Awaitable[Response],
        request: Request,
        exchange: Exchange,
        reply: Reply,
    ) -> None:
        """Await the handler, then send its response. Cancelled when the client goes away."""
        try:
            response = answer if isinstance(answer, Response) else await answer
            if not isinstance(response, Response):
                raise TypeError(
                    f"the handler returned {type(response).__name__}, expected Response"
                )
        except _HANDLER_ERRORS as error:
            if _cancelled(error):
                raise
            response = self._failure(error, exchange)
        _note(request, exchange)
        try:
            if _needs_task(response):
                await self._send(response, exchange, reply)
            else:
                self.send_now(response, exchange, reply)
        except _HANDLER_ERRORS as error:
            if _cancelled(error):
                raise
            self._broken(error, exchange, reply)

    def _failure(self, error: BaseException, exchange: Exchange) -> Response:
        """Return the response to a handler's exception; the client never sees the traceback."""
        if not isinstance(error, HTTPError):
            _logger.error(
                "unhandled exception for %s %s",
                exchange.facts.method,
                exchange.facts.path,
                exc_info=error,
                extra={"session_id": exchange.session.id, "request_id": exchange.id},
            )
            error = HTTPError(500)
            exchange.verdict = Outcome.HANDLER_ERROR
        elif error.status == 408:
            exchange.verdict = Outcome.TIMEOUT
        try:
            return error_response(error, exchange.id)
        except Exception:
            _logger.exception(
                "the error response cannot be sent",
                extra={"session_id": exchange.session.id, "request_id": exchange.id},
            )
            exchange.verdict = Outcome.HANDLER_ERROR
            return error_response(HTTPError(500), exchange.id)

    def _broken(self, error: BaseException, exchange: Exchange, reply: Reply) -> None:
        """The response failed after it was begun, or could not be begun."""
        if reply.closed:
            return  # the client is gone: what its absence raised in the handler is no news
        _logger.error(
            "the response to %s %s failed",
            exchange.facts.method,
            exchange.facts.path,
            exc_info=error,
            extra={"session_id": exchange.session.id, "request_id": exchange.id},
        )
        exchange.verdict = Outcome.HANDLER_ERROR
        if exchange.status:
            exchange.finish(Outcome.HANDLER_ERROR, monotonic())
            reply.abort()
            return
        try:
            self.send_now(error_response(HTTPError(500), exchange.id), exchange, reply)
        except Exception:  # whatever is wrong, the request must not stay open
            _logger.exception("the connection failed")
            exchange.finish(Outcome.HANDLER_ERROR, monotonic())
            reply.abort()

    def send_now(self, response: Response, exchange: Exchange, reply: Reply) -> None:
        """Send a response whose body is bytes."""
        body = response.body
        assert isinstance(body, bytes)
        if reply.closed:
            return
        bare = _bare(exchange, response)
        declared = _declared_length(response)
        if not bare and declared is not None and declared != len(body):
            raise ValueError(f"{len(body)} bytes of content, not its content-length of {declared}")
        reply.start(response, end=bare or not body)
        if body and not bare:
            reply.write(body, end=True)

    async def _send(self, response: Response, exchange: Exchange, reply: Reply) -> None:
        body = response.body
        if isinstance(body, FileContent):
            await self._send_file(response, body, exchange, reply)
            return
        assert isinstance(body, AsyncIterable)
        if reply.closed:
            return
        bare = _bare(exchange, response)
        reply.start(response, end=bare)
        if bare:
            return
        declared = _declared_length(response)
        sent = 0
        try:
            await reply.drain()
            async for piece in body:
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise TypeError(
                        f"the response's iterator gave {type(piece).__name__}, expected bytes"
                    )
                if piece:
                    sent += len(piece)
                    if declared is not None and sent > declared:
                        raise ValueError(f"more content than its content-length of {declared}")
                    reply.write(bytes(piece))
                    await reply.drain()
                if reply.closed:
                    return
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        if declared is not None and sent < declared:
            raise ValueError(f"{sent} bytes of content, less than its content-length of {declared}")
        reply.write(b"", end=True)

    async def _send_file(
        self, response: Response, content: FileContent, exchange: Exchange, reply: Reply
    ) -> None:
        """Send a part of a file, reading the next piece while the last one goes out."""
        reading: asyncio.Future[bytes] | None = None
        try:
            bare = _bare(exchange, response) or not content.length
            if reply.closed:
                return
            reply.start(response, end=bare)
            if bare:
                return
            if content.offset:
                content.file.seek(content.offset)
            file = aiofiles.threadpool.wrap(content.file, executor=FILE_THREADS)
            left = content.length
            while left and not reply.closed:
                size = await reply.room(min(left, FILE_CHUNK))
                if not size:
                    return
                reading = asyncio.ensure_future(file.read(size))
                piece = await asyncio.shield(reading)
                if not piece:
                    raise OSError("the file became shorter while it was sent")
                left -= len(piece)
                reply.write(piece, end=not left)
                if len(piece) < size:
                    reply.give_back(size - len(piece))
        finally:
            if reading is not None and not reading.done():
                # A thread is reading: closed under it, its number could be another file's by now.
                reading.add_done_callback(lambda done: _close(content.file, done))
            else:
                content.file.close()


def _close(file: FileIO, reading: asyncio.Future[bytes]) -> None:
    file.close()
    if not reading.cancelled():
        reading.exception()  # nobody else will ask for it


def _note(request: Request, exchange: Exchange) -> None:
    """Take over for the record what the application noted on the request."""
    if request.route:
        exchange.details().route = request.route
    exchange.cache = request.cache
    exchange.condition = request.condition


def _cancelled(error: BaseException) -> bool:
    """Say whether the running task is cancelled, and not its handler awaited what was."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _needs_task(answer: Response) -> bool:
    return not isinstance(answer.body, bytes)


def _bare(exchange: Exchange, response: Response) -> bool:
    """Say whether the response has no content whatever its body (RFC 9110 section 6.4.1)."""
    return exchange.facts.method == "HEAD" or response.status in NO_CONTENT_STATUS


def _declared_length(response: Response) -> int | None:
    for name, value in response.headers:
        if name == "content-length":
            return int(value)
    return None
