"""RFC 9113 sections 6.1 to 6.7: what each frame type must hold, but SETTINGS and GOAWAY."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from tests.protocol.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    WITH_PRIORITY,
    PingFrame,
    continuation,
    data,
    headers,
    ping,
    plain,
    priority,
    push_promise,
    raw,
    rst_stream,
)
from tests.protocol.wire import GET, POST, Peer, with_sibling


class TestPadding:
    """Sections 6.1 and 6.2."""

    @pytest.mark.parametrize("pad", [0, 1, 255])
    def test_rfc9113_6_1_padding_is_taken_off(self, pad: int) -> None:
        """Padding of DATA is not content."""
        peer = with_sibling()
        peer.send(data(1, b"abc", pad=pad), data(1, b"", pad=pad, end=True))
        assert peer.app.received == {1: b"abc"} and peer.app.ended == [1]
        peer.goes_on()

    @pytest.mark.parametrize("pad", [0, 1, 255])
    @pytest.mark.parametrize("depends_on", [None, 0, 1])
    def test_rfc9113_6_2_padding_and_priority_are_taken_off(
        self, pad: int, depends_on: int | None
    ) -> None:
        """Padding and priority of HEADERS are not of the header block."""
        peer = with_sibling()
        peer.send(headers(3, peer.block([*GET, (b"x-a", b"1")]), pad=pad, depends_on=depends_on))
        assert peer.app.requests[3].fields == ((b"x-a", b"1"),)
        peer.goes_on()

    def test_rfc9113_6_2_padding_of_a_block_in_pieces(self) -> None:
        """Padding of a HEADERS frame ends before its CONTINUATION frames begin."""
        peer = with_sibling()
        block = peer.block([*GET, (b"x-a", b"1")])
        peer.send(
            headers(3, block[:4], pad=9, depends_on=1, end_headers=False),
            continuation(3, block[4:]),
        )
        assert peer.app.requests[3].fields == ((b"x-a", b"1"),)
        peer.goes_on()

    def test_rfc9113_6_1_padding_may_be_anything(self) -> None:
        """Padding that is not zero is tolerated: verifying it is a MAY."""
        peer = with_sibling()
        peer.send(raw(DATA, PADDED, 1, b"\x02abcXY"))
        assert peer.app.received == {1: b"abc"}
        peer.goes_on()

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(raw(DATA, PADDED, 1, b"\x04abc"), id="data, one over"),
            pytest.param(raw(DATA, PADDED, 1, b"\xff"), id="data, nothing else"),
            pytest.param(raw(DATA, PADDED, 1, b"\x01"), id="data, by its own byte"),
            pytest.param(raw(HEADERS, PADDED | END_HEADERS, 3, b"\x04abc"), id="headers, one over"),
            pytest.param(
                raw(HEADERS, PADDED | END_HEADERS | WITH_PRIORITY, 3, b"\x03" + bytes(7)),
                id="headers, into the priority",
            ),
            pytest.param(raw(HEADERS, PADDED, 3, b"\x01"), id="headers, by its own byte"),
        ],
    )
    def test_rfc9113_6_1_padding_longer_than_the_frame(self, frame: bytes) -> None:
        """Padding that leaves no room for what must be there is PROTOCOL_ERROR."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(frame), ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_6_1_padding_of_exactly_the_rest(self) -> None:
        """Padding may be all that a frame holds."""
        peer = with_sibling()
        peer.send(raw(DATA, PADDED | END_STREAM, 1, b"\x03abc"))
        assert peer.app.received == {} and peer.app.ended == [1]
        peer.send(raw(HEADERS, PADDED | WITH_PRIORITY, 3, b"\x03" + bytes(8)))
        peer.send(continuation(3, peer.block(GET)))
        assert 3 in peer.app.requests
        peer.goes_on()


