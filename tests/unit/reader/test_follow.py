"""Following a log file: each line once, in order, whole, whatever is done to the file."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from h2log.errors import UsageError
from h2log.reader.follow import BLOCK, MAX_LINE, Follower, follow, last_lines, stored_lines

DEADLINE = 60.0


def numbered(first: int, last: int) -> list[bytes]:
    """Return the lines `line first` to `line last`."""
    return [b"line %d\n" % number for number in range(first, last + 1)]


def append(path: Path, *lines: bytes) -> None:
    """Append to a file that may not be there."""
    with path.open("ab") as file:
        file.write(b"".join(lines))


def read_all(follower: Follower) -> list[bytes]:
    """Return everything that there is to read now."""
    lines: list[bytes] = []
    while batch := follower.read():
        lines += batch
    return lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of a log with twenty lines."""
    path = tmp_path / "access.log"
    append(path, *numbered(1, 20))
    return path


# The end of a file


@pytest.mark.parametrize("n", [0, 1, 2, 19, 20, 21, 1000])
async def test_the_last_lines_are_the_last(log: Path, n: int) -> None:
    """The last n lines, fewer when there are not so many."""
    assert await last_lines(log, n) == numbered(max(1, 21 - n), 20)
    with Follower(log, n) as follower:
        assert read_all(follower) == numbered(max(1, 21 - n), 20)


async def test_an_unfinished_line_is_a_last_line_but_not_followed(log: Path) -> None:
    """What lacks its newline is shown as it is by a look, and kept until it is whole by follow."""
    append(log, b"half")
    assert await last_lines(log, 2) == [b"line 20\n", b"half"]
    assert await last_lines(log, 1) == [b"half"]
    assert await last_lines(log, 0) == []
    for n, before in ((0, []), (1, numbered(20, 20)), (100, numbered(1, 20))):
        with Follower(log, n) as follower:
            assert read_all(follower) == before


async def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    """An empty log is no error."""
    path = tmp_path / "access.log"
    path.touch()
    assert await last_lines(path, 10) == []
    with Follower(path) as follower:
        assert read_all(follower) == []
        append(path, b"first\n")
        assert read_all(follower) == [b"first\n"]


@pytest.mark.parametrize("width", [1, 100, BLOCK - 1, BLOCK, BLOCK + 1])
async def test_lines_are_found_across_blocks(tmp_path: Path, width: int) -> None:
    """Where a block begins or ends makes no difference to what is a line."""
    path = tmp_path / "access.log"
    lines = [bytes([65 + index]) * width + b"\n" for index in range(5)]
    append(path, *lines)
    for n in range(6):
        assert await last_lines(path, n) == lines[5 - n :]
        with Follower(path, n) as follower:
            assert read_all(follower) == lines[5 - n :]


async def test_a_huge_file_is_read_at_its_end_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten gigabytes before the last lines are never read."""
    path = tmp_path / "access.log"
    path.touch()
    os.truncate(path, 10 * 1024**3)
    append(path, b"\n", *numbered(1, 20))
    read = 0
    real = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = real(fd, length, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    assert await last_lines(path, 10) == numbered(11, 20)
    with Follower(path, 10) as follower:
        assert read_all(follower) == numbered(11, 20)
    assert 0 < read < 4 * BLOCK


async def test_a_file_without_newlines_is_searched_no_further_than_lines_go(
    tmp_path: Path,
) -> None:
    """Of one endless line only the end is shown: n lines of the longest that a line may be."""
    path = tmp_path / "access.log"
    path.touch()
    os.truncate(path, 10 * 1024**3)
    assert sum(map(len, await last_lines(path, 1))) <= 2 * MAX_LINE


def test_a_look_at_a_busy_file_ends(log: Path) -> None:
    """Lines appended while the last ones are read are not waited for."""
    seen = []
    for batch in stored_lines(log, 5):
        seen += batch
        append(log, b"later\n")
    assert seen == numbered(16, 20)


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE + 17])
def test_a_line_too_long_comes_in_pieces(tmp_path: Path, size: int) -> None:
    """A line beyond the bound is handed out in pieces, the last with its newline; none is lost."""
    path = tmp_path / "access.log"
    path.touch()
    with Follower(path) as follower:
        assert read_all(follower) == []
        append(path, b"before\n")
        append(path, b"x" * size)
        pieces = read_all(follower)
        append(path, b"\nafter\n")
        pieces += read_all(follower)
    assert b"".join(pieces) == b"before\n" + b"x" * size + b"\nafter\n"
    assert pieces[0] == b"before\n"
    assert pieces[-1] == b"after\n"
    assert all(len(piece) <= MAX_LINE + 1 for piece in pieces)
    assert [piece.endswith(b"\n") for piece in pieces[1:-2]] == [False] * (len(pieces) - 3)


# What has no log


@pytest.mark.parametrize("name", ["absent.log", "absent/access.log"])
async def test_a_missing_log_is_a_usage_error(tmp_path: Path, name: str) -> None:
    """A log that is not there yet is named, with what to do."""
    path = tmp_path / name
    message = f"no log at {path} yet; start the server"
    with pytest.raises(UsageError) as caught:
        await last_lines(path, 10)
    assert str(caught.value).startswith(message)
    with pytest.raises(UsageError) as caught:
        await anext(follow(path))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
async def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A folder or a FIFO is refused at once, and not waited for."""
    path = tmp_path / "access.log"
    make(path)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(UsageError, match=r"cannot read .*access\.log: not a regular file"):
            await last_lines(path, 10)
        with pytest.raises(UsageError, match="not a regular file"):
            await anext(follow(path))


