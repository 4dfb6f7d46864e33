"""Handlers: what they are given, what they return, and what happens when the client goes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from h2log import App, HTTPError, Request, Response
from h2log.ids import NO_ID, request_id, session_id
from h2log.logfile.applog import IdFilter
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import Running, client_context, eventually, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


def echo() -> App:
    """Return an application that tells what it was asked."""
    app = App()

    def told(request: Request) -> Response:
        return Response.json(
            {
                "method": request.method,
                "target": request.target,
                "path": request.path,
                "params": request.params,
                "query": list(request.query.pairs),
                "scheme": request.scheme,
                "authority": request.authority,
                "client": list(request.client),
                "session": request.session_id,
                "request": request.id,
                "agent": request.headers.get("User-Agent"),
                "many": request.headers.getall("x-many"),
            }
        )

    @app.get("/plain/{one}/{two}")
    def plain(request: Request) -> Response:
        return told(request)

    @app.get("/async/{one}/{two}")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        return told(request)

    @app.get("/async-at-once/{one}/{two}")
    async def at_once(request: Request) -> Response:
        return told(request)

    @app.route("/many", ("PUT", "DELETE", "PATCH"))
    def many(request: Request) -> Response:
        return Response.text(request.method)

    @app.get("/fields")
    def fields(request: Request) -> Response:
        pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Note", "é")]
        return Response("text", 203, [*pairs, ("connection", "close"), ("x-request-id", "forged")])

    @app.get("/nothing")
    def nothing(request: Request) -> Response:
        return Response(b"", 204)

    @app.get("/gone")
    def gone(request: Request) -> Response:
        raise HTTPError(410, "it was here", (("x-where", "elsewhere"),))

    return app


@BOTH_LOOPS
@pytest.mark.parametrize("kind", ["plain", "async", "async-at-once"])
async def test_a_handler_sees_the_request(certs: Certificates, kind: str) -> None:
    """Method, path with its coding undone, parameters, query, fields, peer and ids."""
    path = f"/{kind}/a%2Fb%20c/%C3%A4?x=1&y=%26&x=2&empty="
    async with (
        Running(echo(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get(path, ("user-agent", "me"), ("x-many", "1"), ("x-many", "2"))
        answer = await one.get(path, "User-Agent: me", "X-Many: 1", "x-many: 2")
        peers = [w.get_extra_info("sockname") for w in (two.writer, one.writer)]
    assert (reply.status, answer.status) == (200, 200)
    for body, line, peer in zip((bytes(reply.body), answer.body), server.lines, peers, strict=True):
        found = json.loads(body)
        assert found["method"] == "GET"
        assert found["target"] == path
        assert found["path"] == f"/{kind}/a/b c/ä"
        assert found["params"] == {"one": "a/b c", "two": "ä"}
        assert found["query"] == [["x", "1"], ["y", "&"], ["x", "2"], ["empty", ""]]
        assert (found["scheme"], found["authority"]) == ("https", "localhost")
        assert found["client"] == list(peer)
        assert (found["session"], found["request"]) == (line.session, line.request)
        assert (found["agent"], found["many"]) == ("me", ["1", "2"])
        assert line.path == path


async def test_methods_of_a_route(certs: Certificates) -> None:
    """Each its handler; others are 405 with Allow, unknown ones 501; OPTIONS; HEAD is GET's."""
    async with (
        Running(echo(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for method in ("PUT", "DELETE", "PATCH"):
            assert bytes((await two.request(method, "/many")).body) == method.encode()
            assert (await one.get("/many", method=method)).body == method.encode()
        for method in ("GET", "POST", "HEAD"):
            for status, headers in (
                ((reply := await two.request(method, "/many")).status, reply.headers),
                ((answer := await one.get("/many", method=method)).status, answer.headers),
            ):
                assert (status, headers["allow"]) == (405, "DELETE, OPTIONS, PATCH, PUT")
        assert (await two.request("BREW", "/many")).status == 501
        assert (await one.get("/many", method="BREW")).status == 501
        reply = await two.request("OPTIONS", "/fields")
        answer = await one.get("/fields", method="OPTIONS")
        assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        head = await two.request("HEAD", "/async/1/2")
        length = head.headers["content-length"]
        assert (head.status, bytes(head.body)) == (200, b"")
        answer = await one.get("/async/1/2", method="HEAD")
        assert (answer.status, int(answer.headers["content-length"]) > 100) == (200, True)
        assert abs(int(answer.headers["content-length"]) - int(length)) < 20
        assert (await two.get("/absent")).status == 404


async def test_the_fields_of_a_response(certs: Certificates) -> None:
    """Repeated ones stay apart; what is the server's to say, the handler does not."""
    async with Running(echo(), certs) as server:
        async with httpx.AsyncClient(http2=True, verify=client_context(certs)) as client:
            two = await client.get(f"{server.url}/fields")
        async with httpx.AsyncClient(verify=client_context(certs)) as client:
            one = await client.get(f"{server.url}/fields")
    assert (two.http_version, one.http_version) == ("HTTP/2", "HTTP/1.1")
    for response, record in zip((two, one), server.records, strict=True):
        assert (response.status_code, response.text) == (203, "text")
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers.get_list("x-request-id") == [record.id]
        assert "connection" not in response.headers
        assert dict(response.headers.raw)[b"x-note"] == "é".encode("latin-1")
        assert len(response.headers.get_list("date")) == 1


async def test_errors_and_empty_responses(certs: Certificates) -> None:
    """HTTPError is its status, detail and fields; 204 has neither content nor a length."""
    async with (
        Running(echo(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for status, headers, body in (
            ((r := await two.get("/gone")).status, r.headers, bytes(r.body)),
            ((a := await one.get("/gone")).status, a.headers, a.body),
        ):
            assert (status, headers["x-where"]) == (410, "elsewhere")
            assert body == b"410 Gone\nit was here\n"
        for status, headers, body in (
            ((r := await two.get("/nothing")).status, r.headers, bytes(r.body)),
            ((a := await one.get("/nothing")).status, a.headers, a.body),
        ):
            assert (status, body) == (204, b"")
            assert "content-length" not in headers


class Slow:
    """A streaming handler that counts how far it came, and whether its generator was closed."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = 0
        self.app = App()
        self.app.get("/stream")(self.stream)

    async def stream(self, request: Request) -> Response:
        async def blocks() -> AsyncIterator[bytes]:
            try:
                for _ in range(int(request.query["blocks"])):
                    self.sent += 1
                    yield bytes(16384)
            finally:
                self.closed += 1

        return Response(blocks(), content_type="application/octet-stream")


@BOTH_LOOPS
async def test_a_streamed_response_arrives_whole(certs: Certificates) -> None:
    """An asynchronous generator: without a length, chunked on HTTP/1.1."""
    slow = Slow()
    async with (
        Running(slow.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get("/stream?blocks=64")
        answer = await one.get("/stream?blocks=64")
        assert bytes(reply.body) == answer.body == bytes(64 * 16384)
        assert "content-length" not in reply.headers
        assert answer.headers["transfer-encoding"] == "chunked"
        head = await two.request("HEAD", "/stream?blocks=64")
        assert (head.status, bytes(head.body)) == (200, b"")
        assert (await one.get("/stream?blocks=64", method="HEAD")).status == 200
        assert (await one.get("/stream?blocks=0")).body == b""
    assert [record.sent for record in server.records] == [64 * 16384] * 2 + [0] * 3
    assert slow.closed == 3


@BOTH_LOOPS
async def test_a_streaming_handler_waits_for_its_client(certs: Certificates) -> None:
    """Who reads nothing stops the generator after little; who vanishes closes it."""
    slow = Slow()
    async with Running(slow.app, certs) as server:
        async with H2Client.connect(server, credit=False) as client:
            stream = client.send("GET", "/stream?blocks=10000")
            await client.until(lambda: len(client.replies[stream].body) == 65535)
            [task] = server.shared.dispatcher.tasks
            sent = 0
            while sent != slow.sent:  # the loop has been round, and nothing more was taken
                sent = slow.sent
                await client.request("HEAD", "/absent")
            assert slow.sent * 16384 <= 65535 + 64 * 1024 + 2 * 16384
            client.abort()
            await eventually(lambda: slow.closed == 1)
        async with Http1Client.connect(server) as one:
            slow.sent = 0
            one.send(b"GET /stream?blocks=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: slow.sent > 10)
            sent = 0
            while sent != slow.sent:
                sent = slow.sent
                await run("curl", "-sk", f"{server.url}/absent")
            assert slow.sent * 16384 < 64 * 1024 * 1024
            one.writer.transport.abort()
            await eventually(lambda: slow.closed == 2)
    assert task.done()
    assert server.outcomes["PEER_LOST"] == 2


class Heard(logging.Handler):
    """Keeps records, with the ids that they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(IdFilter())
        self.heard: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        ids = str(vars(record)["session_id"]), str(vars(record)["request_id"])
        self.heard.append((record.getMessage(), *ids))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A handler on the application's logger."""
    handler = Heard()
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)


def logging_app() -> App:
    """Return an application that logs wherever a handler can."""
    app = App()
    log = logging.getLogger("shop").info

    @app.get("/plain")
    def plain(request: Request) -> Response:
        log("plain %s", request.id)
        return Response.text("")

    @app.get("/async/{turns}")
    async def later(request: Request) -> Response:
        log("before %s", request.id)
        for _ in range(int(request.params["turns"])):
            await asyncio.sleep(0)
        log("after %s", request.id)
        await asyncio.to_thread(log, "thread %s", request.id)
        await asyncio.create_task(asyncio.to_thread(log, "task %s", request.id))
        assert request_id.get() == request.id
        assert session_id.get() == request.session_id

        async def pieces() -> AsyncIterator[bytes]:
            log("stream %s", request.id)
            yield b"x"

        return Response(pieces())

    return app


@BOTH_LOOPS
async def test_the_ids_are_in_the_applications_own_log(certs: Certificates, heard: Heard) -> None:
    """Also after await, in tasks and in threads, with many requests at once; none outside."""
    async with (
        Running(logging_app(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        streams = [two.send("GET", f"/async/{n % 7}") for n in range(30)]
        streams += [two.send("GET", "/plain") for _ in range(5)]
        assert (await one.get("/async/3")).status == 200
        assert (await one.get("/plain")).status == 200
        for stream in streams:
            assert (await two.reply(stream)).status == 200
        logging.getLogger("shop").info("outside")
    assert heard.heard.pop() == ("outside", NO_ID, NO_ID)
    assert len(heard.heard) == 31 * 5 + 6
    lines = {line.request: line.session for line in server.lines}
    for message, session, request in heard.heard:
        assert message.split()[1] == request
        assert lines[request] == session


@pytest.mark.parametrize("path", ["/plain", "/async/2"])
async def test_the_servers_own_log_has_the_ids_of_a_failure(
    certs: Certificates, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """An unhandled exception is logged under the ids of its request, with its traceback."""
    app = App()

    @app.get("/plain")
    def plain(request: Request) -> Response:
        raise LookupError("why")

    @app.get("/async/{n}")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        raise LookupError("why")

    async with Running(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.get(path)).status == 500
    [error] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    [line] = server.lines
    assert (vars(error)["session_id"], vars(error)["request_id"]) == (line.session, line.request)
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], LookupError)


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_the_times_of_a_response_are_in_order(certs: Certificates, size: int) -> None:
    """Header, first byte and end, of what goes out at once and of what waits for a window."""
    app = App()
    app.get("/{name}")(lambda request: Response(b"a" * size))
    async with Running(app, certs) as server:
        async with H2Client.connect(server) as h2:
            assert len((await h2.get("/a")).body) == size
        async with Http1Client.connect(server) as h1:
            assert len((await h1.get("/a")).body) == size
    for record in server.records:
        header, first = record.headers_milliseconds, record.first_byte_milliseconds
        assert record.detail is not None and record.detail.route == "/{name}"
        assert header is not None and (first is None) == (not size)
        assert 0 <= header <= (header if first is None else first) <= record.milliseconds
