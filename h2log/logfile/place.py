"""Where a log lies: the path, the file that is written to under it, and those that have ended.

Makes, opens, renames and links files; what is written to them is none of its business. Nothing is
ever renamed over a log: the name of a file that has ended is reserved first, by an empty file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from h2log.clock import wall
from h2log.logfile.archive import Archive
from h2log.logfile.rotation import Names, Rotation

__all__ = ["Place", "is_file"]


class Place:
    """The files of the log at `path`."""

    def __init__(self, path: str, rotation: Rotation | None, mode: int | None) -> None:
        self._path = path
        self._mode = mode
        self._rotation = rotation
        self.linked = rotation is not None and rotation.current == "symlink"
        self.live = Path(path)
        """The file that is written to: behind the link, if there is one."""
        self._names: Names | None = None
        self._last_name = (0.0, 0)
        self.archive: Archive | None = None
        if rotation is not None:
            # A link that somebody else made stays, and what it leads to is rotated where it is.
            if not self.linked and self.live.is_symlink() and self.live.is_file():
                self.live = self.live.resolve()
            self._names = rotation.names(self.live.name)
            self.archive = Archive(self.live.parent, self._names, rotation)

    def open(self) -> int:
        """Open the log for appending, making its folder; return the descriptor. OSError."""
        if self.linked:
            return self._open_linked()
        if self._path:
            self.live.parent.mkdir(parents=True, exist_ok=True)
        return self._open_file(self.live)

    def holds(self, status: os.stat_result) -> bool:
        """Return whether the log is still the file that `status` is of."""
        return is_file(self.live, status) and (not self.linked or is_file(Path(self._path), status))

    def open_again(self, status: os.stat_result) -> int | None:
        """Open the log anew after it was moved; None when only a link to it was missing."""
        if self.linked and is_file(self.live, status):
            self._link()
            return None
        return self.open()

    def succeed(self, period: float, *, empty: bool) -> int:
        """End the live file, whose lines are of `period`, and open its successor. OSError.

        After an error the live file may have its new name already, and no successor; where it is
        a link's, an `empty` one is removed.
        """
        if self.linked:
            ended = self.live
            descriptor = self._begin_linked()
            if empty:
                ended.unlink(missing_ok=True)
            return descriptor
        target = self._reserve(period)
        try:
            os.rename(self.live, target)
        except OSError:
            with contextlib.suppress(OSError):
                target.unlink()
            raise
        return self._open_file(self.live)

    def _open_file(self, path: Path) -> int:
        try:
            status: os.stat_result | None = os.stat(path)
        except OSError:
            status = None
        flags = os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        text = str(path) if self._path else ""
        if status is not None and not stat.S_ISREG(status.st_mode):
            if not stat.S_ISFIFO(status.st_mode):
                return os.open(text, flags | os.O_WRONLY)
            try:  # without O_NONBLOCK this would wait for somebody who reads it
                return os.open(text, flags | os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                raise OSError(errno.ENXIO, "nobody reads from this pipe", text) from None
        flags |= os.O_CREAT
        mode = 0o666 if self._mode is None else self._mode
        try:
            descriptor = os.open(text, flags | os.O_RDWR, mode)
        except PermissionError:  # a file that we may write and not read
            descriptor = os.open(text, flags | os.O_WRONLY, mode)
        if self._mode is not None and status is None:
            os.fchmod(descriptor, self._mode)
        return descriptor

    def _reserve(self, period: float) -> Path:
        """Make an empty file under the next name."""
        assert self._names is not None
        folder = self.live.parent
        last, number = self._last_name
        if last == period and number:
            number += 1
        else:
            number = self._names.first_free(period, os.listdir(folder))
        while True:
            target = folder / self._names.name(period, number)
            if self.linked and self.archive is not None:
                self.archive.current = target.name
            try:
                mode = 0o666 if self._mode is None else self._mode
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            except FileExistsError:
                number += 1
                continue
            self._last_name = (period, number)
            return target

    # A link to the live file

    def _begin_linked(self) -> int:
        """Begin a file under its own name, and have the link lead to it."""
        assert self._rotation is not None and self.archive is not None
        before = self.live
        target = self._reserve(self._rotation.period(wall()))
        try:
            if self._mode is not None:
                os.chmod(target, self._mode)
            descriptor = self._open_file(target)
            self.live = target
            try:
                self._link()
            except OSError:
                os.close(descriptor)
                raise
        except OSError:
            self.live = before
            self.archive.current = before.name
            with contextlib.suppress(OSError):
                target.unlink()
            raise
        return descriptor

    def _link(self) -> None:
        link = Path(self._path)
        new = link.with_name(f".{link.name}.link")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to(self.live.name)
        new.rename(link)

    def _open_linked(self) -> int:
        """Go on in the file that the link leads to, if its period still lasts; else begin one."""
        assert self._rotation is not None and self._names is not None and self.archive is not None
        link = Path(self._path)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            found = link.parent / os.readlink(link)
            if (
                found.parent == link.parent
                and self._names.match(found.name) == "plain"
                and found.is_file()
                and self._rotation.ends(found.stat().st_mtime) > wall()
            ):
                self.live = found
                self.archive.current = found.name
                return self._open_file(found)
        elif link.is_file():  # of a time when the log was not a link
            status = link.stat()
            if status.st_size:
                os.rename(link, self._reserve(self._rotation.period(status.st_mtime)))
        elif link.exists():
            raise OSError(errno.EINVAL, "not a regular file", str(link))
        return self._begin_linked()


def is_file(path: Path, status: os.stat_result) -> bool:
    """Return whether `path` is the file that `status` is of."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_ino, found.st_dev) == (status.st_ino, status.st_dev)