async def test_a_negative_count_is_refused(log: Path) -> None:
    """There is no last minus first line."""
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        Follower(log, -1)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        await last_lines(log, -1)


def test_a_log_that_comes_later_is_read_from_its_first_line(tmp_path: Path) -> None:
    """With `wait` an absent log is waited for, and nothing of it is missed, even if rotated."""
    path = tmp_path / "access.log"
    with Follower(path, 1, wait=True) as follower:
        assert read_all(follower) == []
        append(path, *numbered(1, 5))
        path.rename(tmp_path / "access.log.1")
        append(path, *numbered(6, 9))
        assert read_all(follower) == numbered(1, 9)


# Appending


def test_half_a_line_is_kept_until_its_newline_comes(log: Path) -> None:
    """A line is handed out once it is whole."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        for piece in (b"a", b"b", b"c"):
            append(log, piece)
            assert read_all(follower) == []
        append(log, b"\nnext")
        assert read_all(follower) == [b"abc\n"]
        append(log, b"\n")
        assert read_all(follower) == [b"next\n"]


# Rotation


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(log: Path) -> None:
    """All between two looks: last lines, rename, and the first lines of the new file."""
    with Follower(log, 1) as follower:
        assert read_all(follower) == numbered(20, 20)
        append(log, *numbered(21, 25))
        log.rename(log.with_name("access.log.1"))
        append(log, *numbered(26, 30))
        assert read_all(follower) == numbered(21, 30)
        append(log, *numbered(31, 31))
        assert read_all(follower) == numbered(31, 31)


def test_a_writer_that_still_has_the_old_file_is_followed_there(log: Path) -> None:
    """Lines that come to the renamed file, before the new one has any, are not lost."""
    with Follower(log, 0) as follower, log.open("ab", buffering=0) as old:
        assert read_all(follower) == []
        log.rename(log.with_name("access.log.1"))
        old.write(b"line 21\n")
        assert read_all(follower) == numbered(21, 21)
        log.touch()  # a rotator makes the new file, and tells the writer afterwards
        assert read_all(follower) == []
        old.write(b"line 22\n")
        assert read_all(follower) == numbered(22, 22)
        old.write(b"line 23\n")
        append(log, b"line 24\n")
        assert read_all(follower) == numbered(23, 24)


def test_an_absent_file_is_waited_for(log: Path) -> None:
    """Between rename and new file nothing stands under the name; also when the old is deleted."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        log.unlink()
        assert read_all(follower) == []
        append(log, *numbered(21, 22))
        assert read_all(follower) == numbered(21, 22)
        log.unlink()
        append(log, *numbered(23, 24))  # as likely as not with the same inode
        assert read_all(follower) == numbered(23, 24)


