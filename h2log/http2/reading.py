"""What each frame does: the readers behind `Connection`, one a frame type.

What is whose error (RFC 9113 section 5.4), the rule behind every `raise` below: what breaks the
framing, the compression state or the connection's flow control is the connection's, and ends it
with GOAWAY; all else is its stream's, which alone is reset. A frame on a stream is judged by the
stream's state:

    idle         only HEADERS (and PRIORITY); else the connection's PROTOCOL_ERROR
    open         anything; HEADERS are trailers and must end the stream
    half-closed  (remote) WINDOW_UPDATE, PRIORITY, RST_STREAM; else its STREAM_CLOSED
    closed       the same, ignored; else the connection's STREAM_CLOSED, but for a while after we
                 reset it everything is read and thrown away, since it may have been on its way
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

from h2.errors import ErrorCodes

from h2log.errors import SessionError, StreamError
from h2log.http2 import frames
from h2log.http2.budget import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_FRAMES,
    MAX_PATTERNS,
    MAX_REMEMBERED_BLOCK,
    MAX_REMEMBERED_HEADS,
)
from h2log.http2.events import Cause, Events
from h2log.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PRIORITY_FLAG,
    U32,
)
from h2log.http2.head import RequestHead, parse_request, trailer_fault
from h2log.http2.hpack import Decoder, path_literal
from h2log.http2.sending import Sending
from h2log.http2.settings import (
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    EngineLimits,
    parse_settings,
)
from h2log.http2.stream import Stream

__all__ = ["READERS", "Reading"]

DRAIN_PING = b"h2log-go"
"""The PING that tells, by its acknowledgement, that the peer has seen the first GOAWAY."""


class Pattern(NamedTuple):
    """A header block around its literal path, which is most of what differs between requests."""

    before: bytes
    after: bytes
    head: RequestHead
    room: int
    """Bytes that its fields left of the bound."""


class Reading(Sending):
    """The receiving half of a connection, a frame at a time. See `Connection`."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_since",
        "_block_stream",
        "_decoder",
        "_final",
        "_going_since",
        "_heads",
        "_limits",
        "_new_ended",
        "_new_head",
        "_on_request",
        "_patterns",
        "_peer_going",
        "_self_dependent",
        "_settings_acked",
        "_settings_seen",
        "last_stream_id",
    )

    def __init__(self, events: Events, limits: EngineLimits, now: float) -> None:
        super().__init__(events, limits.stream_window, limits.connection_window, now)
        self._limits = limits
        self._on_request = events.on_request
        self._decoder = Decoder(limits.max_header_bytes, limits.max_header_fields)
        self._heads: dict[bytes, RequestHead] = {}
        self._patterns: list[Pattern] = []  # the latest first
        self._block: list[bytes] | None = None  # the fragments of an unfinished header block
        self._block_stream = 0
        self._block_flags = 0
        self._block_frames = 0
        self._block_since = now
        self._self_dependent = False  # the block's HEADERS made the stream depend on itself
        self._new_head: RequestHead | None = None  # of the request being delivered
        self._new_ended = False
        self._settings_seen = False
        self._settings_acked = False
        self._peer_going = False
        self._going_since = 0.0
        self._final: int | None = None
        self.last_stream_id = 0
        """The highest stream identifier that the peer has used."""
        self._emit(frames.settings(limits.offered()))
        if limits.connection_window > DEFAULT_WINDOW:
            self._emit(frames.window_update(0, limits.connection_window - DEFAULT_WINDOW))

    # Header blocks

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "HEADERS on stream 0")
        if stream_id & 1 == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, even")
        if flags & PADDED:
            payload = self._unpad(payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "HEADERS without its priority")
            self._self_dependent = _depends_on(payload) == stream_id
            payload = payload[5:]
        else:
            self._self_dependent = False
        if stream_id <= self.last_stream_id and stream_id not in self.streams:
            if stream_id not in self._resets:
                raise SessionError(
                    ErrorCodes.STREAM_CLOSED, f"HEADERS on stream {stream_id}, closed"
                )
        if flags & END_HEADERS:
            self._read_block(stream_id, flags, payload)
        else:
            self._block = [payload]
            self._block_stream = stream_id
            self._block_flags = flags
            self._block_frames = 1
            self._block_since = self.now

    def _read_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.append(payload)
        self._block_frames += 1
        if flags & END_HEADERS:
            self._block = None
            self._read_block(stream_id, self._block_flags, b"".join(block))
        elif self._block_frames >= MAX_BLOCK_FRAMES or sum(map(len, block)) > MAX_BLOCK_BYTES:
            raise SessionError(ErrorCodes.ENHANCE_YOUR_CALM, "a header block without end")

    def _read_block(self, stream_id: int, flags: int, block: bytes) -> None:
        """Decode a whole header block: a request's, or its trailers'."""
        ended = bool(flags & END_STREAM)
        if stream_id > self.last_stream_id:
            self.last_stream_id = stream_id
            self._new_request(stream_id, self._decode_head(stream_id, block), ended)
            return
        fields = self._decoder.decode(block)  # also when unwanted: the table must follow
        if self._decoder.changed:
            self._forget()
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if stream.remote_ended:
            raise StreamError(stream_id, ErrorCodes.STREAM_CLOSED, "HEADERS after END_STREAM")
        if not ended:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, "trailers without END_STREAM")
        if self._self_dependent:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself")
        fault = "trailers too large" if self._decoder.too_large else trailer_fault(fields)
        if fault is not None:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, fault)
        stream.trailer_fields = tuple(fields)
        self._remote_end(stream)

    def _decode_head(self, stream_id: int, block: bytes) -> RequestHead:
        """Return the head that `block` codes, remembered when it may be."""
        head = self._heads.get(block) or self._match(block)
        if head is not None:
            return head
        decoder = self._decoder
        try:
            fields = decoder.decode(block)
        except SessionError as error:
            head = RequestHead()
            head.fault = error.detail
            self._events.on_refused(stream_id, head, Cause.MALFORMED)
            raise
        head = parse_request(fields)
        if decoder.changed:
            self._forget()
        if decoder.too_large:
            head.too_large = True
        elif not (
            decoder.changed
            or head.fault
            or head.content_length
            or len(block) > MAX_REMEMBERED_BLOCK
        ):
            self._remember(block, head)
            span = decoder.path_span
            if span is not None and head.method != "CONNECT":
                self._patterns.insert(
                    0, Pattern(block[: span[0]], block[span[1] :], head, decoder.room)
                )
                del self._patterns[MAX_PATTERNS:]
        return head

    def _remember(self, block: bytes, head: RequestHead) -> None:
        if len(self._heads) >= MAX_REMEMBERED_HEADS:
            self._heads.clear()
        self._heads[block] = head

    def _forget(self) -> None:
        """The dynamic table has changed: the bytes of a block may mean something else now."""
        self._heads.clear()
        self._patterns.clear()

    def _match(self, block: bytes) -> RequestHead | None:
        """Return the head of a block that differs from an earlier one in its path alone."""
        for before, after, head, room in self._patterns:
            if block.startswith(before) and block.endswith(after):
                path = path_literal(block, len(before), len(block) - len(after))
                if path is None or len(path) - len(head.path) > room:
                    continue
                found = head.with_path(path)
                if found is not None:
                    self._remember(block, found)
                return found
        return None

    def _new_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        """Deliver a request, or refuse it on its stream alone."""
        if self._final is not None and stream_id > self._final:
            # The peer was told that we do not answer this one and may send it elsewhere (6.8).
            self._remember_reset(stream_id)
            self._events.on_refused(stream_id, head, None)
            return
        if len(self.streams) >= self._limits.max_streams:
            self._emit_reset(stream_id, ErrorCodes.REFUSED_STREAM)
            self._events.on_refused(stream_id, head, None)
            return
        if self._self_dependent and head.fault is None:
            head = copy(head)  # others may share it
            head.fault = "a stream depends on itself"
        if ended and head.content_length and head.fault is None:
            head.fault = "content-length without content"  # such a head is not shared
        if head.fault is not None:
            self._emit_reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            self._events.on_refused(stream_id, head, Cause.MALFORMED)
            return
        self._new_head = head
        self._new_ended = ended
        self._on_request(stream_id, head, ended)

    def open_stream(self, stream_id: int) -> Stream:
        """Take the request that `on_request` is delivering as a stream of its own."""
        head = self._new_head
        assert head is not None and stream_id == self.last_stream_id
        stream = Stream(
            stream_id, head, self._peer_initial_window, self._limits.stream_window, self.now
        )
        stream.remote_ended = self._new_ended
        self.streams[stream_id] = stream
        return stream

    # The other frames

    def _unpad(self, payload: bytes) -> bytes:
        """Return a padded payload without its padding (RFC 9113 section 6.1)."""
        if not payload:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "a padded frame without its length")
        if payload[0] >= len(payload):
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
        return payload[1 : len(payload) - payload[0]]

    def _read_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "DATA on stream 0")
        size = len(payload)  # padding counts for the windows too
        self.receive_window -= size
        if self.receive_window < 0:
            raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id > self.last_stream_id:
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"DATA on stream {stream_id}, idle")
            if stream_id not in self._resets:
                raise SessionError(ErrorCodes.STREAM_CLOSED, f"DATA on stream {stream_id}, closed")
            self._credit(size)
            return
        if flags & PADDED:
            data = self._unpad(payload)
        else:
            data = payload
        stream.unread += size
        if stream.remote_ended:
            raise StreamError(stream_id, ErrorCodes.STREAM_CLOSED, "DATA after END_STREAM")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamError(stream_id, ErrorCodes.FLOW_CONTROL_ERROR, "DATA beyond the window")
        stream.received += len(data)
        if stream.expected is not None and stream.received > stream.expected:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, "more than content-length")
        if size > len(data):
            self.consumed(stream, size - len(data))
        if data:
            self._events.on_data(stream, data)
        if flags & END_STREAM and not stream.closed:
            self._remote_end(stream)

    def _remote_end(self, stream: Stream) -> None:
        """The peer's half has ended."""
        if stream.expected is not None and stream.received != stream.expected:
            raise StreamError(stream.id, ErrorCodes.PROTOCOL_ERROR, "less than content-length")
        stream.remote_ended = True
        self._events.on_end(stream)

    def _read_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            if stream_id > self.last_stream_id:
                raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
            raise StreamError(stream_id, ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
        if _depends_on(payload) == stream_id:  # RFC 7540 section 5.3.1; else it is ignored
            if stream_id > self.last_stream_id:  # no RST_STREAM on an idle stream
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself")
            if stream_id in self.streams:
                raise StreamError(
                    stream_id, ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself"
                )

    def _read_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if len(payload) != 4:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        if stream_id > self.last_stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"RST_STREAM on stream {stream_id}, idle")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._close(stream)
            self._events.on_reset(stream, Cause.PEER_RESET, U32.unpack(payload)[0])

    def _read_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if flags & ACK:
            if payload:
                raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "a SETTINGS ACK with values")
            self._settings_acked = True
            return
        for key, value in parse_settings(payload):
            if key == INITIAL_WINDOW_SIZE:
                self._resize_windows(value - self._peer_initial_window)
                self._peer_initial_window = value
            elif key == MAX_FRAME_SIZE:
                self._peer_max_frame = value
            elif key == HEADER_TABLE_SIZE and value < self._table_size:
                # We use no table, but the peer waits to be told that it shrank (RFC 7541, 4.2).
                self._table_size = 0
                self._shrunk_table = True
        self._settings_seen = True
        self._emit(frames.SETTINGS_ACK)
        self._window_opened()

    def _resize_windows(self, change: int) -> None:
        """Apply a change of INITIAL_WINDOW_SIZE to the open streams (RFC 9113 section 6.9.2)."""
        for stream in self.streams.values():
            stream.window += change
            if stream.window > MAX_WINDOW:
                raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, "SETTINGS overflow a window")
            if stream.window > 0:
                self._opened(stream)
            elif not stream.parked:
                stream.parked = True
                self._ready.remove(stream)

    def _read_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise SessionError(ErrorCodes.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _read_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if len(payload) != 8:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "PING is not 8 bytes")
        if not flags & ACK:
            self._emit(frames.frame(frames.PING, ACK, 0, payload))
        elif payload == DRAIN_PING and self._going_since:
            self._go()

    def _read_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        if len(payload) < 8:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
        self._peer_going = True

    def _read_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        increment = U32.unpack(payload)[0] & MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.window += increment
            if self.window > MAX_WINDOW:
                raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, "the connection's window is full")
            self._window_opened()
            return
        if stream_id > self.last_stream_id:
            raise SessionError(
                ErrorCodes.PROTOCOL_ERROR, f"WINDOW_UPDATE on stream {stream_id}, idle"
            )
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if increment == 0:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        stream.window += increment
        if stream.window > MAX_WINDOW:
            raise StreamError(stream_id, ErrorCodes.FLOW_CONTROL_ERROR, "the window is full")
        self._opened(stream)
        self._window_opened()

    def _window_opened(self) -> None:
        if self._ready:
            self.pump()
        self._events.on_window()

    def _stream_error(self, error: StreamError) -> None:
        """Reset one stream and go on."""
        stream = self.streams.get(error.stream_id)
        self._emit_reset(error.stream_id, error.code)
        if stream is not None:
            self._close(stream)
            malformed = error.code == ErrorCodes.PROTOCOL_ERROR
            cause = Cause.MALFORMED if malformed else Cause.STREAM_ERROR
            self._events.on_reset(stream, cause, error.code)

    def _go(self) -> None:
        """Name the last request that will be answered (RFC 9113 section 6.8)."""
        if self._final is None:
            self._final = self.last_stream_id
            self._emit(frames.goaway(self._final, ErrorCodes.NO_ERROR))


def _depends_on(payload: bytes) -> int:
    """Return the stream that a priority field names (RFC 9113 section 6.3)."""
    dependency: int = U32.unpack_from(payload)[0]
    return dependency & MAX_STREAM_ID


READERS: tuple[Callable[[Reading, int, int, bytes], None], ...] = (
    Reading._read_data,
    Reading._read_headers,
    Reading._read_priority,
    Reading._read_reset,
    Reading._read_settings,
    Reading._read_push_promise,
    Reading._read_ping,
    Reading._read_goaway,
    Reading._read_window_update,
    Reading._read_continuation,
)
"""What reads each frame type, by its number."""
