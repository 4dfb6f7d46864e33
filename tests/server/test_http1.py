"""HTTP/1.1 by the byte: framing, order, persistence, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from h2log import App, Request, Response
from h2log.access.record import Outcome
from h2log.clock import monotonic
from h2log.server.certificates import Certificates
from tests.server.wire import Http1Client
from tests.support import Running, eventually, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


def numbers() -> App:
    """Return an application that answers with what it was asked, at once, later or in pieces."""
    app = App()

    @app.get("/now/{n}")
    def now(request: Request) -> Response:
        return Response.text(request.params["n"])

    @app.get("/later/{n}")
    async def later(request: Request) -> Response:
        for _ in range(int(request.params["n"]) % 5):
            await asyncio.sleep(0)
        return Response.text(request.params["n"])

    @app.get("/pieces/{n}")
    async def pieces(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for digit in request.params["n"]:
                yield digit.encode()
                await asyncio.sleep(0)

        return Response(pieces())

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/authority")
    def authority(request: Request) -> Response:
        return Response.text(f"{request.scheme} {request.authority} {request.target}")

    return app


@BOTH_LOOPS
async def test_a_connection_is_kept(certs: Certificates) -> None:
    """Request after request, of every kind, on one connection with one session."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        for n in range(30):
            kind = ("now", "later", "pieces")[n % 3]
            answer = await client.get(f"/{kind}/{n}")
            assert (answer.status, answer.body) == (200, str(n).encode())
            assert "connection" not in answer.headers
    assert len(server.sessions) == 1
    assert server.outcomes == {"COMPLETE": 30}


