"""WebSockets of an ASGI application: scope, events and their order, and what each line says."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from h2log.app.asgi import Asgi, AsgiApp, Message, Receive, Scope, Send
from h2log.ids import request_id, session_id
from h2log.server.certificates import Certificates
from tests.server.websocket_client import (
    BINARY,
    CLOSE,
    TEXT,
    Frame,
    asgi,
    echoing,
    open_websocket,
)
from tests.support import Running, eventually

ACCEPT: Message = {"type": "websocket.accept"}


@pytest.fixture(params=["http1", "http2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Over which protocol the WebSocket comes."""
    return bool(request.param == "http2")


def then(*messages: Message) -> Asgi:
    """Return an application that sends these after its connect, and returns."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return call


# The scope


async def test_scope(certs: Certificates, h2: bool) -> None:
    """It has what the specification says, and the ids of the log."""
    scopes: list[Any] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append((scope, session_id.get(), request_id.get(), asyncio.current_task()))
        await receive()
        await send(ACCEPT)
        await echoing(receive, send)

    app = AsgiApp(call, "app", root_path="/below", lifespan="off")
    app.state["pool"] = pool = object()
    fields = [("sec-websocket-protocol", "chat, super"), ("sec-websocket-protocol", "chat, v2")]
    async with Running(app, certs) as server:
        async with open_websocket(server, "/a%20b/%C3%A4?x=%20&y", fields, h2=h2) as websocket:
            await websocket.close()
        [record] = await server.logged(1)
        local = server.port
    [(scope, session, request, task)] = scopes
    assert task is not None
    assert (session, request) == (record.session.id, record.id)
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == ("2" if h2 else "1.1")
    assert scope["scheme"] == "wss"
    assert (scope["path"], scope["root_path"]) == ("/below/a b/ä", "/below")
    assert scope["raw_path"] == b"/below/a%20b/%C3%A4"
    assert scope["query_string"] == b"x=%20&y"
    assert scope["headers"][0] == (b"host", b"localhost")
    assert (b"sec-websocket-version", b"13") in scope["headers"]
    assert scope["client"] == (record.session.client, record.session.port)
    assert scope["server"] == ("127.0.0.1", local)
    assert scope["subprotocols"] == ["chat", "super", "v2"]
    assert scope["state"] == {"pool": pool} and scope["state"] is not app.state
    assert "method" not in scope
    extensions = scope["extensions"]
    assert extensions["websocket.http.response"] == {}
    assert not [name for name in extensions if name.startswith("http.")]
    assert extensions["h2log"] == {
        "session_id": record.session.id,
        "request_id": record.id,
        "stream_id": record.stream_id,
    }


async def test_scheme_of_cleartext(h2: bool) -> None:
    """Without TLS it is ws."""
    schemes = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await receive()
        await send({"type": "websocket.close"})

    async with Running(asgi(call), None) as server, open_websocket(server, h2=h2) as websocket:
        assert websocket.status == 403
    assert schemes == ["ws"]


# Accept, or not


async def test_accept_with_everything(certs: Certificates, h2: bool) -> None:
    """The chosen subprotocol and the application's fields are in the answer."""
    fields = [(b"X-Two", b"1"), [b"x-two", b"2"], (b"set-cookie", b"a=b")]
    message = {"type": "websocket.accept", "subprotocol": "v2", "headers": fields}
    wanted = [("sec-websocket-protocol", "v1, v2")]
    async with (
        Running(asgi(then(message)), certs) as server,
        open_websocket(server, fields=wanted, h2=h2) as websocket,
    ):
        assert websocket.headers["sec-websocket-protocol"] == "v2"
        assert websocket.headers["set-cookie"] == "a=b"
        assert websocket.headers["x-two"] == "2"
        assert len(websocket.headers["x-request-id"]) == 32
        [close] = [await websocket.read()]
        assert close == Frame(CLOSE, struct.pack(">H", 1000))
        websocket.send(CLOSE, close.payload)
        assert await websocket.rest() == []
    assert server.outcomes == {"COMPLETE": 1}


