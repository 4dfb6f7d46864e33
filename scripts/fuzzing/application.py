"""The layer above the engine: it treats each request as the case's script says, and keeps account.

It checks what `Events` promises: a request is reported once, and a stream that was taken ends
once, after which nothing more is heard of it.
"""

from __future__ import annotations

import re
from typing import Final

from client import CONTENT, Broken
from h2.errors import ErrorCodes

from h2log.http2.budget import OUTPUT_LIMIT
from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.hpack import encode
from h2log.http2.sending import Prepared
from h2log.http2.stream import Stream

__all__ = ["LARGEST_SECTION", "Application", "Work"]

_OK: Final = encode([(b":status", b"200"), (b"content-type", b"text/html")])
_TAIL: Final = encode([(b"date", b"Fri, 20 Nov 2026 13:31:59 GMT")])
_EMPTY: Final = encode([(b":status", b"304"), (b"etag", b'"%s"' % (b"1" * 40)), (b"x", b"y" * 150)])
_EARLY: Final = encode([(b":status", b"103"), (b"link", b"</style.css>; rel=preload")])
_TRAILERS: Final = encode([(b"x-sum", b"1")])
_LARGE: Final = encode([(b":status", b"200"), *((b"x-%d" % n, b"\xff" * 900) for n in range(40))])
LARGEST_SECTION: Final = len(_LARGE) + 64
"""Bytes of the largest header section that it sends."""

_SMALL: Final = 5
_MIDDLE: Final = 20_000
_BIG: Final = 70_000
_PREPARED: Final = Prepared(_OK, len(_TAIL), CONTENT[:_SMALL])
_PREPARED_BIG: Final = Prepared(_OK, len(_TAIL), CONTENT[:40_000])
_PREPARED_EMPTY: Final = Prepared(_EMPTY, len(_TAIL), b"")

# What the low half of a script's byte means.
(
    PREPARED,
    PREPARED_BIG,
    PREPARED_EMPTY,
    REPLY,
    REPLY_BIG,
    EARLY,
    STREAMED,
    HOLD,
    RESET,
    HEAD_ONLY,
    WITH_TRAILERS,
    LARGE_HEAD,
    IN_DATA,
    RESET_IN_DATA,
    NO_CONTENT_END,
    PREPARED_AGAIN,
) = range(16)


_VARIABLE: Final = re.compile(r"b?'[^']*'|b?\"[^\"]*\"|value of .*|field [a-z-]+$|\d+").sub


class Work:
    """What the application knows of one stream: its `context`."""

    __slots__ = ("ended", "given", "got", "kind", "over", "started", "through", "unread")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.given = 0  # bytes of content
        self.got: list[bytes] = []
        self.unread = 0
        self.started = False
        self.through = False  # no more will be given
        self.ended = False  # the request's content is complete
        self.over = ""  # how the stream ended


