"""The response of one HTTP/2 stream, between its handler and the connection's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from h2.errors import ErrorCodes

from h2log.access.exchange import Exchange
from h2log.app.response import NO_CONTENT_STATUS, FileContent, Response, check_fields
from h2log.clock import monotonic, wall
from h2log.http2.connection import Connection
from h2log.http2.hpack import encode
from h2log.http2.stream import Stream
from h2log.server.content import ContentBuffer
from h2log.server.framed import FrameBuffer
from h2log.server.heads import CONNECTION_FIELDS, ResponseHead
from h2log.server.http2_files import Source

__all__ = ["Http2Reply", "ReplyLeg", "header_block"]

_STREAM_HIGH_WATER: Final = 64 * 1024
"""Bytes of a handler's output that may wait on one stream before the handler does."""

_DROPPED: Final = frozenset(name.decode("ascii") for name in CONNECTION_FIELDS)


_MAX_BLOCKS: Final = 512
_MAX_BLOCK: Final = 512
"""Header blocks that are remembered, and the bytes of the longest: half a megabyte in all."""
_blocks: dict[tuple[object, ...], tuple[bytes, bool]] = {}


class ReplyLeg(Protocol):
    """What a response needs of the connection that it is one of."""

    frames: FrameBuffer
    """What files are read into."""
    files: int
    """Responses that are files and being sent."""
    send_buffer: int
    """Bytes that may be held for the whole connection."""

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port."""

    def tail(self, exchange: Exchange, now: float) -> bytes:
        """Return the end of a header block."""

    def flush_soon(self) -> None:
        """Write what the engine has gathered, after the running callback."""

    def at_once(self, stream: Stream) -> int:
        """Return how much content of a stream could be handed to the transport now."""

    def write_framed(self, stream: Stream, size: int, end: bool) -> None:
        """Write the output, and behind it what `frames` has read for a stream."""

    def add_file(self, source: Source) -> None:
        """Send a file from its next turn on."""

    def drop_file(self, stream: Stream) -> None:
        """Send nothing more of a file."""

    def hold(self, size: int, held: int) -> int:
        """Count up to `size` bytes as held; return how many there was room for."""

    def release(self, size: int) -> None:
        """Bytes that were held went out."""

    async def wait(self) -> None:
        """Return when something has changed that room depends on."""

    def wake_waiters(self) -> None:
        """Have those who wait for room look again."""


def header_block(response: Response) -> bytes:
    """Return a response's header block without its tail. Raises ValueError for a bad field.

    An application's responses often have the same fields but for their length: remembered.
    """
    key = (response.status, *response.headers)
    made = _blocks.get(key)
    if made is None:
        made = _fields_block(response)
        if len(made[0]) <= _MAX_BLOCK:
            if len(_blocks) >= _MAX_BLOCKS:
                _blocks.clear()
            _blocks[key] = made
    block, sized = made
    length = None if sized else response.content_length()
    return block if length is None else block + encode([(b"content-length", b"%d" % length)])


def _fields_block(response: Response) -> tuple[bytes, bool]:
    """Return the block of a response's own fields, and whether its length is told by it."""
    check_fields(response.headers)
    fields = [(b":status", b"%d" % response.status)]
    # A 304's would be that of the content that is not sent; a 204 has none (RFC 9110 section 8.6).
    sized = response.status in (204, 304)
    for name, value in response.headers:
        if name in _DROPPED:
            continue
        if name == "content-length" and response.status == 204:
            continue
        sized = sized or name == "content-length"
        fields.append((name.encode("ascii"), value.encode("latin-1")))
    return encode(fields), sized


