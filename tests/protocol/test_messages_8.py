"""RFC 9113 section 8: what a request must be, and how requests and responses go."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.http2.budget import LINGER
from h2log.http2.events import Cause
from h2log.http2.stream import Stream
from tests.protocol.frames import (
    DataFrame,
    HeadersFrame,
    RstStreamFrame,
    continuation,
    data,
    headers,
    plain,
    rst_stream,
)
from tests.protocol.ledger import Fields
from tests.protocol.wire import CONTENT, GET, OK, POST, App, Peer, with_sibling

MARK = (b"x-mark", b"a field for the dynamic table")
METHOD, SCHEME, AUTHORITY, PATH = GET


def ids(cases: dict[str, Fields]) -> list[object]:
    """Return the cases as parameters."""
    return [pytest.param(fields, id=name) for name, fields in cases.items()]


def refused(peer: Peer, fields: Fields, *, end: bool = True, raw: bool = False) -> None:
    """Send a request on stream 3, and assert that it alone is refused as malformed."""
    block = plain(fields) if raw else peer.block([*fields])
    out = peer.send(headers(3, block, end=end))
    assert 3 not in peer.app.requests
    assert [(number, cause) for number, _, cause in peer.app.refused] == [(3, Cause.MALFORMED)]
    assert peer.app.refused[0][1].fault
    peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)


PSEUDO: dict[str, Fields] = {
    "no field at all": [],
    "no pseudo-header": [(b"host", b"a")],
    "no :method": [SCHEME, AUTHORITY, PATH],
    "no :scheme": [METHOD, AUTHORITY, PATH],
    "no :path": [METHOD, SCHEME, AUTHORITY],
    "empty :path": [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
    "empty :method": [(b":method", b""), SCHEME, AUTHORITY, PATH],
    "empty :scheme": [METHOD, (b":scheme", b""), AUTHORITY, PATH],
    "two :method": [METHOD, METHOD, SCHEME, AUTHORITY, PATH],
    "two :scheme": [METHOD, SCHEME, SCHEME, AUTHORITY, PATH],
    "two :path": [METHOD, SCHEME, AUTHORITY, PATH, PATH],
    "two :authority": [METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH],
    "unknown one": [*GET, (b":unknown", b"a")],
    "a response's": [*GET, (b":status", b"200")],
    "extended connect, not offered": [*GET, (b":protocol", b"websocket")],
    "after a regular field": [METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH],
    "doubled after a regular field": [*GET, (b"a", b"b"), PATH],
    "unknown after a regular field": [*GET, (b"a", b"b"), (b":c", b"d")],
    "upper-case": [(b":Method", b"GET"), SCHEME, AUTHORITY, PATH],
    "just a colon": [*GET, (b":", b"a")],
    ":path without a slash": [METHOD, SCHEME, AUTHORITY, (b":path", b"index")],
    ":path that is a URL": [METHOD, SCHEME, AUTHORITY, (b":path", b"https://a/")],
    ":path with a space": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a b")],
    ":path with a line end": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a\r\nb")],
    "* with GET": [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
    "*x with OPTIONS": [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*x")],
    ":method with a space": [(b":method", b"GE T"), SCHEME, AUTHORITY, PATH],
    ":scheme that is none": [METHOD, (b":scheme", b"ht tp"), AUTHORITY, PATH],
    ":authority with userinfo": [METHOD, SCHEME, (b":authority", b"user@a"), PATH],
    ":authority with a path": [METHOD, SCHEME, (b":authority", b"a/b"), PATH],
    ":authority with a line end": [METHOD, SCHEME, (b":authority", b"a\nb"), PATH],
    "another host": [*GET, (b"host", b"example.com")],
    "two hosts": [METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a")],
    "CONNECT with :path": [(b":method", b"CONNECT"), AUTHORITY, PATH],
    "CONNECT with :scheme": [(b":method", b"CONNECT"), SCHEME, AUTHORITY],
    "CONNECT without :authority": [(b":method", b"CONNECT")],
    "CONNECT with an empty :authority": [(b":method", b"CONNECT"), (b":authority", b"")],
}

FIELDS: dict[str, Fields] = {
    "upper-case name": [(b"X-Name", b"a")],
    "one upper-case letter": [(b"x-namE", b"a")],
    "empty name": [(b"", b"a")],
    "space in a name": [(b"x name", b"a")],
    "NUL in a name": [(b"x\0name", b"a")],
    "DEL in a name": [(b"x\x7f", b"a")],
    "colon in a name": [(b"x:name", b"a")],
    "byte over 0x7f in a name": [(b"x\x80", b"a")],
    "line end in a name": [(b"x\r\ny", b"a")],
    "NUL in a value": [(b"x", b"a\0b")],
    "CR in a value": [(b"x", b"a\rb")],
    "LF in a value": [(b"x", b"a\nb")],
    "a smuggled field": [(b"x", b"a\r\nhost: b")],
    "LF at a value's end": [(b"x", b"a\n")],
    "space before a value": [(b"x", b" a")],
    "space after a value": [(b"x", b"a ")],
    "tab before a value": [(b"x", b"\ta")],
    "tab after a value": [(b"x", b"a\t")],
    "nothing but a space": [(b"x", b" ")],
    "connection": [(b"connection", b"close")],
    "proxy-connection": [(b"proxy-connection", b"keep-alive")],
    "keep-alive": [(b"keep-alive", b"timeout=5")],
    "transfer-encoding": [(b"transfer-encoding", b"chunked")],
    "upgrade": [(b"upgrade", b"h2c")],
    "te: gzip": [(b"te", b"gzip")],
    "te: trailers, gzip": [(b"te", b"trailers, gzip")],
}

LENGTHS: dict[str, Fields] = {
    "no number": [(b"content-length", b"five")],
    "empty": [(b"content-length", b"")],
    "a sign": [(b"content-length", b"+5")],
    "negative": [(b"content-length", b"-1")],
    "hexadecimal": [(b"content-length", b"0x5")],
    "not ASCII": [(b"content-length", "５".encode())],
    "a list": [(b"content-length", b"5, 6")],
    "two that differ": [(b"content-length", b"5"), (b"content-length", b"6")],
    "beyond counting": [(b"content-length", b"9" * 40)],
}


@pytest.mark.parametrize("raw", [False, True], ids=["indexed", "plain"])
@pytest.mark.parametrize("fields", ids(PSEUDO))
def test_rfc9113_8_3_malformed_pseudo_headers(fields: Fields, raw: bool) -> None:
    """A request with wrong pseudo-headers is a stream error, and no other stream's."""
    refused(with_sibling(), fields, raw=raw)


