"""Room for what is read from files: a bound on what one HTTP/2 connection may hold of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from h2log.http2.frames import DEFAULT_FRAME_SIZE
from h2log.server.framed import MOST_FRAMED

__all__ = ["HIGH_WATER", "Room"]

HIGH_WATER: Final = 128 * 1024
"""Bytes that a transport may hold before it counts as full (asyncio's default is 64 KiB)."""


class Room:
    """A part of a connection's leg: how much is read of files, and who waits to read more."""

    __slots__ = ("_held", "_room_waiters", "files", "send_buffer")

    def __init__(self, send_buffer: int) -> None:
        self._held = 0  # bytes of files that are being read, or wait to be sent
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self.send_buffer = send_buffer
        """Bytes that may be held for the whole connection."""
        self.files = 0
        """Responses that are files and being sent."""

    def hold(self, size: int, held: int) -> int:
        """Count up to `size` bytes as held; return how many there was room for.

        `held` is what the one that asks holds already: nobody gets more than a fair share.
        """
        limit = self.send_buffer - HIGH_WATER - MOST_FRAMED
        share = max(DEFAULT_FRAME_SIZE, limit // max(1, self.files))
        granted = min(size, share - held, limit - self._held)
        if granted <= 0:
            return 0
        self._held += granted
        return granted

    def release(self, size: int) -> None:
        """Bytes that were held went out, or will not be needed."""
        self._held -= size
        self.wake_waiters()

    async def wait(self) -> None:
        """Return when something has changed that room depends on."""
        waiter = asyncio.get_running_loop().create_future()
        self._room_waiters.append(waiter)
        await waiter

    def wake_waiters(self) -> None:
        """Have those who wait for room look again."""
        waiters = self._room_waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
