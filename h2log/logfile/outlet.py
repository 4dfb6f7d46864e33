"""What is no regular file, a pipe, a terminal or a device: whole lines, whoever else writes there.

Several logs may have the same one: two on standard output, one there and another on standard error
after `2>&1`. Whoever has begun a line ends it before another begins his; this holds for all logs of
a process, however often a line is interrupted because the reader is slow.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from typing import Final

__all__ = ["Outlet"]

_PIECE: Final = getattr(select, "PIPE_BUF", 4096)
"""Bytes that one log writes before others have their turn, unless a line is longer: a pipe takes
them whole or not at all (pipe(7)), also from who is killed while he waits for its reader."""


class _Turn:
    """Whose turn it is to write to one output of the process."""

    __slots__ = ("__weakref__", "lock", "torn")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.torn = False
        """A line was begun there that nobody goes on with."""


_turns: Final[weakref.WeakValueDictionary[tuple[int, int], _Turn]] = weakref.WeakValueDictionary()
_registering: Final = threading.Lock()


def _turn_of(status: os.stat_result) -> _Turn:
    with _registering:
        return _turns.setdefault((status.st_dev, status.st_ino), _Turn())


class Outlet:
    """Writes one log's lines to an open descriptor, which stays its owner's."""

    def __init__(self, descriptor: int, header: bytes = b"") -> None:
        self._fd = descriptor
        self._header = header
        self._before = b""  # what comes before the next line: a header, the end of a torn line
        self._turn = _turn_of(os.fstat(descriptor))
        self._mine = False

    def write(self, data: bytes, offset: int) -> int:
        """Write some of the whole lines of `data` from `offset` on, and return how much.

        Waits while another log is inside a line. Raises OSError for nothing: after BlockingIOError
        the line may be gone on with, after any other its beginning is to be written again.
        """
        self._take_turn()
        end = data.rfind(b"\n", offset, offset + _PIECE) + 1 or data.find(b"\n", offset) + 1
        end = end or len(data)
        at = offset
        try:
            while self._before:
                self._before = self._before[os.write(self._fd, self._before) :]
            self._header = b""
            while at < end:
                at += os.write(self._fd, data[at:end])
        except BlockingIOError:
            if not self._inside(data, at):
                self._end_turn()
            if at == offset:
                raise
        except OSError as error:
            if at == offset:
                # After EPIPE, who had the line's beginning is gone.
                self._end_turn(torn=self._inside(data, at) and error.errno != errno.EPIPE)
                raise
        else:
            self._end_turn()
        return at - offset

    def end(self) -> None:
        """Let others write, also after the beginning of a line."""
        self._end_turn(torn=True)

    def _inside(self, data: bytes, at: int) -> bool:
        """Return whether something of a line was written, and not its end."""
        return bool(self._before) or (at > 0 and data[at - 1] != 0x0A)

    def _take_turn(self) -> None:
        if not self._mine:
            self._turn.lock.acquire()
            self._mine = True
            self._before = (b"\n" if self._turn.torn else b"") + self._header
            self._turn.torn = False

    def _end_turn(self, *, torn: bool = False) -> None:
        if self._mine:
            self._mine = False
            self._before = b""
            self._turn.torn = torn
            self._turn.lock.release()
