"""The supervisor's side of the log: it keeps an owner of the files alive, and tells it of workers.

When the owner ends, another is started at once, opens the same files, and gets a new socket to each
worker, which sends again whatever was not acknowledged. Nobody waits for that but the lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from h2log.clock import monotonic
from h2log.config import LogSettings
from h2log.errors import StartupError, UsageError
from h2log.logfile.writer import STDERR, STDOUT
from h2log.workers.channel import pair
from h2log.workers.children import BackOff, Child
from h2log.workers.marks import new_marks
from h2log.workers.messages import (
    Close,
    Configure,
    Configured,
    Connect,
    Dead,
    Dismiss,
    Forget,
    GoOn,
    Held,
    Hold,
    Link,
    Pulse,
    Refused,
    Reopen,
    Say,
    from_owner,
)

__all__ = ["Keeper", "Linked"]

_logger = logging.getLogger("h2log.workers")

_MODULE: Final = "h2log.workers.owner"
_FROZEN: Final = 30.0
"""Seconds without a sign of life after which the owner is taken for dead: killing it costs nothing
but time, a disk that hangs for some seconds does not deserve it."""
_LAST_WORDS: Final = 12.0
"""Seconds for the owner to write what is left: twice what each log has for itself, and some."""
_AGAIN: Final = 1.0
"""Seconds after which a worker that had no socket to the owner gets one."""
_KEPT_LINES: Final = 1000


class Linked(Protocol):
    """A worker, as far as the log is concerned."""

    number: int
    generation_number: int
    journal: int

    def send(self, message: Any, *descriptors: int) -> None:
        """Send it a message."""


@dataclass(eq=False)
class _Departed:
    """A worker that has ended, until the owner is known to know."""

    number: int
    generation: int
    journal: int
    reason: str
    told: int = 0
    """The number of the message that has told it of the end; 0 when none has."""


class Keeper:
    """Keeps the owner of the log; `workers` yields those that live, for an owner that is new."""

    def __init__(self, workers: Callable[[], Iterable[Linked]]) -> None:
        self._workers = workers
        self._child: Child | None = None
        self._marks = -1  # what the owner has written, for the next one
        self._generations: dict[int, LogSettings] = {}
        self._answer: asyncio.Future[Configured | Refused] | None = None
        self._lock = asyncio.Lock()  # one question at a time
        self._said: deque[Say] = deque(maxlen=_KEPT_LINES)
        self._unheard: deque[tuple[int, Say]] = deque(maxlen=_KEPT_LINES)  # with their numbers
        self._free = asyncio.Event()  # nobody holds the owner up
        self._free.set()
        self._held = asyncio.Event()
        self._ready = False  # the owner has all logs open, and knows of all workers
        self._closing = False
        self._watch: asyncio.Task[None] | None = None
        self._departed: list[_Departed] = []
        self._unwanted: set[int] = set()  # generations that have no others any more
        self._back_off = BackOff()
        self.beaten = 0.0
        self.health: list[dict[str, Any]] = []
        """How each output does, of about a second ago."""
        self.tasks = 0
        """Tasks of the owner's loop, as long ago."""
        self.restarts = 0

    @property
    def generations(self) -> set[int]:
        """The numbers of those whose logs are open."""
        return set(self._generations)

    @property
    def pid(self) -> int:
        """The owner's process id, 0 when there is none at this moment."""
        return 0 if self._child is None else self._child.pid

    async def start(self, generation: int, settings: LogSettings) -> None:
        """Start the owner. Raises UsageError when a log cannot be opened.

        Raises StartupError when the system has no room for a process.
        """
        try:
            self._marks = new_marks()
            await self._spawn()
        except OSError as error:
            raise StartupError(
                f"cannot start the process that has the logs: {error.strerror}"
            ) from None
        try:
            await self.configure(generation, settings)
        except UsageError:
            await self.close()
            raise
        self._ready = True
        self._tell()
        self._watch = asyncio.create_task(self._keep())

    async def _spawn(self) -> None:
        child = Child()
        await child.start(_MODULE, from_owner, self._received)
        self.beaten = monotonic()
        self._child = child

    async def configure(
        self, generation: int, settings: LogSettings, *, again: bool = False
    ) -> None:
        """Open the logs of a generation. Raises UsageError when one cannot be opened."""
        async with self._lock:
            self._answer = asyncio.get_running_loop().create_future()
            child = self._child
            if child is None:
                raise UsageError("the process that has the logs is being started again")
            child.send(Configure(generation, settings, again), self._marks)
            gone = asyncio.ensure_future(child.gone.wait())
            try:
                await asyncio.wait((self._answer, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
            if not self._answer.done():
                raise UsageError("the process that has the logs has ended")
            answer = self._answer.result()
        if isinstance(answer, Refused):
            raise UsageError(answer.text)
        self._generations[generation] = settings

    def _received(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Pulse():
                self.beaten = monotonic()
                self.health = message.health
                self.tasks = message.tasks
                self._heard(message.obeyed, message.workers)
            case Held():
                self._held.set()
            case Configured() | Refused():
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(message)

    async def _keep(self) -> None:
        """Start another owner whenever one ends."""
        while True:
            child = self._child
            if child is None:
                return
            await child.gone.wait()
            self._ready = False
            self._child = None
            for worker in self._departed:
                worker.told = 0
            if self._closing:
                return
            self._unheard.clear()
            self._show()
            delay = 0.0 if child.by_others else self._back_off.delay(child.lived)
            _logger.error(
                "the process %d that has the logs has ended (%s): another is started%s",
                child.pid,
                child.reason,
                f" in {delay:g} s" if delay else "",
            )
            await asyncio.sleep(delay)
            self.restarts += 1
            while not await self._resumed():
                await asyncio.sleep(self._back_off.delay(0.0))

    async def _resumed(self) -> bool:
        """Have a new owner go on where the last one was; False when none could be started."""
        if self._closing:
            return True
        try:
            await self._spawn()
        except OSError as error:
            _logger.error("cannot start the process that has the logs: %s", error.strerror)
            return False
        assert self._child is not None
        try:
            for generation, settings in sorted(self._generations.items()):
                await self.configure(generation, settings, again=True)
        except UsageError as error:
            _logger.error("the logs cannot be opened again: %s", error)
            if self._child is not None:
                self._child.kill("the logs cannot be opened")
            return True
        await self._free.wait()
        if self._closing:  # it was told so already, and obeys nothing more
            return True
        self._ready = True
        self._tell_departed()
        for worker in self._workers():
            self.connect(worker)
        self._tell()
        return True

    def _send(self, message: Any, *descriptors: int) -> int:
        """Send the owner a message; return its number, 0 when there is no owner."""
        if self._child is None:
            return 0
        self._child.send(message, *descriptors)
        return self._child.sent

    def connect(self, worker: Linked) -> None:
        """Give a worker and the owner a socket to each other, unless the owner is to come."""
        if not self._ready or self._child is None:
            return
        try:
            ours, theirs = pair()
        except OSError as error:
            _logger.error("worker %d has no log for now: %s", worker.number, error.strerror)
            asyncio.get_running_loop().call_later(_AGAIN, self._connect_again, worker)
            return
        with ours, theirs:
            self._send(
                Connect(worker.number, worker.generation_number), ours.fileno(), worker.journal
            )
            worker.send(Link(), theirs.fileno())

    def _connect_again(self, worker: Linked) -> None:
        if worker in self._workers():
            self.connect(worker)

    def dead(self, worker: Linked, reason: str) -> None:
        """Tell that a worker has ended; also the next owner, if this one has not lived to hear.

        An owner that is being started does not know the worker yet: it is told of both together.
        """
        told = self._send(Dead(worker.number, reason)) if self._ready else 0
        with contextlib.suppress(OSError):  # no descriptor is left
            journal = os.dup(worker.journal)
            self._departed.append(
                _Departed(worker.number, worker.generation_number, journal, reason, told)
            )

    def _tell_departed(self) -> None:
        """Have a new owner close the accounts of workers that have ended meanwhile."""
        for worker in self._departed:
            try:
                ours, theirs = pair()
            except OSError as error:  # the next owner may hear of it, this one goes on without
                _logger.error("worker %d is not accounted for: %s", worker.number, error)
                continue
            with ours:
                theirs.close()  # nobody speaks for it any more
                connect = Connect(worker.number, worker.generation)
                self._send(connect, ours.fileno(), worker.journal)
            worker.told = self._send(
                Dead(worker.number, f"{worker.reason}, and the owner of the log")
            )

    def _heard(self, obeyed: int, known: list[int]) -> None:
        """Forget what the owner has read, and workers that have ended when it is done with them.

        It has obeyed so many messages; `known` are the workers that it is not done with.
        """
        while self._unheard and self._unheard[0][0] <= obeyed:
            self._unheard.popleft()
        for worker in list(self._departed):
            if 0 < worker.told <= obeyed and worker.number not in known:
                self._departed.remove(worker)
                os.close(worker.journal)
                self._send(Dismiss(worker.number))
        for generation in list(self._unwanted):
            self.forget(generation)

    def forget(self, generation: int) -> None:
        """Tell that a generation has no workers any more, once their last lines are written."""
        if any(worker.generation == generation for worker in self._departed):
            self._unwanted.add(generation)
            return
        self._unwanted.discard(generation)
        if self._generations.pop(generation, None) is not None:
            self._send(Forget(generation))

    def reopen(self) -> None:
        """Have the paths looked at."""
        self._send(Reopen())

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Write to standard output in this block, and nobody else will: lines stay whole.

        What two processes write to one pipe is mixed, but for writes of up to PIPE_BUF (pipe(7)).
        """
        self._free.clear()
        self._held.clear()
        child = self._child
        try:
            if child is not None and self._ready:
                child.send(Hold())
                waits = [asyncio.ensure_future(w.wait()) for w in (self._held, child.gone)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
            yield
        finally:
            self._free.set()
            self._send(GoOn())
            self._tell()

    def put(self, record: Any) -> None:
        """Take a text of the supervisor's own log (see `applog.Taker`)."""
        self._said.append(Say(str(record)))
        self._tell()

    def _tell(self) -> None:
        """Hand on what there is to say: to the owner, or if there is none, to standard error."""
        if self._ready and self._free.is_set():
            while self._said:
                say = self._said.popleft()
                self._unheard.append((self._send(say), say))
        elif self._child is None:
            self._show()

    def _show(self) -> None:
        """Write to standard error what nobody else can, and keep it for the log's file.

        Nobody has the log at this moment, and that may be what there is to say.
        """
        newest = self._generations[max(self._generations)] if self._generations else None
        kept = newest is not None and newest.app.path not in (STDOUT, STDERR)
        for say in list(self._said):
            if not say.shown:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(say.text if say.text.endswith("\n") else f"{say.text}\n")
                    sys.stderr.flush()
        said = [Say(say.text, True) for say in self._said] if kept else []
        self._said.clear()
        self._said.extend(said)

    def flush_soon(self) -> None:
        """Every text is sent at once."""

    def look(self) -> None:
        """Kill an owner that gives no sign of life; call it from time to time."""
        if self._child is not None and monotonic() - self.beaten > _FROZEN:
            _logger.error("the process %d that has the logs is frozen: it is killed", self.pid)
            self._child.kill("frozen")

    async def close(self) -> bool:
        """Have all written and closed; return whether a log was stuck, or its owner."""
        self._closing = True
        child = self._child
        untold = any(not worker.told for worker in self._departed)
        if child is not None:
            await self._close(child)
        if self._watch is not None:
            if child is None:
                self._watch.cancel()
            await asyncio.wait((self._watch,))
        if untold or (self._departed and (child is None or child.by_others or child.killed_for)):
            try:
                await self._count_missing()
            except (OSError, UsageError) as error:
                _logger.error("what is missing in the logs is not counted: %s", error)
        self._ready = False
        self._child = None
        os.close(self._marks)
        self._show()
        return child is None or child.code != 0

    async def _close(self, child: Child) -> None:
        """Have the owner end."""
        self._ready = False  # what is still said stands on standard error, at the end
        child.send(Close())
        try:
            await asyncio.wait_for(child.gone.wait(), _LAST_WORDS)
        except TimeoutError:
            child.kill("it did not end")
            await child.gone.wait()
        if child.by_others or child.killed_for:
            self._said.extendleft(say for _, say in reversed(self._unheard))
            _logger.error(
                "the process %d that has the logs is gone (%s): what it had not written is lost",
                child.pid,
                child.reason,
            )

    async def _count_missing(self) -> None:
        """Have another owner note which lines of workers that have ended nobody has written.

        Raises UsageError and OSError when there can be none.
        """
        await self._spawn()
        child = self._child
        assert child is not None
        try:
            for generation, settings in sorted(self._generations.items()):
                await self.configure(generation, settings, again=True)
            self._tell_departed()
        finally:
            await self._close(child)
