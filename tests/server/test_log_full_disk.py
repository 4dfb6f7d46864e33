"""A disk that is full for five seconds under load: all is served, what is not written is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.loads import answered, load, opened, serving, told
from tests.support import eventually, fill

BOUND = 64 * 1024
GROWTH = 32 * 1024 * 1024
"""Bytes by which the server may grow, of the hundred million and more that it cannot write."""
FULL_DISK, FULL_BUFFER = "No space left on device", "the buffer is full"
RETRY = 60.0
"""Seconds within which it has noticed that there is room again; it looks every five."""


def ends_with_a_line(log: Path) -> bool:
    """Return whether the last line of a file is whole."""
    return log.exists() and log.read_bytes()[-1:] in (b"", b"\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rotate", ["", 'rotate = { size = "256KB" }'], ids=["plain", "rotated"])
async def test_all_is_served_and_every_request_is_written_or_named(
    certs: Certificates, tmp_path: Path, disk: Path, rotate: str
) -> None:
    """Lines, and the numbers in notes, are together the numbers of all requests, each once."""
    logs = disk / "logs"
    log = logs / "access.log"
    output = f'format = "h2log-full"\nmax_buffer = {BOUND}\n{rotate}'
    with serving(tmp_path, certs, log, output) as server:
        loads = [await load(server, "-n", "5000", "-c", "10", "-m", "10")]
        before = server.resident()
        stuffing = fill(disk, 512 * 1024)
        # One client asks all the time: while there is room, while there is none, and after.
        always = asyncio.create_task(load(server, "-D", "9", "-c", "1", "-m", "1"))
        loads.append(await load(server, "-D", "5", "-c", "8", "-m", "10"))
        server.stderr.wait(lambda line: f"cannot write to {log}: {FULL_DISK}" in line)
        assert server.resident() - before < GROWTH
        await eventually(lambda: ends_with_a_line(log))  # but for the moment of an attempt
        stuffing.unlink()
        await asyncio.to_thread(
            server.stderr.wait, lambda line: f"writing to {log} again" in line, RETRY
        )
        loads.append(await load(server, "-n", "5000", "-c", "10", "-m", "10"))
        loads.append(await always)
        assert server.stop() == 0
    assert [(found.good, found.failed) for found in loads] == [(True, 0)] * 4
    parts = [told(path.read_text("ascii")) for path in logs.iterdir()]
    gaps = [gap for part in parts for gap in part.gaps]
    written = sorted(n for part in parts for n in part.written)
    dropped = [n for part in parts for n in part.dropped]
    count = opened(tmp_path)
    assert len(written) + len(dropped) == count >= sum(found.done for found in loads)
    assert sorted(written + dropped) == list(range(1, count + 1))
    assert sum(answered(part.lines) for part in parts) > 0
    # So small a buffer is full also when a burst of requests comes to a disk that has room.
    assert gaps, "the bound was never reached"
    assert {gap.reason for gap in gaps} <= {FULL_DISK, FULL_BUFFER}
    # Lines stand before and after what is missing most.
    outage = max(gaps, key=lambda gap: gap.last - gap.first)
    assert written[0] < outage.first < outage.last < written[-1]
