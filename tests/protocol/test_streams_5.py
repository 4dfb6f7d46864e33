"""RFC 9113 section 5.1: every frame type on a stream in every state, identifiers, concurrency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
from h2.errors import ErrorCodes

from h2log.http2.events import Cause
from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    GOAWAY,
    PING,
    PRIORITY,
    SETTINGS,
    RstStreamFrame,
    WindowUpdateFrame,
    continuation,
    data,
    headers,
    plain,
    priority,
    push_promise,
    raw,
    rst_stream,
    window_update,
)
from tests.protocol.wire import GET, POST, Peer, with_sibling

STREAM = 3
MARK = (b"x-mark", b"a field for the dynamic table")


# The states. Each brings stream 3 into one; stream 1 is the sibling, open all the while.


def idle(peer: Peer) -> None:
    """Nothing was ever sent on it."""


def opened(peer: Peer) -> None:
    """Its request has content to come."""
    peer.ask(STREAM, POST, end=False)


def half_closed_remote(peer: Peer) -> None:
    """Its request has ended, its response has not."""
    peer.ask(STREAM, GET)


def closed_by_end(peer: Peer) -> None:
    """Both halves have ended."""
    peer.ask(STREAM, GET)
    peer.answer(STREAM)


def closed_by_trailers(peer: Peer) -> None:
    """Both halves have ended, the request's with trailers."""
    peer.ask(STREAM, POST, end=False)
    peer.ask(STREAM, [(b"x-sum", b"1")])
    peer.answer(STREAM)


def closed_prepared(peer: Peer) -> None:
    """It was answered at once, with bytes that were prepared."""
    peer.app.mode = "prepared"
    peer.ask(STREAM, GET)
    peer.app.mode = "hold"
    assert peer.app.prepared == [STREAM]


def reset_by_peer(peer: Peer) -> None:
    """The peer reset it while it was open."""
    opened(peer)
    peer.send(rst_stream(STREAM))


def reset_by_peer_later(peer: Peer) -> None:
    """The peer reset it while it was half-closed (remote)."""
    half_closed_remote(peer)
    peer.send(rst_stream(STREAM))


def reset_by_us(peer: Peer) -> None:
    """We reset it while it was open."""
    opened(peer)
    peer.conn.reset(peer.app.streams[STREAM], ErrorCodes.INTERNAL_ERROR)
    peer.flush()


def answered_early(peer: Peer) -> None:
    """Our half ended first, so the peer was told to stop."""
    opened(peer)
    peer.answer(STREAM)


def malformed(peer: Peer) -> None:
    """Its request was malformed."""
    peer.ask(STREAM, [*POST, (b"connection", b"close")], end=False)


def reset_by_both(peer: Peer) -> None:
    """We reset it, and then the peer did."""
    reset_by_us(peer)
    peer.send(rst_stream(STREAM))


def skipped(peer: Peer) -> None:
    """It was passed over by the use of a higher one (section 5.1.1)."""
    peer.ask(5, GET)


State = Callable[[Peer], None]


class Result(NamedTuple):
    """What a frame does: nothing that is an error, or an error of a scope with a code."""

    scope: Literal["none", "stream", "connection"]
    code: ErrorCodes = ErrorCodes.NO_ERROR


FINE = Result("none")
CLOSED_STREAM = Result("stream", ErrorCodes.STREAM_CLOSED)
BAD_STREAM = Result("stream", ErrorCodes.PROTOCOL_ERROR)
CLOSED = Result("connection", ErrorCodes.STREAM_CLOSED)
BAD = Result("connection", ErrorCodes.PROTOCOL_ERROR)


def _trailers(peer: Peer, *, end: bool) -> bytes:
    fresh = STREAM not in peer.ledger.answers
    return headers(STREAM, peer.block([*(GET if fresh else []), MARK]), end=end)


FRAMES: dict[str, Callable[[Peer], bytes]] = {
    "DATA": lambda peer: data(STREAM, b"abc"),
    "DATA end": lambda peer: data(STREAM, b"abc", end=True),
    "DATA empty": lambda peer: data(STREAM, b""),
    "HEADERS": lambda peer: _trailers(peer, end=False),
    "HEADERS end": lambda peer: _trailers(peer, end=True),
    "PRIORITY": lambda peer: priority(STREAM),
    "RST_STREAM": lambda peer: rst_stream(STREAM),
    "SETTINGS": lambda peer: raw(SETTINGS, 0, STREAM),
    "PUSH_PROMISE": lambda peer: push_promise(STREAM, 2, b""),
    "PING": lambda peer: raw(PING, 0, STREAM, bytes(8)),
    "GOAWAY": lambda peer: raw(GOAWAY, 0, STREAM, bytes(8)),
    "WINDOW_UPDATE": lambda peer: window_update(STREAM, 10),
    "WINDOW_UPDATE 0": lambda peer: window_update(STREAM, 0),
    "CONTINUATION": lambda peer: continuation(STREAM, b""),
    "unknown": lambda peer: raw(0xBE, 0xFF, STREAM, b"?"),
}
ANYWHERE = {  # these frames, whatever the state: the last five are never right on a stream
    "PRIORITY": FINE,
    "unknown": FINE,
    "SETTINGS": BAD,
    "PUSH_PROMISE": BAD,
    "PING": BAD,
    "GOAWAY": BAD,
    "CONTINUATION": BAD,
}


