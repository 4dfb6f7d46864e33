"""Files of a period: what was missed is caught up, what is old goes, what is asked is synced."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import (
    Record,
    content,
    everything,
    files,
    line,
    numbers,
    put_many,
    written,
)
from tests.support import eventually

# A moment at which it is another day in UTC, and summer since three weeks.
LAST = datetime.fromisoformat("2020-03-28T23:40:59-04:00").timestamp()
PERIODS: list[tuple[str | float, str]] = [
    ("minutely", "access-2020-03-28T2340.log"),
    ("hourly", "access-2020-03-28T23.log"),
    ("daily", "access-2020-03-28.log"),
    ("weekly", "access-2020-03-23.log"),
    ("monthly", "access-2020-03.log"),
    ("yearly", "access-2020.log"),
    ("23:45", "access-2020-03-27.log"),
    ("6h", "access-2020-03-28T180000.log"),
    (900, "access-2020-03-28T233000.log"),
]


def old_log(path: Path) -> None:
    """Make a log whose last line is of then."""
    path.write_bytes(b"1 %s\n" % (b"abcdefghijklmnopqrstuvwxyzabcdefghijklmn"))
    os.utime(path, (LAST, LAST))


@pytest.mark.parametrize(("every", "name"), PERIODS)
async def test_what_was_missed_is_caught_up(tmp_path: Path, every: str | float, name: str) -> None:
    """A file of an earlier period ends when the log is opened, without a line, by ITS name."""
    log = tmp_path / "access.log"
    old_log(log)
    rules = Rotation.of(every=every, timezone="America/New_York")
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    await eventually(lambda: writer.health().rotations)
    assert (tmp_path / name).exists() and log.read_bytes() == b""
    writer.put(Record())
    await writer.close()
    assert {path.name for path in files(tmp_path)} == {"access.log", name}
    assert numbers(content(tmp_path / name)) == [1]
    assert numbers(log.read_bytes()) == [1]


@pytest.mark.parametrize(("every", "name"), PERIODS)
async def test_behind_a_link_it_is_caught_up(tmp_path: Path, every: str | float, name: str) -> None:
    """The file of then has its name already; the link leads to another."""
    log = tmp_path / "access.log"
    old_log(tmp_path / name)
    log.symlink_to(name)
    rules = Rotation.of(every=every, timezone="America/New_York", current="symlink")
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    writer.put(Record())
    await writer.close()
    assert os.readlink(log) != name
    assert numbers(content(tmp_path / name)) == [1]
    assert numbers(log.read_bytes()) == [1]
    assert len(files(tmp_path)) == 2


async def test_of_the_same_period_it_is_gone_on_with(tmp_path: Path) -> None:
    """A restart is no reason for a new file."""
    log = tmp_path / "access.log"
    for current in ("file", "symlink"):
        log = tmp_path / current / "access.log"
        for _ in range(3):
            rules = Rotation.of(every="yearly", current=current, timezone="utc")
            writer = LogWriter(str(log), line, 0.001, rotation=rules)
            await writer.open()
            writer.put(Record())
            await writer.close()
            assert writer.health().rotations == 0
        assert numbers(log.read_bytes()) == [1, 1, 1]
        assert len(files(tmp_path / current)) == 1


@pytest.mark.parametrize("method", [None, "gzip", "zstd"])
async def test_retention_by_size(tmp_path: Path, method: str | None) -> None:
    """All ended files together, once they are compressed; the newest stay."""
    log = tmp_path / "access.log"
    (tmp_path / "other.log.1").write_bytes(bytes(10_000))
    rules = Rotation.of(size=1000, keep="3KB", compress=method, settle=0.0)
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    for _ in range(20):
        await put_many(writer, 50)
        await written(writer)

    def ended() -> list[Path]:
        return [path for path in tmp_path.glob("access.log.*") if path.exists()]

    archive = writer._out._place.archive  # type: ignore[attr-defined]
    await eventually(archive.idle)
    await writer.close()
    sizes = [path.stat().st_size for path in ended()]
    assert 0 < sum(sizes) <= 3 * 1024
    # One more of them would have been too much.
    assert sum(sizes) + max(sizes) * 1.5 > 3 * 1024
    found = sorted(numbers(b"".join(map(content, [*ended(), log]))))
    assert found == list(range(found[0], 1001)), "the newest, without a gap"
    assert (tmp_path / "other.log.1").exists()


@pytest.mark.parametrize("keep", ["3, 1y, 5GB", 3])
async def test_bounds_that_hold_together(tmp_path: Path, keep: str | int) -> None:
    """The narrowest of them decides."""
    rules = Rotation.of(size=1000, keep=keep)
    writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, rotation=rules)
    await writer.open()
    for _ in range(10):
        await put_many(writer, 50)
        await written(writer)
    await eventually(lambda: len(list(tmp_path.glob("access.log.*"))) == 3)
    await writer.close()


class Syncs:
    """Calls of fsync: which file, and by which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.threads: set[str] = set()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        self.threads.add(threading.current_thread().name.partition("_")[0])
        self._fsync(descriptor)


