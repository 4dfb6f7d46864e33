"""What happens to a log's files once they have ended: retention and compression, in a thread.

A compressed file appears under its name when it is whole and on the disk, by a rename; only then
is what it was made of removed. So whenever the process ends, every line is in a file that can be
read: before the rename in the one without suffix, and what was begun lies under a hidden name,
removed at the next start. Between rename and removal both are there, with the same modification
time: the next start knows by it that only the removal is missing.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from h2log.clock import wall
from h2log.errors import UsageError
from h2log.logfile.rotation import SUFFIXES, Names, Old, Rotation

__all__ = ["Archive"]

_logger = logging.getLogger("h2log.log")

_CHUNK: Final = 1024 * 1024
_LEVEL: Final = 6
"""gzip's own default."""
_PART: Final = ".part"
_NICE: Final = 10
_STALE: Final = 10.0
"""Seconds after which a name that was reserved, and not renamed over, is nobody's any more."""


class Archive:
    """The files in `folder` that have ended, by `names`. Owns one thread, begun when needed."""

    def __init__(self, folder: Path, names: Names, rotation: Rotation) -> None:
        self._folder = folder
        self._names = names
        self._keep = rotation.keep
        self._compress = rotation.compress
        self._settle = rotation.settle
        self._open: Callable[[IO[bytes]], Any] | None = _compressor(rotation.compress)
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self.current = ""
        """The name of the file that is written to, where it is one of `names`. Set before it is
        made, by the writer's thread."""

    def kick(self) -> None:
        """Look at the folder soon."""
        if not (self._keep or self._compress):
            return
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(
                    target=self._run, name="h2log-log-archive", daemon=True
                )
                self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; a compression that it is in is given up, for the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def idle(self) -> bool:
        """Return whether everything that was asked for is done."""
        with self._changed:
            return self._asked == self._done

    def _run(self) -> None:
        if sys.platform == "linux":  # a thread has its own niceness there
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        self._remove_parts()
        due: float | None = None
        seen = 0
        while True:
            with self._changed:
                if not self._stopping and self._asked == seen:
                    self._changed.wait(due)
                if self._stopping:
                    return
                seen = self._asked
            due = self._tidy()
            if due is None:
                with self._changed:
                    self._done = seen

    def _tidy(self) -> float | None:
        """Delete and compress what is to be; return when something has to be looked at again."""
        try:
            self._retain()
            wait = self._compress_all()
            self._retain()
            return wait
        except OSError as error:
            self._tell("the folder", error)
            return None

    def _files(self) -> list[Old]:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if self._names.match(entry.name) and entry.name != self.current:
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if entry.is_file(follow_symlinks=False):
                            found.append(Old(entry.name, status.st_size, status.st_mtime))
                    except FileNotFoundError:
                        continue
        return found

    def _retain(self) -> None:
        # A file that is about to be compressed has no size yet: it may be a tenth of what it is.
        files = [old._replace(size=0) if self._is_due(old) else old for old in self._files()]
        for name in self._keep.surplus(files, wall()):
            try:
                os.unlink(self._folder / name)
            except FileNotFoundError:
                pass
            except OSError as error:
                self._tell(name, error)

    def _is_due(self, old: Old) -> bool:
        """Return whether a file is to be compressed, and nothing is known to prevent it."""
        return (
            self._open is not None
            and self._names.match(old.name) == "plain"
            and old.name not in self._told
        )

    def _compress_all(self) -> float | None:
        if self._open is None:
            return None
        suffix = SUFFIXES[self._compress]
        wait: float | None = None
        for old in sorted(self._files(), key=lambda old: old.modified):
            # An empty one may be a name that is reserved, and about to be renamed over.
            if not old.size or self._names.match(old.name) != "plain":
                continue
            left = old.modified + self._settle - wall()
            if 0 < left <= self._settle:  # more than that: the clock was set back
                wait = left if wait is None else min(wait, left)
                continue
            part = self._folder / f".{old.name}{suffix}{_PART}"
            try:
                if not self._compress_one(old.name, self._folder / f"{old.name}{suffix}", part):
                    return None
            except FileNotFoundError:  # deleted meanwhile
                pass
            except OSError as error:
                self._tell(old.name, error)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        return wait

    def _compress_one(self, name: str, target: Path, part: Path) -> bool:
        """Return False when the thread was asked to stop on the way."""
        assert self._open is not None
        path = self._folder / name
        with open(path, "rb") as source:
            status = os.fstat(source.fileno())
            if target.exists():
                if target.stat().st_mtime_ns == status.st_mtime_ns:
                    path.unlink()  # all that was missing
                else:
                    self._tell(name, FileExistsError(0, f"{target.name} is there already"))
                return True
            part.unlink(missing_ok=True)
            # Nobody else's until it is whole: it has lines that its log may keep from others.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as raw, self._open(raw) as packed:
                while data := source.read(_CHUNK):
                    if self._stopping:
                        return False
                    packed.write(data)
            with open(part, "rb") as whole:
                with contextlib.suppress(OSError):
                    os.fchown(whole.fileno(), status.st_uid, status.st_gid)
                os.fchmod(whole.fileno(), status.st_mode & 0o7777)
                os.utime(whole.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(whole.fileno())
            status = os.fstat(source.fileno())
            if status.st_size != source.tell() or os.stat(path).st_ino != status.st_ino:
                return True  # somebody still writes to it: at the next turn
            os.rename(part, target)
            path.unlink()
        return True

    def _remove_parts(self) -> None:
        """Remove what a compression, or a rotation, that did not come to its end has left."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") and name.endswith(_PART):
                    whole = name.removeprefix(".").removesuffix(_PART)
                    if self._names.match(whole) == "compressed":
                        os.unlink(entry.path)
        with contextlib.suppress(OSError):
            for old in self._files():
                reserved = not old.size and self._names.match(old.name) == "plain"
                if reserved and wall() - old.modified > _STALE:
                    os.unlink(self._folder / old.name)

    def _tell(self, name: str, error: OSError) -> None:
        """Say once for each file what went wrong with it."""
        if name not in self._told:
            self._told.add(name)
            _logger.warning(
                "cannot tidy up %s in %s: %s", name, self._folder, error.strerror or error
            )


def _compressor(method: str) -> Callable[[IO[bytes]], Any] | None:
    """Return what writes compressed to an open file; UsageError where it is not installed."""
    if not method:
        return None
    if method == "gzip":
        # No name and no time in its header: the same lines give the same bytes.
        return lambda raw: gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0)
    for module in ("compression.zstd", "zstandard"):
        try:
            library: Any = importlib.import_module(module)
        except ImportError:
            continue
        return lambda raw: library.open(raw, "wb")
    raise UsageError(
        "rotate.compress: zstd needs Python 3.14 or the package zstandard; "
        "pip install 'h2log[zstd]', or use gzip"
    )
