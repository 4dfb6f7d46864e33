"""Work that responses leave behind: it runs when they were handed over, and outlives its client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from h2log.access.exchange import Exchange
from h2log.access.redaction import redacted_target
from h2log.app.request import Request
from h2log.app.response import Work
from h2log.ids import request_id, session_id
from h2log.server.reply import Reply

__all__ = ["Background", "Masked", "context_of", "ends_task", "ids_of", "spawn"]

_logger = logging.getLogger("h2log.app")

Masked = Callable[[str], str]
"""Hides the secrets of a path."""


def spawn(
    coroutine: Coroutine[Any, Any, None], context: Context, tasks: set[asyncio.Task[None]]
) -> asyncio.Task[None]:
    """Run `coroutine` in a task of its own, kept in `tasks` until it is done."""
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def context_of(exchange: Exchange) -> Context:
    """Return a context in which the running code knows the ids of `exchange`."""
    context = copy_context()
    context.run(session_id.set, exchange.session.id)
    context.run(request_id.set, exchange.id)
    return context


def ids_of(exchange: Exchange) -> dict[str, str]:
    """Return the ids of `exchange` as the log takes them."""
    return {"session_id": exchange.session.id, "request_id": exchange.id}


def ends_task(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Say whether `error` is the end of `task`, which met it, and not a fault of what it called.

    That is its cancellation (a handler may also await what somebody else has cancelled), its being
    closed before it was through, which another than the task itself does, and the end of the
    program by the keyboard. Whatever else is raised, however it is called, is an application's.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):
        return _running_task() is not task
    return isinstance(error, KeyboardInterrupt)


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None


class Background:
    """The work of all responses that is still to do. What fails is logged under its request."""

    def __init__(self, masked: Masked = redacted_target) -> None:
        self._masked = masked
        self.tasks: set[asyncio.Task[None]] = set()
        """One for each response that left work behind."""
        self.settled: Callable[[], None] = lambda: None
        """Called when the work of a response is done."""
        self._stopped = False

    def begin(
        self, works: Sequence[Work], request: Request, exchange: Exchange, reply: Reply
    ) -> None:
        """Do `works`, one after the other, once `reply` is over; then release `request`."""
        if self._stopped:
            self._tell_unfinished(works, exchange)
            request.release()
            return
        task = spawn(self._work(works, exchange, reply), context_of(exchange), self.tasks)
        task.add_done_callback(lambda _: self._done(request))

    def stop(self) -> None:
        """Cancel what is still to do, and begin nothing any more."""
        self._stopped = True
        for task in self.tasks:
            task.cancel()

    def _done(self, request: Request) -> None:
        request.release()
        self.settled()

    async def _work(self, works: Sequence[Work], exchange: Exchange, reply: Reply) -> None:
        done = 0
        try:
            await reply.over()
            for work in works:
                await self._one(work, exchange)
                done += 1
        except asyncio.CancelledError:
            self._tell_unfinished(works[done:], exchange)
            raise

    async def _one(self, work: Work, exchange: Exchange) -> None:
        task = asyncio.current_task()
        try:
            result = work()
            if isinstance(result, Awaitable):
                await result
        except BaseException as error:
            if ends_task(error, task):
                raise
            _logger.error(
                "background work %s of %s %s failed",
                _name(work),
                exchange.facts.method,
                self._masked(exchange.facts.path),
                exc_info=error,
                extra=ids_of(exchange),
            )

    def _tell_unfinished(self, works: Sequence[Work], exchange: Exchange) -> None:
        _logger.warning(
            "background work %s of %s %s was not finished: the server stops",
            ", ".join(map(_name, works)),
            exchange.facts.method,
            self._masked(exchange.facts.path),
            extra=ids_of(exchange),
        )


def _name(work: object) -> str:
    while isinstance(work, partial):
        work = work.func
    return str(getattr(work, "__qualname__", None) or type(work).__qualname__)
