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

from h2.errors import ErrorCodes

from h2log.errors import MalformedError, SessionError, StreamError
from h2log.http2 import frames
from h2log.http2.budget import (
    MAX_PRIORITY_VALUE,
)
from h2log.http2.events import Cause
from h2log.http2.frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    END_STREAM,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    U32,
)
from h2log.http2.priority import parse_priority
from h2log.http2.requests import Requests, depends_on
from h2log.http2.settings import (
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    parse_settings,
)

__all__ = ["READERS", "Reading"]

DRAIN_PING = b"h2log-go"
"""The PING that tells, by its acknowledgement, that the peer has seen the first GOAWAY."""


class Reading(Requests):
    """The receiving half of a connection, a frame at a time. See `Connection`."""

    __slots__ = ()

    # The other frames

    def _read_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "DATA on stream 0")
        size = len(payload)  # padding counts for the windows too
        self.receive_window -= size
        if self.receive_window < 0:
            raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"DATA on stream {stream_id}, idle")
            if stream_id not in self._resets:
                raise SessionError(ErrorCodes.STREAM_CLOSED, f"DATA on stream {stream_id}, closed")
            self._credit(size)
            if flags & END_STREAM:
                self._lingering.pop(stream_id, None)
            if not size:
                self._purse.spend("stray_frame", self.now)
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
            raise MalformedError(stream_id, "more than content-length")
        if size > len(data):
            self.consumed(stream, size - len(data))
        if data:
            self._events.on_data(stream, data)
        elif not flags & END_STREAM:
            self._purse.spend("empty_data", self.now)
        if not flags & END_STREAM:
            return
        if stream.closed:  # it was answered in `on_data`
            self._lingering.pop(stream_id, None)
        else:
            self._remote_end(stream)

    def _read_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            if self._is_idle(stream_id):
                raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
            raise StreamError(stream_id, ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
        self._purse.spend("priority", self.now)
        if depends_on(payload) == stream_id:  # RFC 7540 section 5.3.1; else it is ignored
            if self._is_idle(stream_id):  # no RST_STREAM on an idle stream
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself")
            if stream_id in self.streams:
                raise StreamError(
                    stream_id, ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself"
                )

    def read_priority_update(self, stream_id: int, payload: bytes) -> None:
        """Read a PRIORITY_UPDATE frame (RFC 9218 section 7.1)."""
        if stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        if len(payload) < 4:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY_UPDATE without its stream")
        target = U32.unpack_from(payload)[0] & MAX_STREAM_ID
        if target & 1 == 0:  # 0, or a push, and we promise none
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"PRIORITY_UPDATE of stream {target}")
        self._purse.spend("priority", self.now)
        value = payload[4 : 4 + MAX_PRIORITY_VALUE]
        stream = self.streams.get(target)
        if stream is not None:
            if not stream.parked:
                self._ready.remove(stream)
            stream.urgency, stream.incremental = parse_priority(value)
            if not stream.parked:
                self._ready.add(stream)
        elif target > self.last_stream_id:
            if target not in self._updates and self._updates_full():
                # Section 7.1: no more than could be open.
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, "PRIORITY_UPDATE of too many streams")
            self._updates[target] = value

    def _updates_full(self) -> bool:
        """Say whether as many streams are open, or prioritized before they are, as may be open."""
        most = self._limits.max_streams - len(self.streams)
        if len(self._updates) >= most:
            # What was answered from memory has never asked for its own.
            last = self.last_stream_id
            self._updates = {n: v for n, v in self._updates.items() if n > last}
        return len(self._updates) >= most

    def _read_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if len(payload) != 4:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        if self._is_idle(stream_id):
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"RST_STREAM on stream {stream_id}, idle")
        self._purse.spend("rapid_reset", self.now)
        self._lingering.pop(stream_id, None)
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
            if self._settings_acked:
                self._purse.spend("settings", self.now)
            else:
                self._settings_acked = True
                self._shrink_receive_windows()
            return
        if self._settings_seen:
            self._purse.spend("settings", self.now)
        sizes: list[int] = []
        for key, value in parse_settings(payload):
            if key == INITIAL_WINDOW_SIZE:
                sizes.append(value)
            elif key == MAX_FRAME_SIZE:
                self._peer_max_frame = value
            elif key == HEADER_TABLE_SIZE and value < self._table_size:
                # We use no table, but the peer waits to be told that it shrank (RFC 7541, 4.2).
                self._table_size = 0
                self._shrunk_table = True
        if sizes:
            # There can be thousands: the largest may overflow a window, the last one counts.
            for size in dict.fromkeys((max(sizes), sizes[-1])):
                self._resize_windows(size - self._peer_initial_window)
                self._peer_initial_window = size
        self._settings_seen = True
        self._emit_control(frames.SETTINGS_ACK)
        self._window_opened()

    def _shrink_receive_windows(self) -> None:
        """Hold the peer to windows below the default, now that it knows (RFC 9113, 6.9.2)."""
        change = self._initial_receive_window - self._full_stream_window
        self._initial_receive_window = self._full_stream_window
        for stream in self.streams.values():
            stream.receive_window -= change

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
        self._purse.spend("ping", self.now)
        if not flags & ACK:
            self._emit_control(frames.frame(frames.PING, ACK, 0, payload))
        elif payload == DRAIN_PING and self._going_since is not None:
            self._go()

    def _read_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        if len(payload) < 8:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
        self._purse.spend("settings", self.now)
        self._peer_going = True

    def _read_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        increment = U32.unpack(payload)[0] & MAX_WINDOW
        # Free are two for each request and each full frame's worth that was sent.
        self._window_updates += 1
        sent = self._window_granted - self.window
        free = self.last_stream_id - self._skipped + sent // (DEFAULT_FRAME_SIZE // 2)
        if self._window_updates > free:
            self._purse.spend("window_update", self.now)
        if stream_id == 0:
            if increment == 0:
                raise SessionError(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.window += increment
            self._window_granted += increment
            if self.window > MAX_WINDOW:
                raise SessionError(ErrorCodes.FLOW_CONTROL_ERROR, "the connection's window is full")
            self._window_opened()
            return
        if self._is_idle(stream_id):
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
        """Reset one stream and go on; on one that is closed already nothing may be sent (5.1)."""
        stream = self.streams.get(error.stream_id)
        if stream is not None:
            self._emit_reset(error.stream_id, error.code)
            self._close(stream)
            malformed = isinstance(error, MalformedError)
            cause = Cause.MALFORMED if malformed else Cause.STREAM_ERROR
            self._events.on_reset(stream, cause, error.code)
        self._purse.spend("server_reset", self.now)

    def _last_answered(self) -> int:
        """Return the last stream to name in GOAWAY: never more than was named before (6.8)."""
        return self.last_stream_id if self._final is None else self._final

    def _go(self) -> None:
        """Name the last request that will be answered (RFC 9113 section 6.8)."""
        if self._final is None:
            self._final = self.last_stream_id
            self.goaway = int(ErrorCodes.NO_ERROR)
            self._emit(frames.goaway(self._final, ErrorCodes.NO_ERROR))


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
