"""Content of files, read right to where it has its place between frame headers.

So it is copied once less than what is queued, joined and then written, and no memory is asked for:
of what was handed to a transport nothing is left as soon as TLS has encrypted it.
"""

from __future__ import annotations

import os
from typing import Final

from h2log.http2.frames import DATA, DEFAULT_FRAME_SIZE, END_STREAM, HEADER

__all__ = ["BEFORE", "MOST_FRAMED", "FrameBuffer"]

MOST_FRAMED: Final = 15 * DEFAULT_FRAME_SIZE
"""Bytes of content that are handed to a transport at once: measured with large files, half as many
cost an eighth more. Of as much, encrypted, each write makes a copy, which stays below the size from
which the allocator maps memory anew (see `process`)."""
BEFORE: Final = 4096
"""Bytes that may go out before it: the response's header section, for one."""
_STEP: Final = HEADER.size + DEFAULT_FRAME_SIZE
_SIZE: Final = BEFORE + (MOST_FRAMED // DEFAULT_FRAME_SIZE) * _STEP
_NO_WAIT: Final = getattr(os, "RWF_NOWAIT", None)  # Linux


class FrameBuffer:
    """Memory for as many DATA frames as are sent at once, used again and again."""

    __slots__ = ("_at", "_memory", "room")

    def __init__(self) -> None:
        self._memory = bytearray(_SIZE)
        self._at = BEFORE
        self.room = 0
        """Bytes of content that can still be added."""

    def begin(self) -> None:
        """Begin with no frame."""
        try:
            self._memory.append(0)  # nobody can make longer what somebody still reads
            self._memory.pop()
        except BufferError:  # a transport that was full, and does not copy
            self._memory = bytearray(_SIZE)
        self._at = BEFORE
        self.room = MOST_FRAMED

    def add(self, descriptor: int, stream_id: int, offset: int, size: int, end: bool) -> int:
        """Add frames of what the system has in memory of `size` bytes of a file, at most `room`.

        Return of how many: 0 at the file's end too, or where the system cannot tell what it has.
        `end` ends the stream with the last of all of them.
        """
        if _NO_WAIT is None:
            return 0
        memory = self._memory
        view = memoryview(memory)
        places = []
        start = self._at
        at = start + HEADER.size
        left = size
        while left > DEFAULT_FRAME_SIZE:
            places.append(view[at : at + DEFAULT_FRAME_SIZE])
            at += _STEP
            left -= DEFAULT_FRAME_SIZE
        places.append(view[at : at + left])
        try:
            count = os.preadv(descriptor, places, offset, _NO_WAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            return 0
        if not count:
            return 0
        pack = HEADER.pack_into
        left = count
        while left > DEFAULT_FRAME_SIZE:
            pack(memory, start, 0, DEFAULT_FRAME_SIZE, DATA, 0, stream_id)
            start += _STEP
            left -= DEFAULT_FRAME_SIZE
        flags = END_STREAM if end and count == size else 0
        pack(memory, start, 0, left, DATA, flags, stream_id)
        self._at = start + HEADER.size + left
        # A frame that is not full takes the place of one that is.
        self.room -= -(-count // DEFAULT_FRAME_SIZE) * DEFAULT_FRAME_SIZE
        return count

    def framed(self, before: bytes) -> memoryview:
        """Return `before`, of at most `BEFORE` bytes, and all frames that were added."""
        first = BEFORE - len(before)
        self._memory[first:BEFORE] = before
        return memoryview(self._memory)[first : self._at]
