"""The request's side of a log's writer: records in, lines in a bounded queue; it never waits.

Records are formatted in batches, and the one who writes is woken when enough has gathered or the
oldest line has waited `flush_interval`. Beyond `max_buffer` lines are counted as dropped, and a
note stands in the log where they would (see `notes`); with `overload="block"` the server is told
before that (`overloaded`, `ready`). All of it runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal

from h2log.clock import monotonic, wall
from h2log.logfile.notes import LineFormat
from h2log.logfile.queue import Queue
from h2log.logfile.selection import Selection, Skip

__all__ = ["Intake", "Overload"]

_logger = logging.getLogger("h2log.log")

_BATCH: Final = 64
"""Records that are formatted at a time: some 60 microseconds of work."""
_BLOCK: Final = 64 * 1024
"""Bytes that are written without waiting for more (nginx's customary `buffer=64k`), or a quarter of
a smaller bound."""
_UNDER_WAY: Final = 64 * 1024 * 1024
"""Bytes of lines beyond twice the bound that a log which holds requests up still takes, for what
its connections have sent already: a read of 64 KiB can be thousands of requests."""
_BURST: Final = 4 * 1024 * 1024
"""Bytes that may be on their way to a healthy file, however small the bound is: a turn of the
thread takes some 20 ms under load, in which 30 MB/s of lines come to 600 KB."""
_STALL: Final = 0.25
"""Seconds of one write after which the destination is not healthy."""

_FULL: Final = "the buffer is full"

Overload = Literal["drop", "block"]


class Intake:
    """Takes the records of the log at `path`; see `LogWriter`, which writes what it has queued."""

    def __init__(
        self,
        path: str,
        line_format: LineFormat,
        flush_interval: float,
        max_buffer: int,
        overload: Overload,
        skip: Skip | None,
    ) -> None:
        self.path = path
        self.dropped = 0
        self.sequence = 0
        self.overloaded = False
        """The bound is reached and `overload` is `block`: await `ready` before reading on."""
        self._format = line_format
        self._selection = Selection(line_format, skip)
        self._interval = flush_interval
        self._max_buffer = max_buffer
        self.enough = min(_BLOCK, max_buffer // 4)
        """Bytes in the queue that are written without waiting for more."""
        self._blocking = overload == "block"
        # What was read before anybody waited is still answered, and requests under way finish.
        self._limit = max_buffer * 2 + _UNDER_WAY if self._blocking else max_buffer
        self._taken = 0
        self._records: list[Any] = []
        self._queue = Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()  # of who writes
        self._room = asyncio.Event()
        self._closing = False
        self._closed = False
        self._failing = ""
        self._busy_since: float | None = None  # a write that has not come to anything yet
        self._dropping = False
        self._dropped_at = 0.0

    def put(self, record: Any) -> None:
        """Take a finished record and give it its number."""
        self.sequence = number = self.sequence + 1
        try:
            record.sequence = number
        except AttributeError:  # what has no such attribute has no number
            pass
        records = self._records
        records.append(record)
        if len(records) >= _BATCH:
            self._format_records()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)

    def take(self, record: Any) -> None:
        """Take a finished record that has its number already, as those of a `LogFan` do."""
        records = self._records
        records.append(record)
        if len(records) >= _BATCH:
            self._format_records()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)

    def flush_soon(self) -> None:
        """Write every record put so far without waiting for more."""
        self._format_records()
        self._wake.set()

    async def flush(self) -> None:
        """Hand every record put so far to the writer; returns when it has been told."""
        self.flush_soon()

    async def ready(self) -> None:
        """Return when there is room for more lines: at once unless `overloaded`."""
        while self.overloaded:
            self._room.clear()
            await self._room.wait()

    def _due(self) -> None:
        self._timer = None
        self._format_records()
        if self._queue:
            self._wake.set()

    def _format_records(self) -> None:
        """Turn the records that wait into one block of lines."""
        records = self._records
        if not records:
            return
        self._records = []
        self._taken += len(records)
        if self._closed:
            self._drop(len(records), records, "the log is closed")
            return
        queue = self._queue
        limit = self.limit
        if queue.size >= limit:  # not worth the formatting
            self._drop(len(records), records, self._failing or _FULL)
            return
        for kept, block, failed in self._selection.lines(records):
            if failed:
                self._drop(1, kept, failed)
            elif queue.size and queue.size + len(block) > limit:
                self._drop(block.count(b"\n"), kept, self._failing or _FULL)
            else:
                queue.add(block)
        if self._blocking and queue.size >= self._max_buffer:
            self.overloaded = True
        if queue.size >= self.enough:
            self._wake.set()
        elif self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)

    @property
    def limit(self) -> int:
        """Bytes of lines that are taken at present: the bound counts when writing does not work."""
        if self._failing or self._blocking or self._limit >= _BURST:
            return self._limit
        since = self._busy_since
        if since is not None and monotonic() - since > _STALL:
            return self._limit
        return _BURST

    def _drop(self, lines: int, records: list[Any], reason: str) -> None:
        self.dropped += lines
        self._dropped_at = monotonic()
        if not self._dropping and not self._closed:
            self._dropping = True
            _logger.warning("%s: lines are dropped from now on, and counted: %s", self.path, reason)
        first, last = (getattr(record, "sequence", 0) for record in (records[0], records[-1]))
        self._queue.miss(lines, first, last, wall(), reason)
        if not self._failing:
            self._wake.set()
