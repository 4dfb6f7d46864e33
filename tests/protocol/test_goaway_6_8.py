"""RFC 9113 section 6.8: going, from either side, and going because of time (9.1)."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.connection import DRAIN_GRACE
from h2log.http2.events import Cause
from h2log.http2.head import RequestHead
from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    MAX_31,
    PREFACE,
    GoAwayFrame,
    PingFrame,
    continuation,
    data,
    goaway,
    headers,
    ping,
    plain,
    raw,
    rst_stream,
    settings,
    window_update,
)
from tests.protocol.wire import GET, POST, App, Peer, with_sibling

MARK = (b"x-mark", b"a field for the dynamic table")
LIMITS = EngineLimits()


def drained() -> tuple[Peer, bytes]:
    """Return a peer with stream 1 open that was told to go, and the PING that came with that."""
    peer = with_sibling()
    peer.conn.drain(peer.now)
    first, marker = peer.flush()
    assert isinstance(first, GoAwayFrame) and isinstance(marker, PingFrame)
    return peer, marker.payload


def gone() -> Peer:
    """Return the same peer after it has answered the PING: only stream 1 will be answered."""
    peer, marker = drained()
    (last,) = peer.send(ping(marker, ack=True))
    assert isinstance(last, GoAwayFrame) and last.last_stream_id == 1
    return peer


class TestDrain:
    """We go."""

    def test_rfc9113_6_8_first_goaway_refuses_nothing(self) -> None:
        """The first GOAWAY names the highest identifier, so that requests on their way are safe."""
        peer, _ = drained()
        (first,) = peer.ledger.goaways
        assert (first.last_stream_id, first.code) == (MAX_31, ErrorCodes.NO_ERROR)
        peer.goes_on()

    def test_rfc9113_6_8_second_goaway_after_a_round_trip(self) -> None:
        """Once the peer has seen the first, the second names the last request of all."""
        peer, marker = drained()
        peer.ask(3)
        (last,) = peer.send(ping(marker, ack=True))
        assert isinstance(last, GoAwayFrame)
        assert (last.last_stream_id, last.code) == (3, ErrorCodes.NO_ERROR)

    def test_rfc9113_6_8_second_goaway_after_a_while(self) -> None:
        """A peer that does not answer the PING gets the second GOAWAY after a while."""
        peer, _ = drained()
        assert peer.tick(DRAIN_GRACE * 0.9) == []
        (last,) = peer.tick(DRAIN_GRACE * 0.2)
        assert isinstance(last, GoAwayFrame) and last.last_stream_id == 1
        assert peer.tick(DRAIN_GRACE * 2) == [], "and none after it"

    def test_rfc9113_6_8_other_pings_say_nothing(self) -> None:
        """Only the acknowledgement of that PING counts."""
        peer, marker = drained()
        assert peer.send(ping(b"whatever", ack=True)) == []
        (answer,) = peer.send(ping(marker))
        assert isinstance(answer, PingFrame) and answer.ack
        assert len(peer.ledger.goaways) == 1

    def test_rfc9113_6_8_that_ping_before_we_go(self) -> None:
        """An acknowledgement that nobody asked for makes nobody go."""
        _, marker = drained()
        peer = with_sibling()
        peer.is_ignored(peer.send(ping(marker, ack=True)))

    def test_rfc9113_6_8_open_requests_finish(self) -> None:
        """Requests at or below the last stream are answered; then the connection is done."""
        peer = gone()
        peer.send(data(1, b"abc", end=True))
        assert not peer.conn.closing
        peer.answer(1)
        assert peer.got(1).complete and peer.conn.closing and peer.conn.error is None
        assert peer.app.sent == [1] and peer.app.resets == []

    def test_rfc9113_6_8_large_responses_finish(self) -> None:
        """The windows go on working while the last responses go out."""
        peer = gone()
        peer.answer(1, bytes(200_000))
        assert not peer.conn.closing
        peer.send(window_update(0, 200_000), window_update(1, 200_000))
        assert peer.got(1).complete and peer.conn.closing

    def test_rfc9113_6_8_later_requests_are_ignored(self) -> None:
        """Streams above the last one are not answered and not reset: the peer asks elsewhere."""
        peer = gone()
        assert peer.ask(3, [*GET, MARK]) == []
        assert peer.ask(5, POST, end=False) == []
        assert peer.send(data(5, b"abc"), window_update(5, 1), rst_stream(5)) == []
        assert set(peer.app.requests) == {1} and peer.app.received == {}
        assert [(number, cause) for number, _, cause in peer.app.refused] == [(3, None), (5, None)]
        assert not peer.conn.closing and peer.conn.error is None

    def test_rfc9113_6_8_ignored_requests_keep_hpack_in_step(self) -> None:
        """Header blocks of ignored streams are decoded: the trailers after them use the table."""
        peer = gone()
        peer.ask(3, [*GET, MARK], end=False)
        peer.send(headers(3, peer.block([(b"x-other", b"2")])))
        block = peer.block([*GET, (b"x-third", b"3")])
        peer.send(headers(5, block[:3], end_headers=False), continuation(5, block[3:]))
        known = peer.block([MARK, (b"x-other", b"2"), (b"x-third", b"3")])
        assert len(known) == 3, "three indexes into the dynamic table"
        peer.send(headers(1, known))
        assert peer.app.streams[1].trailer_fields == (
            MARK,
            (b"x-other", b"2"),
            (b"x-third", b"3"),
        )
        peer.answer(1)
        assert peer.conn.closing

    def test_rfc9113_6_8_ignored_content_is_given_back(self) -> None:
        """Content of ignored streams counts for the connection's window, and is given back."""
        peer = gone()
        peer.ask(3, POST, end=False)
        for _ in range(100):
            peer.send(data(3, bytes(16_384)))
            assert peer.ledger.receive_window >= LIMITS.connection_window // 2 - 16_384
        assert peer.conn.error is None

    def test_rfc9113_6_8_known_request_is_ignored_too(self) -> None:
        """A request whose bytes were seen before is ignored like any other."""
        peer = Peer("hold")
        block = plain(GET)
        peer.send(headers(1, block))
        peer.conn.drain(peer.now)
        peer.flush()
        peer.tick(DRAIN_GRACE * 2)
        assert peer.send(headers(3, block)) == []
        assert set(peer.app.requests) == {1}

    def test_rfc9113_6_8_last_stream_is_never_raised(self) -> None:
        """An error after the second GOAWAY does not name a stream above the one it named."""
        peer = gone()
        peer.ask(3)
        peer.is_connection_error(peer.send(data(0, b"")), ErrorCodes.PROTOCOL_ERROR)
        assert [frame.last_stream_id for frame in peer.ledger.goaways] == [MAX_31, 1, 1]

    def test_rfc9113_6_8_nothing_open(self) -> None:
        """An idle connection is done as soon as the peer has seen that we go."""
        peer = Peer("hold")
        peer.conn.drain(peer.now)
        peer.flush()
        assert not peer.conn.closing
        peer.tick(DRAIN_GRACE * 1.1)
        assert peer.conn.closing and len(peer.ledger.goaways) == 2

    def test_rfc9113_6_8_drain_twice(self) -> None:
        """Being told to go again changes nothing."""
        peer, _ = drained()
        peer.conn.drain(peer.now)
        assert peer.flush() == []

    def test_rfc9113_6_8_drain_at_any_time(self) -> None:
        """A clock may begin at zero."""
        peer = Peer("hold", now=0.0)
        peer.ask(1)
        peer.conn.drain(0.0)
        _, marker = peer.flush()
        (last,) = peer.send(ping(marker.payload, ack=True))
        assert isinstance(last, GoAwayFrame) and last.last_stream_id == 1

    def test_rfc9113_6_8_drain_before_the_preface(self) -> None:
        """A connection that is told to go as it opens sends its SETTINGS before GOAWAY."""
        app = App("reply")
        peer = Peer(app=app, shake=False)
        peer.conn.drain(peer.now)
        _, marker = peer.flush()
        peer.send_bytes(PREFACE + settings() + headers(1, plain(GET)))
        assert peer.got(1).complete
        peer.send(ping(marker.payload, ack=True))
        assert peer.conn.closing and peer.conn.error is None

    def test_rfc9113_6_8_stop(self) -> None:
        """Going at once names the last request, and reports every stream that is open."""
        peer = with_sibling()
        peer.conn.stop()
        (last,) = peer.flush()
        assert isinstance(last, GoAwayFrame)
        assert (last.last_stream_id, last.code) == (1, ErrorCodes.NO_ERROR)
        assert peer.conn.closing and peer.app.resets == [(1, Cause.CONNECTION, 0)]

    @pytest.mark.parametrize("again", [False, True], ids=["new request", "known request"])
    def test_rfc9113_6_8_stop_while_reading(self, again: bool) -> None:
        """Told to stop while a request is delivered, the engine reads not a frame more."""

        class Stopping(App):
            def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
                super().on_request(stream_id, head, ended)
                if stream_id == 3:
                    self.conn.stop()

        peer = Peer(app=Stopping("prepared"))
        block = plain(GET)
        peer.send(headers(1, block) if again else b"")
        out = peer.send(headers(3, block), ping(), headers(5, block), headers(7, b"\x80"))
        assert isinstance(out[-1], GoAwayFrame) and out[-1].code == ErrorCodes.NO_ERROR
        assert 5 not in peer.app.requests and peer.conn.error is None