class Http2Reply:
    """The response of one stream: the `Reply` of its handler."""

    __slots__ = (
        "_at_once",
        "_conn",
        "_file",
        "_granted",
        "_held",
        "_leg",
        "_since",
        "_stream",
        "_waiters",
        "_written",
        "content",
        "exchange",
        "had_all",
        "noting",
        "on_lost",
        "task",
    )

    def __init__(self, leg: ReplyLeg, conn: Connection, stream: Stream, exchange: Exchange) -> None:
        self._leg = leg
        self._conn = conn
        self._stream = stream
        self._at_once = False  # the whole response went out in one go: nothing is to be counted
        self._file = False  # it sends a file: `room` was asked for
        self._granted = 0  # bytes of room that nothing was written for yet
        self._held = 0  # those, and what was written for others and has not gone out
        self._waiters: list[asyncio.Future[None]] | None = None  # several tasks may send
        self._written = 0  # bytes of content, sent or queued
        self._since = 0.0  # since when the rest waits, if nobody waits for it
        self.exchange = exchange
        self.had_all = False
        """All was `delivered` when the end was sent behind it."""
        self.content: ContentBuffer | None = None
        self.task: asyncio.Task[None] | None = None
        self.noting: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address."""
        return self._leg.local

    @property
    def closed(self) -> bool:
        """The stream is closed, or the response is complete."""
        return self._stream.closed

    @property
    def waiting(self) -> bool:
        """A window is shut, or the transport is full."""
        return self._stream.queued > 0 or self._conn.blocked

    @property
    def delivered(self) -> bool:
        """All of the response has gone out but for its end, as far as it was declared.

        That is a header without content behind it, or content of its content-length: clients
        (curl) do not wait for END_STREAM then. To be asked when the bytes are counted.
        """
        exchange = self.exchange
        response = exchange.response
        conn = self._conn
        if exchange.status < 200 or response is None or conn.out_size or conn.blocked:
            return False
        if exchange.status in NO_CONTENT_STATUS or exchange.facts.method == "HEAD":
            return True
        return response.content_length() == exchange.sent

    def start(self, response: Response, end: bool) -> None:
        """Send the header section."""
        self._start(response, header_block(response), end)

    def start_head(self, head: ResponseHead, end: bool) -> None:
        """Send the header section that came as bytes."""
        self._start(head, head.block, end)

    def _start(self, head: Response | ResponseHead, block: bytes, end: bool) -> None:
        if not self._stream.closed:
            exchange = self.exchange
            block += self._leg.tail(exchange, wall())
            exchange.status = head.status
            exchange.response = head
            exchange.header_sent = len(block)
            exchange.details().headers_at = monotonic()
            self._conn.send_headers(self._stream, block, end)
            self._leg.flush_soon()

    def answer(self, response: Response, body: bytes) -> None:
        """Send a whole response, at once if there is room for it."""
        self._whole(response, header_block(response), body)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response, at once if there is room for it."""
        self._whole(head, head.block, body)

    def _whole(self, head: Response | ResponseHead, block: bytes, body: bytes) -> None:
        stream = self._stream
        if stream.closed:
            return
        exchange = self.exchange
        block += self._leg.tail(exchange, wall())
        exchange.status = head.status
        exchange.response = head
        exchange.header_sent = len(block)
        exchange.sent = len(body)
        self._at_once = True
        if self._conn.send_whole(stream, block, body):
            self._leg.flush_soon()
            return
        self._at_once = False
        exchange.sent = 0
        exchange.details().headers_at = monotonic()
        self._conn.send_headers(stream, block, not body)
        if body:
            self.write(body, end=True)
        self._leg.flush_soon()

    def file_now(self, response: Response, content: FileContent) -> bool:
        """Send a whole response whose content is in a file, if there is nothing to wait for."""
        stream, leg, size = self._stream, self._leg, content.length
        if size > leg.at_once(stream):
            return False
        block = header_block(response)
        number = content.file.fileno()
        leg.frames.begin()
        if leg.frames.add(number, stream.id, content.offset, size, end=True) != size:
            return False
        exchange = self.exchange
        block += leg.tail(exchange, wall())
        exchange.status = response.status
        exchange.response = response
        exchange.header_sent = len(block)
        exchange.sent = size
        self._at_once = True
        self._conn.send_headers(stream, block)
        leg.write_framed(stream, size, end=True)
        leg.flush_soon()
        return True

    def switch(self, head: ResponseHead) -> None:
        """Accept an extended CONNECT: DATA goes both ways from now on (RFC 8441 section 5)."""
        if self.content is not None:
            self.content.lift()
        self.start_head(head, end=False)

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response."""
        if not self._stream.started:
            fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
            self._conn.send_interim(self._stream, encode([(b":status", b"%d" % status), *fields]))
            self._leg.flush_soon()

    def write(self, data: bytes | bytearray, end: bool = False) -> None:
        """Queue content."""
        if not self._stream.closed:
            now = self._conn.now = monotonic()
            if end and not data:
                self.had_all = self.delivered
            self._written += len(data)
            self._granted = max(0, self._granted - len(data))
            self._conn.send_data(self._stream, data, end)
            if end and self._stream.queued:  # nobody waits for it, and notes for how long
                self._since = now
            self.count()
            self._leg.flush_soon()

    def finish(self, trailers: list[tuple[str, str]]) -> None:
        """Queue the end, behind the content: trailers are HEADERS with END_STREAM (8.1)."""
        if not self._stream.closed:
            fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in trailers]
            self._conn.now = monotonic()
            self._conn.send_data(self._stream, b"", True, encode(fields) if fields else None)
            self._leg.flush_soon()

    async def over(self) -> None:
        """Wait until the end of the stream is in the output, or the stream is gone."""
        while not self._stream.closed:
            await self._wait()

    async def drain(self) -> None:
        """Wait until little enough is queued: on this stream, and on the connection."""
        while not self._stream.closed and (
            self._stream.queued > _STREAM_HIGH_WATER or self._crowded()
        ):
            # Crowded by others, it is their progress that counts.
            await self._spend(self._wait() if self._stream.queued else self._leg.wait())

    def _crowded(self) -> bool:
        limit = self._leg.send_buffer
        return self._conn.queued > limit // 2

    async def room(self, most: int) -> int:
        """Wait until the peer would take something; see `Reply`."""
        stream, conn, leg = self._stream, self._conn, self._leg
        if not self._file and not stream.closed:
            self._file = True
            leg.files += 1
        while not stream.closed:
            window = stream.window - stream.queued
            if window > 0 and conn.window > 0 and not conn.blocked and stream.queued < most:
                granted = leg.hold(min(most, window), self._held)
                if granted:
                    self._granted += granted
                    self._held += granted
                    stream.waiting = False
                    return granted
            elif not stream.waiting and (window <= 0 or conn.window <= 0):
                stream.waiting = True
                stream.progress = monotonic()
                if not stream.held_up:
                    stream.held_up = True
                    stream.measured, stream.taken = stream.progress, 0
            await self._spend(leg.wait())
        return 0

    async def send_file(self, descriptor: int, offset: int, size: int, end: bool) -> int:
        """Send a part of a file in its turns with others; see `Reply`."""
        stream, leg = self._stream, self._leg
        while stream.queued and not stream.closed:  # what came from the disk
            await self._spend(self._wait())
        if stream.closed:
            return 0
        source = Source(stream, self.exchange, descriptor, offset, size, end, self._took)
        leg.add_file(source)
        try:
            await source.over
        finally:
            leg.drop_file(stream)
        return source.sent

    def _took(self, size: int) -> None:
        self._written += size
        self.count()

    async def _spend(self, waiting: Awaitable[None]) -> None:
        """Wait, and note for the record what for: the socket, or the peer's window."""
        blocked = self._conn.blocked
        began = monotonic()
        try:
            await waiting
        finally:
            detail = self.exchange.details()
            if blocked:
                detail.blocked += monotonic() - began
            else:
                detail.stalled += monotonic() - began

    def count(self) -> None:
        """Note for the record what has gone out so far, and what kept the rest."""
        if self._at_once:
            return
        stream, conn, exchange = self._stream, self._conn, self.exchange
        exchange.sent = self._written - (stream.unsent if stream.closed else stream.queued)
        if exchange.sent:
            detail = exchange.details()
            if not detail.first_byte_at:
                detail.first_byte_at = conn.now
        if self._since:
            now = monotonic()
            detail = exchange.details()
            if conn.blocked:
                detail.blocked += now - self._since
            else:
                detail.stalled += now - self._since
            self._since = now if stream.queued and not stream.closed else 0.0

    def give_back(self, size: int) -> None:
        """Release room that will not be used."""
        self._granted -= size
        self._release(size)

    def _release(self, size: int) -> None:
        self._held -= size
        self._leg.release(size)

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def progressed(self) -> None:
        """Some of the queue went out: who waits looks again."""
        self.count()
        if self._held:
            self._release(self._held - self._granted - self._stream.queued)
        self._leg.wake_waiters()
        if self._waiters is not None:
            self._wake()

    def ended(self) -> None:
        """The stream is closed: nothing is held or waited for any more."""
        self.count()
        self._leg.drop_file(self._stream)
        if self._file:
            self._file = False
            self._leg.files -= 1
        if self._held:
            self._release(self._held)
        self._leg.wake_waiters()
        if self._waiters is not None:
            self._wake()

    def go_on(self) -> None:
        """The handler waits for content that the client holds back (RFC 9110 section 10.1.1)."""
        self.interim(100, [])

    def content_read(self, size: int) -> None:
        """The handler read some content: the peer may send as much more."""
        self._conn.consumed(self._stream, size)
        self._leg.flush_soon()

    def abort(self) -> None:
        """Reset the stream: the client sees that the response is not complete."""
        if not self._stream.closed:
            detail = self.exchange.details()
            detail.reset_by, detail.reset_code = "server", ErrorCodes.INTERNAL_ERROR
            self._conn.reset(self._stream, ErrorCodes.INTERNAL_ERROR)
            self.ended()
            self._leg.flush_soon()

    def note(self) -> None:
        """The record is about to be finished before the response is complete."""
        self.count()
        if self.noting is not None:
            self.noting()

    def cancel(self) -> None:
        """The client is gone: cancel its handler at its next await, or tell who wants to know."""
        if self.on_lost is not None:
            self.on_lost()
        elif self.task is not None and not self.task.done():
            self.task.cancel()