@pytest.mark.parametrize("end", [False, True], ids=["open", "ended"])
@pytest.mark.parametrize("fields", ids(FIELDS))
def test_rfc9113_8_2_malformed_fields(fields: Fields, end: bool) -> None:
    """A request with an invalid or connection-specific field is a stream error."""
    refused(with_sibling(), [*GET, MARK, *fields, (b"x-last", b"a")], end=end)


@pytest.mark.parametrize("fields", ids(FIELDS | {"a pseudo-header": [PATH]}))
def test_rfc9113_8_1_malformed_trailers(fields: Fields) -> None:
    """Trailers are held to the same rules, and have no pseudo-header."""
    peer = with_sibling()
    peer.ask(3, POST, end=False)
    peer.send(data(3, b"abc"))
    out = peer.send(headers(3, peer.block([MARK, *fields])))
    assert peer.app.ended == []
    assert peer.app.resets == [(3, Cause.MALFORMED, ErrorCodes.PROTOCOL_ERROR)]
    peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)


@pytest.mark.parametrize("fields", ids(LENGTHS))
def test_rfc9113_8_1_1_malformed_content_length(fields: Fields) -> None:
    """A content-length that is no number, or several, is a stream error."""
    refused(with_sibling(), [*POST, *fields], end=False)