class TestPriority:
    """Section 6.3, and what is left of dependencies."""

    @pytest.mark.parametrize("stream_id", [1, 3, 5, 7, 2**31 - 1])
    def test_rfc9113_6_3_priority_in_any_state(self, stream_id: int) -> None:
        """PRIORITY is accepted on any stream, and opens or closes none."""
        peer = with_sibling()
        peer.ask(3)
        peer.answer(3)
        peer.ask(5)
        assert peer.send(priority(stream_id, 11), priority(stream_id, 2**31 | 9)) == []
        assert peer.conn.last_stream_id == 5 and set(peer.conn.streams) == {1, 5}
        peer.goes_on()

    def test_rfc9113_6_3_wrong_size_on_an_idle_stream(self) -> None:
        """An idle stream cannot be reset, so its FRAME_SIZE_ERROR is the connection's."""
        peer = with_sibling()
        peer.is_connection_error(peer.send(raw(2, 0, 9, b"")), ErrorCodes.FRAME_SIZE_ERROR)

    def test_rfc9113_6_3_wrong_size_on_one_of_our_streams(self) -> None:
        """A stream of an even identifier is idle for ever: nothing is sent on it."""
        peer = with_sibling()
        peer.ask(5)
        peer.is_connection_error(peer.send(raw(2, 0, 2, b"")), ErrorCodes.FRAME_SIZE_ERROR)

    def test_rfc7540_5_3_1_stream_that_depends_on_itself(self) -> None:
        """A stream made to depend on itself is an error of that stream, as clients still expect."""
        peer = with_sibling()
        peer.ask(3)
        out = peer.send(priority(3, depends_on=3))
        peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc7540_5_3_1_request_that_depends_on_itself(self) -> None:
        """A request made to depend on itself is reset, and the next with its bytes is not."""
        peer = with_sibling()
        block = plain(GET)
        peer.send(headers(3, block))
        out = peer.send(headers(5, block, depends_on=5))
        assert [number for number, *_ in peer.app.refused] == [5]
        peer.send(headers(7, block))
        assert 7 in peer.app.requests
        peer.is_stream_error(out, 5, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc7540_5_3_1_trailers_that_depend_on_their_stream(self) -> None:
        """The same in trailers."""
        peer = with_sibling()
        peer.ask(3, POST, end=False)
        out = peer.send(headers(3, peer.block([(b"x-a", b"1")]), depends_on=3))
        peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)


class TestOthers:
    """Sections 6.4, 6.6 and 6.7."""

    @pytest.mark.parametrize("code", [0, 8, 0xD, 0xE, 2**32 - 1])
    def test_rfc9113_6_4_any_code(self, code: int) -> None:
        """RST_STREAM of any code, known or not, closes its stream alone (section 7)."""
        peer = with_sibling()
        peer.ask(3)
        peer.is_ignored(peer.send(rst_stream(3, code)))
        assert [(number, got) for number, _, got in peer.app.resets] == [(3, code)]

    def test_rfc9113_6_4_reset_of_content_that_waits(self) -> None:
        """Nothing more of a response goes out once its stream was reset."""
        peer = with_sibling()
        peer.ask(3)
        peer.conn.blocked = True
        peer.answer(3, bytes(10_000))
        peer.send(rst_stream(3))
        peer.conn.blocked = False
        peer.conn.pump()
        assert peer.flush() == []
        assert peer.got(3).content == b"" and peer.conn.queued == 0
        peer.goes_on()

    @pytest.mark.parametrize("stream_id", [1, 3])
    def test_rfc9113_6_6_push_promise(self, stream_id: int) -> None:
        """A client cannot push: PUSH_PROMISE is PROTOCOL_ERROR."""
        peer = with_sibling()
        out = peer.send(push_promise(stream_id, 2, plain(GET)))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_6_7_ping_is_answered(self) -> None:
        """PING is answered with the same eight bytes, in order."""
        peer = with_sibling()
        out = peer.send(ping(b"abcdefgh"), ping(bytes(8)))
        assert [(f.payload, f.ack) for f in out if isinstance(f, PingFrame)] == [
            (b"abcdefgh", True),
            (bytes(8), True),
        ]
        assert len(out) == 2
        peer.goes_on()

    def test_rfc9113_6_7_ping_passes_content(self) -> None:
        """PING is answered while content waits for a window."""
        peer = Peer("hold")
        peer.ask(1)
        peer.answer(1, bytes(100_000))
        peer.send(ping())
        assert peer.ledger.pings == [b"12345678"]

    def test_rfc9113_6_7_ping_ack_is_not_answered(self) -> None:
        """An acknowledgement is not answered, asked for or not."""
        peer = with_sibling()
        peer.is_ignored(peer.send(ping(ack=True)))
