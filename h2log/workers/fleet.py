"""A generation of workers, each worker, and the slots that they fill."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from h2log.clock import monotonic
from h2log.config import Settings
from h2log.workers.children import BackOff, Child
from h2log.workers.journal import new_journal
from h2log.workers.messages import (
    Beat,
    Doing,
    Failed,
    Inspect,
    Open,
    Ready,
    Start,
    Told,
    Unlinked,
    Wish,
    from_worker,
)
from h2log.workers.program import Program

__all__ = ["BootError", "Generation", "Slot", "Worker"]

_MODULE: Final = "h2log.workers.worker"


class BootError(Exception):
    """A worker could not serve; `code` is the exit code that its reason is worth."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(eq=False)
class Generation:
    """What one reading of the settings has set up."""

    number: int
    settings: Settings
    sockets: list[socket.socket]


class Worker(Child):
    """A process that serves.

    `wished` is called when it wants to be replaced, `unlinked` when it has no socket to the owner,
    `told` with what it has to say while it has no link to it.
    """

    def __init__(
        self,
        number: int,
        place: int,
        generation: Generation,
        wished: Callable[[Worker, str], None],
        unlinked: Callable[[Worker], None],
        told: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.number = number
        self.place = place
        self.generation = generation
        self.generation_number = generation.number
        self.journal = new_journal()
        self.url = ""
        self.beat: Beat | None = None
        self.beaten = 0.0
        """When it gave a sign of life, 0 before it serves."""
        self.since = monotonic()
        """When it began to serve."""
        self.rate = 0.0
        """Requests a second, of late."""
        self.draining = False
        self.tasks = 0
        """Tasks of its loop, when it was last asked what it does."""
        self._asked = 0
        self._told: asyncio.Future[list[Doing]] = asyncio.get_running_loop().create_future()
        self._wished = wished
        self._unlinked = unlinked
        self._tell = told
        self._booted: asyncio.Future[Ready | Failed] = asyncio.get_running_loop().create_future()

    async def launch(self) -> None:
        """Start the process, which waits for `begin`. Raises BootError."""
        try:
            await self.start(_MODULE, from_worker, self._received)
        except OSError as error:
            os.close(self.journal)
            raise BootError(3, f"cannot start a worker: {error.strerror}") from None

    def begin(self, program: Program, board: int, share: int) -> None:
        """Tell it what to serve."""
        sockets = [sock.fileno() for sock in self.generation.sockets]
        generation = self.generation
        start = Start(
            self.number, self.place, share, generation.number, generation.settings, program
        )
        self.send(start, self.journal, board, *sockets)

    async def ready(self, timeout: float) -> None:
        """Return when it serves. Raises BootError when it cannot, or takes too long."""
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait(
                (self._booted, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
        if not self._booted.done():
            if self.gone.is_set():
                raise BootError(3, f"a worker has ended before it served ({self.reason})")
            self.kill("it did not start")
            raise BootError(3, f"a worker did not start within {timeout:g} s")
        answer = self._booted.result()
        if isinstance(answer, Failed):
            raise BootError(answer.code, answer.text)

    async def doing(self, most: int, timeout: float) -> list[Doing]:
        """Return its open requests, the oldest first; none if it does not answer in time."""
        self._asked += 1
        self._told = told = asyncio.get_running_loop().create_future()
        self.send(Inspect(self._asked, most))
        try:
            return await asyncio.wait_for(told, timeout)
        except (TimeoutError, asyncio.CancelledError):
            return []

    @property
    def state(self) -> str:
        """What it is at, in a word."""
        if self.draining:
            return "draining"
        return "serving" if self.serving else "starting"

    @property
    def serving(self) -> bool:
        """Whether it has begun to, and has not ended."""
        return self.beaten > 0 and self.code is None

    def _received(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Ready() | Failed():
                if not self._booted.done():
                    self._booted.set_result(message)
                if isinstance(message, Ready):
                    self.url = message.url
                    self.since = self.beaten = monotonic()
            case Beat():
                now = monotonic()
                if self.beat is not None and now > self.beaten:
                    self.rate = (message.requests - self.beat.requests) / (now - self.beaten)
                self.beat = message
                self.beaten = now
            case Open():
                self.tasks = message.tasks
                if message.question == self._asked and not self._told.done():
                    self._told.set_result(message.requests)
            case Wish():
                self._wished(self, message.reason)
            case Unlinked():
                self._unlinked(self)
            case Told():
                self._tell(message.text)


@dataclass(eq=False)
class Slot:
    """A place for a worker: who fills it, and how often that had to be done lately."""

    worker: Worker | None = None
    back_off: BackOff = field(default_factory=BackOff)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while somebody fills it."""
    wanted: bool = True
