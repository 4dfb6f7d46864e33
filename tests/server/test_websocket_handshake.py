"""The opening handshake: RFC 6455 section 4.2 over HTTP/1.1, RFC 8441 over HTTP/2."""

from __future__ import annotations

import pytest

from h2log.app.asgi import Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.websocket_client import KEY, TEXT, asgi, echo, frame, open_websocket
from tests.server.wire import Answer, Http1Client
from tests.support import Running

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


async def ask(
    client: Http1Client, fields: dict[str, str], *more: str, method: str = "GET"
) -> Answer:
    """Make a request with `fields` and whole lines."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return await client.get("/", *lines, *more, method=method)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connection", "keep-alive , uPGRADE"),
        ("upgrade", "h2c, WebSocket"),
        ("sec-websocket-protocol", "a, b,, c"),
    ],
)
async def test_rfc6455_4_2_1_accepted(name: str, value: str) -> None:
    """Names are compared without case, and lists are lists."""
    async with Running(echo(), None) as server, Http1Client.connect(server) as client:
        answer = await client.get("/", *(f"{n}: {v}" for n, v in {**UPGRADE, name: value}.items()))
        assert answer.status == 101
        assert answer.headers["x-request-id"]
        assert "content-length" not in answer.headers
        assert "transfer-encoding" not in answer.headers


MALFORMED: dict[str, dict[str, str]] = {
    "no key": {"sec-websocket-key": ""},
    "short key": {"sec-websocket-key": "AAAA"},
    "no base64": {"sec-websocket-key": "?" * 24},
    "no version": {"sec-websocket-version": ""},
    "protocols": {"sec-websocket-protocol": "a b"},
    "extension": {"sec-websocket-extensions": "a b"},
    "parameter": {"sec-websocket-extensions": "permessage-deflate; =9"},
    "open quote": {"sec-websocket-extensions": 'permessage-deflate; x="9'},
    "quoted no token": {"sec-websocket-extensions": 'permessage-deflate; x="9 9"'},
}


@pytest.mark.parametrize("changed", MALFORMED.values(), ids=MALFORMED)
async def test_rfc6455_4_2_1_malformed(changed: dict[str, str]) -> None:
    """What is no handshake is 400, and the connection goes on."""
    fields = {name: value for name, value in {**UPGRADE, **changed}.items() if value}
    async with Running(echo(), None) as server, Http1Client.connect(server) as client:
        assert (await ask(client, fields)).status == 400
        assert (await ask(client, UPGRADE)).status == 101
    assert server.outcomes["MALFORMED"] == 1


async def test_rfc6455_4_2_1_two_keys() -> None:
    """A key comes once (RFC 6455 section 11.3.1)."""
    async with Running(echo(), None) as server, Http1Client.connect(server) as client:
        assert (await ask(client, UPGRADE, f"sec-websocket-key: {KEY}")).status == 400


@pytest.mark.parametrize("version", ["8", "0", "014", "13, 8"])
async def test_rfc6455_4_4_version(version: str) -> None:
    """Another version than 13 is 426, with the one that would do."""
    async with Running(echo(), None) as server, Http1Client.connect(server) as client:
        answer = await ask(client, {**UPGRADE, "sec-websocket-version": version})
        assert answer.status == 426
        assert answer.headers["sec-websocket-version"] == "13"
        # What to upgrade to, as every 426 has to say (RFC 9110 section 15.5.22).
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["connection"] == "upgrade"
    assert server.outcomes == {"COMPLETE": 1}


async def _kind(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what kind of request it is."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["type"].encode()})


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({**UPGRADE, "connection": "keep-alive"}, "GET"),
        ({**UPGRADE, "upgrade": "h2c"}, "GET"),
        (UPGRADE, "DELETE"),
    ],
    ids=["connection", "upgrade", "method"],
)
async def test_rfc9110_7_8_no_websocket(fields: dict[str, str], method: str) -> None:
    """What does not ask for a WebSocket is a request: a server may ignore an upgrade."""
    async with Running(asgi(_kind), None) as server, Http1Client.connect(server) as client:
        assert (await ask(client, fields, method=method)).body == b"http"


async def test_bytes_that_come_with_the_handshake(certs: Certificates) -> None:
    """A client that does not wait for the 101 loses nothing (though it should wait)."""
    async with Running(echo(), None) as server, Http1Client.connect(server) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        head = f"GET / HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode()
        client.send(head + frame(TEXT, b"early"))
        assert (await client.answer()).status == 101
        assert await client.reader.readexactly(7) == b"\x81\x05early"


# HTTP/2


async def connect(client: H2Client, *fields: tuple[str, str], end: bool = False) -> int:
    """Make an extended CONNECT; return its status."""
    await client.until(lambda: client.conn.remote_settings.enable_connect_protocol)
    stream = client.send("CONNECT", "/", fields, end=end)
    await client.until(lambda: client.replies[stream].status)
    return client.replies[stream].status


async def test_rfc8441_4_wrong_version(certs: Certificates) -> None:
    """Another version than 13 is 400; there is nothing to upgrade to."""
    async with Running(echo(), certs) as server, H2Client.connect(server) as client:
        fields = (":protocol", "websocket"), ("sec-websocket-version", "12")
        assert await connect(client, *fields) == 400
        assert client.replies[1].headers["sec-websocket-version"] == "13"
        assert await connect(client, (":protocol", "websocket")) == 400


async def test_rfc8441_4_another_protocol(certs: Certificates) -> None:
    """A protocol that is not known is 501 (RFC 9220 section 3), and the connection goes on."""
    async with Running(echo(), certs) as server, H2Client.connect(server) as client:
        assert await connect(client, (":protocol", "connect-udp")) == 501
        fields = (":protocol", "websocket"), ("sec-websocket-version", "13")
        assert await connect(client, *fields) == 200


async def test_rfc8441_5_no_stream(certs: Certificates) -> None:
    """A CONNECT that ends its stream at once can be no WebSocket."""
    async with Running(echo(), certs) as server, H2Client.connect(server) as client:
        fields = (":protocol", "websocket"), ("sec-websocket-version", "13")
        assert await connect(client, *fields, end=True) == 400


@pytest.mark.parametrize("h2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
async def test_answer(certs: Certificates, h2: bool, tls: bool) -> None:
    """The accept is HTTP/1.1's alone (RFC 8441 section 5.1); nothing is chosen unasked."""
    async with (
        Running(echo(), certs if tls else None) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        assert websocket.status == (200 if h2 else 101)
        assert ("sec-websocket-accept" in websocket.headers) == (not h2)
        assert "sec-websocket-protocol" not in websocket.headers
        assert "sec-websocket-extensions" not in websocket.headers
        await websocket.close()
    assert server.outcomes == {"COMPLETE": 1}
