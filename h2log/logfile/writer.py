"""The one writer of a log: records in, whole lines out, and a count of all that is not.

What `intake` has queued is appended by one task, in a thread of its own. The destination, a file
or something else, is opened before the server listens. When it fails later, serving goes on: lines
are kept up to `max_buffer`, and the writer tries again, waiting longer each time.

Owners: `_write_chunk` and `_tend` run in the writer's thread, one at a time, while the task waits
for them; they alone touch `_out`, `written` and the numbers of the flushes. All else runs in the
loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Literal

import aiofiles.os

from h2log.clock import monotonic, wall
from h2log.errors import UsageError
from h2log.logfile.destination import Destination, destination
from h2log.logfile.files import STDERR, STDOUT, LogFile
from h2log.logfile.health import Health
from h2log.logfile.intake import Intake, Overload
from h2log.logfile.notes import LineFormat, as_line, note_line
from h2log.logfile.rotation import Rotation
from h2log.logfile.selection import Skip

__all__ = ["STDERR", "STDOUT", "Fsync", "LogWriter"]

_logger = logging.getLogger("h2log.log")

_CALM: Final = 5.0
"""Seconds without a lost line after which the trouble is over: a log that is at its bound loses
some and takes some by turns."""
LAST_WORDS: Final = 5.0
"""Seconds that the last lines may take at the end."""
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 5.0
_UNWRITTEN: Final = 256 * 1024
"""Bytes of the last lines that are still there after a close that could not write them."""
_LONGEST_SLEEP: Final = 600.0
"""Seconds after which the wall clock is looked at again: it may have been set."""

Fsync = float | Literal["never", "rotation"]


class LogWriter(Intake):
    """Writes records to `path`, a file or another `destination`, in `line_format`.

    Use: `await open()`, then `put` for every record, from the loop's thread; `await close()` at
    the end. `written` and `dropped` count lines, `sequence` is the number of the last record: each
    that is put has its own as its attribute `sequence`, if it can have one. Raises UsageError for
    a path that means nothing, or rules that are not for what it means.

    `max_buffer` bounds the lines that are kept while the destination fails or takes nothing; a
    healthy one may have `_BURST` bytes on their way however small it is.

    `fsync` is `never`, `rotation`, or a number of milliseconds after which a line of a file has to
    be on the disk; `skip` is a predicate of a record; `what` and `remedy` are for the message of a
    failed start.
    """

    def __init__(
        self,
        path: str,
        line_format: LineFormat,
        flush_interval: float = 0.1,
        max_buffer: int = 64 * 1024 * 1024,
        *,
        rotation: Rotation | None = None,
        overload: Overload = "drop",
        fsync: Fsync = "never",
        skip: Skip | None = None,
        file_mode: int | None = None,
        what: str = "access log",
        remedy: str = "choose another with --access-log, or - for standard output",
    ) -> None:
        super().__init__(path, line_format, flush_interval, max_buffer, overload, skip)
        self.stuck = False
        self.written = 0
        self.unwritten = b""
        """The last of the lines that `close` could not write."""
        self._sync_every = None if isinstance(fsync, str) else fsync / 1000
        self._what = what
        self._remedy = remedy
        self._out: Destination = destination(
            path,
            rotation,
            header=as_line(getattr(line_format, "header", None)),
            mode=file_mode,
            sync_rotated=fsync != "never",
            name=what,
        )
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._before: LogWriter | None = None  # in whose thread the file is opened
        self._alarm: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._reopen = False
        self._unsynced: float | None = None  # since when
        self._surprised = False
        self._waiting = False  # for a pipe to take something, with no thread at work
        self._failures = 0
        self._bytes = 0
        self._flushes = 0
        self._flush_seconds = 0.0
        self._flush_max = 0.0

    async def open(self) -> None:
        """Open the file for appending, making its folder. Raises UsageError when it cannot be."""
        self._thread = ThreadPoolExecutor(1, "h2log-log")
        before, self._before = self._before, None
        try:
            await (before or self)._in_thread(self._out.open)
        except OSError as error:
            self._thread.shutdown(wait=False)
            # mkdir: a part of the path is a file
            reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise UsageError(
                f"cannot open the {self._what} {self.path}: {reason or error}; {self._remedy}"
            ) from None
        self._closing = self._closed = False
        self._begin()

    def follow(self, other: LogWriter) -> None:
        """Go on in the file of `other`, which still writes to it: look at it between two writes.

        A look from another thread may find a line half written, which seems to need an end.
        """
        if isinstance(other._out, LogFile) and other._out.regular:
            self._before = other

    def _begin(self, *, again: bool = False) -> None:
        """Begin the task that writes; should it ever end, another is begun a little later."""
        self._again = None
        self._task = task = asyncio.create_task(self._run(again), name="h2log-log-writer")
        task.add_done_callback(self._ended)
        self._wake.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        _logger.error(
            "the task that writes to %s ended, another goes on", self.path, exc_info=error
        )
        self._again = asyncio.get_running_loop().call_later(
            _FIRST_RETRY, partial(self._begin, again=True)
        )

    async def _in_thread(self, function: Any) -> None:
        await aiofiles.os.wrap(function)(executor=self._thread)

    def reopen(self) -> None:
        """Look at once whether the path still names the open file (what SIGUSR1 is for)."""
        self._reopen = True
        self._wake.set()

    async def _run(self, again: bool) -> None:
        if again:  # what another task was cancelled in may still be under way
            await self._in_thread(self._queue.recount)
        retry = _FIRST_RETRY
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._write_all()
            except (Exception, SystemExit) as error:  # a bug is no reason to write no more
                self._failed(error)
                if self._closing:
                    return
                await self._pause(retry)
                retry = min(retry * 2, _LAST_RETRY)
                self._wake.set()
            else:
                if self._failing:
                    self._failing = ""
                    _logger.warning("writing to %s again", self.path)
                if self._dropping and monotonic() - self._dropped_at > _CALM:
                    self._dropping = False
                    _logger.warning(
                        "%s: no line is dropped any more, %d were in all", self.path, self.dropped
                    )
                retry = _FIRST_RETRY
                if self._closing and not (self._records or self._queue):
                    return
                self._set_alarm()

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
        if self._is_due():
            await self._in_thread(self._tend)
        queue = self._queue
        while queue.offset < len(queue.data) or self._next():
            if queue.note is not None and not queue.data:
                queue.data = note_line(self._format, queue.note.kind, queue.note.fields)
            before = queue.offset
            self._waiting = False
            if self._busy_since is None:
                self._busy_since = monotonic()
            try:
                await self._in_thread(self._write_chunk)
            except BlockingIOError:  # a pipe that does not block is full
                if self._out.descriptor < 0:
                    raise
                self._waiting = True
                await _writable(self._out.descriptor)
            except (Exception, SystemExit):  # the line's beginning is given up: see `outlet`
                queue.offset = queue.data.rfind(b"\n", 0, queue.offset) + 1
                raise
            finally:
                if queue.offset > before:
                    self._busy_since = None
                if queue.note is None:
                    queue.size -= queue.offset - before
                if self.overloaded and queue.size <= self._max_buffer // 2:
                    self.overloaded = False
                    self._room.set()
        if self._is_due():
            await self._in_thread(self._tend)

    def _next(self) -> bool:
        """Turn to what is written next; False if there is nothing."""
        return self._queue.next()

    def _wrote(self, lines: int) -> None:
        """Count lines that are written; in the writer's thread."""
        self.written += lines

    def _write_chunk(self) -> None:
        queue = self._queue
        begin = monotonic()
        try:
            while queue.offset < len(queue.data):
                at = queue.offset
                count = self._out.write(queue.data, at)
                queue.offset = at + count
                self._bytes += count
                self._wrote(0 if queue.note else queue.data.count(b"\n", at, at + count))
                if self._sync_every is not None and self._unsynced is None:
                    self._unsynced = monotonic()
        finally:
            spent = monotonic() - begin
            self._flushes += 1
            self._flush_seconds += spent
            self._flush_max = max(self._flush_max, spent)

    def _is_due(self) -> bool:
        return (
            self._reopen
            or wall() >= self._out.due
            or (
                self._unsynced is not None
                and self._sync_every is not None
                and monotonic() - self._unsynced >= self._sync_every
            )
        )

    def _tend(self) -> None:
        """Do what is due without a line: reopen, rotate, sync."""
        reopen, self._reopen = self._reopen, False
        self._out.tend(reopen=reopen)
        if self._unsynced is not None:
            self._out.sync()
            self._unsynced = None

    def _set_alarm(self) -> None:
        """Wake the writer when something is due though nobody puts a record."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wait = self._out.due - wall()
        if self._unsynced is not None and self._sync_every is not None:
            wait = min(wait, self._unsynced + self._sync_every - monotonic())
        if wait != float("inf"):
            # A rotation that is due and fails is tried again at a pace of its own.
            wait = min(max(wait, 0.01 if wait > 0 else _FIRST_RETRY), _LONGEST_SLEEP)
            self._alarm = asyncio.get_running_loop().call_later(wait, self._wake.set)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            reason = f"{type(error).__name__}: {error}"
        before, self._failing = self._failing, reason
        self._failures += 1
        surprise = not isinstance(error, OSError) and not self._surprised
        self._surprised = self._surprised or surprise
        if not before or surprise:
            _logger.error(
                "cannot write to %s: %s; serving goes on, lines are kept up to %d bytes",
                self.path,
                reason,
                self._limit,
                exc_info=error if surprise else None,
            )

    @property
    def failing(self) -> str:
        """Why nothing can be written at present, or nothing."""
        return self._failing

    async def close(self) -> None:
        """Write what is left, once, and close the file; what cannot be written is counted.

        A pipe whose reader has stopped reading would hold a write for ever: after `LAST_WORDS`
        seconds it is given up, and `stuck` is set, since its thread cannot be ended.
        """
        if self._task is None or self._thread is None:
            return
        self._closing = True
        for timer in (self._timer, self._alarm, self._again):
            if timer is not None:
                timer.cancel()
        self._timer = self._alarm = None
        if self._again is not None:
            self._begin(again=True)
        self._format_records()
        self._wake.set()
        done, _ = await asyncio.wait((self._task,), timeout=LAST_WORDS)
        if not done:
            self.stuck = True
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._task = None
        self._closed = True
        if not self.stuck or self._waiting:
            with contextlib.suppress(Exception):
                await self._in_thread(self._end)
        self._thread.shutdown(wait=False)
        self._give_up()
        self.overloaded = False
        self._room.set()

    def _end(self) -> None:
        try:
            if self._sync_every is not None:
                self._out.sync()
        finally:
            self._out.close()
        lost = self._out.lost.count(b"\n")  # their file was deleted, and there was no other
        self.written -= lost
        self.dropped += lost

    def _give_up(self) -> None:
        """Count what could not be written, and tell of it."""
        self._format_records()
        lost, untold = self._queue.lines(), self._queue.untold()
        self.dropped += lost
        self.unwritten = self._queue.rest(_UNWRITTEN)
        self._queue.clear()
        lost += self._out.lost.count(b"\n")
        if lost or untold:
            _logger.error("%d lines could not be written to %s", lost + untold, self.path)

    def health(self) -> Health:
        """Return how the log does at this moment; counting what is queued takes the longest."""
        return Health(
            path=self.path,
            file=self._out.current,
            taken=self._taken + len(self._records),
            written=self.written,
            skipped=self._selection.skipped,
            dropped=self.dropped,
            bytes=self._bytes,
            flushes=self._flushes,
            flush_max=self._flush_max,
            flush_mean=self._flush_seconds / self._flushes if self._flushes else 0.0,
            queued_lines=self._queue.lines() + len(self._records),
            queued_bytes=self._queue.size,
            failures=self._failures + self._out.failures,
            failing=self._failing,
            cut=self._out.cut,
            rotations=self._out.rotations,
            reopened=self._out.reopened,
            overloaded=self.overloaded,
        )


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