@BOTH_LOOPS
@pytest.mark.parametrize("kinds", [["now"], ["later"], ["pieces"], ["now", "later", "pieces"]])
async def test_pipelined_requests_are_answered_in_order(
    certs: Certificates, kinds: list[str]
) -> None:
    """Five hundred in one segment: each has its answer, in its turn, and its line."""
    paths = [f"/{kinds[n % len(kinds)]}/{n}" for n in range(500)]
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(b"".join(f"GET {p} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for p in paths))
        for n in range(500):
            assert (await client.answer()).body == str(n).encode()
    assert [line.path for line in server.lines] == paths
    assert server.outcomes == {"COMPLETE": 500}


async def test_pipelined_content_is_not_taken_for_a_request(certs: Certificates) -> None:
    """Content that looks like a request is content; what follows it is the next request."""
    inner = b"GET /now/666 HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    unread = head.replace(b"/echo", b"/absent") + inner
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(
            (head + inner + chunked + unread) * 5 + b"GET /now/1 HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        for _ in range(5):
            assert (await client.answer()).body == inner
            assert (await client.answer()).body == inner
            assert (await client.answer()).status == 404
        assert (await client.answer()).body == b"1"
    assert len(server.records) == 16


@BOTH_LOOPS
async def test_a_request_in_pieces(certs: Certificates) -> None:
    """A byte at a time, the answer is the same."""
    text = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        for _ in range(2):
            for at in range(len(text)):
                client.send(text[at : at + 1])
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"abc"
    assert server.outcomes == {"COMPLETE": 2}


async def test_head_has_no_content(certs: Certificates) -> None:
    """The next response follows the header section of a HEAD at once, whatever its length says."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        for kind in ("now", "later", "pieces"):
            client.send(f"HEAD /{kind}/12345 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.send(b"GET /now/1 HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await client.answer(head=True)
            assert head.headers.get("content-length") == (None if kind == "pieces" else "5")
            assert (await client.answer()).body == b"1"
    assert [record.sent for record in server.records] == [0, 1] * 3


async def test_http10(certs: Certificates) -> None:
    """No chunks; the end of the content is the connection's; a line with 1.0."""
    async with Running(numbers(), certs) as server:
        for path, body in (("/now/12", b"12"), ("/pieces/345", b"345"), ("/later/3", b"3")):
            async with Http1Client.connect(server) as client:
                client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                text = await client.rest()
                head, _, content = text.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert content == body
                assert b"transfer-encoding" not in head.lower()
                assert b"connection: close" in head.lower()
    assert [line.version for line in server.lines] == ["1.0"] * 3


@pytest.mark.parametrize("path", ["/now/1", "/later/4", "/pieces/11"])
async def test_connection_close_closes(certs: Certificates, path: str) -> None:
    """The response says so too, and requests behind it are not answered."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        client.send(b"GET /now/2 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""
    assert server.outcomes == {"COMPLETE": 1}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("https://other.example:1/authority?x=1", "https other.example:1 /authority?x=1"),
        ("http://other.example/authority", "https other.example /authority"),
        ("HTTPS://other.example/authority?/", "https other.example /authority?/"),
        ("/authority", "https localhost /authority"),
    ],
)
async def test_a_target_in_absolute_form(certs: Certificates, target: str, told: str) -> None:
    """Its host takes the place of the Host field (RFC 9112 section 3.2.2), its path is logged."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        assert (await client.get(target)).body.decode() == told
    assert server.lines[0].path == told.split()[2]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET /now/1 HTTP/1.1"], 400),  # no host
        (["GET /now/1 HTTP/1.1", "Host: a", "Host: b"], 400),
        (["GET  /now/1 HTTP/1.1", "Host: x"], 400),
        (["/now/1 HTTP/1.1", "Host: x"], 400),
        (["GET /now/1", "Host: x"], 400),
        (["GET /now/1 HTTP/1.1", " Host: x"], 400),
        (["GET /now/1 HTTP/1.1", "Host : x"], 400),
        (["GET /now/1 HTTP/1.1", "Host: x", "X: a\x00b"], 400),
        (["GET /now/1 HTTP/1.1", "Host: x", ": empty"], 400),
        (["POST /echo HTTP/1.1", "Host: x", "Content-Length: -1"], 400),
        (["POST /echo HTTP/1.1", "Host: x", "Content-Length: +1"], 400),
        (["POST /echo HTTP/1.1", "Host: x", "Content-Length: 1_0"], 400),
        (["POST /echo HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 2"], 400),
        (["POST /echo HTTP/1.1", "Host: x", "Transfer-Encoding: gzip"], 501),
        (["POST /echo HTTP/1.1", "Host: x", "Transfer-Encoding: chunked, chunked"], 501),
    ],
)
async def test_a_bad_request_is_refused_and_the_connection_closed(
    certs: Certificates, lines: list[str], status: int
) -> None:
    """One answer, one line, MALFORMED; what follows in the same segment is not read."""
    text = "\r\n".join(lines) + "\r\n\r\n"
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(text.encode("latin-1") + b"GET /now/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
    [record] = server.records
    assert (record.status, record.outcome) == (status, Outcome.MALFORMED)


async def test_a_target_that_is_no_path_is_400(certs: Certificates) -> None:
    """Its framing is sound: the request is MALFORMED, the connection lives on."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        assert (await client.get("now/1")).status == 400
        assert (await client.get("/now/1")).status == 200
    assert server.outcomes == {"MALFORMED": 1, "COMPLETE": 1}


async def test_both_lengths_are_not_both_believed(certs: Certificates) -> None:
    """Transfer-Encoding with Content-Length (request smuggling) never yields a second request."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n0\r\n\r\nGET /now/666 HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = await client.answer()
        assert answer.status == 400 or answer.headers.get("connection") == "close"
        assert b"666" not in await client.rest()


async def test_what_follows_a_good_request_may_be_bad(certs: Certificates) -> None:
    """The good one is answered, then the bad one with 400, each with its line."""
    async with Running(numbers(), certs) as server, Http1Client.connect(server) as client:
        client.send(b"GET /later/4 HTTP/1.1\r\nHost: x\r\n\r\nGET /bad\x01 HTTP/1.1\r\n\r\n")
        assert (await client.answer()).body == b"4"
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
    assert [(line.status, line.path) for line in server.lines] == [
        (200, "/later/4"),
        (400, "/bad\x01"),
    ]


async def test_an_idle_connection_is_closed(certs: Certificates) -> None:
    """After `idle_timeout`, without a line, whether it was used before or never."""
    async with (
        Running(numbers(), certs) as server,
        Http1Client.connect(server) as used,
        Http1Client.connect(server) as never,
    ):
        assert (await used.get("/now/1")).status == 200
        await eventually(lambda: len(server.shared.legs) == 2)
        for leg in list(server.shared.legs):
            leg.tick(monotonic() + server.shared.limits.idle_timeout + 1)
        assert await used.rest() == b""
        assert await never.rest() == b""
    assert server.outcomes == {"COMPLETE": 1}


async def test_a_busy_connection_is_not_idle(certs: Certificates) -> None:
    """A request that takes longer than every time limit for clients is answered."""
    app = numbers()
    gate = asyncio.Event()

    @app.get("/gate")
    async def wait(request: Request) -> Response:
        await gate.wait()
        return Response.text("open")

    async with (
        Running(app, certs) as server,
        Http1Client.connect(server) as client,
    ):
        client.send(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: server.shared.dispatcher.tasks)
        [leg] = server.shared.legs
        leg.tick(monotonic() + 1_000_000)
        gate.set()
        assert (await client.answer()).body == b"open"


async def test_curl_reuses_its_connection(certs: Certificates) -> None:
    """Three URLs of one command line: one session, three requests."""
    async with Running(numbers(), certs) as server:
        urls = [f"{server.url}/{kind}/7" for kind in ("now", "later", "pieces")]
        done = await run("curl", "-sS", "--http1.1", "--cacert", str(certs.ca), *urls)
        assert done.text == "777"
    assert len({line.session for line in server.lines}) == 1
    assert [line.version for line in server.lines] == ["1.1"] * 3
