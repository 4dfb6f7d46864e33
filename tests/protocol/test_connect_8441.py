"""RFC 8441: extended CONNECT, which is how WebSocket comes over HTTP/2."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log import App, Request, Response
from h2log.http2.events import Cause
from h2log.http2.settings import EngineLimits
from h2log.server.certificates import Certificates
from tests.protocol.frames import DataFrame, HeadersFrame, SettingsFrame, data
from tests.protocol.ledger import Fields
from tests.protocol.wire import OK, Peer
from tests.server.wire import DATA, END_STREAM, HEADERS, RST_STREAM, RawClient
from tests.support import Running

ENABLE_CONNECT_PROTOCOL = 0x8
CONNECT: Fields = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":path", b"/chat?room=1"),
    (b":authority", b"example.org"),
    (b"sec-websocket-version", b"13"),
]
ENABLED = EngineLimits(extended_connect=True)


def without(name: bytes) -> Fields:
    """Return the request without one field."""
    return [field for field in CONNECT if field[0] != name]


def instead(name: bytes, value: bytes) -> Fields:
    """Return the request with one value changed."""
    return [(n, value if n == name else v) for n, v in CONNECT]


def connected() -> Peer:
    """Return a peer that has sent an extended CONNECT on stream 1."""
    peer = Peer("hold", limits=ENABLED)
    assert peer.ask(1, CONNECT, end=False) == []
    return peer


@pytest.mark.parametrize("enabled", [True, False])
def test_rfc8441_3_setting(enabled: bool) -> None:
    """ENABLE_CONNECT_PROTOCOL is 1 in the first SETTINGS when it is enabled, and absent else."""
    peer = Peer(limits=EngineLimits(extended_connect=enabled), shake=False)
    [first, *_] = peer.greeting
    assert isinstance(first, SettingsFrame)
    assert dict(first.values).get(ENABLE_CONNECT_PROTOCOL) == (1 if enabled else None)


def test_rfc8441_4_unless_enabled() -> None:
    """Who was not told that it is understood must not send `:protocol`: malformed."""
    peer = Peer("hold")
    peer.is_stream_error(peer.ask(1, CONNECT, end=False), 1, ErrorCodes.PROTOCOL_ERROR)
    assert [(n, cause) for n, _, cause in peer.app.refused] == [(1, Cause.MALFORMED)]
    assert not peer.app.requests or 1 not in peer.app.requests


def test_rfc8441_4_request() -> None:
    """The request is delivered, open, with its protocol, scheme, path and authority."""
    peer = connected()
    head = peer.app.requests[1]
    assert (head.method, head.protocol) == ("CONNECT", "websocket")
    assert (head.scheme, head.path, head.authority) == ("https", "/chat?room=1", "example.org")
    assert head.fields == ((b"sec-websocket-version", b"13"),)
    assert head.fault is None and peer.app.unended == [1]


def test_rfc8441_4_another_protocol() -> None:
    """The protocol is any token; the application decides."""
    peer = Peer("hold", limits=ENABLED)
    peer.ask(1, instead(b":protocol", b"connect-udp"), end=False)
    assert peer.app.requests[1].protocol == "connect-udp"


def test_rfc8441_4_plain_connect_is_as_before() -> None:
    """A CONNECT without `:protocol` still has `:method` and `:authority` alone."""
    peer = Peer("hold", limits=ENABLED)
    peer.ask(1, [(b":method", b"CONNECT"), (b":authority", b"example.org:443")], end=False)
    head = peer.app.requests[1]
    assert (head.method, head.protocol, head.authority) == ("CONNECT", "", "example.org:443")
    frames = peer.ask(3, without(b":protocol"), end=False)
    peer.app.answer(peer.app.streams[1])
    peer.flush()
    peer.is_stream_error(frames, 3, ErrorCodes.PROTOCOL_ERROR)


MALFORMED: dict[str, Fields] = {
    "no scheme": without(b":scheme"),
    "no path": without(b":path"),
    "no authority": without(b":authority"),
    "no method": without(b":method"),
    "GET": instead(b":method", b"GET"),
    "POST": instead(b":method", b"POST"),
    "empty protocol": instead(b":protocol", b""),
    "no token": instead(b":protocol", b"web socket"),
    "two protocols": [CONNECT[1], *CONNECT],
    "protocol after a field": [*without(b":protocol"), CONNECT[1]],
    "empty path": instead(b":path", b""),
    "relative path": instead(b":path", b"chat"),
    "asterisk": instead(b":path", b"*"),
    "connection": [*CONNECT, (b"connection", b"upgrade")],
    "upgrade": [*CONNECT, (b"upgrade", b"websocket")],
    "unknown pseudo-header": [(b":more", b"x"), *CONNECT],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_rfc8441_4_malformed(fields: Fields) -> None:
    """All four other pseudo-headers are required, and the rules for fields are as ever."""
    peer = Peer("hold", limits=ENABLED)
    frames = peer.ask(1, fields, end=False)
    peer.is_stream_error(frames, 1, ErrorCodes.PROTOCOL_ERROR)
    assert [(n, cause) for n, _, cause in peer.app.refused] == [(1, Cause.MALFORMED)]


def test_rfc8441_5_data_both_ways() -> None:
    """DATA goes both ways after 200, a frame when it is said, until each side has ended."""
    peer = connected()
    stream = peer.app.streams[1]
    peer.conn.send_headers(stream, OK)
    [answer] = peer.flush()
    assert isinstance(answer, HeadersFrame) and not answer.end
    for n in range(3):
        peer.send(data(1, b"ping %d" % n))
        assert peer.app.received[1].endswith(b"ping %d" % n)
        peer.conn.send_data(stream, b"pong %d" % n)
        [frame] = peer.flush()
        assert isinstance(frame, DataFrame)
        assert (frame.payload, frame.end) == (b"pong %d" % n, False)
    peer.send(data(1, b"", end=True))
    assert peer.app.ended == [1] and not stream.closed
    peer.conn.send_data(stream, b"bye", end=True)
    [frame] = peer.flush()
    assert isinstance(frame, DataFrame) and frame.end
    assert stream.closed and peer.got(1).content == b"pong 0pong 1pong 2bye"
    peer.goes_on()


def test_rfc8441_5_large_data_obeys_the_windows() -> None:
    """A tunnel's DATA is flow-controlled in both directions (RFC 9113 section 6.9)."""
    peer = connected()
    stream = peer.app.streams[1]
    peer.conn.send_headers(stream, OK)
    peer.conn.send_data(stream, bytes(200_000))
    peer.flush()
    assert len(peer.got(1).content) == 65_535
    for _ in range(40):
        peer.send(data(1, bytes(16_384)))
    assert len(peer.app.received[1]) == 40 * 16_384
    assert peer.conn.error is None


