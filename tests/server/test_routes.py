"""Routes, mounts, middleware and error handlers over real connections."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log import App, HTTPError, Request, Response
from h2log.access.record import AccessRecord
from h2log.app.middleware import CallNext
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import PATIENCE, Running, client_context, eventually, run, tool

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


def route_of(record: AccessRecord) -> str:
    """Return the route that a record has for the log."""
    return "" if record.detail is None else record.detail.route


def shop() -> App:
    """Return an application with another one mounted in it."""
    app, items = App(), App()

    @app.get("/")
    def home(request: Request) -> Response:
        return Response.text("home")

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @items.get("/{id:int}")
    def one(request: Request) -> Response:
        return Response.json({"id": request.params["id"], "mounted": request.mounted})

    @items.get("/{id:int}/files/{name:path}")
    async def file(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.json(request.params)

    @items.put("/{id:uuid}")
    def put(request: Request) -> Response:
        return Response.text(str(request.params["id"]))

    app.mount("/items", items)
    return app


async def test_typed_values_by_both_protocols(certs: Certificates) -> None:
    """The same values over HTTP/2 and HTTP/1.1, and the whole pattern in the record."""
    targets = {
        "/items/7": (b'{"id":7,"mounted":"/items"}', "/items/{id:int}"),
        "/items/%37?x": (b'{"id":7,"mounted":"/items"}', "/items/{id:int}"),
        "/items/7/files/a/b%2Fc%20d": (
            b'{"id":7,"name":"a/b/c d"}',
            "/items/{id:int}/files/{name:path}",
        ),
    }
    async with (
        Running(shop(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for target, (body, _) in targets.items():
            assert bytes((await two.get(target)).body) == body
            assert (await one.get(target)).body == body
        for target in ("/items/x", "/items/7/files/", "/items/7/files/%2e%2e/x", "/items//7"):
            assert (await two.get(target)).status == 404
            assert (await one.get(target)).status == 404
    patterns = [pattern for _, pattern in targets.values() for _ in range(2)]
    assert [route_of(record) for record in server.records[:6]] == patterns
    assert server.outcomes == {"COMPLETE": 14}


async def test_methods_by_both_protocols(certs: Certificates) -> None:
    """HEAD and OPTIONS are answered, others are 405 with Allow, unknown ones and proxying 501."""
    known = "0193fdea4b1c7d008a2e0123456789ab"
    async with (
        Running(shop(), certs) as server,
        H2Client.connect(server, check=False) as two,
        Http1Client.connect(server) as one,
    ):
        for method, target, status, allow in (
            ("HEAD", "/items/7", 200, None),
            ("OPTIONS", "/items/7", 204, "GET, HEAD, OPTIONS"),
            ("DELETE", "/items/7", 405, "GET, HEAD, OPTIONS"),
            ("HEAD", "/echo", 405, "OPTIONS, POST"),
            ("PUT", f"/items/{known}", 200, None),
            ("GET", f"/items/{known}", 405, "OPTIONS, PUT"),
            ("OPTIONS", "*", 204, "GET, HEAD, OPTIONS, POST, PUT"),
            ("BREW", "/items/7", 501, None),
            ("get", "/", 501, None),
            ("TRACE", "/", 405, "GET, HEAD, OPTIONS"),
        ):
            reply = await two.request(method, target)
            assert (reply.status, reply.headers.get("allow")) == (status, allow), (method, target)
            answer = await one.get(target, method=method)
            assert (answer.status, answer.headers.get("allow")) == (status, allow), (method, target)
        assert (await one.get("localhost:443", method="CONNECT")).status == 501


async def test_a_redirect_to_the_other_form_keeps_method_content_and_query(
    certs: Certificates,
) -> None:
    """A client that follows it arrives: httpx over HTTP/2, curl over HTTP/1.1."""
    async with Running(shop(), certs) as server:
        async with httpx.AsyncClient(
            http2=True, verify=client_context(certs), follow_redirects=True
        ) as client:
            response = await client.get(f"{server.url}/items/7/?a=1&b=%2F")
            assert (response.status_code, response.json()["id"]) == (200, 7)
            assert str(response.url) == f"{server.url}/items/7?a=1&b=%2F"
            response = await client.post(f"{server.url}/echo/?q", content=b"sent")
            assert (response.http_version, response.content) == ("HTTP/2", b"sent")
        # curl 7.88 fails to send content anew on the HTTP/2 connection that redirected it.
        options = ("-sS", "--cacert", str(certs.ca), "--location", "--path-as-is", "--http1.1")
        done = await run(tool("curl"), *options, "--data", "sent", f"{server.url}/echo/?q")
        assert (done.code, done.text) == (0, "sent")
        for hostile in ("//evil.example/..", "//evil.example/items/7/", "/%5Cevil.example/"):
            done = await run(tool("curl"), *options, "-w", "%{http_code}", f"{server.url}{hostile}")
            assert done.text.endswith("404")
    assert [record.status for record in server.records[:4]] == [308, 200] * 2


async def test_middleware_is_around_what_is_answered(certs: Certificates, tmp_path: Path) -> None:
    """Routes, files and errors alike; with `static=False` files stay on the short way."""
    (tmp_path / "page.html").write_text("<p>page")

    def made(*, static: bool) -> App:
        app = shop()
        app.static(tmp_path, at="/files")

        async def marks(request: Request, call_next: CallNext) -> Response:
            try:
                response = await call_next(request)
            except HTTPError as error:
                raise HTTPError(error.status, headers=(("x-mark", "error"),)) from error
            response.headers.append(("x-mark", "response"))
            return response

        app.use(marks, static=static)
        return app

    for static in (True, False):
        async with (
            Running(made(static=static), certs) as server,
            H2Client.connect(server) as two,
        ):
            for target, status, mark in (
                ("/", 200, "response"),
                ("/items/7", 200, "response"),
                ("/items/7/", 308, "response"),
                ("/nothing", 404, "error"),
            ):
                reply = await two.get(target)
                assert (reply.status, reply.headers["x-mark"]) == (status, mark)
            for _ in range(3):
                reply = await two.get("/files/page.html")
                assert (reply.status, bytes(reply.body)) == (200, b"<p>page")
                assert reply.headers.get("x-mark") == ("response" if static else None)
        assert [record.cache for record in server.records[-3:]] == ["miss", "hit", "hit"]
        # What was answered on the short way has no detail.
        assert [r.detail is None for r in server.records[-3:]] == [False, not static, not static]


async def test_an_unexpected_exception_is_logged_however_it_is_answered(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """An error page of one's own does not hide the traceback, nor the outcome."""
    app = App()

    @app.error(500)
    async def page(request: Request, error: Exception) -> Response:
        return Response.html("<h1>our page</h1>", 500)

    @app.error(LookupError)
    def missing(request: Request, error: LookupError) -> Response:
        return Response.html("<h1>none such</h1>", 404)

    @app.get("/broken")
    def broken(request: Request) -> Response:
        raise ZeroDivisionError("in the handler")

    @app.get("/missing")
    async def lookup(request: Request) -> Response:
        raise KeyError("x")

    with caplog.at_level(logging.ERROR, "h2log.app"):
        async with Running(app, certs) as server, H2Client.connect(server) as two:
            reply = await two.get("/broken")
            assert (reply.status, bytes(reply.body)) == (500, b"<h1>our page</h1>")
            reply = await two.get("/missing")
            assert (reply.status, bytes(reply.body)) == (404, b"<h1>none such</h1>")
    assert server.outcomes == {"HANDLER_ERROR": 1, "COMPLETE": 1}
    [told] = caplog.records
    assert told.exc_info is not None
    assert isinstance(told.exc_info[1], ZeroDivisionError)
    assert told.__dict__["request_id"] == server.records[0].id


