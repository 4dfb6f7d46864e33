"""The last account of a worker that was killed: each of its requests has a line, or is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from h2log.access.record import AccessRecord, Session
from h2log.config import LogSettings, build
from h2log.id_source import new_id
from h2log.workers.facts import open_request, open_session
from h2log.workers.journal import Journal, new_journal
from h2log.workers.ledger import Ledger
from h2log.workers.marks import Marks, new_marks
from h2log.workers.messages import SESSION, Hello, Span, Turn
from h2log.workers.outputs import Outputs
from tests.support import eventually


class Facts(NamedTuple):
    """What was asked."""

    method: str = "GET"
    path: str = "/late"
    scheme: str = "https"
    authority: str = "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


@pytest.fixture
def pages() -> Iterator[tuple[int, int]]:
    """A page of marks and a journal."""
    numbers = new_marks(), new_journal()
    yield numbers
    for number in numbers:
        os.close(number)


@pytest.fixture
def log(tmp_path: Path) -> LogSettings:
    """Settings of a line at the end, of one at the arrival, and of a session log."""
    access = {"path": str(tmp_path / "access.log"), "flush_interval": "1ms"}
    arrival = {**access, "path": str(tmp_path / "arrival.log"), "immediate": True}
    app = {"path": str(tmp_path / "app.log")}
    session = {"path": str(tmp_path / "session.log")}
    logs = {"access": [access, arrival], "session": session, "app": app}
    return build({"log": logs}, "a test").log


def opened() -> AccessRecord:
    """Return the record of a request that was opened."""
    session = Session(new_id(), "::1", 1234, 0.0, lambda record: None)
    session.protocol = "h2"
    return AccessRecord(session, Facts(), new_id(), 3, 0.0, 0.0)


async def owner(marks: int, log: LogSettings, *, again: bool) -> Outputs:
    """Return the outputs of an owner of the log that knows worker 1."""
    outputs = Outputs()
    outputs.marks = Marks(marks)
    await outputs.configure(1, log, again=again)
    outputs.marks.workers.add(1)
    return outputs


async def test_an_arrival_has_its_line(
    pages: tuple[int, int], tmp_path: Path, log: LogSettings
) -> None:
    """Also that of a request that came in the turn in which its worker was killed."""
    journal = Journal(pages[1])
    outputs = await owner(pages[0], log, again=False)
    ledger = Ledger(1, 1, outputs, pages[1])
    ledger.greet(Hello(0, [], [], 0))
    told, late = opened(), opened()
    journal.open(told)
    line = f"-\t-\t-\t{told.session.id}\t{told.id}\th2\t/told\n".encode()
    ledger.take(Turn(1, 0, [Span(1, 1, 1, 1, line)], [], [], [told.id], [], [], 1))
    journal.turn = 2
    journal.open(late)
    ledger.lost("killed")
    await outputs.close()
    ids = [row.split("\t")[4] for row in (tmp_path / "arrival.log").read_text().splitlines()]
    assert ids == [told.id, late.id]
    [row, note] = sorted((tmp_path / "access.log").read_text().splitlines(), reverse=True)
    assert row.split("\t")[4] == late.id
    assert note.startswith("#lost worker=1 lines=1 ")


async def test_the_next_owner_counts_what_the_one_before_had_not(
    pages: tuple[int, int], tmp_path: Path, log: LogSettings
) -> None:
    """A worker is killed and then the owner of its lines, before either is told of the other."""
    journal = Journal(pages[1])
    for _ in range(8):
        journal.open(opened())
    journal.finished(6)
    journal.sessions(5, 2)
    spans = [Span(0, 3, 1, 3, b"end\n" * 3), Span(0, 2, 4, 5, b"", "no room")]
    spans += [Span(1, 7, 1, 7, b"came\n" * 7), Span(SESSION, 3, 1, 3, b"opened\n" * 3)]
    for number in range(3):
        outputs = await owner(pages[0], log, again=number > 0)
        ledger = Ledger(1, 1, outputs, pages[1])
        if number == 0:
            ledger.greet(Hello(0, [], [], 0))
            ledger.take(Turn(1, 5, spans, [], [], [], [], [], 7))
            await eventually(partial(closed, ledger))
        else:
            ledger.lost("killed")
            await eventually(partial(closed, ledger))
        killed = os.pread(pages[0], os.fstat(pages[0]).st_size, 0)
        await outputs.close()
        os.pwrite(pages[0], killed, 0)
    rows = (tmp_path / "access.log").read_text().splitlines()
    assert rows[:3] == ["end"] * 3
    dropped, lost = rows[3:]
    assert dropped.startswith("#dropped worker=1 lines=2 seq=4-5 ")
    assert lost.startswith("#lost worker=1 lines=3 seq=6-6 ")
    rows = (tmp_path / "arrival.log").read_text().splitlines()
    assert rows[:7] == ["came"] * 7
    [lost] = rows[7:]
    assert lost.startswith("#lost worker=1 lines=1 seq=8-8 ")
    _, *rows = (tmp_path / "session.log").read_text().splitlines()
    assert rows[:3] == ["opened"] * 3
    [lost] = rows[3:]  # two lines that were made, and the ends of two sessions
    assert lost.startswith("#lost worker=1 lines=4 ")


async def test_an_end_that_stands_there_is_not_made_up(
    pages: tuple[int, int], tmp_path: Path, log: LogSettings
) -> None:
    """A worker is killed before it has sent all of it again: its request had ended since."""
    record = opened()
    begin = Turn(1, 0, [], [open_session(record.session)], [open_request(record)], [], [], [], 0)
    gone = [Span(0, 1, 1, 1, b"end\n"), Span(SESSION, 2, 1, 2, b"opened\nclosed\n")]
    end = Turn(2, 1, gone, [], [], [record.id], [record.session.id], [], 0)
    journal = Journal(pages[1])
    journal.finished(1)
    journal.sessions(2, 0)
    for again in (False, True):
        outputs = await owner(pages[0], log, again=again)
        ledger = Ledger(1, 1, outputs, pages[1])
        ledger.greet(Hello(0, [], [], 2 if again else 0))
        ledger.take(begin)
        if again:
            ledger.lost("killed")
        else:
            ledger.take(end)
        await eventually(partial(closed, ledger))
        killed = os.pread(pages[0], os.fstat(pages[0]).st_size, 0)
        await outputs.close()
        os.pwrite(pages[0], killed, 0)
    assert (tmp_path / "access.log").read_text() == "end\n"
    _, *rows = (tmp_path / "session.log").read_text().splitlines()
    assert rows == ["opened", "closed"]


def closed(ledger: Ledger) -> bool:
    """Say whether all that is to be said of a worker is written."""
    ledger.acknowledge()
    return not ledger.pending
