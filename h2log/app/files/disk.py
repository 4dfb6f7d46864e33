"""The one way from a name to the bytes of a file inside a folder.

A name is resolved, what it resolves to must lie inside, and what is opened is what was resolved:
the way down from the root is walked a folder at a time and follows no link, so nothing that takes
a place meanwhile leads out. All of this blocks, and runs in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Final, NamedTuple
from weakref import ReferenceType, ref

from h2log.app.files.paths import WELL_KNOWN
from h2log.app.files.shared import SHAREABLE, Descriptor, SharedFile, file_of
from h2log.clock import wall
from h2log.errors import HTTPError

__all__ = ["Folder", "Identity", "Opened", "Root", "Version", "identity", "tell_trouble"]

Identity = tuple[int, int, int, int]
"""Device, inode, time of modification (ns) and size: what tells one content from another."""

_OUR_TROUBLE: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO))
_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE_FLAGS: Final = (
    os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
_STEP_FLAGS: Final = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _FLAGS
_WALKS: Final = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd
_CHANGING: Final[Identity] = (-1, -1, -1, -1)
_TRIES: Final = 3
"""How often a file that changes while it is read is read again."""


def _identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def identity(file: str) -> Identity | None:
    """Return what identifies a regular file's content, links followed; None for anything else."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return _identity(found) if stat.S_ISREG(found.st_mode) else None


class Version:
    """What identifies a file's content on the disk, and what follows from it.

    `size` in bytes, `modified` in epoch seconds, `tag` the text of an entity tag. A file whose date
    is to come counts as modified when it was looked at: a date that is sent is never in the future
    (RFC 9110 section 8.8.2.1), and what a client sends back is compared with what it was sent.
    """

    __slots__ = ("identity", "modified", "size", "tag")

    def __init__(self, found: os.stat_result) -> None:
        self.identity = _identity(found)
        self.size = found.st_size
        self.modified = min(int(found.st_mtime), int(wall()))
        self.tag = f"{found.st_mtime_ns:x}-{found.st_size:x}"

    @property
    def settled(self) -> bool:
        """Whether a later look can find this version again."""
        return self.identity != _CHANGING


class Folder(NamedTuple):
    """A folder inside the root, by the path without links that it has on the disk."""

    path: str


class Opened:
    """A regular file, open; it is closed when nobody holds this, or a share of it, any more."""

    __slots__ = ("_descriptor", "_moved", "asked", "resolved", "version")

    def __init__(self, descriptor: int | Descriptor, resolved: str, version: Version) -> None:
        if isinstance(descriptor, int):
            descriptor = Descriptor(descriptor)
        self._descriptor: Descriptor | None = descriptor
        self._moved: ReferenceType[Descriptor] | None = None
        self.asked = False
        """For who keeps it: somebody has asked for it since."""
        self.resolved = resolved
        self.version = version

    def take(self) -> FileIO | SharedFile | None:
        """Return the open file, to be closed by who took it; None when it was taken already."""
        descriptor, self._descriptor = self._descriptor, None
        return None if descriptor is None else file_of(descriptor)

    def again(self) -> Opened | None:
        """Return a share of the same open file; None when it was taken, or cannot be shared."""
        if self._descriptor is None or not SHAREABLE:
            return None
        return Opened(self._descriptor, self.resolved, self.version)

    def move(self) -> Opened | None:
        """Return this open file as the caller's alone, to who asks later a share of that.

        None when it was closed meanwhile, taken, or cannot be shared.
        """
        descriptor = self._descriptor
        if descriptor is not None:
            self._descriptor = None
            self._moved = ref(descriptor) if SHAREABLE else None
        elif self._moved is not None:
            descriptor = self._moved()
        return None if descriptor is None else Opened(descriptor, self.resolved, self.version)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on; nothing at the end."""
        return os.pread(self._number, size, offset)

    def read(self, most: int) -> tuple[Version, bytes]:
        """Return the content, at most `most` bytes, and the version that is just that content.

        Also while the file is being written: one that changes each time that it is read gets a
        version that no later look will find again.
        """
        version = self.version
        content = b""
        for _ in range(_TRIES):
            content = self._read_all(min(version.size, most))
            found = os.fstat(self._number)
            if version.identity == _identity(found) and len(content) == version.size:
                return version, content
            version = Version(found)
        version.size = len(content)
        version.tag = f"{time.time_ns():x}-{len(content):x}"
        version.identity = _CHANGING
        return version, content

    def _read_all(self, size: int) -> bytes:
        pieces = []
        at = 0
        while at < size and (piece := os.pread(self._number, size - at, at)):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    @property
    def number(self) -> int | None:
        """The open file's number, to be used at once; None when it was taken, or closed."""
        return None if self._descriptor is None else self._descriptor.number

    @property
    def _number(self) -> int:
        if self._descriptor is None:
            raise ValueError("the file was taken, or closed")
        return self._descriptor.number

    def close(self) -> None:
        """Let go of the file, unless it was taken."""
        self._descriptor = None


