"""The files that are sent on one HTTP/2 connection, and whose turn it is.

A file is read when it has its turn, a frame's content each time, right to where it is written from:
of what the system has of it in memory. So nothing of it waits in a queue, whatever its client's
windows are. What has to be waited for on the disk is for the file's own task (`delivery`), which
comes back here behind it.

The turns are those of `priority.Turns`, between files. Content that is queued, a handler's or from
the disk, goes out beside them: the more urgent first, and of the same urgency as many frames of
each file as of each queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from h2log.access.exchange import Exchange
from h2log.access.record import Session
from h2log.clock import monotonic
from h2log.http2.connection import Connection
from h2log.http2.frames import DEFAULT_FRAME_SIZE
from h2log.http2.priority import Turns
from h2log.http2.stream import Stream
from h2log.server.framed import BEFORE, MOST_FRAMED, FrameBuffer
from h2log.server.http2_room import Room

__all__ = ["Files", "Source"]


class Source:
    """What is to be sent of an open file on a stream: `left` bytes from `offset` on.

    `end` ends the stream behind them; `took` is told how many bytes were sent each time. `over` is
    done when all is sent, when what follows is not in memory, or when the stream is closed.
    """

    __slots__ = (
        "end",
        "exchange",
        "for_window",
        "left",
        "number",
        "offset",
        "over",
        "sent",
        "since",
        "stream",
        "took",
    )

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        number: int,
        offset: int,
        left: int,
        end: bool,
        took: Callable[[int], None],
    ) -> None:
        self.stream = stream
        self.exchange = exchange
        self.number = number
        self.offset = offset
        self.left = left
        self.end = end
        self.took = took
        self.sent = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.since = 0.0  # since when it waits for what is not its turn, if it does
        self.for_window = False  # that is a window, else the socket

    def waits(self, now: float, for_window: bool) -> None:
        """It begins to wait, unless it does already."""
        if not self.since:
            self.since, self.for_window = now, for_window

    def waited(self, now: float) -> None:
        """It waits no more: the record is told for how long it did."""
        if self.since:
            detail = self.exchange.details()
            if self.for_window:
                detail.stalled += now - self.since
            else:
                detail.blocked += now - self.since
            self.since = 0.0


class Files(Room):
    """A part of a connection's leg: sends its files."""

    __slots__ = (
        "_conn",
        "_files_due",
        "_lost",
        "_parked",
        "_placed",
        "_session",
        "_sources",
        "_transport",
        "_turns",
        "frames",
    )

    _conn: Connection
    _lost: bool
    _session: Session
    _transport: asyncio.Transport | None

    def __init__(self, send_buffer: int, frames: FrameBuffer) -> None:
        super().__init__(send_buffer)
        self.frames = frames
        """What files are read into."""
        self._sources: dict[int, Source] = {}
        self._parked: set[int] = set()  # streams of those that wait for a window
        self._turns = Turns()
        self._placed: set[int] = set()  # the streams there, also of sources that are gone
        self._files_due = False

    def add_file(self, source: Source) -> None:
        """Send a file from its next turn on."""
        self._sources[source.stream.id] = source
        if self._conn.blocked:
            source.waits(monotonic(), for_window=False)
        self._place(source)
        self._send_files_soon()

    def drop_file(self, stream: Stream) -> None:
        """Send nothing more of a file."""
        source = self._sources.pop(stream.id, None)
        if source is not None:
            self._parked.discard(stream.id)
            stream.waiting = False
            source.waited(monotonic())
            if not source.over.done():
                source.over.set_result(None)

    def windows_opened(self) -> None:
        """Files that wait for a window may have one."""
        if not self._parked or self._conn.window <= 0:
            return
        now = monotonic()
        for number in list(self._parked):
            source = self._sources[number]
            if source.stream.window > 0:
                self._parked.discard(number)
                source.stream.waiting = False
                source.waited(now)
                if self._conn.blocked:
                    source.waits(now, for_window=False)
                self._place(source)
        self._send_files_soon()

    def files_blocked(self) -> None:
        """The transport is full."""
        now = monotonic()
        for source in self._sources.values():
            source.waits(now, for_window=False)

    def files_unblocked(self) -> None:
        """The transport has room again."""
        now = monotonic()
        for source in self._sources.values():
            if not source.for_window:
                source.waited(now)
        urgency = self._conn.pending_urgency
        if urgency is not None and self._turns and self._turns.urgency < urgency:
            self._send_files()

    def _place(self, source: Source) -> None:
        if source.stream.id not in self._placed:
            self._placed.add(source.stream.id)
            self._turns.add(source.stream)

    def _next(self) -> Source | None:
        """Return the file whose turn it is."""
        while self._turns:
            stream = self._turns.take()
            self._placed.discard(stream.id)
            source = self._sources.get(stream.id)
            if source is not None and stream.id not in self._parked:
                return source
        return None

    def _park(self, source: Source, now: float) -> None:
        """Have a file wait for its client's window."""
        stream = source.stream
        self._parked.add(stream.id)
        source.waits(now, for_window=True)
        stream.waiting = True
        stream.progress = now
        if not stream.held_up:
            stream.held_up = True
            stream.measured, stream.taken = now, 0

    def _send_files_soon(self) -> None:
        if self._turns and not self._files_due and not self._conn.blocked:
            self._files_due = True
            asyncio.get_running_loop().call_soon(self._send_files)

    def _send_files(self) -> None:
        """Give files their turns, for as much as is written at once; others' follow in the next."""
        self._files_due = False
        conn, transport = self._conn, self._transport
        if self._lost or transport is None or transport.is_closing():
            return
        while not conn.blocked and self._write_turn() and conn.pending:
            conn.pump()
        if conn.pending:  # it waited for the output that was just written
            conn.pump()
        self._flush()
        self._send_files_soon()

    def _share(self) -> int:
        """Return how many bytes of files go out now, with what the output has of queues."""
        conn = self._conn
        urgency = conn.pending_urgency
        if urgency is None or not self._turns or self._turns.urgency < urgency:
            return MOST_FRAMED
        if self._turns.urgency > urgency:
            return 0
        queues = sum(1 for stream in conn.streams.values() if stream.queue)
        turns = max(1, conn.out_size // DEFAULT_FRAME_SIZE // max(1, queues))
        return min(MOST_FRAMED, turns * len(self._placed) * DEFAULT_FRAME_SIZE)

    def _write_turn(self) -> bool:
        """Write the output, and behind it what files have turns for; say whether they have any."""
        conn, buffer = self._conn, self.frames
        share = self._share()
        if not share:
            return False
        buffer.begin()
        buffer.room = share
        now = conn.now = monotonic()
        before = conn.take()
        while buffer.room and (source := self._next()) is not None:
            stream = source.stream
            size = min(stream.window, conn.window)
            if size <= 0:
                self._park(source, now)
                continue
            # One that is alone has all turns.
            size = min(size, source.left, DEFAULT_FRAME_SIZE if self._turns else buffer.room)
            end = source.end and size == source.left
            sent = buffer.add(source.number, stream.id, source.offset, size, end)
            if not sent:
                self.drop_file(stream)
                continue
            source.offset += sent
            source.left -= sent
            source.sent += sent
            source.took(sent)
            conn.framed(stream, sent, end and sent == size)
            if source.left:
                self._place(source)
            else:
                self.drop_file(stream)
        self.write_frames(before)
        return bool(self._turns)

    def write_frames(self, before: bytes) -> None:
        """Write `before`, and behind it the frames that were made of files."""
        transport = self._transport
        assert transport is not None
        if len(before) > BEFORE:
            self._session.sent += len(before)
            transport.write(before)
            before = b""
        data = self.frames.framed(before)
        if data:
            self._session.sent += len(data)
            transport.write(data)

    def _flush(self) -> None:
        """Finish what was completed."""
        raise NotImplementedError
