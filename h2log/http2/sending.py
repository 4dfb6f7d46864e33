"""The sending half of a connection: header blocks, flow control, and whose turn it is.

What may be sent when (RFC 9113 sections 5.2 and 6.9):

- HEADERS and the frames that steer the connection are not flow-controlled and go out at once;
- DATA needs room in three places: the stream's window, the connection's, and the output, which is
  full when the transport took no more (`blocked`) or `OUTPUT_LIMIT` has gathered;
- streams that have something to send and a window take turns, a frame each, in the order of
  `priority.Turns`; one whose window is spent is parked until a WINDOW_UPDATE or SETTINGS frame
  opens it;
- a DATA frame without content needs no window.
"""

from __future__ import annotations

from typing import Final

from h2.errors import ErrorCodes

from h2log.http2 import frames
from h2log.http2.budget import LINGER, MAX_LINGERING, MAX_RECENT_RESETS, OUTPUT_LIMIT
from h2log.http2.events import Events
from h2log.http2.frames import DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, END_HEADERS, END_STREAM
from h2log.http2.priority import Turns
from h2log.http2.stream import Stream

__all__ = ["Prepared", "Sending"]

_NO_CONTENT_END: Final = frames.start(frames.DATA, END_STREAM, 0)
# Told to the peer's decoder when it shrinks its table below what we never use (RFC 7541, 4.2).
_TABLE_SIZE_ZERO: Final = b"\x20"


class Prepared:
    """A whole response as bytes that are the same on every connection and for every request.

    `block` is the header block without what differs a request; that is `tail_size` bytes, added
    when it is sent. `content` is the body.
    """

    __slots__ = ("block", "chunks", "content", "head", "head_size", "size", "total")

    def __init__(self, block: bytes, tail_size: int, content: bytes) -> None:
        flags = END_HEADERS if content else END_HEADERS | END_STREAM
        self.head = frames.start(frames.HEADERS, flags, len(block) + tail_size)
        self.block = block
        self.head_size = len(block) + tail_size
        self.content = content
        self.size = len(content)
        if len(block) + tail_size > DEFAULT_FRAME_SIZE:
            self.size = frames.MAX_WINDOW + 1  # no single frame holds its head: never sent as it is
        chunks: list[tuple[bytes, bytes | memoryview]] = []
        # What fits in a frame is itself; more is not copied, it is kept in memory for long.
        source = content if len(content) <= DEFAULT_FRAME_SIZE else memoryview(content)
        for pos in range(0, len(content), DEFAULT_FRAME_SIZE):
            chunk = source[pos : pos + DEFAULT_FRAME_SIZE]
            last = pos + DEFAULT_FRAME_SIZE >= len(content)
            chunks.append((frames.start(frames.DATA, END_STREAM if last else 0, len(chunk)), chunk))
        self.chunks = tuple(chunks)
        # For the output's account: content, header block, and the heads of all frames.
        self.total = self.size + len(block) + tail_size + 9 * (1 + len(chunks))


