"""The writer of the log when writing fails: serving goes on, and every line is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import logging
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from h2log.access.formats import h2log_format
from h2log.access.lines import is_note, parse
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.logfile import writer as writer_module
from h2log.logfile.writer import LogWriter
from tests.support import eventually

NOTE = re.compile(
    r"#dropped lines=(\d+) seq=\d+-\d+ since=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 "
    r'reason="(.*)"'
)
BOUND = 65_536
SLACK = 5 * 65_536  # what is being written, beside what is kept


@dataclass(frozen=True)
class Facts:
    """What was asked."""

    path: str
    method: str = "GET"
    scheme: str = "https"
    authority: str = "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


def record(path: str) -> AccessRecord:
    """Return a finished record."""
    session = Session("5" * 32, "192.0.2.1", 40000, 1e9, lambda _: None)
    session.protocol = "h2"
    made = AccessRecord(session, Facts(path), "7" * 32, 1, 1e9, 1.0)
    made.status = 200
    made.outcome = Outcome.COMPLETE
    return made


LINE_SIZE = len(h2log_format()(record("/00000")))


def read(data: bytes) -> tuple[list[str], list[tuple[int, str]]]:
    """Return the paths and the notes of a log; every line is whole."""
    assert not data or data.endswith(b"\n"), data[-100:]
    found: list[str] = []
    notes: list[tuple[int, str]] = []
    for line in data.decode("ascii").splitlines():
        if is_note(line):
            match = NOTE.fullmatch(line)
            assert match is not None, line
            notes.append((int(match[1]), match[2]))
        else:
            found.append(parse(line).path)
    return found, notes


class Told(logging.Handler):
    """What the writer says in h2log's own log, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    async def wait(self, text: str) -> None:
        """Wait until something with `text` in it was said."""
        await eventually(lambda: any(text in said for said in self.texts))


@pytest.fixture
def told() -> Iterator[Told]:
    """Listen to the writer."""
    logger = logging.getLogger("h2log.log")
    handler = Told()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


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


def fill(disk: Path, free: int) -> Path:
    """Fill a disk but for about `free` bytes; return the file that does."""
    stuffing = disk / "stuffing"
    status = os.statvfs(disk)
    stuffing.write_bytes(b"x" * (status.f_bavail * status.f_frsize - free))
    return stuffing


async def close_promptly(writer: LogWriter, seconds: float = 3.0) -> None:
    """Close a writer, which must not take long."""
    before = time.monotonic()
    await writer.close()
    assert time.monotonic() - before < seconds


async def put_many(writer: LogWriter, first: int, last: int) -> None:
    """Put records, letting the writer have its turns."""
    for n in range(first, last):
        writer.put(record(f"/{n:05}"))
        if n % 64 == 0:
            await asyncio.sleep(0)


async def test_a_full_device_stops_no_request(told: Told) -> None:
    """Lines are kept up to the bound, then counted; close is prompt, and tells what is lost."""
    writer = LogWriter("/dev/full", h2log_format(), 0.01, BOUND)
    await writer.open()
    await put_many(writer, 0, 100)
    await told.wait("cannot write to /dev/full: No space left on device")
    await put_many(writer, 100, 10_000)
    assert writer.written == 0
    kept = 10_000 - writer.dropped
    assert BOUND // 2 < kept * LINE_SIZE < BOUND + SLACK
    await close_promptly(writer)
    assert (writer.written, writer.dropped) == (0, 10_000)
    assert any("10000 lines could not be written to /dev/full" in text for text in told.texts)
    assert sum("cannot write" in text for text in told.texts) == 1


async def test_a_full_disk_loses_only_what_it_counts(disk: Path, told: Told) -> None:
    """When there is room again the log goes on with whole lines, and says how many it lacks."""
    log = disk / "access.log"
    stuffing = fill(disk, 16 * 1024)
    writer = LogWriter(str(log), h2log_format(), 0.01, BOUND)
    await writer.open()
    await put_many(writer, 0, 5000)
    await told.wait("No space left on device")
    await put_many(writer, 5000, 6000)
    await writer.flush()  # what is dropped is counted when it would be formatted
    dropped = writer.dropped
    assert dropped > 0
    stuffing.unlink()
    await told.wait("again")
    await put_many(writer, 6000, 6100)
    await close_promptly(writer)
    found, notes = read(log.read_bytes())
    assert found == sorted(set(found))
    assert found[-100:] == [f"/{n:05}" for n in range(6000, 6100)]
    assert sum(count for count, _ in notes) == writer.dropped == dropped
    # Lines may come faster than they can be written, before the disk is known to be full.
    assert "No space left on device" in {reason for _, reason in notes}
    assert {reason for _, reason in notes} <= {"No space left on device", "the buffer is full"}
    assert len(found) == writer.written
    assert len(found) + dropped == 6100


