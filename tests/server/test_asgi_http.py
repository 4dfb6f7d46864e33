"""ASGI's HTTP messages, as the specification (2.5) has them, over HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from h2log import ids
from h2log.access.record import Outcome
from h2log.app.asgi import Asgi, Message, Receive, Scope, Send
from h2log.server.asgi_files import PathFiles
from h2log.server.certificates import Certificates
from tests.server.asgi_apps import TEXT, body, connected, hello, running, start, whole_body
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import eventually


@pytest.fixture(params=["h2", "1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Return each protocol in turn."""
    found: str = request.param
    return found


async def test_a_whole_response(certs: Certificates, protocol: str) -> None:
    """Status, fields and content arrive, with the ids of the line."""
    async with running(hello, certs) as server:
        async with connected(server, protocol) as client:
            answer = await client.ask("/a?b=c")
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/plain"
            assert answer.headers["content-length"] == "5"
            assert answer.content == b"hello"
        await eventually(lambda: server.records)
        [line] = server.lines
        assert answer.headers["x-request-id"] == line.request
        assert (line.status, line.path, line.version) == (200, "/a?b=c", protocol)
        assert server.records[0].outcome is Outcome.COMPLETE
        assert server.records[0].sent == 5


async def test_the_scope(certs: Certificates, protocol: str) -> None:
    """A scope has what the specification lists, and the ids of the log."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await hello(scope, receive, send)

    async with running(app, certs) as server:
        async with connected(server, protocol) as client:
            await client.ask("/caf%C3%A9/%2F?q=%20")
        [scope] = seen
        await eventually(lambda: server.records)
        [record] = server.records
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert scope["http_version"] == {"h2": "2", "1.1": "1.1"}[protocol]
        assert scope["method"] == "GET"
        assert scope["scheme"] == "https"
        assert scope["path"] == "/café//"
        assert scope["raw_path"] == b"/caf%C3%A9/%2F"
        assert scope["query_string"] == b"q=%20"
        assert scope["root_path"] == ""
        assert scope["headers"][0] == (b"host", b"localhost")
        assert all(not name.startswith(b":") for name, _ in scope["headers"])
        assert scope["client"] == (record.session.client, record.session.port)
        assert scope["server"] == ("127.0.0.1", server.port)
        assert scope["state"] == {}
        assert scope["extensions"]["h2log"] == {
            "session_id": record.session.id,
            "request_id": record.id,
            "stream_id": record.stream_id,
        }
        assert {"http.response.trailers", "http.response.early_hint", "http.response.pathsend"} < {
            *scope["extensions"]
        }


async def test_scopes_are_each_requests_own(certs: Certificates, protocol: str) -> None:
    """What an application changes in one request's scope is not in the next one's."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(f"{len(scope['headers'])} {sorted(scope['state'])} {scope['path']}")
        scope["headers"].append((b"x", b"y"))
        scope["state"]["more"] = 1
        scope["extensions"]["more"] = {}
        scope["path"] = "/changed"
        await hello(scope, receive, send)

    async with running(app, certs) as server, connected(server, protocol) as client:
        await client.ask()
        await client.ask()
    assert seen[0] == seen[1]


async def test_root_path(certs: Certificates, protocol: str) -> None:
    """The path begins with the root path, as frameworks expect that take it off."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        text = f"{scope['root_path']} {scope['path']} {scope['raw_path'].decode()}"
        await start(send, 200)
        await body(send, text.encode())

    server = running(app, certs, root_path="/api/")
    async with server, connected(server, protocol) as client:
        assert (await client.ask("/x")).content == b"/api /api/x /api/x"


async def test_content_comes_in_pieces_and_ends(certs: Certificates, protocol: str) -> None:
    """`receive` gives all of the content, and says which piece is the last."""
    content = bytes(range(256)) * 2000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got = await whole_body(receive)
        await start(send, 200)
        await body(send, b"%d %d" % (len(got), got == content))

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask("/", "POST", content)).content == b"512000 1"
        assert server.shared.asgi is not None


async def test_a_request_without_content_has_one_empty_piece(
    certs: Certificates, protocol: str
) -> None:
    """The first message is the whole, empty content; the next one the end of the response."""
    after: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await hello(scope, receive, send)
        after.append(await receive())

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).status == 200
        await eventually(lambda: after)
    assert after == [{"type": "http.disconnect"}]


async def test_content_is_flow_controlled_by_receive(certs: Certificates) -> None:
    """While an application does not ask, a client cannot send more than a window."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        got = await whole_body(receive)
        await start(send, 200)
        await body(send, b"%d" % len(got))

    server = running(app, certs, stream_window=65_536)
    async with server, H2Client.connect(server) as client:
        stream = client.send("POST", "/", end=False)
        await client.read()
        sending = asyncio.ensure_future(client.send_body(stream, bytes(200_000)))
        await eventually(lambda: client.conn.local_flow_control_window(stream) == 0)
        assert not sending.done()
        go.set()
        await sending
        assert (await client.reply(stream)).body == b"200000"


