"""Records that are numbers, the lines they make, and what is read back of a folder of logs."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import zstandard

from h2log.logfile.writer import LogWriter

LINE = re.compile(rb"([0-9]+) ([a-z]{40})\n")
NOTE = re.compile(
    rb'#dropped lines=([0-9]+) seq=([0-9]+)-([0-9]+) since=[-0-9T:]+\+00:00 reason="(.*)"\n'
)
TEXT = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"


class Record:
    """Anything that can have a number."""

    __slots__ = ("sequence",)

    sequence: int


def line(record: Record) -> str:
    """Return the number, and what shows whether the line is whole."""
    return f"{record.sequence} {TEXT}\n"


async def put_many(writer: LogWriter, count: int, turn: int = 64) -> None:
    """Put records, letting the writer have its turns."""
    for n in range(count):
        writer.put(Record())
        if n % turn == 0:
            await asyncio.sleep(0)


async def written(writer: LogWriter) -> None:
    """Wait until all that was put is in files, or counted."""
    writer.flush_soon()
    async with asyncio.timeout(20):
        while writer.health().queued_lines:
            await asyncio.sleep(0.001)


def content(path: Path) -> bytes:
    """Return what is in a file of the log, also in a compressed one."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read()
    return data


def numbers(data: bytes) -> list[int]:
    """Return the numbers of the lines; every line is whole, notes are left out."""
    found = []
    for part in data.splitlines(keepends=True):
        if NOTE.fullmatch(part):
            continue
        match = LINE.fullmatch(part)
        assert match is not None and match[2] == TEXT.encode(), part[-100:]
        found.append(int(match[1]))
    return found


def missing(data: bytes) -> list[int]:
    """Return the numbers that notes name."""
    found: list[int] = []
    for part in data.splitlines(keepends=True):
        if note := NOTE.fullmatch(part):
            gap = range(int(note[2]), int(note[3]) + 1)
            assert len(gap) == int(note[1])
            found.extend(gap)
    return found


def files(folder: Path) -> list[Path]:
    """Return every log below a folder; nothing hidden may be left."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in found if path.name.startswith(".")]
    return found


def everything(folder: Path) -> bytes:
    """Return what is in all logs below a folder."""
    return b"".join(content(path) for path in files(folder))
