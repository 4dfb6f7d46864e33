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

    __slots__ = ("_memory",)

    def __init__(self) -> None:
        self._memory = bytearray(_SIZE)

    def read(self, descriptor: int, offset: int, size: int) -> int:
        """Read from a file what the system has of it in memory, at most `MOST_FRAMED` bytes.

        Return how many: 0 at the end too, or where the system cannot tell what it has.
        """
        if _NO_WAIT is None:
            return 0
        memory = self._memory
        try:
            memory.append(0)  # nobody can make longer what somebody still reads
            memory.pop()
        except BufferError:  # a transport that was full, and does not copy
            memory = self._memory = bytearray(_SIZE)
        view = memoryview(memory)
        places = []
        at = BEFORE + HEADER.size
        left = min(size, MOST_FRAMED)
        while left > 0:
            places.append(view[at : at + min(left, DEFAULT_FRAME_SIZE)])
            at += _STEP
            left -= DEFAULT_FRAME_SIZE
        try:
            return os.preadv(descriptor, places, offset, _NO_WAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            return 0

    def framed(self, before: bytes, stream_id: int, size: int, end: bool) -> memoryview:
        """Return `before`, of at most `BEFORE` bytes, and DATA frames of what was read last.

        `size` is how much of that, and not nothing; `end` ends the stream with it.
        """
        memory = self._memory
        pack = HEADER.pack_into
        at = BEFORE
        while size > DEFAULT_FRAME_SIZE:
            pack(memory, at, 0, DEFAULT_FRAME_SIZE, DATA, 0, stream_id)
            at += _STEP
            size -= DEFAULT_FRAME_SIZE
        pack(memory, at, 0, size, DATA, END_STREAM if end else 0, stream_id)
        first = BEFORE - len(before)
        memory[first:BEFORE] = before
        return memoryview(memory)[first : at + HEADER.size + size]