async def test_a_log_that_ends_on_a_full_disk_ends_with_a_whole_line(
    disk: Path, told: Told
) -> None:
    """What did not fit is counted, and no half of a line stays behind."""
    log = disk / "access.log"
    fill(disk, 16 * 1024)
    writer = LogWriter(str(log), h2log_format(), 0.01, BOUND)
    await writer.open()
    await put_many(writer, 0, 3000)
    await told.wait("No space left on device")
    await close_promptly(writer)
    assert writer.written + writer.dropped == 3000
    assert log.read_bytes().count(b"\n") == writer.written > 0
    found, _ = read(log.read_bytes())
    assert found == [f"/{n:05}" for n in range(writer.written)]


async def test_a_second_failure_is_told_again(disk: Path, told: Told) -> None:
    """Full, empty, full, empty: two reports, and the totals still agree."""
    log = disk / "access.log"
    writer = LogWriter(str(log), h2log_format(), 0.01, BOUND)
    await writer.open()
    for turn in range(2):
        stuffing = fill(disk, 8 * 1024)
        told.texts.clear()
        await put_many(writer, turn * 4000, turn * 4000 + 4000)
        await told.wait("cannot write")
        await put_many(writer, 10_000 + turn * 1000, 11_000 + turn * 1000)
        stuffing.unlink()
        await told.wait("again")
    await close_promptly(writer)
    found, notes = read(log.read_bytes())
    assert len(notes) >= 2
    assert sum(count for count, _ in notes) == writer.dropped
    assert len(found) == writer.written
    assert len(found) + writer.dropped == 10_000


# Standard output


@asynccontextmanager
async def small_pipe(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[int, int]]:
    """Make standard output a pipe of one page; give both of its ends.

    Not a fixture: between a test's phases pytest puts its own standard output back.
    """
    reader, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    stdout = io.TextIOWrapper(io.FileIO(theirs, "wb", closefd=False))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        try:
            yield reader, theirs
        finally:
            stdout.close()
            os.close(theirs)
            with contextlib.suppress(OSError):
                os.close(reader)
            # The thread of a write that was given up ends now that its pipe has no reader.
            await asyncio.get_running_loop().shutdown_default_executor()


async def read_to_the_end(reader: int, closing: asyncio.Task[None]) -> bytes:
    """Return what comes through a pipe until its writer is closed."""
    data = b""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(reader, readable.set)
    while True:
        ended = closing.done()
        readable.clear()
        try:
            data += os.read(reader, 1000)
        except BlockingIOError:
            if ended:
                break
            waiting = asyncio.ensure_future(readable.wait())
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
    loop.remove_reader(reader)
    await closing
    return data


async def test_standard_output_takes_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader of a small pipe gets all of them, in order."""
    async with small_pipe(monkeypatch) as (reader, _):
        writer = LogWriter("-", h2log_format(), 0.01)
        await writer.open()
        await put_many(writer, 0, 2000)
        data = await read_to_the_end(reader, asyncio.create_task(writer.close()))
    assert read(data) == ([f"/{n:05}" for n in range(2000)], [])
    assert (writer.written, writer.dropped, writer.stuck) == (2000, 0, False)


async def test_a_closed_pipe_stops_no_request(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """When nobody reads standard output any more, lines are counted and close is prompt."""
    async with small_pipe(monkeypatch) as (reader, _):
        writer = LogWriter("-", h2log_format(), 0.01, BOUND)
        await writer.open()
        os.close(reader)
        await put_many(writer, 0, 3000)
        await told.wait("cannot write to -: Broken pipe")
        await put_many(writer, 3000, 5000)
        await close_promptly(writer)
    assert (writer.written, writer.dropped) == (0, 5000)
    assert any("5000 lines could not be written" in text for text in told.texts)


async def test_a_stalled_pipe_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """A reader that stopped reading is given its time, then the rest is counted as lost."""
    monkeypatch.setattr(writer_module, "LAST_WORDS", 0.2)
    async with small_pipe(monkeypatch):
        writer = LogWriter("-", h2log_format(), 0.01, BOUND)
        await writer.open()
        await put_many(writer, 0, 2000)
        # Once the pipe has taken nothing for a while, the bound is the one that was set.
        await eventually(lambda: writer.limit == BOUND)
        await put_many(writer, 2000, 6000)
        assert writer.dropped > 0
        await close_promptly(writer)
    assert writer.stuck
    assert writer.written + writer.dropped == 6000
    assert any("could not be written to -" in text for text in told.texts)


async def test_a_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have set O_NONBLOCK on what we share: each line once, and no spinning."""
    async with small_pipe(monkeypatch) as (reader, theirs):
        os.set_blocking(theirs, False)
        writer = LogWriter("-", h2log_format(), 0.01)
        await writer.open()
        await put_many(writer, 0, 500)
        await writer.flush()
        before = time.process_time()
        await asyncio.sleep(0.3)  # the time in which it might spin
        spent = time.process_time() - before
        data = await read_to_the_end(reader, asyncio.create_task(writer.close()))
    assert read(data) == ([f"/{n:05}" for n in range(500)], [])
    assert writer.written == 500
    assert spent < 0.15