def _table(
    data: Result, head: Result, head_end: Result, reset: Result, update: Result, update_0: Result
) -> dict[str, Result]:
    return {
        **dict.fromkeys(("DATA", "DATA end", "DATA empty"), data),
        "HEADERS": head,
        "HEADERS end": head_end,
        "RST_STREAM": reset,
        "WINDOW_UPDATE": update,
        "WINDOW_UPDATE 0": update_0,
        **ANYWHERE,
    }


# Section 5.1's text for each state. Where it lets an endpoint choose ("MAY treat receipt of any
# other type of frame on a closed stream as a connection error of type STREAM_CLOSED"), the choice
# is the connection error, but after RST_STREAM from our side all is thrown away, as it must be.
_DONE = _table(CLOSED, CLOSED, CLOSED, FINE, FINE, FINE)
_THROWN_AWAY = _table(FINE, FINE, FINE, FINE, FINE, FINE)
EXPECTED: dict[State, dict[str, Result]] = {
    idle: _table(BAD, FINE, FINE, BAD, BAD, BAD),
    opened: _table(FINE, BAD_STREAM, FINE, FINE, FINE, BAD_STREAM),
    half_closed_remote: _table(CLOSED_STREAM, CLOSED_STREAM, CLOSED_STREAM, FINE, FINE, BAD_STREAM),
    closed_by_end: _DONE,
    closed_by_trailers: _DONE,
    closed_prepared: _DONE,
    reset_by_peer: _DONE,
    reset_by_peer_later: _DONE,
    reset_by_us: _THROWN_AWAY,
    answered_early: _THROWN_AWAY,
    malformed: _THROWN_AWAY,
    reset_by_both: _THROWN_AWAY,
    # HEADERS would open it, with an identifier that is not above all before (section 5.1.1).
    skipped: _table(CLOSED, BAD, BAD, FINE, FINE, FINE),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("state", EXPECTED, ids=lambda state: state.__name__)
def test_rfc9113_5_1_stream_states(state: State, name: str) -> None:
    """Each frame on a stream in each state is accepted, the stream's error or the connection's."""
    peer = with_sibling()
    state(peer)
    expected = EXPECTED[state][name]
    out = peer.send(FRAMES[name](peer))
    if expected.scope == "connection":
        peer.is_connection_error(out, expected.code)
    elif expected.scope == "stream":
        peer.is_stream_error(out, STREAM, expected.code)
    else:
        peer.is_ignored(out)


def test_rfc9113_5_1_table_is_whole() -> None:
    """The table above leaves out no frame in no state."""
    assert all(set(row) == set(FRAMES) for row in EXPECTED.values())


class TestWhatFramesDo:
    """The effects of what the table calls fine."""

    def test_rfc9113_5_1_request_with_content_and_trailers(self) -> None:
        """Content and trailers of an open stream are delivered, then the end."""
        peer = with_sibling()
        opened(peer)
        peer.send(data(3, b"abc"), data(3, b"def"), headers(3, peer.block([MARK])))
        assert peer.app.received == {3: b"abcdef"} and peer.app.ended == [3]
        assert peer.app.streams[3].trailer_fields == (MARK,)
        peer.goes_on()

    @pytest.mark.parametrize("state", [opened, half_closed_remote])
    def test_rfc9113_5_1_reset_is_reported(self, state: State) -> None:
        """RST_STREAM closes the stream and is reported with its code; nothing answers it."""
        peer = with_sibling()
        state(peer)
        assert peer.send(rst_stream(3, 0xDEAD)) == []
        assert peer.app.resets == [(3, Cause.PEER_RESET, 0xDEAD)]
        assert peer.app.streams[3].closed
        peer.answer(3)
        assert peer.got(3).sections == [], "nothing is sent on a stream that was reset"
        peer.goes_on()

    def test_rfc9113_5_1_stream_error_is_reported(self) -> None:
        """A stream that ends for an error is reported once, with the code that was sent."""
        peer = with_sibling()
        half_closed_remote(peer)
        peer.send(data(3, b"x"), data(3, b"y"), headers(3, peer.block([MARK])))
        assert peer.app.resets == [(3, Cause.STREAM_ERROR, ErrorCodes.STREAM_CLOSED)]
        assert peer.got(3).reset == ErrorCodes.STREAM_CLOSED
        peer.goes_on()

    def test_rfc9113_5_1_late_data_is_given_back(self) -> None:
        """DATA that is thrown away still counts, and its window is given back."""
        limits = EngineLimits(connection_window=65_536)
        peer = with_sibling(limits=limits)
        reset_by_us(peer)
        for _ in range(64):
            peer.send(data(3, bytes(8192), pad=99))
        assert peer.ledger.receive_window > 32_768
        assert 3 not in peer.app.received
        peer.goes_on()

    def test_rfc9113_5_1_early_answer_is_whole(self) -> None:
        """A response that overtakes its request is complete; what still comes is thrown away."""
        peer = with_sibling()
        opened(peer)
        peer.answer(3)
        assert peer.got(3).complete and peer.got(3).content == peer.app.content
        peer.send(data(3, b"more"), data(3, b"", end=True))
        assert peer.app.received == {} and peer.app.ended == []
        assert peer.tick(60) == []
        peer.goes_on()


class TestIdentifiers:
    """Section 5.1.1."""

    @pytest.mark.parametrize("used", [1, 5], ids=["above all used", "below one used"])
    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(headers(2, plain(GET)), id="HEADERS"),
            pytest.param(headers(2, b"", end_headers=False), id="HEADERS begun"),
            pytest.param(data(2, b"abc"), id="DATA"),
            pytest.param(rst_stream(2), id="RST_STREAM"),
            pytest.param(window_update(2, 1), id="WINDOW_UPDATE"),
        ],
    )
    def test_rfc9113_5_1_1_even_identifiers(self, frame: bytes, used: int) -> None:
        """A stream with an even identifier is ours to open, so idle: PROTOCOL_ERROR."""
        peer = with_sibling()
        if used > 1:
            peer.ask(used)
        peer.is_connection_error(peer.send(frame), ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(data(0, b"abc"), id="DATA"),
            pytest.param(data(0, b""), id="DATA empty"),
            pytest.param(headers(0, plain(GET)), id="HEADERS"),
            pytest.param(priority(0), id="PRIORITY"),
            pytest.param(rst_stream(0), id="RST_STREAM"),
            pytest.param(push_promise(0, 2, b""), id="PUSH_PROMISE"),
        ],
    )
    def test_rfc9113_5_1_1_stream_0(self, frame: bytes) -> None:
        """Stream 0 is the connection: a frame of a stream there is PROTOCOL_ERROR."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(frame), ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_5_1_1_identifiers_may_skip(self) -> None:
        """Identifiers need not be consecutive, up to the very last."""
        peer = with_sibling()
        for number in (7, 2**31 - 3, 2**31 - 1):
            peer.ask(number)
            peer.answer(number)
            assert peer.got(number).complete
        assert peer.conn.last_stream_id == 2**31 - 1

    @pytest.mark.parametrize("mode", ["hold", "prepared"])
    def test_rfc9113_5_1_1_lower_identifier(self, mode: str) -> None:
        """A request with an identifier below one used before is PROTOCOL_ERROR."""
        peer = Peer("hold" if mode == "hold" else "prepared")
        block = plain(GET)
        peer.send(headers(5, block), headers(7, block))
        out = peer.send(headers(3, block))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert set(peer.app.requests) == {5, 7}

    def test_rfc9113_5_1_1_malformed_request_uses_its_identifier(self) -> None:
        """A refused request has used its identifier: the GOAWAY names it."""
        peer = with_sibling()
        malformed(peer)
        out = peer.send(data(5, b""))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert peer.ledger.goaways[-1].last_stream_id == 3


class TestConcurrency:
    """Section 5.1.2."""

    def test_rfc9113_5_1_2_stream_over_the_limit(self) -> None:
        """The 101st request is REFUSED_STREAM; the hundred before it finish, and new ones too."""
        peer = with_sibling()
        for number in range(3, 201, 2):
            peer.ask(number)
        assert len(peer.conn.streams) == 100
        out = peer.ask(201, [*GET, MARK])
        assert [(number, cause) for number, _, cause in peer.app.refused] == [(201, None)]
        for number in (1, *range(3, 201, 2)):
            peer.answer(number)
            assert peer.got(number).complete
        peer.is_stream_error(out, 201, ErrorCodes.REFUSED_STREAM)

    def test_rfc9113_5_1_2_known_request_over_the_limit(self) -> None:
        """A request whose bytes were seen before is refused over the limit as any other."""
        peer = with_sibling(limits=EngineLimits(max_streams=2))
        block = plain(GET)
        peer.send(headers(3, block))
        out = peer.send(headers(5, block))
        peer.answer(3)
        peer.is_stream_error(out, 5, ErrorCodes.REFUSED_STREAM)

    def test_rfc9113_5_1_2_content_of_a_refused_request(self) -> None:
        """What follows a refused request is thrown away, and read for HPACK's sake."""
        peer = with_sibling(limits=EngineLimits(max_streams=1))
        peer.ask(3, POST, end=False)
        assert peer.send(data(3, b"abc")) == []
        assert peer.send(headers(3, peer.block([MARK]))) == []
        assert peer.app.received == {} and peer.app.ended == []
        peer.answer(1)
        peer.ask(5, [*GET, MARK])
        assert peer.app.requests[5].fields == (MARK,)
        peer.goes_on()

    def test_rfc9113_5_1_2_closed_streams_do_not_count(self) -> None:
        """Closed streams make room, whichever way they ended."""
        for number, way in enumerate((closed_by_end, reset_by_peer, reset_by_us, malformed)):
            peer = with_sibling(limits=EngineLimits(max_streams=2))
            way(peer)
            assert len(peer.conn.streams) == 1, number
            peer.goes_on()

    def test_rfc9113_5_1_2_prepared_responses_take_no_room(self) -> None:
        """Requests that are answered as they are read are never refused for the limit."""
        peer = Peer("prepared", limits=EngineLimits(max_streams=1))
        peer.send(*(headers(number, plain(GET)) for number in range(1, 61, 2)))
        assert all(peer.got(number).complete for number in range(1, 61, 2))
        assert peer.app.refused == []