def test_a_file_that_ended_in_half_a_line_does_not_run_into_the_next(log: Path) -> None:
    """The unfinished end of a file that was left is a line of its own."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        append(log, b"half")
        assert read_all(follower) == []
        log.rename(log.with_name("access.log.1"))
        assert read_all(follower) == []
        append(log, b"whole\n")
        assert read_all(follower) == [b"half\n", b"whole\n"]


def shifted(log: Path, _: int) -> None:
    """Rotate: `.1` becomes `.2` and so on, then the log becomes `.1`."""
    count = 1
    while log.with_name(f"{log.name}.{count}").exists():
        count += 1
    for number in range(count, 1, -1):
        log.with_name(f"{log.name}.{number - 1}").rename(log.with_name(f"{log.name}.{number}"))
    log.rename(log.with_name(f"{log.name}.1"))


def counted(log: Path, number: int) -> None:
    """Rotate: the log becomes `.8`, the next one `.9`, the next one `.10`."""
    log.rename(log.with_name(f"{log.name}.{number + 7}"))


def dated(log: Path, number: int) -> None:
    """Rotate: the log becomes `access-20261120T133159.log` with the second counted up."""
    log.rename(log.with_name(f"{log.stem}-20261120T{133100 + number}{log.suffix}"))


ROTATIONS = [shifted, counted, dated]


@pytest.mark.parametrize("rotate", ROTATIONS)
def test_several_rotations_between_two_looks_lose_nothing(
    log: Path, rotate: Callable[[Path, int], None]
) -> None:
    """Files that had the name only between two looks are found and read in order, once."""
    append(log.with_name("access.log.7"), b"older, and not to be read\n")
    append(log.with_name("access-debug.log"), b"another log\n")
    log.with_name("access.log.7").rename(log.with_name("access.log.1"))
    with Follower(log, 1) as follower:
        assert read_all(follower) == numbered(20, 20)
        number = itertools.count(1)
        line = 21
        for rotations in (1, 2, 3, 15):
            for _ in range(rotations):
                append(log, *numbered(line, line + 1))
                rotate(log, next(number))
                line += 2
            append(log, *numbered(line, line))
            append(log.with_name("access-debug.log"), b"another log\n")
            append(log.with_name("access.log.9.gz"), b"compressed\n")
            line += 1
            first = line - 1 - 2 * rotations
            assert read_all(follower) == numbered(first, line - 1)


def test_rotated_files_are_put_in_order_by_number_when_written_at_the_same_time(
    log: Path,
) -> None:
    """Files of one clock tick are ordered by name, in the direction in which names were given."""
    for rotate in (shifted, counted):
        for old in log.parent.glob("access*"):
            old.unlink()
        append(log, b"start\n")
        with Follower(log, 0) as follower:
            assert read_all(follower) == []
            for number in range(1, 6):
                append(log, *numbered(number, number))
                os.utime(log, ns=(10**18, 10**18))
                rotate(log, number)
            append(log, *numbered(6, 6))
            assert read_all(follower) == numbered(1, 6), rotate.__name__


@pytest.mark.parametrize("rotate", ROTATIONS)
def test_rotated_files_are_put_in_order_by_time_when_the_old_one_is_deleted(
    log: Path, rotate: Callable[[Path, int], None]
) -> None:
    """Without the file that was read, names do not say which way they run; times do."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        log.unlink()
        for number in range(1, 6):
            append(log, *numbered(number, number))
            os.utime(log, ns=(0, 10**18 + number))
            rotate(log, number)
        append(log, *numbered(6, 6))
        assert read_all(follower) == numbered(1, 6)


def test_a_line_in_pieces_ends_with_its_file(log: Path) -> None:
    """A line too long, in a file that is left, does not run into the next file's first line."""
    for size in (MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE):
        with Follower(log, 0) as follower:
            assert read_all(follower) == []
            append(log, b"x" * size)
            pieces = read_all(follower)
            log.rename(log.with_name("access.log.1"))
            append(log, b"whole\n")
            pieces += read_all(follower)
        assert b"".join(pieces) == b"x" * size + b"\nwhole\n"
        assert pieces[-1] == b"whole\n"


def test_a_new_file_that_may_not_be_read_is_a_usage_error(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor that cannot be opened ends the following with its name and the reason."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        log.rename(log.with_name("access.log.1"))
        append(log, b"secret\n")
        real = os.open

        def refusing(path: os.PathLike[str], flags: int) -> int:  # root may open anything
            if Path(path) == log:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, flags)

        monkeypatch.setattr(os, "open", refusing)
        with pytest.raises(UsageError, match=r"cannot read .*access\.log: Permission denied"):
            read_all(follower)
        monkeypatch.undo()
        assert read_all(follower) == [b"secret\n"]


# Copy and truncate


