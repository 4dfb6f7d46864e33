"""The threads that touch the disk, and work there that several requests wait for.

Nothing in `app/` knows the loop. What waits for a thread does so by `aiofiles`, which asks an
`Executor` for the work: `Flights` gives it one whose work goes on already.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

import aiofiles.os

__all__ = ["FILE_THREADS", "LISTING_THREADS", "PACKING_THREADS", "Flights", "in_thread"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

FILE_THREADS: Final = ThreadPoolExecutor(4, "h2log-files")
"""Read files; threads of our own, so that an application that keeps asyncio's busy cannot keep
files from being served."""
PACKING_THREADS: Final = ThreadPoolExecutor(2, "h2log-packing")
"""Compress files, which takes longer than to read one: nobody waits for a file behind that."""
LISTING_THREADS: Final = ThreadPoolExecutor(1, "h2log-listing")
"""Make listings: of thousands of names, most of which is work for the interpreter, so that several
at once would take it from everything else."""


def _call(work: Callable[[], _T]) -> _T:
    return work()


_wait_for = aiofiles.os.wrap(_call)


async def in_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, called in one of `FILE_THREADS`; raises what it raises."""
    result: _T = await _wait_for(work, executor=FILE_THREADS)
    return result


class _Flight(Executor):
    """Work that goes on in a thread; whoever submits anything gets a future of that work."""

    def __init__(self, work: Callable[[], Any], threads: Executor) -> None:
        self._going = threads.submit(work)
        self.waiting = 0

    @property
    def landed(self) -> bool:
        """The work is done."""
        return self._going.done()

    def submit(self, fn: Callable[_P, Any], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[Any]:
        # Each waiter has a future of its own: one that is cancelled cancels nothing for the others.
        mine: Future[Any] = Future()

        def pass_on(done: Future[Any]) -> None:
            if done.cancelled():
                mine.cancel()
                return
            if not mine.set_running_or_notify_cancel():
                return
            error = done.exception()
            if error is not None:
                mine.set_exception(error)
            else:
                mine.set_result(done.result())

        self._going.add_done_callback(pass_on)
        return mine

    def leave(self) -> None:
        """Nobody waits any more: work that has not begun is not done."""
        self._going.cancel()


class Flights:
    """Single flight: of work with the same key, one is done at a time, and all get its result."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(
        self, key: Hashable, work: Callable[[], _T], threads: Executor = FILE_THREADS
    ) -> _T:
        """Return what `work` returns in a thread, or what the work that goes on for `key` does.

        Raises what it raises. When those who waited are gone, work that has begun goes on, for
        nobody; work that has not is dropped.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(work, threads)
        flight.waiting += 1
        try:
            result: _T = await _wait_for(work, executor=flight)
            return result
        finally:
            flight.waiting -= 1
            # The first that wakes up settles the result in its own step, before any other begins.
            if (flight.landed or not flight.waiting) and self._flights.get(key) is flight:
                del self._flights[key]
                flight.leave()
