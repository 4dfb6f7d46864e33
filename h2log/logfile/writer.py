"""The one writer of a log: finished records in, whole lines in the file.

Records are formatted in batches; the text gathers in memory and is appended by one task, a write
at a time, when enough has gathered or the oldest line has waited `flush_interval`. The file is
opened before the server listens. When it fails later, serving goes on: lines are kept up to
`max_buffer`, then counted as dropped, and the writer tries again, waiting longer each time; the
count stands in the log as a line of its own as soon as one can be written:

    #dropped lines=1234 since=2026-11-20T13:31:59+00:00 reason="No space left on device"

No request can forge such a line, since a request's begins with its timestamp.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import sys
from collections import deque
from pathlib import Path
from typing import Any, Final

import aiofiles
import aiofiles.os

from h2log.access.formats import Format
from h2log.access.record import AccessRecord
from h2log.clock import iso_second, wall
from h2log.errors import UsageError

__all__ = ["LogWriter"]

_logger = logging.getLogger("h2log.log")

STDOUT: Final = "-"
_BATCH: Final = 64
"""Records that are formatted at a time: some 60 microseconds of work."""
_BLOCK: Final = 64 * 1024
"""Bytes that are written without waiting for more (nginx's customary `buffer=64k`)."""
LAST_WORDS: Final = 5.0
"""Seconds that the last lines may take at the end."""
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 5.0


class LogWriter:
    """Writes records to `path` (`-` is standard output) in `line_format`.

    Use: `await open()`, then `put` for every record, from the loop's thread; `await close()` at
    the end. `written` and `dropped` count lines.
    """

    def __init__(
        self,
        path: str,
        line_format: Format,
        flush_interval: float = 0.1,
        max_buffer: int = 64 * 1024 * 1024,
    ) -> None:
        self.path = path
        self._format = line_format
        self._interval = flush_interval
        self._max_buffer = max_buffer
        self._records: list[AccessRecord] = []
        self._blocks: deque[bytes] = deque()  # formatted, whole lines each
        self._buffered = 0  # bytes in _blocks
        self._partial = b""  # what is being written: its rest goes first after a failure
        self._partial_is_note = False
        self._torn = 0  # bytes in the file after its last newline
        self._file: Any = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._failing = False
        self._unreported = 0  # dropped lines that the log does not tell of yet
        self._reporting = 0  # those of the report that is being written
        self._dropped_since = 0
        self._reason = ""
        self.stuck = False
        self.written = 0
        self.dropped = 0

    async def open(self) -> None:
        """Open the file for appending, making its folder. Raises UsageError when it cannot be."""
        try:
            if self.path != STDOUT:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            await self._open_file()
        except FileExistsError:  # of mkdir: a part of the path is a file
            raise UsageError(
                f"cannot open the access log {self.path}: Not a directory; "
                "choose another with --access-log, or - for standard output"
            ) from None
        except OSError as error:
            raise UsageError(
                f"cannot open the access log {self.path}: {error.strerror or error}; "
                "choose another with --access-log, or - for standard output"
            ) from None
        self._task = asyncio.create_task(self._run(), name="h2log-log-writer")

    async def _open_file(self) -> None:
        if self.path == STDOUT:
            sys.stdout.flush()
            self._file = await aiofiles.open(sys.stdout.fileno(), "ab", buffering=0, closefd=False)
        else:
            self._file = await aiofiles.open(self.path, "ab", buffering=0)
            if await _ends_inside_a_line(self.path):  # what wrote it before us was killed
                await self._file.write(b"\n")

    # The request's side: never waits

    def put(self, record: AccessRecord) -> None:
        """Take a finished record."""
        records = self._records
        records.append(record)
        if len(records) >= _BATCH:
            self._format_records()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)

    def _due(self) -> None:
        self._timer = None
        self._format_records()
        if self._blocks:
            self._wake.set()

    def _format_records(self) -> None:
        """Turn the records that wait into one block of lines."""
        records = self._records
        if not records:
            return
        line = self._format
        block = "".join([line(record) for record in records]).encode()
        count = len(records)
        records.clear()
        if self._buffered + len(block) > self._max_buffer:
            if not self._unreported:
                self._dropped_since = int(wall())
            self._unreported += count
            self.dropped += count
            return
        self._blocks.append(block)
        self._buffered += len(block)
        if self._buffered >= _BLOCK:
            self._wake.set()
        elif self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._due)

    # The writer's side

    async def _run(self) -> None:
        retry = _FIRST_RETRY
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._write_all()
            except OSError as error:
                self._failed(error)
                if self._closing:
                    return
                await self._pause(retry)
                retry = min(retry * 2, _LAST_RETRY)
                self._wake.set()
            else:
                if self._failing:
                    self._failing = False
                    _logger.warning("writing to %s again", self.path)
                retry = _FIRST_RETRY
                if self._closing and not (self._records or self._blocks):
                    return

    async def _pause(self, seconds: float) -> None:
        """Wait before a retry; `close` cuts it short."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._closing:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)
            self._wake.clear()

    async def _write_all(self) -> None:
        """Write what is buffered, in the order it came. Raises OSError; nothing is lost then."""
        if self._file is None:
            await self._open_file()
        while self._partial or self._blocks or self._unreported:
            if not self._partial:
                self._next_block()
            count = await self._file.write(self._partial)
            if count is None:  # a pipe that does not block is full
                await _writable(self._file.fileno())
                continue
            newline = self._partial.rfind(b"\n", 0, count)
            self._torn = self._torn + count if newline < 0 else count - newline - 1
            # A disk that fills up takes a part; the rest of the line follows on this file.
            if not self._partial_is_note:
                self.written += self._partial.count(b"\n", 0, count)
            self._partial = self._partial[count:]

    def _next_block(self) -> None:
        """Take some blocks of what is buffered; a report of drops comes after what was kept."""
        self._partial_is_note = not self._blocks
        if self._partial_is_note:
            reason = self._reason.replace("\\", "\\\\").replace('"', '\\"')
            self._partial = (
                f"#dropped lines={self._unreported} "
                f'since={iso_second(self._dropped_since)}+00:00 reason="{reason}"\n'
            ).encode()
            self._reporting, self._unreported = self._unreported, 0
            return
        taken: list[bytes] = []
        size = 0
        while self._blocks and size < _BLOCK * 4:
            block = self._blocks.popleft()
            size += len(block)
            taken.append(block)
        self._buffered -= size
        self._partial = b"".join(taken)

    def _failed(self, error: OSError) -> None:
        self._reason = error.strerror or str(error)
        if not self._failing:
            self._failing = True
            _logger.error(
                "cannot write to %s: %s; serving goes on, lines are kept up to %d bytes",
                self.path,
                self._reason,
                self._max_buffer,
            )

    async def flush(self) -> None:
        """Hand every record put so far to the writer; returns when it has been told."""
        self._format_records()
        self._wake.set()

    async def close(self) -> None:
        """Write what is left, once, and close the file; what cannot be written is counted.

        A pipe whose reader has stopped reading would hold a write for ever: after `LAST_WORDS`
        seconds it is given up, and `stuck` is set, since its thread cannot be ended.
        """
        if self._task is None:
            return
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._format_records()
        self._wake.set()
        done, _ = await asyncio.wait((self._task,), timeout=LAST_WORDS)
        if not done:
            self.stuck = True
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._task = None
        waiting = list(self._blocks)
        if not self._partial_is_note:
            waiting.append(self._partial)
        elif self._partial:
            self._unreported += self._reporting
        lost = sum(block.count(b"\n") for block in waiting)
        self.dropped += lost
        if lost or self._unreported:
            _logger.error("%d lines could not be written to %s", lost + self._unreported, self.path)
        if self._file is not None and not self.stuck:
            with contextlib.suppress(OSError):
                if self._torn:
                    await _cut(self._file.fileno(), self._torn)
                await self._file.close()
            self._file = None


async def _writable(descriptor: int) -> None:
    """Return when a pipe that does not block takes something again."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(descriptor, tell)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


@aiofiles.os.wrap
def _ends_inside_a_line(path: str) -> bool:
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


@aiofiles.os.wrap
def _cut(descriptor: int, size: int) -> None:
    """Take the last `size` bytes off a regular file: the beginning of a line that has no end."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        os.ftruncate(descriptor, found.st_size - size)
