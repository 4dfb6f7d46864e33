"""Rotation under load: whatever becomes of the files, every line stands in exactly one of them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from h2log.access import Line
from h2log.access.full import HEADER
from h2log.server.certificates import Certificates
from tests.logfile.numbered import files
from tests.server.loads import ARTICLE, Told, load, opened, serving, told
from tests.support import Process, eventually

REQUESTS, CLIENTS = 200_000, 10
LIMIT = 64 * 1024
SLOW = 100.0
"""Seconds for what takes three on a machine of its own."""


def number_of_lines(folder: Path, header: str) -> int:
    """Count the lines of requests in all files."""
    count = 0
    try:
        for path in folder.iterdir():
            if not path.is_symlink():
                data = path.read_bytes()
                count += data.count(b"\n") - data.startswith(header.encode() or b"\n")
    except FileNotFoundError:  # renamed meanwhile: the next look counts it
        return 0
    return count


async def move_away(log: Path, target: Path) -> None:
    """Rename the file that is written to, as soon as the path names one."""

    def moved() -> bool:
        try:
            os.rename(log.resolve(), target)
        except FileNotFoundError:  # it is being rotated at this moment
            return False
        return True

    await eventually(moved)


def has_lines(log: Path) -> bool:
    """Return whether the path names a file with lines."""
    try:
        return log.stat().st_size > 0
    except FileNotFoundError:
        return False


async def harass(server: Process, log: Path, running: asyncio.Task[object]) -> list[Path]:
    """Move the log away, with a signal and without, and signal for nothing, while it is written."""
    moved = [log.with_name(f"moved-{n}") for n in range(6)]
    for n, target in enumerate(moved):
        await eventually(lambda: has_lines(log), SLOW)
        await move_away(log, target)
        if n % 2:
            server.signal(signal.SIGUSR1)
        await eventually(lambda: has_lines(log), SLOW)
        if n % 3 == 0:
            server.signal(signal.SIGUSR1)
    assert not running.done(), "the load was over before the log had been moved away"
    return moved


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "header", "current"),
    [("h2log-full", HEADER, "file"), ("json", "", "symlink")],
)
async def test_every_line_is_in_one_file(
    certs: Certificates, tmp_path: Path, name: str, header: str, current: str
) -> None:
    """Each number once, in files that are whole; a file's are without a gap and in their order."""
    logs = tmp_path / "logs"
    log = logs / "access.log"
    # The bound is out of reach: here no line is dropped, however slow the disk is.
    output = (
        f'format = "{name}"\nmax_buffer = "1GB"\n'
        f'rotate = {{ every = "1s", size = {LIMIT}, current = "{current}", timezone = "utc" }}'
    )
    with serving(tmp_path, certs, log, output) as server:
        running = asyncio.create_task(
            load(server, "-n", str(REQUESTS), "-c", str(CLIENTS), "-m", "10")
        )
        moved = await harass(server, log, running)
        found = await running
        assert (found.good, found.done) == (True, REQUESTS)
        # To count takes a while, and an empty file shows that it may be worth it.
        await eventually(
            lambda: not has_lines(log) and number_of_lines(logs, header) >= REQUESTS, SLOW
        )
        # The second's end ends the last file too, though nobody asks for anything.
        await eventually(lambda: not has_lines(log))
        assert server.stop() == 0
        said = "\n".join(server.stderr.end())
    whole = {path: told(path.read_bytes().decode(), name) for path in files(logs)}
    whole = {path: part for path, part in whole.items() if part.lines}
    assert not any(part.gaps for part in whole.values())
    for part in whole.values():
        assert part.written == list(range(part.written[0], part.written[-1] + 1))
    numbers = sorted(n for part in whole.values() for n in part.written)
    assert numbers == list(range(1, REQUESTS + 1))
    assert opened(tmp_path) == REQUESTS
    check_lines([line for part in whole.values() for line in part.lines])
    check_files(whole, moved, said)
    shutil.rmtree(logs)  # some hundred MiB


def check_lines(lines: list[Line]) -> None:
    """Each is of one request of its own."""
    assert len({line.request for line in lines}) == REQUESTS
    assert len({line.session for line in lines}) == CLIENTS
    assert {(line.status, line.version, line.target) for line in lines} == {(200, "h2", ARTICLE)}


def check_files(whole: dict[Path, Told], moved: list[Path], said: str) -> None:
    """Files ended by their size, by the clock, and by somebody else."""
    assert any(path in whole for path in moved)  # some may have been new, and empty
    if "cannot rotate" not in said:  # it may be moved away in the middle of a rotation
        assert max(path.stat().st_size for path in whole) <= LIMIT
    ended = [path for path in whole if path not in moved]
    shape = re.compile(r"access-([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6})(?:\.([0-9]+))?\.log")
    names = [shape.fullmatch(path.name) for path in ended]
    periods = {match[1] for match in names if match is not None}
    assert None not in names
    assert len(ended) > len(periods) > 1
    # A file's name is of the time at which it began: never later than that of what follows it.
    by_first = sorted(ended, key=lambda path: whole[path].written[0])
    order = [match for match in map(shape.fullmatch, [path.name for path in by_first]) if match]
    assert all((a[1], int(a[2] or 0)) < (b[1], int(b[2] or 0)) for a, b in pairwise(order))
