"""The access line of a request, whatever way it came and however it ended."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from h2log import App, HTTPError, Request, Response
from h2log.access.formats import h2log_format
from h2log.access.lines import parse
from h2log.access.record import Outcome
from h2log.cli.serve import SAMPLE_SITE
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client, RawClient, get_fields
from tests.support import Process, Running, client_context, poll, run

ID = re.compile(r"[0-9a-f]{32}").fullmatch
BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
ARTICLE = "/article/a2e12610c3f94d0b8e7f5a4b3c2d1e0f/06-request.html"


def site() -> App:
    """Return the sample articles, with a route beside them."""
    app = App()
    app.static(SAMPLE_SITE)

    @app.get("/teapot")
    def teapot(request: Request) -> Response:
        raise HTTPError(418)

    return app


@BOTH_LOOPS
async def test_a_line_has_seven_columns(certs: Certificates) -> None:
    """Timestamp, status, milliseconds, session id, request id, version, path: tab separated."""
    async with Running(site(), certs) as server, H2Client.connect(server) as client:
        assert (await client.get(ARTICLE)).status == 200
        assert (await client.get("/teapot")).status == 418
    columns = [h2log_format()(record).rstrip("\n").split("\t") for record in server.records]
    assert [len(line) for line in columns] == [7, 7]
    assert [(line[1], line[5], line[6]) for line in columns] == [
        ("200", "h2", ARTICLE),
        ("418", "h2", "/teapot"),
    ]
    assert all(ID(line[3]) and ID(line[4]) for line in columns)
    assert all(0 <= float(line[2]) < 5000 for line in columns)


@BOTH_LOOPS
async def test_the_client_is_told_the_request_id_of_the_line(certs: Certificates) -> None:
    """`x-request-id` is the request id of the line: over HTTP/2 and 1.1, files, errors, routes."""
    paths = [ARTICLE, ARTICLE, "/nothing-here", "/teapot", "/image/rosette.png"]
    told = []
    async with (
        Running(site(), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for path in paths:
            told.append((await two.get(path)).headers["x-request-id"])
            told.append((await one.get(path)).headers["x-request-id"])
    assert told == [line.request for line in server.lines]
    assert len(set(told)) == 2 * len(paths)


async def test_a_session_is_a_connection(certs: Certificates) -> None:
    """Requests of one connection share a session id, those of another have their own."""
    async with Running(site(), certs) as server:
        async with H2Client.connect(server) as a, Http1Client.connect(server) as b:
            for _ in range(3):
                await a.get("/")
                await b.get("/")
        async with H2Client.connect(server) as c:
            await c.get("/")
    sessions = [line.session for line in server.lines]
    assert sessions[:6] == [sessions[0], sessions[1]] * 3
    assert len(set(sessions)) == 3
    assert [line.version for line in server.lines] == ["h2", "1.1"] * 3 + ["h2"]


async def test_ids_of_a_session_sort_in_the_order_of_its_requests(certs: Certificates) -> None:
    """Request ids are made in order, so that sorting lines by them restores it."""
    async with Running(site(), certs) as server, H2Client.connect(server) as client:
        for _ in range(50):
            await client.get("/style.css")
    ids = [line.request for line in server.lines]
    assert ids == sorted(ids)
    assert server.lines[0].session < ids[0]


@pytest.mark.parametrize(
    ("arguments", "version"),
    [
        (["--http2"], "h2"),
        (["--http1.1"], "1.1"),
        (["--http1.0"], "1.0"),
        (["--no-alpn"], "1.1"),
    ],
)
async def test_the_version_column_is_what_curl_spoke(
    certs: Certificates, arguments: list[str], version: str
) -> None:
    """h2, 1.1 or 1.0; without ALPN it is HTTP/1.1."""
    async with Running(site(), certs) as server:
        done = await run(
            "curl", "-sS", "--cacert", str(certs.ca), *arguments, "-D-", f"{server.url}{ARTICLE}"
        )
        assert done.code == 0, done.stderr
    [line] = server.lines
    assert (line.status, line.version, line.path) == (200, version, ARTICLE)
    assert f"x-request-id: {line.request}" in done.text
    assert done.stdout.endswith((SAMPLE_SITE / ARTICLE[1:]).read_bytes())


async def test_nghttp_and_httpx_agree_with_the_line(certs: Certificates) -> None:
    """Two more clients get the article, and the id that is in its line."""
    async with Running(site(), certs) as server:
        done = await run("nghttp", "-v", "--no-dep", f"{server.url}{ARTICLE}")
        assert done.code == 0, done.stderr
        async with httpx.AsyncClient(http2=True, verify=client_context(certs)) as client:
            response = await client.get(f"{server.url}{ARTICLE}?from=httpx")
    first, second = server.lines
    assert f"x-request-id: {first.request}" in done.text
    assert (response.http_version, response.status_code) == ("HTTP/2", 200)
    assert response.headers["x-request-id"] == second.request
    assert second.path == f"{ARTICLE}?from=httpx"


async def test_the_path_has_its_query(certs: Certificates) -> None:
    """The query stands in the line as it was sent, also of a file from memory."""
    asked = ["/?", "/?a=1&b=%20", "/style.css?x#y", "/missing?q=%0A", "/?" + "v" * 3000]
    async with Running(site(), certs) as server, H2Client.connect(server) as client:
        for path in asked * 2:
            await client.get(path)
    assert [line.path for line in server.lines] == asked * 2


@pytest.mark.parametrize(
    ("fields", "logged"),
    [
        (get_fields(b"/a\nb"), "/a\\x0Ab"),
        (get_fields(b"/a\tb\r"), "/a\\x09b\\x0D"),
        (get_fields(b"/\x00\x1b[2J"), "/\\x00\\x1B[2J"),
        (get_fields(b"/a b"), "/a b"),
        (get_fields(b"/x\x7f"), "/x\\x7F"),
        (get_fields(b"/ok", (b"Upper", b"x")), "/ok"),
        (get_fields(b"/ok", (b"connection", b"close")), "/ok"),
        (get_fields(b"/ok", (b"x", b"a\r\nb")), "/ok"),
        (get_fields(b"/ok", (b":late", b"x")), "/ok"),
        (get_fields(b""), "localhost"),
        (get_fields(b"no-slash"), "no-slash"),
        ([(b":method", b"GET")], "-"),
        ([(b":path", b"/only")], "/only"),
    ],
)
async def test_a_malformed_request_is_one_escaped_line(
    certs: Certificates, fields: list[tuple[bytes, bytes]], logged: str
) -> None:
    """It has status `-` and outcome MALFORMED; its stream is reset, its neighbours are served."""
    async with Running(site(), certs) as server, RawClient.connect(server) as client:
        client.headers(1, fields)
        assert (await client.expect(3, 1)).code == 1  # RST_STREAM, PROTOCOL_ERROR
        client.get(3, b"/style.css")
        await client.expect(0, 3, flags=1)
    bad, good = server.records
    assert (bad.outcome, bad.status, good.outcome) == (Outcome.MALFORMED, 0, Outcome.COMPLETE)
    columns = h2log_format()(bad).rstrip("\n").split("\t")
    assert (columns[1], columns[6]) == ("-", logged)


async def test_bytes_above_ascii_are_escaped(certs: Certificates) -> None:
    r"""Raw UTF-8, and a backslash, stand as `\xHH` and are read back as the bytes they were."""
    async with Running(site(), certs) as server, RawClient.connect(server) as client:
        client.get(1, "/ä\\x0A/€".encode())
        assert client.fields(await client.expect(1, 1))[":status"] == "404"
    text = h2log_format()(server.records[0]).rstrip("\n")
    assert text.endswith("\t/\\xC3\\xA4\\x5Cx0A/\\xE2\\x82\\xAC")
    assert parse(text).path.encode("latin-1") == "/ä\\x0A/€".encode()


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b"GET /a\x01b HTTP/1.1\r\nHost: x\r\n\r\n", "/a\\x01b"),
        (b"GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n", "/a\\x09b"),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", "/\\xC3\\xA4"),
        (b"GET /\x1b]0;x\x07 HTTP/1.1\r\nHost: x\r\n\r\n", "/\\x1B]0;x\\x07"),
        (b"GET /no-host HTTP/1.1\r\n\r\n", "/no-host"),
        (b"GET /bad-field HTTP/1.1\r\nHost: x\r\nbad field: x\r\n\r\n", "/bad-field"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "-"),
        (b"nonsense\r\n\r\n", "-"),
    ],
)
async def test_a_bad_request_of_http1_is_one_escaped_line(
    certs: Certificates, sent: bytes, logged: str
) -> None:
    """It is answered with 400 and the id of its line, and the connection is closed."""
    async with Running(site(), certs) as server, Http1Client.connect(server) as client:
        client.send(sent)
        answer = await client.answer()
        assert await client.rest() == b""
    [record] = server.records
    columns = h2log_format()(record).rstrip("\n").split("\t")
    assert (columns[1], columns[6], record.outcome) == ("400", logged, Outcome.MALFORMED)
    assert (answer.status, answer.headers["x-request-id"]) == (400, record.id)


@pytest.mark.parametrize("version", ["1.2", "1.9", "2.0", "3.0", "0.9"])
async def test_another_version_in_the_request_line_has_a_line_that_parses(
    certs: Certificates, version: str
) -> None:
    """A higher minor version is served as 1.1, another major one is 505 or 400 (RFC 9110, 2.5)."""
    async with Running(site(), certs) as server, Http1Client.connect(server) as client:
        client.send(f"GET /style.css HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        answer = await client.answer()
    [line] = server.lines  # parsing is half of the proof
    assert line.version in ("1.1", "1.0", "-")
    assert line.status == answer.status
    assert answer.status in ((200, 400, 505) if version.startswith("1.") else (400, 505))


async def test_a_header_section_that_is_too_large_is_431(certs: Certificates) -> None:
    """Too many bytes or too many fields: 431 and a line, over both protocols."""
    many = [(f"x-{n}", "v") for n in range(101)]
    large = [("x-large", "v" * 15000), ("x-larger", "w" * 15000), ("x-largest", "u" * 15000)]
    async with Running(site(), certs) as server:
        async with H2Client.connect(server) as two:
            assert (await two.get("/many", *many)).status == 431
            assert (await two.get("/large", *large)).status == 431
            assert (await two.get("/style.css")).status == 200
        for name, fields in (("/many", many), ("/large", large)):
            async with Http1Client.connect(server) as one:
                answer = await one.get(name, *[f"{k}: {v}" for k, v in fields])
                assert (answer.status, answer.headers["x-request-id"]) == (
                    431,
                    server.records[-1].id,
                )
    assert [(line.status, line.path) for line in server.lines] == [
        (431, "/many"),
        (431, "/large"),
        (200, "/style.css"),
        (431, "/many"),
        (431, "/large"),
    ]


async def test_a_header_that_does_not_end_is_408(certs: Certificates) -> None:
    """The line has what could be read of the request line, and the outcome TIMEOUT."""
    async with (
        Running(site(), certs, header_timeout=0.2) as server,
        Http1Client.connect(server) as client,
    ):
        client.send(b"GET /slow\x01loris HTTP/1.1\r\nHost: x\r\nX-More: ")
        answer = await client.answer()
        assert await client.rest() == b""
    [record] = server.records
    assert (answer.status, record.outcome) == (408, Outcome.TIMEOUT)
    assert answer.headers["x-request-id"] == record.id
    assert server.lines[0].path == "/slow\x01loris"


def test_the_file_has_the_lines(certs: Certificates, tmp_path: Path) -> None:
    """`serve` appends each request's line to its access log while it runs."""
    with Process("serve", certs=certs, log=tmp_path / "logs" / "access.log") as server:
        done = asyncio.run(
            run("curl", "-sS", "--cacert", str(certs.ca), "-D-", f"{server.url}{ARTICLE}")
        )
        assert done.code == 0, done.stderr
        poll(lambda: server.lines)
        [line] = server.lines
        assert f"x-request-id: {line.request}" in done.text
        assert (line.status, line.version, line.path) == (200, "h2", ARTICLE)
        assert server.stop() == 0
