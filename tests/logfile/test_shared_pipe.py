"""Several logs on one pipe whose reader is slow: each line is whole, and there once."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from h2log.errors import UsageError
from h2log.logfile.files import LogFile
from h2log.logfile.outlet import Outlet
from h2log.logfile.writer import LogWriter
from tests.support import ROOT

COUNT = 5000
TAIL = "x" * 150  # no divisor of what a pipe holds

PROGRAM = f"""
import asyncio
from h2log.logfile.writer import LogWriter

async def main():
    logs = [
        LogWriter(path, lambda item, path=path: f"{{path}} {{item}} {TAIL}", 0.001)
        for path in ("-", "-", "&2")
    ]
    for log in logs:
        await log.open()
    for n in range({COUNT}):
        for log in logs:
            log.put(n)
        if n % 50 == 0:
            await asyncio.sleep(0)
    for log in logs:
        await log.close()

asyncio.run(main())
"""


def read_slowly(descriptor: int) -> bytes:
    """Return what is written to a pipe until it ends; it is never empty for its writers."""
    pieces = []
    while piece := os.read(descriptor, 5000):
        pieces.append(piece)
    return b"".join(pieces)


def small_pipe() -> tuple[int, int]:
    """Return the ends of a pipe that holds a page."""
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "not blocking"])
def test_standard_output_and_standard_error(blocking: bool) -> None:
    """Two logs there, and a third after `2>&1`, however the pipe was set up."""
    reader, writer = small_pipe()
    os.set_blocking(writer, blocking)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=writer, stderr=writer, cwd=ROOT
    ) as process:
        os.close(writer)
        lines = read_slowly(reader).decode().splitlines()
        os.close(reader)
    assert process.returncode == 0
    wanted = [f"{path} {n} {TAIL}" for path in ("-", "-", "&2") for n in range(COUNT)]
    assert [line for line in lines if not line.endswith(TAIL)] == []
    assert sorted(lines) == sorted(wanted)


async def test_two_logs_of_one_fifo(tmp_path: Path) -> None:
    """A log that was interrupted inside a line goes on before the other begins one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    logs = [LogWriter(str(path), lambda item: f"{item} {TAIL}", 0.001) for _ in range(2)]
    for log in logs:
        await log.open()
    os.set_blocking(reader, True)
    found = asyncio.create_task(asyncio.to_thread(read_slowly, reader))
    for n in range(COUNT):
        for name, log in zip("ab", logs, strict=True):
            log.put(f"{name}{n}")
        if n % 50 == 0:
            await asyncio.sleep(0)
    for log in logs:
        await log.close()
    lines = (await found).decode().splitlines()
    os.close(reader)
    assert sorted(lines) == sorted(f"{name}{n} {TAIL}" for name in "ab" for n in range(COUNT))


def test_a_full_pipe_ends_with_a_line() -> None:
    """Whoever is killed while it waits for the reader leaves nothing that is begun."""
    reader, writer = small_pipe()
    os.set_blocking(writer, False)
    data = b"".join(b"%d %s\n" % (n, TAIL.encode()) for n in range(COUNT))
    outlet, at = Outlet(writer), 0
    with contextlib.suppress(BlockingIOError):
        while True:
            at += outlet.write(data, at)
    assert os.read(reader, len(data)) == data[:at]
    assert data[at - 1 : at] == b"\n"
    os.close(writer)
    os.close(reader)


def test_a_line_that_is_given_up_is_ended(tmp_path: Path) -> None:
    """Who closes a log inside a line leaves the next one a line of its own."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    first, second = LogFile(str(path)), LogFile(str(path))
    first.open()
    second.open()
    long = b"x" * 100_000 + b"\n"
    taken = first.write(long, 0)
    assert 0 < taken < len(long)
    with pytest.raises(BlockingIOError):
        first.write(long, taken)
    waiting = threading.Thread(target=second.write, args=(b"second\n", 0))
    waiting.start()
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 65_536):
            pass
    first.close()
    waiting.join(10)
    assert os.read(reader, 100) == b"\nsecond\n"
    second.close()
    os.close(reader)


async def test_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    """The start says so, and does not wait for a reader; later one may come and go."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    log = LogWriter(str(path), str, 0.001)
    with pytest.raises(UsageError, match=r"cannot open the access log .*: nobody reads from this"):
        await log.open()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await log.open()
    os.close(reader)
    log.put("kept")
    log.flush_soon()
    async with asyncio.timeout(10):
        while not log.failing:
            await asyncio.sleep(0.001)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await log.close()
    assert os.read(reader, 100) == b"kept\n"
    os.close(reader)
