"""Files that ASGI applications name in place of content (`http.response.pathsend`).

Small ones stay in memory. The disk is asked each time whether one is still the same, which takes
some microseconds: the application may just have written it, and declares the length of that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from io import FileIO
from typing import Final

from h2log.app.files.disk import Version, identity
from h2log.app.files.memory import OUT, Memory
from h2log.app.files.threads import in_thread
from h2log.app.response import FileContent
from h2log.clock import monotonic, wall

__all__ = ["PathFiles"]

_MOST_KEPT: Final = 256 * 1024
"""Bytes of the largest file that is kept: what is larger costs little more read from the disk."""
_SETTLED: Final = 2.0
"""Seconds since its last change after which the next one must show in a file's date: file systems
count in milliseconds, FAT in two seconds."""
_USED: Final = 1.0
"""Seconds for which an entry is not counted as used once more."""
_ENTRY_COST: Final = 512
"""Bytes that an entry takes besides its content."""
# Not O_NOFOLLOW: the path is the application's own. A pipe must not keep the thread that opens it.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


class _Entry:
    """A file in memory."""

    __slots__ = ("content", "cost", "identity", "key", "part", "used")

    def __init__(self, path: str, content: bytes, version: Version) -> None:
        self.key = path
        self.content = content
        self.identity = version.identity
        self.cost = len(content) + _ENTRY_COST
        self.part = OUT
        self.used = monotonic()


class PathFiles:
    """The files of one application: at most `limit` bytes of them in memory."""

    def __init__(self, limit: int) -> None:
        self._memory: Memory[_Entry] = Memory(limit, lambda entry: None)

    def kept(self, path: str) -> bytes | None:
        """Return a file's content if it is in memory and current."""
        entry = self._memory.entries.get(path)
        if entry is None or identity(path) != entry.identity:
            return None
        now = monotonic()
        if now - entry.used > _USED:
            entry.used = now
            self._memory.used(entry)
        return entry.content

    async def find(self, path: str) -> bytes | FileContent:
        """Return a file's content, or the open file when it is large.

        Raises OSError when it cannot be read, or is no regular file.
        """
        reading = asyncio.ensure_future(in_thread(lambda: _read(path)))
        try:
            found = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(_drop)
            raise
        if isinstance(found, FileContent):
            return found
        content, version = found
        if wall() - version.modified > _SETTLED:
            self._memory.put(_Entry(path, content, version))
        return content


def _drop(reading: asyncio.Future[FileContent | tuple[bytes, Version]]) -> None:
    """Close a file that nobody waits for any more."""
    if not reading.cancelled() and reading.exception() is None:
        found = reading.result()
        if isinstance(found, FileContent):
            found.file.close()


def _read(path: str) -> FileContent | tuple[bytes, Version]:
    """Return a file: its content, or itself when it is large."""
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # a NUL
        raise OSError(errno.EINVAL, "invalid path") from None
    kept = False
    try:
        status = os.fstat(descriptor)
        # Before there is a file of it: of a folder there is none, and its number would stay open.
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        version = Version(status)
        if status.st_size > _MOST_KEPT:
            file = FileIO(descriptor)
            kept = True
            return FileContent(file, 0, status.st_size)
        content = FileIO(descriptor, closefd=False).read(_MOST_KEPT + 1)
        if len(content) > _MOST_KEPT:  # it has grown since
            raise OSError(errno.EAGAIN, "the file changes while it is read")
        return content, version
    finally:
        if not kept:
            os.close(descriptor)
