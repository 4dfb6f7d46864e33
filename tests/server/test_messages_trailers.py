"""Trailers: fields behind the content, on HTTP/2 and, for those who ask, on HTTP/1.1."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from io import FileIO
from pathlib import Path

import httpx
import pytest

from h2log import App, Request, Response
from h2log.app.response import FileContent
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import DATA, END_STREAM, HEADERS, WINDOW_UPDATE, Http1Client, RawClient
from tests.support import Running, client_context, eventually, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
TE = "TE: trailers"


class Summed:
    """An application whose responses end with the digest of their content."""

    def __init__(self, folder: Path) -> None:
        self.content = os.urandom(300_000)
        self.path = folder / "content"
        self.path.write_bytes(self.content)
        self.asked = 0
        self.app = App()
        for kind in ("bytes", "stream", "file", "nothing", "sized"):
            self.app.get(f"/{kind}")(getattr(self, kind))
        self.app.get("/pairs")(lambda _: Response(b"abc", trailers={"X-One": "1", "X-Two": "é"}))
        self.app.get("/many")(lambda _: Response(b"a", trailers=[("x-a", "v" * 500)] * 100))
        self.app.get("/none")(lambda _: Response(b"abc", trailers=lambda: []))
        self.app.get("/empty")(lambda _: Response(b"", 204, trailers={"x-one": "1"}))

    @property
    def sum(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def digest(self) -> list[tuple[str, str]]:
        self.asked += 1
        return [("X-Sum", self.sum)]

    def bytes(self, request: Request) -> Response:
        return Response(self.content, trailers=self.digest)

    def sized(self, request: Request) -> Response:
        size = str(len(self.content))
        return Response(self.content, 200, {"content-length": size}, trailers=self.digest)

    def nothing(self, request: Request) -> Response:
        return Response(b"", trailers=self.digest)

    async def file(self, request: Request) -> Response:
        return Response(FileContent(FileIO(self.path), 0, len(self.content)), trailers=self.digest)

    async def stream(self, request: Request) -> Response:
        found = hashlib.sha256()

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(self.content), 70_000):
                piece = self.content[at : at + 70_000]
                found.update(piece)
                yield piece

        return Response(pieces(), trailers=lambda: {"x-sum": found.hexdigest()})


@pytest.fixture
def summed(tmp_path: Path) -> Summed:
    return Summed(tmp_path)


@BOTH_LOOPS
async def test_trailers_follow_every_kind_of_content(certs: Certificates, summed: Summed) -> None:
    """Bytes, a stream, a file and nothing at all, over both protocols; the content is whole."""
    async with (
        Running(summed.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for kind in ("bytes", "stream", "file", "nothing", "sized"):
            content = b"" if kind == "nothing" else summed.content
            reply = await two.get(f"/{kind}")
            assert (reply.status, bytes(reply.body)) == (200, content), kind
            assert reply.trailers == [("x-sum", summed.sum)]
            answer = await one.get(f"/{kind}", TE, "Connection: TE")
            assert (answer.status, answer.body) == (200, content), kind
            assert answer.trailers == (b"x-sum: " + summed.sum.encode(),)
            assert answer.headers["transfer-encoding"] == "chunked"
            assert "content-length" not in answer.headers
            length = reply.headers.get("content-length")
            assert length == (None if kind == "stream" else str(len(content)))
        reply = await two.get("/pairs")
        assert reply.headers["trailer"] == "x-one, x-two"
        assert reply.trailers == [("x-one", "1"), ("x-two", "é")]
        answer = await one.get("/pairs", TE)
        assert answer.headers["trailer"] == "x-one, x-two"
        assert answer.trailers == (b"x-one: 1", b"x-two: \xe9")
    assert server.outcomes == {"COMPLETE": 12}


@pytest.mark.parametrize(
    "wish", [None, "TE: gzip", "TE: trailersx", "TE:", "TE: x;q=trailers", "X-TE: trailers"]
)
async def test_who_does_not_ask_gets_none(
    certs: Certificates, summed: Summed, wish: str | None
) -> None:
    """On HTTP/1.1 they are dropped, and so is their announcement; the response has its length."""
    async with Running(summed.app, certs) as server, Http1Client.connect(server) as one:
        answer = await one.get("/pairs", *([] if wish is None else [wish]))
        assert (answer.body, answer.trailers) == (b"abc", ())
        assert answer.headers["content-length"] == "3"
        assert not {"trailer", "transfer-encoding"} & set(answer.headers)
        answer = await one.get("/stream", *([] if wish is None else [wish]))
        assert (answer.body, answer.trailers) == (summed.content, ())


@pytest.mark.parametrize(
    "wish", ["TE: trailers", "te: gzip;q=0.5, Trailers", "TE: deflate\r\nTE: trailers;q=1"]
)
async def test_who_asks_in_any_form_gets_them(
    certs: Certificates, summed: Summed, wish: str
) -> None:
    """TE is a list, over several lines, in any case (RFC 9110 section 10.1.4)."""
    async with Running(summed.app, certs) as server, Http1Client.connect(server) as one:
        answer = await one.get("/pairs", wish)
        assert answer.trailers == (b"x-one: 1", b"x-two: \xe9")
        assert (await one.get("/pairs")).trailers == ()


async def test_where_there_is_no_content_there_are_no_trailers(
    certs: Certificates, summed: Summed
) -> None:
    """HEAD and 204 end with their header on both protocols; HTTP/1.0 has neither chunks nor TE."""
    async with (
        Running(summed.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
        Http1Client.connect(server) as old,
    ):
        for path in ("/bytes", "/stream", "/file", "/pairs"):
            reply = await two.request("HEAD", path)
            assert (reply.status, bytes(reply.body), reply.trailers) == (200, b"", [])
            assert (await one.get(path, TE, method="HEAD")).status == 200
        reply = await two.get("/empty")
        assert (reply.status, bytes(reply.body), reply.trailers) == (204, b"", [])
        assert (await one.get("/empty", TE)).status == 204
        assert (await one.get("/pairs", TE)).body == b"abc"
        old.send(b"GET /pairs HTTP/1.0\r\nHost: x\r\nTE: trailers\r\n\r\n")
        answer = await old.answer()
        assert (answer.body, answer.trailers) == (b"abc", ())
        assert "transfer-encoding" not in answer.headers
    assert summed.asked == 0
    assert set(server.outcomes) == {"COMPLETE"}


async def test_a_function_may_give_none(certs: Certificates, summed: Summed) -> None:
    """The response then ends as one without."""
    async with (
        Running(summed.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get("/none")
        assert (bytes(reply.body), reply.trailers, reply.ended) == (b"abc", [], True)
        answer = await one.get("/none", TE)
        assert (answer.body, answer.trailers) == (b"abc", ())
        assert (await one.get("/none", TE)).body == b"abc"


@BOTH_LOOPS
@pytest.mark.parametrize("kind", ["bytes", "stream", "file"])
async def test_trailers_wait_behind_a_shut_window(
    certs: Certificates, summed: Summed, kind: str
) -> None:
    """Nothing follows the content but END_STREAM, and no sooner than all of it has gone out."""
    async with Running(summed.app, certs) as server, RawClient.connect(server, {4: 1000}) as client:
        client.get(1, f"/{kind}".encode())
        got = b""
        frame = await client.expect(HEADERS, 1)
        while len(got) < 1000:
            got += (await client.expect(DATA, 1)).payload
        client.get(3, b"/none")  # the other stream's window is its own
        assert (await client.expect(DATA, 3)).payload == b"abc"
        assert not any(f.stream == 1 and f.kind == HEADERS for f in client.seen[3:] if f != frame)
        assert not server.records or server.records[0].facts.path == "/none"
        client.send(WINDOW_UPDATE, 0, 0, (10**6).to_bytes(4, "big"))
        client.send(WINDOW_UPDATE, 0, 1, (10**6).to_bytes(4, "big"))
        while True:
            frame = await client.read()
            if frame.stream != 1:
                continue
            if frame.kind == HEADERS:
                break
            assert (frame.kind, frame.flags) == (DATA, 0)
            got += frame.payload
        assert got == summed.content
        assert frame.flags & END_STREAM
        assert client.fields(frame) == {"x-sum": summed.sum}
        await server.logged(2)
    assert server.outcomes == {"COMPLETE": 2}
    record = await server.record(f"/{kind}")
    assert record.sent == len(summed.content)


async def test_a_client_that_goes_before_the_trailers(certs: Certificates, summed: Summed) -> None:
    """They are forgotten with the rest: the line says CLIENT_RESET, and what was sent."""
    async with Running(summed.app, certs) as server, RawClient.connect(server, {4: 1000}) as client:
        client.get(1, b"/stream")
        await client.expect(DATA, 1)
        client.send(3, 0, 1, (8).to_bytes(4, "big"))
        await server.logged(1)
        client.get(3, b"/none")
        await client.expect(DATA, 3)
    assert server.outcomes == {"CLIENT_RESET": 1, "COMPLETE": 1}


async def test_trailers_of_many_frames(certs: Certificates, summed: Summed) -> None:
    """A section of 50 KB arrives whole, in CONTINUATION frames."""
    async with Running(summed.app, certs) as server, H2Client.connect(server) as two:
        two.conn.decoder.max_header_list_size = 2**20
        reply = await two.get("/many")
        assert reply.trailers == [("x-a", "v" * 500)] * 100


def wrong_trailers(kind: str) -> App:
    """Return an application whose trailers cannot be sent."""
    app = App()
    given: dict[str, Callable[[], object]] = {
        "forbidden": lambda: [("content-type", "text/plain")],
        "line": lambda: [("x-a", "1\r\nx-b: 2")],
        "type": lambda: [("x-a", 1)],
        "error": lambda: 1 // 0,
    }

    @app.get("/bytes")
    def at_once(request: Request) -> Response:
        return Response(b"abc", trailers=given[kind])  # type: ignore[arg-type]  # wrong, of course

    @app.get("/stream")
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"abc"

        return Response(pieces(), trailers=given[kind])  # type: ignore[arg-type]  # the same

    return app


@pytest.mark.parametrize("kind", ["forbidden", "line", "type", "error"])
async def test_wrong_trailers_are_an_error(
    certs: Certificates, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """500 while nothing was sent, else a response that is visibly not complete; logged by name."""
    async with (
        Running(wrong_trailers(kind), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        assert (await two.get("/bytes")).status == 500
        assert (await one.get("/bytes", TE)).status == 500
        reply = await two.get("/stream")
        assert (reply.status, reply.reset) == (200, 2)
        one.send(b"GET /stream HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n")
        assert b"\r\n0\r\n" not in await one.rest()
    assert server.outcomes == {"HANDLER_ERROR": 4}
    said = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    wanted = {
        "forbidden": "content-type must be a header, not a trailer",
        "line": "invalid value of header x-a",
        "type": "a header is a name and a value that are texts",
        "error": "integer division or modulo by zero",
    }
    assert len(said) == 4
    assert all(text.startswith(wanted[kind]) for text in said)


async def test_real_clients_take_them(certs: Certificates, summed: Summed, tmp_path: Path) -> None:
    """curl shows them behind its headers on both protocols, nghttp as a header; httpx reads on."""
    async with Running(summed.app, certs) as server:
        for version in ("--http2", "--http1.1"):
            fields = tmp_path / version
            done = await run(
                "curl", "-sS", "--cacert", str(certs.ca), version, "-H", "TE: trailers",
                "-D", str(fields), f"{server.url}/stream",
            )  # fmt: skip
            assert (done.code, done.stdout) == (0, summed.content), done.stderr
            assert f"x-sum: {summed.sum}" in fields.read_text("latin-1").lower()
        done = await run("nghttp", "-nv", f"{server.url}/pairs")
        assert "x-one: 1" in done.text
        async with httpx.AsyncClient(http2=True, verify=client_context(certs)) as client:
            for path in ("/stream", "/bytes", "/pairs"):
                response = await client.get(f"{server.url}{path}")
                assert response.status_code == 200
        await eventually(lambda: len(server.records) == 6)
    assert server.outcomes == {"COMPLETE": 6}