async def test_send_waits_for_the_window(certs: Certificates) -> None:
    """`await send` returns only when there is room for more."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        for number in range(100):
            await body(send, bytes(16_384), more=True)
            sent.append(number)
        await body(send)

    async with running(app, certs) as server:
        async with H2Client.connect(server, window=65_535, credit=False) as client:
            stream = client.send("GET", "/")
            await client.until(lambda: len(client.replies[stream].body) == 65_535)
            assert len(sent) < 12
            client.reset(stream)
            await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.CLIENT_RESET
        assert len(sent) < 12


async def test_streaming(certs: Certificates, protocol: str) -> None:
    """Pieces arrive as they are sent, before the response is complete."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await body(send, b"one", more=True)
        await go.wait()
        await body(send, b"two", more=True)
        await body(send, b"")

    async with running(app, certs) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                stream = client.send("GET", "/")
                await client.until(lambda: client.replies[stream].body == b"one")
                go.set()
                assert (await client.reply(stream)).body == b"onetwo"
        else:
            async with connected(server, protocol) as asked:
                go.set()
                assert (await asked.ask()).content == b"onetwo"


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_without_content(certs: Certificates, protocol: str, status: int) -> None:
    """204 and 304 have no content, whatever an application sends (RFC 9110 section 6.4.1)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, status)
        await body(send, b"unwanted")

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).content == b""
        assert (await client.ask()).status == status
        await eventually(lambda: len(server.records) == 2)
        assert {record.sent for record in server.records} == {0}


async def test_head(certs: Certificates, protocol: str) -> None:
    """HEAD has the fields of GET and no content."""
    async with running(hello, certs) as server, connected(server, protocol) as client:
        answer = await client.ask("/", "HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "5")
        assert answer.content == b""
        assert (await client.ask()).content == b"hello"


async def test_a_streamed_head(certs: Certificates, protocol: str) -> None:
    """HEAD has no content either when it is sent in pieces."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, TEXT)
        await body(send, b"a", more=True)
        await body(send, b"b")

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask("/", "HEAD")).content == b""
        assert (await client.ask()).content == b"ab"


# What goes wrong


async def _raise_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("at once")


async def _raise_behind_start(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200)
    raise KeyError("behind start")


async def _return_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def _return_behind_start(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200)


async def _body_first(scope: Scope, receive: Receive, send: Send) -> None:
    await body(send, b"x")


async def _two_starts(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await start(send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.nonsense"})


async def _too_much(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"content-length", b"3"))
    await body(send, b"four")


async def _too_little(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"content-length", b"3"))
    await body(send, b"xy")


async def _bad_header(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, (b"x", b"1\r\nset-cookie: a=b"))
    await body(send)


