"""The writer of a log whose lines come from other processes, as blocks of text."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from h2log.clock import wall
from h2log.logfile.files import LogFile
from h2log.logfile.writer import LogWriter
from h2log.workers.marks import Entry, Mark

__all__ = ["AHEAD", "BlockWriter"]

AHEAD: Final = 1024 * 1024
"""Bytes that are taken from the workers ahead of their being written."""


class BlockWriter(LogWriter):
    """A `LogWriter` that takes whole lines; files, rotation, bound and notes are the same.

    `accepted` counts the lines and notes that are in the queue or were: those up to number N are
    written when `done` is N. Numbers of lines are each worker's own.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.accepted = 0
        self._told = 0  # notes that are written
        self._mark: Mark | None = None
        self._origins: deque[tuple[int, Entry]] = deque()  # of each block in the queue, with bytes

    def watched(self, mark: Mark) -> None:
        """Have `mark` know what is written."""
        self._mark = mark
        if isinstance(self._out, LogFile):
            self._out.on_append = mark.at

    @property
    def done(self) -> int:
        """How many lines and notes are written."""
        return self.written + self._told

    @property
    def closed(self) -> bool:
        """Whether nothing is written any more."""
        return self._closed

    @property
    def behind(self) -> bool:
        """Whether lines come faster than they are written, though nothing is wrong.

        Then they are better off where they come from: here they would be dropped at the bound, and
        what is written and not acknowledged when this process is killed comes again: it must be no
        more than the next one looks for at the file's end.
        """
        return not self._failing and self._queue.size > min(self._max_buffer // 2, AHEAD)

    def put(self, record: Any) -> None:
        """Take a text of one or more lines, of this process's own."""
        text = record if record.endswith("\n") else f"{record}\n"
        block = text.encode("utf-8", "backslashreplace")
        self.take_lines(block, block.count(b"\n"))

    def take_lines(
        self,
        block: bytes,
        lines: int,
        first: int = 0,
        last: int = 0,
        worker: int = 0,
        turn: tuple[int, int] = (0, 0),
        upto: int = 0,
    ) -> None:
        """Take whole lines, numbers `first` to `last` of `worker`; drop and count them if full.

        `turn` is a worker and which of its turns brings them, 0 for what it cannot bring again.
        With them `upto` of its lines are accounted for; `last`, if nothing else is said.
        """
        queue = self._queue
        upto = upto or (last if worker else 0)
        if self._closed:
            self.miss(lines, first, last, worker, "the log is closed", upto=upto)
            return
        if queue.size and queue.size + len(block) > self.limit:
            reason = self._failing or "the buffer is full"
            self.miss(lines, first, last, worker, reason, upto=upto)
            return
        self._taken += lines
        self.accepted += lines
        queue.add(block)
        self._origins.append((len(block), (*turn, lines, upto)))
        if self._blocking and queue.size >= self._max_buffer:
            self.overloaded = True
        self._write_soon(queue.size >= self.enough)

    def miss(
        self,
        lines: int,
        first: int,
        last: int,
        worker: int,
        reason: str,
        kind: str = "dropped",
        upto: int = 0,
    ) -> None:
        """Count lines that are missing: a note will stand for them. `upto` as in `take_lines`."""
        self._taken += lines
        self.dropped += lines
        upto = upto or (last if worker else 0)
        self.accepted += self._queue.miss(lines, first, last, wall(), reason, kind, worker, upto)
        self._write_soon(True)

    def _next(self) -> bool:
        found = super()._next()
        if not found:
            if self._mark is not None:
                self._mark.batch([])
            return False
        entries: list[Entry] = []
        size = len(self._queue.data)
        if (note := self._queue.note) is not None:
            entries.append((note.worker, 0, 1, note.upto))
            size = 0
        while size > 0 and self._origins:
            length, entry = self._origins.popleft()
            size -= length
            if entries and entries[-1][:2] == entry[:2]:
                entry = (*entry[:2], entries.pop()[2] + entry[2], entry[3])
            entries.append(entry)
        if self._mark is not None:
            self._mark.batch(entries)
        return True

    def _wrote(self, lines: int) -> None:
        super()._wrote(lines)
        queue = self._queue
        if queue.note is not None:
            lines = int(queue.offset == len(queue.data))
            self._told += lines
        if self._mark is not None:
            self._mark.wrote(lines)

    def _write_soon(self, now: bool) -> None:
        if now:
            self._wake.set()
        elif self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)
