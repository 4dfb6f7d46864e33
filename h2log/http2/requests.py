"""Header blocks: from HEADERS and CONTINUATION frames to requests and trailers.

A block must be decoded whatever becomes of its request, since the compression state must follow;
what needs no decoding again is remembered: whole blocks, and blocks around a path that differs.
"""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

from h2.errors import ErrorCodes

from h2log.errors import MalformedError, SessionError, StreamError
from h2log.http2 import frames
from h2log.http2.budget import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_FRAMES,
    MAX_GAPS,
    MAX_PATTERNS,
    MAX_REMEMBERED_BLOCK,
    MAX_REMEMBERED_HEADS,
    Purse,
)
from h2log.http2.events import Cause, Events
from h2log.http2.frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    MAX_STREAM_ID,
    PADDED,
    PRIORITY_FLAG,
    U32,
)
from h2log.http2.head import RequestHead, parse_request, trailer_fault
from h2log.http2.hpack import Decoder
from h2log.http2.paths import known, path_of
from h2log.http2.priority import parse_priority
from h2log.http2.sending import Sending
from h2log.http2.settings import (
    EngineLimits,
)
from h2log.http2.stream import Stream

__all__ = ["Requests", "depends_on"]


class Pattern(NamedTuple):
    """A header block around its literal path, which is most of what differs between requests."""

    before: bytes
    after: bytes
    head: RequestHead
    room: int
    """Bytes that its fields left of the bound."""