class Application:
    """The upper layer of one connection."""

    def __init__(self, script: bytes) -> None:
        self._script = script
        self._woken = False
        self.conn: Connection
        """Set once, before anything is received."""
        self.written: list[bytes] = []
        """Output that was taken while a request was reported."""
        self.reported: list[int] = []
        """Every request that was reported, in order."""
        self.heads: list[RequestHead] = []
        self.streams: list[Stream] = []
        """Every stream that was ever taken."""
        self.prepared: dict[int, int] = {}
        """Bytes of content by stream that `send_prepared` answered."""
        self.cut_off = 0
        """Requests whose header block was not whole at the end."""
        self.seen: set[str] = set()
        """The outcomes there were."""

    # Events

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        self.reported.append(stream_id)
        self.heads.append(head)
        if head.fault is not None:
            raise Broken(f"a malformed request is delivered: {head.fault}")
        conn = self.conn
        byte = self._script[(stream_id >> 1) % len(self._script)]
        kind = byte & 15
        if ended and (kind <= PREPARED_EMPTY or kind == PREPARED_AGAIN):
            if conn.out_size > OUTPUT_LIMIT and not conn.blocked:
                self.written.append(conn.take())
            ready = _PREPARED
            if kind == PREPARED_BIG:
                ready = _PREPARED_BIG
            elif kind == PREPARED_EMPTY:
                ready = _PREPARED_EMPTY
            if conn.send_prepared(stream_id, ready, _TAIL):
                self.prepared[stream_id] = ready.size
                return
        stream = conn.open_stream(stream_id)
        work = stream.context = Work(byte)
        work.ended = ended
        self.streams.append(stream)
        if kind == EARLY:
            self.answer(stream, _BIG)
        elif kind == RESET:
            self.reset(stream, ErrorCodes.INTERNAL_ERROR)
        elif kind == HEAD_ONLY:
            self.head(stream, _EMPTY, True)
        elif kind == STREAMED:
            self.head(stream, _OK)
            self.on_progress(stream)
        elif ended:
            self._reply(stream)

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        self.reported.append(stream_id)
        self.heads.append(head)
        why = "for want of room" if cause is None else cause.value
        if cause is not None and head.fault:
            why = _VARIABLE("*", head.fault)
        self.seen.add(f"refused: {why}")
        if cause is Cause.CONNECTION:
            self.cut_off += 1
        elif cause is not None and not head.fault:
            raise Broken(f"refused for {cause} without a fault")

    def on_data(self, stream: Stream, data: bytes) -> None:
        work = self._work(stream, "on_data")
        if not data or work.ended:
            raise Broken("on_data without content, or after on_end")
        work.got.append(data)
        work.unread += len(data)
        eat = work.kind >> 4 & 3
        if eat < 2:
            self.read(stream)
        elif eat == 2:
            self.read(stream, len(data) // 2)
        kind = work.kind & 15
        if kind == IN_DATA:
            self.answer(stream, _SMALL)
        elif kind == RESET_IN_DATA:
            self.reset(stream, ErrorCodes.CANCEL)

    def on_end(self, stream: Stream) -> None:
        work = self._work(stream, "on_end")
        if work.ended:
            raise Broken("on_end twice")
        work.ended = True
        self._reply(stream)

    def on_progress(self, stream: Stream) -> None:
        work = self._work(stream, "on_progress")
        if work.kind & 15 == STREAMED and not work.through and work.started:
            if stream.window <= 0 or self.conn.window <= 0:
                stream.waiting = True
            elif not stream.queue:
                stream.waiting = False
                self.write(stream, _MIDDLE, work.given >= 3 * _MIDDLE)

    def on_sent(self, stream: Stream) -> None:
        work = self._work(stream, "on_sent")
        if not stream.closed or not work.through:
            raise Broken("on_sent of a stream that is open, or whose response is not through")
        work.over = "sent"

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        work = self._work(stream, "on_reset")
        if not stream.closed:
            raise Broken("on_reset of a stream that is open")
        work.over = "reset"
        self.seen.add(f"reset for {cause.value}")

    def on_window(self) -> None:
        self._woken = True

    def go_on(self) -> None:
        """Give those who wait for a window their turn, as their tasks would have it."""
        if self._woken:
            self._woken = False
            for stream in list(self.conn.streams.values()):
                if stream.waiting and not stream.closed:
                    self.on_progress(stream)

    def _work(self, stream: Stream, what: str) -> Work:
        work: Work = stream.context
        if work.over:
            raise Broken(f"{what} of stream {stream.id}, which was {work.over}")
        return work

    # What it does, by itself or as a step; a closed stream is as good as any

    def _reply(self, stream: Stream) -> None:
        kind = stream.context.kind & 15
        if kind == HOLD:
            return
        if kind == WITH_TRAILERS:
            self.interim(stream)
            self.head(stream, _OK)
            self.write(stream, _MIDDLE, True, _TRAILERS)
        elif kind == LARGE_HEAD:
            self.head(stream, _LARGE)
            self.write(stream, _SMALL, True)
        elif kind == NO_CONTENT_END:
            self.head(stream, _OK)
            self.write(stream, 0, True)
        else:
            self.answer(stream, _BIG if kind == REPLY_BIG else _SMALL)

    def answer(self, stream: Stream, size: int) -> None:
        """Give what is left of a whole response."""
        self.head(stream, _OK)
        self.write(stream, size, True)

    def head(self, stream: Stream, block: bytes, end: bool = False) -> None:
        """Send the final header section, if it was not yet."""
        work: Work = stream.context
        if not work.started:
            work.started = True
            work.through = work.through or end
            self.conn.send_headers(stream, block, end)

    def interim(self, stream: Stream) -> None:
        """Send an interim response, if the final one was not yet."""
        if not stream.context.started:
            self.conn.send_interim(stream, _EARLY)

    def write(self, stream: Stream, size: int, end: bool, trailers: bytes | None = None) -> None:
        """Give more content."""
        work: Work = stream.context
        if work.through or not work.started:
            return
        place = work.given % 251
        work.given += size
        work.through = end
        data = CONTENT[place : place + size]
        self.conn.send_data(stream, data, end and trailers is None, trailers)

    def read(self, stream: Stream, size: int | None = None) -> None:
        """Consume content that has come."""
        work: Work = stream.context
        size = work.unread if size is None else size
        work.unread -= size
        self.conn.consumed(stream, size)

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """Give a stream up."""
        if not stream.closed:
            stream.context.over = "given up"
            self.conn.reset(stream, code)