class TestErrors:
    """Section 5.4."""

    def test_rfc9113_5_4_1_connection_error(self) -> None:
        """GOAWAY names the last stream and the code; open streams are over; no byte is read."""
        peer = with_sibling()
        half_closed_remote(peer)
        out = peer.send(data(0, b""), headers(5, peer.block(GET)))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert peer.ledger.goaways[-1].last_stream_id == 3
        assert 5 not in peer.app.requests
        code = ErrorCodes.PROTOCOL_ERROR
        assert peer.app.resets == [(1, Cause.CONNECTION, code), (3, Cause.CONNECTION, code)]

    def test_rfc9113_5_4_1_frames_before_the_error_count(self) -> None:
        """What came before the error in the same bytes is still answered."""
        peer = Peer("prepared")
        out = peer.send(headers(1, plain(GET)), data(0, b""), headers(3, plain(GET)))
        assert peer.got(1).complete
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert set(peer.app.requests) == {1}

    def test_rfc9113_5_4_2_several_stream_errors_at_once(self) -> None:
        """Stream errors in one read each reset their own stream; what follows is read."""
        peer = with_sibling()
        for number in (3, 5, 7):
            peer.ask(number)
        out = peer.send(
            data(3, b"x"), window_update(5, 0), data(7, b"x"), headers(9, peer.block(GET))
        )
        codes = [ErrorCodes.STREAM_CLOSED, ErrorCodes.PROTOCOL_ERROR, ErrorCodes.STREAM_CLOSED]
        resets = [(f.stream_id, f.code) for f in out if isinstance(f, RstStreamFrame)]
        assert resets == list(zip((3, 5, 7), codes, strict=True))
        assert set(peer.conn.streams) == {1, 9}
        peer.goes_on()

    @pytest.mark.parametrize("state", [opened, half_closed_remote, reset_by_us, closed_by_end])
    def test_rfc9113_5_4_2_rst_stream_is_not_answered(self, state: State) -> None:
        """No RST_STREAM answers RST_STREAM."""
        peer = with_sibling()
        state(peer)
        assert peer.send(rst_stream(3), rst_stream(3)) == []
        peer.goes_on()

    @pytest.mark.parametrize("state", [closed_by_end, reset_by_peer, reset_by_us, skipped])
    def test_rfc9113_5_1_nothing_is_sent_on_a_closed_stream(self, state: State) -> None:
        """A stream error on a stream that is closed already sends no RST_STREAM."""
        peer = with_sibling()
        state(peer)
        peer.is_ignored(peer.send(raw(PRIORITY, 0, STREAM, b"")))

    def test_rfc9113_5_4_2_unread_content_of_a_reset_stream(self) -> None:
        """What nobody read of a stream is given back to the connection when it is reset."""
        peer = with_sibling(limits=EngineLimits(connection_window=65_536))
        peer.app.eat = False
        opened(peer)
        peer.send(*(data(3, bytes(16_000)) for _ in range(3)))
        assert peer.ledger.receive_window == 65_536 - 48_000
        out = peer.send(rst_stream(3))
        assert [(f.stream_id, f.increment) for f in out if isinstance(f, WindowUpdateFrame)] == [
            (0, 48_000)
        ]
        peer.goes_on()
