"""`overload = "block"` under load: requests wait for the log, none is lost, memory is bounded."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.loads import load, opened, serving, told
from tests.support import fill

BOUND = 64 * 1024
OUTPUT = f'format = "h2log-full"\nmax_buffer = {BOUND}\noverload = "block"'
SHORTEST = 300
"""Bytes that no line is shorter than; they have more than four hundred."""
FREE = 256 * 1024
PIPE = 64 * 1024
"""Bytes that a pipe holds (pipe(7))."""
GROWTH = 32 * 1024 * 1024
"""Bytes by which the server may grow: what it holds for the log is twice the bound."""
SLOW = 60.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("clients", "streams", "limits"),
    [
        pytest.param(8, 10, "", id="few-connections"),
        pytest.param(100, 10, "", id="many-connections"),
        pytest.param(8, 10, "[limits]\nidle_timeout = 1", id="longer-than-idle_timeout"),
    ],
)
async def test_a_full_disk_holds_requests_up(
    certs: Certificates, tmp_path: Path, disk: Path, clients: int, streams: int, limits: str
) -> None:
    """While it is full no more are answered than have room; all go on when there is some again."""
    log = disk / "access.log"
    with serving(tmp_path, certs, log, OUTPUT, limits) as server:
        warm = await load(server, "-n", "5000", "-c", "10", "-m", "10")
        before = server.resident()
        stuffing = fill(disk, FREE)
        patient = asyncio.create_task(
            load(server, "-n", "40000", "-c", str(clients), "-m", str(streams))
        )
        await asyncio.to_thread(
            server.stderr.wait, lambda line: f"cannot write to {log}: No space left" in line, SLOW
        )
        held_up = await load(server, "-D", "5", "-c", "2", "-m", "10")
        assert held_up.done <= 2 * BOUND // SHORTEST
        assert server.resident() - before < GROWTH
        stuffing.unlink()
        served = await patient
        assert server.resident() - before < GROWTH
        assert server.stop() == 0
    assert (warm.good, warm.done, served.good, served.done) == (True, 5000, True, 40_000)
    found = told(log.read_text("ascii"))
    assert not found.gaps
    assert sorted(found.written) == list(range(1, opened(tmp_path) + 1))


class SlowReader:
    """Reads a pipe in a thread of its own: nothing before `begin`, and never fast."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._descriptor, True)
        self._begin = threading.Event()
        self._pieces: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Read from now on."""
        self._begin.set()

    def _read(self) -> None:
        self._begin.wait()
        while piece := os.read(self._descriptor, 8 * 1024):
            self._pieces.append(piece)
            time.sleep(0.001)  # its pace: at most eight MB/s, and the server could do more
        os.close(self._descriptor)

    def text(self) -> str:
        """Return all that was written to the pipe, once the other end has closed it."""
        self._thread.join(SLOW)
        assert not self._thread.is_alive()
        return b"".join(self._pieces).decode("ascii")


@pytest.mark.timeout(300)
async def test_a_slow_pipe_holds_requests_up(certs: Certificates, tmp_path: Path) -> None:
    """Of a reader that pauses for five seconds, and is slow then, each line is read, once."""
    log = tmp_path / "pipe"
    reader = SlowReader(log)
    with serving(tmp_path, certs, log, OUTPUT) as server:
        # Both protocols are held up, and who comes meanwhile.
        two = asyncio.create_task(load(server, "-n", "40000", "-c", "8", "-m", "10"))
        one = asyncio.create_task(load(server, "--h1", "-n", "5000", "-c", "4", "-m", "1"))
        held_up = await load(server, "-D", "5", "-c", "2", "-m", "10")
        assert held_up.done <= (PIPE + 4 * BOUND) // SHORTEST
        assert not two.done()
        assert not one.done()
        before = server.resident()
        reader.begin()
        served, served1 = await two, await one
        assert server.resident() - before < GROWTH
        assert server.stop() == 0
    assert (served.good, served.done, served1.good, served1.done) == (True, 40_000, True, 5000)
    found = told(reader.text())
    assert not found.gaps
    assert found.written == list(range(1, opened(tmp_path) + 1))
    assert {line.version for line in found.lines} == {"h2", "1.1"}
