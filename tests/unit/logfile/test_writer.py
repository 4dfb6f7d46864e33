"""The writer of the log while all is well: every line, whole, in order, in few writes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from h2log.access.formats import h2log_format
from h2log.access.lines import parse
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.errors import UsageError
from h2log.logfile.writer import LogWriter
from tests.support import eventually


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


def paths(log: Path) -> list[str]:
    """Return the path of each line; every line is whole."""
    data = log.read_bytes()
    assert not data or data.endswith(b"\n")
    return [parse(line).path for line in data.decode("ascii").splitlines()]


def write_calls() -> int:
    """Return how many write calls this process has made."""
    text = Path("/proc/self/io").read_text()
    return int(text.partition("syscw:")[2].split()[0])


async def test_lines_stand_in_the_order_they_came(tmp_path: Path) -> None:
    """Ten thousand, with turns of the loop between them, each once and whole."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), h2log_format(), 0.001)
    await writer.open()
    for n in range(10_000):
        writer.put(record(f"/{n}"))
        if n % 97 == 0:
            await asyncio.sleep(0)
    await writer.close()
    assert paths(log) == [f"/{n}" for n in range(10_000)]
    assert (writer.written, writer.dropped, writer.stuck) == (10_000, 0, False)


async def test_lines_are_written_in_batches(tmp_path: Path) -> None:
    """Ten thousand lines take far fewer than ten thousand writes."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), h2log_format(), 0.05)
    await writer.open()
    before = write_calls()
    for n in range(10_000):
        writer.put(record(f"/{n}"))
        if n % 64 == 0:
            await asyncio.sleep(0)
    await writer.close()
    assert write_calls() - before < 500
    assert len(paths(log)) == 10_000


async def test_a_single_line_does_not_wait_for_ever(tmp_path: Path) -> None:
    """It is written after the flush interval, without another request and without a close."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(str(tmp_path / "pipe"), h2log_format(), 0.01)
    await writer.open()
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(reader, lambda: pieces.put_nowait(os.read(reader, 65536)))
    try:
        for n in range(3):
            writer.put(record(f"/{n}"))
            async with asyncio.timeout(5):
                piece = await pieces.get()
            assert parse(piece.decode().removesuffix("\n")).path == f"/{n}"
    finally:
        loop.remove_reader(reader)
        await writer.close()
        os.close(reader)


async def test_flush_does_not_wait_for_company(tmp_path: Path) -> None:
    """What was put is on its way at once, however long lines may wait."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), h2log_format(), 3600)
    await writer.open()
    writer.put(record("/a"))
    await writer.flush()
    await eventually(lambda: writer.written == 1)
    assert paths(log) == ["/a"]
    await writer.close()


async def test_close_writes_what_is_left(tmp_path: Path) -> None:
    """However long a line may wait, and however few there are; a second close does nothing."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), h2log_format(), 3600)
    await writer.open()
    for n in range(65):
        writer.put(record(f"/{n}"))
    assert writer.written == 0
    await writer.close()
    assert paths(log) == [f"/{n}" for n in range(65)]
    assert writer.written == 65
    await writer.close()


async def test_nothing_is_nothing(tmp_path: Path) -> None:
    """A log of no requests is an empty file; a writer that was not opened closes."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), h2log_format())
    await writer.close()
    await writer.open()
    await writer.close()
    assert log.read_bytes() == b""


async def test_a_log_is_appended_to(tmp_path: Path) -> None:
    """A second start keeps what the first has written; missing folders are made."""
    log = tmp_path / "a" / "b" / "access.log"
    for n in range(2):
        writer = LogWriter(str(log), h2log_format())
        await writer.open()
        writer.put(record(f"/{n}"))
        await writer.close()
    assert paths(log) == ["/0", "/1"]


async def test_a_torn_last_line_is_ended(tmp_path: Path) -> None:
    """After a crash in the middle of a line, the next line does not become a part of it."""
    log = tmp_path / "access.log"
    log.write_bytes(b"2026-11-20T13:31:59.12")
    writer = LogWriter(str(log), h2log_format())
    await writer.open()
    writer.put(record("/a"))
    await writer.close()
    assert parse(log.read_text().splitlines()[-1]).path == "/a"


async def test_two_writers_share_a_file(tmp_path: Path) -> None:
    """Appended batches of two processes never tear each other's lines."""
    log = tmp_path / "access.log"
    writers = [LogWriter(str(log), h2log_format(), 0.001) for _ in range(2)]
    for writer in writers:
        await writer.open()
    for n in range(2000):
        for name, writer in zip("ab", writers, strict=True):
            writer.put(record(f"/{name}/{n}"))
        if n % 50 == 0:
            await asyncio.sleep(0)
    for writer in writers:
        await writer.close()
    found = paths(log)
    assert len(found) == 4000
    for name in "ab":
        mine = [path for path in found if path.startswith(f"/{name}/")]
        assert mine == [f"/{name}/{n}" for n in range(2000)]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "Is a directory"),
        ("file/access.log", "Not a directory"),
        ("file/a/b/access.log", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("", "No such file or directory"),
    ],
)
async def test_what_cannot_be_opened_is_a_usage_error(
    tmp_path: Path, path: str, reason: str
) -> None:
    """The line names the path, the true reason and the remedy."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    full = str(tmp_path / path) if path else ""
    with pytest.raises(UsageError) as caught:
        await LogWriter(full, h2log_format()).open()
    text = str(caught.value)
    assert text.startswith(f"cannot open the access log {full}: {reason}")
    assert "--access-log" in text
