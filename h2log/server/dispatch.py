"""From an opened request to its response, whichever protocol it came by.

A leg (`http2_leg`, `http1_leg`) opens an `Exchange`, builds the `Request` and calls `answer` in its
own call: what the application answers at once needs no task. Everything else goes on in a task.
Either way the response reaches the leg through its `Reply`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import CoroutineType

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.access.redaction import redacted_target
from h2log.app.application import App
from h2log.app.downloads import FileError, with_file
from h2log.app.events import EventStream
from h2log.app.request import Request
from h2log.app.response import FileAt, FileContent, Response, error_response
from h2log.clock import monotonic
from h2log.errors import HTTPError
from h2log.server.background import Background, Masked, context_of, ends_task, ids_of
from h2log.server.delivery import deliver, deliver_file_now, deliver_now, finish
from h2log.server.reply import Reply

__all__ = ["Dispatcher"]

_logger = logging.getLogger("h2log.app")


class Dispatcher:
    """Answers requests with an application, and turns what goes wrong into responses.

    `masked` hides the secrets of a path that a message of the log tells.
    """

    def __init__(self, app: App, masked: Masked = redacted_target) -> None:
        self._app = app
        self._masked = masked
        self.kept: Callable[[str, float, str], Response | None] = app.kept
        """See `App.kept`."""
        self.tasks: set[asyncio.Task[None]] = set()
        """The requests that are being answered in tasks."""
        self.events: dict[asyncio.Task[None], bool] = {}
        """The streams of events that are being sent; True are those that were told to end."""
        self.background = Background(masked)
        """What responses left to do."""

    def answer(
        self, request: Request, exchange: Exchange, reply: Reply
    ) -> asyncio.Task[None] | None:
        """Answer `request` through `reply`: now, or in the task that is returned."""
        context = context_of(exchange)
        try:
            answer = context.run(self._app.answer, request, exchange.start)
            # A coroutine, as most are, is told from the rest without asking a protocol.
            if type(answer) is not CoroutineType and not isinstance(answer, Response | Awaitable):
                raise _no_response(answer, request)
        except KeyboardInterrupt:
            raise
        # A panic of an extension's, or what a handler was told to exit with, is no Exception.
        except BaseException as error:
            failure = self._failure(error, exchange)
            answer = self._paged(failure, request) if _wants_page(request, failure) else failure
        _note(request, exchange)
        if isinstance(answer, Response):
            if isinstance(answer.body, bytes):
                self._tell_failure(request, answer, exchange)
                self.send_now(answer, exchange, reply)
                sent = True
            else:
                sent = (
                    isinstance(answer.body, FileContent)
                    and request.failure is None
                    and deliver_file_now(answer, exchange, reply)
                )
            if sent:
                if answer.background:
                    self.background.begin(answer.background, request, exchange, reply)
                return None
        reply.noting = partial(_note, request, exchange)
        tasks = self.tasks
        task = asyncio.get_running_loop().create_task(
            self._later(answer, request, exchange, reply), context=context
        )
        tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            # A task that is cancelled before it began has neither awaited the handler nor come to
            # the end of its request.
            if isinstance(answer, Response):
                if isinstance(answer.body, FileContent):
                    answer.body.file.close()
                self._end(answer, request, exchange, reply)
            elif type(answer) is CoroutineType or isinstance(answer, Coroutine):
                answer.close()

        task.add_done_callback(done)
        return task

    async def _later(
        self,
        answer: Response | Awaitable[Response],
        request: Request,
        exchange: Exchange,
        reply: Reply,
    ) -> None:
        """Await the handler, then send its response. Cancelled when the client goes away."""
        made: Response | None = None  # what has left work to do
        task = asyncio.current_task()
        try:
            try:
                response = made = _checked(
                    answer if isinstance(answer, Response) else await answer, request
                )
                if isinstance(made.body, FileAt):
                    response = await with_file(made, request)
            except BaseException as error:
                if ends_task(error, task):
                    raise
                response = self._failure(error, exchange)
                made = made or response
                if _wants_page(request, response):
                    response = await self._paged(response, request)
            _note(request, exchange)
            self._tell_failure(request, response, exchange)
            try:
                if isinstance(response.body, EventStream) and task is not None:
                    self.events[task] = False
                await deliver(response, exchange, reply)
            except BaseException as error:
                if task is not None and self.events.get(task) and not reply.closed:
                    task.uncancel()
                    finish(response, reply)
                    return
                if ends_task(error, task):
                    raise
                self._broken(error, exchange, reply)
        finally:
            if task is not None:
                self.events.pop(task, None)
            reply.noting = None  # through it the request would keep itself alive
            if not isinstance(answer, Response):
                self._end(made, request, exchange, reply)

    def end_events(self) -> None:
        """End streams of events, which have no end of their own: their clients connect anew."""
        for task in self.events:
            self.events[task] = True
            task.cancel()

    def _end(
        self, response: Response | None, request: Request, exchange: Exchange, reply: Reply
    ) -> None:
        """The request has ended, whatever became of its response."""
        if response is not None and response.background:
            self.background.begin(response.background, request, exchange, reply)
        else:
            request.release()

    def send_now(self, response: Response, exchange: Exchange, reply: Reply) -> None:
        """Send a response whose body is bytes; 500 in its place when it cannot be sent."""
        try:
            deliver_now(response, exchange, reply)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the trailers are a function of the handler's
            self._broken(error, exchange, reply)

    # What goes wrong

    def _failure(self, error: BaseException, exchange: Exchange) -> Response:
        """Return the response to a handler's exception; the client never sees the traceback."""
        if not isinstance(error, HTTPError):
            self._tell("unhandled exception for %s %s", error, exchange)
            error = HTTPError(500)
            exchange.verdict = Outcome.HANDLER_ERROR
        elif error.status == 408:
            exchange.verdict = Outcome.TIMEOUT
        try:
            response = error_response(error, exchange.id)
            if isinstance(error, FileError):
                response.background = error.background
            return response
        except Exception as unfit:
            self._tell("the error response to %s %s cannot be sent", unfit, exchange)
            exchange.verdict = Outcome.HANDLER_ERROR
            return error_response(HTTPError(500), exchange.id)

    async def _paged(self, failure: Response, request: Request) -> Response:
        """Return a failure as the page that the folder of its path has for it, if it has one."""
        try:
            page = await self._app.error_page(request, failure.status, monotonic())
        except (Exception, SystemExit):  # it is about to be told that something failed
            return failure
        if page is None:
            return failure
        known = {name for name, _ in page.headers}
        page.headers += [pair for pair in failure.headers if pair[0] not in known]
        return page

    def _tell_failure(self, request: Request, response: Response, exchange: Exchange) -> None:
        """Log the exception that an error handler of the application has answered, if any."""
        if request.failure is not None:
            self._tell("an error handler answered %s %s", request.failure, exchange)
            if response.status >= 500:
                exchange.verdict = Outcome.HANDLER_ERROR

    def _broken(self, error: BaseException, exchange: Exchange, reply: Reply) -> None:
        """The response failed after it was begun, or could not be begun."""
        if reply.closed:
            return  # the client is gone: what its absence raised in the handler is no news
        self._tell("the response to %s %s failed", error, exchange)
        exchange.verdict = Outcome.HANDLER_ERROR
        if exchange.status:
            reply.note()
            exchange.finish(Outcome.HANDLER_ERROR, monotonic())
            reply.abort()
            return
        try:
            deliver_now(error_response(HTTPError(500), exchange.id), exchange, reply)
        except Exception as fault:  # whatever is wrong, the request must not stay open
            self._tell("the connection of %s %s failed", fault, exchange)
            reply.note()
            exchange.finish(Outcome.HANDLER_ERROR, monotonic())
            reply.abort()

    def _tell(self, message: str, error: BaseException, exchange: Exchange) -> None:
        facts = exchange.facts
        path = self._masked(facts.path)
        _logger.error(message, facts.method, path, exc_info=error, extra=ids_of(exchange))


