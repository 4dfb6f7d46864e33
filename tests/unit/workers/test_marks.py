"""What a new owner of the log knows of what the one before it has written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event

import msgspec
import pytest

from h2log.config import LogSettings, build
from h2log.errors import UsageError
from h2log.workers.ledger import Ledger
from h2log.workers.marks import SLOT, Mark, Marks, Written, new_marks
from h2log.workers.messages import APP, SESSION, Hello, Span, Turn
from h2log.workers.outputs import Outputs
from tests.support import PATIENCE, eventually


@pytest.fixture
def page() -> Iterator[int]:
    """A page."""
    number = new_marks()
    yield number
    os.close(number)


@pytest.fixture
def log(tmp_path: Path) -> LogSettings:
    """Settings of an access log, a session log and an application's log."""
    text = {
        "access": [{"path": str(tmp_path / "access.log"), "flush_interval": "1ms"}],
        "session": {"path": str(tmp_path / "session.log")},
        "app": {"path": str(tmp_path / "app.log")},
    }
    return build({"log": text}, "a test").log


def marked(page: int, path: Path, *workers: int) -> Mark:
    """Return the mark of an owner that writes to `path`."""
    marks = Marks(page)
    marks.workers.update(workers)
    mark, _ = marks.take("key", str(path))
    assert mark is not None
    return mark


def left(page: int, path: Path) -> Written:
    """Return what the next owner finds."""
    return Marks(page).take("key", str(path))[1]


BATCH = [(1, 5, 3, 13), (2, 7, 2, 0), (0, 0, 1, 0), (1, 6, 2, 16), (2, 0, 1, 30)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (0, {}),
        (2, {1: (5, 2, 12)}),
        (3, {1: (5, 3, 13)}),
        (4, {1: (5, 3, 13), 2: (7, 1, 0)}),
        (6, {1: (5, 3, 13), 2: (7, 2, 0)}),
        (7, {1: (6, 1, 15), 2: (7, 2, 0)}),
        (8, {1: (6, 2, 16), 2: (7, 2, 0)}),
        (9, {1: (6, 2, 16), 2: (7, 2, 30)}),
    ],
)
@pytest.mark.parametrize("told", [True, False], ids=["told", "found in the file"])
def test_killed_in_a_write(
    page: int, tmp_path: Path, lines: int, found: Written, told: bool
) -> None:
    """The file says how much of the last write is there, to the line, also when it is renamed."""
    path = tmp_path / "log"
    with path.open("wb+", buffering=0) as file:
        file.write(b"same\n" * 4)
        mark = marked(page, path, 1, 2)
        mark.batch(BATCH)
        mark.at(file.fileno(), 20, 1)
        file.write(b"# a header\n" + b"same\n" * lines + (b"" if told else b"sa"))
        if told:
            mark.wrote(lines)
            file.write(b"somebody else's\n")
        path.rename(tmp_path / "log.1")
        assert left(page, path) == found
        assert left(page, path) == found  # killed before it has written anything


def test_one_write_after_the_other(page: int, tmp_path: Path) -> None:
    """What earlier batches and owners brought is known; lines that go elsewhere do not count."""
    path = tmp_path / "log"
    with path.open("wb+", buffering=0) as file:
        mark = marked(page, path, 1, 2)
        mark.batch([(1, 1, 2, 0)])
        mark.at(file.fileno(), 0, 0)
        file.write(b"x\nx\n")
        mark.wrote(2)
        mark.batch([(1, 2, 1, 0), (2, 1, 1, 0)])
        mark.at(file.fileno(), 4, 0)
        file.write(b"x\n")
        mark.wrote(1)
        mark.at(file.fileno(), 6, -1)
        file.write(b"of a deleted file\n")
        assert left(page, path) == {1: (2, 1, 0)}
        mark = marked(page, path, 1, 2)
        mark.batch([(1, 2, 4, 0)])  # the rest of it
        mark.wrote(3)
        assert left(page, path) == {1: (2, 4, 0)}
    marks = Marks(page)
    marks.workers.add(1)
    first, _ = marks.take("key", str(path))
    second, _ = marks.take("key", str(path))
    assert first is not None and second is not None
    first.batch([(1, 3, 1, 9)])
    first.wrote(1)
    marks.leave(first)
    assert second.written == {1: (3, 1, 9)}  # another output of the same name knows of it
    assert left(page, path) == {1: (3, 1, 9)}  # and puts it down at once
    marks.forget(1)
    assert second.written == {}
    assert os.fstat(page).st_size == 2 * SLOT


def turn(number: int, *spans: Span) -> Turn:
    """Return a turn that brings lines."""
    return Turn(number, number, list(spans), [], [], [], [], [])


def taken_care_of(ledger: Ledger, number: int) -> bool:
    """Say whether this turn is, and was not before."""
    return ledger.acknowledge() == number


