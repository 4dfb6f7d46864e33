"""RFC 9113 sections 5.2 and 6.9: what may be sent when, in both directions."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    DEFAULT_WINDOW,
    INITIAL_WINDOW_SIZE,
    MAX_31,
    PREFACE,
    SETTINGS_ACK,
    DataFrame,
    Frame,
    HeadersFrame,
    WindowUpdateFrame,
    data,
    headers,
    plain,
    rst_stream,
    settings,
    window_update,
)
from tests.protocol.wire import GET, OK, POST, App, Mode, Peer, with_sibling


def updates(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return the stream and the increment of each WINDOW_UPDATE frame."""
    return [(f.stream_id, f.increment) for f in frames if isinstance(f, WindowUpdateFrame)]


def content(frames: list[Frame]) -> int:
    """Return the bytes of all DATA frames."""
    return sum(f.size for f in frames if isinstance(f, DataFrame))


class TestSending:
    """The windows that the peer gives us."""

    def test_rfc9113_6_9_1_response_larger_than_the_window(self) -> None:
        """A response fills the window and not a byte more, and goes on as the window opens."""
        peer = Peer("hold")
        peer.ask(1)
        assert content(peer.answer(1, bytes(100_000))) == DEFAULT_WINDOW
        assert content(peer.send(window_update(1, 10_000))) == 0, "the connection's is spent too"
        assert content(peer.send(window_update(0, 5_000))) == 5_000
        assert content(peer.send(window_update(0, 50_000))) == 5_000
        assert content(peer.send(window_update(1, 50_000))) == 100_000 - DEFAULT_WINDOW - 10_000
        assert peer.got(1).complete and len(peer.got(1).content) == 100_000

    def test_rfc9113_6_9_1_last_byte_of_the_window(self) -> None:
        """A response of exactly the window goes out whole, with its end."""
        peer = Peer("hold")
        peer.ask(1)
        peer.answer(1, bytes(DEFAULT_WINDOW))
        assert peer.got(1).complete

    def test_rfc9113_6_9_one_byte_at_a_time(self) -> None:
        """The smallest increment sends one byte."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, 0)))
        peer.ask(1)
        assert content(peer.answer(1, b"abc")) == 0
        for so_far in (b"a", b"ab", b"abc"):
            peer.send(window_update(1, 1))
            assert peer.got(1).content == so_far
        assert peer.got(1).complete

    def test_rfc9113_6_9_other_frames_need_no_window(self) -> None:
        """HEADERS and an empty DATA frame with END_STREAM go out through a closed window."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, 0)))
        peer.ask(1)
        out = peer.answer(1, b"")
        assert [type(frame) for frame in out] == [HeadersFrame, DataFrame]
        assert peer.got(1).complete

    def test_rfc9113_6_9_trailers_need_no_window(self) -> None:
        """Trailers follow the last byte that the window had room for."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, 3)))
        peer.ask(1)
        stream = peer.app.streams[1]
        peer.conn.send_headers(stream, OK)
        peer.conn.send_data(stream, b"abc", trailers=plain([(b"x-sum", b"1")]))
        peer.flush()
        assert peer.got(1).sections[1:] == [[(b"x-sum", b"1")]]
        assert peer.got(1).complete and peer.app.sent == [1]

    def test_rfc9113_5_2_1_streams_take_turns(self) -> None:
        """Streams that share the connection's window each get their part of it."""
        peer = Peer("hold")
        numbers = (1, 3, 5)
        for number in numbers:
            peer.ask(number)
        peer.conn.blocked = True
        for number in numbers:
            peer.answer(number, bytes(60_000))
        peer.conn.blocked = False
        peer.conn.pump()
        out = peer.flush()
        order = [f.stream_id for f in out if isinstance(f, DataFrame)]
        assert order[:4] == [1, 3, 5, 1] and content(out) == DEFAULT_WINDOW
        peer.send(window_update(0, 2 * DEFAULT_WINDOW))
        assert all(peer.got(number).complete for number in numbers)

    def test_rfc9113_5_2_1_blocked_stream_blocks_no_other(self) -> None:
        """A stream with a spent window leaves the connection's to the others."""
        peer = Peer("hold")
        peer.send(window_update(0, 1_000_000))
        peer.ask(1)
        peer.answer(1, bytes(200_000))
        peer.ask(3)
        peer.answer(3, bytes(50_000))
        assert peer.got(3).complete and not peer.got(1).complete
        peer.send(window_update(1, 200_000))
        assert peer.got(1).complete

    @pytest.mark.parametrize("stream_id", [0, 1])
    def test_rfc9113_6_9_1_largest_window(self, stream_id: int) -> None:
        """A window may be opened to 2^31-1, and by one more is FLOW_CONTROL_ERROR of its scope."""
        peer = with_sibling()
        peer.ask(3)
        number = 3 if stream_id else 0
        assert peer.send(window_update(number, MAX_31 - DEFAULT_WINDOW)) == []
        out = peer.send(window_update(number, 1))
        if number:
            peer.is_stream_error(out, number, ErrorCodes.FLOW_CONTROL_ERROR)
        else:
            peer.is_connection_error(out, ErrorCodes.FLOW_CONTROL_ERROR)

    def test_rfc9113_6_9_zero_increment_on_the_connection(self) -> None:
        """An increment of 0 on the connection is its PROTOCOL_ERROR."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(window_update(0, 0)), ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_6_9_reserved_bit_of_the_increment(self) -> None:
        """The increment's reserved bit is ignored."""
        peer = with_sibling()
        assert peer.send(window_update(0, 1 << 31 | 5)) == []
        assert peer.conn.window == DEFAULT_WINDOW + 5
        out = peer.send(window_update(0, 1 << 31))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, DEFAULT_WINDOW])
    def test_rfc9113_6_9_prepared_response(self, size: int) -> None:
        """A prepared response goes out whole through windows that have room for it."""
        peer = Peer(app=App("prepared", content=bytes(size)))
        peer.ask(1)
        assert peer.app.prepared == [1]
        assert peer.got(1).complete and len(peer.got(1).content) == size

    @pytest.mark.parametrize("size", [0, 1, 16_384, 16_385])
    def test_rfc9113_6_9_whole_response(self, size: int) -> None:
        """A response that fits in a frame goes out in one go, a larger one all the same."""
        peer = Peer(app=App("whole", content=bytes(size)))
        peer.ask(1)
        assert peer.app.prepared == ([1] if size <= 16_384 else [])
        assert peer.got(1).complete and len(peer.got(1).content) == size

    @pytest.mark.parametrize("size", [1, 16_384, 16_385, DEFAULT_WINDOW])
    @pytest.mark.parametrize("mode", ["framed", "part"])
    def test_rfc9113_6_9_content_that_is_framed_above(self, mode: Mode, size: int) -> None:
        """It is paid for from the windows, all of which it may take, and goes behind the output."""
        peer = Peer(app=App(mode, content=bytes(size)))
        peer.ask(1)
        assert peer.app.prepared == [1]
        assert peer.got(1).complete and len(peer.got(1).content) == size
        assert peer.conn.window == DEFAULT_WINDOW - size
        assert peer.app.sent == ([1] if mode == "framed" else [])

    @pytest.mark.parametrize("mode", ["framed", "part"])
    def test_rfc9113_5_2_content_that_is_framed_above_passes_nobody(self, mode: Mode) -> None:
        """While another stream waits for its turn, or the transport is full, it waits as well."""
        peer = Peer(app=App(mode, content=bytes(1000)))
        peer.ask(1, POST, end=False)
        peer.conn.blocked = True
        peer.answer(1, bytes(2000))
        peer.ask(3)
        assert peer.app.prepared == []
        peer.conn.blocked = False
        peer.ask(5)
        assert peer.app.prepared == []
        peer.conn.pump()
        peer.flush()
        assert all(peer.got(number).complete for number in (1, 3, 5))
        peer.ask(7)
        assert peer.app.prepared == [7]

    @pytest.mark.parametrize("mode", ["prepared", "whole", "framed", "part"])
    @pytest.mark.parametrize("narrow", ["stream", "connection"])
    def test_rfc9113_6_9_response_without_room(self, narrow: str, mode: Mode) -> None:
        """A response that a window has no room for is sent as the window opens."""
        peer = Peer(app=App(mode, content=bytes(1000)))
        if narrow == "stream":
            peer.send(settings((INITIAL_WINDOW_SIZE, 999)))
        else:
            peer.ask(1, POST, end=False)
            peer.answer(1, bytes(DEFAULT_WINDOW - 999))
        peer.ask(3)
        assert 3 not in peer.app.prepared
        assert len(peer.got(3).content) == 999 and not peer.got(3).ended
        peer.send(window_update(0, 1), window_update(3, 1))
        assert peer.got(3).complete

    def test_rfc9113_5_2_output_is_bounded(self) -> None:
        """However large the peer's windows, only so much output gathers until it is fetched."""
        peer = Peer("hold")
        peer.send(settings((INITIAL_WINDOW_SIZE, MAX_31)), window_update(0, 10**9))
        peer.ask(1)
        peer.app.answer(peer.app.streams[1], bytes(2_000_000))
        assert 0 < peer.conn.out_size < 400_000
        peer.flush()
        assert peer.got(1).complete

    def test_rfc9113_5_2_queue_of_closed_streams(self) -> None:
        """Streams that are reset while they wait for the connection's window leave nothing."""
        peer = with_sibling()
        peer.answer(1, bytes(DEFAULT_WINDOW))
        assert peer.conn.window == 0
        for number in range(3, 83, 2):
            peer.ask(number)
            peer.answer(number)
            peer.send(rst_stream(number))
        assert peer.conn.queued == 0 and not peer.conn.streams
        assert not peer.conn._ready
        peer.send(window_update(0, 100))
        peer.goes_on()


