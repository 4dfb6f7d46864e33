"""Messages between processes: whole, in order, with their descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import msgspec

from h2log.workers.channel import Channel, frame, pair
from tests.support import eventually

encode = msgspec.msgpack.encode
decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


class End:
    """A channel that remembers what it got."""

    def __init__(self, sock: socket.socket, pace: float = 0.0) -> None:
        self.messages: list[Any] = []
        self.descriptors: list[int] = []
        self.lost = 0
        self.channel = Channel(sock, decoder, self._received, self._lost, pace)

    def _received(self, message: Any, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors += descriptors

    def _lost(self) -> None:
        self.lost += 1

    def send(self, message: Any, *descriptors: int) -> None:
        """Send anything."""
        self.channel.send(frame(encode(message), len(descriptors)), descriptors)


def ends(pace: float = 0.0) -> tuple[End, End]:
    """Return two ends of one channel."""
    left, right = pair()
    return End(left), End(right, pace)


async def test_messages_of_every_size_arrive_in_order() -> None:
    """Also when they are larger than the socket's buffer, and nobody reads for a while."""
    left, right = ends()
    right.channel.pause()
    sizes = [0, 1, 70_000, 3_000_000, 5, 1_000_000] * 3
    for n, size in enumerate(sizes):
        left.send([n, bytes(size)])
    assert left.channel.waiting > 0
    right.channel.resume()
    await eventually(lambda: len(right.messages) == len(sizes))
    assert [(n, len(data)) for n, data in right.messages] == list(enumerate(sizes))
    assert left.channel.waiting == 0
    left.channel.close()
    await eventually(lambda: right.lost)


async def test_descriptors_come_with_their_message() -> None:
    """Between others, and while the socket is full; the sender keeps its own."""
    left, right = ends()
    right.channel.pause()
    reader, writer = os.pipe()
    left.send(bytes(3_000_000))
    left.send("with", writer)
    left.send("without")
    os.close(writer)
    right.channel.resume()
    await eventually(lambda: len(right.messages) == 3)
    assert right.messages[1:] == ["with", "without"]
    [came] = right.descriptors
    os.write(came, b"through")
    assert os.read(reader, 100) == b"through"
    for number in (came, reader):
        os.close(number)
    left.channel.close()
    right.channel.close()


async def test_what_was_sent_arrives_before_the_end() -> None:
    """A process that is killed has said what it has said."""
    left, right = ends(pace=0.01)
    for n in range(1000):
        left.send(n)
    left.channel.close()
    await eventually(lambda: right.lost)
    assert right.messages == list(range(1000))
    assert (right.lost, left.lost) == (1, 0)
    left.send("nobody hears it")


async def test_what_is_no_message_ends_it() -> None:
    """And raises nothing in the loop."""
    left, right = pair()
    end = End(right)
    await asyncio.get_running_loop().sock_sendall(left, frame(b"\xc1\xff"))
    await eventually(lambda: end.lost)
    left.close()
