"""A worker's end of the way to the owner of the log: turns go out, and are kept until written.

Whatever the owner has not acknowledged can be sent again, to it or to the process that comes after
it. What is kept has a bound; beyond it turns are refused, and whoever makes them counts.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from h2log.workers.channel import Channel, frame
from h2log.workers.messages import Ack, Bye, Hello, Turn, encode, with_owner

__all__ = ["Link"]


class Link:
    """Sends turns, in order. `greet` makes the first message of each new connection.

    `acknowledged` is called with the number of the last line that is taken care of, and with that
    of the last one at an arrival.
    """

    def __init__(
        self, greet: Callable[[int, int], Hello], acknowledged: Callable[[int, int], None]
    ) -> None:
        self._greet = greet
        self._told = acknowledged
        self._channel: Channel | None = None
        self._kept: deque[tuple[int, int, int, bytes]] = deque()  # turn, its last lines, frame
        self._empty = asyncio.Event()
        self._empty.set()
        self._sequence = self._arrivals = 0
        self.kept = 0
        """Bytes of the turns that are not acknowledged."""

    @property
    def waiting(self) -> bool:
        """Whether anything was not handed to the kernel yet: it ends with this process."""
        channel = self._channel
        return (channel is None or channel.waiting > 0) and bool(self._kept)

    def connect(self, sock: socket.socket) -> None:
        """Go on over `sock`, from what was acknowledged."""
        self.close()
        channel = Channel(sock, with_owner, self._received, self._lost)
        self._channel = channel
        channel.send(frame(encode(self._greet(self._sequence, len(self._kept)))))
        for *_, data in self._kept:
            channel.send(data)

    def send(self, turn: Turn) -> None:
        """Send a turn, and keep it."""
        data = frame(encode(turn))
        self._kept.append((turn.turn, turn.last, turn.arrivals, data))
        self.kept += len(data)
        self._empty.clear()
        if self._channel is not None:
            self._channel.send(data)

    def bye(self) -> None:
        """Say that nothing more comes, and nothing is left to tell."""
        if self._channel is not None:
            self._channel.send(frame(encode(Bye())))

    async def settled(self, timeout: float) -> bool:
        """Return whether all was acknowledged within `timeout` seconds."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _lost(self) -> None:
        self._channel = None

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if not isinstance(message, Ack):
            return
        kept = self._kept
        while kept and kept[0][0] <= message.turn:
            _, self._sequence, self._arrivals, data = kept.popleft()
            self.kept -= len(data)
        if not kept:
            self._empty.set()
        self._told(self._sequence, self._arrivals)