class TestContentLength:
    """Section 8.1.1: content-length and the content."""

    @pytest.mark.parametrize("length", [0, 1, 5, 40_000])
    def test_rfc9113_8_1_1_equal(self, length: int) -> None:
        """A content of the length that was announced is delivered, with its end."""
        peer = with_sibling()
        peer.ask(3, [*POST, (b"content-length", b"%d" % length)], end=False)
        for pos in range(0, length, 16_000):
            peer.send(data(3, bytes(min(16_000, length - pos)), pad=3))
        peer.send(data(3, b"", end=True))
        assert peer.app.ended == [3] and len(peer.app.received.get(3, b"")) == length
        peer.goes_on()

    def test_rfc9113_8_1_1_same_length_twice(self) -> None:
        """The same length said twice is one length."""
        peer = with_sibling()
        length = (b"content-length", b"3")
        peer.ask(3, [*POST, length, length], end=False)
        peer.send(data(3, b"abc", end=True))
        assert peer.app.ended == [3]
        peer.goes_on()

    @pytest.mark.parametrize("way", ["data", "empty data", "trailers"])
    def test_rfc9113_8_1_1_less(self, way: str) -> None:
        """Less content than announced is a stream error, whatever frame ends it."""
        peer = with_sibling()
        peer.ask(3, [*POST, (b"content-length", b"5")], end=False)
        if way == "data":
            out = peer.send(data(3, b"abcd", end=True))
        elif way == "empty data":
            out = peer.send(data(3, b"abcd"), data(3, b"", end=True))
        else:
            out = peer.send(data(3, b"abcd"), headers(3, peer.block([MARK])))
        assert peer.app.ended == []
        assert peer.app.resets == [(3, Cause.MALFORMED, ErrorCodes.PROTOCOL_ERROR)]
        peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize("announced", [0, 5])
    @pytest.mark.parametrize("end", [False, True])
    def test_rfc9113_8_1_1_more(self, announced: int, end: bool) -> None:
        """More content than announced is a stream error at its first byte, not delivered."""
        peer = with_sibling()
        peer.ask(3, [*POST, (b"content-length", b"%d" % announced)], end=False)
        peer.send(data(3, bytes(announced)))
        out = peer.send(data(3, b"!", end=end))
        assert len(peer.app.received.get(3, b"")) == announced and peer.app.ended == []
        peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)

    @pytest.mark.parametrize("times", [1, 3])
    def test_rfc9113_8_1_1_length_without_content(self, times: int) -> None:
        """A request that announces content and ends with its HEADERS is malformed, each time."""
        peer = with_sibling()
        block = plain([*POST, (b"content-length", b"5")])
        out = [frame for n in range(times) for frame in peer.send(headers(3 + 2 * n, block))]
        assert [frame.stream_id for frame in out] == list(range(3, 3 + 2 * times, 2))
        assert all(isinstance(frame, RstStreamFrame) for frame in out)
        peer.send(headers(9, block, end=False), data(9, b"abcde", end=True))
        assert peer.app.received[9] == b"abcde" and peer.app.ended == [9]
        peer.goes_on()


