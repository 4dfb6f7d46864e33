"""One open file that several responses read at the same time, each at a place of its own."""

from __future__ import annotations

import os
from io import SEEK_CUR, SEEK_END, SEEK_SET, FileIO, RawIOBase
from typing import Any, Final

__all__ = ["SHAREABLE", "Descriptor", "SharedFile", "file_of"]

SHAREABLE: Final = hasattr(os, "preadv")
"""Whether a file can be read at any place; else all who have it open share its position."""
_ALL: Final = 1024 * 1024


class Descriptor:
    """The number of an open file: closed when nobody holds this any more."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class SharedFile(RawIOBase):
    """A regular file, open for reading; to close it leaves it open for others that read it."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor: Descriptor | None = descriptor
        self._at = 0

    def fileno(self) -> int:
        """Return the number of the open file. Raises ValueError when it is closed."""
        descriptor = self._descriptor
        if descriptor is None:
            raise ValueError("I/O operation on closed file")
        return descriptor.number

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`, and return how many bytes; 0 at the end."""
        count = os.preadv(self.fileno(), (buffer,), self._at)
        self._at += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, all that is left without it; nothing at the end."""
        if size is None or size < 0:
            pieces = []
            while piece := self.read(_ALL):
                pieces.append(piece)
            return b"".join(pieces)
        piece = os.pread(self.fileno(), size, self._at)
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place; return where that is."""
        if whence == SEEK_CUR:
            offset += self._at
        elif whence == SEEK_END:
            offset += os.fstat(self.fileno()).st_size
        elif whence != SEEK_SET:
            raise ValueError(f"invalid whence: {whence}")
        if offset < 0:
            raise ValueError(f"negative place: {offset}")
        self.fileno()
        self._at = offset
        return offset

    def close(self) -> None:
        """Read nothing more."""
        self._descriptor = None
        super().close()


def file_of(descriptor: Descriptor) -> FileIO | SharedFile:
    """Return a file with a position of its own, where the system can have that."""
    if SHAREABLE:
        return SharedFile(descriptor)
    return FileIO(os.dup(descriptor.number), "rb")
