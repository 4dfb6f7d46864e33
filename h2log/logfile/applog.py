"""h2log's own log and the application's: standard `logging`, with the ids in every line.

    [13:31:59.123 INFO] [0193… 0193…] shop.basket add (basket.py:41) two more
        {"article": 17, "count": 2}

`IdFilter` gives each record `session_id` and `request_id`: what the caller passed in `extra`, else
the ids of the request that the running code serves, which follow it through `await` and
`asyncio.to_thread`; `-` outside of one. Everything else in `extra` follows as JSON, indented, and
so do tracebacks: what begins at the left margin is always a line of its own.

`configure` sends it to the console; `AppLog` to a file as well, through the writer that the access
log has, a file a day and the last ten of them kept. `faults.install` brings what nobody caught.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from typing import Any, Final, TextIO

from h2log.errors import UsageError
from h2log.ids import request_id, session_id
from h2log.logfile.destination import kind_of
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter

__all__ = ["DAILY", "LEVELS", "AppLog", "IdFilter", "LineFormatter", "WriterHandler", "configure"]

LEVELS = ("debug", "info", "warning", "error", "critical")

DAILY: Final = Rotation.of(every="daily", keep=10)
"""A file a day, the last ten of them kept."""

_INDENT: Final = "    "
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
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, a circle, NaN
        return json.dumps({name: _shown(value) for name, value in extras.items()})


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # somebody's __repr__
        return f"<{type(value).__name__}: {type(error).__name__}>"


class WriterHandler(logging.Handler):
    """Hands each record's line to a `LogWriter`, from whichever thread it comes.

    Made in the loop's thread, after the writer was opened. Once the loop has ended it tells of
    nothing any more: the console's handler does.
    """

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.setFormatter(LineFormatter())
        self.addFilter(IdFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """Format at once, since what a record holds may change; write later."""
        try:
            entry = self.format(record)
            hurry = record.levelno >= logging.ERROR
            if threading.get_ident() == self._thread and not self._loop.is_closed():
                self._put(entry, hurry)
            else:
                self._loop.call_soon_threadsafe(self._put, entry, hurry)
        except RuntimeError:  # the loop is closed
            pass
        except Exception:
            self.handleError(record)

    def _put(self, entry: str, hurry: bool) -> None:
        self._writer.put(entry)
        if hurry:
            self._writer.flush_soon()


class AppLog:
    """The application's log in a file. Use: `await open()` after `configure`; `await close()`.

    What is logged before is on the console only. `level` is that of the file; nothing below the
    root logger's level comes to either. The rotation of ten days is for files, and left out
    elsewhere. Raises UsageError for a logger as its path: its own records would come back to it,
    for ever.
    """

    def __init__(
        self, path: str, level: str = "debug", rotation: Rotation | None = DAILY, **options: Any
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
        self.writer = LogWriter(path, str, rotation=rotation, **options)
        self._level = level
        self._handler: WriterHandler | None = None

    async def open(self) -> None:
        """Open the file and take part in logging. Raises UsageError when it cannot be opened."""
        await self.writer.open()
        self._handler = WriterHandler(self.writer)
        self._handler.setLevel(self._level.upper())
        logging.getLogger().addHandler(self._handler)

    async def close(self) -> None:
        """Leave logging, and write what is left."""
        if self._handler is not None:
            # What other threads have logged is on its way through the loop.
            logging.getLogger().removeHandler(self._handler)
            self._handler = None
            await asyncio.sleep(0)
        await self.writer.close()


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
