"""The workers of a supervisor: they are started, replaced when they end, drained and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from h2log.clock import monotonic
from h2log.workers.board import clear_place, new_board, set_places
from h2log.workers.fleet import BootError, Generation, Slot, Worker
from h2log.workers.keeper import Keeper
from h2log.workers.messages import Drain, Hurry, Renew
from h2log.workers.program import Program

__all__ = ["Crew"]

_logger = logging.getLogger("h2log.workers")

_UNLINKED: Final = 1.0
"""Seconds after which a worker without a socket to the owner is offered another."""
_BOOT_LIMIT: Final = 120.0
"""Seconds for a worker to begin; an application may have much to load."""
_GRACE: Final = 10.0
"""Seconds beyond `drain_timeout` after which a worker that should have ended is killed: it has
several short ones of its own before (last words, the application's stop, its last lines)."""


class Crew:
    """Workers that serve `program`, each in its slot, and the `keeper` of their logs.

    Use: `begin`, then the keeper's `start` and `logs_are_open`, and await what `begin` returned.
    `generation` is what new workers are of.
    """

    def __init__(self, program: Program, generation: Generation) -> None:
        self.generation = generation
        self.keeper = Keeper(lambda: self.workers.values())
        self.workers: dict[int, Worker] = {}
        """Those whose process lives, by number."""
        self.slots: list[Slot] = []
        self.spawned = 0
        """How many were started, ever."""
        self.stopping = False
        """Nobody is replaced any more."""
        self.url = ""
        """Where they serve, nothing before one does."""
        self._program = program
        self._tasks: set[asyncio.Task[Any]] = set()
        # These go on while we stop.
        self._launches: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._board = new_board()
        self._launching: set[int] = set()  # places on the board
        self._logs = asyncio.Event()  # they are open

    def spawn(
        self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[Any]] | None = None
    ) -> asyncio.Task[None]:
        """Run `work` in a task, which is among `tasks` until it is done."""
        tasks = self._tasks if tasks is None else tasks
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def begin(self, count: int) -> list[asyncio.Task[None]]:
        """Start `count` workers; return what ends when they serve, or with BootError.

        Their processes start while the logs are opened, but none runs the application before
        `logs_are_open`: what would not be served is not begun.
        """
        self.slots = [Slot() for _ in range(count)]
        boots = [self.spawn(self._first(slot)) for slot in self.slots]
        for boot in boots:  # nobody asks for the error of one when the logs cannot be opened
            boot.add_done_callback(lambda done: done.cancelled() or done.exception())
        return boots

    async def _first(self, slot: Slot) -> None:
        async with slot.lock:
            await self.boot(slot)

    def logs_are_open(self) -> None:
        """Let workers begin."""
        self._logs.set()

    async def boot(self, slot: Slot, generation: Generation | None = None) -> None:
        """Fill a slot with a new worker. Raises BootError when it cannot serve."""
        self.spawned += 1
        taken = {worker.place for worker in self.workers.values()} | self._launching
        place = next(n for n in itertools.count(1) if n not in taken)
        self._launching.add(place)
        try:
            worker = Worker(
                self.spawned,
                place,
                generation or self.generation,
                self._wished,
                self._unlinked,
                self.keeper.put,
            )
        except OSError as error:
            self._launching.discard(place)
            raise BootError(3, f"cannot start a worker: {error.strerror}") from None
        await asyncio.shield(self.spawn(self._launch(worker, slot), self._launches))
        await self._logs.wait()
        if worker.number in self.workers:  # nobody would tell the owner of the end of another
            worker.begin(self._program, self._board, len(self.slots))
            self.keeper.connect(worker)
        await worker.ready(_BOOT_LIMIT)
        self.url = worker.url
        if worker.code is not None:
            raise BootError(3, f"a worker has ended as soon as it served ({worker.reason})")
        slot.worker = worker

    async def _launch(self, worker: Worker, slot: Slot) -> None:
        """Start a worker's process, whole: once begun it is not left half done."""
        try:
            await worker.launch()
        finally:
            self._launching.discard(worker.place)
        self.workers[worker.number] = worker
        set_places(self._board, max(worker.place for worker in self.workers.values()))
        self.spawn(self._ended(worker, slot), self._endings)

    async def _ended(self, worker: Worker, slot: Slot) -> None:
        """Do what is to be done when a worker has ended."""
        await worker.gone.wait()
        self.keeper.dead(worker, worker.reason)
        os.close(worker.journal)
        clear_place(self._board, worker.place)
        del self.workers[worker.number]
        self._forget_generations()
        if slot.worker is not worker:
            return
        slot.worker = None
        if self.stopping:
            return
        delay = 0.0 if worker.by_others else slot.back_off.delay(worker.lived)
        _logger.error(
            "worker %d (process %d) has ended (%s): another is started%s",
            worker.number,
            worker.pid,
            worker.reason,
            f" in {delay:g} s" if delay else "",
        )
        self.spawn(self._fill(slot, delay))

    async def _fill(self, slot: Slot, delay: float) -> None:
        """Put a worker into a slot that has none, however long it takes."""
        while True:
            await asyncio.sleep(delay)  # a reload, which may mend it, need not wait for that
            async with slot.lock:
                if not slot.wanted or slot.worker is not None or self.stopping:
                    return
                try:
                    await self.boot(slot)
                    return
                except BootError as error:
                    delay = slot.back_off.delay(0.0)
                    _logger.error("%s; another is started in %g s", error, delay)

    async def replace(self, slot: Slot, generation: Generation) -> None:
        """Put a worker of `generation` in the place of another, which drains then.

        Raises BootError.
        """
        async with slot.lock:
            if slot.worker is None or slot.worker.generation is not generation:
                await self._replace(slot, generation)

    async def _replace(self, slot: Slot, generation: Generation) -> None:
        old = slot.worker
        if not slot.wanted:
            return
        await self.boot(slot, generation)
        if old is not None:
            self._drain(old)

    def _drain(self, worker: Worker) -> None:
        """Have a worker finish what it has; others take what is new."""
        if worker.draining or worker.code is not None:
            return
        worker.draining = True
        timeout = worker.generation.settings.server.drain_timeout
        worker.send(Drain(timeout, False))
        self.spawn(self._outlive(worker, timeout))

    async def _outlive(self, worker: Worker, timeout: float) -> None:
        try:
            await asyncio.wait_for(worker.gone.wait(), timeout + _GRACE)
        except TimeoutError:
            worker.kill("it did not end")

    def _wished(self, worker: Worker, reason: str) -> None:
        """A worker wants to be replaced."""
        slot = next((slot for slot in self.slots if slot.worker is worker), None)
        if slot is None or self.stopping:
            return
        delay = slot.back_off.delay(monotonic() - worker.since)
        if delay:  # a limit that is too low for the application would start workers all the time
            _logger.warning(
                "worker %d is replaced in %g s, though it has just begun: %s",
                worker.number,
                delay,
                reason,
            )
        else:
            _logger.info("worker %d is replaced: %s", worker.number, reason)

        async def recycle() -> None:
            await asyncio.sleep(delay)
            async with slot.lock:
                if slot.worker is not worker:  # a reload has been here meanwhile
                    return
                try:
                    await self._replace(slot, self.generation)
                except BootError as error:
                    _logger.error("worker %d is not replaced: %s", worker.number, error)

        self.spawn(recycle())

    def _unlinked(self, worker: Worker) -> None:
        """A worker had no descriptor left for its socket to the owner: it may have one later."""

        async def again() -> None:
            await asyncio.sleep(_UNLINKED)
            if worker.code is None:
                self.keeper.connect(worker)

        self.spawn(again())

    def more(self) -> None:
        """Have one worker more."""
        if not self.stopping:
            slot = Slot()
            self.slots.append(slot)
            _logger.info("there are to be %d workers", len(self.slots))
            self.spawn(self._fill(slot, 0.0))

    def fewer(self) -> None:
        """Have one worker less, unless it is the last."""
        if self.stopping or len(self.slots) == 1:
            return
        slot = self.slots.pop()
        slot.wanted = False
        _logger.info("there are to be %d workers", len(self.slots))

        async def empty() -> None:
            async with slot.lock:
                worker, slot.worker = slot.worker, None
                if worker is not None:
                    self._drain(worker)

        self.spawn(empty())

    def _forget_generations(self) -> None:
        """Let go of generations without workers."""
        used = {worker.generation.number for worker in self.workers.values()}
        for number in self.keeper.generations - used - {self.generation.number}:
            if number < self.generation.number:
                self.keeper.forget(number)

    # All of them

    def look(self, now: float) -> None:
        """Kill those that give no sign of life."""
        for worker in list(self.workers.values()):
            limit = worker.generation.settings.server.worker_timeout
            if worker.serving and now - worker.beaten > limit:
                _logger.error(
                    "worker %d (process %d) gives no sign of life for %g s: it is killed",
                    worker.number,
                    worker.pid,
                    limit,
                )
                worker.kill("frozen")

    def renew(self) -> None:
        """Have them read the certificate anew."""
        for worker in self.workers.values():
            worker.send(Renew())

    def hurry(self) -> None:
        """Have those that drain make an end."""
        for worker in self.workers.values():
            worker.send(Hurry())

    async def stop(self, timeout: float) -> None:
        """Drain all, and return when all have ended; none begins any more."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        if self._launches:
            await asyncio.wait(self._launches)
        self.close_sockets()
        for worker in self.workers.values():
            if worker.serving:
                worker.draining = True
                worker.send(Drain(timeout, True))
            else:
                worker.kill("it had not begun")
        deadline = monotonic() + timeout + _GRACE
        for worker in list(self.workers.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.gone.wait(), max(0.0, deadline - monotonic()))
        for worker in list(self.workers.values()):
            worker.kill("it did not end")
        if self._endings:
            await asyncio.wait(self._endings)

    def close_sockets(self, but: Sequence[socket.socket] = ()) -> None:
        """Close our ends of the listening sockets; workers that drain have their own."""
        for sock in self._all_sockets():
            if sock not in but:
                sock.close()

    def _all_sockets(self) -> list[socket.socket]:
        found = [*self.generation.sockets]
        for worker in self.workers.values():
            found += worker.generation.sockets
        return found
