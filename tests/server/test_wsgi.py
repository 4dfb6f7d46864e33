"""WSGI applications (PEP 3333) behind the server, each request in a thread."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from h2log import ids
from h2log.access.record import Outcome
from h2log.app.wsgi import wsgi
from h2log.server.certificates import Certificates
from tests.server.asgi_apps import running
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import PATIENCE, Running, eventually

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
INTERNAL_ERROR = 2
TEXT = [("Content-Type", "text/plain")]


def served(
    app: Callable[[Environ, StartResponse], Iterable[bytes]], certs: Certificates
) -> Running:
    """Return a server of a WSGI application in a single thread: one that hangs is noticed."""
    return running(wsgi(app, 1), certs)


def hello(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer with five bytes."""
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return [b"hello"]


async def test_it_is_wsgi(certs: Certificates) -> None:
    """The standard library's validator has nothing to say."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        content = environ["wsgi.input"].read(1000)
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode("latin-1"), b" ", content]

    async with served(validator(app), certs) as server, H2Client.connect(server) as client:
        reply = await client.request("POST", "/caf%C3%A9?q=1", body=b"two")
        assert (reply.status, bytes(reply.body)) == (200, "/café two".encode())


async def test_the_environ(certs: Certificates) -> None:
    """Has the request; its thread the ids of the log."""
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append((environ, ids.session_id.get(), ids.request_id.get(), threading.get_ident()))
        return hello(environ, start_response)

    async with served(app, certs) as server, H2Client.connect(server) as client:
        await client.get("/a%2Fb?q=%20", ("cookie", "a=1"), ("cookie", "b=2"), ("x-y", "z"))
        [(environ, session, request, thread)] = seen
        record = await server.record("/a%2Fb?q=%20")
        assert (session, request) == (record.session.id, record.id)
        assert thread != threading.get_ident()
        wanted = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/a/b",
            "QUERY_STRING": "q=%20",
            "SERVER_PROTOCOL": "HTTP/2",
            "SERVER_PORT": str(server.port),
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "HTTP_X_Y": "z",
            "wsgi.url_scheme": "https",
            "wsgi.errors": sys.stderr,
            "wsgi.input_terminated": True,
        }
        assert {name: environ[name] for name in wanted} == wanted


BODY = b"first\nsecond line\n\nno end" + b"x" * 200_000 + b"\nlast"
READS: list[Callable[[Any], Any]] = [
    lambda content: content.read(),
    lambda content: content.read(-1),
    lambda content: [content.read(7), content.read(0), content.read(100_000), content.read()],
    lambda content: [content.read(10**7), content.read(1), content.read()],
    lambda content: [content.readline() for _ in range(7)],
    lambda content: [content.readline(3) for _ in range(4)],
    lambda content: [content.readline(10**6), content.read(3), content.readline()],
    lambda content: content.readlines(),
    lambda content: list(content),
    lambda content: [content.readline(), *content],
]


@pytest.mark.parametrize("number", range(len(READS)))
@pytest.mark.parametrize("body", [BODY, b""])
async def test_content_is_a_file(certs: Certificates, number: int, body: bytes) -> None:
    """Whichever way it is read, it gives what a file in memory would."""
    wanted = READS[number](io.BytesIO(body))
    got: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        got.append(READS[number](environ["wsgi.input"]))
        return hello(environ, start_response)

    async with served(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.request("POST", "/", body=body)).status == 200
    assert got == [wanted]


async def test_the_header_waits_for_content(certs: Certificates) -> None:
    """Until there is some, the application may change its mind, as PEP 3333 lets it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise ValueError("in the middle")
        except ValueError:
            start_response("503 Busy", [*TEXT, ("X-More", "1")], sys.exc_info())
        yield b"later"

    async with served(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/")
        assert (reply.status, reply.headers["x-more"], bytes(reply.body)) == (503, "1", b"later")


@pytest.mark.parametrize("early", [True, False])
async def test_an_application_that_fails(
    certs: Certificates, early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before any content it is a 500; after it a reset. The next request is served."""
    closed = threading.Event()

    class Parts:
        def __iter__(self) -> Iterator[bytes]:
            if not early:
                yield b"some"
            raise ZeroDivisionError

        def close(self) -> None:
            closed.set()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        start_response("200 OK", TEXT)
        return Parts()

    async with served(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/fails")
        # What was sent last may not have left when it fails: then there is still time for a 500.
        assert reply.status == 500 or (not early and reply.reset == INTERNAL_ERROR)
        assert closed.is_set()
        record = await server.record("/fails")
        assert record.verdict is Outcome.HANDLER_ERROR
        assert (await client.get("/")).status == 200
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("status", "fields", "text"),
    [
        ("200 OK", [("bad name", "x")], "bad name"),
        ("200 OK", [("x", "a\r\nb")], "x"),
        ("99 No", [], "99"),
        ("many", [], "many"),
        (None, [], "has not called start_response"),
    ],
)
async def test_what_cannot_be_sent(
    certs: Certificates,
    status: str | None,
    fields: list[tuple[str, str]],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Is a 500, whose reason is logged; a thread that goes on and on is ended."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        if status is not None:
            start_response(status, fields)
        return endless()

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    async with served(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.get("/wrong")).status == 500
        assert (await client.get("/")).status == 200
        assert (await server.record("/wrong")).verdict is Outcome.HANDLER_ERROR
    assert text in caplog.text


async def test_write(certs: Certificates) -> None:
    """What it is given comes before what is returned."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200", TEXT)
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    async with served(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/")
        assert (reply.status, bytes(reply.body)) == (200, b"one two three")


async def test_start_response_after_the_start(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Raises what it was given: the response is not complete."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"some"
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 No", TEXT, sys.exc_info())

    async with served(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/")
        assert reply.status == 500 or reply.reset == INTERNAL_ERROR
    assert "LookupError: too late" in caplog.text


async def test_the_last_declared_byte_is_the_end(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has it may leave, whatever the thread still does; it can add nothing."""
    leave = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [*TEXT, ("Content-Length", "5")])
        yield b"hel"
        yield b"lo"
        assert leave.wait(PATIENCE)
        if environ["PATH_INFO"] == "/more":
            yield b"!"

    async with served(app, certs) as server:
        async with H2Client.connect(server) as client:
            assert (await client.get("/")).body == b"hello"
        leave.set()
        async with H2Client.connect(server) as client:
            assert (await client.request("POST", "/", body=b"some")).body == b"hello"
            assert (await client.get("/more")).body == b"hello"
        leave.clear()
        async with Http1Client.connect(server) as plain:
            assert (await plain.get("/")).body == b"hello"
        await server.logged(4)
        leave.set()
        await eventually(lambda: "1 bytes of content beyond its content-length" in caplog.text)
    assert server.outcomes == {"COMPLETE": 4}


async def test_content_is_read_behind_the_response(certs: Certificates) -> None:
    """Also where that has all its bytes before: its end would cut off what the client sends."""
    contents: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [*TEXT, ("Content-Length", "5")])
        yield b"hello"
        contents.append(environ["wsgi.input"].read())

    async with served(app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("POST", "/", end=False)
        await client.until(lambda: client.replies[stream].body == b"hello")
        await client.send_body(stream, b"some", end=True)
        assert (await client.reply(stream)).ended
    assert contents == [b"some"]


async def test_a_client_that_leaves_a_stream(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread stops at its next piece, its response is closed, and another request has it."""
    closed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        start_response("200 OK", TEXT)
        return endless()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    async with served(app, certs) as server:
        for way in ("reset", "abort"):
            closed.clear()
            async with H2Client.connect(server) as client:
                stream = client.send("GET", f"/{way}")
                await client.until(lambda s=stream, c=client: len(c.replies[s].body) > 50_000)  # type: ignore[misc]
                if way == "reset":
                    client.reset(stream)
                else:
                    client.abort()
            async with H2Client.connect(server) as client:
                assert (await client.get("/")).status == 200
            assert closed.is_set()
        await server.logged(4)
    assert server.outcomes == {"COMPLETE": 2, "CLIENT_RESET": 1, "PEER_LOST": 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_leaves_an_upload(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread's `read` raises OSError, and another request has it."""
    errors: list[BaseException] = []
    reading = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        reading.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            errors.append(error)
            raise
        raise AssertionError

    async with served(app, certs) as server:
        async with H2Client.connect(server) as client:
            stream = client.send("POST", "/upload", end=False)
            await client.send_body(stream, b"some", end=False)
            await eventually(reading.is_set)
            client.abort()
        async with H2Client.connect(server) as client:
            assert (await client.get("/")).status == 200
        await server.logged(2)
    assert [str(error) for error in errors] == ["the client is gone"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_as_many_threads_as_it_was_given(certs: Certificates) -> None:
    """Requests are answered at once, and no more of them."""
    barrier = threading.Barrier(3)
    now: list[str] = []
    most: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        now.append(environ["PATH_INFO"])
        most.append(len(now))
        barrier.wait(10)
        now.remove(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return [json.dumps(most).encode()]

    async with running(wsgi(app, 3), certs) as server, H2Client.connect(server) as client:
        streams = [client.send("GET", f"/{n}") for n in range(6)]
        replies = [await client.reply(stream) for stream in streams]
    assert [reply.status for reply in replies] == [200] * 6
    assert max(most) == 3


async def test_it_has_no_websocket(certs: Certificates) -> None:
    """A handshake is refused, and the application is not asked."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        raise AssertionError

    async with served(app, certs) as server, Http1Client.connect(server) as client:
        answer = await client.get(
            "/",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        assert answer.status == 403
    assert server.outcomes == {"COMPLETE": 1}
