"""What a log can be written to, and which of them a path means.

    logs/access.log                    a file, a pipe or a device; see `files`
    -, &2                              standard output and standard error
    syslog:, syslog://HOST, …          a syslog collector; see `syslog_url`
    logger:NAME                        a logger of the application; see `loggers`

The writer knows only what all of them have in common: a `Destination`.
"""

from __future__ import annotations

import re
from typing import Final, Literal, Protocol

from h2log.errors import UsageError
from h2log.logfile.files import STDERR, STDOUT, LogFile
from h2log.logfile.loggers import LOGGER, LoggerTarget
from h2log.logfile.rotation import Rotation

__all__ = ["Destination", "Kind", "destination", "is_syslog", "kind_of"]

Kind = Literal["file", "stream", "syslog", "logger"]
_SYSLOG: Final = re.compile(r"syslog(?:\+[^:/?]*)?:")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Destination(Protocol):
    """Takes whole lines. Its calls block, and are made from one thread at a time."""

    due: float
    """When `tend` has something to do though there is no line, in epoch seconds; or infinity."""
    rotations: int
    reopened: int
    """Times that it was opened anew."""
    failures: int
    """Attempts that failed without an error of `write`."""
    cut: int
    """Lines of which it could only take the beginning."""

    @property
    def current(self) -> str:
        """The name of what is written to at present."""
        ...

    @property
    def descriptor(self) -> int:
        """What to wait for after a BlockingIOError of `write`."""
        ...

    @property
    def lost(self) -> bytes:
        """Lines that were taken and, at present, are nowhere."""
        ...

    def open(self) -> None:
        """Be ready for lines. Raises OSError when it cannot be."""
        ...

    def write(self, data: bytes, offset: int) -> int:
        """Take some of the lines of `data` from `offset` on; return how many bytes of it.

        0 is no error: what was to be done before has been done. Raises OSError for nothing.
        """
        ...

    def tend(self, *, reopen: bool = False) -> None:
        """Do what is due without a line; with `reopen`, see that it is still the right place.

        Raises OSError.
        """
        ...

    def sync(self) -> None:
        """Have the system put what was taken on a disk, where there is one. Raises OSError."""
        ...

    def close(self) -> None:
        """Do what can be done for what is `lost`, and end. Raises OSError."""
        ...


def is_syslog(path: str) -> bool:
    """Return whether a log's path is meant as the URL of a collector; see `syslog_url`."""
    return _SYSLOG.match(path) is not None


def kind_of(path: str) -> Kind:
    """Return what a path means: `stream` is standard output or standard error."""
    if path in (STDOUT, STDERR):
        return "stream"
    if path.startswith(LOGGER):
        return "logger"
    return "syslog" if is_syslog(path) else "file"


def destination(
    path: str,
    rotation: Rotation | None = None,
    *,
    header: bytes = b"",
    mode: int | None = None,
    sync_rotated: bool = False,
    name: str = "access log",
) -> Destination:
    """Return what `path` means, not opened yet. Raises UsageError for what it cannot mean.

    `header` is what a format has above its lines; `name` is the log's. `rotation`, `mode` and
    `sync_rotated` are for files: standard output and devices do without, elsewhere a rotation or a
    mode is a mistake.
    """
    kind = kind_of(path)
    if kind in ("syslog", "logger"):
        if rotation is not None:
            raise UsageError(f"{path}: only files rotate; leave out rotate, or write to a file")
        if mode is not None:
            raise UsageError(f"{path}: only files have a mode; leave out mode, or write to a file")
        if kind == "logger":
            return LoggerTarget(path, name=name)
        from h2log.logfile.syslog import SyslogTarget  # few logs go there

        return SyslogTarget(path, header=header, name=name)
    if _URL.match(path):
        raise UsageError(
            f"{path}: no log goes there; expected a file, -, &2, syslog:, syslog://HOST, "
            "syslog+tcp://HOST, syslog+tls://HOST or logger:NAME"
        )
    return LogFile(path, rotation, header=header, mode=mode, sync_rotated=sync_rotated)
