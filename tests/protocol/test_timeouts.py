"""What `tick` ends: a peer that keeps us waiting for what it must send, or reads nothing."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.events import Cause
from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    DEFAULT_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    DataFrame,
    GoAwayFrame,
    RstStreamFrame,
    continuation,
    data,
    headers,
    ping,
    settings,
    window_update,
)
from tests.protocol.wire import GET, OK, POST, Peer, with_sibling

LIMITS = EngineLimits(
    preface_timeout=10, settings_timeout=20, header_timeout=15, body_timeout=30, idle_timeout=75
)


def greeted(mode: str = "hold") -> Peer:
    """Return a peer with these limits that has said its preface and SETTINGS."""
    return Peer("prepared" if mode == "prepared" else "hold", limits=LIMITS)


@pytest.mark.parametrize("said", [b"", PREFACE[:-1], PREFACE, PREFACE + settings()[:-1]])
def test_no_preface_in_time(said: bytes) -> None:
    """A peer that has not sent its preface and SETTINGS in time is SETTINGS_TIMEOUT."""
    peer = Peer(limits=LIMITS, shake=False)
    peer.send_bytes(said)
    assert peer.tick(9.9) == []
    peer.is_connection_error(peer.tick(0.2), ErrorCodes.SETTINGS_TIMEOUT)


def test_rfc9113_6_5_3_settings_without_acknowledgement() -> None:
    """A peer that does not acknowledge our SETTINGS in time is SETTINGS_TIMEOUT."""
    peer = Peer(limits=LIMITS, shake=False)
    peer.send_bytes(PREFACE + settings())
    assert peer.tick(29.9) == []
    peer.is_connection_error(peer.tick(0.2), ErrorCodes.SETTINGS_TIMEOUT)


def test_rfc9113_6_5_3_settings_acknowledged_in_time() -> None:
    """An acknowledgement at the last moment is in time."""
    peer = Peer(limits=LIMITS, shake=False)
    peer.send_bytes(PREFACE + settings())
    peer.tick(29.9)
    peer.send(SETTINGS_ACK)
    assert peer.tick(10) == []
    peer.goes_on()


def test_header_block_that_does_not_end() -> None:
    """A header block must end in time, however often a piece of it comes."""
    peer = with_sibling(limits=LIMITS)
    peer.send(headers(3, b"", end_headers=False))
    for _ in range(3):
        assert peer.tick(4.9) == []
        peer.send(continuation(3, b"", end_headers=False))
    out = peer.tick(0.5)
    assert peer.app.resets == [(1, Cause.TIMEOUT, ErrorCodes.ENHANCE_YOUR_CALM)]
    peer.is_connection_error(out, ErrorCodes.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("size", [1, 3, 8, 9, 12])
def test_frame_that_does_not_end(size: int) -> None:
    """A frame must end in time, however often a byte of it comes."""
    peer = with_sibling(limits=LIMITS)
    frame = ping()
    peer.send_bytes(frame[:size])
    for n in range(3):
        assert peer.tick(4.9) == []
        peer.send_bytes(frame[size + n : size + n + 1])
    peer.is_connection_error(peer.tick(0.5), ErrorCodes.ENHANCE_YOUR_CALM)


def test_frame_that_ends_in_time() -> None:
    """The time is a frame's own: frames that each end in time may follow without a pause."""
    peer = with_sibling(limits=LIMITS)
    stream = ping() * 20
    sent = 5
    peer.send_bytes(stream[:5])
    for _ in range(20):
        assert peer.tick(10) == []
        peer.send_bytes(stream[sent : sent + 17])
        sent += 17
    assert len(peer.ledger.pings) == 20
    peer.goes_on()


def test_content_has_more_time() -> None:
    """A DATA frame may take longer than others."""
    peer = with_sibling(limits=LIMITS)
    peer.send_bytes(data(1, bytes(100))[:50])
    assert peer.tick(29.9) == []
    peer.is_connection_error(peer.tick(0.2), ErrorCodes.ENHANCE_YOUR_CALM)


def test_rfc9113_9_1_idle_connection() -> None:
    """A connection without a request goes with NO_ERROR, and names the last one it answered."""
    peer = greeted("prepared")
    peer.ask(1)
    assert peer.tick(74.9) == []
    (last,) = peer.tick(0.2)
    assert isinstance(last, GoAwayFrame)
    assert (last.last_stream_id, last.code) == (1, ErrorCodes.NO_ERROR)
    assert peer.conn.closing and peer.conn.error is None


def test_rfc9113_9_1_ping_keeps_a_connection() -> None:
    """Whatever the peer sends keeps the connection."""
    peer = greeted()
    for _ in range(4):
        assert peer.tick(70) == []
        peer.send(ping())
    peer.goes_on()


