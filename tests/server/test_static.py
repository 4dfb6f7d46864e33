"""Static files over the wire: fields, conditions, ranges, and files that change."""

from __future__ import annotations

import asyncio
import os
from email.utils import formatdate
from pathlib import Path

import pytest

from h2log import App
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client, Reply
from tests.server.wire import Http1Client
from tests.support import PATIENCE, Running, run

TEXT = b"0123456789" * 10
WHEN = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each."""
    files = {
        "index.html": b"<h1>home</h1>",
        "404.html": b"<h1>lost</h1>",
        "sub/index.html": b"<h1>sub</h1>",
        "empty/readme.txt": b"no index here",
        "digits.txt": TEXT,
        "zero.txt": b"",
        "page.html": b"<p>",
        "style.css": b"p{}",
        "code.js": b"1",
        "mod.mjs": b"1",
        "data.json": b"{}",
        "pic.svg": b"<svg/>",
        "pic.png": b"\x89PNG",
        "font.woff2": b"w",
        "prog.wasm": b"\0asm",
        "a.tar.gz": b"gz",
        "unknown.qqq": b"?",
        "noext": b"?",
        "ümlaut und raum.txt": b"name",
    }
    root = tmp_path / "site"
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (WHEN, WHEN))
    return root


def site(folder: Path, at: str = "/") -> App:
    """Return an application that serves a folder."""
    app = App()
    app.static(folder, at=at)
    return app


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/sub/", "text/html; charset=utf-8"),
        ("/digits.txt", "text/plain; charset=utf-8"),
        ("/zero.txt", "text/plain; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/code.js", "text/javascript; charset=utf-8"),
        ("/mod.mjs", "text/javascript; charset=utf-8"),
        ("/data.json", "application/json; charset=utf-8"),
        ("/pic.svg", "image/svg+xml; charset=utf-8"),
        ("/pic.png", "image/png"),
        ("/font.woff2", "font/woff2"),
        ("/prog.wasm", "application/wasm"),
        ("/a.tar.gz", "application/gzip"),
        ("/unknown.qqq", "application/octet-stream"),
        ("/noext", "application/octet-stream"),
        ("/%C3%BCmlaut%20und%20raum.txt", "text/plain; charset=utf-8"),
    ],
)
async def test_a_file_has_its_type_and_its_fields(
    certs: Certificates, folder: Path, path: str, content_type: str
) -> None:
    """Type, length, Last-Modified, ETag: the same from disk and from memory, and for HEAD."""
    async with (
        Running(site(folder), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        first = await two.get(path)
        again = await two.get(path)
        old = await one.get(path)
        head = await two.request("HEAD", path)
        old_head = await one.get(path, method="HEAD")
    body = bytes(first.body)
    assert body == bytes(again.body) == old.body
    for headers in (first.headers, again.headers, old.headers, head.headers, old_head.headers):
        assert headers["content-type"] == content_type
        assert headers["content-length"] == str(len(body))
        assert headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert headers["etag"] == first.headers["etag"]
        assert headers["accept-ranges"] == "bytes"
        assert headers["date"].endswith(" GMT")
    assert bytes(head.body) == b""
    assert [record.status for record in server.records] == [200] * 5
    assert [record.sent for record in server.records] == [len(body)] * 3 + [0, 0]


def both(reply: Reply) -> tuple[int, bytes]:
    return reply.status, bytes(reply.body)


TAG, OTHER = "TAG", '"other"'  # TAG is replaced by the file's own
BEFORE, AFTER = (formatdate(WHEN + d, usegmt=True) for d in (-10, 10))
SAME = formatdate(WHEN, usegmt=True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-none-match": TAG}, 304),
        ({"if-none-match": f"{OTHER}, {TAG}"}, 304),
        ({"if-none-match": f"W/{TAG}"}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": OTHER}, 200),
        ({"if-modified-since": SAME}, 304),
        ({"if-modified-since": AFTER}, 304),
        ({"if-modified-since": BEFORE}, 200),
        ({"if-modified-since": "nonsense"}, 200),
        ({"if-none-match": OTHER, "if-modified-since": AFTER}, 200),
        ({"if-none-match": TAG, "if-modified-since": BEFORE}, 304),
        ({"if-match": TAG}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-match": f"W/{TAG}"}, 412),
        ({"if-unmodified-since": BEFORE}, 412),
        ({"if-unmodified-since": SAME}, 200),
        ({"if-match": TAG, "if-unmodified-since": BEFORE}, 200),
        ({"if-match": OTHER, "if-none-match": TAG}, 412),
    ],
)
async def test_conditions(
    certs: Certificates, folder: Path, method: str, fields: dict[str, str], status: int
) -> None:
    """RFC 9110 section 13.2.2, before the file is in memory and after."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        etag = (await client.request("HEAD", "/style.css")).headers["etag"]
        (folder / "digits.txt").touch()
        os.utime(folder / "digits.txt", (WHEN, WHEN))
        tag = (await client.request("HEAD", "/digits.txt")).headers["etag"]
        assert tag != etag
        sent = [(name, value.replace(TAG, tag)) for name, value in fields.items()]
        for _ in range(2):
            reply = await client.request(method, "/digits.txt", sent)
            assert reply.status == status
            if status == 304:
                assert bytes(reply.body) == b""
                assert reply.headers["etag"] == tag
                assert "content-type" not in reply.headers
            elif status == 200:
                assert bytes(reply.body) == (TEXT if method == "GET" else b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=0-0", 0, 0),
        ("bytes=45-54", 45, 54),
        ("bytes=-7", 93, 99),
        ("bytes=-1000", 0, 99),
        ("bytes=90-", 90, 99),
        ("bytes=99-", 99, 99),
        ("bytes=50-1000", 50, 99),
        ("bytes = 1-2", 1, 2),
    ],
)
async def test_a_range_is_a_206_with_just_those_bytes(
    certs: Certificates, folder: Path, asked: str, first: int, last: int
) -> None:
    """First, middle, suffix, open-ended and reaching past the end: small and large files."""
    large = os.urandom(300_000)
    (folder / "large.bin").write_bytes(large[:100] + bytes(300_000))
    async with (
        Running(site(folder), certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for reply in (
            await two.get("/digits.txt", ("range", asked)),
            await two.get("/digits.txt", ("range", asked)),
            await one.get("/digits.txt", f"Range: {asked}"),
        ):
            assert (reply.status, bytes(reply.body)) == (206, TEXT[first : last + 1])
            assert reply.headers["content-range"] == f"bytes {first}-{last}/100"
            assert reply.headers["content-length"] == str(last - first + 1)
        if "=0-" in asked or asked == "bytes=45-54":
            reply = await two.get("/large.bin", ("range", asked))
            assert both(reply) == (206, large[first : last + 1])
            assert reply.headers["content-range"] == f"bytes {first}-{last}/300100"
    assert {record.status for record in server.records} == {206}


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=9999999-"])
async def test_a_range_beyond_the_end_is_416(certs: Certificates, folder: Path, asked: str) -> None:
    """With Content-Range `bytes */length`; an empty file has no ranges, and is sent whole."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        for _ in range(2):
            reply = await client.get("/digits.txt", ("range", asked))
            assert (reply.status, reply.headers["content-range"]) == (416, "bytes */100")
            empty = await client.get("/zero.txt", ("range", asked))
            assert both(empty) == (200, b"")
            assert "content-range" not in empty.headers


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,6-5", "bytes=5-2", "lines=0-1", "bytes=a-b", "bytes=", "bytes", "0-1", ""]
)
async def test_what_is_no_range_is_ignored(certs: Certificates, folder: Path, asked: str) -> None:
    """Other units and nonsense are answered with the whole file."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        for _ in range(2):
            assert both(await client.get("/digits.txt", ("range", asked))) == (200, TEXT)


async def test_if_range_decides_between_a_part_and_the_whole(
    certs: Certificates, folder: Path
) -> None:
    """The current tag or date gives the part; another one, or a weak tag, the whole."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        tag = (await client.get("/digits.txt")).headers["etag"]
        for condition, status in (
            (tag, 206),
            (SAME, 206),
            (OTHER, 200),
            (f"W/{tag}", 200),
            (BEFORE, 200),
            (AFTER, 200),
            ("nonsense", 200),
        ):
            fields = ("range", "bytes=0-4"), ("if-range", condition)
            reply = await client.get("/digits.txt", *fields)
            assert (condition, reply.status) == (condition, status)
            assert bytes(reply.body) == (TEXT[:5] if status == 206 else TEXT)


async def test_a_folder_without_its_slash_is_redirected(certs: Certificates, folder: Path) -> None:
    """308 to the slash, with the query; a folder without an index is 404."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/sub?a=1")
        assert (reply.status, reply.headers["location"]) == (308, "/sub/?a=1")
        assert (await client.get("/empty")).headers["location"] == "/empty/"
        assert both(await client.get("/empty/")) == (404, b"<h1>lost</h1>")
        done = await run("curl", "-sSL", "--cacert", str(certs.ca), f"{server.url}/sub")
        assert done.stdout == b"<h1>sub</h1>"


@pytest.mark.parametrize("path", ["//sub", "//evil.example/..", "/%2F%2Fevil.example", "///sub"])
async def test_a_redirect_never_leads_to_another_host(
    certs: Certificates, folder: Path, path: str
) -> None:
    """A location that begins with two slashes would name another host."""
    (folder / "evil.example").mkdir()
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        reply = await client.get(path)
        assert reply.status in (308, 404)
        assert not reply.headers.get("location", "/").startswith(("//", "/\\"))


async def test_the_folder_has_its_own_404_page(certs: Certificates, folder: Path) -> None:
    """`404.html` with status 404; plain text where there is none; both are logged as 404."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/no/such/page")
        assert both(reply) == (404, b"<h1>lost</h1>")
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert bytes((await client.request("HEAD", "/missing")).body) == b""
    async with (
        Running(site(folder / "sub"), certs) as server,
        H2Client.connect(server) as client,
    ):
        assert both(await client.get("/missing")) == (404, b"404 Not Found\n")


async def test_a_folder_below_a_prefix(certs: Certificates, folder: Path) -> None:
    """Only what is below the prefix is served; the longest prefix wins."""
    app = site(folder, "/files/")
    app.static(folder / "sub", at="/files/deep")
    async with Running(app, certs) as server, H2Client.connect(server) as client:
        assert both(await client.get("/files/digits.txt")) == (200, TEXT)
        assert both(await client.get("/files/deep/")) == (200, b"<h1>sub</h1>")
        assert (await client.get("/digits.txt")).status == 404
        assert (await client.get("/filesdigits.txt")).status == 404
        assert (await client.get("/files/../digits.txt")).status == 404


async def test_other_methods_are_405(certs: Certificates, folder: Path) -> None:
    """With Allow; OPTIONS says the same."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            reply = await client.request(method, "/digits.txt", body=b"x")
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        reply = await client.request("OPTIONS", "/digits.txt")
        assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("change", ["grown", "same size, later", "replaced", "removed"])
async def test_a_changed_file_is_noticed(certs: Certificates, folder: Path, change: str) -> None:
    """What is in memory is believed for about a second: then size, time and inode are compared."""
    path = folder / "digits.txt"
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        old = await client.get("/digits.txt")
        assert both(old) == (200, TEXT)
        if change == "removed":
            path.unlink()
            wanted = (404, b"<h1>lost</h1>")
        else:
            new = TEXT + b"more" if change == "grown" else TEXT[::-1]
            beside = folder / ".new"
            changed = beside if change == "replaced" else path
            changed.write_bytes(new)
            stamp = WHEN + (1 if change == "same size, later" else 0)
            os.utime(changed, (stamp, stamp))
            changed.replace(path)
            wanted = (200, new)
        async with asyncio.timeout(PATIENCE):
            while both(reply := await client.get("/digits.txt")) != wanted:
                assert both(reply) == (200, TEXT)  # the old one or the new one, never a mixture
        if change in ("grown", "same size, later"):
            assert reply.headers["etag"] != old.headers["etag"]