async def test_equal_lines_are_not_taken_for_each_other(
    page: int, tmp_path: Path, log: LogSettings
) -> None:
    """What was written is not written again, and what was not is, however equal the lines are."""
    text = b"GET /same\n" * 3
    entry = b"[..] Traceback\n    at line 1\n"
    spans = (
        Span(0, 3, 1, 3, text),
        Span(SESSION, 1, 0, 0, b"opened\n"),
        Span(APP, 2, 0, 0, entry, hurry=True),
    )
    for owner in range(3):  # the second and the third are sent all that the ones before were
        outputs = Outputs()
        outputs.marks = Marks(page)
        await outputs.configure(1, log, again=owner > 0)
        ledger = Ledger(1, 1, outputs, 0)
        outputs.marks.workers.add(1)
        ledger.greet(Hello(0, [], [], owner * 2))
        for number in range(1, owner * 2 + 3):
            ledger.take(turn(number, *spans))

        for writer in outputs.all:
            writer.flush_soon()
        await eventually(partial(taken_care_of, ledger, owner * 2 + 2))
        turns = owner * 2 + 2
        assert (tmp_path / "access.log").read_bytes() == text * turns
        assert (tmp_path / "session.log").read_bytes().count(b"opened\n") == turns
        assert (tmp_path / "app.log").read_bytes() == entry * turns
        killed = os.pread(page, os.fstat(page).st_size, 0)
        await outputs.close()
        os.pwrite(page, killed, 0)


async def test_a_reload_forgets_nothing_of_another_owner(
    page: int, tmp_path: Path, log: LogSettings
) -> None:
    """An output whose settings change goes on in the same file: what stands there is known."""
    text = b"GET /same\n" * 3
    slower = msgspec.structs.replace(log.outputs[0], flush_interval=0.002)
    fresh = msgspec.structs.replace(log, outputs=(slower,))
    for again in (False, True):
        outputs = Outputs()
        outputs.marks = Marks(page)
        await outputs.configure(1, log, again=again)
        await outputs.configure(2, fresh, again=again)  # the workers before drain meanwhile
        await outputs.configure(3, log, again=False)
        ledger = Ledger(1, 1, outputs, 0)
        outputs.marks.workers.add(1)
        ledger.greet(Hello(0, [], [], 2 if again else 0))
        ledger.take(turn(1, Span(0, 3, 1, 3, text)))
        ledger.take(turn(2, Span(0, 10, 11, 20, b"", "gone")))
        await eventually(partial(taken_care_of, ledger, 2))
        killed = os.pread(page, os.fstat(page).st_size, 0)
        await outputs.close()
        os.pwrite(page, killed, 0)
    lines = (tmp_path / "access.log").read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:-1]) == text
    assert lines[-1].startswith(b"#dropped worker=1 lines=10 seq=11-20 ")


async def test_a_reload_leaves_no_empty_line(page: int, tmp_path: Path, log: LogSettings) -> None:
    """What goes on in a file in which another is writing does not end the line for it."""
    path = tmp_path / "access.log"
    half, whole = Event(), Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            file.write(b"half ")
            half.set()
            whole.wait(PATIENCE)
            file.write(b"and half\n")

    slower = msgspec.structs.replace(log.outputs[0], flush_interval=0.002)
    outputs = Outputs()
    await outputs.configure(1, log, again=False)
    place = outputs.place(1, 0)
    assert place is not None
    writing = asyncio.create_task(place.writer._in_thread(write))
    await eventually(half.is_set)
    fresh = msgspec.structs.replace(log, outputs=(slower,))
    reload = asyncio.create_task(outputs.configure(2, fresh, again=False))
    await asyncio.wait((reload,), timeout=0.05)
    whole.set()
    await asyncio.wait_for(asyncio.gather(writing, reload), PATIENCE)
    await outputs.close()
    assert path.read_bytes() == b"half and half\n"


async def test_an_owner_that_cannot_begin_forgets_nothing(
    page: int, tmp_path: Path, log: LogSettings
) -> None:
    """What another has written is known to the one after it, which can open the logs."""
    mark = Marks(page).take(f"access {tmp_path / 'access.log'}", str(tmp_path / "access.log"))[0]
    assert mark is not None
    mark.batch([(1, 1, 3, 3)])
    mark.wrote(3)
    (tmp_path / "session.log").mkdir()
    for _ in range(2):
        outputs = Outputs()
        outputs.marks = Marks(page)
        with pytest.raises(UsageError):
            await outputs.configure(1, log, again=True)
    (tmp_path / "session.log").rmdir()
    outputs = Outputs()
    outputs.marks = Marks(page)
    await outputs.configure(1, log, again=True)
    place = outputs.place(1, 0)
    assert place is not None and place.before == {1: (1, 3, 3)}
    await outputs.close()


async def test_what_was_begun_of_a_line_is_cut_off(tmp_path: Path, log: LogSettings) -> None:
    """It comes again: nobody has put down that it is there."""
    path = tmp_path / "access.log"
    path.write_bytes(b"one\ntwo\nthr")
    outputs = Outputs()
    await outputs.configure(1, log, again=True)
    place = outputs.place(1, 0)
    assert place is not None
    assert path.read_bytes() == b"one\ntwo\n"
    assert place.unwritten(1, 1, b"two\n") == b"two\n"
    assert not place.told(1, 1)
    await outputs.close()