class TestWellFormed:
    """What must not be refused."""

    ACCEPTED: dict[str, Fields] = {  # noqa: RUF012
        "* with OPTIONS": [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")],
        "CONNECT": [(b":method", b"CONNECT"), (b":authority", b"example.org:443")],
        "pseudo-headers in another order": [PATH, AUTHORITY, SCHEME, METHOD],
        "host alone": [METHOD, SCHEME, PATH, (b"host", b"example.org")],
        "host that agrees": [*GET, (b"host", b"Example.ORG")],
        "neither": [METHOD, SCHEME, PATH],
        "an unknown method": [(b":method", b"PROPFIND"), SCHEME, AUTHORITY, PATH],
        "another scheme": [METHOD, (b":scheme", b"coap+tcp"), AUTHORITY, PATH],
        "a port": [METHOD, SCHEME, (b":authority", b"[::1]:8443"), PATH],
        "a query": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a%20b?c=d&e=/?")],
        "te: trailers": [*GET, (b"te", b"trailers")],
        "an empty value": [*GET, (b"x-empty", b"")],
        "tabs inside": [*GET, (b"x", b"a\tb c")],
        "bytes over 0x7f": [*GET, (b"x", b"\x80\xff")],
        "every token character": [*GET, (b"!#$%&'*+-.^_`|~0a", b"1")],
        "the same field twice": [*GET, (b"x", b"1"), (b"x", b"2")],
        "content-length: 0": [*POST, (b"content-length", b"0")],
        "a colon in a value": [*GET, (b"x", b":path")],
        "trailer": [*GET, (b"trailer", b"x")],
        "http2-settings": [*GET, (b"http2-settings", b"AAMAAABk")],
    }

    @pytest.mark.parametrize("fields", ids(ACCEPTED))
    def test_rfc9113_8_3_accepted(self, fields: Fields) -> None:
        """A request that is unusual but well-formed is delivered as it is."""
        peer = with_sibling()
        peer.ask(3, fields)
        head = peer.app.requests[3]
        assert head.fields == tuple(field for field in fields if field[0][:1] != b":")
        assert head.method.encode() == dict(fields)[b":method"]
        assert head.path.encode() == dict(fields).get(b":path", b"")
        authority = dict(fields).get(b":authority", dict(fields).get(b"host", b""))
        assert head.authority.encode() == authority
        peer.goes_on()

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_rfc9113_8_2_3_cookies_are_joined(self, count: int) -> None:
        """Cookie fields are one, joined by `; ` in their order."""
        peer = with_sibling()
        crumbs = [(b"cookie", b"c%d=%d" % (n, n)) for n in range(count)]
        peer.ask(3, [*GET, *crumbs[:1], MARK, *crumbs[1:]])
        cookies = [value for name, value in peer.app.requests[3].fields if name == b"cookie"]
        assert cookies == [b"; ".join(value for _, value in crumbs)]
        assert MARK in peer.app.requests[3].fields
        peer.goes_on()

    def test_rfc9113_8_3_1_host_is_not_the_target(self) -> None:
        """With an empty `:authority`, another host is still another."""
        refused(
            with_sibling(), [METHOD, SCHEME, (b":authority", b""), PATH, (b"host", b"example.com")]
        )

    def test_rfc9113_8_1_trailers_without_end(self) -> None:
        """A second header section that does not end the stream is malformed."""
        peer = with_sibling()
        peer.ask(3, POST, end=False)
        out = peer.send(headers(3, peer.block([MARK]), end=False))
        assert peer.app.ended == []
        peer.is_stream_error(out, 3, ErrorCodes.PROTOCOL_ERROR)

    def test_rfc9113_8_1_empty_trailers(self) -> None:
        """Trailers may be empty."""
        peer = with_sibling()
        peer.ask(3, POST, end=False)
        peer.send(headers(3, b""))
        assert peer.app.ended == [3]
        peer.goes_on()

    def test_rfc9113_8_6_upgrade_is_not_done(self) -> None:
        """HTTP/2 upgrades to nothing: the fields of it make a request malformed."""
        refused(with_sibling(), [*GET, (b"connection", b"upgrade"), (b"upgrade", b"websocket")])

    def test_rfc9113_8_2_field_seen_before(self) -> None:
        """A field's fault is found again each time, and a good one stays good."""
        for _ in range(2):
            refused(with_sibling(), [*GET, (b"x-good", b"1"), (b"x", b"bad ")])
        peer = with_sibling()
        peer.ask(3, [*GET, (b"x-good", b"1"), (b"x", b"bad")])
        assert 3 in peer.app.requests


class TestResponses:
    """Section 8.1: how a response goes."""

    def test_rfc9113_8_1_interim_responses(self) -> None:
        """Interim responses come before the final one and do not end the stream."""
        peer = Peer("hold")
        peer.ask(1)
        stream = peer.app.streams[1]
        for status in (b"100", b"103", b"103"):
            peer.conn.send_interim(stream, plain([(b":status", status)]))
        assert not stream.started
        out = [*peer.flush(), *peer.answer(1)]
        assert [f.end for f in out if isinstance(f, HeadersFrame)] == [False] * 4
        statuses = [dict(section)[b":status"] for section in peer.got(1).sections]
        assert statuses == [b"100", b"103", b"103", b"200"]
        assert peer.got(1).complete

    def test_rfc9113_8_1_response_without_content(self) -> None:
        """A response may end with its HEADERS."""
        peer = Peer("hold")
        peer.ask(1)
        peer.conn.send_headers(peer.app.streams[1], OK, end=True)
        (out,) = peer.flush()
        assert isinstance(out, HeadersFrame) and out.end
        assert peer.app.sent == [1] and not peer.conn.streams

    def test_rfc9113_8_1_trailers_of_a_response(self) -> None:
        """Trailers come after the content and end the stream."""
        peer = Peer("hold")
        peer.ask(1)
        stream = peer.app.streams[1]
        peer.conn.send_headers(stream, OK)
        peer.conn.send_data(stream, b"abc")
        peer.conn.send_data(stream, b"def", trailers=plain([(b"x-sum", b"1")]))
        out = peer.flush()
        ends = [f.end for f in out if isinstance(f, HeadersFrame | DataFrame)]
        assert ends == [False, False, False, True]
        assert peer.got(1).content == b"abcdef" and peer.got(1).complete

    @pytest.mark.parametrize("way", ["headers", "data", "empty data", "trailers"])
    def test_rfc9113_8_1_early_response(self, way: str) -> None:
        """A complete response to an incomplete request is followed by RST_STREAM(NO_ERROR)."""
        peer = with_sibling()
        peer.ask(3, POST, end=False)
        stream = peer.app.streams[3]
        peer.conn.send_headers(stream, OK, end=way == "headers")
        if way == "data":
            peer.conn.send_data(stream, b"abc", end=True)
        elif way == "empty data":
            peer.conn.send_data(stream, b"", end=True)
        elif way == "trailers":
            peer.conn.send_data(stream, b"", trailers=plain([(b"x-sum", b"1")]))
        assert not any(isinstance(frame, RstStreamFrame) for frame in peer.flush())
        assert peer.got(3).complete and peer.app.sent == [3]
        assert peer.tick(LINGER * 0.9) == []
        out = peer.tick(LINGER * 0.2)
        assert [(f.stream_id, f.code) for f in out if isinstance(f, RstStreamFrame)] == [
            (3, ErrorCodes.NO_ERROR)
        ]
        assert peer.app.resets == []
        assert peer.tick(LINGER * 2) == []
        peer.is_stream_error(out, 3, ErrorCodes.NO_ERROR)

    @pytest.mark.parametrize("way", ["data", "trailers", "trailers in pieces", "rst_stream"])
    def test_rfc9113_8_1_early_response_and_the_requests_end(self, way: str) -> None:
        """A peer that is through by then is not told to stop: its stream is closed."""
        peer = with_sibling()
        peer.ask(3, POST, end=False)
        peer.answer(3)
        block = peer.block([MARK]) if way.startswith("trailers") else b""
        ends = {
            "data": data(3, b"rest", end=True),
            "trailers": headers(3, block),
            "trailers in pieces": headers(3, block[:1], end_headers=False)
            + continuation(3, block[1:]),
            "rst_stream": rst_stream(3),
        }
        assert peer.send(ends[way]) == []
        assert peer.tick(LINGER * 1.1) == []
        peer.goes_on()

    @pytest.mark.parametrize("way", ["data", "trailers"])
    def test_rfc9113_8_1_response_at_the_last_frame(self, way: str) -> None:
        """A response made while the request's last frame is read needs no RST_STREAM."""

        class Eager(App):
            def on_data(self, stream: Stream, data: bytes) -> None:
                super().on_data(stream, data)
                self.answer(stream)

        peer = Peer(app=Eager("hold" if way == "data" else "reply"))
        peer.ask(1, POST, end=False)
        peer.send(data(1, b"abc", end=True) if way == "data" else headers(1, peer.block([MARK])))
        assert peer.got(1).complete
        assert peer.tick(LINGER * 1.1) == []
        peer.goes_on()

    def test_rfc9113_8_1_many_early_responses(self) -> None:
        """However many requests are answered early, each peer is told to stop once."""
        peer = Peer("hold")
        for number in range(1, 2 * 250, 2):
            peer.ask(number, POST, end=False)
            peer.answer(number)
        peer.tick(LINGER * 1.1)
        assert all(peer.got(n).reset == ErrorCodes.NO_ERROR for n in range(1, 2 * 250, 2))
        peer.goes_on()

    def test_rfc9113_8_1_full_response_needs_no_reset(self) -> None:
        """A response to a request that has ended is not followed by RST_STREAM."""
        peer = Peer("reply")
        peer.ask(1, POST, end=False)
        out = peer.send(data(1, b"abc", end=True))
        assert [type(frame) for frame in out] == [HeadersFrame, DataFrame]
        assert peer.got(1).content == CONTENT and peer.got(1).complete

    def test_rfc9113_5_1_nothing_after_the_end(self) -> None:
        """Whatever is sent on a stream that has ended goes nowhere."""
        peer = Peer("hold")
        peer.ask(1)
        stream = peer.app.streams[1]
        peer.answer(1)
        peer.conn.send_headers(stream, OK)
        peer.conn.send_interim(stream, plain([(b":status", b"103")]))
        peer.conn.send_data(stream, b"more", end=True)
        peer.conn.reset(stream, ErrorCodes.CANCEL)
        assert peer.flush() == [] and peer.conn.queued == 0
        peer.goes_on()
