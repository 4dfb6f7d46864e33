"""The end of a log file, and what comes after it, across rotations: each line once, in order.

A line is `bytes` with its newline, exactly as the file has it: what a pipe is handed on is then the
file's own bytes, and whoever wants text decides how to decode it (`access.lines` reads ASCII).

The rules, for a log that one writer appends to:

1. A line is handed out when its newline is there. What comes before the newline is kept.
2. A line longer than `MAX_LINE` comes in pieces of that size, the last one with the newline: a
   file without newlines must not fill the memory. So an item without a newline is such a piece.
3. *Rotated by rename*: the file stays open, and so its inode cannot be given to another. Once
   another file with something in it stands under the name, the writer has left the old one: then,
   and not before, the old one is read to its end and left. An empty successor proves nothing, for
   rotators make it before the writer knows.
4. *Rotated more than once between two looks*: the files in between are found beside the log by
   their names (`access.log.1`, `access-20261120.log`), as those that were not there before, and
   are read in order before the one that now has the name.
5. *Copied and truncated*: the file is shorter than what was read of it, or what was read last does
   not stand there any more (it grew past that place again): it is read from its start.
6. A file that was left, or truncated, in the middle of a line ends that line: what there is of it
   is handed out with a newline added, so that it does not run into the next file's first line.
7. A name under which nothing stands any more is waited for.

What no follower can give back: lines that a copy-and-truncate cut off before they were read, and
files that were deleted or compressed between two looks.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from h2log.errors import UsageError

__all__ = ["BLOCK", "MAX_LINE", "Follower", "follow", "last_lines", "stored_lines"]

BLOCK: Final = 256 * 1024
"""Bytes read at a time: a thread hop (~50 µs) is little against reading and cutting it."""

MAX_LINE: Final = 1024 * 1024
"""The longest line handed out in one piece; h2log's own are bounded by its header limits (32 KiB,
four times that when every byte is escaped)."""

_MARK: Final = 128
"""How many of the bytes read last are compared: with h2log's lines they hold a request id."""

_LOOKS: Final = 50
"""Attempts to see a folder that does not change meanwhile; each takes less than any rotation."""

_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".br")


class Follower:
    """A log file followed from its last `lines` lines on. Its calls block: see `follow`.

    Nothing is opened before the first `read`. With `wait` the file may be absent then, and is read
    from its first line when it comes. It may be closed from one thread while another reads.
    """

    def __init__(
        self, path: str | os.PathLike[str], lines: int = 10, *, wait: bool = False
    ) -> None:
        _check_count(lines)
        self._path = Path(path)
        self._lines = lines
        self._wait = wait
        self._lock = threading.Lock()  # of everything below: a closed descriptor may be another's
        self._opened = False
        self._closed = False
        self._file: _File | None = None
        self._next: deque[_File] = deque()  # the files after `_file`, already open
        self._known: set[tuple[int, int]] = set()  # rotated files that are not to be read (again)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; `read` then returns nothing. May be called twice."""
        with self._lock:
            self._closed = True
            for file in (self._file, *self._next):
                if file is not None:
                    file.close()
            self._file = None
            self._next.clear()

    def read(self) -> list[bytes]:
        """Return the next lines, at most about `BLOCK` bytes; none when there are none now.

        Raises UsageError when there is no file at first, or what has the name cannot be read.
        """
        with self._lock:
            if not self._opened and not self._closed:
                self._open()
                self._opened = True
            while not self._closed:
                if self._file is not None and (lines := self._read_on(self._file)):
                    return lines
                if self._next:
                    # Its end was reached after a successor was seen: nothing can come any more.
                    if lines := self._leave():
                        return lines
                elif not self._find_next():
                    break
            return []

    def _open(self) -> None:
        """Open the file that has the name, and learn which rotated ones are older than it."""
        for _ in range(_LOOKS):
            look = _look(self._path)
            if look is None:
                continue
            now, entries = look
            self._known = {entry.identity for entry in entries}
            if now is None:
                if not self._wait:
                    raise _no_log(self._path)
                return
            try:
                self._file = _File(self._path, now.st_ino)
            except FileNotFoundError:  # rotated since the look
                continue
            self._file.seek_last(self._lines, unfinished=False)
            return
        raise UsageError(f"cannot follow {self._path}: it is replaced faster than it can be opened")

    def _read_on(self, file: _File) -> list[bytes]:
        """Return the next lines of `file`; none means that its end was reached."""
        more = True
        while more:
            more = file.fill()
            if file.truncated:
                file.truncated = False
                # The copy that was made of it holds nothing new.
                self._known |= {entry.identity for entry in _rotated(self._path)}
            if lines := file.take():
                return lines
        return []

    def _leave(self) -> list[bytes]:
        """Go on to the next file; return what was left of the line that the old one ended in."""
        rest: list[bytes] = []
        if self._file is not None:
            rest = self._file.end()
            status = self._file.status()
            self._known.add((status.st_ino, status.st_mtime_ns))
            self._file.close()
        self._file = self._next.popleft()
        return rest

    def _find_next(self) -> bool:
        """Open the files after the current one, if any; return whether there are some."""
        here = self._file.status() if self._file is not None else None
        for _ in range(_LOOKS):
            if here is not None and _same(_stat(self._path), here):
                return False
            look = _look(self._path)
            if look is None:
                continue
            now, entries = look
            names = [
                (self._path.with_name(entry.name), entry.inode)
                for entry in self._between(entries, here, now)
            ]
            if now is not None and now.st_size:
                names.append((self._path, now.st_ino))
            try:
                for path, inode in names:
                    self._next.append(_File(path, inode))
            except (FileNotFoundError, UsageError) as error:
                while self._next:
                    self._next.pop().close()
                if isinstance(error, UsageError):
                    raise
                continue  # rotated since the look
            return bool(names)
        return False  # the next look comes with the next poll, and nothing was passed over

    def _between(
        self, entries: list[_Entry], here: os.stat_result | None, now: os.stat_result | None
    ) -> list[_Entry]:
        """Return the rotated files after the one that is `here` and before the one `now`."""
        ends = {status.st_ino for status in (here, now) if status is not None}
        found = {
            entry.inode: entry
            for entry in entries
            if entry.inode not in ends and entry.identity not in self._known
        }
        ordered = sorted(found.values(), key=_by_number)
        # Files whose last writes fell into one tick of the file system's clock are told apart by
        # their numbers, which run either way; where the current file went says which.
        mine = [entry for entry in entries if here is not None and entry.inode == here.st_ino]
        if ordered and mine and _by_number(mine[0]) > _by_number(ordered[-1]):
            ordered.reverse()
        return sorted(ordered, key=lambda entry: entry.modified)