@BOTH_LOOPS
async def test_middleware_learns_that_the_client_has_gone(certs: Certificates) -> None:
    """It is cancelled where it awaits the handler, which is cancelled too; nothing is left over."""
    app = App()
    ended: list[str] = []
    entered = asyncio.Event()

    @app.middleware
    async def tells(request: Request, call_next: CallNext) -> Response:
        try:
            return await call_next(request)
        except asyncio.CancelledError:
            ended.append("middleware")
            raise

    @app.get("/wait/{n:int}")
    async def wait(request: Request) -> Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("handler")
        return Response()

    @app.error(Exception)
    async def never(request: Request, error: Exception) -> Response:
        ended.append("error handler")
        return Response.text("never")

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("GET", "/wait/1")
        await entered.wait()
        two.reset(stream)
        await eventually(lambda: len(ended) == 2)
        # Gone before its task has begun: neither has met it, and no coroutine is left unawaited.
        stream = two.conn.get_next_available_stream_id()
        two.conn.send_headers(
            stream,
            [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/wait/2")],
            end_stream=True,
        )
        two.conn.reset_stream(stream, 8)
        two.flush()
        await server.logged(2)
        gc.collect()
    assert ended == ["handler", "middleware"]
    assert server.outcomes == {"CLIENT_RESET": 2}


def test_a_duplicate_stops_the_start(tmp_path: Path, certs: Certificates) -> None:
    """One line that names both places, and exit code 2."""
    (tmp_path / "twice.py").write_text(
        "from h2log import App, Response\n"
        "app, users = App(), App()\n"
        "app.mount('/users', users)\n"
        "@users.get('/{id:int}')\n"
        "def one(request):\n"
        "    return Response()\n"
        "@app.get('/users/{number:int}')\n"
        "def two(request):\n"
        "    return Response()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", "twice:app", "--port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "GET /users/{number:int} (twice.py:7) is there already" in line
    assert "/users/{id:int} (twice.py:4, mounted at twice.py:3)" in line
    assert done.stdout == ""
