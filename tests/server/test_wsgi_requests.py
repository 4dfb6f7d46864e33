"""What a WSGI application is told of requests that are odd, slow, or made to deceive."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask, request

from h2log.app.wsgi import wsgi
from h2log.server.certificates import Certificates
from tests.server.asgi_apps import running
from tests.server.h2_client import H2Client
from tests.server.wire import DATA, HEADERS, Http1Client, RawClient
from tests.support import eventually

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def telling(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the texts of the environ."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({n: v for n, v in environ.items() if isinstance(v, str | bool)}).encode()]


async def test_a_name_with_an_underscore_is_not_another_s(certs: Certificates) -> None:
    """`X_Remote_User` is left out: in the environ it would be what a proxy says, or before it."""
    async with running(wsgi(telling, 1), certs) as server:
        async with H2Client.connect(server) as client:
            fields = [("x_remote_user", "root"), ("x-remote-user", "me"), ("a_b", "c")]
            told = json.loads((await client.get("/", *fields)).body)
        async with Http1Client.connect(server) as plain:
            answer = await plain.get("/", "X_Forwarded-For: 6.6.6.6", "Content_Length: 7")
            also = json.loads(answer.body)
    assert told["HTTP_X_REMOTE_USER"] == "me"
    assert "HTTP_A_B" not in told
    assert not {"HTTP_X_FORWARDED_FOR", "HTTP_CONTENT_LENGTH", "CONTENT_LENGTH"} & set(also)


async def test_bytes_are_characters_of_latin_1(certs: Certificates) -> None:
    """Path and query have what was sent, also what is neither ASCII nor UTF-8 (PEP 3333)."""
    app = wsgi(telling, 1)
    async with running(app, certs, root_path="/ä") as server, RawClient.connect(server) as wire:
        wire.get(1, b"/caf%C3%A9/%ff/a%2fb?q=\xff%20")
        assert wire.fields(await wire.expect(HEADERS, 1))[":status"] == "200"
        told = json.loads((await wire.expect(DATA, 1)).payload)
    assert told["PATH_INFO"].encode("latin-1") == "/café/".encode() + b"\xff/a/b"
    assert told["SCRIPT_NAME"].encode("latin-1") == "/ä".encode()
    assert told["QUERY_STRING"] == "q=\xff%20"


@pytest.mark.parametrize("length", [3, 64 * 1024])
async def test_small_content_that_trickles_keeps_no_thread(
    certs: Certificates, length: int
) -> None:
    """It is read before a thread is taken; the only one answers others meanwhile."""
    body = b"x" * length
    async with running(wsgi(telling, 1), certs) as server, H2Client.connect(server) as client:
        slow = [
            client.send("POST", f"/{n}", [("content-length", str(length))], end=False)
            for n in range(5)
        ]
        for stream in slow:
            await client.send_body(stream, body[:-1], end=False)
        assert (await client.get("/other")).status == 200
        for stream in slow:
            await client.send_body(stream, body[-1:])
            reply = await client.reply(stream)
            assert json.loads(reply.body)["CONTENT_LENGTH"] == str(length)


async def test_content_that_does_not_come(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The application is not asked; the request has its line, and nothing is an error."""
    asked: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asked.append(environ["PATH_INFO"])
        return telling(environ, start_response)

    async with running(wsgi(app, 1), certs, body_timeout=0.2) as server:
        async with H2Client.connect(server) as client:
            late = client.send("POST", "/late", [("content-length", "3")], end=False)
            assert (await client.reply(late)).status == 408
            client.send("POST", "/gone", [("content-length", "3")], end=False)
            assert (await client.get("/other")).status == 200
            client.abort()
        await server.logged(3)
    assert server.outcomes == {"TIMEOUT": 1, "COMPLETE": 1, "PEER_LOST": 1}
    assert asked == ["/other"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_flask_and_an_upload_that_breaks_off(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Werkzeug has a name for it, which is no error of the application: no traceback is logged."""
    app = Flask("telling")
    begun = threading.Event()

    @app.post("/")
    def length() -> str:
        begun.set()
        return str(len(request.get_data()))

    async with running(wsgi(app.wsgi_app, 1), certs) as server:
        async with H2Client.connect(server) as client:
            stream = client.send("POST", "/", [("content-length", "200000")], end=False)
            await client.send_body(stream, b"some", end=False)
            await eventually(begun.is_set)
            client.abort()
        await server.logged(1)
        async with H2Client.connect(server) as client:
            reply = await client.request("POST", "/", body=b"x" * 100_000)
            assert bytes(reply.body) == b"100000"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
