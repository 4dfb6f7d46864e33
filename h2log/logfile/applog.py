"""h2log's own log and the application's: standard `logging`, with the ids in every line.

    [13:31:59.123 INFO] [0193… 0193…] shop.basket add (basket.py:41) two more
        {"article": 17, "count": 2}

`IdFilter` gives each record `session_id` and `request_id`: what the caller passed in `extra`, else
the ids of the request that the running code serves, which follow it through `await` and
`asyncio.to_thread`; `-` outside of one. Everything else in `extra` follows as JSON, indented, and
so do tracebacks: what begins at the left margin is always a line of its own.

`configure` sends it to the console; `AppLog` to a file, through the writer that the access log has,
a file a day and the last ten of them kept, and what matters to standard error too, through another.
`faults.install` brings what nobody caught.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, Protocol, TextIO

from h2log.errors import UsageError
from h2log.ids import NO_ID, request_id, session_id
from h2log.logfile.destination import kind_of
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import STDERR, STDOUT, LogWriter

__all__ = [
    "DAILY",
    "LEVELS",
    "OFF",
    "AppLog",
    "IdFilter",
    "LineFormatter",
    "Taker",
    "WriterHandler",
    "configure",
]

LEVELS = ("debug", "info", "warning", "error", "critical")

DAILY: Final = Rotation.of(every="daily", keep=10)
"""A file a day, the last ten of them kept."""

OFF: Final = "off"
"""In place of the console's level."""

_INDENT: Final = "    "
_SHOWN: Final = 500
"""Characters of a message that cannot be formatted, and of the reason."""
_ENTRY: Final = re.compile(rf"^\[[0-9:.]+ ([A-Z]+)\] .*\n(?:{_INDENT}.*\n)*", re.MULTILINE)
"""An entry of the log with what stands below it, and its level."""
_STANDARD: Final = frozenset(
    {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}
    | {"session_id", "request_id", "h2log"}
)
"""Attributes of every record, and of a log's line: what is not here came with `extra`."""


class IdFilter(logging.Filter):
    """Lets every record pass, and sets `session_id` and `request_id` on it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        if not hasattr(record, "session_id"):
            record.session_id = session_id.get()
        if not hasattr(record, "request_id"):
            record.request_id = request_id.get()
        return True


class LineFormatter(logging.Formatter):
    """`[13:31:59.123 LEVEL] [session request] logger function (file:line) message`.

    Control characters are escaped.
    """

    def __init__(self) -> None:
        super().__init__(
            "[%(asctime)s.%(msecs)03d %(levelname)s] [%(session_id)s %(request_id)s] "
            "%(name)s %(funcName)s (%(filename)s:%(lineno)d) %(message)s",
            datefmt="%H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and its extras and traceback below."""
        # Formatters share what the first of them made of the traceback: it would be another's.
        others, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = others

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback, indented: no text inside it can look like a line of the log."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"{_INDENT}{_escaped(line)}" for line in lines)

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return a stack, indented as a traceback is."""
        return "\n".join(f"{_INDENT}{_escaped(line)}" for line in stack_info.split("\n"))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line, always one, and its extras on the next."""
        line = _escaped(super().formatMessage(record))
        extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return f"{line}\n{_INDENT}{_json(extras)}" if extras else line


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _json(extras: dict[str, Any]) -> str:
    """Return the extras as an object in printable ASCII, whatever they are."""
    try:
        return json.dumps(extras, default=_shown, allow_nan=False)
    except Exception:  # keys that are no texts, a circle, NaN: its own value only is shown as text
        return json.dumps({name: _plain(value) for name, value in extras.items()})


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, default=_shown, allow_nan=False)
    except Exception:
        return _shown(value)
    return value


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (Exception, SystemExit) as error:  # somebody's __repr__
        return f"<{type(value).__name__}: {type(error).__name__}>"


class Taker(Protocol):
    """What takes texts of one or more lines, in the loop's thread."""

    def put(self, record: Any) -> None:
        """Take a text."""

    def flush_soon(self) -> None:
        """Write what was taken without waiting for more."""


