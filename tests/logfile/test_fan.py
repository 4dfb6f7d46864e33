"""Several logs of the same records."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.access.record import Session
from h2log.errors import UsageError
from h2log.logfile.fan import LogFan
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line, missing, numbers


def session_line(session: Session) -> str:
    """Return a line of a session."""
    return f"{session.id}\t{session.client}\t{session.protocol}\n"


async def test_each_has_its_own_choice_of_the_same_numbers(tmp_path: Path) -> None:
    """One with all, one with every second, one with a format that leaves some out."""
    paths = [tmp_path / name for name in ("all", "even", "thirds")]
    fan = LogFan(
        [
            LogWriter(str(paths[0]), line),
            LogWriter(str(paths[1]), line, skip=lambda record: record.sequence % 2 == 1),
            LogWriter(str(paths[2]), lambda r: None if r.sequence % 3 else line(r)),
        ]
    )
    await fan.open()
    for _ in range(1000):
        fan.put(Record())
    await fan.flush()
    await fan.ready()
    fan.reopen()
    await fan.close()
    assert [numbers(path.read_bytes()) for path in paths] == [
        list(range(1, 1001)),
        list(range(2, 1001, 2)),
        list(range(3, 1001, 3)),
    ]
    assert (fan.sequence, fan.written, fan.dropped) == (1000, 1833, 0)
    assert (fan.overloaded, fan.stuck) == (False, False)
    assert [health.skipped for health in fan.health()] == [0, 500, 667]


async def test_one_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    """A full device loses its own lines."""
    fan = LogFan(
        [
            LogWriter("/dev/full", line, 0.001, 65_536),
            LogWriter(str(tmp_path / "log"), line, 0.001),
        ]
    )
    await fan.open()
    for _ in range(5000):
        fan.put(Record())
    await fan.close()
    assert numbers((tmp_path / "log").read_bytes()) == list(range(1, 5001))
    assert (fan.written, fan.dropped) == (5000, 5000)


async def test_one_alone_costs_nothing_more(tmp_path: Path) -> None:
    """`put` is its own."""
    writer = LogWriter(str(tmp_path / "log"), line)
    fan = LogFan([writer])
    assert fan.put == writer.put
    await fan.open()
    fan.put(Record())
    await fan.close()
    assert (fan.sequence, fan.written) == (1, 1)


async def test_none_at_all() -> None:
    """Records are counted."""
    fan = LogFan([])
    await fan.open()
    fan.put(Record())
    await fan.close()
    assert (fan.sequence, fan.written, fan.health()) == (1, 0, ())


async def test_one_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    """And the others are closed again."""
    first = LogWriter(str(tmp_path / "log"), line)
    with pytest.raises(UsageError):
        await LogFan([first, LogWriter(str(tmp_path), line)]).open()
    first.put(Record())
    first.flush_soon()
    assert first.dropped == 1


async def test_sessions_have_a_log_too(tmp_path: Path) -> None:
    """What has no place for a number is written all the same, and dropped without numbers."""
    log = tmp_path / "sessions.log"
    writer = LogWriter(str(log), session_line)
    await writer.open()
    session = Session("5" * 32, "192.0.2.1", 40000, 1e9, lambda _: None)
    for _ in range(3):
        writer.put(session)
    await writer.close()
    assert log.read_text() == session_line(session) * 3
    assert missing(log.read_bytes()) == []
