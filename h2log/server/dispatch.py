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

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.access.redaction import redacted_target
from h2log.app.application import App
from h2log.app.downloads import with_file
from h2log.app.request import Request
from h2log.app.response import FileAt, Response, error_response
from h2log.clock import monotonic
from h2log.errors import HTTPError
from h2log.server.background import Background, Masked, cancelled, context_of, ids_of, spawn
from h2log.server.delivery import deliver, deliver_now
from h2log.server.reply import Reply

__all__ = ["Dispatcher"]

_logger = logging.getLogger("h2log.app")

# What a handler's code may raise that ends its request and nothing else.
_HANDLER_ERRORS = (Exception, asyncio.CancelledError, SystemExit)


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
        self.background = Background(masked)
        """What responses left to do."""

    def answer(
        self, request: Request, exchange: Exchange, reply: Reply
    ) -> asyncio.Task[None] | None:
        """Answer `request` through `reply`: now, or in the task that is returned."""
        context = context_of(exchange)
        try:
            answer = context.run(self._app.answer, request, exchange.start)
            if not isinstance(answer, Response) and not isinstance(answer, Awaitable):
                raise _no_response(answer, request)
        except _HANDLER_ERRORS as error:
            failure = self._failure(error, exchange)
            answer = self._paged(failure, request) if _wants_page(request, failure) else failure
        _note(request, exchange)
        if isinstance(answer, Response) and isinstance(answer.body, bytes):
            self._tell_failure(request, answer, exchange)
            self.send_now(answer, exchange, reply)
            if answer.background:
                self.background.begin(answer.background, request, exchange, reply)
            return None
        reply.noting = partial(_note, request, exchange)
        task = spawn(self._later(answer, request, exchange, reply), context, self.tasks)
        # A task that is cancelled before it began has neither awaited the handler nor come to the
        # end of its request.
        if isinstance(answer, Response):
            task.add_done_callback(lambda _: self._end(answer, request, exchange, reply))
        elif isinstance(answer, Coroutine):
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
        made: Response | None = None  # by the handler
        try:
            try:
                response = made = _checked(
                    answer if isinstance(answer, Response) else await answer, request
                )
                if isinstance(made.body, FileAt):
                    response = await with_file(made, request)
            except _HANDLER_ERRORS as error:
                if cancelled(error):
                    raise
                response = self._failure(error, exchange)
                if _wants_page(request, response):
                    response = await self._paged(response, request)
            _note(request, exchange)
            self._tell_failure(request, response, exchange)
            try:
                await deliver(response, exchange, reply)
            except _HANDLER_ERRORS as error:
                if cancelled(error):
                    raise
                self._broken(error, exchange, reply)
        finally:
            reply.noting = None  # through it the request would keep itself alive
            if not isinstance(answer, Response):
                self._end(made, request, exchange, reply)

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
        except Exception as error:
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
            return error_response(error, exchange.id)
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
            exchange.finish(Outcome.HANDLER_ERROR, monotonic())
            reply.abort()
            return
        try:
            deliver_now(error_response(HTTPError(500), exchange.id), exchange, reply)
        except Exception as fault:  # whatever is wrong, the request must not stay open
            self._tell("the connection of %s %s failed", fault, exchange)
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
