"""h2log's own log and the application's: standard `logging`, with the ids in every line.

`IdFilter` gives each record `session_id` and `request_id`: what the caller passed in `extra`, else
the ids of the request that the running code serves, which follow it through `await` and
`asyncio.to_thread`; `-` outside of one.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from h2log.ids import request_id, session_id

__all__ = ["IdFilter", "LineFormatter", "configure"]

LEVELS = ("debug", "info", "warning", "error", "critical")


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
    """`[13:31:59.123 LEVEL] [session request] logger message`, control characters escaped."""

    def __init__(self) -> None:
        super().__init__(
            "[%(asctime)s.%(msecs)03d %(levelname)s] [%(session_id)s %(request_id)s] "
            "%(name)s %(message)s",
            datefmt="%H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and its traceback below."""
        # Formatters share what the first of them made of the traceback: it would be another's.
        others, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = others

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback, indented: no text inside it can look like a line of the log."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {_escaped(line)}" for line in lines)

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return a stack, indented as a traceback is."""
        return "\n".join(f"    {_escaped(line)}" for line in stack_info.split("\n"))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's line; a message with line breaks stays one line."""
        record.message = _escaped(record.message)
        return super().formatMessage(record)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send everything at `level` and above to `stream` (standard error), with the ids.

    `level` is one of `LEVELS`. The root logger is set up, so the application's loggers take part;
    called again, it replaces what it set up before.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, LineFormatter):
            root.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(IdFilter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    # asyncio tells at debug level which selector it uses: noise in a connection's story.
    logging.getLogger("asyncio").setLevel(max(root.level, logging.INFO))
