"""A log that goes to a logger of the application: `logger:NAME`, `logger:NAME?level=debug`.

Each line becomes one record of `logging.getLogger(NAME)`: its message is the line without the
newline, its level info or what the path says, and its attribute `h2log` which log it is from:
`access`, `session` or `application`. Records are made by the writer's thread: a handler may take
its time without holding up a request, and lines wait meanwhile as for a slow disk. A note of lines
that are missing is a record, too; a format's header is none.

A line counts as written when the logger was called. What handlers do with it is theirs, also what
they lose; a handler that raises costs its own line, is counted in `failures` and told once. When
the logger lets no record of that level through, or has no handler, that is told as well.

What would come back into the same log is refused: h2log's own loggers tell of the trouble that a
log has, so none of `h2log` and below can be one; and the application's log, which has the records
of all loggers, cannot be a logger (see `applog`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Final
from urllib.parse import parse_qsl

from h2log.errors import UsageError

__all__ = ["LOGGER", "LoggerTarget"]

_logger = logging.getLogger("h2log.log")

LOGGER: Final = "logger:"
"""What the path of such a log begins with."""
_OWN: Final = "h2log"
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_FORM: Final = "expected logger:NAME or logger:NAME?level=LEVEL"


class LoggerTarget:
    """Lines to the logger that `path` names; `name` is the log's, such as `access log`.

    Raises UsageError for a path that names none, or one that cannot be.
    """

    def __init__(self, path: str, *, name: str = "access log") -> None:
        self.path = path
        self.due = float("inf")
        self.rotations = 0
        self.reopened = 0
        self.failures = 0
        """Lines at which a handler raised."""
        self.cut = 0
        logger, self._level = _parsed(path)
        self._logger = logging.getLogger(logger)
        self._extra = {"h2log": re.split(r"[\s']", name)[0]}
        self._silent = False

    @property
    def current(self) -> str:
        """The path."""
        return self.path

    @property
    def descriptor(self) -> int:
        """Always -1: handlers wait themselves."""
        return -1

    @property
    def lost(self) -> bytes:
        """Nothing: what was handed over is the handlers'."""
        return b""

    def open(self) -> None:
        """Look whether anybody listens."""
        self._look()

    def write(self, data: bytes, offset: int) -> int:
        """Make a record of each of the whole lines of `data` from `offset` on; return their bytes.

        Never raises.
        """
        self._look()
        logger, level = self._logger, self._level
        if logger.isEnabledFor(level):
            for line in data[offset:].decode("utf-8", "replace").removesuffix("\n").split("\n"):
                record = logger.makeRecord(
                    logger.name, level, _OWN, 0, line, (), None, extra=self._extra
                )
                try:
                    logger.handle(record)
                except (Exception, SystemExit) as error:  # somebody else's handler
                    self._failed(error)
        return len(data) - offset

    def tend(self, *, reopen: bool = False) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the logger is the application's."""

    def _look(self) -> None:
        """Tell, once each time, that lines go nowhere."""
        enabled = self._logger.isEnabledFor(self._level)
        silent = not (enabled and self._logger.hasHandlers())
        if silent and not self._silent:
            lacks = "has no handler" if enabled else "does not let that level through"
            self._tell(
                "lines go to %s in vain: the logger %s; set it up before the start, or choose "
                "another level",
                self.path,
                lacks,
            )
        self._silent = silent

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.failures == 1:
            self._tell("a handler of %s failed: %r; its line may be lost", self.path, error)

    def _tell(self, text: str, *values: object) -> None:
        # The handler that has failed may listen here, too.
        with contextlib.suppress(Exception, SystemExit):
            _logger.warning(text, *values)


def _parsed(path: str) -> tuple[str, int]:
    """Return the logger's name and the level that `path` says. Raises UsageError."""
    name, mark, query = path.removeprefix(LOGGER).partition("?")
    if not name or not name.isprintable() or " " in name or "" in name.split("."):
        raise UsageError(f"{path!r}: no logger has the name {name!r}; {_FORM}")
    if name.split(".")[0] == _OWN:
        raise UsageError(
            f"{path}: h2log's own loggers tell of the trouble that this log has, it would be told "
            "of itself; name a logger of yours"
        )
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark)))
    except ValueError:
        raise UsageError(f"{path!r}: {query!r} is no option; {_FORM}") from None
    level = options.pop("level", "info")
    if options:
        raise UsageError(f"{path!r}: there is no option {next(iter(options))!r}; {_FORM}")
    if level not in _LEVELS:
        raise UsageError(f"{path!r}: level must be one of {', '.join(_LEVELS)}, not {level!r}")
    return name, _LEVELS[level]