async def follow(
    path: str | os.PathLike[str], n: int = 10, poll: float = 0.2, *, wait: bool = False
) -> AsyncGenerator[bytes, None]:
    """Yield the last `n` whole lines of `path` and then each that is appended, across rotations.

    Lines are bytes with their newline; the module says when one is without. `poll` is the time in
    seconds between two looks at a file that has nothing new. Files are read in a thread. Raises
    UsageError, at the first step, when there is no such file, unless `wait` is set.
    """
    follower = Follower(path, n, wait=wait)
    try:
        while True:
            lines = await asyncio.to_thread(follower.read)
            for line in lines:
                yield line
            if not lines:
                await asyncio.sleep(poll)
    finally:
        # In a thread, because a cancelled read may still hold the lock there.
        await asyncio.to_thread(follower.close)


def stored_lines(path: str | os.PathLike[str], n: int) -> Iterator[list[bytes]]:
    """Yield the last `n` lines that `path` has now, in batches. Blocks: see `last_lines`.

    An unfinished last line counts as one and comes without a newline. Only the end of the file is
    read. Raises UsageError, at the first step, when there is no such file.
    """
    _check_count(n)
    try:
        file = _File(Path(path))
    except FileNotFoundError:
        raise _no_log(Path(path)) from None
    try:
        file.seek_last(n, unfinished=True)
        end = file.status().st_size  # a busy writer must not keep the reader here for ever
        while n and file.fill(end):
            yield file.take()
        if n and (rest := file.rest()):
            yield [rest]
    finally:
        file.close()


async def last_lines(path: str | os.PathLike[str], n: int) -> list[bytes]:
    """Return the last `n` lines that `path` has now, read in a thread; see `stored_lines`."""
    return await asyncio.to_thread(
        lambda: [line for batch in stored_lines(path, n) for line in batch]
    )