class Root:
    """A folder on the disk, and what lies inside it.

    `path` is absolute and without links: what `folder` leads to when this is made, and not where
    it may lead later. What is hidden below it, by a name that begins with a dot, is not inside: a
    link does not make it public. `well_known`: but for what is in its `.well-known`. Raises
    FileNotFoundError and NotADirectoryError.
    """

    def __init__(self, folder: str | os.PathLike[str], *, well_known: bool = False) -> None:
        self.path = os.path.realpath(folder, strict=True)
        if not os.path.isdir(self.path):
            raise NotADirectoryError(f"{folder} is not a folder")
        self._inside = os.path.join(self.path, "")
        self._well_known = well_known

    def resolve(self, file: str) -> str | None:
        """Return a path without its links, None when that is nothing, outside or hidden."""
        try:
            resolved = os.path.realpath(file, strict=True)
        except ValueError:  # a NUL, or what the file system cannot name
            return None
        except OSError as error:
            tell_trouble(error)
            return None
        if resolved == self.path:
            return resolved
        return resolved if resolved.startswith(self._inside) and self._shown(resolved) else None

    def _shown(self, resolved: str) -> bool:
        """Say whether no name on the way to something inside begins with a dot."""
        first, *below = resolved[len(self._inside) :].split(os.sep)
        if first.startswith(".") and not (self._well_known and first == WELL_KNOWN):
            return False
        return not any(name.startswith(".") for name in below)

    def relative(self, resolved: str) -> str:
        """Return the path of something inside, from the root on, with slashes."""
        return resolved[len(self._inside) :].replace(os.sep, "/")

    def open(self, file: str) -> Opened | Folder | None:
        """Open the regular file that a path leads to; a folder is told, anything else is None.

        Raises HTTPError 503 when it is the server that is short of something.
        """
        resolved = self.resolve(file)
        if resolved is None:
            return None
        if resolved == self.path:
            return Folder(resolved)
        try:
            with self._step(os.path.dirname(resolved)) as (parent, prefix):
                name = prefix + os.path.basename(resolved)
                # Looked at before it is opened: to open a device can be to do something with it.
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    return Folder(resolved)
                if not stat.S_ISREG(mode):
                    return None
                descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
            found = os.fstat(descriptor)
            opened = Opened(descriptor, resolved, Version(found))
            return opened if stat.S_ISREG(found.st_mode) else None
        except OSError as error:
            tell_trouble(error)
            return None

    @contextmanager
    def scan(self, folder: Folder) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Give what is in a folder. Raises OSError."""
        with self._step(folder.path) as (descriptor, prefix):
            name = prefix or "."
            flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _FLAGS
            readable = os.open(name, flags, dir_fd=descriptor)
            try:
                with os.scandir(readable) as found:
                    yield found
            finally:
                os.close(readable)

    @contextmanager
    def _step(self, folder: str) -> Iterator[tuple[int | None, str]]:
        """Walk down to a folder, through no link; give its descriptor, and what names go behind."""
        if not _WALKS:  # no such calls on this system: what was resolved has to be believed
            yield None, os.path.join(folder, "")
            return
        at = os.open(self.path, _STEP_FLAGS)
        try:
            for name in folder[len(self._inside) :].split(os.sep):
                if name:
                    below = os.open(name, _STEP_FLAGS, dir_fd=at)
                    os.close(at)
                    at = below
            yield at, ""
        finally:
            os.close(at)


def tell_trouble(error: OSError) -> None:
    """Raise HTTPError 503 for an error that says that the server is short of something."""
    if error.errno in _OUR_TROUBLE:
        raise HTTPError(503) from None
