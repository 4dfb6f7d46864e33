"""A file that a client sends in a form: small in memory, large on the disk."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import AsyncIterator
from typing import Final

from h2log.app.files.threads import FILE_THREADS, in_thread
from h2log.app.headers import Headers

__all__ = ["SPOOL_BYTES", "UploadFile"]

SPOOL_BYTES: Final = 1024 * 1024
"""Bytes of the largest file that is kept in memory (Starlette and python-multipart 1 MiB, Django
2.5 MiB)."""
PIECE: Final = 240 * 1024
"""Bytes that are written to or read from the disk at a time: a thread's round trip costs as much
as copying this many."""
MAX_NAME: Final = 255
"""Bytes of a file name that file systems take."""

_UNSAFE: Final = re.compile(r'[<>:"|?*]')
# Names of devices, with any suffix, where Windows' rules hold.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE).match
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories


class UploadFile:
    """An uploaded file.

    `name` is the form's field; `filename` what the client calls the file, as it was sent: never a
    path to write to, for that there is `basename`; `content_type` what the client says of it, or
    nothing; `size` its bytes; `headers` those of its part. It is open until the request ends,
    background work included; reading begins at its start, and raises ValueError once it is closed.
    """

    __slots__ = (
        "_closed",
        "_file",
        "_lock",
        "_on_disk",
        "_pending",
        "content_type",
        "filename",
        "headers",
        "name",
        "size",
    )

    def __init__(self, name: str, filename: str, headers: Headers) -> None:
        self.name = name
        self.filename = filename
        self.headers = headers
        self.content_type = headers.get("content-type", "")
        self.size = 0
        self._file = tempfile.SpooledTemporaryFile[bytes](max_size=0)
        self._on_disk = False
        self._pending = bytearray()  # for the disk
        self._closed = False
        self._lock = threading.Lock()  # of threads that work with a file on the disk

    @property
    def basename(self) -> str:
        """The file name alone, safe to create on any system: `upload` when nothing is left of it.

        Without folders, characters that are invisible or mean something to a system, and leading
        dots; at most 255 bytes of UTF-8, the suffix kept.
        """
        name = re.split(r"[/\\]", self.filename)[-1]
        name = "".join("" if unicodedata.category(c) in _INVISIBLE else c for c in name)
        name = _UNSAFE.sub("_", name).strip().lstrip(".").strip().rstrip(".")
        if not name:
            return "upload"
        if _DEVICE(name):
            name = f"_{name}"
        if len(name.encode()) > MAX_NAME:
            stem, suffix = os.path.splitext(name)
            if len(suffix.encode()) > 32:
                stem, suffix = name, ""
            room = MAX_NAME - len(suffix.encode())
            name = stem.encode()[:room].decode("utf-8", "ignore") + suffix
        return name

    @property
    def in_memory(self) -> bool:
        """Whether it takes memory, and not the disk."""
        return not self._on_disk

    # Reading

    async def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, less at the end, b"" after it; all that is left for -1."""
        if not self._on_disk:
            return self._file.read(size)
        return await in_thread(lambda: self._read_now(size))

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset` from the start (`whence` as of `io`); return the position."""
        if not self._on_disk:
            return self._seek_now(offset, whence)
        return await in_thread(lambda: self._seek_now(offset, whence))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(PIECE):
            yield piece

    async def close(self) -> None:
        """Close it before the request ends, so that its memory or place on the disk is free."""
        self.close_soon()

    def close_soon(self) -> None:
        """Close it; what is on the disk by a thread, when its last work there is done."""
        if self._closed:
            return
        self._closed = True
        if self._on_disk:
            FILE_THREADS.submit(self._close_now)
        else:
            self._file.close()

    # Writing: what parses the form does

    async def append(self, piece: bytes, *, spool: bool) -> None:
        """Add to its end; `spool`: from now on it goes to the disk."""
        self.size += len(piece)
        if not self._on_disk and not spool:
            self._file.write(piece)
            return
        self._pending += piece
        if not self._on_disk or len(self._pending) >= PIECE:
            await self._flush()

    async def complete(self) -> None:
        """The whole file has come: reading begins at its start."""
        if self._pending:
            await self._flush()
        await self.seek(0)

    async def _flush(self) -> None:
        self._on_disk = True
        pending, self._pending = self._pending, bytearray()
        await in_thread(lambda: self._write_now(pending))

    # In a thread, one at a time: also when whoever waited for it has gone

    def _write_now(self, data: bytearray) -> None:
        with self._lock:
            self._file.rollover()
            self._file.write(data)

    def _read_now(self, size: int) -> bytes:
        with self._lock:
            return self._file.read(size)

    def _seek_now(self, offset: int, whence: int) -> int:
        with self._lock:
            self._file.seek(offset, whence)
            return self._file.tell()

    def _close_now(self) -> None:
        with self._lock:
            self._file.close()

    def __repr__(self) -> str:
        return f"<UploadFile {self.name!r} {self.filename!r} {self.size} bytes>"
