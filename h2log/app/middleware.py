"""What surrounds a handler: middleware, and the handlers of errors.

A middleware is `async def name(request, call_next) -> Response`: it calls `await
call_next(request)` for the response of what it surrounds, or answers itself. An exception from
inside is an exception of `call_next`. Error handlers of an application stand outside of its
middleware, so that they answer what a middleware raises too; those of a route stand inside. An
exception that no handler answers goes on outwards.

A response that `call_next` returns is the middleware's own, to change as it likes, whatever the
handler does with the object that it returned. What one holds open (a file) is closed when the
middleware drops it: returns another, or raises. Where it returns a stream of its own, that closes
what it reads from.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple

from h2log.app.downloads import FileError, with_file
from h2log.app.patterns import RouteError, canonical, covers
from h2log.app.request import Request
from h2log.app.response import FileAt, FileContent, Response
from h2log.app.router import Answer, Handler
from h2log.errors import HTTPError

__all__ = [
    "CallNext",
    "Continued",
    "ErrorHandler",
    "ErrorHandlers",
    "Layer",
    "Middleware",
    "entered",
    "guard",
    "surround",
]

CallNext = Callable[[Request], Awaitable[Response]]
"""Answers a request with what a middleware surrounds."""
Middleware = Callable[[Request, CallNext], Answer]
"""Answers a request, by itself or with what it surrounds; usually `async`."""
ErrorHandler = Callable[[Request, Any], Answer]
"""Answers a request that ended in an exception."""


class Layer(NamedTuple):
    """A middleware of an application: `prefix` (canonical, absolute) is where it begins."""

    run: Middleware
    prefix: str
    static: bool


async def _awaited(answer: object, what: str, request: Request) -> Response:
    """Return the response that an answer is or becomes. Raises TypeError when it is none.

    `what` names who gave it: the message is for a person who forgot a `return` or an `await`.
    """
    if isinstance(answer, Awaitable):
        answer = await answer
    if not isinstance(answer, Response):
        where = request.route or request.raw_path
        raise TypeError(
            f"the {what} of {request.method} {where} returned {type(answer).__name__}, "
            "expected Response"
        )
    return answer


class Continued(Coroutine[Any, Any, Response]):
    """An answer that is awaited, and what comes after it: `step` is given it, and awaits it.

    Closed before it was begun, as a request is whose client goes at once, it closes the answer,
    which `step` has not met: a coroutine that nobody awaits is a warning.
    """

    __slots__ = ("_answer", "_running", "_step")

    def __init__(
        self, answer: object, step: Callable[[Any], Coroutine[Any, Any, Response]]
    ) -> None:
        self._answer = answer
        self._step = step
        self._running: Coroutine[Any, Any, Response] | None = None

    def _begun(self) -> Coroutine[Any, Any, Response]:
        if self._running is None:
            self._running = self._step(self._answer)
            self._answer = None
        return self._running

    def __await__(self) -> Any:
        """Go on."""
        return self._begun().__await__()

    def send(self, value: Any) -> Any:
        """Go on, as coroutines do."""
        return self._begun().send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Raise an exception where it waits, as coroutines do."""
        if self._running is None and isinstance(self._answer, Coroutine):
            self._answer.close()
        error = kind if isinstance(kind, BaseException) else kind(*_arguments(value))
        return self._begun().throw(error.with_traceback(traceback or error.__traceback__))

    def close(self) -> None:
        """End it where it waits, or what it has not begun to await."""
        if self._running is not None:
            self._running.close()
        elif isinstance(self._answer, Coroutine):
            self._answer.close()


def _arguments(value: object) -> tuple[object, ...]:
    return () if value is None else (value,)


# Errors


class ErrorHandlers:
    """Functions that answer exceptions, by class, and errors by their status."""

    __slots__ = ("_by_class", "_by_status", "_places")

    def __init__(self) -> None:
        self._by_class: dict[type[BaseException], ErrorHandler] = {}
        self._by_status: dict[int, ErrorHandler] = {}
        self._places: dict[object, str] = {}

    @classmethod
    def of(
        cls, handlers: Mapping[int | type[Exception], ErrorHandler], place: str
    ) -> ErrorHandlers:
        """Return those of a route, registered at `place`. Raises as `add`."""
        made = cls()
        for kind, handler in handlers.items():
            made.add(kind, handler, place)
        return made

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, kind: int | type[Exception], handler: ErrorHandler, place: str) -> None:
        """Answer errors of a status, or exceptions of a class, with `handler`.

        Raises RouteError for a status that is no error's, and for a kind that has a handler;
        TypeError for what is neither a status nor a class of exceptions, or no function.
        """
        if not callable(handler):
            raise TypeError(f"an error handler is a function, not {type(handler).__name__}")
        given: object = kind  # whatever the types say
        if isinstance(given, type) and issubclass(given, Exception):
            name = given.__name__
        elif isinstance(given, int) and not isinstance(given, bool):
            name = str(given)
            if not 400 <= given <= 599:
                raise RouteError(f"errors have a status from 400 to 599, not {given} ({place})")
        else:
            raise TypeError(f"errors are told by a status or an exception's class, not {kind!r}")
        if kind in self._places:
            raise RouteError(
                f"errors {name} have two handlers: {self._places[kind]} and {place}; remove one"
            )
        self._places[kind] = place
        if isinstance(kind, int):
            self._by_status[kind] = handler
        else:
            self._by_class[kind] = handler

    def find(self, error: Exception) -> ErrorHandler | None:
        """Return the handler of the most specific class or the status; None when there is none.

        The status of an HTTPError is more specific than HTTPError, and less than its subclasses. An
        exception that is no HTTPError is a 500 when no class of it has a handler.
        """
        status = error.status if isinstance(error, HTTPError) else 0
        for kind in type(error).__mro__:
            if kind is HTTPError and status in self._by_status:
                return self._by_status[status]
            if kind in self._by_class:
                return self._by_class[kind]
        return None if status else self._by_status.get(500)


