"""A log's writer goes on: after mistakes in it, after its task was ended, with little room."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from h2log.logfile import archive, files
from h2log.logfile.files import LogFile
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line, missing, numbers, put_many
from tests.support import eventually


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3)], ids=type)
async def test_an_error_that_nobody_foresaw(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    """It counts as a failure and is told once with its traceback; every line is written."""
    write = LogFile.write
    left = 3

    def fails(self: LogFile, data: bytes, offset: int) -> int:
        nonlocal left
        if left:
            left -= 1
            raise error
        return write(self, data, offset)

    monkeypatch.setattr(LogFile, "write", fails)
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    await put_many(writer, 500)
    await eventually(lambda: writer.written == 500)
    assert writer.health().failures == 3
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, 501))
    traced = [one for one in caplog.records if one.exc_info and one.exc_info[1] is error]
    assert len(traced) == 1


async def test_a_task_that_was_ended(tmp_path: Path) -> None:
    """Somebody cancels every task there is: another writes on, and no line is lost."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001)
    await writer.open()
    for _ in range(3):
        await put_many(writer, 500)
        [task] = [one for one in asyncio.all_tasks() if one.get_name() == "h2log-log-writer"]
        task.cancel()
        await asyncio.wait({task})
        await eventually(
            lambda: any(one.get_name() == "h2log-log-writer" for one in asyncio.all_tasks())
        )
    await eventually(lambda: writer.written == 1500)
    assert writer.health().queued_bytes == 0
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, 1501))


async def test_a_task_that_was_ended_before_a_close(tmp_path: Path) -> None:
    """The close does not wait for another to begin."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 3600)
    await writer.open()
    await put_many(writer, 500)
    [task] = [one for one in asyncio.all_tasks() if one.get_name() == "h2log-log-writer"]
    task.cancel()
    await asyncio.wait({task})
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, 501))


async def test_a_small_buffer_is_written_before_it_is_full(tmp_path: Path) -> None:
    """A quarter of it waits for nothing more."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 3600, 65_536)
    await writer.open()
    for _ in range(640):  # some 28 KB
        writer.put(Record())
    await eventually(lambda: writer.written)
    await writer.close()
    assert writer.dropped == 0


async def test_a_dropped_line_wakes_the_writer(tmp_path: Path) -> None:
    """What was in the way is written at once, however long lines may wait."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), lambda record: "x" * 80_000, 3600, 65_536 * 16)
    writer.enough = 65_536 * 128
    await writer.open()
    for _ in range(128):  # two blocks
        writer.put(Record())
    await eventually(lambda: writer.written)
    assert writer.dropped == 64
    await writer.close()
    assert writer.written == 64


async def test_a_healthy_disk_loses_nothing_for_a_small_buffer(tmp_path: Path) -> None:
    """Its thread has its turns late under load: what comes meanwhile is no reason to drop."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001, 65_536)
    await writer.open()
    for _ in range(10):
        for _ in range(5000):  # in one turn of the loop, some 240 KB
            writer.put(Record())
        await eventually(lambda: writer.health().queued_lines == 0)
    assert writer.dropped == 0
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, 50_001))


async def test_a_mixed_load_with_a_small_buffer(tmp_path: Path) -> None:
    """Whatever is dropped is named: every number is in a line or in a note."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.001, 65_536)
    await writer.open()
    await put_many(writer, 20_000, turn=1000)
    await writer.close()
    data = log.read_bytes()
    assert sorted(numbers(data) + missing(data)) == list(range(1, 20_001))


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_a_packed_log_is_nobody_elses_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Its part is the owner's alone until it is whole; then it has the log's mode."""
    seen: list[int] = []

    def watched(raw: Any) -> Any:
        assert opened is not None
        seen.append(os.fstat(raw.fileno()).st_mode & 0o7777)
        return opened(raw)

    before = os.umask(0o022)
    try:
        rotation = Rotation.of(size="1KB", compress=method, settle=0.0)
        folder = archive.Archive(tmp_path, rotation.names("a.log"), rotation)
        opened = folder._open
        assert opened is not None
        monkeypatch.setattr(folder, "_open", watched)
        old = tmp_path / "a.log.1"
        old.write_bytes(b"secret\n" * 100)
        old.chmod(0o640)
        folder.kick()
        while not folder.idle():
            pass
        folder.stop()
    finally:
        os.umask(before)
    [packed] = tmp_path.iterdir()
    assert packed.stat().st_mode & 0o7777 == 0o640
    assert seen == [0o600]


def test_a_rotation_is_not_told_to_work_before_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look at the path says nothing of whether it could be renamed."""
    monkeypatch.setattr(files, "_FIRST_RETRY", 0.0)
    monkeypatch.setattr(files, "CHECK", 0.0)

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    log = LogFile(str(tmp_path / "a.log"), Rotation.of(size=100))
    log.open()
    with monkeypatch.context() as context, caplog.at_level(logging.WARNING, "h2log.log"):
        context.setattr(os, "rename", refused)
        for _ in range(3):
            log.write(b"x" * 99 + b"\n", 0)
            log.tend()
        assert [one.getMessage().split(": ")[0] for one in caplog.records] == [
            f"cannot rotate {tmp_path / 'a.log'}"
        ]
    log._retry = log._rotate_after = 0.0
    log.write(b"x" * 99 + b"\n", 0)
    log.close()
    assert caplog.records[-1].getMessage() == f"can rotate {tmp_path / 'a.log'} again"
