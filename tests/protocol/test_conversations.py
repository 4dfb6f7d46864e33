"""Whole conversations: cut anywhere, changed anywhere, and with the windows kept by a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from h2log.http2.budget import (
    MAX_BLOCK_BYTES,
    MAX_RECENT_RESETS,
    MAX_REMEMBERED_BLOCK,
    MAX_REMEMBERED_HEADS,
)
from h2log.http2.head import parse_request
from h2log.http2.hpack import Decoder
from h2log.http2.settings import EngineLimits
from tests.protocol import sequences
from tests.protocol.frames import (
    INITIAL_WINDOW_SIZE,
    PREFACE,
    SETTINGS_ACK,
    Frame,
    RstStreamFrame,
    WindowUpdateFrame,
    continuation,
    data,
    goaway,
    headers,
    literal,
    ping,
    plain,
    priority,
    raw,
    rst_stream,
    string,
    window_update,
)
from tests.protocol.frames import settings as settings_frame
from tests.protocol.wire import GET, OK, POST, Mode, Peer

MODES: list[Mode] = ["reply", "hold", "prepared", "whole"]

_BIG = plain([*GET, (b"x-big", b"b" * 300)])
CONVERSATION = b"".join(
    (
        PREFACE,
        settings_frame((INITIAL_WINDOW_SIZE, 3), (1, 100)),
        SETTINGS_ACK,
        headers(1, plain(GET)),
        headers(3, plain(GET)),
        window_update(1, 2),
        settings_frame((INITIAL_WINDOW_SIZE, 65_535)),
        headers(5, plain(POST) + literal(b"x-mark", b"1", 0x40), end=False, pad=5, depends_on=3),
        data(5, b"first", pad=2),
        raw(0xBE, 1, 5, b"extension"),
        ping(),
        headers(7, _BIG[:100], end_headers=False),
        continuation(7, _BIG[100:110], end_headers=False),
        continuation(7, _BIG[110:]),
        data(5, b"second"),
        headers(5, b"\xbe"),
        headers(9, plain([*GET, (b"te", b"gzip")])),
        headers(11, plain(POST), end=False),
        priority(11, 5),
        data(11, b""),
        rst_stream(11),
        headers(13, plain(GET) + b"\xbe"),
        headers(15, plain(GET)),
        window_update(0, 1000),
        goaway(),
    )
)


def conversation(mode: Mode, pieces: list[bytes]) -> tuple[list[Frame], Any]:
    """Hold the conversation in these pieces; return the frames out and what the app was told."""
    peer = Peer(mode, shake=False)
    out = [frame for piece in pieces for frame in peer.send_bytes(piece)]
    app = peer.app
    told = (
        [(number, head.fields, head.fault) for number, head in app.requests.items()],
        [(number, head.fields, cause) for number, head, cause in app.refused],
        (app.received, app.ended, app.sent, app.resets, app.prepared),
    )
    return out, told


@pytest.mark.parametrize("mode", MODES)
def test_rfc9113_4_1_cut_at_every_byte(mode: Mode) -> None:
    """A conversation cut in two at any byte gives the same frames and events as in one piece."""
    whole = conversation(mode, [CONVERSATION])
    assert len(whole[0]) >= (4 if mode == "hold" else 8)
    assert whole[1][2][0] == {5: b"firstsecond"}
    for cut in range(1, len(CONVERSATION)):
        assert conversation(mode, [CONVERSATION[:cut], CONVERSATION[cut:]]) == whole, cut


@pytest.mark.parametrize("mode", MODES)
def test_rfc9113_4_1_byte_by_byte(mode: Mode) -> None:
    """The same in single bytes."""
    single = [CONVERSATION[pos : pos + 1] for pos in range(len(CONVERSATION))]
    assert conversation(mode, single) == conversation(mode, [CONVERSATION])


def check_bounds(peer: Peer) -> None:
    """Assert that nothing the engine keeps for a peer is over its bound."""
    conn = peer.conn
    limits = conn._limits
    assert len(conn.streams) <= limits.max_streams
    assert len(conn._resets) <= MAX_RECENT_RESETS
    assert len(conn._heads) <= MAX_REMEMBERED_HEADS
    assert all(len(block) <= MAX_REMEMBERED_BLOCK for block in conn._heads)
    assert conn.streams or not conn._ready
    assert sum(map(len, conn._block or ())) <= MAX_BLOCK_BYTES + 16_384
    assert conn._decoder._size <= conn._decoder._limit <= 4096
    assert conn._decoder._size == sum(len(n) + len(v) + 32 for n, v in conn._decoder._dynamic)
    assert conn.out_size == 0
    assert conn.queued == sum(stream.queued for stream in conn.streams.values()) >= 0
    unread = sum(stream.unread for stream in conn.streams.values())
    assert 0 <= unread <= limits.connection_window
    if not conn.closing:
        assert conn.receive_window == peer.ledger.receive_window
        full = max(limits.connection_window, 65_535)
        assert conn.receive_window + conn._uncredited + unread == full
        for stream_id, stream in conn.streams.items():
            assert stream.window == peer.got(stream_id).window
            assert stream.queued == sum(map(len, stream.queue))


LIMITS = EngineLimits(max_streams=3, max_header_bytes=2048, stream_window=65_535)

paths = st.sampled_from(
    [b"/", b"/a", b"*", b"", b"/" + b"x" * 300, b"/" + b"y" * 2000]
) | st.binary(max_size=20).map(lambda tail: b"/" + tail)
patterns = st.tuples(
    st.sampled_from([b"GET", b"OPTIONS", b"CONNECT"]),
    paths,
    st.sampled_from([0x04, 0x14, 0x44, 0x05]),  # how the path is coded, by its index
    st.sampled_from([b"", b"x-a", b"content-length", b"te", b":path"]),
    st.sampled_from([b"0", b"5", b"trailers", b"y" * 100]),
    st.sampled_from([0x00, 0x40, 0x20]),  # the last field's coding; 0x20 is a size update first
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(patterns, min_size=1, max_size=2).flatmap(
        lambda shapes: st.lists(
            st.tuples(st.sampled_from(shapes), paths).map(lambda p: (p[0][0], p[1], *p[0][2:])),
            min_size=2,
            max_size=12,
        )
    ),
    st.booleans(),
)
def test_rfc7541_2_1_what_is_remembered_changes_nothing(
    requests: list[tuple[bytes, bytes, int, bytes, bytes, int]], end: bool
) -> None:
    """A request is the same whether the engine has seen one like it before or not."""
    peer = Peer("prepared", limits=LIMITS)
    decoder = Decoder(LIMITS.max_header_bytes, LIMITS.max_header_fields)
    for n, (method, path, coding, name, value, pattern) in enumerate(requests):
        block = b"\x20" if pattern == 0x20 else b""
        block += literal(b":method", method) + plain(GET[1:3])
        block += bytes((coding,)) + string(path)
        block += literal(name, value, pattern & 0x40) if name else b""
        head = parse_request(decoder.decode(block))
        number = 2 * n + 1
        peer.send(headers(number, block, end=end))
        got = peer.app.requests.get(number)
        assert (got is None) == bool(head.fault or (end and head.content_length)) or head.fault
        if got is not None and not decoder.too_large:
            for part in ("method", "scheme", "authority", "path", "fields", "content_length"):
                assert getattr(got, part) == getattr(head, part), part
        check_bounds(peer)
        if number in peer.conn.streams:
            peer.answer(number)


chunks = st.lists(st.binary(max_size=60) | st.sampled_from([b"", PREFACE]), max_size=6)


@settings(max_examples=150, deadline=None)
@given(chunks, st.booleans())
def test_random_bytes_never_raise(pieces: list[bytes], shake: bool) -> None:
    """Whatever bytes come, `receive` and `tick` do not raise, and the output is well-formed."""
    peer = Peer("prepared", shake=shake, limits=LIMITS)
    for piece in pieces:
        peer.send_bytes(piece)
        peer.tick(0.5)
        check_bounds(peer)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(MODES), sequences.edits, st.integers(1, 300), st.booleans())
def test_changed_conversation_never_raises(
    mode: Mode, edits: list[tuple[int, int, int]], size: int, eat: bool
) -> None:
    """A conversation with bytes changed, put in or taken out ends in no exception."""
    peer = Peer(mode, shake=False, limits=LIMITS)
    peer.app.eat = eat
    stream = PREFACE + sequences.changed(CONVERSATION[len(PREFACE) :], edits)
    for pos in range(0, len(stream), size):
        peer.send_bytes(stream[pos : pos + size])
        check_bounds(peer)
    peer.tick(1000.0)
    check_bounds(peer)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(MODES),
    st.lists(st.tuples(sequences.any_frames, st.sampled_from([0, 0, 0, 0.4, 20])), max_size=30),
    st.booleans(),
)
def test_random_frames_never_raise(mode: Mode, steps: list[tuple[bytes, float]], eat: bool) -> None:
    """Frames in any order, right or wrong, end in no exception, and keep every bound."""
    peer = Peer(mode, limits=LIMITS)
    peer.app.eat = eat
    peer.app.content = bytes(40_000)
    peer.app.bind(peer.conn)
    for frame, seconds in steps:
        peer.send(frame)
        check_bounds(peer)
        if seconds:
            peer.tick(seconds)
            check_bounds(peer)


class Windows(RuleBasedStateMachine):
    """Both directions' windows against a model: the ledger for ours, two numbers for the peer's."""

    LIMITS = EngineLimits(stream_window=70_000, connection_window=100_000, max_streams=4)

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer("hold", limits=self.LIMITS)
        self.peer.app.eat = False
        self.next_id = 1
        self.given: dict[int, bytes] = {}  # response content by stream
        self.done: set[int] = set()  # streams whose response was given whole
        self.room: dict[int, int] = {}  # what we may still send, by stream

    def note(self, out: list[Frame]) -> None:
        """Keep the model's windows for what we send."""
        for frame in out:
            if isinstance(frame, WindowUpdateFrame) and frame.stream_id:
                self.room[frame.stream_id] += frame.increment
                assert self.room[frame.stream_id] <= self.LIMITS.stream_window
            elif isinstance(frame, RstStreamFrame):
                assert frame.code == 0, "only what we answered early is reset"

    def open(self) -> list[int]:
        """Return the open streams."""
        return sorted(self.peer.conn.streams)

    @precondition(lambda self: len(self.open()) < self.LIMITS.max_streams)
    @rule(end=st.booleans())
    def ask(self, end: bool) -> None:
        """A new request."""
        number = self.next_id
        self.next_id += 2
        self.room[number] = 0 if end else self.LIMITS.stream_window
        self.note(self.peer.ask(number, POST, end=end))
        self.peer.conn.send_headers(self.peer.app.streams[number], OK)
        self.given[number] = b""
        self.note(self.peer.flush())

    @precondition(lambda self: self.open())
    @rule(pick=st.integers(0, 9), size=st.sampled_from([0, 1, 999, 16_384, 50_000, 200_000]))
    def give(self, pick: int, size: int) -> None:
        """More content of a response."""
        number = self.open()[pick % len(self.open())]
        if number not in self.done:
            content = bytes((number & 0xFF,)) * size
            self.given[number] += content
            self.peer.conn.send_data(self.peer.app.streams[number], content)
            self.note(self.peer.flush())

    @precondition(lambda self: self.open())
    @rule(pick=st.integers(0, 9))
    def finish(self, pick: int) -> None:
        """The end of a response."""
        number = self.open()[pick % len(self.open())]
        if number not in self.done:
            self.done.add(number)
            self.peer.conn.send_data(self.peer.app.streams[number], b"", end=True)
            self.note(self.peer.flush())

    @precondition(lambda self: self.open())
    @rule(pick=st.integers(0, 9), size=st.sampled_from([1, 100, 20_000, 100_000]))
    def widen(self, pick: int, size: int) -> None:
        """A larger window, of a stream or the connection."""
        number = [0, *self.open()][pick % (len(self.open()) + 1)]
        self.note(self.peer.send(window_update(number, size)))

    @rule(size=st.sampled_from([0, 1, 1000, 65_535, 200_000]))
    def resize(self, size: int) -> None:
        """Another initial window."""
        self.note(self.peer.send(settings_frame((INITIAL_WINDOW_SIZE, size))))

    @precondition(lambda self: self.open())
    @rule(
        pick=st.integers(0, 9),
        size=st.sampled_from([0, 1, 5000, 16_000]),
        pad=st.sampled_from([None, 0, 200]),
        end=st.booleans(),
    )
    def upload(self, pick: int, size: int, pad: int | None, end: bool) -> None:
        """Content of a request, as much as we may send."""
        number = self.open()[pick % len(self.open())]
        stream = self.peer.app.streams[number]
        whole = size + (0 if pad is None else pad + 1)
        if stream.remote_ended or whole > min(self.room[number], self.peer.ledger.receive_window):
            return
        self.room[number] -= whole
        self.note(self.peer.send(data(number, bytes(size), pad=pad, end=end and size > 0)))

    @precondition(lambda self: self.open())
    @rule(pick=st.integers(0, 9), share=st.sampled_from([0.1, 0.5, 1.0]))
    def read(self, pick: int, share: float) -> None:
        """The application reads what has come."""
        stream = self.peer.app.streams[self.open()[pick % len(self.open())]]
        self.peer.conn.consumed(stream, int(stream.unread * share))
        self.note(self.peer.flush())

    @precondition(lambda self: self.open())
    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        """The peer gives up a stream."""
        self.note(self.peer.send(rst_stream(self.open()[pick % len(self.open())])))

    @rule(blocked=st.booleans())
    def block(self, blocked: bool) -> None:
        """The transport is full, or has room again."""
        self.peer.conn.blocked = blocked
        self.peer.conn.pump()
        self.note(self.peer.flush())

    @invariant()
    def nothing_is_lost(self) -> None:
        """What was received is unread, uncredited or given back; what was given goes out."""
        conn = self.peer.conn
        assert conn.error is None
        check_bounds(self.peer)
        for number, stream in conn.streams.items():
            if not stream.remote_ended:
                held = stream.receive_window + stream.uncredited + stream.unread
                assert held == self.LIMITS.stream_window
                assert stream.receive_window == self.room[number]
        for number, content in self.given.items():
            answer = self.peer.got(number)
            assert content.startswith(answer.content)
            assert not answer.ended or answer.content == content
            stream = self.peer.app.streams[number]
            if not stream.closed and not conn.blocked:
                waits = len(content) - len(answer.content)
                assert not waits or answer.window <= 0 or self.peer.ledger.window <= 0

    def teardown(self) -> None:
        """With every window open, everything goes out."""
        self.peer.conn.blocked = False
        self.peer.send(window_update(0, 10**8), settings_frame((INITIAL_WINDOW_SIZE, 10**8)))
        for number in self.open():
            if number not in self.done:
                self.done.add(number)
                self.peer.conn.send_data(self.peer.app.streams[number], b"", end=True)
        self.note(self.peer.flush())
        assert not self.peer.conn.streams and self.peer.conn.queued == 0
        for number, content in self.given.items():
            answer = self.peer.got(number)
            assert answer.cancelled or (answer.content == content and answer.complete)
        assert self.peer.ledger.receive_window > self.LIMITS.connection_window // 2


Windows.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestWindows = Windows.TestCase