def test_a_truncated_file_is_read_from_its_start(log: Path) -> None:
    """Shorter than what was read: it begins anew, and the copy is not taken for a file between."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        log.with_name("access.log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
        assert read_all(follower) == []
        append(log, *numbered(21, 22))
        assert read_all(follower) == numbered(21, 22)
        log.rename(log.with_name("access.log.2"))
        append(log, *numbered(23, 24))
        assert read_all(follower) == numbered(23, 24)


@pytest.mark.parametrize("lines", [1, 12, 20, 500, 60_000])
def test_a_file_truncated_and_written_again_between_two_looks_is_noticed(
    log: Path, lines: int
) -> None:
    """However long it has grown again: what was read last does not stand there any more."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        os.truncate(log, 0)
        append(log, *numbered(1001, 1000 + lines))
        assert read_all(follower) == numbered(1001, 1000 + lines)


def test_half_a_line_before_a_truncation_is_a_line_of_its_own(log: Path) -> None:
    """What was read of a line that was cut off is handed out, and not mixed with the next."""
    with Follower(log, 0) as follower:
        assert read_all(follower) == []
        append(log, b"half")
        assert read_all(follower) == []
        os.truncate(log, 0)
        assert read_all(follower) == [b"half\n"]
        append(log, b"whole\n")
        assert read_all(follower) == [b"whole\n"]


# The asynchronous follower


async def take(lines: AsyncIterator[bytes], count: int) -> list[bytes]:
    """Return the next `count` lines."""
    async with asyncio.timeout(DEADLINE):
        return [await anext(lines) for _ in range(count)]


async def test_follow_yields_the_last_lines_and_then_what_comes(log: Path) -> None:
    """The last n, then each line that is appended, one at a time."""
    async with aclosing(follow(log, 3, 0.001)) as lines:
        assert await take(lines, 3) == numbered(18, 20)
        append(log, *numbered(21, 22))
        assert await take(lines, 2) == numbered(21, 22)


async def test_follow_does_not_hold_up_the_loop(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk does not answer, the loop serves others."""
    answered = threading.Event()
    real = os.pread

    def slow(fd: int, length: int, offset: int) -> bytes:
        assert answered.wait(DEADLINE), "the loop was blocked"
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", slow)
    lines = follow(log, 1, 0.001)
    first = asyncio.ensure_future(anext(lines))
    async with asyncio.timeout(DEADLINE):
        await asyncio.sleep(0)  # the reader is on its way to its thread
        assert not first.done()
        answered.set()
        assert await first == b"line 20\n"
    await lines.aclose()


async def test_a_cancelled_follower_closes_its_files(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling is clean at any point: every descriptor that was opened is closed."""
    opened: list[int] = []
    closed: list[int] = []
    real_open, real_close = os.open, os.close

    def opening(path: os.PathLike[str], flags: int) -> int:
        opened.append(real_open(path, flags))
        return opened[-1]

    def closing(fd: int) -> None:
        closed.append(fd)
        real_close(fd)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "close", closing)
    started = asyncio.Event()

    async def reader() -> None:
        async with aclosing(follow(log, 1, 0.001)) as lines:
            async for _ in lines:
                started.set()

    task = asyncio.create_task(reader())
    async with asyncio.timeout(DEADLINE):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert opened
    assert sorted(opened) == sorted(closed)


def test_a_closed_follower_reads_nothing(log: Path) -> None:
    """After close there are no lines, and closing again is no error."""
    follower = Follower(log, 5)
    assert follower.read()
    follower.close()
    append(log, b"more\n")
    assert follower.read() == []
    follower.close()


@pytest.mark.parametrize("poll", [0.001, 0.2])
@pytest.mark.parametrize("rotate", ROTATIONS)
async def test_a_burst_across_rotations_is_seen_once_and_in_order(
    tmp_path: Path, rotate: Callable[[Path, int], None], poll: float
) -> None:
    """50,000 lines, cut into writes at any byte, twenty renames: every line once, in order."""
    path = tmp_path / "access.log"
    append(path, b"start\n")
    expected = numbered(1, 50_000)

    def write() -> None:
        number = itertools.count(1)
        for chunk in range(0, 50_000, 2_500):
            data = b"".join(expected[chunk : chunk + 2_500])
            with path.open("ab", buffering=0) as file:
                for at in range(0, len(data), 777):
                    file.write(data[at : at + 777])
            rotate(path, next(number))
        append(path, b"end\n")

    async with aclosing(follow(path, 1, poll)) as lines:
        assert await take(lines, 1) == [b"start\n"]
        writer = asyncio.create_task(asyncio.to_thread(write))
        seen = await take(lines, 50_001)
        await writer
    assert seen[-1] == b"end\n"
    assert seen[:-1] == expected