class Sending:
    """Queues, windows and output of one connection. Not used by itself: see `Connection`."""

    __slots__ = (
        "_events",
        "_full_stream_window",
        "_full_window",
        "_last_sent",
        "_lingering",
        "_out",
        "_peer_initial_window",
        "_peer_max_frame",
        "_pumping",
        "_ready",
        "_resets",
        "_shrunk_table",
        "_table_size",
        "_total",
        "_uncredited",
        "_unread_control",
        "_unread_heads",
        "blocked",
        "now",
        "out_size",
        "queued",
        "receive_window",
        "streams",
        "window",
    )

    def __init__(
        self, events: Events, stream_window: int, connection_window: int, now: float
    ) -> None:
        self._events = events
        self._full_stream_window = stream_window
        self._full_window = connection_window
        self._uncredited = 0
        self.now = now
        """The time of the last call that told it."""
        self.receive_window = connection_window
        """Bytes that the peer may still send on the whole connection."""
        self._out: list[bytes | bytearray | memoryview] = []
        self._ready = Turns()
        self._pumping = False
        self._lingering: dict[int, float] = {}  # answered while the peer was sending, and when
        self._resets: dict[int, None] = {}  # in order of reset, the oldest first
        self._peer_initial_window = DEFAULT_WINDOW
        self._peer_max_frame = DEFAULT_FRAME_SIZE
        self._unread_heads = 0  # responses without content that gathered meanwhile
        self._unread_control = 0  # bytes of control frames gathered while the peer does not read
        self._table_size = 4096
        self._shrunk_table = False
        self._total = 0  # bytes that went out of queues since `Connection.tick` looked last
        self._last_sent = now  # when content last went out of a queue
        self.streams: dict[int, Stream] = {}
        """The open streams by identifier."""
        self.window = DEFAULT_WINDOW
        """Bytes that the peer lets us send on the whole connection."""
        self.queued = 0
        """Bytes of content that wait on all streams."""
        self.out_size = 0
        """Bytes of output that `take` would return."""
        self.blocked = False
        """Set by the layer above while its transport takes no more."""

    # Output

    def _emit(self, data: bytes) -> None:
        self._out.append(data)
        self.out_size += len(data)

    def _emit_control(self, data: bytes) -> None:
        """Emit a frame that the peer can make us send as often as it likes."""
        self._out.append(data)
        self.out_size += len(data)
        if self.blocked:
            self._unread_control += len(data)

    def take(self) -> bytes:
        """Return the output gathered since the last call, for the transport."""
        self._unread_control = self._unread_heads = 0
        out = self._out
        data = b"".join(out)
        out.clear()
        self.out_size = 0
        return data

    @property
    def pending(self) -> bool:
        """Whether content waits that could be sent as soon as the output has room."""
        return bool(self._ready) and self.window > 0

    @property
    def pending_urgency(self) -> int | None:
        """The urgency of the content that waits, None where there is none; see `pending`."""
        return self._ready.urgency if self.pending else None

    # Responses

    def send_prepared(self, stream_id: int, prepared: Prepared, tail: bytes) -> bool:
        """Send a whole response to a request that has ended and has no `Stream`.

        `tail` is the rest of the header block, of exactly the size that `prepared` was made for.
        Returns False, and has done nothing, when a window or the output has no room for it.
        """
        size = prepared.size
        if (
            size > self.window
            or size > self._peer_initial_window
            or self.out_size > OUTPUT_LIMIT
            or self.blocked
            or self._shrunk_table
        ):
            return False
        self.window -= size
        self.out_size += prepared.total
        number = stream_id.to_bytes(4, "big")
        chunks = prepared.chunks
        if len(chunks) == 1:
            head, content = chunks[0]
            self._out += (prepared.head, number, prepared.block, tail, head, number, content)
        else:
            self._out += (prepared.head, number, prepared.block, tail)
            for head, content in chunks:
                self._out += (head, number, content)
        return True

    def send_whole(self, stream: Stream, block: bytes, content: bytes) -> bool:
        """Send a whole response on a stream on which nothing was sent, a frame or two.

        Returns False, and has done nothing, when a window, a frame or the output has no room.
        """
        size = len(content)
        most = self._peer_max_frame
        if (
            size > self.window
            or size > stream.window
            or size > most
            or len(block) > most
            or self.out_size > OUTPUT_LIMIT
            or self.blocked
            or self._shrunk_table
            or stream.closed
        ):
            return False
        pack, number, length = frames.HEADER.pack, stream.id, len(block)
        high, low = length >> 16, length & 0xFFFF
        if size:
            self.window -= size
            self.out_size += length + size + 18
            self._out += (
                pack(high, low, frames.HEADERS, END_HEADERS, number),
                block,
                pack(size >> 16, size & 0xFFFF, frames.DATA, END_STREAM, number),
                content,
            )
        else:
            self.out_size += length + 9
            self._out += (pack(high, low, frames.HEADERS, END_HEADERS | END_STREAM, number), block)
        self._ended(stream)
        return True

    def send_headers(self, stream: Stream, block: bytes, end: bool = False) -> None:
        """Send a header section: a final response's, an interim one's (1xx, see `send_interim`).

        `end` also ends the stream. Does nothing on a closed stream.
        """
        if stream.closed:
            return
        stream.started = True
        self._send_block(stream, block, END_STREAM if end else 0)
        if end:
            self._ended(stream)

    def send_interim(self, stream: Stream, block: bytes) -> None:
        """Send an interim response's header section (RFC 9113 section 8.1); `:status` is 1xx."""
        if not stream.closed:
            self._send_block(stream, block, 0)

    def _send_block(self, stream: Stream, block: bytes, flags: int) -> None:
        if self._shrunk_table:
            self._shrunk_table = False
            block = _TABLE_SIZE_ZERO + block
        limit = self._peer_max_frame
        if len(block) <= limit:
            self._emit(frames.frame(frames.HEADERS, flags | END_HEADERS, stream.id, block))
            return
        kind = frames.HEADERS
        for pos in range(0, len(block), limit):
            if pos + limit >= len(block):
                flags |= END_HEADERS
            self._emit(frames.frame(kind, flags, stream.id, block[pos : pos + limit]))
            kind, flags = frames.CONTINUATION, 0

    def send_data(
        self,
        stream: Stream,
        data: bytes | bytearray | memoryview,
        end: bool = False,
        trailers: bytes | None = None,
    ) -> None:
        """Queue content, and send what may be sent of it.

        `end` ends the stream after it; `trailers`, a header block, ends it too. Does nothing on a
        closed stream.
        """
        if stream.closed:
            return
        if data:
            if not stream.queue:
                # From now on it is the peer who lets it wait.
                stream.progress = self.now
                if not stream.held_up:
                    stream.measured = self.now
                    stream.taken = 0
            stream.queue.append(data)
            stream.queued += len(data)
            self.queued += len(data)
        if end or trailers is not None:
            stream.end_queued = True
            stream.trailers = trailers
        if stream.queue:
            self._opened(stream)
            self.pump()
        elif stream.end_queued:
            self._send_end(stream)

    def at_once(self, stream: Stream) -> int:
        """Return how many bytes of content the layer above may put right behind the output now.

        Nothing while others wait for their turn. What it puts there, framed, it tells `framed`.
        """
        if stream.closed or stream.queue or self._ready or self._pumping or self.blocked:
            return 0
        return max(0, min(stream.window, self.window))

    def framed(self, stream: Stream, size: int, end: bool) -> None:
        """Take note of `size` bytes of content that went out framed; `end` ends the stream."""
        if not stream.held_up:
            stream.measured, stream.taken = self.now, 0
        stream.taken += size
        self._total += size
        stream.progress = self._last_sent = self.now
        stream.window -= size
        self.window -= size
        if end:
            self._ended(stream)

    def fits(self, size: int) -> bool:
        """Say whether content of `size` bytes can be put behind the output now, as a whole.

        To a request that has ended and has no `Stream`; `framed_whole` follows.
        """
        return not (
            size > self.window
            or size > self._peer_initial_window
            or self._ready
            or self.blocked
            or self._shrunk_table
        )

    def framed_whole(self, size: int) -> None:
        """Take note of a whole response behind the output, of `size` bytes."""
        self.window -= size

    def _send_end(self, stream: Stream) -> None:
        """End a stream whose queue is empty, with its trailers if it has some."""
        if stream.trailers is not None:
            self._send_block(stream, stream.trailers, END_STREAM)
        else:
            self._emit(_NO_CONTENT_END + stream.id.to_bytes(4, "big"))
        self._ended(stream)

    def pump(self) -> None:
        """Move queued content to the output: the streams take turns, a frame each."""
        if self._pumping:  # called back from `on_progress`: the loop below goes on with it
            return
        self._pumping = True
        ready = self._ready
        out = self._out
        while ready and self.window > 0 and not self.blocked and self.out_size < OUTPUT_LIMIT:
            stream = ready.take()
            stream.parked = True
            data = stream.queue[0]
            size = min(len(data), self._peer_max_frame, stream.window, self.window)
            if size < len(data):
                view = memoryview(data)
                stream.queue[0] = view[size:]
                data = view[:size]
            else:
                stream.queue.popleft()
            stream.taken += size
            self._total += size
            stream.progress = self._last_sent = self.now
            stream.window -= size
            self.window -= size
            stream.queued -= size
            self.queued -= size
            end = stream.end_queued and not stream.queue and stream.trailers is None
            flags = END_STREAM if end else 0
            out += (
                frames.start(frames.DATA, flags, size),
                stream.id.to_bytes(4, "big"),
                data,
            )
            self.out_size += size + 9
            if end:
                self._ended(stream)
                continue
            if stream.queue:
                self._opened(stream)
            elif stream.end_queued:
                self._send_end(stream)
                continue
            self._events.on_progress(stream)
        self._pumping = False

    def _opened(self, stream: Stream) -> None:
        """Put a stream whose window has opened back into the round."""
        if stream.parked and stream.queue and stream.window > 0:
            stream.parked = False
            self._ready.add(stream)

    # Ends

    def _ended(self, stream: Stream) -> None:
        """Our half has ended; what a peer goes on sending is thrown away.

        RFC 9113 section 8.1: a complete response may be followed by RST_STREAM(NO_ERROR). Right
        behind the response it makes some clients (curl 7.88) throw that away, so it follows a
        little later, unless the peer is through by then.
        """
        if self.blocked:  # an honest peer cannot have more of them unread than it may have open
            self._unread_heads += 1
        if not stream.remote_ended:
            self._remember_reset(stream.id)
            self._lingering[stream.id] = self.now
            if len(self._lingering) > MAX_LINGERING:
                self._stop_lingering(float("inf"))
        self._close(stream)
        self._events.on_sent(stream)

    def _stop_lingering(self, now: float) -> None:
        """Tell peers to stop whose requests were answered `LINGER` seconds ago."""
        for stream_id, since in list(self._lingering.items()):
            if now - since >= LINGER:
                del self._lingering[stream_id]
                self._emit_control(frames.rst_stream(stream_id, ErrorCodes.NO_ERROR))

    def _emit_reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._emit_control(frames.rst_stream(stream_id, code))
        self._remember_reset(stream_id)

    def _remember_reset(self, stream_id: int) -> None:
        """Frames of this stream may still be on their way: they will be thrown away."""
        resets = self._resets
        resets[stream_id] = None
        if len(resets) > MAX_RECENT_RESETS:
            del resets[next(iter(resets))]

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """Reset a stream from our side; no event follows. Does nothing on a closed stream."""
        if not stream.closed:
            self._emit_reset(stream.id, code)
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        """Forget a stream and what waits on it."""
        stream.closed = True
        self.streams.pop(stream.id, None)
        if not stream.parked:
            stream.parked = True
            self._ready.remove(stream)
        self.queued -= stream.queued
        stream.unsent, stream.queued = stream.queued, 0
        stream.queue.clear()
        unread, stream.unread = stream.unread, 0
        if unread:
            self._credit(unread)

    # The receive windows: what is given back are frames that we send

    def _credit(self, size: int) -> None:
        """Give back `size` bytes of the connection's receive window, half a window at a time."""
        self._uncredited += size
        if self._uncredited * 2 >= self._full_window:
            self._emit_control(frames.window_update(0, self._uncredited))
            self.receive_window += self._uncredited
            self._uncredited = 0

    def consumed(self, stream: Stream, size: int) -> None:
        """Say that `size` bytes of content were read, so that the peer may send as many more."""
        if stream.closed:  # closing gave back what was unread
            return
        stream.unread -= size
        self._credit(size)
        stream.uncredited += size
        if stream.remote_ended:
            return
        if stream.uncredited * 2 >= self._full_stream_window:
            self._emit_control(frames.window_update(stream.id, stream.uncredited))
            stream.receive_window += stream.uncredited
            stream.uncredited = 0
