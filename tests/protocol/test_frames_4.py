"""RFC 9113 sections 3.4, 4 and 5.5: the preface, the frame format, sizes, header blocks."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.budget import MAX_REMEMBERED_BLOCK, MAX_REMEMBERED_HEADS
from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
    continuation,
    data,
    headers,
    literal,
    ping,
    plain,
    priority,
    push_promise,
    raw,
    rst_stream,
    settings,
    string,
    window_update,
)
from tests.protocol.wire import GET, POST, Peer, with_sibling


class TestPreface:
    """Section 3.4."""

    def test_rfc9113_3_4_settings_come_first(self) -> None:
        """The server's preface is a SETTINGS frame, sent before the client says anything."""
        peer = Peer(shake=False)
        first, *others = peer.greeting
        assert isinstance(first, SettingsFrame) and not first.ack and first.stream_id == 0
        limits = EngineLimits()
        assert dict(first.values)[3] == limits.max_streams
        assert dict(first.values)[4] == limits.stream_window
        assert dict(first.values)[6] == limits.max_header_bytes
        assert [type(frame) for frame in others] == [WindowUpdateFrame]
        assert peer.ledger.receive_window == limits.connection_window

    def test_rfc9113_3_4_preface_is_accepted_and_acknowledged(self) -> None:
        """A preface and a SETTINGS frame open the connection; the SETTINGS are acknowledged."""
        peer = Peer(shake=False)
        (answer,) = peer.send_bytes(PREFACE + settings())
        assert isinstance(answer, SettingsFrame) and answer.ack
        peer.goes_on()

    @pytest.mark.parametrize("wrong", range(len(PREFACE)))
    def test_rfc9113_3_4_invalid_preface(self, wrong: int) -> None:
        """A preface that differs in any one byte is PROTOCOL_ERROR."""
        peer = Peer(shake=False)
        changed = bytearray(PREFACE)
        changed[wrong] ^= 1
        out = peer.send_bytes(bytes(changed) + settings())
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_3_4_http1_is_refused(self) -> None:
        """A request of HTTP/1.1 is no preface."""
        peer = Peer(shake=False)
        out = peer.send_bytes(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert peer.app.requests == {}

    def test_rfc9113_3_4_preface_in_single_bytes(self) -> None:
        """The preface may come a byte at a time; no answer is due before SETTINGS are whole."""
        peer = Peer(shake=False)
        whole = PREFACE + settings()
        for byte in whole[:-1]:
            assert peer.send_bytes(bytes((byte,))) == []
        assert len(peer.send_bytes(whole[-1:])) == 1
        peer.goes_on()

    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(SETTINGS_ACK, id="settings ack"),
            pytest.param(ping(), id="ping"),
            pytest.param(headers(1, plain(GET)), id="headers"),
            pytest.param(window_update(0, 1), id="window update"),
            pytest.param(priority(3), id="priority"),
            pytest.param(raw(0xBE, 0, 0), id="unknown type"),
        ],
    )
    def test_rfc9113_3_4_first_frame_is_settings(self, first: bytes) -> None:
        """Anything but SETTINGS after the preface is PROTOCOL_ERROR."""
        peer = Peer(shake=False)
        out = peer.send_bytes(PREFACE + first)
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert peer.app.requests == {}

    def test_rfc9113_3_4_requests_need_not_wait(self) -> None:
        """A client sends requests right after its preface, before it has seen our SETTINGS."""
        peer = Peer(shake=False)
        peer.send_bytes(PREFACE + settings() + headers(1, plain(GET)))
        assert peer.got(1).complete


