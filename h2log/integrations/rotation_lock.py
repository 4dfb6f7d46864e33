"""One process rotates a log's file, however many append to it.

Another server's worker processes each open the same log. Lines are appended whole, so they stand
in one file; but if each process ended it at midnight they would do so to each other. So the first
takes a lock (flock(2)) on a hidden file beside the log, `.NAME.lock`, and rotates; the others write
to whatever the path names (see `logfile.files`), and are at most `CHECK` behind. A file that
rotates by its size may so become larger, by what others write until the first has looked. The
system gives the lock back when a process ends, however it does; the next that is started takes it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TypeVar

import msgspec

from h2log.config import LogSettings, Output, Rotation
from h2log.config.settings import is_file_path

try:
    import fcntl
except ImportError:  # Windows, where a file that others have open cannot be renamed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["RotationLock"]

_Output = TypeVar("_Output", bound=Output)


class RotationLock:
    """The locks of a process, held until `release` or its end."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def settle(self, settings: LogSettings) -> LogSettings:
        """Return `settings` with no rotation for the files that another process rotates."""
        return msgspec.structs.replace(
            settings,
            outputs=tuple(self._settled(output) for output in settings.outputs),
            session=self._settled(settings.session),
        )

    def _settled(self, output: _Output) -> _Output:
        if not is_file_path(output.path) or output.rotate.rules() is None:
            return output
        if self._take(output.path):
            return output
        return msgspec.structs.replace(output, rotate=Rotation())

    def _take(self, path: str) -> bool:
        """Return whether this process is to rotate the file at `path`."""
        if fcntl is None:
            return True
        folder, name = os.path.split(os.path.abspath(path))
        # Behind a link, as the rotation itself; but for a link that is its own.
        lock = os.path.join(os.path.realpath(folder), f".{name}.lock")
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # the log itself will tell why
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptors.append(descriptor)
        return True

    def release(self) -> None:
        """Give the locks back. Their files stay: somebody may just be taking one."""
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors = []
