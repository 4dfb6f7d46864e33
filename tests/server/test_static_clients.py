"""Static files as other programs see them: curl, nghttp, httpx, and Python's http.client."""

from __future__ import annotations

import asyncio
import email
import gzip
import http.client
import os
import re
from pathlib import Path

import httpx
import pytest

from h2log import App
from h2log.app.files.compression import makeable
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.support import Done, Running, client_context, run, tool

PAGE = b"".join(b"<p>The way of request %d.</p>\n" % n for n in range(2000))
LARGE = os.urandom(300_000) * 3
STYLE = b"p{color:#123}\n" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a page, its style sheet and picture, and a large file."""
    root = tmp_path / "site"
    root.mkdir()
    head = b"<!doctype html><head><link rel=stylesheet href=/style.css></head>"
    (root / "index.html").write_bytes(head + b"<img src=/picture.png>" + PAGE)
    (root / "page.html").write_bytes(PAGE)
    (root / "style.css").write_bytes(STYLE)
    (root / "picture.png").write_bytes(os.urandom(5000))
    (root / "large.bin").write_bytes(LARGE)
    (root / "guide.html").write_bytes(b"guide")
    return root


def site(folder: Path) -> App:
    """Return an application that serves the folder."""
    app = App()
    app.static(folder, early_hints=True, listing=True)
    return app


async def curl(server: Running, certs: Certificates, path: str, *arguments: str) -> Done:
    """Run curl."""
    done = await run("curl", "-sS", "--cacert", str(certs.ca), *arguments, f"{server.url}{path}")
    assert done.code == 0, done.stderr
    return done


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("coding", [*makeable(), "identity"])
async def test_curl_decodes_each_coding(
    certs: Certificates, folder: Path, tmp_path: Path, version: str, coding: str
) -> None:
    """By its own libraries, from disk and from memory."""
    heads = tmp_path / "heads"
    features = (await run("curl", "-V")).text
    wanted = {"br": "brotli", "zstd": "zstd"}.get(coding, "libz")
    if wanted not in features:
        pytest.skip(f"curl without {wanted}")
    async with Running(site(folder), certs) as server:
        for _ in range(2):
            done = await curl(server, certs, "/page.html", version, "--compressed",
                              "-H", f"Accept-Encoding: {coding}", "-D", str(heads))  # fmt: skip
            assert done.stdout == PAGE
            found = re.search(r"^content-encoding: (\w+)", heads.read_text(), re.MULTILINE)
            assert (found[1] if found else "identity") == coding
    sizes = {record.sent for record in server.records}
    assert len(sizes) == 1
    assert (sizes == {len(PAGE)}) is (coding == "identity")


async def test_a_browser_s_wish_is_answered_the_short_way(
    certs: Certificates, folder: Path
) -> None:
    """From memory, encoded, without a task: as a request without codings is."""
    app = App()
    app.static(folder)
    accepts = ("accept-encoding", "gzip, deflate, br, zstd")
    async with Running(app, certs) as server, H2Client.connect(server) as client:
        replies = [await client.get("/style.css", accepts) for _ in range(3)]
        plain = await client.get("/style.css")
        again = await client.get("/style.css")
    assert {reply.headers["content-encoding"] for reply in replies} == {makeable()[0]}
    assert len({bytes(reply.body) for reply in replies}) == 1
    assert bytes(plain.body) == bytes(again.body) == STYLE
    # A response that never went through a stream has no detail.
    assert [record.detail is None for record in server.records] == [
        False, True, True, False, True
    ]  # fmt: skip
    assert [record.sent for record in server.records[:3]] == [len(replies[0].body)] * 3


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_curl_gets_parts(
    certs: Certificates, folder: Path, tmp_path: Path, version: str
) -> None:
    """One, several, and the rest of what it has begun."""
    async with Running(site(folder), certs) as server:
        done = await curl(server, certs, "/page.html", version, "-r", "100-199")
        assert done.stdout == PAGE[100:200]
        for path, content in (("/page.html", PAGE), ("/large.bin", LARGE)):
            done = await curl(server, certs, path, version, "-r", "0-9,1000-1999,-5", "-i")
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            # Python's own reader of multipart.
            fields = head.partition(b"\r\n")[2]
            message = email.message_from_bytes(fields + b"\r\n\r\n" + body)
            assert message.get_content_type() == "multipart/byteranges"
            found = []
            for part in message.get_payload():
                assert isinstance(part, email.message.Message)
                found.append((part["content-range"], part.get_payload(decode=True)))
            size = len(content)
            assert found == [
                (f"bytes 0-9/{size}", content[:10]),
                (f"bytes 1000-1999/{size}", content[1000:2000]),
                (f"bytes {size - 5}-{size - 1}/{size}", content[-5:]),
            ]
        out = tmp_path / f"begun{version}"
        out.write_bytes(LARGE[:123_456])
        await curl(server, certs, "/large.bin", version, "-C", "-", "-o", str(out))
        assert out.read_bytes() == LARGE
    assert {record.status for record in server.records} == {206}


async def test_curl_asks_whether_something_is_new(
    certs: Certificates, folder: Path, tmp_path: Path
) -> None:
    """By tag and by date; the tag of one coding is none of another's."""
    tag, out = tmp_path / "tag", tmp_path / "out"
    encoded = ("-H", "Accept-Encoding: gzip")
    async with Running(site(folder), certs) as server:
        await curl(server, certs, "/page.html", "--etag-save", str(tag), *encoded, "-o", str(out))
        assert gzip.decompress(out.read_bytes()) == PAGE
        for more in (encoded, ()):
            await curl(server, certs, "/page.html", "--etag-compare", str(tag), *more,
                       "-o", str(out))  # fmt: skip
        await curl(server, certs, "/page.html", "-R", "-o", str(out))
        await curl(server, certs, "/page.html", "-z", str(out))
    assert [record.status for record in server.records] == [200, 304, 200, 200, 304]


@pytest.mark.parametrize(("version", "told"), [("--http2", True), ("--http1.1", False)])
async def test_curl_is_told_style_sheets_early(
    certs: Certificates, folder: Path, tmp_path: Path, version: str, told: bool
) -> None:
    """103 before the page over HTTP/2; with the page either way; one line each."""
    link = "link: </style.css>; rel=preload; as=style"
    heads = tmp_path / "heads"
    async with Running(site(folder), certs) as server:
        for _ in range(2):
            await curl(server, certs, "/", version, "-D", str(heads), "-o", os.devnull)
            sections = heads.read_text().strip().split("\n\n")
            codes = [section.split()[1] for section in sections]
            assert codes == (["103", "200"] if told else ["200"])
            assert all(link in section for section in sections)
    assert [record.status for record in server.records] == [200, 200]


async def test_nghttp_gets_a_page_and_all_that_is_on_it(certs: Certificates, folder: Path) -> None:
    """Its table of what it got: everything 200, and compressed what can be."""
    async with Running(site(folder), certs) as server:
        done = await run("nghttp", "-ans", f"{server.url}/")
        assert done.code == 0, done.stderr
    rows = {row[-1]: row for line in done.text.splitlines() if (row := line.split())[-3:-2]}
    got = {path: rows[path][-3] for path in ("/", "/style.css", "/picture.png")}
    assert got == dict.fromkeys(got, "200")
    sent = {record.facts.path: record.sent for record in server.records}
    assert sent["/"] < len(PAGE) / 2
    assert sent["/style.css"] < len(STYLE) / 2
    assert sent["/picture.png"] == 5000


async def test_httpx_agrees(certs: Certificates, folder: Path) -> None:
    """Over HTTP/2, with its own choice of codings; clean address, redirect, 404, listing."""
    context = client_context(certs)
    async with (
        Running(site(folder), certs) as server,
        httpx.AsyncClient(http2=True, verify=context) as client,
    ):
        client.base_url = httpx.URL(server.url)
        for _ in range(2):
            reply = await client.get("/page.html")
            assert (reply.http_version, reply.status_code) == ("HTTP/2", 200)
            assert reply.content == PAGE
            assert "content-encoding" in reply.headers
        again = await client.get("/page.html", headers={"if-none-match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.get("/guide")).content == b"guide"
        assert (await client.get("/nothing")).status_code == 404
        part = await client.get("/large.bin", headers={"range": "bytes=-10"})
        assert (part.status_code, part.content) == (206, LARGE[-10:])
        (folder / "files").mkdir()
        (folder / "files" / "a b").write_bytes(b"x")
        found = await client.get("/files/", headers={"accept": "application/json"})
        assert [item["href"] for item in found.json()] == ["./a%20b"]


async def test_http_client_agrees(certs: Certificates, folder: Path) -> None:
    """Python's own, over HTTP/1.1, one connection for all of it."""

    def talk(port: int) -> None:
        connection = http.client.HTTPSConnection(
            "localhost", port, context=client_context(certs), timeout=10
        )
        for _ in range(2):
            connection.request("GET", "/page.html", headers={"Accept-Encoding": "gzip"})
            reply = connection.getresponse()
            body = reply.read()
            assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip")
            assert reply.headers["vary"] == "accept-encoding"
            assert gzip.decompress(body) == PAGE
        connection.request("GET", "/page.html", headers={"If-None-Match": reply.headers["etag"]})
        reply = connection.getresponse()  # without a coding it is another representation
        assert (reply.status, reply.read()) == (200, PAGE)
        connection.request("HEAD", "/page.html", headers={"Accept-Encoding": "gzip"})
        reply = connection.getresponse()
        assert (reply.read(), int(reply.headers["content-length"])) == (b"", len(body))
        connection.request("GET", "/large.bin", headers={"Range": "bytes=0-9,200-299"})
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 206
        assert len(body) == int(reply.headers["content-length"])
        for piece in (LARGE[:10], LARGE[200:300]):
            assert piece in body
        connection.request("GET", "/page.html", headers={"Range": "bytes=99999999-"})
        reply = connection.getresponse()
        reply.read()
        assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(PAGE)}")
        connection.close()

    async with Running(site(folder), certs) as server:
        await asyncio.to_thread(talk, server.port)
    assert [record.status for record in server.records] == [200, 200, 200, 200, 206, 416]
    assert len({record.session.id for record in server.records}) == 1


async def test_chromium_shows_a_page_with_its_style(
    certs: Certificates, folder: Path, tmp_path: Path
) -> None:
    """A real browser: the page and its style sheet arrive encoded, and it applies them."""
    head = '<!doctype html><head><link rel=stylesheet href="/style.css"></head>'
    script = "<script>document.title=getComputedStyle(document.querySelector('p')).color</script>"
    (folder / "index.html").write_text(f"{head}<p>hello</p>{script}" + " " * 2000)
    tool("chromium")
    async with Running(site(folder), certs) as server:
        done = await run(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--ignore-certificate-errors", f"--user-data-dir={tmp_path}/chromium",
            "--disable-dev-shm-usage", f"{server.url}/", timeout=60,
        )  # fmt: skip
        assert "<title>rgb(17, 34, 51)</title>" in done.text, done.stderr[-2000:]
    sent = {record.facts.path: record for record in server.records}
    assert sent["/style.css"].status == 200
    assert sent["/style.css"].sent < len(STYLE) / 2
