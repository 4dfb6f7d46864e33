"""RFC 9113 section 6.5, and what a change of a setting does (4.2, 6.9.2; RFC 7541 section 4.2)."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.connection import Connection
from h2log.http2.sending import Prepared
from tests.protocol.frames import (
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_31,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    SETTINGS_ACK,
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    SettingsFrame,
    literal,
    plain,
    raw,
    settings,
    window_update,
)
from tests.protocol.wire import GET, OK, TAIL, App, Mode, Peer, with_sibling


class TestFrame:
    """Sections 6.5, 6.5.2 and 6.5.3."""

    def test_rfc9113_6_5_3_every_frame_is_acknowledged(self) -> None:
        """Each SETTINGS frame is acknowledged once, an empty one too; an ACK is not."""
        peer = with_sibling()
        out = peer.send(settings(), settings((MAX_FRAME_SIZE, 20_000)), SETTINGS_ACK, settings())
        assert [f.ack for f in out if isinstance(f, SettingsFrame)] == [True] * 3
        assert len(out) == 3
        peer.goes_on()

    @pytest.mark.parametrize(
        ("key", "value", "code"),
        [
            (ENABLE_PUSH, 2, ErrorCodes.PROTOCOL_ERROR),
            (ENABLE_PUSH, 2**32 - 1, ErrorCodes.PROTOCOL_ERROR),
            (INITIAL_WINDOW_SIZE, 2**31, ErrorCodes.FLOW_CONTROL_ERROR),
            (INITIAL_WINDOW_SIZE, 2**32 - 1, ErrorCodes.FLOW_CONTROL_ERROR),
            (MAX_FRAME_SIZE, 0, ErrorCodes.PROTOCOL_ERROR),
            (MAX_FRAME_SIZE, 2**14 - 1, ErrorCodes.PROTOCOL_ERROR),
            (MAX_FRAME_SIZE, 2**24, ErrorCodes.PROTOCOL_ERROR),
        ],
    )
    def test_rfc9113_6_5_2_values_out_of_range(
        self, key: int, value: int, code: ErrorCodes
    ) -> None:
        """A value out of its range is the connection's error, wherever in the frame it stands."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(settings((0xF0, 1), (key, value), (0xF1, 2))), code)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (ENABLE_PUSH, 0),
            (ENABLE_PUSH, 1),
            (INITIAL_WINDOW_SIZE, 0),
            (INITIAL_WINDOW_SIZE, MAX_31),
            (MAX_FRAME_SIZE, 2**14),
            (MAX_FRAME_SIZE, 2**24 - 1),
            (MAX_CONCURRENT_STREAMS, 0),
            (MAX_HEADER_LIST_SIZE, 2**32 - 1),
            (HEADER_TABLE_SIZE, 0),
            (HEADER_TABLE_SIZE, 2**32 - 1),
            (0, 1),
            (0x8, 1),
            (0xFFFF, 2**32 - 1),
        ],
    )
    def test_rfc9113_6_5_2_values_at_their_bounds(self, key: int, value: int) -> None:
        """Values at the bounds are accepted, and unknown settings ignored."""
        peer = Peer()
        (answer,) = peer.send(settings((key, value)))
        assert isinstance(answer, SettingsFrame) and answer.ack
        peer.send(window_update(0, 100))
        peer.ask(1)
        if value == 0 and key == INITIAL_WINDOW_SIZE:
            assert peer.got(1).content == b"" and not peer.got(1).ended
            peer.send(window_update(1, 100))
        assert peer.got(1).complete

    def test_rfc9113_6_5_3_values_in_order(self) -> None:
        """Of a setting that stands twice in a frame, the last counts."""
        peer = Peer()
        peer.send(settings((INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 3)))
        peer.ask(1)
        assert peer.got(1).content == b"hel"

    @pytest.mark.parametrize("stream_id", [1, 3])
    @pytest.mark.parametrize("flags", [0, 1], ids=["settings", "ack"])
    def test_rfc9113_6_5_on_a_stream(self, stream_id: int, flags: int) -> None:
        """SETTINGS on a stream is PROTOCOL_ERROR."""
        peer = with_sibling()
        out = peer.send(raw(4, flags, stream_id))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [1, 5, 7, 11])
    def test_rfc9113_6_5_partial_entry(self, size: int) -> None:
        """A length that is no multiple of six is FRAME_SIZE_ERROR."""
        peer = with_sibling()
        out = peer.send(raw(4, 0, 0, bytes(size)))
        peer.is_connection_error(out, ErrorCodes.FRAME_SIZE_ERROR)


