"""From records to lines: which of them have one, and what happens when a format fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from h2log.logfile.notes import LineFormat

__all__ = ["Selection", "Skip"]

_logger = logging.getLogger("h2log.log")

Skip = Callable[[Any], bool]
"""A predicate of a record: true leaves it out."""


class Selection:
    """Makes lines of records; a format or predicate that raises costs its own record only."""

    def __init__(self, line_format: LineFormat, skip: Skip | None = None) -> None:
        self.skipped = 0
        self._format = line_format
        self._skip = skip
        # A compiled format's own function, which always ends its line: no need to look at each.
        self._line: Callable[[Any], str] | None = getattr(line_format, "line", None)
        self._told = False

    def lines(self, records: list[Any]) -> Iterator[tuple[list[Any], bytes, str]]:
        """Yield, in order, records and the block of their lines; or one, and why it has none."""
        if self._skip is None and self._line is not None:
            line = self._line
            try:
                block = "".join([line(record) for record in records])
                if block.count("\n") == len(records):
                    yield records, block.encode(), ""
                    return
            except (Exception, SystemExit):  # noqa: S110 - found below, with its record
                pass
        begin = 0
        texts: list[str] = []
        for at, record in enumerate(records):
            try:
                text = (
                    None if self._skip is not None and self._skip(record) else self._format(record)
                )
                if text:
                    texts.append(text if text[-1] == "\n" else f"{text}\n")
                else:
                    self.skipped += 1
            except (Exception, SystemExit) as error:  # somebody else's, and serving goes on
                self._tell(error)
                if texts:
                    yield records[begin:at], _encoded(texts), ""
                    texts = []
                yield [record], b"", f"the format failed: {type(error).__name__}: {error}"
                begin = at + 1
        if texts:
            yield records[begin:], _encoded(texts), ""

    def _tell(self, error: BaseException) -> None:
        if not self._told:
            self._told = True
            _logger.error("a format or its predicate failed: %r", error, exc_info=error)


def _encoded(texts: list[str]) -> bytes:
    text = "".join(texts)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate of a format that escapes nothing
        return text.encode("utf-8", "backslashreplace")