class Requests(Sending):
    """The part of a connection that opens requests. See `Connection`."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_since",
        "_block_stream",
        "_decoder",
        "_final",
        "_gaps",
        "_going_since",
        "_heads",
        "_initial_receive_window",
        "_latest",
        "_limits",
        "_new_ended",
        "_new_head",
        "_on_request",
        "_patterns",
        "_peer_going",
        "_purse",
        "_self_dependent",
        "_settings_acked",
        "_settings_seen",
        "_skipped",
        "_updates",
        "_window_granted",
        "_window_updates",
        "block_size",
        "goaway",
        "last_stream_id",
    )

    def __init__(self, events: Events, limits: EngineLimits, now: float) -> None:
        super().__init__(events, limits.stream_window, limits.connection_window, now)
        self._limits = limits
        self._on_request = events.on_request
        self._decoder = Decoder(limits.max_header_bytes, limits.max_header_fields)
        self._heads: dict[bytes, RequestHead] = {}
        self._patterns: list[Pattern] = []  # the latest first
        self._latest = b""  # the block that a pattern matched last
        self._block: list[bytes] | None = None  # the fragments of an unfinished header block
        self._block_stream = 0
        self._block_flags = 0
        self._block_frames = 0
        self._block_since = now
        self._self_dependent = False  # the block's HEADERS made the stream depend on itself
        self._new_head: RequestHead | None = None  # of the request being delivered
        self._new_ended = False
        # Windows larger than the default hold at once: no peer uses what it does not know of.
        self._initial_receive_window = max(limits.stream_window, DEFAULT_WINDOW)
        self._skipped = 0  # by how much identifiers are ahead of the requests that used them
        self._gaps: list[range] = []  # identifiers that were skipped, and so never used
        self._settings_seen = False
        self._settings_acked = False
        self._purse = Purse(limits.budgets)
        self._window_updates = 0
        self._window_granted = DEFAULT_WINDOW  # what the peer ever let us send
        self._updates: dict[int, bytes] = {}  # PRIORITY_UPDATE for streams that are not open yet
        self._peer_going = False
        self._going_since: float | None = None
        self._final: int | None = None
        self.goaway: int | None = None
        """The code of the GOAWAY that we sent last."""
        self.block_size = 0
        """Bytes of the header block of the request being delivered."""
        self.last_stream_id = 0
        """The highest stream identifier that the peer has used."""
        self._emit(frames.settings(limits.offered()))
        if limits.connection_window > DEFAULT_WINDOW:
            self._emit(frames.window_update(0, limits.connection_window - DEFAULT_WINDOW))

    def _is_idle(self, stream_id: int) -> bool:
        """Say whether a stream was never opened; those of even identifiers are ours to open."""
        return stream_id > self.last_stream_id or stream_id & 1 == 0

    def _unpad(self, payload: bytes) -> bytes:
        """Return a padded payload without its padding (RFC 9113 section 6.1)."""
        if not payload:
            raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "a padded frame without its length")
        if payload[0] >= len(payload):
            raise SessionError(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
        return payload[1 : len(payload) - payload[0]]

    def _remote_end(self, stream: Stream) -> None:
        """The peer's half has ended."""
        if stream.expected is not None and stream.received != stream.expected:
            raise MalformedError(stream.id, "less than content-length")
        stream.remote_ended = True
        self._events.on_end(stream)

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
                if flags & PADDED:
                    raise SessionError(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
                raise SessionError(ErrorCodes.FRAME_SIZE_ERROR, "HEADERS without its priority")
            self._self_dependent = depends_on(payload) == stream_id
            payload = payload[5:]
        else:
            self._self_dependent = False
        if not self._is_idle(stream_id) and stream_id not in self.streams:
            if any(stream_id in gap for gap in self._gaps):
                raise SessionError(
                    ErrorCodes.PROTOCOL_ERROR,
                    f"HEADERS on stream {stream_id}, below {self.last_stream_id}",
                )
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
        self.block_size = len(block)
        if stream_id > self.last_stream_id:
            expected = (self.last_stream_id + 1) | 1
            if stream_id > expected:
                self._skipped += stream_id - expected
                if len(self._gaps) < MAX_GAPS:
                    self._gaps.append(range(expected, stream_id, 2))
            self.last_stream_id = stream_id
            self._new_request(stream_id, self._decode_head(stream_id, block), ended)
            return
        fields = self._decoder.decode(block)  # also when unwanted: the table must follow
        if self._decoder.changed:
            self._forget()
        stream = self.streams.get(stream_id)
        if stream is None:
            if ended:
                self._lingering.pop(stream_id, None)
            self._purse.spend("stray_frame", self.now)
            return
        if stream.remote_ended:
            raise StreamError(stream_id, ErrorCodes.STREAM_CLOSED, "HEADERS after END_STREAM")
        if not ended:
            raise MalformedError(stream_id, "trailers without END_STREAM")
        if self._self_dependent:
            raise StreamError(stream_id, ErrorCodes.PROTOCOL_ERROR, "a stream depends on itself")
        fault = "trailers too large" if self._decoder.too_large else trailer_fault(fields)
        if fault is not None:
            raise MalformedError(stream_id, fault)
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
        head = parse_request(fields, self._limits.extended_connect)
        if decoder.changed:
            self._forget()
        if decoder.too_large:
            head.too_large = True
            head.fault = None  # what it lacks may be among what was thrown away
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
        self._latest = b""

    def _match(self, block: bytes) -> RequestHead | None:
        """Return the head of a block that differs from an earlier one in its path alone."""
        for before, after, head, room in self._patterns:
            if block.startswith(before) and block.endswith(after):
                literal = block[len(before) : len(block) - len(after)]
                path = known.get(literal) or path_of(literal)
                if path is None or len(path) - len(head.path) > room:
                    continue
                found = head.with_path(path)
                # Remembered when it comes twice in a row: most that differ come once.
                if block == self._latest:
                    self._remember(block, found)
                else:
                    self._latest = block if len(block) <= MAX_REMEMBERED_BLOCK else b""
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
            # Until it has acknowledged our SETTINGS the peer need not know of the limit.
            budget = "server_reset" if self._settings_acked else "rapid_reset"
            self._purse.spend(budget, self.now)
            return
        if self._self_dependent and head.fault is None:
            head = copy(head)  # others may share it
            head.fault = "a stream depends on itself"
        if ended and head.content_length and head.fault is None:
            head.fault = "content-length without content"  # such a head is not shared
        if head.fault is not None:
            self._emit_reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            self._events.on_refused(stream_id, head, Cause.MALFORMED)
            self._purse.spend("server_reset", self.now)
            return
        self._new_head = head
        self._new_ended = ended
        self._on_request(stream_id, head, ended)
        if head.too_large:
            self._purse.spend("server_reset", self.now)

    def open_stream(self, stream_id: int) -> Stream:
        """Take the request that `on_request` is delivering as a stream of its own."""
        head = self._new_head
        assert head is not None and stream_id == self.last_stream_id
        stream = Stream(
            stream_id, head, self._peer_initial_window, self._initial_receive_window, self.now
        )
        stream.remote_ended = self._new_ended
        update = self._updates.pop(stream_id, None) if self._updates else None
        if update is not None:
            stream.urgency, stream.incremental = parse_priority(update)
        else:
            rest = head.rest
            if not rest.priority_known:
                rest.priority_known = True
                value = b",".join([v for name, v in head.fields if name == b"priority"])
                rest.priority = parse_priority(value) if value else None
            if rest.priority is not None:
                stream.urgency, stream.incremental = rest.priority
        self.streams[stream_id] = stream
        return stream


def depends_on(payload: bytes) -> int:
    """Return the stream that a priority field names (RFC 9113 section 6.3)."""
    dependency: int = U32.unpack_from(payload)[0]
    return dependency & MAX_STREAM_ID