async def _text_header(scope: Scope, receive: Receive, send: Send) -> None:
    fields: Any = [("x", "y")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def _interim_status(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 103)


async def _text_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": "text"})


WRONG: dict[str, tuple[Asgi, str]] = {
    "raises": (_raise_at_once, "at once"),
    "raises behind start": (_raise_behind_start, "behind start"),
    "returns": (_return_at_once, "without a http.response.start"),
    "returns behind start": (_return_behind_start, "without a http.response.body"),
    "body first": (_body_first, "expected 'http.response.start', got 'http.response.body'"),
    "two starts": (_two_starts, "expected 'http.response.body', got 'http.response.start'"),
    "unknown": (_unknown, "got 'http.response.nonsense'"),
    "too much": (_too_much, "more content than the content-length of 3"),
    "too little": (_too_little, "2 bytes of content, not its content-length of 3"),
    "bad header": (_bad_header, "invalid value of the header field x"),
    "text header": (_text_header, "a header field is a pair of bytes"),
    "interim status": (_interim_status, "from 200 to 599"),
    "text body": (_text_body, "the body is str, expected bytes"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_before_content_a_fault_is_500(
    certs: Certificates, protocol: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault before any content is a 500, its line HANDLER_ERROR, and the log says what it was."""
    app, text = WRONG[name]
    async with running(app, certs) as server, connected(server, protocol) as client:
        answer = await client.ask()
        assert answer.status == 500
        assert "behind" not in answer.content.decode()
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.HANDLER_ERROR
        assert server.lines[0].status == 500
    assert text in caplog.text
    [told] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert told.__dict__["request_id"] == server.records[0].id


async def test_behind_content_a_fault_resets(certs: Certificates) -> None:
    """A fault after the response has begun is a RST_STREAM of INTERNAL_ERROR."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await body(send, b"some", more=True)
        raise KeyError("late")

    async with running(app, certs) as server:
        async with H2Client.connect(server) as client:
            reply = await client.reply(client.send("GET", "/"))
            assert (reply.status, reply.reset) == (200, 2)
        assert server.records[0].outcome is Outcome.HANDLER_ERROR
        assert server.lines[0].status == 200


async def test_behind_content_a_fault_cuts_http1(certs: Certificates) -> None:
    """In HTTP/1.1 the connection is closed before the last chunk."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await body(send, b"some", more=True)
        raise KeyError("late")

    async with running(app, certs) as server:
        async with Http1Client.connect(server) as client:
            client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            got = await client.rest()
            assert not got.endswith(b"0\r\n\r\n")
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.HANDLER_ERROR


async def test_after_the_response_a_fault_is_told_alone(
    certs: Certificates, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails behind a complete response is logged; the line is that of the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        raise KeyError("in the background")

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).status == 200
        await eventually(lambda: "in the background" in caplog.text)
        assert server.records[0].outcome is Outcome.COMPLETE


async def test_sending_more_than_the_response(certs: Certificates, protocol: str) -> None:
    """A message behind the last one raises, with a text that says so."""
    raised: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        try:
            await body(send, b"more")
        except RuntimeError as error:
            raised.append(error)

    async with running(app, certs) as server, connected(server, protocol) as client:
        await client.ask()
        await eventually(lambda: raised)
    assert "the response is complete" in str(raised[0])


# The client goes


async def test_disconnect(
    certs: Certificates, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`receive` says that the client is gone, `send` raises OSError; nothing of it is an error."""
    seen: list[object] = []
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        began.set()
        seen.append(await receive())
        try:
            await start(send, 200)
            await body(send, b"x")
        except OSError as error:
            seen.append(error)
            raise

    async with running(app, certs) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                stream = client.send("GET", "/")
                await began.wait()
                client.reset(stream)
                await eventually(lambda: len(seen) == 2)
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                await began.wait()
            await eventually(lambda: len(seen) == 2)
        outcome = Outcome.CLIENT_RESET if protocol == "h2" else Outcome.PEER_LOST
        assert server.records[0].outcome is outcome
    assert seen[0] == {"type": "http.disconnect"}
    assert isinstance(seen[1], OSError)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_an_upload_that_is_cut(certs: Certificates) -> None:
    """A client that goes while it sends is `http.disconnect` for who waits for the content."""
    seen: list[Message] = []
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        began.set()
        while (message := await receive())["type"] == "http.request":
            seen.append(message)
        seen.append(message)

    async with running(app, certs) as server:
        async with H2Client.connect(server) as client:
            stream = client.send("POST", "/", end=False)
            await client.send_body(stream, b"some", end=False)
            await began.wait()
            client.abort()
            await eventually(lambda: seen[-1] == {"type": "http.disconnect"})
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.PEER_LOST
        assert server.records[0].received == 4


@pytest.mark.parametrize(
    ("method", "status", "length", "outcome"),
    [
        ("GET", 200, b"5", Outcome.COMPLETE),
        ("GET", 200, b"6", Outcome.PEER_LOST),
        ("GET", 200, None, Outcome.PEER_LOST),
        ("GET", 304, None, Outcome.COMPLETE),
        ("HEAD", 200, None, Outcome.COMPLETE),
    ],
)
async def test_a_client_that_has_all_may_leave(
    certs: Certificates,
    protocol: str,
    method: str,
    status: int,
    length: bytes | None,
    outcome: Outcome,
) -> None:
    """The header has told it that nothing more comes, before the application said so."""
    content = b"hello" if (method, status) == ("GET", 200) else b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, status, *([] if length is None else [(b"content-length", length)]))
        await body(send, b"hello", more=True)
        while (await receive())["type"] != "http.disconnect":
            pass

    async with running(app, certs) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                stream = client.send(method, "/")
                reply = client.replies[stream]
                await client.until(lambda: reply.status and reply.body == content)
                assert (reply.status, reply.ended) == (status, False)
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(f"{method} / HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
                section = await plain.reader.readuntil(b"\r\n\r\n")
                assert b" %d " % status in section
                if content:
                    await plain.reader.readuntil(content)  # perhaps a chunk
        await server.logged(1)
    assert server.records[0].outcome is outcome


async def test_a_client_that_leaves_while_the_end_is_sent(protocol: str) -> None:
    """It has all: that the end behind it goes nowhere is nothing to it."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"content-length", b"5"))
        await body(send, b"hello", more=True)
        await go.wait()
        await body(send)

    async with running(app, None) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                stream = client.send("GET", "/")
                await client.until(lambda: client.replies[stream].body == b"hello")
                client.abort()
                go.set()
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                await plain.reader.readuntil(b"hello")
                plain.writer.transport.abort()
                go.set()
        await server.logged(1)
    assert server.records[0].outcome is Outcome.COMPLETE


async def test_the_call_goes_on_when_the_client_is_gone(certs: Certificates) -> None:
    """An application is told of a client's end and not cancelled: it may have work to finish."""
    done = asyncio.Event()
    go = asyncio.Event()
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await go.wait()
        done.set()

    async with running(app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/")
        await began.wait()
        client.reset(stream)
        await eventually(lambda: server.records)
        go.set()
        await asyncio.wait_for(done.wait(), 5)


# Limits


async def test_too_large_content(certs: Certificates, protocol: str) -> None:
    """Content beyond the limit is 413; the application is told that its client is gone."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                break
            if not message["more_body"]:
                break

    async with running(app, certs, max_body_bytes=1000) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                stream = client.send("POST", "/", end=False)
                await client.send_body(stream, bytes(3000))
                assert (await client.reply(stream)).status == 413
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(
                    b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
                    b"bb8\r\n" + bytes(3000) + b"\r\n0\r\n\r\n"
                )
                assert (await plain.answer()).status == 413
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.COMPLETE
    assert seen[-1] == "http.disconnect"


async def test_content_that_does_not_come(certs: Certificates, protocol: str) -> None:
    """A client that keeps the application waiting for its content is answered 408: TIMEOUT."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    async with running(app, certs, body_timeout=0.2) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                assert (await client.reply(client.send("POST", "/", end=False))).status == 408
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n")
                assert (await plain.answer()).status == 408
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.TIMEOUT
    assert seen == ["http.disconnect"]


async def test_connect_is_not_the_applications(certs: Certificates) -> None:
    """CONNECT asks for a proxy, which nobody here is: 501."""
    async with running(hello, certs) as server, H2Client.connect(server, check=False) as client:
        stream = client.conn.get_next_available_stream_id()
        client.conn.send_headers(
            stream, [(":method", "CONNECT"), (":authority", "localhost:1")], end_stream=True
        )
        from tests.server.h2_client import Reply

        client.replies[stream] = Reply()
        client.flush()
        assert (await client.reply(stream)).status == 501


# Extensions


async def test_trailers(certs: Certificates, protocol: str) -> None:
    """Announced trailers follow the content where the client can take them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"trailer", b"x-sum"), trailers=True)
        await body(send, b"abc")
        await send(
            {"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True}
        )
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"294")]})

    async with running(app, certs) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                reply = await client.reply(client.send("GET", "/"))
                assert bytes(reply.body) == b"abc"
                assert reply.trailers == [("x-a", "1"), ("x-sum", "294")]
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n\r\n")
                got = await plain.answer()
                assert got.body == b"abc"
                assert b"x-sum: 294" in got.trailers
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.COMPLETE


async def test_early_hints(certs: Certificates) -> None:
    """An early hint is a 103 before the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await hello(scope, receive, send)

    async with running(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.reply(client.send("GET", "/"))
        assert (reply.interim, reply.status) == ([103], 200)


@pytest.mark.parametrize("size", [0, 10, 300_000])
async def test_pathsend(certs: Certificates, protocol: str, size: int, tmp_path: Path) -> None:
    """A file that is named is the content; one that has changed is another one."""
    file = tmp_path / "file"
    file.write_bytes(b"a" * size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"content-length", b"%d" % file.stat().st_size))
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with running(app, certs) as server, connected(server, protocol) as client:
        for _ in range(2):
            assert (await client.ask()).content == b"a" * size
        assert (await client.ask("/", "HEAD")).content == b""
        await eventually(lambda: len(server.records) == 3)
        assert [record.sent for record in server.records] == [size, size, 0]


async def test_pathsend_of_what_was_just_written(certs: Certificates, tmp_path: Path) -> None:
    """The application's own change is seen, one of the same size in the same moment, too."""
    file = tmp_path / "file"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/old":
            os.utime(file, (0, 0))
        else:
            file.write_bytes(scope["raw_path"])
        length = (b"content-length", b"%d" % file.stat().st_size)
        await start(send, 200, length)
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with running(app, certs) as server, H2Client.connect(server) as client:
        for path in ("/aa", "/bb", "/longer", "/old", "/old", "/short", "/old", "/SHORT"):
            reply = await client.get(path)
            assert reply.status == 200
            if path != "/old":
                written = path.encode()
            assert reply.body == written


async def test_pathsend_keeps_small_files(tmp_path: Path) -> None:
    """Those that were not changed just now, as long as they are the same."""
    files, file = PathFiles(1 << 20), tmp_path / "file"
    file.write_bytes(b"small")
    assert await files.find(str(file)) == b"small"
    assert files.kept(str(file)) is None
    os.utime(file, (0, 0))
    assert await files.find(str(file)) == b"small"
    assert files.kept(str(file)) == b"small"
    file.write_bytes(b"other")
    assert files.kept(str(file)) is None
    file.unlink()
    assert files.kept(str(file)) is None


async def test_pathsend_of_nothing(
    certs: Certificates, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is not there is the application's fault: 500, and the log says which."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await send({"type": "http.response.pathsend", "path": "/nowhere/at/all"})

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).status == 500
    assert "cannot send /nowhere/at/all: No such file or directory" in caplog.text


# asyncio


async def test_the_call_is_a_task_with_the_ids(certs: Certificates, protocol: str) -> None:
    """`current_task` is set, asyncio is what is seen, and the context has the ids of the line."""
    seen: list[tuple[object, str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            seen.append((asyncio.current_task(), ids.session_id.get(), ids.request_id.get()))

        await child()
        await asyncio.create_task(child())
        await hello(scope, receive, send)

    async with running(app, certs) as server, connected(server, protocol) as client:
        await client.ask()
        await eventually(lambda: server.records)
        [record] = server.records
    assert [found[1:] for found in seen] == [(record.session.id, record.id)] * 2
    assert all(isinstance(found[0], asyncio.Task) for found in seen)


async def test_shutdown_cancels_what_does_not_end(certs: Certificates) -> None:
    """A call that outlives the drain time is cancelled; its line says SHUTDOWN."""
    cancelled = asyncio.Event()
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(app, certs, patience=0.2) as server:
        async with H2Client.connect(server) as client:
            client.send("GET", "/")
            await began.wait()
            await server.server.stop(0.1)
        assert cancelled.is_set()
        assert server.records[0].outcome is Outcome.SHUTDOWN


async def test_work_behind_the_response_is_waited_for(certs: Certificates) -> None:
    """What a call does after its response may go on while the server drains."""
    go = asyncio.Event()
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        await go.wait()
        done.set()

    async with running(app, certs) as server:
        async with H2Client.connect(server) as client:
            await client.get("/")
        stopping = asyncio.ensure_future(server.server.stop(5))
        await eventually(lambda: server.shared.draining)
        go.set()
        await stopping
        assert done.is_set()