def _wants_page(request: Request, failure: Response) -> bool:
    """Say whether a person looks at the failure: what programs ask for does not name text/html."""
    return failure.status >= 500 and "text/html" in (request.headers.joined("accept") or "")


def _checked(response: object, request: Request) -> Response:
    if not isinstance(response, Response):
        raise _no_response(response, request)
    return response


def _no_response(answer: object, request: Request) -> TypeError:
    """Return what to say of a handler that returned something else, with the remedy."""
    if answer is None:
        remedy = "is a return missing?"
    elif isinstance(answer, Awaitable):
        remedy = "is an await missing?"
        if isinstance(answer, Coroutine):
            answer.close()
    elif isinstance(answer, str | bytes):
        remedy = "make one with Response(...), Response.text(...) or Response.html(...)"
    elif isinstance(answer, dict | list):
        remedy = "make one with Response.json(...)"
    else:
        remedy = "see Response"
    where = request.route or request.raw_path
    return TypeError(
        f"the handler of {request.method} {where} returned {type(answer).__name__}, "
        f"expected Response; {remedy}"
    )


def _note(request: Request, exchange: Exchange) -> None:
    """Take over for the record what the application noted on the request."""
    if request.route:
        exchange.details().route = request.route
    if request.user is not None:
        exchange.details().user = request.user
    exchange.cache = request.cache
    exchange.condition = request.condition
