"""The access log in a thread of its own, for servers whose loop is not ours.

`LogWriter` lives in a loop, and has to be closed in it. Another server's loop may end without a
word, be another one by then, or be no asyncio loop at all. So the log has a loop and a thread to
itself: records come through a queue, and a hand-over wakes the thread once for however many are in
it. The last lines are written when `close` is called, or else before the interpreter ends its
threads (`threading._register_atexit`): after that nobody may start one, and `atexit` comes later.
A SIGTERM that nobody handles would end the process without either: then it is handled here, and
ends the process once the lines are written. Hypercorn terminates its workers so, while they drain,
as soon as the first has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

from h2log.access.exchange import Exchange
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.access.session_formats import SESSION_FORMATS
from h2log.clock import monotonic
from h2log.config import LogSettings
from h2log.integrations.rotation_lock import RotationLock
from h2log.logfile.fan import LogFan
from h2log.logfile.health import Health
from h2log.logfile.writer import LogWriter
from h2log.server.logs import access_writer, redaction_of, session_writer

__all__ = ["LogThread"]

_logger = logging.getLogger("h2log.log")

_LAST_WORDS: Final = 8.0
"""Seconds that closing may take: the writers give up what is stuck after five."""

_LOOK_EVERY: Final = 0.25
"""Seconds between two looks at a file that rotates by its size, and that others may fill."""

_Entry = tuple[Callable[[Any], None], Any]


class LogThread:
    """The access log and the session log of `settings`, written by a thread.

    Use: `start()`, which opens the files, then `put`, `opening` and `tell` from any thread, and
    `close()`; the end of the process does that too. Raises UsageError for what cannot be opened.
    The settings' application log is not touched: how to log is the server's to say.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._lock = RotationLock()
        self._settings = settings
        self._entries: deque[_Entry] = deque()
        self._awake = False  # the thread was told, and has not looked yet
        self._closing = False  # what comes now waits for the next time
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._fan = LogFan(())
        self._session: LogWriter | None = None
        self._session_line: Callable[[Any], Any] | None = None
        self._filled: list[tuple[LogWriter, int]] = []  # and how large their files may be
        self._process = 0
        self._open: dict[int, Exchange] = {}
        self._guard = threading.RLock()  # a signal may come in between
        self._ending: Future[None] | None = None  # what closes the files, while it does
        self.at_termination: Callable[[], None] | None = None
        """Called before the last lines are written because of a SIGTERM that nobody handles."""
        self.hurried = False
        """Write at once, since nobody tells of the end before it comes."""
        self.immediate = any(output.immediate for output in settings.outputs)
        self.told = bool(settings.session.path)
        """Whether somebody wants to know of sessions."""
        self.block = any(output.path and output.overload == "block" for output in settings.outputs)

    @property
    def running(self) -> bool:
        """Whether it takes lines: started, in this process, and not closed."""
        return self._thread is not None and self._process == os.getpid()

    def start(self) -> None:
        """Open the files and begin. Raises UsageError; harmless when it runs already."""
        if self._process not in (0, os.getpid()):  # forked: the thread stayed behind
            self._forget()
        with self._guard:
            if self.running:
                return
            self._process = os.getpid()
            self._make()
            self._awake = self._closing = False
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name="h2log-log-loop", daemon=True)
            thread.start()
            try:
                asyncio.run_coroutine_threadsafe(self._open_all(), loop).result()
            except BaseException:
                loop.call_soon_threadsafe(loop.stop)
                self._lock.release()
                raise
            self._loop, self._thread, self._ending = loop, thread, None
            _at_exit(self.close)
            self._at_sigterm()

    def _make(self) -> None:
        settings = self._lock.settle(self._settings)
        redact = redaction_of(settings)
        outputs = [
            (access_writer(LogWriter, output, redact), output) for output in settings.outputs
        ]
        self._fan = LogFan(
            [writer for writer, output in outputs if not output.immediate],
            [writer for writer, output in outputs if output.immediate],
        )
        self._session = None
        sizes = [(writer, output.rotate.size) for writer, output in outputs]
        if settings.session.path:
            self._session_line = SESSION_FORMATS[settings.session.format]
            self._session = session_writer(LogWriter, settings.session)
            sizes.append((self._session, settings.session.rotate.size))
        self._filled = [(writer, size) for writer, size in sizes if size]

    def _at_sigterm(self) -> None:
        """Write the last lines before a SIGTERM that nobody handles ends the process."""
        if threading.current_thread() is not threading.main_thread():
            return  # only there may handlers be set
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # who says it once more gains nothing
        if self._process == os.getpid():  # else forked, and what is open is the other's
            self.end_open()
            if self.at_termination is not None:
                self.at_termination()
            self.close()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    async def _open_all(self) -> None:
        await self._fan.open()
        if self._session is not None:
            try:
                await self._session.open()
            except BaseException:
                await self._fan.close()
                raise
        if self._filled:
            self._look()

    def _look(self) -> None:
        """End the files that other processes have filled; see `rotation_lock`."""
        if self._closing:
            return
        for writer, size in self._filled:
            with contextlib.suppress(OSError):
                if os.stat(writer.path).st_size > size:
                    writer.reopen()
        asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)

    # From any thread

    def opening(self, record: AccessRecord) -> None:
        """Take the record of a request that was opened: it ends with the process, at the latest."""
        assert isinstance(record, Exchange)
        self._open[id(record)] = record
        if self.immediate:
            self._hand_over(self._opened, record.opening())

    def put(self, record: AccessRecord) -> None:
        """Take a finished record, of a request that this process has opened."""
        if self._process != os.getpid():
            self._forget()  # those that were open when we were forked are the other's
        if self._open.pop(id(record), None) is not None:
            self._hand_over(self._put, record)

    def tell(self, event: str, session: Session) -> None:
        """Take a session's event, `opened` or `closed`."""
        if self._session_line is not None:
            self._hand_over(self._told, self._session_line((event, session)))

    def _hand_over(self, function: Callable[[Any], None], item: Any) -> None:
        if self._process not in (0, os.getpid()):
            self.start()
        self._entries.append((function, item))
        if not self._awake:
            self._awake = True
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._take)
                    return
            except RuntimeError:  # closed
                pass
            self._write_late()

    def _forget(self) -> None:
        """Leave to the process that we were forked from what it has still to write."""
        self._process = 0
        self._entries = deque()
        self._open = {}
        self._guard = threading.RLock()  # a signal may come in between
        self._lock.release()  # its copies: the parent has the lock as long as it has its own
        self._thread = None
        self._awake = self._closing = False

    def _write_late(self) -> None:
        """Write what comes after the end: open the files once more, for these lines."""
        self._awake = False
        if not self._entries or self._thread is not None:
            return
        try:
            self.start()
            self._hand_over(lambda _: None, None)
            self.close()
        except Exception as error:
            lost = len(self._entries)
            self._entries.clear()
            _logger.error("%d lines came after the log was closed, and are lost: %s", lost, error)

    # In its own

    def _take(self) -> None:
        """Take what was handed over since the last time."""
        self._awake = False
        entries = self._entries
        while entries and not self._closing:
            function, item = entries.popleft()
            function(item)
        if self.hurried:
            for writer in self._fan.writers:
                writer.flush_soon()
            if self._session is not None:
                self._session.flush_soon()

    def _put(self, record: AccessRecord) -> None:
        self._fan.put(record)

    def _opened(self, snapshot: AccessRecord) -> None:
        self._fan.opened(_Ready(snapshot))

    def _told(self, line: Any) -> None:
        if self._session is not None:
            self._session.put(line)

    # For who waits

    @property
    def overloaded(self) -> bool:
        """Whether requests are to wait: a log that holds them up has no room."""
        return self.block and (
            self._fan.overloaded or (self._session is not None and self._session.overloaded)
        )

    async def ready(self) -> None:
        """Return when there is room; to be awaited in an asyncio loop."""
        loop = self._loop
        if loop is not None and self.running:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ready(), loop))

    async def _ready(self) -> None:
        await self._fan.ready()
        if self._session is not None:
            await self._session.ready()

    def health(self) -> tuple[Health, ...]:
        """Return how each log does."""
        session = () if self._session is None else (self._session.health(),)
        return (*self._fan.health(), *session)

    def end_open(self) -> None:
        """End every open request as SHUTDOWN."""
        now = monotonic()
        for exchange in list(self._open.values()):
            exchange.finish(Outcome.SHUTDOWN, now)

    def close(self) -> None:
        """End every open request as SHUTDOWN, write what is left, close the files, end the thread.

        Blocks, for some seconds when a log takes nothing. Harmless when called again.
        """
        with self._guard:
            thread, loop = self._thread, self._loop
            if thread is None or loop is None or self._process != os.getpid():
                return
            self.end_open()
            if self._ending is None:  # or a signal came while it was waited for
                self._ending = asyncio.run_coroutine_threadsafe(self._close_all(), loop)
            try:
                self._ending.result(_LAST_WORDS)
            except TimeoutError:
                _logger.error("the access log could not be closed in %g s", _LAST_WORDS)
            self._thread = self._loop = None
            try:
                loop.call_soon_threadsafe(loop.stop)
            except RuntimeError:
                pass
            thread.join(_LAST_WORDS)
            self._lock.release()
        if self._entries:
            self._write_late()

    async def _close_all(self) -> None:
        self._take()
        self._closing = True
        closing: list[Awaitable[None]] = [self._fan.close()]
        if self._session is not None:
            closing.append(self._session.close())
        await asyncio.gather(*closing)


class _Ready:
    """A snapshot that was made already: it is made where the request is opened."""

    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: AccessRecord) -> None:
        self._snapshot = snapshot

    def opening(self) -> AccessRecord:
        return self._snapshot


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _at_exit(close: Callable[[], None]) -> None:
    """Have `close` called while threads still work."""
    register = getattr(threading, "_register_atexit", None)
    try:
        if register is not None:
            register(close)
        else:
            atexit.register(close)
    except RuntimeError:  # the interpreter is at its end: whoever began it closes it
        pass
