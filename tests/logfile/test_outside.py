"""What others do to the file of a log: every line is in a file all the same, once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from h2log.logfile.files import LogFile
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import (
    TEXT,
    Record,
    everything,
    line,
    missing,
    numbers,
    put_many,
    written,
)
from tests.support import ROOT, eventually, poll


async def _until(writer: LogWriter, condition: object) -> None:
    """Put a record now and then until `condition` holds."""
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            writer.put(Record())
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("current", [None, "file", "symlink"])
async def test_renamed_again_and_again(tmp_path: Path, current: str | None) -> None:
    """Without a signal: the next file is there soon, and no line is in none or in two."""
    log = tmp_path / "access.log"
    rules = None if current is None else Rotation.of(size="8KB", current=current)
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    for n in range(5):
        await put_many(writer, 300)
        await written(writer)
        reopened = writer.health().reopened
        os.rename(log.resolve(), tmp_path / f"old-{n}")
        await _until(writer, lambda reopened=reopened: writer.health().reopened > reopened)
    await writer.close()
    assert sorted(numbers(everything(tmp_path))) == list(range(1, writer.sequence + 1))


async def test_reopen_needs_no_line(tmp_path: Path) -> None:
    """What SIGUSR1 asks for: the new file is there at once, also when nothing happens."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    await put_many(writer, 10)
    await written(writer)
    log.rename(tmp_path / "old")
    writer.reopen()
    await eventually(log.exists)
    writer.reopen()  # of the same file: nothing to do
    await put_many(writer, 10)
    await writer.close()
    assert numbers((tmp_path / "old").read_bytes()) == list(range(1, 11))
    assert numbers(log.read_bytes()) == list(range(11, 21))
    assert writer.health().reopened == 1


async def test_created_by_the_rotator(tmp_path: Path) -> None:
    """logrotate's `create`: the file that stands there is gone on with, and keeps its mode."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    await put_many(writer, 10)
    await written(writer)
    log.rename(tmp_path / "old")
    log.touch(0o640)
    await _until(writer, lambda: log.stat().st_size)
    await writer.close()
    assert log.stat().st_mode & 0o777 == 0o640
    assert sorted(numbers(everything(tmp_path))) == list(range(1, writer.sequence + 1))


async def test_logrotate_itself(tmp_path: Path) -> None:
    """The program as Debian has it, with `create` and without a signal."""
    program = shutil.which("logrotate") or "/usr/sbin/logrotate"
    if not os.access(program, os.X_OK):
        pytest.skip("logrotate is not installed")
    log = tmp_path / "access.log"
    rules = tmp_path / "rules"
    rules.write_text(f"{log} {{\n size 1\n rotate 9\n create\n su root root\n}}\n")
    rules.chmod(0o644)
    tmp_path.chmod(0o755)
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    for _ in range(4):
        await put_many(writer, 300)
        await written(writer)
        reopened = writer.health().reopened
        subprocess.run([program, "-f", "-s", tmp_path / "state", rules], check=True)
        await _until(writer, lambda reopened=reopened: writer.health().reopened > reopened)
    await writer.close()
    data = b"".join(path.read_bytes() for path in tmp_path.glob("access.log*"))
    assert sorted(numbers(data)) == list(range(1, writer.sequence + 1))


@pytest.mark.parametrize("rotation", [None, Rotation.of(size="64KB")])
async def test_copied_and_truncated(tmp_path: Path, rotation: Rotation | None) -> None:
    """Lines go on at the file's beginning, without a hole, and the size counts from there."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001, rotation=rotation)
    await writer.open()
    for n in range(5):
        await put_many(writer, 500)
        await written(writer)
        shutil.copyfile(log, tmp_path / f"copy-{n}")
        os.truncate(log, 0)
    await put_many(writer, 10)
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(2501, 2511))
    assert sorted(numbers(everything(tmp_path))) == list(range(1, 2511))
    assert writer.health().rotations == 0


@pytest.mark.parametrize("current", [None, "file", "symlink"])
async def test_the_folder_is_removed(tmp_path: Path, current: str | None) -> None:
    """It is made again, and of the lines put after that none is missing."""
    log = tmp_path / "logs" / "deep" / "access.log"
    rules = None if current is None else Rotation.of(size="64KB", current=current)
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    await put_many(writer, 1000)
    await written(writer)
    shutil.rmtree(tmp_path / "logs")
    await put_many(writer, 1000)
    await writer.close()
    assert numbers(everything(tmp_path)) == list(range(1001, 2001))


async def test_deleted_under_load(tmp_path: Path) -> None:
    """What is in no file was in one that was deleted: nothing is lost besides, nothing is twice.

    Each time the file is kept by a second name, so that the test can read what was in it.
    """
    log = tmp_path / "access.log"
    kept = tmp_path / "kept"
    kept.mkdir()
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    for n in range(200):
        await put_many(writer, 200, turn=20)
        os.link(log, kept / str(n))
        log.unlink()
        (kept / str(n)).rename(kept / f"{n}-moved")
        writer.reopen()
        await eventually(log.exists)
    await writer.close()
    assert sorted(numbers(everything(tmp_path))) == list(range(1, 200 * 200 + 1))


class Deleted(LogFile):
    """A file that is deleted at the worst moment: after it was looked at, before the write."""

    def __init__(self, path: str, delete: Callable[[], None]) -> None:
        super().__init__(path)
        self._delete = [delete]

    def _room(self, data: bytes, offset: int, size: int) -> int:
        if self._delete:
            self._delete.pop()()
        return super()._room(data, offset, size)


DATA = b"".join(b"%d %s\n" % (n, TEXT.encode()) for n in range(1, 1001))


