"""A disk that is full for a while, and what else overloads a log: written + dropped == put."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import (
    Record,
    everything,
    line,
    missing,
    numbers,
    put_many,
    written,
)
from tests.support import ROOT, eventually, fill

BOUND = 65_536


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    "rotation",
    [None, Rotation.of(size="16KB"), Rotation.of(size="16KB", current="symlink")],
    ids=["plain", "rotated", "linked"],
)
async def test_full_for_a_while(disk: Path, rotation: Rotation | None) -> None:
    """Also across rotations and a rename meanwhile; every number is in a line or in a note."""
    log = disk / "access.log"
    stuffing = fill(disk, 48 * 1024)
    writer = LogWriter(str(log), line, 0.001, BOUND, rotation=rotation)
    await writer.open()
    await put_many(writer, 3000)
    await eventually(lambda: writer.health().failing)
    await put_many(writer, 3000)
    os.rename(log.resolve(), disk / "moved")
    writer.reopen()
    await put_many(writer, 3000)
    stuffing.unlink()
    await eventually(lambda: not writer.health().failing)
    await put_many(writer, 1000)
    await writer.close()
    data = everything(disk)
    assert sorted(numbers(data) + missing(data)) == list(range(1, 10_001))
    assert len(missing(data)) == writer.dropped > 0
    assert writer.written + writer.dropped == 10_000
    assert b'reason="No space left on device"' in data


async def test_notes_stand_where_the_lines_would(disk: Path) -> None:
    """Numbers only grow from one end of the file to the other, gaps included."""
    log = disk / "access.log"
    writer = LogWriter(str(log), line, 0.001, BOUND)
    await writer.open()
    for _ in range(3):
        stuffing = fill(disk, 8192)
        await put_many(writer, 4000)
        await eventually(lambda: writer.health().failing)
        stuffing.unlink()
        await eventually(lambda: not writer.health().failing)
        await put_many(writer, 500)
    await writer.close()
    found: list[int] = []
    for one in log.read_bytes().splitlines(keepends=True):
        found += numbers(one) or missing(one)
    assert found == list(range(1, 13_501))


class Objects:
    """A format whose lines are objects."""

    def __call__(self, record: Record) -> str:
        return json.dumps({"n": record.sequence}) + "\n"

    def note(self, kind: str, fields: Mapping[str, Any]) -> str:
        return json.dumps({"h2log.note": kind, **fields})


async def test_a_format_of_objects_gives_its_own_notes(disk: Path) -> None:
    """Each line of the file is an object, and together they name every number."""
    log = disk / "access.log"
    stuffing = fill(disk, 8192)
    writer = LogWriter(str(log), Objects(), 0.001, BOUND)
    await writer.open()
    await put_many(writer, 10_000)
    await eventually(lambda: writer.health().failing)
    await put_many(writer, 100)
    stuffing.unlink()
    await writer.flush()
    await eventually(lambda: not writer.health().failing)
    await writer.close()
    found: list[int] = []
    for text in log.read_text().splitlines():
        parsed = json.loads(text)
        if "h2log.note" in parsed:
            assert parsed["h2log.note"] == "dropped"
            found.extend(range(parsed["first"], parsed["last"] + 1))
        else:
            found.append(parsed["n"])
    assert found == list(range(1, 10_101))


async def test_blocking_loses_nothing(disk: Path) -> None:
    """Whoever waits for `ready` before he puts more has every line in the end."""
    log = disk / "access.log"
    stuffing = fill(disk, 8192)
    writer = LogWriter(str(log), line, 0.001, BOUND, overload="block")
    await writer.open()
    waited = 0

    async def requests() -> None:
        nonlocal waited
        for _ in range(10_000):
            if writer.overloaded:
                waited += 1
                await writer.ready()
            writer.put(Record())

    running = asyncio.create_task(requests())
    await eventually(lambda: writer.health().failing and writer.overloaded)
    assert not running.done()
    stuffing.unlink()
    await running
    await writer.ready()
    await writer.close()
    assert waited > 0
    assert numbers(log.read_bytes()) == list(range(1, 10_001))
    assert (writer.written, writer.dropped) == (10_000, 0)


async def test_blocking_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not wait loses what is beyond a bound of its own; the end wakes who does."""
    monkeypatch.setattr("h2log.logfile.intake._UNDER_WAY", 0)
    writer = LogWriter("/dev/full", line, 0.001, BOUND, overload="block")
    await writer.open()
    waiting = asyncio.create_task(_wait(writer))
    await put_many(writer, 10_000)
    assert writer.overloaded
    assert writer.health().queued_bytes <= 2 * BOUND
    assert writer.dropped > 0
    assert not waiting.done()
    await writer.close()
    await waiting
    assert (writer.written, writer.dropped) == (0, 10_000)


async def _wait(writer: LogWriter) -> None:
    await eventually(lambda: writer.overloaded)
    await writer.ready()


LIMITED = """
import asyncio, resource, sys
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line, put_many, written
from tests.support import eventually

async def main():
    writer = LogWriter(sys.argv[1], line, 0.001)
    await writer.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_007, resource.RLIM_INFINITY))
    await put_many(writer, 1000)
    await eventually(lambda: writer.health().failing == "File too large")
    print(writer.written, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await eventually(lambda: not writer.health().failing)
    await writer.close()
    print(writer.written, writer.dropped)

asyncio.run(main())
"""


async def test_a_file_that_may_grow_no_further(tmp_path: Path) -> None:
    """The limit falls into a line: none of it stays, until all of it can."""
    log = tmp_path / "access.log"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, log], cwd=ROOT, capture_output=True, check=True, text=True
    )
    before, *after = done.stdout.split()
    assert 0 < int(before) < 1000
    assert after == ["1000", "0"]
    assert numbers(log.read_bytes()) == list(range(1, 1001))


async def test_health_adds_up(tmp_path: Path) -> None:
    """All that was put is written, skipped, dropped or queued, at every look."""
    log = tmp_path / "access.log"

    def picky(record: Record) -> str | None:
        if record.sequence % 10 == 3:
            raise ValueError("three")
        return None if record.sequence % 10 == 4 else line(record)

    writer = LogWriter(
        str(log), picky, 3600, skip=lambda record: record.sequence % 10 in (5, 6), fsync=1
    )
    await writer.open()
    await put_many(writer, 1000)
    health = writer.health()
    assert health.taken == 1000
    assert health.queued_lines > 0
    await written(writer)
    await eventually(lambda: writer.health().flushes)
    health = writer.health()
    assert (health.written, health.skipped, health.dropped) == (600, 300, 100)
    assert health.queued_bytes == health.queued_lines == 0
    assert health.flush_max >= health.flush_mean > 0
    assert (health.path, health.file) == (str(log), str(log))
    assert (health.failing, health.failures, health.overloaded) == ("", 0, False)
    with pytest.raises(AttributeError):
        health.written = 0  # type: ignore[misc]
    await writer.close()
    data = log.read_bytes()
    assert health.bytes == len(data)  # notes too
    assert b'reason="the format failed: ValueError: three"' in data
    assert sorted(numbers(data) + missing(data)) == [
        n for n in range(1, 1001) if n % 10 not in (4, 5, 6)
    ]
    writer.put(Record())
    writer.flush_soon()
    assert writer.dropped == 101
