"""A file that a client sends in a form: small in memory, large on the disk.

All that a form has on the disk is in one temporary file, its `Spool`: a form of many files takes no
more of the server's descriptors than one of a single file.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import AsyncIterator
from io import BytesIO
from typing import IO, Final

from h2log.app.files.threads import FILE_THREADS, in_thread
from h2log.app.headers import Headers
from h2log.clock import monotonic
from h2log.errors import HTTPError

__all__ = ["SPOOL_BYTES", "Spool", "UploadFile"]

_logger = logging.getLogger("h2log.app")

SPOOL_BYTES: Final = 1024 * 1024
"""Bytes of the largest file that is kept in memory (Starlette and python-multipart 1 MiB, Django
2.5 MiB)."""
PIECE: Final = 240 * 1024
"""Bytes that are written to or read from the disk at a time: a thread's round trip costs as much
as copying this many."""
MAX_NAME: Final = 255
"""Bytes of a file name that file systems take."""

_SHORT: Final = frozenset(
    getattr(errno, name)
    for name in ("EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC")
    if hasattr(errno, name)
)
"""What the system says when it is short of something, and the form is none the worse."""
_TELL_EVERY: Final = 60.0
"""Seconds between two messages that files cannot be stored: each upload would make one."""

_UNSAFE: Final = re.compile(r'[<>:"|?*]')
# Names of devices, with any suffix, where Windows' rules hold.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE).match
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories


class Spool:
    """The temporary file of one form: what is on the disk of all its files, one after the other.

    It is closed when each of the files that are in it is.
    """

    __slots__ = ("_closed", "_end", "_file", "_files", "lock")

    _told_at = -math.inf

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._files = 0
        self._closed = False
        self.lock = threading.Lock()
        """Held by the thread that works with it: also when whoever waited for that has gone."""

    def enter(self) -> None:
        """One more file is in it."""
        self._files += 1

    def leave(self) -> None:
        """A file that is in it is closed; the last one's place on the disk is free soon."""
        self._files -= 1
        if not self._files:
            FILE_THREADS.submit(self._close)

    # In a thread

    def append(self, data: bytes | bytearray) -> int:
        """Add to the end; return where that was.

        Raises HTTPError 503 when the system is short of room or descriptors, OSError for what else
        is wrong with it.
        """
        with self.lock:
            if self._closed:  # the form is given up
                return self._end
            try:
                return self._append(data)
            except OSError as error:
                if error.errno in _SHORT or tempfile.tempdir is None:
                    self._tell(error)
                    raise HTTPError(503, "the server has no room for files now") from None
                raise

    def _append(self, data: bytes | bytearray) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see `_close`
        start = self._end
        self._file.seek(start)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._end = start + len(data)
        return start

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. The caller holds `lock`."""
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(size)

    def _close(self) -> None:
        with self.lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    @classmethod
    def _tell(cls, error: OSError) -> None:
        now = monotonic()
        if now - Spool._told_at >= _TELL_EVERY:
            Spool._told_at = now
            _logger.error("files of forms cannot be stored: %s", error)


class UploadFile:
    """An uploaded file.

    `name` is the form's field; `filename` what the client calls the file, as it was sent: never a
    path to write to, for that there is `basename`; `content_type` what the client says of it, or
    nothing; `size` its bytes; `headers` those of its part. It is open until the request ends,
    background work included; reading begins at its start, and raises ValueError once it is closed.
    """

    __slots__ = (
        "_at",
        "_memory",
        "_pending",
        "_spool",
        "_start",
        "closed",
        "content_type",
        "filename",
        "headers",
        "name",
        "size",
    )

    def __init__(
        self, name: str, filename: str, headers: Headers, spool: Spool | None = None
    ) -> None:
        self.name = name
        self.filename = filename
        self.headers = headers
        self.content_type = headers.get("content-type", "")
        self.size = 0
        self.closed = False
        """Whether it cannot be read any more."""
        self._spool = Spool() if spool is None else spool
        self._memory: BytesIO | None = BytesIO()  # None once it is on the disk
        self._pending = bytearray()  # for the disk
        self._start = -1  # where it begins in the spool
        self._at = 0  # where reading goes on, on the disk

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
        return self._memory is not None

    # Reading

    async def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, less at the end, b"" after it; all that is left for -1."""
        self._must_be_open()
        if self._memory is not None:
            return self._memory.read(size)
        return await in_thread(lambda: self._read_now(size))

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset` from the start (`whence` as of `io`); return the position.

        Raises ValueError for one before the start.
        """
        self._must_be_open()
        if self._memory is not None:
            return self._memory.seek(offset, whence)
        return await in_thread(lambda: self._seek_now(offset, whence))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(PIECE):
            yield piece

    async def close(self) -> None:
        """Close it before the request ends: its memory is free then.

        Its place on the disk is when all files of the form that are there are closed.
        """
        self.close_soon()

    def close_soon(self) -> None:
        """Close it; what is on the disk by a thread, when its last work there is done."""
        if self.closed:
            return
        self.closed = True
        if self._memory is None:
            self._spool.leave()
        else:
            self._memory.close()

    def _must_be_open(self) -> None:
        if self.closed:
            raise ValueError(f"the uploaded file {self.filename!r} is closed")

    # Writing: what parses the form does

    async def append(self, piece: bytes, *, spool: bool) -> None:
        """Add to its end; `spool`: from now on it goes to the disk."""
        self.size += len(piece)
        if self._memory is not None:
            if not spool:
                self._memory.write(piece)
                return
            self._pending += self._memory.getvalue()
            self._memory.close()
            self._memory = None
            self._spool.enter()
            self._pending += piece
            await self._flush()
            return
        self._pending += piece
        if len(self._pending) >= PIECE:
            await self._flush()

    async def complete(self) -> None:
        """The whole file has come: reading begins at its start."""
        if self._pending:
            await self._flush()
        if self._memory is not None:
            self._memory.seek(0)

    async def _flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        start = await in_thread(lambda: self._spool.append(pending))
        # The parts of a form come one after the other, so that each file is in one piece.
        if self._start < 0:
            self._start = start

    # In a thread, one at a time

    def _read_now(self, size: int) -> bytes:
        with self._spool.lock:
            self._must_be_open()
            left = max(0, self.size - self._at)
            piece = self._spool.read(self._start + self._at, left if size < 0 else min(size, left))
            self._at += len(piece)
            return piece

    def _seek_now(self, offset: int, whence: int) -> int:
        with self._spool.lock:
            self._must_be_open()
            bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}
            if whence not in bases:
                raise ValueError(f"whence is from 0 to 2, not {whence}")
            to = bases[whence] + offset
            if to < 0:
                raise ValueError(f"there is no position {to} in a file")
            self._at = to
            return to

    def __repr__(self) -> str:
        return f"<UploadFile {self.name!r} {self.filename!r} {self.size} bytes>"
