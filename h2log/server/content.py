"""A request's content, between the connection that receives it and the handler that reads it."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

from h2log.errors import HTTPError

__all__ = ["ContentBuffer"]

_MERGED: Final = 16 * 1024
_SOON: Final = 0.05
"""Seconds after which a client's time is looked at again at the earliest."""


class ContentBuffer:
    """Takes pieces as they come, gives them out as they are asked for.

    `limit` is the most bytes that may come, `timeout` the seconds to wait for a piece.
    `min_rate` is the fewest bytes a second, over the time that a handler waited, once that is more
    than `timeout`. `on_read` is called with the size of each piece that was read, so that the peer
    may send more; `on_wait` before the first wait, so that a client that expects 100 (Continue) is
    told. `held_for` says for how many seconds so far nothing was read of the connection: those are
    not the client's.
    """

    __slots__ = (
        "_ended",
        "_held_for",
        "_limit",
        "_min_rate",
        "_on_read",
        "_on_wait",
        "_pieces",
        "_timeout",
        "_told",
        "_total",
        "_waited",
        "_waiters",
        "timed_out",
    )

    def __init__(
        self,
        limit: int,
        timeout: float,
        min_rate: int,
        on_read: Callable[[int], None],
        on_wait: Callable[[], None] | None = None,
        held_for: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._limit = limit
        self._timeout = timeout
        self._min_rate = min_rate
        self._waited = 0.0  # seconds that a handler waited so far
        self._on_read = on_read
        self._on_wait = on_wait
        self._held_for = held_for
        self._pieces: deque[bytes | bytearray] = deque()
        self._total = 0
        self._ended = False
        self._waiters: list[asyncio.Future[None]] = []
        self._told: Callable[[], None] | None = None
        self.timed_out = False
        """The client kept a handler waiting for too long."""

    # The connection's side

    def feed(self, piece: bytes) -> None:
        """Take a piece, never empty."""
        self._total += len(piece)
        pieces = self._pieces
        if pieces and len(pieces[-1]) + len(piece) <= _MERGED:
            # Many small pieces would take many times their size.
            last = pieces[-1]
            if isinstance(last, bytes):
                last = pieces[-1] = bytearray(last)
            last += piece
        else:
            pieces.append(piece)
        self._wake()

    def end(self) -> None:
        """The content is complete."""
        self._ended = True
        self._wake()

    def cut(self) -> None:
        """Nobody is to read any more: what is left is dropped, and who reads gets the end."""
        self._ended = True
        self._pieces.clear()
        self._wake()

    @property
    def finished(self) -> bool:
        """The content is complete, and all of it was read."""
        return self._ended and not self._pieces

    def _wake(self) -> None:
        if self._told is not None:
            self._told()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # The handler's side

    def lift(self) -> None:
        """Begin a two-way stream: nothing limits its sum and the time between its pieces.

        It may have ended already: what the client said before that is still to be read.
        """
        self._limit = sys.maxsize
        self._timeout = inf

    def listen(self, told: Callable[[], None] | None) -> None:
        """Have `told` called whenever something has come, or the end: then it is time to `take`.

        The one who listens needs no task that waits in `read`.
        """
        self._told = told

    def take(self) -> bytes:
        """Return the next piece that has come, of a two-way stream; b"" when there is none now."""
        if not self._pieces:
            return b""
        piece = bytes(self._pieces.popleft())
        self._on_read(len(piece))
        return piece

    def held_for(self) -> float:
        """Return for how many seconds so far nothing was read of the connection."""
        return self._held_for()

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises HTTPError 413 and 408; see `Content`."""
        while not self._pieces:
            if self._ended:
                return b""
            await self._wait()
        if self._total > self._limit:
            raise HTTPError(413, f"the content is larger than {self._limit} bytes")
        piece = bytes(self._pieces.popleft())
        self._on_read(len(piece))
        return piece

    async def _wait(self) -> None:
        if self._on_wait is not None:
            self._on_wait()
            self._on_wait = None
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        if self._timeout == inf:
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
            return
        began = loop.time() - self._held_for()
        timers: list[asyncio.TimerHandle] = []  # the one that is set
        timers.append(loop.call_later(self._timeout, self._late, began, timers))
        try:
            await waiter
        finally:
            timers[0].cancel()
            self._waiters.remove(waiter)
        self._waited += loop.time() - self._held_for() - began
        if self._waited > self._timeout and self._total < self._min_rate * self._waited:
            self.timed_out = True
        if self.timed_out:
            raise HTTPError(408, "the content did not come in time")

    def _late(self, began: float, timers: list[asyncio.TimerHandle]) -> None:
        """Time is up for who waits since `began`, but for what was not the client's."""
        loop = asyncio.get_running_loop()
        left = began + self._timeout - (loop.time() - self._held_for())
        if left > 0:
            timers[0] = loop.call_later(max(left, _SOON), self._late, began, timers)
        else:
            self.timed_out = True
            self._wake()