def test_lines_of_a_deleted_file_come_again(tmp_path: Path) -> None:
    """What was written to a file without a name stands first in the next one, once."""
    log = tmp_path / "logs" / "access.log"
    file = Deleted(str(log), lambda: shutil.rmtree(log.parent))
    file.open()
    assert file.write(DATA, 0) == len(DATA)
    more = b"1001 %s\n" % TEXT.encode()
    assert file.write(more, 0) == 0
    assert file.write(more, 0) == len(more)
    file.close()
    assert log.read_bytes() == DATA + more
    assert file.lost == b""


def test_lines_of_a_deleted_file_come_again_at_the_end(tmp_path: Path) -> None:
    """Also when nothing is written any more."""
    log = tmp_path / "access.log"
    file = Deleted(str(log), log.unlink)
    file.open()
    assert file.write(DATA, 0) == len(DATA)
    file.close()
    assert log.read_bytes() == DATA


def test_lines_of_a_deleted_file_may_have_no_place(tmp_path: Path) -> None:
    """Then they are known to be lost, unless there is one at last."""
    log = tmp_path / "logs" / "access.log"

    def replace() -> None:
        shutil.rmtree(log.parent)
        log.parent.write_text("in the way")

    for better in (False, True):
        file = Deleted(str(log), replace)
        file.open()
        assert file.write(DATA, 0) == len(DATA)
        for _ in range(2):
            with pytest.raises(OSError, match="exists"):
                file.write(DATA, 0)
        if better:
            log.parent.unlink()
        file.close()
        assert file.lost == (b"" if better else DATA)
        if not better:
            log.parent.unlink()
    assert log.read_bytes() == DATA


async def test_a_folder_that_cannot_be_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else stands in its place: lines wait, then are counted, and it all comes back."""
    log = tmp_path / "logs" / "access.log"
    writer = LogWriter(str(log), line, 0.001, 65_536)
    await writer.open()
    await put_many(writer, 100)
    await written(writer)
    shutil.rmtree(log.parent)
    log.parent.write_text("in the way")
    await put_many(writer, 100)
    await eventually(lambda: writer.health().failing)
    await put_many(writer, 5000)
    assert writer.dropped > 0
    assert writer.health().failures > 0
    log.parent.unlink()
    await eventually(lambda: not writer.health().failing)
    await put_many(writer, 100)
    await writer.close()
    data = everything(tmp_path)
    assert sorted(numbers(data) + missing(data)) == list(range(101, 5301))
    assert len(missing(data)) == writer.dropped
    assert len(numbers(data)) + 100 == writer.written
    assert sum("cannot write" in record.getMessage() for record in caplog.records) == 1
    assert sum("again" in record.getMessage() for record in caplog.records) == 1


async def test_nothing_to_write_to_at_the_end(tmp_path: Path) -> None:
    """The folder is gone for good: what is in no file is counted as dropped."""
    log = tmp_path / "logs" / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    await put_many(writer, 100)
    await written(writer)
    log.parent.rename(tmp_path / "away")
    log.parent.write_text("in the way")
    await put_many(writer, 100)
    await written(writer)  # to the file that was moved: it has a name
    shutil.rmtree(tmp_path / "away")
    await put_many(writer, 100)
    await writer.close()
    assert (writer.written, writer.dropped) == (200, 100)


async def test_permission_is_lost_and_comes_back(tmp_path: Path) -> None:
    """Moved away, and no new file may be made: lines go on in the old one, then in the new."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody who may not write there")
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    await put_many(writer, 100)
    await written(writer)
    log.rename(tmp_path / "old")
    os.seteuid(65534)
    try:
        writer.reopen()
        await _until(writer, lambda: writer.health().failures)
        await written(writer)
    finally:
        os.seteuid(0)
    assert not log.exists()
    writer.reopen()
    await eventually(log.exists)
    await put_many(writer, 100)
    await writer.close()
    assert sorted(numbers(everything(tmp_path))) == list(range(1, writer.sequence + 1))
    assert writer.dropped == 0


KILLED = """
import asyncio, sys
from h2log.logfile.files import LogFile
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line

async def main():
    rules = Rotation.of(every="hourly", size="256KB", compress="gzip", settle=0.0)
    writer = LogWriter(sys.argv[1], line, 0.001, rotation=rules)
    await writer.open()
    while True:
        for _ in range(500):
            writer.put(Record())
        await asyncio.sleep(0.001)  # a pace that leaves the writer's thread its turns

asyncio.run(main())
"""


def _killed(log: Path) -> None:
    """Have a process write a log, and kill it when it has filled some files."""
    before = len(list(log.parent.glob("access-*")))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(log)], cwd=ROOT)
    try:
        poll(lambda: len(list(log.parent.glob("access-*"))) >= before + 5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _size(path: Path) -> int:
    """Return the size of a file; nothing when it was packed and removed just now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def test_killed_in_the_middle(tmp_path: Path) -> None:
    """Three times, and started again: no line is torn but the last, and that one is ended."""
    log = tmp_path / "access.log"
    for _ in range(3):
        await asyncio.to_thread(_killed, log)
    rules = Rotation.of(every="hourly", size="256KB", compress="gzip", settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules)
    await writer.open()
    await put_many(writer, 100)
    # A name that was reserved for a file when the process was killed may be left, empty.
    await eventually(lambda: not [p for p in tmp_path.glob("access-*.log") if _size(p)])
    await writer.close()
    torn = 0
    runs: list[int] = []
    for one in everything(tmp_path).splitlines(keepends=True):
        try:
            runs.extend(numbers(one))
        except AssertionError:
            torn += 1
    assert torn <= 3
    # Each of the four processes has counted from 1 on, without a gap and without a line twice.
    counts = Counter(runs)
    assert counts[1] == 4
    assert all(counts[n] >= counts[n + 1] for n in range(1, max(runs)))
