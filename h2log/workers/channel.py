"""Messages over a Unix stream socket, with descriptors beside them.

A frame is its length (4 bytes), the number of descriptors that come with it (1 byte), and the
message. What the kernel does not take at once waits, in order; whoever sends looks at `waiting`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec.msgpack import Decoder

__all__ = ["Channel", "frame", "pair"]

_logger = logging.getLogger("h2log.workers")

_HEAD: Final = struct.Struct("!IB")
_READ: Final = 256 * 1024
"""Bytes of one read: more than a socket's buffer usually holds."""
_READS_A_TURN: Final = 8
_MOST_DESCRIPTORS: Final = 64
_BUFFER: Final = 4 * 1024 * 1024
"""Asked of the kernel for each direction; it gives what `net.core.wmem_max` allows."""


def frame(message: bytes, descriptors: int = 0) -> bytes:
    """Return a message as it is sent."""
    return _HEAD.pack(len(message), descriptors) + message


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a socket, not blocking, with large buffers."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends


class Channel:
    """One end of a socket, in the running loop.

    `received` is called with each message and the descriptors that came with it, which are its
    own; `lost` once, when the other end is gone or has sent what is no message. After each look at
    the socket the next one waits `pace` seconds: messages that nobody waits for come cheaper in
    numbers.
    """

    def __init__(
        self,
        sock: socket.socket,
        decoder: Decoder[Any],
        received: Callable[[Any, list[int]], None],
        lost: Callable[[], None],
        pace: float = 0.0,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._descriptors: deque[int] = deque()
        self._output: deque[tuple[bytes, list[int]]] = deque()
        self._sent = 0  # bytes of the first of them
        self._reading = False
        self._pace = pace
        self._next_look: asyncio.TimerHandle | None = None
        self.waiting = 0
        """Bytes that the kernel has not taken yet."""
        self.closed = False
        self.resume()

    def pause(self) -> None:
        """Read nothing for a while."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """Read again."""
        self._next_look = None
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a `frame`; the descriptors stay the caller's. Nothing happens when it is lost."""
        if self.closed:
            return
        if not self._output and not descriptors:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:  # `_readable` tells of it
                return
            if sent == len(data):
                return
            self._sent = sent
            self.waiting += len(data) - sent
            self._output.append((data, []))
            self._loop.add_writer(self._sock.fileno(), self._writable)
            return
        if not self._output:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self.waiting += len(data)
        self._output.append((data, [os.dup(number) for number in descriptors]))
        if descriptors and len(self._output) == 1:
            self._writable()

    def send_now(self, data: bytes) -> None:
        """Send a last `frame` from any thread, also when the loop has ended, if there is room."""
        if not self.closed and not self._output:
            with contextlib.suppress(OSError):
                self._sock.send(data)

    def _writable(self) -> None:
        output = self._output
        try:
            while output:
                data, descriptors = output[0]
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                    for number in descriptors:
                        os.close(number)
                    output[0] = (data, [])
                else:
                    sent = self._sock.send(memoryview(data)[self._sent :])
                self.waiting -= sent
                self._sent += sent
                if self._sent == len(data):
                    output.popleft()
                    self._sent = 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the other end is gone, which the reader tells of
            self._forget_output()
        self._loop.remove_writer(self._sock.fileno())

    def _forget_output(self) -> None:
        for _, descriptors in self._output:
            for number in descriptors:
                os.close(number)
        self._output.clear()
        self._sent = self.waiting = 0

    def _readable(self) -> None:
        for _ in range(_READS_A_TURN):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, _READ, _MOST_DESCRIPTORS)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data, descriptors = b"", []
            self._descriptors.extend(descriptors)
            if not data:
                self._take()
                self._end()
                return
            self._input += data
            if len(data) < _READ:
                break
        if self._pace:
            self.pause()
            self._next_look = self._loop.call_later(self._pace, self.resume)
        self._take()

    def _take(self) -> None:
        """Hand on every whole message."""
        try:
            self._take_all()
        except msgspec.MsgspecError as error:  # another release of h2log, during an upgrade
            _logger.error("a message of another process cannot be understood: %s", error)
            self._end()

    def _take_all(self) -> None:
        data = self._input
        at = 0
        with memoryview(data) as view:
            while len(data) - at >= _HEAD.size:
                length, count = _HEAD.unpack_from(view, at)
                end = at + _HEAD.size + length
                if end > len(data):
                    break
                message = self._decoder.decode(view[at + _HEAD.size : end])
                at = end
                # Who has no room for a descriptor does not get it: all of a message's, or none.
                descriptors = []
                if len(self._descriptors) >= count:
                    descriptors = [self._descriptors.popleft() for _ in range(count)]
                self._received(message, descriptors)
                if self.closed:
                    return
        del data[:at]

    def _end(self) -> None:
        if not self.closed:
            self.close()
            self._lost()

    def finish(self) -> None:
        """Take what has come, and close: somebody holds the other end who has nothing to say."""
        while not self.closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, _READ, _MOST_DESCRIPTORS)
            except OSError:
                break
            self._descriptors.extend(descriptors)
            if not data:
                break
            self._input += data
            self._take()
        self.close()

    def close(self) -> None:
        """Close this end; `lost` is not called."""
        if self.closed:
            return
        self.pause()
        self.closed = True
        if self._output:
            self._loop.remove_writer(self._sock.fileno())
            self._forget_output()
        for number in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(number)
        self._descriptors.clear()
        self._sock.close()
