"""Slots and who fills them, when a reload, a replacement and a mishap come together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from h2log.clock import monotonic
from h2log.config import Settings
from h2log.workers.crew import Crew
from h2log.workers.fleet import BootError, Generation, Slot, Worker
from h2log.workers.program import Program

OLD = Generation(1, Settings(), [])
NEW = Generation(2, Settings(), [])


class Rehearsal(Crew):
    """A crew whose workers have no processes; `fails` says of which generation none begins."""

    def __init__(self) -> None:
        super().__init__(Program(), OLD)
        self.slots = [Slot()]
        self.fails: Generation | None = None
        self.serves = 60.0  # for so many seconds, each of them
        self.tried = asyncio.Event()
        self.go_on = asyncio.Event()

    async def boot(self, slot: Slot, generation: Generation | None = None) -> None:
        """Fill a slot when `go_on` is set."""
        generation = generation or self.generation
        self.spawned += 1
        worker = Worker(self.spawned, 1, generation, self._wished, self._unlinked, self.keeper.put)
        worker.code = 0  # there is nobody to tell to drain
        worker.since = monotonic() - self.serves
        self.tried.set()
        await self.go_on.wait()
        if generation is self.fails:
            raise BootError(2, "the certificate is gone")
        slot.worker = worker


async def test_a_reload_does_not_wait_for_what_it_mends() -> None:
    """A slot whose workers cannot begin is tried again and again; a reload has its turn between."""
    crew = Rehearsal()
    [slot] = crew.slots
    crew.fails = OLD
    crew.go_on.set()
    filling = crew.spawn(crew._fill(slot, 0.0))
    await crew.tried.wait()
    await asyncio.wait_for(crew.replace(slot, NEW), 0.4)  # the second attempt is in 0.5 s
    assert slot.worker is not None and slot.worker.generation is NEW
    assert not filling.done()
    await filling  # it finds that nothing is to be done
    assert crew.spawned == 2


async def test_the_first_worker_and_a_reload_do_not_fill_a_slot_twice() -> None:
    """The reload comes while the application starts: the first worker drains afterwards."""
    crew = Rehearsal()
    [boot] = crew.begin(1)
    await crew.tried.wait()
    reload = asyncio.create_task(crew.replace(crew.slots[0], NEW))
    await asyncio.sleep(0)
    assert crew.spawned == 1
    crew.go_on.set()
    await asyncio.gather(boot, reload)
    assert crew.spawned == 2
    worker = crew.slots[0].worker
    assert worker is not None and worker.generation is NEW


async def test_who_is_replaced_by_a_reload_is_not_replaced_again() -> None:
    """A worker that wanted to be replaced meanwhile has what it wants; nothing old comes back."""
    crew = Rehearsal()
    [slot] = crew.slots
    crew.go_on.set()
    await crew.boot(slot)
    crew.go_on.clear()
    crew.tried.clear()
    assert slot.worker is not None
    reload = asyncio.create_task(crew.replace(slot, NEW))
    await crew.tried.wait()
    crew._wished(slot.worker, "it has answered 100 requests")
    await asyncio.sleep(0)
    crew.go_on.set()
    await reload
    crew.generation = NEW
    await asyncio.wait(crew._tasks)
    assert crew.spawned == 2
    assert slot.worker.generation is NEW


async def test_a_limit_that_is_too_low_starts_no_worker_after_the_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who is over it as soon as it serves is replaced later and later, and that is told."""
    crew = Rehearsal()
    [slot] = crew.slots
    crew.go_on.set()
    await crew.boot(slot)
    assert slot.worker is not None
    crew.serves = 1.0
    crew._wished(slot.worker, "it takes 1 byte")
    await asyncio.wait(crew._tasks)
    assert crew.spawned == 2
    assert not caplog.records
    for delay in ("0.5", "1"):
        crew._wished(slot.worker, "it takes 1 byte")
        assert caplog.messages.pop() == (
            f"worker 2 is replaced in {delay} s, though it has just begun: it takes 1 byte"
        )
        caplog.clear()
    for task in crew._tasks:
        task.cancel()
    await asyncio.wait(crew._tasks)
    assert crew.spawned == 2


class Stillborn(Crew):
    """A crew whose workers have ended before the logs are open."""

    async def _launch(self, worker: Worker, slot: Slot) -> None:
        self._launching.discard(worker.place)
        worker.code = 1
        worker.gone.set()


class Sent:
    """An owner of the log; messages to it are counted."""

    sent = 0

    def send(self, message: Any, *descriptors: int) -> None:
        """Count one."""
        self.sent += 1


async def test_the_owner_is_not_told_of_who_has_ended_already() -> None:
    """It would wait for lines, at the server's end, and nobody would tell it that none come."""
    crew = Stillborn(Program(), OLD)
    owner = Sent()
    crew.keeper._child, crew.keeper._ready = cast("Any", owner), True
    crew.logs_are_open()
    with pytest.raises(BootError, match="has ended before it served"):
        await crew.boot(Slot())
    assert owner.sent == 0