@pytest.mark.parametrize("current", ["file", "symlink"])
async def test_nothing_is_synced_unless_asked(
    tmp_path: Path, current: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system writes when it likes; rotation does not change that."""
    syncs = Syncs(monkeypatch)
    rules = Rotation.of(every="yearly", size=1000, current=current)
    writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, rotation=rules)
    await writer.open()
    await put_many(writer, 100)
    await writer.close()
    assert writer.health().rotations > 0
    assert syncs.names == []


@pytest.mark.parametrize("current", ["file", "symlink"])
async def test_each_ended_file_is_synced(
    tmp_path: Path, current: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when it ends, also when somebody else has moved it; by the writer's thread."""
    syncs = Syncs(monkeypatch)
    log = tmp_path / "access.log"
    rules = Rotation.of(every="yearly", size=1000, current=current)
    writer = LogWriter(str(log), line, 0.001, rotation=rules, fsync="rotation")
    await writer.open()
    await put_many(writer, 100)
    await written(writer)
    assert len(syncs.names) == writer.health().rotations > 0
    os.rename(log.resolve(), tmp_path / "moved")
    writer.reopen()
    await eventually(lambda: writer.health().reopened == 1)
    assert syncs.names.count("moved") == 1
    await writer.close()
    assert syncs.threads == {"h2log-log"}


async def test_each_line_is_synced_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the last, after which nothing comes; and not each for itself under load."""
    syncs = Syncs(monkeypatch)
    writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, fsync=5)
    await writer.open()
    await put_many(writer, 1)
    await eventually(lambda: syncs.names)
    before = len(syncs.names)
    await put_many(writer, 1)
    await eventually(lambda: len(syncs.names) > before)
    await put_many(writer, 20_000)
    await writer.close()
    assert set(syncs.names) == {"access.log"}
    assert syncs.threads == {"h2log-log"}
    assert len(syncs.names) < 1000


async def test_what_cannot_be_synced_is_a_failure_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, tried again, and no line is lost or doubled by it."""
    fsync = os.fsync
    fails = [True, True]

    def failing(descriptor: int) -> None:
        if fails:
            fails.pop()
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001, fsync=1)
    await writer.open()
    await put_many(writer, 10)
    await eventually(lambda: writer.health().failing == "Input/output error")
    await put_many(writer, 10)
    await eventually(lambda: not writer.health().failing)
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, 21))
    assert writer.health().failures == 2


@pytest.mark.parametrize("rules", [{"size": 1000}, {"every": "yearly", "size": 1000}])
@pytest.mark.parametrize("current", ["file", "symlink"])
async def test_every_file_has_the_mode(tmp_path: Path, rules: dict[str, Any], current: str) -> None:
    """That was asked for, whatever the umask says; folders are made as usual."""
    log = tmp_path / "a" / "b" / "access.log"
    before = os.umask(0o077)
    try:
        rotation = Rotation.of(**rules, current=current)
        writer = LogWriter(str(log), line, 0.001, rotation=rotation, file_mode=0o664)
        await writer.open()
        await put_many(writer, 100)
        await writer.close()
    finally:
        os.umask(before)
    assert writer.health().rotations > 0
    found = files(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in found} == {0o664}
    assert sorted(numbers(everything(tmp_path))) == list(range(1, 101))
