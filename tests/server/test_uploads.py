"""Content that clients send: small and large, with flow control, limits and trailers."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from h2log import App, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import HEADERS, RST_STREAM, Http1Client, RawClient
from tests.support import Running, eventually, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
POST = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x")]


class Uploads:
    """An application that reads, or does not."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = 0
        self.app = App()
        self.app.post("/digest")(self.digest)
        self.app.post("/pieces")(self.pieces)
        self.app.post("/gated")(self.gated)
        self.app.post("/unread")(self.unread)
        self.app.get("/ok")(lambda request: Response.text("ok"))

    async def digest(self, request: Request) -> Response:
        body = await request.body()
        assert await request.body() is body
        return Response.text(f"{len(body)} {hashlib.sha256(body).hexdigest()}")

    async def pieces(self, request: Request) -> Response:
        found, size = hashlib.sha256(), 0
        async for piece in request.stream():
            assert piece
            found.update(piece)
            size += len(piece)
        return Response.text(f"{size} {found.hexdigest()}")

    async def gated(self, request: Request) -> Response:
        self.entered += 1
        await self.open.wait()
        return await self.pieces(request)

    def unread(self, request: Request) -> Response:
        return Response.text("not interested")


def summary(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


@BOTH_LOOPS
@pytest.mark.parametrize("path", ["/digest", "/pieces"])
async def test_content_of_every_size_arrives_whole(certs: Certificates, path: str) -> None:
    """From nothing to twelve windows, over both protocols, with and without a length."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for size in (0, 1, 16_384, 65_535, 65_536, 3 * 1024 * 1024):
            body = os.urandom(size)
            reply = await two.request("POST", path, body=body)
            assert (reply.status, bytes(reply.body)) == (200, summary(body))
            length = ("content-length", str(size))
            reply = await two.request("POST", path, [length], body=body)
            assert bytes(reply.body) == summary(body)
            one.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
            one.send(body)
            assert (await one.answer()).body == summary(body)
            one.send(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            for at in range(0, size, 70_001):
                piece = body[at : at + 70_001]
                one.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            one.send(b"0\r\n\r\n")
            assert (await one.answer()).body == summary(body)
    sizes = [record.received for record in server.records]
    assert sizes == [s for s in (0, 1, 16_384, 65_535, 65_536, 3 * 1024 * 1024) for _ in range(4)]


async def test_many_uploads_share_a_connection(certs: Certificates) -> None:
    """Their streams' windows are kept apart, and each content is its own."""
    uploads = Uploads()
    bodies = [os.urandom(400_000 + n) for n in range(10)]
    async with Running(uploads.app, certs) as server, H2Client.connect(server) as client:
        streams = [client.send("POST", "/pieces", end=False) for _ in bodies]
        for at in range(0, 500_000, 50_000):
            for stream, body in zip(streams, bodies, strict=True):
                await client.send_body(stream, body[at : at + 50_000], end=False)
        for stream in streams:
            client.conn.end_stream(stream)
        client.flush()
        for stream, body in zip(streams, bodies, strict=True):
            assert bytes((await client.reply(stream)).body) == summary(body)
    assert server.outcomes == {"COMPLETE": 10}


async def test_a_handler_that_does_not_read_stops_its_client(certs: Certificates) -> None:
    """Unread content is bounded by the stream's window on h2, by a read-ahead on 1.1."""
    uploads = Uploads()
    body = os.urandom(8 * 1024 * 1024)
    async with (
        Running(uploads.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        stream = two.send("POST", "/gated", end=False)
        await eventually(lambda: uploads.entered == 1)
        sending = asyncio.create_task(two.send_body(stream, body))
        await eventually(lambda: two.conn.local_flow_control_window(stream) == 0)
        one.send(b"POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        one.send(body)
        await eventually(lambda: uploads.entered == 2)
        [leg] = [leg for leg in server.shared.legs if leg not in server.h2_legs]
        await eventually(lambda: getattr(leg, "_paused", False))
        assert 0 < getattr(leg, "_reply").unread <= 1024 * 1024  # noqa: B009
        assert not sending.done()
        uploads.open.set()
        await sending
        assert bytes((await two.reply(stream)).body) == summary(body)
        assert (await one.answer()).body == summary(body)
    assert [record.received for record in server.records] == [len(body)] * 2


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("size", [10, 5_000_000])
async def test_curl_uploads(certs: Certificates, tmp_path: Path, version: str, size: int) -> None:
    """With a length and without, and with Expect: 100-continue, which curl waits for."""
    body = os.urandom(size)
    (tmp_path / "body").write_bytes(body)
    uploads = Uploads()
    async with Running(uploads.app, certs) as server:
        for fields in ([], ["-H", "Expect: 100-continue", "--expect100-timeout", "20"]):
            for data in (["--data-binary", f"@{tmp_path}/body"], ["-T", f"{tmp_path}/body"]):
                done = await run(
                    "curl", "-sS", "--cacert", str(certs.ca), version, *fields, *data,
                    "-X", "POST", f"{server.url}/pieces", timeout=15,
                )  # fmt: skip
                assert (done.stdout, done.stderr) == (summary(body), "")
    assert [record.received for record in server.records] == [size] * 4


async def test_a_client_that_expects_100_is_told(certs: Certificates) -> None:
    """100 (Continue) comes once the handler reads, on both protocols (RFC 9110, 10.1.1)."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        one.send(
            b"POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        await eventually(lambda: uploads.entered == 1)
        uploads.open.set()
        assert (await one.answer()).status == 100
        one.send(b"abc")
        assert (await one.answer()).body == summary(b"abc")
        stream = two.send("POST", "/digest", [("expect", "100-continue")], end=False)
        await two.until(lambda: two.replies[stream].interim == [100], 3)
        await two.send_body(stream, b"abc")
        assert bytes((await two.reply(stream)).body) == summary(b"abc")
    assert server.outcomes == {"COMPLETE": 2}


async def test_a_refusal_spares_the_client_its_content(certs: Certificates) -> None:
    """A client that expects 100 is answered without it when nobody wants the content."""
    uploads = Uploads()
    async with Running(uploads.app, certs) as server, Http1Client.connect(server) as client:
        client.send(
            b"POST /unread HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_too_much_by_its_length_is_413(certs: Certificates) -> None:
    """Before any content is read; on h2 the connection lives on, on 1.1 little is kept reading."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs, max_body_bytes=10_000) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.request(
            "POST", "/digest", [("content-length", "10001")], body=bytes(10_001)
        )
        assert reply.status == 413
        assert (await two.get("/ok")).status == 200
        one.send(b"POST /digest HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n")
        assert (await one.answer()).status == 413
        one.send(bytes(10_001))
        assert (await one.get("/ok")).status == 200
    assert [record.status for record in server.records] == [413, 200, 413, 200]


async def test_too_much_while_it_streams_is_413(certs: Certificates) -> None:
    """Without a length the limit is found on the way; the h2 connection lives on."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs, max_body_bytes=100_000) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for path in ("/digest", "/pieces"):
            stream = two.send("POST", path, end=False)
            await two.send_body(stream, bytes(3_000_000))
            assert (await two.reply(stream)).status == 413
        body = os.urandom(90_000)
        assert bytes((await two.request("POST", "/digest", body=body)).body) == summary(body)
        one.send(b"POST /digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(12):
            one.send(b"2710\r\n" + bytes(10_000) + b"\r\n")
        assert (await one.answer()).status == 413
    assert [record.status for record in server.records] == [413, 413, 200, 413]


async def test_curl_is_told_413_whatever_it_sends(certs: Certificates, tmp_path: Path) -> None:
    """The response arrives though far more content is on its way than anyone reads."""
    path = tmp_path / "huge"
    path.write_bytes(bytes(20 * 1024 * 1024))
    uploads = Uploads()
    async with Running(uploads.app, certs) as server:
        for version in ("--http2", "--http1.1"):
            for expect in ("Expect:", "Expect: 100-continue"):
                done = await run(
                    "curl", "-sS", "--cacert", str(certs.ca), version, "-H", expect,
                    "--data-binary", f"@{path}", "-w", "%{http_code}", "-o", os.devnull,
                    f"{server.url}/digest",
                )  # fmt: skip
                assert done.text == "413", (version, expect, done.stderr)


async def test_unwanted_content_does_not_cost_the_connection(certs: Certificates) -> None:
    """A handler that answers without reading leaves the connection usable, on both protocols."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for _ in range(3):
            reply = await two.request("POST", "/unread", body=bytes(500_000))
            assert reply.status == 200
            one.send(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
            one.send(bytes(500_000))
            assert (await one.answer()).body == b"not interested"
        assert (await two.get("/ok")).status == 200
        assert (await one.get("/ok")).status == 200
    assert server.outcomes == {"COMPLETE": 8}
    assert len(server.sessions) == 2


async def test_trailers_end_the_content(certs: Certificates) -> None:
    """A trailer section after the content is accepted on both protocols."""
    uploads = Uploads()
    async with (
        Running(uploads.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        stream = two.send("POST", "/digest", end=False)
        await two.send_body(stream, b"abc", end=False)
        two.conn.send_headers(stream, [("x-checksum", "1")], end_stream=True)
        two.flush()
        assert bytes((await two.reply(stream)).body) == summary(b"abc")
        one.send(b"POST /digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        one.send(b"3\r\nabc\r\n0\r\nX-Checksum: 1\r\n\r\n")
        assert (await one.answer()).body == summary(b"abc")
        assert (await one.get("/ok")).status == 200


async def test_bad_trailers_are_their_streams_error(certs: Certificates) -> None:
    """A pseudo-header, or no END_STREAM: the request is MALFORMED, its neighbour is served."""
    uploads = Uploads()
    async with Running(uploads.app, certs) as server, RawClient.connect(server) as client:
        for stream, fields, end in ((1, [(b":path", b"/x")], True), (3, [(b"a", b"b")], False)):
            client.headers(stream, [*POST, (b":path", b"/digest")], end=False)
            client.headers(stream, fields, end=end)
            assert (await client.expect(RST_STREAM, stream)).code == 1
        client.headers(5, [*POST, (b":path", b"/unread")])
        await client.expect(HEADERS, 5)
    assert server.outcomes == {"MALFORMED": 2, "COMPLETE": 1}