class _File:
    """One open file, read forwards in blocks and cut into lines.

    With `inode`, a file that is not that one is FileNotFoundError: it was moved in between.
    """

    def __init__(self, path: Path, inode: int | None = None) -> None:
        try:
            # Without O_NONBLOCK a FIFO would be waited for before it could be refused.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        status = os.fstat(self._fd)
        if inode is not None and status.st_ino != inode:
            os.close(self._fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise UsageError(f"cannot read {path}: not a regular file; name a log file")
        self.truncated = False  # set here, cleared by the owner
        self._position = 0
        self._mark = b""  # the bytes that stand before the position
        self._rest = b""  # read, but not handed out yet

    def status(self) -> os.stat_result:
        """Return what the system says of the file now."""
        return os.fstat(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def seek_last(self, n: int, *, unfinished: bool) -> None:
        """Go to where the last `n` lines begin; `unfinished`: one without newline counts."""
        size = self.status().st_size
        wanted = n + 1  # newlines from the end: the last one ends line n
        if unfinished and size and os.pread(self._fd, 1, size - 1) != b"\n":
            wanted = n
        begin = size
        # The bound is for a file without newlines: `n` pieces of its end do for `n` lines.
        floor = max(0, size - (n + 1) * MAX_LINE)
        while begin > floor and wanted:
            end, begin = begin, max(floor, begin - BLOCK)
            data = os.pread(self._fd, end - begin, begin)
            count = data.count(b"\n")
            if count < wanted:
                wanted -= count
                continue
            at = len(data)
            for _ in range(wanted):
                at = data.rfind(b"\n", 0, at)
            begin += at + 1
            break
        self._position = begin
        mark = min(_MARK, begin)
        self._mark = os.pread(self._fd, mark, begin - mark)

    def fill(self, end: int | None = None) -> bool:
        """Read a block, up to the offset `end`; return whether there was anything."""
        if self.status().st_size == self._position:
            return False
        length = BLOCK if end is None else min(BLOCK, end - self._position)
        if length <= 0:
            return False
        back = len(self._mark)
        data = os.pread(self._fd, back + length, self._position - back)
        if data.startswith(self._mark):
            data = data[back:]
        else:  # the file is shorter now, or was, and has grown again
            self._restart()
            data = os.pread(self._fd, length, 0)
        self._position += len(data)
        self._mark = (self._mark + data)[-_MARK:]
        self._rest += data
        return bool(data)

    def take(self) -> list[bytes]:
        """Return the lines that are whole, and the pieces of one that is too long."""
        lines = []
        rest = self._rest
        while len(rest) > MAX_LINE and rest.find(b"\n", 0, MAX_LINE) < 0:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        *whole, self._rest = rest.split(b"\n")
        lines.extend([line + b"\n" for line in whole])
        return lines

    def rest(self) -> bytes:
        """Return and forget what there is of an unfinished line."""
        rest, self._rest = self._rest, b""
        return rest

    def end(self) -> list[bytes]:
        """Return what there is of an unfinished line, with the newline that will not come."""
        # Never empty after a piece was cut off: a piece is cut when there is more than it.
        rest = self.rest()
        return [rest + b"\n"] if rest else []

    def _restart(self) -> None:
        """Begin again at the start: the file was truncated."""
        self.truncated = True
        # Ended here and not handed out apart: `take` comes next, and finds a whole line.
        self._rest = b"".join(self.end())
        self._position = 0
        self._mark = b""


class _Entry(NamedTuple):
    """A rotated file beside the log."""

    name: str
    inode: int
    modified: int

    @property
    def identity(self) -> tuple[int, int]:
        """What stays when a file is renamed, and changes when its inode is used again."""
        return self.inode, self.modified


def _rotated(path: Path) -> list[_Entry]:
    """Return the files beside `path` with a number or date in its name, as rotators give it."""
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    names = re.compile(rf"{stem}{suffix}[._-][0-9].*|{stem}[._-][0-9].*{suffix}", re.DOTALL)
    found = []
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if names.fullmatch(entry.name) and not entry.name.endswith(_COMPRESSED):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:  # gone since; whoever needs it looks again
                        continue
                    if stat.S_ISREG(status.st_mode):
                        found.append(_Entry(entry.name, status.st_ino, status.st_mtime_ns))
    except OSError:  # a folder that may be passed through but not listed: one rotation at a time
        return []
    return found


def _look(path: Path) -> tuple[os.stat_result | None, list[_Entry]] | None:
    """Return what has the name and the rotated files beside it, as they were at one moment.

    The folder is read twice between two looks at the name: a folder that is read while files are
    renamed in it may show one twice or not at all. None when files were moved meanwhile.
    """
    now = _stat(path)
    entries = _rotated(path)
    same = _places(_rotated(path)) == _places(entries) and _same(_stat(path), now)
    return (now, entries) if same else None


def _places(entries: list[_Entry]) -> list[tuple[str, int]]:
    return sorted((entry.name, entry.inode) for entry in entries)


def _by_number(entry: _Entry) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: 9 before 10."""
    parts = re.split(r"([0-9]+)", entry.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _stat(path: Path) -> os.stat_result | None:
    """Return what stands under `path`, or None while nothing does."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Return whether both are the same file, or both are absent."""
    if one is None or other is None:
        return one is other
    return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)


def _check_count(n: int) -> None:
    if n < 0:
        raise ValueError(f"a number of lines must not be negative, got {n}")


def _no_log(path: Path) -> UsageError:
    return UsageError(f"no log at {path} yet; start the server, or name the file that it writes")
