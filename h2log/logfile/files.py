"""The file that a log is written to: whole lines at its end, whatever happens to the file.

Its calls block, and are made from one thread at a time. The rules:

1. Every write begins and ends between lines. What a full disk took of a line is cut off again, so
   the file ends with a newline at all times but during a write; what a killed process left of one
   is ended when the log is opened next.
2. A file ends (rotates) before a line that it has no room for, or at the first write after its
   period: never inside of a line.
3. *Moved away by somebody else* (`logrotate`, `mv`): seen at a write, at most `CHECK` seconds
   later. Lines go on in a new file at the path; those before are whole where the file went.
4. *Deleted, or its folder*: the lines that were written after the deletion, if any, are in no file
   that has a name. They are read back and written again, first thing, in the new file.
5. *Copied and truncated*: each write goes to the end of the file as it is then.
6. While no new file can be made, an old one that still has a name is written to; rotation is tried
   again later. Only when there is no place at all does `write` raise.

A pipe, terminal or device is written to as it is (see `outlet`): nothing of the above applies, and
a line that it took a part of is gone on with before any other log of the process writes there.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from typing import Final

from h2log.clock import monotonic, wall
from h2log.logfile.outlet import Outlet
from h2log.logfile.place import Place, is_file
from h2log.logfile.rotation import Rotation

__all__ = ["CHECK", "STDERR", "STDOUT", "LogFile"]

_logger = logging.getLogger("h2log.log")

STDOUT: Final = "-"
STDERR: Final = "&2"
CHECK: Final = 0.1
"""Seconds between two looks at whether the path still names the open file (one `stat`)."""
_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 60.0
"""Seconds between two attempts at a rotation that fails; lines go on in the old file."""
_REOPEN_RETRY: Final = 2.0
_FOREVER: Final = float("inf")


class LogFile:
    """The log at `path`; `header` stands at the start of each file."""

    def __init__(
        self,
        path: str,
        rotation: Rotation | None = None,
        *,
        header: bytes = b"",
        mode: int | None = None,
        sync_rotated: bool = False,
    ) -> None:
        self.path = path
        self.header = header
        self.due = _FOREVER
        """When the file ends by time, in epoch seconds."""
        self.rotations = 0
        self.reopened = 0
        self.failures = 0
        """Attempts at a new file that failed, while the old one could still be written to."""
        self.cut = 0
        """Nothing ever is."""
        self.on_append: Callable[[int, int, int], None] | None = None
        """Called before each write with the file's descriptor, its size, and how many newlines come
        before the lines that `write` was given; less than 0 when none of those are written."""
        self._sync_rotated = sync_rotated
        self._standard = path in (STDOUT, STDERR)
        self._rotation = None if self._standard else rotation
        self._place = Place(path, self._rotation, mode)
        self._fd = -1
        self._regular = False
        self._outlet: Outlet | None = None  # of what is no regular file
        self._begun = 0.0
        self._safe = 0  # the file's size when it was last seen to have a name
        self._carry = b""  # lines of a deleted file, to be written again
        self._broken = False  # the file ends inside a line that could not be cut off
        self._checked = 0.0
        self._trouble = ""
        self._rotate_after = 0.0
        self._retry = _FIRST_RETRY
        self._last_modified = 0

    @property
    def current(self) -> str:
        """The name of the file that is written to."""
        return str(self._place.live)

    @property
    def descriptor(self) -> int:
        """The open file's descriptor, -1 when there is none."""
        return self._fd

    @property
    def regular(self) -> bool:
        """Whether a regular file is open."""
        return self._regular and self._fd >= 0

    @property
    def lost(self) -> bytes:
        """Lines that were written to a file that is deleted, and not yet written again."""
        return self._carry

    def open(self) -> None:
        """Open the log for appending, making its folder. Raises OSError."""
        if self._standard:
            stream = sys.stdout if self.path == STDOUT else sys.stderr
            if stream is None:  # closed, before we were started
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream.flush()
            self._fd = os.dup(stream.fileno())
            self._outlet = Outlet(self._fd, self.header)
            return
        self._take(self._place.open())
        if not self._regular:
            self._rotation, self.due = None, _FOREVER
            return
        if self._broken:  # what wrote it before us was killed
            self._safe += os.write(self._fd, b"\n")
            self._broken = False
        self._checked = monotonic()
        self._tidy()

    def write(self, data: bytes, offset: int) -> int:
        """Write some of `data` from `offset` on, and return how much. Raises OSError for nothing.

        `data` is whole lines. On a regular file what is written is too.
        """
        if self._fd < 0:
            self.open()
        if self._outlet is not None:
            return self._outlet.write(data, offset)
        self.tend()
        if not self._carry:
            return self._append(data, offset)
        carry, self._carry = self._carry, b""
        count = 0
        try:
            count = self._append(carry, 0, given=False)
        finally:  # what it was put into may be deleted too: that comes first then
            self._carry += carry[count:]
        return 0

    def tend(self, *, reopen: bool = False) -> None:
        """Do what is due without a line: look at the path, begin the next period's file."""
        if not self._regular:
            return
        now = monotonic()
        if reopen or now - self._checked >= CHECK or now < self._checked:
            self._checked = now
            self._check_path()
        if wall() >= self.due or (reopen and self._is_overfull()):
            self._rotate()

    def _is_overfull(self) -> bool:
        """Say whether others, who write to the file as well, have filled it beyond its limit."""
        limit = self._rotation.size if self._rotation is not None else None
        return limit is not None and os.fstat(self._fd).st_size > limit

    def sync(self) -> None:
        """Have the system put what was written on the disk."""
        if self._regular and self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file, and end what goes on in the background."""
        if self._fd >= 0:
            try:
                if self._regular:
                    self._rescue()
            finally:
                if self._outlet is not None:
                    self._outlet.end()
                    self._outlet = None
                os.close(self._fd)
                self._fd = -1
        if self._place.archive is not None:
            self._place.archive.stop()

    def _rescue(self) -> None:
        """Put what was last written to a deleted file into a new one, or else leave it as lost."""
        try:
            try:
                self._size()
            except OSError:
                self._carry = _tail(self._fd, self._safe) + self._carry
                return
            while self._carry:
                self.write(b"", 0)
        except OSError:
            pass

    # Writing

    def _append(self, data: bytes, offset: int, *, given: bool = True) -> int:
        """Append whole lines of `data` to the file; return how many bytes of it.

        `given` says that they are what `write` was given.
        """
        size = self._size()
        end = self._room(data, offset, size)
        if end == offset and data:
            self._rotate()
            size = self._size()
            # A line longer than the limit has a file of its own; when there can be no new file,
            # `_room` gives all there is to this one.
            end = max(self._room(data, offset, size), _line_end(data, offset))
        before = b"" if size else self.header
        if self._broken:
            before = b"\n" + before
        piece = before + data[offset:end]
        if self.on_append is not None:
            self.on_append(self._fd, size, before.count(b"\n") if given else -1)
        done = 0
        try:
            while done < len(piece):
                done += os.write(self._fd, piece[done:] if done else piece)
        except OSError:
            self._broken = self._broken and not done
            done = self._cut_back(piece, done)
            if done <= len(before):
                raise
        else:
            self._broken = False
        try:
            self._after_write()
        except OSError:
            # No place for the lines of a deleted file yet; the next write tries again.
            self.failures += 1
        return done - len(before)

    def _size(self) -> int:
        """Return the size of a file that has a name: a new one when this was deleted."""
        status = os.fstat(self._fd)
        if not status.st_nlink:
            self._reopen()
            status = os.fstat(self._fd)
        self._safe = status.st_size
        return status.st_size

    def _after_write(self) -> None:
        """Notice a deletion at once: what was written meanwhile has to be written again."""
        status = os.fstat(self._fd)
        if status.st_nlink:
            self._safe = status.st_size
        else:
            self._reopen()

    def _room(self, data: bytes, offset: int, size: int) -> int:
        """Return up to where `data` fits into the file: the end of a line."""
        limit = self._rotation.size if self._rotation is not None else None
        if limit is None or monotonic() < self._rotate_after:
            return len(data)
        room = limit - (size or len(self.header))
        if room >= len(data) - offset:
            return len(data)
        if room <= 0:
            return offset
        return max(offset, data.rfind(b"\n", offset, offset + room) + 1)

    def _cut_back(self, piece: bytes, done: int) -> int:
        """Take the beginning of a line that has no end off the file; return what stays."""
        whole = piece.rfind(b"\n", 0, done) + 1
        if whole == done:
            return done
        try:
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size == at:  # and not somebody else's lines behind it
                os.ftruncate(self._fd, at - (done - whole))
                return whole
        except OSError:
            pass
        self._broken = True
        return whole

    # The file under the path

    def _take(self, descriptor: int) -> None:
        """Write to `descriptor` from now on; what a deleted file had last comes along."""
        old, self._fd = self._fd, descriptor
        status = os.fstat(descriptor)
        self._regular = stat.S_ISREG(status.st_mode)
        self._safe = status.st_size
        self._begun = status.st_mtime if status.st_size else wall()
        self.due = _FOREVER
        if self._rotation is not None and self._regular:
            self.due = self._rotation.ends(self._begun)
        self._broken = self._regular and _ends_inside_a_line(descriptor)
        self._outlet = None if self._regular else Outlet(descriptor, self.header)
        if old >= 0:
            os.close(old)

    def _check_path(self) -> None:
        """See whether the path still names the open file; if not, open what it names, or make it.

        Raises OSError when the open file has no name any more and no other can be made.
        """
        mine = os.fstat(self._fd)
        if self._place.holds(mine):
            self._recovered("open")
            return
        try:
            self._reopen()
        except OSError as error:
            if not mine.st_nlink:
                raise
            self._checked = monotonic() + _REOPEN_RETRY - CHECK
            self._failed("open", error)

    def _reopen(self) -> None:
        """Open the path anew. Raises OSError; the file is as it was then."""
        mine = os.fstat(self._fd)
        descriptor = self._place.open_again(mine)
        if descriptor is not None:
            carry = b"" if mine.st_nlink else _tail(self._fd, self._safe)
            if self._sync_rotated:
                with contextlib.suppress(OSError):
                    os.fsync(self._fd)
            self._take(descriptor)
            self._carry = carry + self._carry
            self._rotate_after = 0.0
            self.reopened += 1
        self._recovered("open")

    # Rotation

    def _rotate(self) -> None:
        """End the file and begin the next; if that cannot be, go on in this one for a while."""
        rotation = self._rotation
        assert rotation is not None
        if monotonic() < self._rotate_after:
            return
        try:
            mine = os.fstat(self._fd)
            if not is_file(self._place.live, mine):  # moved away already: that was its end
                self._reopen()
                return
            if not mine.st_size and (not self._place.linked or wall() < self.due):
                self._begun = wall()
                self.due = rotation.ends(self._begun)
                return
            # The followers and the retention go by the time of the last change.
            if mine.st_size and mine.st_mtime_ns <= self._last_modified:
                with contextlib.suppress(OSError):
                    os.utime(self._fd, ns=(mine.st_atime_ns, self._last_modified + 1))
            if self._sync_rotated:
                os.fsync(self._fd)
            self._last_modified = max(self._last_modified + 1, mine.st_mtime_ns)
            period = rotation.period(self._begun)
            self._take(self._place.succeed(period, empty=not mine.st_size))
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._left():
                return
            self._rotate_after = monotonic() + self._retry
            self._retry = min(self._retry * 2, _LAST_RETRY)
            self._failed("rotate", error)
            return
        self._retry = _FIRST_RETRY
        self._rotate_after = 0.0
        self.rotations += 1
        self._recovered("open", "rotate")
        self._tidy()

    def _left(self) -> bool:
        """Begin a new file if somebody moved this one away just now: that was its end."""
        try:
            if is_file(self._place.live, os.fstat(self._fd)):
                return False
            self._reopen()
        except OSError:
            return False
        return True

    def _tidy(self) -> None:
        if self._place.archive is not None and self._rotation is not None:
            self._place.archive.kick()

    def _failed(self, what: str, error: OSError) -> None:
        """Count and, the first time, tell of what keeps a new file from being made."""
        self.failures += 1
        if not self._trouble:
            self._trouble = what
            _logger.error(
                "cannot %s %s: %s; lines go on in the file that is open",
                what,
                self.path,
                error.strerror or error,
            )

    def _recovered(self, *what: str) -> None:
        if self._trouble in what:
            _logger.warning("can %s %s again", self._trouble, self.path)
            self._trouble = ""


def _line_end(data: bytes, offset: int) -> int:
    return data.find(b"\n", offset) + 1 or len(data)


def _tail(descriptor: int, begin: int) -> bytes:
    """Return what a file has from `begin` on, as far as it can be read."""
    pieces: list[bytes] = []
    with contextlib.suppress(OSError):
        while piece := os.pread(descriptor, 1024 * 1024, begin):
            pieces.append(piece)
            begin += len(piece)
    return b"".join(pieces)


def _ends_inside_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    if not size:
        return False
    try:
        return os.pread(descriptor, 1, size - 1) != b"\n"
    except OSError:  # opened for writing only: an empty line does no harm
        return True