class TestReceiving:
    """The windows that we give the peer."""

    LIMITS = EngineLimits(stream_window=80_000, connection_window=200_000)

    def test_rfc9113_6_9_unread_content_opens_no_window(self) -> None:
        """What the application has not read is not given back; once it is read, it is."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        out = [frame for _ in range(5) for frame in peer.send(data(1, bytes(16_000)))]
        assert updates(out) == []
        peer.conn.consumed(peer.app.streams[1], 80_000)
        assert updates(peer.flush()) == [(1, 80_000)]
        peer.send(*(data(1, bytes(16_000)) for _ in range(2)))
        peer.conn.consumed(peer.app.streams[1], 20_000)
        assert updates(peer.flush()) == [(0, 100_000)]
        peer.goes_on()

    def test_rfc9113_6_9_credit_comes_before_the_window_is_spent(self) -> None:
        """A peer that is read from can send for ever."""
        peer = with_sibling(limits=self.LIMITS)
        window = self.LIMITS.stream_window
        for _ in range(100):
            assert window >= 16_000 and peer.ledger.receive_window >= 16_000
            for number, increment in updates(peer.send(data(1, bytes(16_000)))):
                window += increment if number == 1 else 0
            window -= 16_000
        assert len(peer.app.received[1]) == 1_600_000
        peer.goes_on()

    def test_rfc9113_6_9_1_content_over_the_streams_window(self) -> None:
        """Content over a stream's window is that stream's FLOW_CONTROL_ERROR, to the byte."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        peer.ask(3, POST, end=False)
        assert peer.send(*(data(3, bytes(16_000)) for _ in range(5))) == []
        assert len(peer.app.received[3]) == 80_000
        out = peer.send(data(3, b"!"))
        peer.is_stream_error(out, 3, ErrorCodes.FLOW_CONTROL_ERROR)
        assert len(peer.app.received[3]) == 80_000

    def test_rfc9113_6_9_1_content_over_the_connections_window(self) -> None:
        """Content over the connection's window is its FLOW_CONTROL_ERROR, to the byte."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        for number in (3, 5):
            peer.ask(number, POST, end=False)
        for number in (1, 3):
            peer.send(*(data(number, bytes(16_000)) for _ in range(5)))
        assert peer.send(*(data(5, bytes(10_000)) for _ in range(4))) == []
        out = peer.send(data(5, b"!"))
        peer.is_connection_error(out, ErrorCodes.FLOW_CONTROL_ERROR)

    def test_rfc9113_6_9_1_padding_counts(self) -> None:
        """A DATA frame's whole payload is flow-controlled, and its padding is given back."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        for _ in range(400):
            peer.send(data(1, b"x", pad=255))
        assert peer.app.received[1] == b"x" * 400
        assert peer.ledger.receive_window >= 200_000 // 2 - 400
        assert peer.conn.error is None and peer.conn.streams[1].unread == 400
        peer.goes_on()

    def test_rfc9113_6_9_1_empty_data_needs_no_window(self) -> None:
        """An empty DATA frame is fine when the window is spent."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        peer.send(*(data(1, bytes(16_000)) for _ in range(5)))
        peer.send(data(1, b"", end=True))
        assert peer.app.ended == [1]
        peer.goes_on()

    def test_rfc9113_6_9_no_credit_for_a_stream_that_has_ended(self) -> None:
        """A stream that the peer has ended gets no WINDOW_UPDATE; the connection does."""
        peer = with_sibling(limits=self.LIMITS)
        peer.app.eat = False
        for number in (3, 5):
            peer.ask(number, POST, end=False)
            peer.send(*(data(number, bytes(16_000)) for _ in range(4)), data(number, end=True))
            peer.conn.consumed(peer.app.streams[number], 64_000)
        assert updates(peer.flush()) == [(0, 128_000)]
        peer.goes_on()

    def test_rfc9113_6_9_content_of_refused_streams_is_given_back(self) -> None:
        """Content over a stream's window, or after its end, does not leak the connection's."""
        peer = with_sibling(limits=self.LIMITS)
        for number in range(3, 43, 2):
            peer.ask(number)
            peer.send(data(number, bytes(16_000)))
            assert peer.got(number).reset == ErrorCodes.STREAM_CLOSED
        assert peer.ledger.receive_window >= 100_000
        peer.goes_on()

    def test_rfc9113_6_9_2_client_that_has_not_seen_our_settings(self) -> None:
        """Until it acknowledges smaller windows, a client may use the default ones."""
        peer = Peer("hold", limits=EngineLimits(stream_window=1024), shake=False)
        peer.send_bytes(PREFACE + settings())
        peer.ask(1, POST, end=False)
        peer.send(*(data(1, bytes(16_000)) for _ in range(4)))
        assert peer.got(1).reset is None and len(peer.app.received[1]) == 64_000
        peer.send(data(1, b"", end=True))
        assert peer.app.ended == [1]
        peer.goes_on()

    def test_rfc9113_6_9_2_client_that_has_seen_our_settings(self) -> None:
        """Once it has acknowledged smaller windows, they hold."""
        peer = Peer("hold", limits=EngineLimits(stream_window=1024))
        peer.ask(1, POST, end=False)
        peer.ask(3, POST, end=False)
        peer.app.eat = False
        peer.send(SETTINGS_ACK, data(3, bytes(1024)))
        assert len(peer.app.received[3]) == 1024
        out = peer.send(data(3, b"!"))
        peer.is_stream_error(out, 3, ErrorCodes.FLOW_CONTROL_ERROR)


def test_rfc9113_6_9_app_that_writes_as_it_is_told_of_progress() -> None:
    """An application may send more from `on_progress`, however small the pieces."""

    class Dripping(App):
        left = 3000

        def on_progress(self, stream: object) -> None:
            if self.left:
                self.left -= 1
                self.conn.send_data(self.streams[1], b"x", end=not self.left)

    app = Dripping("hold")
    peer = Peer(app=app)
    peer.send(headers(1, plain(GET)))
    peer.conn.send_headers(app.streams[1], OK)
    peer.conn.send_data(app.streams[1], b"x")
    peer.flush()
    assert peer.got(1).complete and len(peer.got(1).content) == 3001