def guard(call: Handler, handlers: ErrorHandlers, mounted: str) -> Handler:
    """Return `call` with its exceptions answered by `handlers`; what has to wait still waits.

    `mounted` is the prefix of the application whose handlers they are.
    """

    def guarded(request: Request) -> Answer:
        try:
            answer = call(request)
        except Exception as error:
            handler = handlers.find(error)
            if handler is None:
                raise
            return _handled(request, error, handler, mounted)
        if isinstance(answer, Response) and not isinstance(answer.body, FileAt):
            return answer
        return Continued(answer, lambda answer: later(request, answer))

    async def later(request: Request, answer: object) -> Response:
        try:
            response = await _awaited(answer, "handler", request)
            if isinstance(response.body, FileAt):
                response = await with_file(response, request)
            return response
        except Exception as error:
            handler = handlers.find(error)
            if handler is None:
                raise
            made = _handled(request, error, handler, mounted)
            return made if isinstance(made, Response) else await made

    return guarded


_REPEATED: Final = frozenset(("set-cookie", "vary", "link"))
"""Fields of which a response may have several that do not say the same."""


def _handled(request: Request, error: Exception, handler: ErrorHandler, mounted: str) -> Answer:
    request.mounted = mounted
    answer = handler(request, error)
    if isinstance(answer, Response):
        return _noted(request, error, answer)

    async def later(answer: object) -> Response:
        return _noted(request, error, await _awaited(answer, "error handler", request))

    return Continued(answer, later)


def _noted(request: Request, error: Exception, response: Response) -> Response:
    """Leave an unexpected exception for the log, if the client is told that something failed.

    The response to an HTTPError has the fields that the error came with, where it has no own: what
    middleware put there (a cookie), or what its status asks for (`allow`, `www-authenticate`). That
    to a FileError also has the work that the handler left to do.
    """
    if not isinstance(error, HTTPError):
        if response.status >= 500:
            request.failure = error
        return response
    known = {name for name, _ in response.headers} - _REPEATED
    lacking = [(name.lower(), value) for name, value in error.headers if name.lower() not in known]
    left = error.background if isinstance(error, FileError) else []
    if lacking or left:
        response = response.copy()
        response.headers = [*response.headers, *lacking]
        if left:
            response.background = [*left, *(response.background or ())]
    return response


# Middleware


class _Next:
    """What one run of a middleware calls for the response of what it surrounds."""

    __slots__ = ("_call", "_mounted", "holding", "over")

    def __init__(self, call: Handler, mounted: str) -> None:
        self._call = call
        self._mounted = mounted
        self.holding: list[Response] = []
        """What was returned that may hold something open."""
        self.over = False
        """The middleware has returned or raised."""

    async def __call__(self, request: Request) -> Response:
        """Return the response, the caller's own."""
        try:
            answer = self._call(request)
            response = (
                answer
                if isinstance(answer, Response)
                else await _awaited(answer, "handler", request)
            )
            if isinstance(response.body, FileAt):
                response = await with_file(response, request)
        finally:
            request.mounted = self._mounted
        # The same object may answer other requests: from memory, or one that a module has made.
        response = response.copy()
        if not isinstance(response.body, bytes):
            self.holding.append(response)
            if self.over:  # called by a task that has outlived the middleware
                await self.drop(None)
        return response

    async def drop(self, kept: Response | None) -> None:
        """Close what the middleware has not returned."""
        self.drop_files(kept)
        if kept is not None and _may_read(kept.body, self.holding):
            return
        for response in self.holding:
            close = getattr(response.body, "aclose", None)
            if close is not None and (kept is None or response.body is not kept.body):
                await close()

    def drop_files(self, kept: Response | None) -> None:
        """Close the files that the middleware has not returned."""
        body = None if kept is None else kept.body
        if _may_read(body, self.holding):
            return
        mine = body.file if isinstance(body, FileContent) else None  # perhaps another part of it
        for response in self.holding:
            if isinstance(response.body, FileContent) and response.body.file is not mine:
                response.body.file.close()


def _may_read(body: object, holding: list[Response]) -> bool:
    """Say whether a body may be a middleware's own stream, which reads from another's."""
    return isinstance(body, AsyncIterable) and all(body is not other.body for other in holding)


def surround(call: Handler, layer: Layer, mounted: str) -> Handler:
    """Return `call` with a middleware around it, for paths at or below the middleware's prefix.

    `mounted` is the prefix of the application whose middleware it is.
    """
    run, prefix = layer.run, layer.prefix

    async def surrounded(request: Request) -> Response:
        request.mounted = mounted
        inner = _Next(call, mounted)
        try:
            answer = run(request, inner)
            response = (
                answer
                if isinstance(answer, Response)
                else await _awaited(answer, "middleware", request)
            )
        except GeneratorExit:  # closed where it waits: nothing can be awaited any more
            inner.drop_files(None)
            raise
        except BaseException:
            inner.over = True
            if inner.holding:
                await inner.drop(None)
            raise
        inner.over = True
        if inner.holding and [response] != inner.holding:
            await inner.drop(response)
        return response

    def where_it_applies(request: Request) -> Answer:
        applies = covers(prefix, canonical(request.raw_path))
        return surrounded(request) if applies else call(request)

    return where_it_applies if prefix != mounted else surrounded


def entered(call: Handler, mounted: str) -> Handler:
    """Return `call` as that of the application mounted at `mounted`."""

    def enter(request: Request) -> Answer:
        request.mounted = mounted
        return call(request)

    return enter
