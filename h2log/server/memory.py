"""The memory that a process keeps of what it has freed, where the C library is glibc."""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["give_back_memory", "tune_allocator"]

# mallopt(3)'s parameters and the values for them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 16 * 1024 * 1024
# uvloop's read buffer of each TLS connection is of this size: mapped, it takes only the pages that
# were ever used, a few of its 64. What we allocate again and again stays below (`FILE_CHUNK`).
_MAPPED_FROM = 256 * 1024


def tune_allocator() -> None:
    """Keep freed memory of a few responses' size, where the C library is glibc.

    Its defaults give blocks of 128 KiB and more, and the heap's end, back to the system at once:
    a large file's pieces would be paged in anew each time, a third of the cost of sending it.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def give_back_memory() -> None:
    """Give what the last load left to the system again, where the C library is glibc."""
    gc.collect()
    if sys.platform.startswith("linux"):
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):  # musl
            pass
