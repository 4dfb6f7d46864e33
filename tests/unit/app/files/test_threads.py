"""Work in threads, and work that several wait for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from h2log.app.files.threads import Flights, in_thread


class Work:
    """Work that waits until it may go on, and counts how often it was begun."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0

    def __call__(self) -> int:
        self.begun += 1
        assert self.go.wait(10)
        return self.begun

    def fail(self) -> int:
        """Fail, when it may."""
        self()
        raise KeyError("work")


@pytest.fixture
def work() -> Work:
    """Return work."""
    return Work()


async def waiting(flights: Flights, work: Work, count: int = 3) -> list[asyncio.Task[int]]:
    """Return tasks that wait for one piece of work."""
    tasks = [asyncio.create_task(flights.run("key", work)) for _ in range(count)]
    while not work.begun:
        await asyncio.sleep(0)
    return tasks


async def test_work_is_done_in_a_thread() -> None:
    """Its result and its exception come back."""
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_several_wait_for_one(work: Work) -> None:
    """All get the result; afterwards it is done anew."""
    flights = Flights()
    tasks = await waiting(flights, work)
    assert len(flights) == 1
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1]
    assert len(flights) == 0
    assert await flights.run("key", work) == 2


async def test_keys_are_apart(work: Work) -> None:
    """Other work does not wait."""
    flights = Flights()
    [task] = await waiting(flights, work, 1)
    assert await flights.run("other", lambda: "other") == "other"
    work.go.set()
    assert await task == 1


async def test_all_get_the_exception(work: Work) -> None:
    """And it is not kept for the next."""
    flights = Flights()
    tasks = [asyncio.create_task(flights.run("key", work.fail)) for _ in range(3)]
    await asyncio.sleep(0)
    work.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [KeyError] * 3
    assert await flights.run("key", work) == 2


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_one_that_is_cancelled_takes_nobody_with_it(work: Work, gone: int) -> None:
    """Whichever it is; one that comes later joins the same work."""
    flights = Flights()
    tasks = await waiting(flights, work)
    tasks[gone].cancel()
    await asyncio.wait([tasks[gone]])
    late = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    work.go.set()
    results = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert isinstance(results.pop(gone), asyncio.CancelledError)
    assert results == [1, 1, 1]
    assert work.begun == 1


async def test_work_that_nobody_waits_for_any_more_is_not_begun(work: Work) -> None:
    """Clients that ask and leave do not fill the queue of those that stay."""
    flights = Flights()
    with ThreadPoolExecutor(1) as threads:
        busy = asyncio.create_task(flights.run("busy", work, threads))
        while not work.begun:
            await asyncio.sleep(0)
        begun: list[str] = []
        gone = [asyncio.create_task(flights.run("gone", partial(begun.append, "gone"), threads))
                for _ in range(2)]  # fmt: skip
        stays = [asyncio.create_task(flights.run("stays", partial(begun.append, "stays"), threads))
                 for _ in range(2)]  # fmt: skip
        await asyncio.sleep(0)
        for task in (*gone, stays[0]):
            task.cancel()
        await asyncio.wait([*gone, stays[0]])
        again = asyncio.create_task(flights.run("gone", partial(begun.append, "again"), threads))
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(busy, stays[1], again)
    assert begun == ["stays", "again"]
    assert len(flights) == 0


async def test_when_all_are_gone_the_next_begins_anew(work: Work) -> None:
    """Nobody knows what the work of those that left was worth."""
    flights = Flights()
    tasks = await waiting(flights, work)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(flights) == 0
    other = asyncio.create_task(flights.run("key", lambda: "new"))
    assert await other == "new"
    work.go.set()