class TestFrameFormat:
    """Sections 4.1 and 5.5."""

    @pytest.mark.parametrize("kind", [0x0A, 0x0B, 0x1F, 0x7F, 0xFF])
    @pytest.mark.parametrize("stream_id", [0, 1, 99])
    def test_rfc9113_4_1_unknown_type_is_ignored(self, kind: int, stream_id: int) -> None:
        """Frames of unknown types are ignored and discarded, on any stream."""
        peer = with_sibling()
        peer.is_ignored(peer.send(raw(kind, 0xFF, stream_id, b"some payload")))

    def test_rfc9113_4_1_reserved_bit_is_ignored(self) -> None:
        """The reserved bit of a frame header says nothing, whatever the type."""
        peer = with_sibling()
        request = headers(3, peer.block([*POST, (b"x-mark", b"3")]), end=False)
        peer.send(
            _reserved(request),
            _reserved(data(3, b"abc", end=True)),
            _reserved(window_update(3, 10)),
            _reserved(settings()),
        )
        assert peer.app.received[3] == b"abc" and peer.app.ended == [3]
        assert peer.conn.last_stream_id == 3
        (answer,) = peer.send(_reserved(ping()))
        assert isinstance(answer, PingFrame) and answer.ack
        peer.goes_on()

    def test_rfc9113_4_1_reserved_bit_of_a_request_seen_before(self) -> None:
        """The reserved bit does not change a request that repeats an earlier one's bytes."""
        peer = Peer("prepared")
        block = plain(GET)
        peer.send(headers(1, block), headers(3, block))
        peer.send(_reserved(headers(5, block)))
        assert [peer.got(number).complete for number in (1, 3, 5)] == [True] * 3

    @pytest.mark.parametrize(
        ("kind", "flags"), [(HEADERS, 0xD2), (DATA, 0xF6), (PING, 0xFE), (SETTINGS, 0xFE)]
    )
    def test_rfc9113_4_1_undefined_flags_are_ignored(self, kind: int, flags: int) -> None:
        """A flag that has no meaning for the frame's type is ignored."""
        peer = with_sibling()
        payloads = {DATA: b"abc", PING: b"12345678", SETTINGS: b""}
        stream_id = {DATA: 1, HEADERS: 3}.get(kind, 0)
        payload = payloads[kind] if kind in payloads else peer.block(GET)
        peer.send(raw(kind, flags | (0x05 if kind == HEADERS else 0), stream_id, payload))
        assert peer.conn.error is None
        assert peer.app.received.get(1, b"") == (b"abc" if kind == DATA else b"")
        assert (3 in peer.app.requests) == (kind == HEADERS)
        peer.goes_on()


