"""One HTTP/2 connection, seen from the server (RFC 9113), without input or output of its own.

Bytes go into `receive`, frames come out of `take`, what happened goes to an `Events`. Time is an
argument: seconds of a monotonic clock, the same one for `receive` and `tick`.
"""

from __future__ import annotations

import re

from h2.errors import ErrorCodes

from h2log.errors import SessionError, StreamError
from h2log.http2 import frames
from h2log.http2.budget import MAX_CONTROL_OUTPUT
from h2log.http2.events import Cause, Events, Nobody
from h2log.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    PRIORITY_UPDATE,
    SETTINGS,
)
from h2log.http2.reading import DRAIN_PING, READERS, Reading
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream

__all__ = ["DRAIN_GRACE", "Connection"]

# Flags that decide how a HEADERS frame is laid out; these two alone need no unpacking.
_LAYOUT = END_STREAM | END_HEADERS | PADDED | PRIORITY_FLAG
_WHOLE_REQUEST = END_STREAM | END_HEADERS

_HTTP1_REQUEST = re.compile(rb"[A-Z]{3,16} [!-~]+ HTTP/1\.").match

DRAIN_GRACE = 1.0
"""Seconds to wait for that acknowledgement (nghttpx 2, Envoy's drain 5; a round trip is less)."""

_NOBODY = Nobody()


