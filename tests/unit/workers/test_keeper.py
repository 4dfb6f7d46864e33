"""When the supervisor forgets workers that have ended, and the logs that only they had."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import h2log.workers.keeper as keeper_module
from h2log.config import LogSettings, build
from h2log.workers.journal import Journal, new_journal
from h2log.workers.keeper import Keeper
from h2log.workers.messages import Pulse
from tests.support import eventually


class Departed:
    """A worker of the first generation that has ended."""

    number = 7
    generation_number = 1

    def __init__(self, journal: int) -> None:
        self.journal = journal

    def send(self, message: Any, *descriptors: int) -> None:
        """Nobody is there."""


class Deaf:
    """An owner that reads nothing, and ends when it is killed."""

    pid = 4711
    code = -9
    by_others = False
    killed_for = ""
    reason = "it did not end"

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent = 0

    def send(self, message: Any, *descriptors: int) -> None:
        """It is not read."""
        self.sent += 1

    def kill(self, reason: str) -> None:
        """End."""
        self.killed_for = reason
        self.gone.set()


@pytest.fixture
def departed() -> Iterator[Departed]:
    """A worker that has ended."""
    journal = new_journal()
    yield Departed(journal)
    os.close(journal)


async def test_a_generation_lasts_until_its_last_lines_are_written(departed: Departed) -> None:
    """As long as the owner has an account of one of its workers: lines may wait to be read."""
    keeper = Keeper(list)
    keeper._generations = {1: LogSettings(), 2: LogSettings()}
    keeper._child = cast("Any", Deaf())
    keeper._ready = True
    keeper.dead(departed, "killed")
    keeper.forget(1)
    for obeyed, known in ((0, []), (1, [departed.number, 8]), (5, [departed.number])):
        keeper._received(Pulse([], 0, obeyed, known), [])
        assert keeper.generations == {1, 2}
    keeper._received(Pulse([], 0, 1, [8]), [])
    assert keeper.generations == {2}
    assert not keeper._departed


@pytest.mark.parametrize("starting", [False, True], ids=["none is there", "one is starting"])
async def test_an_owner_that_was_not_told_has_not_forgotten(
    departed: Departed, starting: bool
) -> None:
    """A new one gives signs of life before it is told of those that have ended."""
    keeper = Keeper(list)
    if starting:
        keeper._child = cast("Any", Deaf())
    keeper.dead(departed, "killed")
    for obeyed in range(5):
        keeper._received(Pulse([], 0, obeyed, []), [])
    assert len(keeper._departed) == 1
    keeper._child = cast("Any", Deaf())
    keeper._tell_departed()
    keeper._received(Pulse([], 0, 1, []), [])
    assert len(keeper._departed) == 1
    keeper._received(Pulse([], 0, 2, []), [])
    assert not keeper._departed


async def test_a_generation_without_workers_goes_at_once() -> None:
    """Nobody has lines to come."""
    keeper = Keeper(list)
    keeper._generations = {1: LogSettings(), 2: LogSettings()}
    keeper.forget(1)
    assert keeper.generations == {2}


async def test_what_a_frozen_owner_was_told_is_told_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error: what it has surely read it has written, the rest nobody has seen."""
    monkeypatch.setattr(keeper_module, "_LAST_WORDS", 0.0)
    keeper = Keeper(list)
    keeper._marks = os.open(os.devnull, os.O_RDONLY)
    keeper._child = cast("Any", Deaf())
    keeper._ready = True
    keeper.put("read long ago")
    keeper.put("a worker has ended")
    keeper._received(Pulse([], 0, 1, []), [])
    assert await keeper.close()
    told = capsys.readouterr().err
    assert "a worker has ended\n" in told
    assert "read long ago" not in told


async def test_what_a_killed_owner_had_not_written_is_counted_at_the_end(
    departed: Departed, tmp_path: Path
) -> None:
    """The server stops, the owner of the log is killed: another notes what is missing."""
    log = tmp_path / "access.log"
    keeper = Keeper(lambda: [departed])
    settings = {"access": [{"path": str(log)}], "app": {"path": str(tmp_path / "app.log")}}
    await keeper.start(1, build({"log": settings}, "a test").log)
    keeper.connect(departed)
    Journal(departed.journal).finished(3)
    os.kill(keeper.pid, signal.SIGSTOP)
    keeper.dead(departed, "killed")
    end = asyncio.create_task(keeper.close())
    await asyncio.sleep(0)
    os.kill(keeper.pid, signal.SIGKILL)
    assert await end
    [note] = log.read_text().splitlines()
    assert note.startswith("#lost worker=7 lines=3 seq=1-3 ")
    assert note.endswith('reason="killed, and the owner of the log"')


async def test_what_is_missing_is_counted_when_the_end_comes_while_an_owner_starts(
    departed: Departed, tmp_path: Path
) -> None:
    """It opens the logs, and is told to close them before it is told who has ended."""
    log = tmp_path / "access.log"
    keeper = Keeper(lambda: [departed])
    settings = {"access": [{"path": str(log)}], "app": {"path": str(tmp_path / "app.log")}}
    await keeper.start(1, build({"log": settings}, "a test").log)
    keeper.connect(departed)
    Journal(departed.journal).finished(3)
    killed = keeper.pid
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: keeper.pid not in (0, killed))
    keeper.dead(departed, "killed")
    await keeper.close()
    [note] = log.read_text().splitlines()
    assert note.startswith("#lost worker=7 lines=3 seq=1-3 ")