async def test_close_before_accept(certs: Certificates, h2: bool) -> None:
    """It is 403; the line is that of a response."""
    message = {"type": "websocket.close", "code": 4000, "reason": "no"}
    async with (
        Running(asgi(then(message)), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        assert websocket.status == 403
    assert server.outcomes == {"COMPLETE": 1}
    assert server.records[0].status == 403


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_denial_response(certs: Certificates, h2: bool, pieces: int) -> None:
    """The application may answer with a response of its own, whole or in pieces."""
    kind = "websocket.http.response"
    start = {"type": f"{kind}.start", "status": 401, "headers": [(b"x-why", b"who?")]}
    bodies: list[Message] = [
        {"type": f"{kind}.body", "body": b"piece", "more_body": True} for _ in range(pieces)
    ]
    async with (
        Running(asgi(then(start, *bodies, {"type": f"{kind}.body"})), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        assert (websocket.status, websocket.headers["x-why"]) == (401, "who?")
        assert websocket.body == b"piece" * pieces
    assert server.outcomes == {"COMPLETE": 1}
    assert (server.records[0].status, server.records[0].sent) == (401, 5 * pieces)


UNFINISHED: dict[str, tuple[Asgi, int]] = {
    "nothing": (then(), 500),
    "denial without content": (then({"type": "websocket.http.response.start", "status": 401}), 500),
}


@pytest.mark.parametrize(("call", "status"), UNFINISHED.values(), ids=UNFINISHED)
async def test_unfinished(
    certs: Certificates, h2: bool, call: Asgi, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that returns without an answer is 500, and told so."""
    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        assert websocket.status == status
    assert server.outcomes == {"HANDLER_ERROR": 1}
    assert "the application returned from" in caplog.text


async def test_raised_before_accept(
    certs: Certificates, h2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is 500, its line says HANDLER_ERROR, and the traceback is in the log with the ids."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no room")

    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, "/x?token=secret", h2=h2) as websocket,
    ):
        assert websocket.status == 500
        assert server.records[0].id in websocket.body.decode()
    assert server.outcomes == {"HANDLER_ERROR": 1}
    [told] = [record for record in caplog.records if record.name == "h2log.app"]
    assert "no room" in caplog.text and "secret" not in told.getMessage()
    assert told.__dict__["request_id"] == server.records[0].id


async def test_raised_after_accept(
    certs: Certificates, h2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It closes with 1011, and its line says HANDLER_ERROR."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise LookupError("no room")

    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, b"boom")
        [close] = await websocket.rest()
        assert close == Frame(CLOSE, struct.pack(">H", 1011))
    assert server.outcomes == {"HANDLER_ERROR": 1}
    assert "LookupError: no room" in caplog.text


async def test_raised_inside_a_denial(certs: Certificates, h2: bool) -> None:
    """A denial that has begun is cut off, so that the client sees that it is not complete."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})
        message = {"type": "websocket.http.response.body", "body": b"some", "more_body": True}
        await send(message)
        raise LookupError

    async with Running(asgi(call), certs) as server:
        with pytest.raises((EOFError, AssertionError)):
            async with open_websocket(server, h2=h2) as websocket:
                assert websocket.body == b"some, and more"
        await server.logged(1)
    assert server.outcomes == {"HANDLER_ERROR": 1}


# The order of events

MORE_BODY: Message = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
DENY: Message = {"type": "websocket.http.response.start", "status": 401}
ORDER: dict[str, tuple[list[Message], str]] = {
    "send first": ([{"type": "websocket.send", "text": "x"}], "expected 'websocket.accept'"),
    "body first": ([MORE_BODY], "expected 'websocket.accept'"),
    "accept twice": ([ACCEPT, ACCEPT], "expected 'websocket.send' or 'websocket.close'"),
    "denial after accept": ([ACCEPT, DENY], "expected 'websocket.send'"),
    "accept after denial": ([DENY, ACCEPT], "expected 'websocket.http.response.body'"),
    "close inside denial": ([DENY, MORE_BODY, {"type": "websocket.close"}], "expected"),
    "http": ([{"type": "http.response.start", "status": 200}], "expected 'websocket.accept'"),
}


async def outcome_of(server: Running, tries: Callable[[], Awaitable[None]]) -> None:
    await tries()
    await server.logged(1)


@pytest.mark.parametrize(("messages", "text"), ORDER.values(), ids=ORDER)
async def test_order(messages: list[Message], text: str) -> None:
    """A message out of order is the application's mistake: RuntimeError, which says what fits."""
    raised: list[Exception] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await then(*messages)(scope, receive, send)
        except RuntimeError as error:
            raised.append(error)
            raise

    async with Running(asgi(call), None) as server:
        try:
            async with open_websocket(server) as websocket:
                if websocket.status == 101:
                    assert [found.code for found in await websocket.rest()] == [1011]
        except EOFError:  # the denial was cut off
            pass
        await server.logged(1)
    assert server.outcomes == {"HANDLER_ERROR": 1}
    assert text in str(raised[0])


VALUES: dict[str, tuple[list[Message], type[Exception], str]] = {
    "both contents": (
        [ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"x"}],
        TypeError,
        "one of them",
    ),
    "no content": ([ACCEPT, {"type": "websocket.send"}], TypeError, "one of them"),
    "bytes as text": ([ACCEPT, {"type": "websocket.send", "text": b"x"}], TypeError, "not bytes"),
    "code 1005": ([ACCEPT, {"type": "websocket.close", "code": 1005}], ValueError, "1005"),
    "code 1006": ([ACCEPT, {"type": "websocket.close", "code": 1006}], ValueError, "1006"),
    "code 999": ([ACCEPT, {"type": "websocket.close", "code": 999}], ValueError, "999"),
    "code 5000": ([ACCEPT, {"type": "websocket.close", "code": 5000}], ValueError, "5000"),
    "subprotocol": ([{**ACCEPT, "subprotocol": "chat"}], ValueError, "not offered"),
    "subprotocol field": (
        [{**ACCEPT, "headers": [(b"Sec-WebSocket-Protocol", b"chat")]}],
        ValueError,
        "use the key subprotocol",
    ),
    "two lines": ([{**ACCEPT, "headers": [(b"x", b"a\r\nb: c")]}], ValueError, "invalid value"),
    "text fields": ([{**ACCEPT, "headers": [("x", "y")]}], TypeError, "bytes"),
    "denial with 101": ([{**DENY, "status": 101}], ValueError, "from 200"),
    "denial too long": (
        [{**DENY, "headers": [(b"content-length", b"0")]}, MORE_BODY],
        ValueError,
        "more content",
    ),
}


@pytest.mark.parametrize(("messages", "kind", "text"), VALUES.values(), ids=VALUES)
async def test_values(messages: list[Message], kind: type[Exception], text: str) -> None:
    """What cannot be sent raises, with a text that names it."""
    raised: list[Exception] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await then(*messages)(scope, receive, send)
        except Exception as error:
            raised.append(error)
            raise

    async with Running(asgi(call), None) as server:
        async with open_websocket(server) as websocket:
            if websocket.status == 101:
                assert [found.code for found in await websocket.rest()] == [1011]
            else:
                assert websocket.status == 500
        await server.logged(1)
    assert server.outcomes == {"HANDLER_ERROR": 1}
    assert type(raised[0]) is kind and text in str(raised[0])


# Messages, and the end


async def test_messages(certs: Certificates, h2: bool) -> None:
    """A text comes as text and bytes as bytes, and both can be sent as what Python has for them."""
    got: list[Message] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        got.append(await receive())
        got.append(await receive())
        await send({"type": "websocket.send", "text": "ä", "bytes": None})
        await send({"type": "websocket.send", "bytes": bytearray(b"\xff")})
        await send({"type": "websocket.send", "bytes": memoryview(b"\xfe")})
        got.append(await receive())
        got.append(await receive())

    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(TEXT, "µ".encode())
        websocket.send(BINARY, b"\x00")
        answers = [await websocket.read() for _ in range(3)]
        assert answers == [Frame(TEXT, b"\xc3\xa4"), Frame(BINARY, b"\xff"), Frame(BINARY, b"\xfe")]
        assert (await websocket.close(3001, b"enough")).code == 3001
        await eventually(lambda: len(got) == 4)
    disconnect = {"type": "websocket.disconnect", "code": 3001, "reason": "enough"}
    assert got == [
        {"type": "websocket.receive", "text": "µ"},
        {"type": "websocket.receive", "bytes": b"\x00"},
        disconnect,
        disconnect,
    ]
    [record] = server.records
    assert record.received > 0 and record.sent > 0 and record.milliseconds > 0


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(b"", 1005, ""), (b"\x03\xe8", 1000, ""), (b"\x0f\xa0no", 4000, "no")],
)
async def test_disconnect(h2: bool, payload: bytes, code: int, reason: str) -> None:
    """The disconnect has the client's code and reason, 1005 without one; then send raises."""
    ends: list[Any] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        ends.append(await receive())
        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            with pytest.raises(OSError, match="closed"):
                await send(message)
        await send({"type": "websocket.send", "text": "x"})

    async with Running(asgi(call), None) as server, open_websocket(server, h2=h2) as websocket:
        websocket.send(CLOSE, payload)
        assert await websocket.rest() == [Frame(CLOSE, payload[:2])]
    assert ends == [{"type": "websocket.disconnect", "code": code, "reason": reason}]
    assert server.outcomes == {"COMPLETE": 1}


async def test_close_by_the_application(
    certs: Certificates, h2: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its code and a reason of 123 bytes go out, the client answers, and that is all."""
    seen: list[Any] = []

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4001, "reason": "ä" * 100})
        seen.append(await receive())
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "x"})
        await send({"type": "websocket.close"})

    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        close = await websocket.read()
        assert (close.opcode, close.code, close.reason) == (CLOSE, 4001, "ä" * 61)
        websocket.send(TEXT, b"not heard any more")
        websocket.send(CLOSE, close.payload[:2])
        assert await websocket.rest() == []
    assert seen == [{"type": "websocket.disconnect", "code": 4001, "reason": "ä" * 100}]
    assert server.outcomes == {"COMPLETE": 1}
    assert not caplog.records, "what an absent peer makes an application raise is no news"


async def test_starlettes_disconnect_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that says that the client has gone is nothing to tell; any other is."""

    class WebSocketDisconnect(Exception):  # noqa: N818 - as Starlette calls it
        pass

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise LookupError("in the end") if scope["path"] == "/other" else WebSocketDisconnect(1000)

    async with Running(asgi(call), None) as server:
        async with open_websocket(server) as websocket:
            await websocket.close()
        assert not caplog.records
        async with open_websocket(server, "/other") as websocket:
            await websocket.close()
            await eventually(lambda: caplog.records)
    assert "in the end" in caplog.text
    assert server.outcomes == {"COMPLETE": 2}


async def test_receive_and_send_side_by_side(certs: Certificates, h2: bool) -> None:
    """One task may wait for messages while another sends."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)

        async def count() -> None:
            for n in range(100):
                await send({"type": "websocket.send", "text": str(n)})

        await asyncio.gather(echoing(receive, send), count(), return_exceptions=True)

    async with (
        Running(asgi(call), certs) as server,
        open_websocket(server, h2=h2) as websocket,
    ):
        websocket.send(BINARY, b"mine")
        frames = [await websocket.read() for _ in range(101)]
        assert [f.payload for f in frames if f.opcode == TEXT] == [b"%d" % n for n in range(100)]
        assert [f.payload for f in frames if f.opcode == BINARY] == [b"mine"]
        await websocket.close()