class Connection(Reading):
    """The server's side of one connection.

    The first `take` returns our SETTINGS. After `closing` has become true and `take` returned what
    was left, the transport is to be closed.
    """

    __slots__ = (
        "_active",
        "_measured",
        "_opened_at",
        "_preface",
        "_slow",
        "_tail",
        "_tail_since",
        "closing",
        "error",
        "idle",
    )

    def __init__(self, events: Events, limits: EngineLimits, now: float) -> None:
        super().__init__(events, limits, now)
        self._preface = PREFACE  # what is still to come of it
        self._tail = b""  # the beginning of a frame that is not whole yet
        self._tail_since = now
        self._opened_at = now
        self._measured = now  # since when `_total` counts
        self._slow = False  # the peer opens the connection's window too little
        self._active = now  # when the peer last sent something, or a request was open
        self.closing = False
        """Nothing more is read or sent but what `take` still returns."""
        self.idle = False
        """We ended it because nothing was asked for too long."""
        self.error: SessionError | None = None
        """Why we ended the connection, if we did for an error."""

    # Input

    def receive(self, data: bytes, now: float) -> None:
        """Read `data`, whatever part of frames it is; never raises for what a peer may send."""
        if self.closing:
            return
        self.now = self._active = now
        if self._tail:
            data = self._tail + data
            self._tail = b""
        else:
            self._tail_since = now
        try:
            pos = self._read_preface(data) if self._preface else 0
            self._read_frames(data, pos)
            if (
                self._unread_control > MAX_CONTROL_OUTPUT
                or self._unread_heads > 2 * self._limits.max_streams
            ):
                raise SessionError(
                    ErrorCodes.ENHANCE_YOUR_CALM, "the peer does not read what it asks for"
                )
        except SessionError as error:
            self.fail(error)

    def _read_preface(self, data: bytes) -> int:
        """Match what has come against the preface; return where frames begin."""
        seen = data[: len(self._preface)]
        if not self._preface.startswith(seen):
            text = "the connection preface is not HTTP/2's"
            if _HTTP1_REQUEST(data):
                text = "an HTTP/1 request on an HTTP/2 connection"
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, text)
        self._preface = self._preface[len(seen) :]
        return len(seen)

    def _read_frames(self, data: bytes, pos: int) -> None:
        """Read every whole frame from `pos` on and keep the rest."""
        size = len(data)
        unpack = HEADER.unpack_from
        heads = self._heads
        streams = self.streams
        on_request = self._on_request
        max_streams = self._limits.max_streams
        start = pos
        while True:
            try:
                while size - pos >= 9:
                    high, low, kind, flags, stream_id = unpack(data, pos)
                    length = high << 16 | low
                    if length > DEFAULT_FRAME_SIZE:
                        raise SessionError(
                            ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes"
                        )
                    end = pos + 9 + length
                    if end > size:
                        break
                    payload = data[pos + 9 : end]
                    pos = end
                    if (
                        kind == HEADERS
                        and flags & _LAYOUT == _WHOLE_REQUEST
                        and (head := heads.get(payload) or self._match(payload)) is not None
                        and stream_id - self.last_stream_id == 2
                        and stream_id <= MAX_STREAM_ID
                        and len(streams) < max_streams
                        and self._block is None
                        and self._final is None
                    ):
                        # A request like one before it, whole in one frame: nothing to decode.
                        self.last_stream_id = stream_id
                        self._new_head = head
                        self._new_ended = True
                        self.block_size = length
                        on_request(stream_id, head, True)
                        continue
                    if self.closing:
                        return
                    self._dispatch(kind, flags, stream_id & MAX_STREAM_ID, payload)
                    if self.closing:
                        return
                break
            except StreamError as error:
                self._stream_error(error)
        if pos > start:
            self._tail_since = self.now
        self._tail = data[pos:]

    def _dispatch(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block_stream):
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "a frame inside a header block")
        if not self._settings_seen and (kind != SETTINGS or flags & ACK):
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind < len(READERS):
            READERS[kind](self, flags, stream_id, payload)
        elif kind == PRIORITY_UPDATE:
            self.read_priority_update(stream_id, payload)
        else:  # an extension that we do not know: ignored (section 5.5)
            self._purse.spend("unknown_frame", self.now)

    # Ends

    @property
    def going(self) -> bool:
        """A GOAWAY of ours was sent."""
        return self.goaway is not None

    def fail(self, error: SessionError, cause: Cause = Cause.CONNECTION) -> None:
        """End the connection for an error: GOAWAY, and every open stream is over."""
        if self.closing:
            return
        self.error = error
        self.goaway = int(error.code)
        self._emit(frames.goaway(self._last_answered(), error.code, error.detail))
        self.end(cause, error.code)

    def end(self, cause: Cause = Cause.CONNECTION, code: int = 0) -> None:
        """The connection is over: report every open stream. Call it when the transport is lost."""
        self.closing = True
        self._final = self._last_answered()
        for stream in list(self.streams.values()):
            stream.closed = True
            stream.unsent = stream.queued
            self._events.on_reset(stream, cause, code)
        self.streams.clear()
        self._ready.clear()
        self._forget()
        self.queued = 0
        self._block = None
        self._tail = b""

    def release(self) -> None:
        """Tell the layer above nothing any more: its transport is lost, and `end` was called.

        The two would else be a circle, and all that they hold the garbage collector's to find.
        """
        self._events = _NOBODY
        self._on_request = _NOBODY.on_request

    def drain(self, now: float) -> None:
        """Begin to go (RFC 9113 section 6.8): GOAWAY with the highest id, then, once the peer has
        seen it or `DRAIN_GRACE` has passed, GOAWAY with the last one that will be answered.

        Requests until then are answered; `closing` is set when none is open any more.
        """
        if self._going_since is not None or self.closing:
            return
        self.now = now
        self._going_since = now
        self.goaway = int(ErrorCodes.NO_ERROR)
        self._emit(frames.goaway(MAX_STREAM_ID, ErrorCodes.NO_ERROR))
        self._emit(frames.frame(frames.PING, 0, 0, DRAIN_PING))

    def stop(self) -> None:
        """Go at once: the streams that are still open are the caller's to reset before."""
        if not self.closing:
            self._go()
            self.end()

    def settle(self) -> None:
        """Set `closing` if one side is going and no request is open. Call it after other calls."""
        if not self.streams and (self._final is not None or self._peer_going):
            if self._final is None:
                self._go()
            self.closing = True

    def tick(self, now: float) -> None:
        """Let time pass: end what took too long. Call it about once a second."""
        if self.closing:
            return
        self.now = now
        limits = self._limits
        late = self._late(now)
        if late is not None:
            self.fail(late, Cause.TIMEOUT)
            return
        elapsed = now - self._measured
        if elapsed > limits.stall_timeout:
            self._slow = self.window <= 0 and self._total < limits.min_rate * elapsed
            self._measured, self._total = now, 0
        for stream in list(self.streams.values()):
            # One that was held up is watched also while the layer above makes its next piece.
            waits = stream.queue or stream.waiting or (stream.held_up and stream.window <= 0)
            if waits and self._stalled(stream, now):
                self.reset(stream, ErrorCodes.CANCEL)
                self._events.on_reset(stream, Cause.TIMEOUT, ErrorCodes.CANCEL)
        if self._going_since is not None and now - self._going_since > DRAIN_GRACE:
            self._go()
        self._stop_lingering(now)
        if self.streams:
            self._active = now
        elif now - self._active > limits.idle_timeout:
            self.idle = True
            self._go()
        self.settle()

    def excuse(self, seconds: float) -> None:
        """Take `seconds` out of the peer's time: nothing that it has sent was read meanwhile."""
        self._opened_at += seconds
        self._active += seconds
        self._measured += seconds
        self._tail_since += seconds
        self._block_since += seconds
        self._last_sent += seconds
        for stream in self.streams.values():
            stream.progress += seconds
            stream.measured += seconds

    def _stalled(self, stream: Stream, now: float) -> bool:
        """Say whether the peer lets a stream wait that has something to send.

        It does when it opens the stream's window too little, or the connection's too little for
        all of them; a stream that waits for its turn behind others is not stalled.
        """
        limits = self._limits
        moves = now - self._last_sent <= limits.stall_timeout and not self._slow
        turns = stream.window > 0 and moves
        if turns:
            return False
        if now - stream.progress > limits.stall_timeout:
            return True
        elapsed = now - stream.measured
        if elapsed <= limits.stall_timeout:
            return False
        slow = stream.taken < limits.min_rate * elapsed
        stream.measured, stream.taken = now, 0
        return slow

    def _late(self, now: float) -> SessionError | None:
        """Return the error of a peer that keeps us waiting for what it must send."""
        limits = self._limits
        if not self._settings_seen:
            if now - self._opened_at > limits.preface_timeout:
                return SessionError(ErrorCodes.SETTINGS_TIMEOUT, "no preface and SETTINGS in time")
        elif not self._settings_acked and now - self._opened_at > (
            limits.preface_timeout + limits.settings_timeout
        ):
            return SessionError(ErrorCodes.SETTINGS_TIMEOUT, "SETTINGS were not acknowledged")
        if self._block is not None and now - self._block_since > limits.header_timeout:
            return SessionError(ErrorCodes.ENHANCE_YOUR_CALM, "a header block took too long")
        if self._tail:
            content = len(self._tail) > 3 and self._tail[3] == DATA
            limit = limits.body_timeout if content else limits.header_timeout
            if now - self._tail_since > limit:
                return SessionError(ErrorCodes.ENHANCE_YOUR_CALM, "a frame took too long")
        return None