class TestInitialWindow:
    """Section 6.9.2."""

    def test_rfc9113_6_9_2_open_streams_follow(self) -> None:
        """A larger initial window opens every stream that waits for one."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, 10)))
        for number in (1, 3):
            peer.ask(number)
            peer.answer(number, bytes(100))
        peer.send(settings((INITIAL_WINDOW_SIZE, 60)))
        assert [len(peer.got(number).content) for number in (1, 3)] == [60, 60]
        peer.send(settings((INITIAL_WINDOW_SIZE, 100)))
        assert all(peer.got(number).complete for number in (1, 3))

    def test_rfc9113_6_9_2_negative_window(self) -> None:
        """A window made negative sends nothing until it is above zero again."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, 1000)))
        peer.ask(1)
        peer.answer(1, bytes(2000))
        assert len(peer.got(1).content) == 1000
        peer.send(settings((INITIAL_WINDOW_SIZE, 10)))
        assert peer.conn.streams[1].window == -990
        peer.send(window_update(1, 990))
        assert len(peer.got(1).content) == 1000, "the window is zero now"
        peer.send(window_update(1, 1))
        assert len(peer.got(1).content) == 1001
        peer.send(settings((INITIAL_WINDOW_SIZE, 1009)))
        assert peer.got(1).complete

    def test_rfc9113_6_9_2_negative_window_of_a_stream_in_turn(self) -> None:
        """A stream that waits for the connection's window is taken out when its own is gone."""
        peer = Peer("hold")
        for number in (1, 3, 5):
            peer.ask(number)
        peer.answer(1, bytes(DEFAULT_WINDOW))
        peer.answer(3, bytes(100))
        peer.send(settings((INITIAL_WINDOW_SIZE, 0)), window_update(0, 1000))
        assert peer.got(3).content == b"" and not peer.conn.pending
        peer.answer(5, bytes(100))
        assert peer.got(5).content == b""
        peer.send(window_update(5, 100))
        assert peer.got(5).complete and not peer.got(3).ended
        peer.send(window_update(3, 100))
        assert peer.got(3).complete

    def test_rfc9113_6_9_2_connection_window_stays(self) -> None:
        """The setting changes no connection window."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, MAX_31)))
        peer.ask(1)
        peer.answer(1, bytes(100_000))
        assert len(peer.got(1).content) == DEFAULT_WINDOW

    def test_rfc9113_6_9_2_overflow(self) -> None:
        """A change that makes a stream's window too large is FLOW_CONTROL_ERROR."""
        peer = with_sibling()
        peer.ask(3)
        peer.send(window_update(3, MAX_31 - DEFAULT_WINDOW))
        out = peer.send(settings((INITIAL_WINDOW_SIZE, DEFAULT_WINDOW + 1)))
        peer.is_connection_error(out, ErrorCodes.FLOW_CONTROL_ERROR)

    def test_rfc9113_6_9_2_overflow_in_between(self) -> None:
        """One that a later value of the same frame would mend is FLOW_CONTROL_ERROR, too."""
        peer = with_sibling()
        peer.ask(3)
        peer.send(window_update(3, MAX_31 - DEFAULT_WINDOW))
        sizes = (1, DEFAULT_WINDOW + 1, 1)
        out = peer.send(settings(*((INITIAL_WINDOW_SIZE, size) for size in sizes)))
        peer.is_connection_error(out, ErrorCodes.FLOW_CONTROL_ERROR)

    def test_rfc9113_6_9_2_many_values_cost_what_few_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The streams are gone through for the largest and for the last value of a frame."""
        changes: list[int] = []
        resize = Connection._resize_windows

        def counted(conn: Connection, change: int) -> None:
            changes.append(change)
            resize(conn, change)

        monkeypatch.setattr(Connection, "_resize_windows", counted)
        peer = Peer("hold")
        peer.ask(1)
        peer.answer(1, bytes(100))
        peer.send(settings(*((INITIAL_WINDOW_SIZE, size % 100) for size in range(2000)), (4, 42)))
        assert len(changes) == 2 and sum(changes) == 42 - DEFAULT_WINDOW
        peer.ask(3)
        peer.answer(3, bytes(100))
        assert len(peer.got(3).content) == 42

    def test_rfc9113_6_9_2_overflow_looks_at_every_stream(self) -> None:
        """Without such a stream the same change is fine, as it is for one that is closed."""
        peer = with_sibling()
        peer.ask(3)
        peer.send(window_update(3, MAX_31 - DEFAULT_WINDOW))
        peer.answer(3)
        peer.send(settings((INITIAL_WINDOW_SIZE, MAX_31)))
        peer.goes_on()


class TestFrameSize:
    """Section 4.2: the frames that we send."""

    def test_rfc9113_4_2_default_frame_size(self) -> None:
        """Content is cut in frames of at most 16,384 bytes."""
        peer = Peer("hold")
        peer.ask(1)
        out = peer.answer(1, bytes(40_000))
        assert [f.size for f in out if isinstance(f, DataFrame)] == [16_384, 16_384, 7_232]
        assert [f.end for f in out if isinstance(f, DataFrame)] == [False, False, True]

    def test_rfc9113_4_2_larger_frame_size(self) -> None:
        """A peer may allow more, and may take it back."""
        peer = Peer("hold")
        peer.send(window_update(0, 10**6), settings((MAX_FRAME_SIZE, 20_000)))
        peer.ask(1)
        out = peer.answer(1, bytes(40_000))
        assert max(f.size for f in out) <= 20_000
        peer.send(settings((MAX_FRAME_SIZE, 16_384)))
        peer.ask(3)
        out = peer.answer(3, bytes(40_000))
        assert max(f.size for f in out) == 16_384 and peer.got(3).complete

    @pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 40_000])
    def test_rfc9113_4_2_large_response_head(self, size: int) -> None:
        """A header block over the frame size is continued; END_STREAM stands on its HEADERS."""
        peer = Peer("hold")
        peer.ask(1)
        field = literal(b"x", b"a" * (size - len(OK) - 3 - 4))
        block = OK + field
        peer.conn.send_headers(peer.app.streams[1], block, end=True)
        out = peer.flush()
        assert isinstance(out[0], HeadersFrame) and out[0].end
        assert all(isinstance(frame, ContinuationFrame) for frame in out[1:])
        assert len(out) == -(-len(block) // 16_384) and peer.got(1).complete

    def test_rfc9113_4_2_large_prepared_head(self) -> None:
        """A prepared response with such a header block is sent in frames of the size too."""
        app = App("prepared")
        peer = Peer(app=app)
        big = OK + literal(b"x", b"a" * 20_000)
        app.response = Prepared(big, len(TAIL), b"content")
        peer.ask(1)
        assert peer.got(1).complete


class TestHeaderTable:
    """RFC 7541 section 4.2: a decoder that makes its table smaller must be told so back."""

    @pytest.mark.parametrize("size", [0, 1, 100, 4095])
    @pytest.mark.parametrize("mode", ["reply", "prepared", "whole", "framed", "part"])
    def test_rfc7541_4_2_smaller_table(self, size: int, mode: Mode) -> None:
        """The next header block begins with a size update that fits, and only that one."""
        peer = Peer(mode)
        peer.ask(1)
        peer.send(settings((HEADER_TABLE_SIZE, size)))
        for number in (3, 5, 7):
            peer.ask(number)
            assert peer.got(number).complete
        assert peer.ledger.decoder.header_table_size <= size
        assert set(peer.app.prepared) >= (set() if mode == "reply" else {5, 7})

    def test_rfc7541_4_2_smaller_and_larger_again(self) -> None:
        """Of several changes before the next block, the smallest is told."""
        peer = Peer()
        peer.send(settings((HEADER_TABLE_SIZE, 0)), settings((HEADER_TABLE_SIZE, 4096)))
        out = peer.ask(1)
        assert isinstance(out[0], HeadersFrame) and out[0].payload[:1] == b"\x20"
        assert peer.got(1).complete

    def test_rfc7541_4_2_same_or_larger_table(self) -> None:
        """Nothing needs to be told of a table that is not smaller."""
        peer = Peer()
        peer.send(settings((HEADER_TABLE_SIZE, 4096)), settings((HEADER_TABLE_SIZE, 65_536)))
        out = peer.ask(1)
        assert isinstance(out[0], HeadersFrame) and out[0].payload[:1] == OK

    @pytest.mark.parametrize("way", ["interim", "trailers"])
    def test_rfc7541_4_2_other_header_blocks(self, way: str) -> None:
        """An interim response and trailers are header blocks too."""
        peer = Peer("hold")
        peer.ask(1)
        stream = peer.app.streams[1]
        if way == "interim":
            peer.send(settings((HEADER_TABLE_SIZE, 0)))
            peer.conn.send_interim(stream, plain([(b":status", b"103")]))
            peer.conn.send_headers(stream, OK, end=True)
        else:
            peer.conn.send_headers(stream, OK)
            peer.flush()
            peer.send(settings((HEADER_TABLE_SIZE, 0)))
            peer.conn.send_data(stream, b"abc", trailers=plain([(b"x-sum", b"1")]))
        peer.flush()
        assert peer.got(1).complete and len(peer.got(1).sections) == 2

    def test_rfc7541_4_2_request_on_a_stream_that_is_reset(self) -> None:
        """A block that is never sent tells nothing: the next one that is does."""
        peer = with_sibling()
        peer.ask(3)
        peer.send(settings((HEADER_TABLE_SIZE, 0)))
        peer.conn.reset(peer.app.streams[3], ErrorCodes.CANCEL)
        peer.conn.send_headers(peer.app.streams[3], OK)
        peer.flush()
        peer.goes_on()

    def test_rfc9113_4_3_our_table_is_the_default(self) -> None:
        """A request may use the dynamic table of 4,096 bytes that we offer by saying nothing."""
        peer = with_sibling()
        fields = [*GET, *((b"x-%d" % n, b"v" * 30) for n in range(55))]
        peer.ask(3, fields)
        peer.ask(5, fields)
        assert peer.app.requests[5].fields == tuple(fields[4:])
        peer.goes_on()