class TestFrameSize:
    """Section 4.2."""

    def test_rfc9113_4_2_largest_frame_is_accepted(self) -> None:
        """A frame of 16,384 bytes is accepted."""
        peer = with_sibling()
        peer.send(data(1, bytes(DEFAULT_FRAME_SIZE)))
        assert len(peer.app.received[1]) == DEFAULT_FRAME_SIZE
        peer.goes_on()

    @pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, 0xBE])
    def test_rfc9113_4_2_frame_over_the_size(self, kind: int) -> None:
        """A longer one is FRAME_SIZE_ERROR as soon as its header is there, whatever its type."""
        peer = with_sibling()
        stream_id = 1 if kind in (DATA, HEADERS) else 0
        out = peer.send(raw(kind, 0, stream_id, b"", length=DEFAULT_FRAME_SIZE + 1))
        peer.is_connection_error(out, ErrorCodes.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(raw(PING, 0, 0, bytes(7)), id="ping of 7"),
            pytest.param(raw(PING, 0, 0, bytes(9)), id="ping of 9"),
            pytest.param(raw(PING, 1, 0, b""), id="ping ack of 0"),
            pytest.param(raw(RST_STREAM, 0, 1, bytes(3)), id="rst_stream of 3"),
            pytest.param(raw(RST_STREAM, 0, 1, bytes(5)), id="rst_stream of 5"),
            pytest.param(raw(WINDOW_UPDATE, 0, 0, bytes(3)), id="window_update of 3"),
            pytest.param(raw(WINDOW_UPDATE, 0, 1, bytes(5)), id="window_update of 5"),
            pytest.param(raw(SETTINGS, 0, 0, bytes(5)), id="settings of 5"),
            pytest.param(raw(SETTINGS, 1, 0, bytes(6)), id="settings ack of 6"),
            pytest.param(raw(7, 0, 0, bytes(7)), id="goaway of 7"),
            pytest.param(raw(DATA, 0x8, 1, b""), id="padded data of 0"),
            pytest.param(raw(HEADERS, 0xC, 3, b""), id="padded headers of 0"),
            pytest.param(raw(HEADERS, 0x24, 3, bytes(4)), id="headers with half a priority"),
        ],
    )
    def test_rfc9113_4_2_wrong_size_of_a_frame(self, frame: bytes) -> None:
        """A frame too short or too long for what it must hold is FRAME_SIZE_ERROR."""
        peer = with_sibling()
        out = peer.send(frame)
        peer.is_connection_error(out, ErrorCodes.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize("size", [0, 4, 6])
    @pytest.mark.parametrize("end", [False, True], ids=["open", "half-closed"])
    def test_rfc9113_6_3_priority_of_another_size(self, size: int, end: bool) -> None:
        """A PRIORITY frame that is not 5 bytes is its stream's FRAME_SIZE_ERROR."""
        peer = with_sibling()
        peer.ask(3, end=end)
        out = peer.send(raw(PRIORITY, 0, 3, bytes(size)))
        peer.is_stream_error(out, 3, ErrorCodes.FRAME_SIZE_ERROR)


class TestHeaderBlocks:
    """Sections 4.3 and 6.10."""

    @pytest.mark.parametrize("pieces", [2, 3, 8])
    def test_rfc9113_4_3_block_in_pieces(self, pieces: int) -> None:
        """A header block may be cut anywhere, over HEADERS and CONTINUATION frames."""
        peer = with_sibling()
        fields = [*GET, *((b"x-%d" % n, b"value %d" % n) for n in range(20))]
        block = peer.block(fields)
        size = -(-len(block) // pieces)
        parts = [block[pos : pos + size] for pos in range(0, len(block), size)]
        last = len(parts) - 1
        peer.send(
            headers(3, parts[0], end_headers=False),
            *(continuation(3, part, end_headers=n == last) for n, part in enumerate(parts) if n),
        )
        assert list(peer.app.requests[3].fields) == fields[4:]
        peer.goes_on()

    def test_rfc9113_4_3_empty_fragments(self) -> None:
        """Fragments may be empty."""
        peer = with_sibling()
        block = peer.block(GET)
        peer.send(
            headers(3, b"", end_headers=False),
            continuation(3, block, end_headers=False),
            continuation(3, b""),
        )
        assert 3 in peer.app.requests
        peer.goes_on()

    @pytest.mark.parametrize(
        "between",
        [
            pytest.param(data(1, b"x"), id="data"),
            pytest.param(headers(5, plain(GET)), id="another request"),
            pytest.param(headers(3, plain(GET)), id="headers of the same stream"),
            pytest.param(priority(3), id="priority of the same stream"),
            pytest.param(rst_stream(3), id="rst_stream of the same stream"),
            pytest.param(settings(), id="settings"),
            pytest.param(SETTINGS_ACK, id="settings ack"),
            pytest.param(push_promise(3, 4, b""), id="push promise"),
            pytest.param(ping(), id="ping"),
            pytest.param(window_update(0, 1), id="window update"),
            pytest.param(continuation(1, b""), id="continuation of another stream"),
            pytest.param(continuation(0, b""), id="continuation of stream 0"),
            pytest.param(raw(0xBE, 0, 3), id="unknown type"),
        ],
    )
    def test_rfc9113_4_3_block_is_contiguous(self, between: bytes) -> None:
        """Any other frame, of any type or stream, inside a header block is PROTOCOL_ERROR."""
        peer = with_sibling()
        out = peer.send(headers(3, plain(GET), end_headers=False), between)
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)
        assert set(peer.app.requests) == {1}

    def test_rfc9113_4_3_block_is_contiguous_for_known_requests(self) -> None:
        """A request whose bytes were seen before is not let into a header block either."""
        peer = Peer("prepared")
        block = plain(GET)
        peer.send(headers(1, block))
        out = peer.send(headers(3, block, end_headers=False), headers(5, block))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize(
        "block",
        [
            pytest.param(b"\x80", id="index 0"),
            pytest.param(b"\xfe", id="index beyond the table"),
            pytest.param(b"\x00\x05ab", id="cut short"),
            pytest.param(literal(b"a", b"b") + b"\x20", id="size update after a field"),
        ],
    )
    @pytest.mark.parametrize("stream_id", [1, 3], ids=["trailers", "request"])
    def test_rfc9113_4_3_undecodable_block(self, block: bytes, stream_id: int) -> None:
        """A header block that does not decode is the connection's COMPRESSION_ERROR."""
        peer = with_sibling()
        out = peer.send(headers(stream_id, block))
        peer.is_connection_error(out, ErrorCodes.COMPRESSION_ERROR)
        assert [number for number, *_ in peer.app.refused] == ([3] if stream_id == 3 else [])

    @pytest.mark.parametrize("stream_id", [0, 1, 3])
    def test_rfc9113_6_10_continuation_without_headers(self, stream_id: int) -> None:
        """A CONTINUATION frame that continues nothing is PROTOCOL_ERROR."""
        peer = with_sibling()
        out = peer.send(continuation(stream_id, b""))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_6_10_continuation_after_end_headers(self) -> None:
        """A block that has ended cannot be continued."""
        peer = with_sibling()
        out = peer.send(headers(3, peer.block(GET)), continuation(3, b""))
        peer.is_connection_error(out, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_6_10_end_stream_is_of_headers(self) -> None:
        """END_STREAM counts on HEADERS; the same bit of a CONTINUATION frame says nothing."""
        peer = with_sibling()
        peer.send(headers(3, peer.block(POST), end=False, end_headers=False))
        peer.send(raw(CONTINUATION, 0x1 | 0x4, 3, b""))
        assert peer.app.unended == [1, 3]
        peer.send(data(3, b"content", end=True))
        assert peer.app.ended == [3]
        peer.goes_on()

    def test_rfc9113_10_5_endless_block(self) -> None:
        """A header block of frame after frame without end is stopped with ENHANCE_YOUR_CALM."""
        peer = with_sibling()
        out = peer.send(headers(3, b"", end_headers=False))
        for _ in range(64):
            if peer.conn.closing:
                break
            out = peer.send(continuation(3, b"", end_headers=False))
        peer.is_connection_error(out, ErrorCodes.ENHANCE_YOUR_CALM)

    def test_rfc9113_10_5_header_list_over_the_limit(self) -> None:
        """Fields over what we offered are decoded, not kept: the request is told, not the peer."""
        peer = with_sibling(limits=EngineLimits(max_header_bytes=1024))
        peer.ask(3, [*GET, (b"x-mark", b"3"), (b"x-large", bytes([97]) * 900)])
        assert peer.app.requests[3].too_large
        assert peer.app.requests[3].fields == ((b"x-mark", b"3"),)
        peer.goes_on()

    def test_rfc9113_10_5_long_path_is_not_malformed(self) -> None:
        """A request whose `:path` alone is over the limit is too large, which is not malformed."""
        peer = with_sibling(limits=EngineLimits(max_header_bytes=1024))
        peer.ask(3, [*GET[:3], (b":path", b"/" + bytes([97]) * 1024)])
        assert [number for number, *_ in peer.app.refused] == []
        assert peer.app.requests[3].too_large
        peer.goes_on()

    @pytest.mark.parametrize("size", [10, 300, 8000])
    def test_rfc9113_10_5_remembered_blocks_are_bounded(self, size: int) -> None:
        """What is remembered of requests that differ in their path is bounded, also in bytes."""
        peer = Peer("prepared")
        for number in range(1, 401, 2):
            path = b"/%d" % number + b"x" * (size if number > 1 else 0)
            peer.send(headers(number, plain(GET[:3]) + b"\x04" + string(path)))
            assert peer.app.requests[number].path.encode() == path
        assert sum(map(len, peer.conn._heads)) <= MAX_REMEMBERED_HEADS * MAX_REMEMBERED_BLOCK

    def test_rfc9113_10_5_too_many_fields(self) -> None:
        """The number of fields is bounded too."""
        peer = with_sibling(limits=EngineLimits(max_header_fields=10))
        peer.ask(3, [*GET, *((b"x-%d" % n, b"") for n in range(10))])
        assert peer.app.requests[3].too_large and len(peer.app.requests[3].fields) == 6
        peer.ask(5, [*GET, *((b"x-%d" % n, b"") for n in range(6))])
        assert not peer.app.requests[5].too_large and len(peer.app.requests[5].fields) == 6
        peer.goes_on()

    @pytest.mark.parametrize("others", [(0, 6), (6, 0), (3, 3), (6, 1), (7, 0)])
    def test_rfc9113_10_5_cookies_are_one_field(self, others: tuple[int, int]) -> None:
        """A cookie that comes in a hundred pieces counts as one field, wherever others stand."""
        before, behind = ([(b"x-%d" % n, b"") for n in range(count)] for count in others)
        cookies = [(b"cookie", b"c=%d" % n) for n in range(100)]
        peer = with_sibling(limits=EngineLimits(max_header_fields=11))
        peer.ask(3, [*GET, *before, *cookies, *behind])
        assert peer.app.requests[3].too_large == (sum(others) > 6)
        if sum(others) == 6:
            assert len(peer.app.requests[3].fields) == 7
        peer.goes_on()

    def test_rfc9113_10_5_cookies_are_bounded_by_their_size(self) -> None:
        """Pieces of a cookie count against the bytes of a header as any field."""
        peer = with_sibling(limits=EngineLimits(max_header_bytes=4096))
        peer.ask(3, [*GET, *[(b"cookie", b"a=b")] * 100])
        assert peer.app.requests[3].too_large
        peer.goes_on()


def _reserved(frame: bytes) -> bytes:
    return frame[:5] + bytes((frame[5] | 0x80,)) + frame[6:]