def echo() -> App:
    """Return an application that sends back what comes by an extended CONNECT."""
    app = App()

    @app.route("/echo", methods=("CONNECT",))
    def answer(request: Request) -> Response:
        return Response(request.stream(), headers=[("x-protocol", request.protocol)])

    return app


async def test_a_tunnel_over_tls(certs: Certificates) -> None:
    """A handler that streams both ways gets each piece as it comes, and one line is written."""
    fields = instead(b":path", b"/echo")
    async with (
        Running(echo(), certs, extended_connect=True) as server,
        RawClient.connect(server) as client,
    ):
        client.headers(1, fields, end=False)
        head = client.fields(await client.expect(HEADERS, 1))
        assert (head[":status"], head["x-protocol"]) == ("200", "websocket")
        assert "content-length" not in head
        for text in (b"one", b"two", b"three"):
            client.send(DATA, 0, 1, text)
            assert (await client.expect(DATA, 1)).payload == text
        client.send(DATA, END_STREAM, 1)
        assert (await client.expect(DATA, 1)).flags == END_STREAM
    [line] = server.lines
    assert (line.status, line.path) == (200, "/echo")
    assert server.outcomes == {"COMPLETE": 1}


async def test_no_tunnel_unless_enabled_over_tls(certs: Certificates) -> None:
    """By default the request is MALFORMED, its stream alone is reset."""
    async with Running(echo(), certs) as server, RawClient.connect(server) as client:
        client.headers(1, instead(b":path", b"/echo"), end=False)
        assert (await client.expect(RST_STREAM, 1)).code == ErrorCodes.PROTOCOL_ERROR
        client.get(3, b"/echo")
        assert client.fields(await client.expect(HEADERS, 3))[":status"] == "405"
    assert server.outcomes == {"MALFORMED": 1, "COMPLETE": 1}