class WriterHandler(logging.Handler):
    """Hands each record's line to a `LogWriter` or its like, from whichever thread it comes.

    Made in the loop's thread, after the writer was opened. Once the loop has ended it tells of
    nothing any more: the console's handler does.
    """

    def __init__(self, writer: Taker) -> None:
        super().__init__()
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.setFormatter(LineFormatter())
        self.addFilter(IdFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """Format at once, since what a record holds may change; write later."""
        try:
            self._hand_over(self.format(record), record.levelno >= logging.ERROR)
        except (Exception, SystemExit):
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Write a line that names the record which cannot be formatted, and why.

        logging's own would write to standard error, and wait for whoever reads it.
        """
        error = sys.exc_info()[1]
        why = f"{type(error).__name__}: {_shown(str(error))}"[:_SHOWN]
        substitute = logging.LogRecord(
            str(record.name),
            record.levelno,
            record.pathname,
            record.lineno,
            "a record that cannot be formatted: %s: msg=%s",
            (why, _shown(record.msg)[:_SHOWN]),
            None,
            record.funcName,
        )
        for name in ("session_id", "request_id"):
            setattr(substitute, name, _shown(getattr(record, name, NO_ID)).strip("'"))
        with contextlib.suppress(Exception):
            self._hand_over(self.format(substitute), record.levelno >= logging.ERROR)

    def _hand_over(self, entry: str, hurry: bool) -> None:
        try:
            if threading.get_ident() == self._thread and not self._loop.is_closed():
                self._put(entry, hurry)
            else:
                self._loop.call_soon_threadsafe(self._put, entry, hurry)
        except RuntimeError:  # the loop is closed
            pass

    def _put(self, entry: str, hurry: bool) -> None:
        self._writer.put(entry)
        if hurry:
            self._writer.flush_soon()


class AppLog:
    """The application's log in a file. Use: `await open()` after `configure`; `await close()`.

    What is logged before is on the console only. `level` is that of the file; nothing below the
    root logger's level comes to either. From `console` on, a level or `off`, it also goes to
    standard error, through a writer of its own that waits for nobody; warnings and what is worse
    go there in any case while the file cannot be written, and when it could not at the end.

    The rotation of ten days is for files, and left out
    elsewhere. Raises UsageError for a logger as its path: its own records would come back to it,
    for ever.
    """

    def __init__(
        self,
        path: str,
        level: str = "debug",
        rotation: Rotation | None = DAILY,
        *,
        make: type[LogWriter] = LogWriter,
        console: str = OFF,
        **options: Any,
    ) -> None:
        kind = kind_of(path)
        if kind == "logger":
            raise UsageError(
                f"{path}: the application's log has the records of all loggers, its own would come "
                "back to it; expected a file, -, or syslog:"
            )
        if kind != "file" and rotation == DAILY:
            rotation = None
        options.setdefault("what", "application's log")
        options.setdefault("remedy", "choose another with log.app.path")
        self.writer = make(path, str, rotation=rotation, **options)
        self._level = level
        self._from = (
            sys.maxsize if console == OFF else logging.getLevelNamesMapping()[console.upper()]
        )
        # The console is the log itself, or else a second place for what matters.
        self.console = None if path in (STDOUT, STDERR) else LogWriter(STDERR, str)
        """The writer to standard error, where that is not the log itself."""
        self._handlers: list[WriterHandler] = []

    async def open(self) -> None:
        """Open the file and take part in logging. Raises UsageError when it cannot be opened."""
        await self.writer.open()
        if self.console is not None:
            try:
                await self.console.open()
            except UsageError:  # there is none
                self.console = None
        handler = WriterHandler(self.writer)
        handler.setLevel(self._level.upper())
        self._handlers = [handler]
        if self.console is not None:
            second = WriterHandler(self.console)
            second.addFilter(lambda record: self._concerns_console(record.levelno))
            self._handlers.append(second)
        for handler in self._handlers:
            logging.getLogger().addHandler(handler)

    def _concerns_console(self, level: int) -> bool:
        return level >= self._from or (level >= logging.WARNING and bool(self.writer.failing))

    def take(self, text: str, *, hurry: bool = False) -> None:
        """Take whole entries that another process has formatted; with `hurry`, write them now."""
        self.writer.put(text)
        self.took(text, hurry=hurry)

    def took(self, text: str, *, hurry: bool = False) -> None:
        """Do what `take` does with entries that the writer was given already."""
        if hurry:
            self.writer.flush_soon()
        if self.console is not None:
            for level, entry in _entries(text):
                if self._concerns_console(level):
                    self.console.put(entry)

    def reopen(self) -> None:
        """Look at once whether the path still names the open file."""
        self.writer.reopen()

    @property
    def stuck(self) -> bool:
        """Whether a thread could not be ended."""
        return self.writer.stuck or (self.console is not None and self.console.stuck)

    async def close(self) -> None:
        """Leave logging, and write what is left; what matters of the rest goes to the console."""
        if self._handlers:
            # What other threads have logged is on its way through the loop.
            logging.getLogger().removeHandler(self._handlers[0])
            await asyncio.sleep(0)
        await self.writer.close()
        for handler in self._handlers[1:]:
            logging.getLogger().removeHandler(handler)
        self._handlers = []
        if self.console is not None:
            await asyncio.sleep(0)
            for level, entry in _entries(self.writer.unwritten.decode("utf-8", "replace")):
                if logging.WARNING <= level < self._from:  # above, they are there already
                    self.console.put(entry)
            await self.console.close()


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Yield level and text of each entry; an application's own levels are as good as debug."""
    levels = logging.getLevelNamesMapping()
    for found in _ENTRY.finditer(text if text.endswith("\n") else f"{text}\n"):
        yield levels.get(found[1], 0), found[0]


def configure(level: str, stream: TextIO | None = None, *, console: bool = True) -> None:
    """Send everything at `level` and above to `stream` (standard error), with the ids.

    Without `console` to no stream: an `AppLog` has taken over.

    `level` is one of `LEVELS`. The root logger is set up, so the application's loggers take part;
    called again, it replaces what it set up before.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, LineFormatter) and not isinstance(handler, WriterHandler):
            root.removeHandler(handler)
    if console:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(LineFormatter())
        handler.addFilter(IdFilter())
        root.addHandler(handler)
    root.setLevel(level.upper())
    # asyncio tells at debug level which selector it uses: noise in a connection's story.
    logging.getLogger("asyncio").setLevel(max(root.level, logging.INFO))