def test_rfc9113_9_1_open_request_keeps_a_connection() -> None:
    """A request that is open keeps the connection; idleness counts from its end."""
    peer = greeted()
    peer.ask(1)
    for _ in range(10):
        assert peer.tick(60) == []
    peer.answer(1)
    assert peer.got(1).complete
    assert peer.tick(74) == []
    assert isinstance(peer.tick(2)[0], GoAwayFrame)


class TestStall:
    """A stream whose content waits and waits."""

    LIMITS = EngineLimits(stall_timeout=60, idle_timeout=1000)

    def stalled(self) -> Peer:
        """Return a peer with stream 3 waiting for its own window, and stream 1 open."""
        peer = with_sibling(limits=self.LIMITS)
        peer.send(window_update(0, 10**6))
        peer.ask(3)
        peer.answer(3, bytes(100_000))
        assert len(peer.got(3).content) == DEFAULT_WINDOW
        return peer

    def test_stalled_stream_is_cancelled(self) -> None:
        """A peer that opens no window in time has the stream reset with CANCEL, and no other."""
        peer = self.stalled()
        assert peer.tick(59.9) == []
        out = peer.tick(0.2)
        assert [(f.stream_id, f.code) for f in out if isinstance(f, RstStreamFrame)] == [
            (3, ErrorCodes.CANCEL)
        ]
        assert peer.app.resets == [(3, Cause.TIMEOUT, ErrorCodes.CANCEL)]
        assert peer.conn.queued == 0
        peer.is_stream_error(out, 3, ErrorCodes.CANCEL)

    def test_stream_that_moves_is_not_cancelled(self) -> None:
        """A peer that opens the window now and then is slow, which is allowed."""
        peer = self.stalled()
        for _ in range(4):
            assert peer.tick(50) == []
            assert any(isinstance(f, DataFrame) for f in peer.send(window_update(3, 6000)))
        peer.send(window_update(3, 10**6))
        assert peer.got(3).complete

    def test_stream_that_trickles_is_cancelled(self) -> None:
        """A peer that takes less than the rate, however regularly, is as one that takes nothing."""
        peer = self.stalled()
        out = []
        for _ in range(10):
            out = peer.tick(20)
            if out:
                break
            peer.send(window_update(3, 100))
        peer.is_stream_error(out, 3, ErrorCodes.CANCEL)

    def test_stream_that_waits_for_its_turn_is_not_stalled(self) -> None:
        """Behind another that takes all of the connection's window, a stream may wait for long."""
        peer = with_sibling(limits=self.LIMITS)
        peer.ask(3, [*GET, (b"priority", b"u=1")])
        peer.ask(5, [*GET, (b"priority", b"u=5")])
        peer.send(window_update(3, 10**6))
        peer.answer(3, bytes(200_000))
        peer.answer(5, b"later")
        for _ in range(10):
            assert peer.tick(20) == []
            peer.send(window_update(0, 10_000))
        peer.send(window_update(0, 10**6))
        assert peer.got(3).complete and peer.got(5).complete

    def test_stream_that_waits_for_the_connections_window(self) -> None:
        """A spent connection window stalls a stream as its own does."""
        peer = with_sibling(limits=self.LIMITS)
        peer.ask(3)
        peer.answer(3, bytes(100_000))
        assert peer.tick(59.9) == []
        out = peer.tick(0.2)
        peer.send(window_update(0, 1000))
        peer.is_stream_error(out, 3, ErrorCodes.CANCEL)

    def test_application_that_is_slow_is_not_the_peer(self) -> None:
        """The time counts from when content began to wait, not from the request."""
        peer = with_sibling(limits=self.LIMITS)
        peer.send(settings((4, 0)))
        peer.ask(3, GET)
        for _ in range(100):
            assert peer.tick(1) == []
        peer.conn.send_headers(peer.app.streams[3], OK)
        peer.conn.send_data(peer.app.streams[3], b"late", end=True)
        peer.flush()
        assert [f for f in peer.tick(1) if isinstance(f, RstStreamFrame)] == []
        peer.send(window_update(3, 100))
        assert peer.got(3).content == b"late" and peer.got(3).complete

    def test_request_content_is_not_a_stall(self) -> None:
        """A stream with nothing to send is never stalled."""
        peer = with_sibling(limits=self.LIMITS)
        peer.ask(3, POST, end=False)
        assert peer.tick(500) == []
        peer.goes_on()


def test_closed_connection_does_not_tick() -> None:
    """Time does nothing to a connection that is over."""
    peer = greeted()
    peer.send(data(0, b""))
    assert peer.conn.closing
    assert peer.tick(10_000) == []
