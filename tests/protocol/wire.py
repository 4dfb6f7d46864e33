"""A client that speaks the wire to the engine: bytes in, frames out. Time is an argument.

`App` is the layer above the engine: it records what it is told and answers as it was asked to.
`Peer` is the client: it holds a real HPACK encoder, and its `Ledger` checks in every test that
whatever the engine sends is what RFC 9113 lets it send.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from h2.errors import ErrorCodes
from hpack import Encoder

from h2log.http2.connection import Connection
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.sending import Prepared
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream
from tests.protocol.frames import (
    PREFACE,
    SETTINGS_ACK,
    Frame,
    RstStreamFrame,
    data,
    headers,
    literal,
    parse,
    settings,
)
from tests.protocol.ledger import Answer, Fields, Ledger

Mode = Literal["reply", "hold", "prepared", "whole", "framed", "part"]

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
CONTENT = b"hello"
FULL = 16_384
OK = b"\x88"  # `:status: 200` by its index in the static table
TAIL = literal(b"x-tail", b"1")


@dataclass
class App:
    """The layer above. `mode` says how a request is answered:

    - reply: as soon as it has ended, on an opened stream;
    - hold: the stream is opened and left so; the test answers with `Peer.answer`;
    - prepared: with `send_prepared` where that has room, else as reply;
    - whole: as soon as it has ended, with `send_whole` where that has room, else as reply;
    - framed: the same, with content that it frames itself where `at_once` has room;
    - part: the same with `fits`, and without a stream.
    """

    mode: Mode = "reply"
    eat: bool = True
    """Content is given back to `consumed` as it comes."""
    content: bytes = CONTENT
    requests: dict[int, RequestHead] = field(default_factory=dict)
    unended: list[int] = field(default_factory=list)
    """Requests that were delivered with content still to come."""
    refused: list[tuple[int, RequestHead, Cause | None]] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)
    received: dict[int, bytes] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    resets: list[tuple[int, Cause, int]] = field(default_factory=list)
    prepared: list[int] = field(default_factory=list)
    """Streams that were answered past the queues."""
    written: bytes = b""
    """What it has put behind the output."""

    def bind(self, conn: Connection) -> None:
        """Say what connection this is the upper layer of."""
        self.conn = conn
        self.response = Prepared(OK, len(TAIL), self.content)

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        assert stream_id not in self.requests, "a request is delivered once"
        self.requests[stream_id] = head
        if self.mode == "prepared" and ended:
            if self.conn.send_prepared(stream_id, self.response, TAIL):
                self.prepared.append(stream_id)
                return
        if self.mode == "part" and ended and self.conn.fits(len(self.content)):
            self.conn.framed_whole(len(self.content))
            self.written += self.conn.take() + headers(stream_id, OK + TAIL, end=False)
            self.frame(stream_id, self.content)
            return
        stream = self.streams[stream_id] = self.conn.open_stream(stream_id)
        if not ended:
            self.unended.append(stream_id)
        elif self.mode != "hold":
            self.answer(stream)

    def answer(self, stream: Stream, content: bytes | None = None) -> None:
        """Send the whole response."""
        body = self.content if content is None else content
        if self.mode == "whole" and self.conn.send_whole(stream, OK + TAIL, body):
            self.prepared.append(stream.id)
            return
        if self.mode == "framed" and 0 < len(body) <= self.conn.at_once(stream):
            self.conn.send_headers(stream, OK + TAIL)
            self.written += self.conn.take()
            self.conn.framed(stream, len(body), end=True)
            self.frame(stream.id, body)
            return
        self.conn.send_headers(stream, OK)
        self.conn.send_data(stream, body, end=True)

    def frame(self, stream_id: int, body: bytes) -> None:
        """Put content behind the output, framed."""
        self.prepared.append(stream_id)
        for at in range(0, len(body), FULL):
            end = at + FULL >= len(body)
            self.written += data(stream_id, body[at : at + FULL], end=end)

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        self.refused.append((stream_id, head, cause))

    def on_data(self, stream: Stream, data: bytes) -> None:
        assert data and not stream.closed
        self.received[stream.id] = self.received.get(stream.id, b"") + data
        if self.eat:
            self.conn.consumed(stream, len(data))

    def on_end(self, stream: Stream) -> None:
        assert not stream.closed
        self.ended.append(stream.id)
        if self.mode != "hold":
            self.answer(stream)

    def on_progress(self, stream: Stream) -> None:
        assert not stream.closed

    def on_sent(self, stream: Stream) -> None:
        self.sent.append(stream.id)

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        assert stream.closed
        self.resets.append((stream.id, cause, code))

    def on_window(self) -> None:
        pass


class Peer:
    """A client of one connection. `now` is the time of all that happens until it is changed."""

    def __init__(
        self,
        mode: Mode = "reply",
        *,
        limits: EngineLimits | None = None,
        app: App | None = None,
        shake: bool = True,
        now: float = 1000.0,
    ) -> None:
        self.now = now
        self.app = app if app is not None else App(mode)
        self.conn = Connection(self.app, limits if limits is not None else EngineLimits(), now)
        self.app.bind(self.conn)
        self.encoder = Encoder()
        self.ledger = Ledger()
        self.greeting = self.flush()
        if shake:
            self.send_bytes(PREFACE + settings() + SETTINGS_ACK)

    # Both directions

    def send(self, *frames: bytes) -> list[Frame]:
        """Send these frames at once; return what comes back."""
        return self.send_bytes(b"".join(frames))

    def send_bytes(self, output: bytes) -> list[Frame]:
        """Send bytes, whatever part of frames they are; return what comes back."""
        self.ledger.sent(output)
        self.conn.receive(output, self.now)
        return self.flush()

    def flush(self) -> list[Frame]:
        """Return what the engine has to say, as the server's HTTP/2 leg fetches it."""
        conn = self.conn
        output, self.app.written = self.app.written, b""
        while conn.out_size:
            output += conn.take()
            if conn.blocked or not conn.pending:
                break
            conn.pump()
        conn.settle()
        output += conn.take()
        frames = parse(output)
        self.ledger.got(frames)
        return frames

    def tick(self, seconds: float = 0.0) -> list[Frame]:
        """Let `seconds` pass, then tick; return what the engine says to that."""
        self.now += seconds
        self.conn.tick(self.now)
        return self.flush()

    # Requests and answers

    def block(self, fields: Fields) -> bytes:
        """Return the header block of `fields`, which moves the dynamic table on."""
        return self.encoder.encode(fields)

    def ask(self, stream_id: int, fields: Fields = GET, *, end: bool = True) -> list[Frame]:
        """Send a request's header section."""
        return self.send(headers(stream_id, self.block(fields), end=end))

    def answer(self, stream_id: int, content: bytes | None = None) -> list[Frame]:
        """Have the application answer a stream that it holds."""
        self.app.answer(self.app.streams[stream_id], content)
        return self.flush()

    def got(self, stream_id: int) -> Answer:
        """Return what came back on a stream."""
        return self.ledger.answers[stream_id]

    # What a test asserts

    def is_connection_error(self, frames: list[Frame], code: ErrorCodes) -> None:
        """Assert that the connection has ended, for this error."""
        assert [frame.code for frame in self.ledger.goaways[-1:]] == [code], self.described(frames)
        assert frames and frames[-1] == self.ledger.goaways[-1], "nothing follows the GOAWAY"
        assert self.conn.closing and self.conn.error is not None
        assert self.conn.error.code == code
        assert not self.conn.streams
        assert self.send(settings()) == [], "nothing is read after the connection's end"

    def is_stream_error(self, frames: list[Frame], stream_id: int, code: ErrorCodes) -> None:
        """Assert that one stream was reset for this error, and that all others go on."""
        resets = [f for f in frames if isinstance(f, RstStreamFrame)]
        assert [(f.stream_id, f.code) for f in resets] == [(stream_id, code)], self.described(
            frames
        )
        assert self.conn.error is None and not self.conn.closing
        assert stream_id not in self.conn.streams
        self.goes_on()

    def is_ignored(self, frames: list[Frame]) -> None:
        """Assert that nothing happened to any stream."""
        assert frames == [], self.described(frames)
        self.goes_on()

    def goes_on(self) -> None:
        """Assert that open streams finish, and that a new request is understood and answered."""
        assert not self.conn.closing and self.conn.error is None
        for stream_id, stream in list(self.conn.streams.items()):
            self.answer(stream_id)
            assert stream.closed and self.got(stream_id).complete
            assert self.got(stream_id).content.endswith(self.app.content)
        new = max((*self.ledger.answers, 1), default=1) + 2
        fields = [*GET, (b"x-first", b"kept"), (b"x-new", b"%d" % new)]
        self.ask(new, fields)
        if new in self.conn.streams:
            self.answer(new)
        head = self.app.requests[new]
        assert list(head.fields) == fields[4:], "the HPACK state is out of step"
        assert (head.method, head.path, head.authority) == ("GET", "/", "example.org")
        assert self.got(new).complete and self.got(new).reset is None

    def described(self, frames: list[Frame]) -> str:
        """Say what happened, for a failing assertion."""
        return f"out: {frames}, error: {self.conn.error}"


def with_sibling(mode: Mode = "hold", limits: EngineLimits | None = None) -> Peer:
    """Return a peer that has a request open on stream 1; its fields are in the dynamic table."""
    peer = Peer(mode, limits=limits)
    peer.ask(1, [*POST, (b"x-first", b"kept")], end=False)
    assert 1 in peer.conn.streams
    return peer