class TestPeerGoes:
    """The peer goes."""

    @pytest.mark.parametrize("code", [0, 2, 0xFFFF])
    def test_rfc9113_6_8_goaway_from_the_peer(self, code: int) -> None:
        """Open requests are answered, then the connection is done; any code and debug data."""
        peer = with_sibling()
        assert peer.send(goaway(0, code, b"debug data")) == []
        assert not peer.conn.closing
        out = peer.answer(1)
        assert peer.got(1).complete and peer.conn.closing and peer.conn.error is None
        assert isinstance(out[-1], GoAwayFrame) and out[-1].last_stream_id == 1

    def test_rfc9113_6_8_goaway_of_an_idle_peer(self) -> None:
        """With nothing open, the connection is done at once."""
        peer = Peer("prepared")
        peer.ask(1)
        (last,) = peer.send(goaway())
        assert isinstance(last, GoAwayFrame)
        assert (last.last_stream_id, last.code) == (1, ErrorCodes.NO_ERROR)
        assert peer.conn.closing and peer.conn.error is None

    def test_rfc9113_6_8_goaway_twice(self) -> None:
        """A peer may send GOAWAY more than once."""
        peer = with_sibling()
        assert peer.send(goaway(MAX_31), goaway(0)) == []
        peer.answer(1)
        assert peer.got(1).complete and peer.conn.closing

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (raw(7, 0, 1, bytes(8)), ErrorCodes.PROTOCOL_ERROR),
            (raw(7, 0, 0, bytes(7)), ErrorCodes.FRAME_SIZE_ERROR),
            (raw(7, 0, 0, b""), ErrorCodes.FRAME_SIZE_ERROR),
        ],
    )
    def test_rfc9113_6_8_wrong_goaway(self, frame: bytes, code: ErrorCodes) -> None:
        """GOAWAY is on stream 0 and holds eight bytes at least."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(frame), code)
