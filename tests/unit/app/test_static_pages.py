"""Pages: their addresses, those that stand for errors, hints, and the fields that protect them."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from h2log.app.files.disk import Folder, Opened, Root
from h2log.app.files.rules import SECURITY
from h2log.app.response import FileContent, Response
from h2log.app.static import SMALL, StaticFolder
from h2log.errors import HTTPError, UsageError
from tests.unit.app.asking import CACHE, ask, request

HTML = "text/html; charset=utf-8"
NAVIGATION = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files; return the folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with pages."""
    return write(
        tmp_path / "site",
        {
            "index.html": "home",
            "guide.html": "guide",
            "guide/part.html": "part",
            "plain": "no page",
            "plain.html": "page",
            "sub/index.html": "sub",
            "sub/a b.html": "a b",
            "article/7/06-request.html": "request",
            "x.html.html": "twice",
            "app.js": "js",
        },
    )


# Clean URLs


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/guide", "guide"),
        ("/guide.html", "guide"),
        ("/guide?x=1", "guide"),
        ("/gu%69de", "guide"),
        ("/guide/part", "part"),
        ("/article/7/06-request", "request"),
        ("/article/7/06-request.html", "request"),
        ("/plain", "no page"),
        ("/plain.html", "page"),
        ("/index", "home"),
        ("/index.html", "home"),
        ("/sub/index", "sub"),
        ("/sub/a%20b", "a b"),
        ("/x.html", "twice"),
        ("/x.html.html", "twice"),
    ],
)
async def test_a_page_without_its_suffix(site: Path, target: str, body: str) -> None:
    """Where there is no such file; the address with the suffix is as good."""
    folder = StaticFolder(site, "/", CACHE)
    for _ in range(2):
        reply = await ask(folder, target)
        assert (reply.status, reply.body.decode()) == (200, body)
    assert reply.cache == "hit"


@pytest.mark.parametrize("target", ["/guide/", "/app", "/guide.htm", "/guide.html.html", "/sub/x"])
async def test_what_is_no_page_is_not_found(site: Path, target: str) -> None:
    """Neither another suffix, nor a slash behind a page."""
    assert (await ask(StaticFolder(site, "/", CACHE), target)).status == 404


async def test_clean_urls_off(site: Path) -> None:
    """Then names are names."""
    folder = StaticFolder(site, "/", CACHE, clean_urls=False)
    assert (await ask(folder, "/article/7/06-request")).status == 404
    assert (await ask(folder, "/guide")).headers["location"] == "/guide/"
    assert (await ask(folder, "/guide.html")).body == b"guide"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/guide.html", "/guide"),
        ("/guide.html?a=b&c", "/guide?a=b&c"),
        ("/article/7/06-request.html", "/article/7/06-request"),
        ("/index.html", "/"),
        ("/index", "/"),
        ("/sub/index.html?x", "/sub/?x"),
        ("/sub/index", "/sub/"),
        ("/sub/a%20b.html", "/sub/a%20b"),
        ("/sub", "/sub/"),
        ("/x.html.html", "/x.html"),
    ],
)
async def test_each_page_has_one_address(site: Path, target: str, location: str) -> None:
    """308 to it, and that one answers; below a prefix too."""
    folder = StaticFolder(site, "/", CACHE, clean_urls="redirect")
    reply = await ask(folder, target)
    assert (reply.status, reply.headers) == (308, {"location": location})
    assert (await ask(folder, location)).status == 200
    below = StaticFolder(site, "/docs/", CACHE, clean_urls="redirect")
    assert (await ask(below, f"/docs{target}")).headers["location"] == f"/docs{location}"


@pytest.mark.parametrize("target", ["/", "/guide", "/plain.html", "/x.html", "/app.js", "/sub/"])
async def test_what_has_no_other_address_is_answered(site: Path, target: str) -> None:
    """Also a page whose clean address is another file's."""
    folder = StaticFolder(site, "/", CACHE, clean_urls="redirect")
    assert (await ask(folder, target)).status == 200
    assert (await ask(folder, "/nothing.html")).status == 404


async def test_a_page_that_comes_and_goes(site: Path) -> None:
    """A clean address follows what is on the disk."""
    folder = StaticFolder(site, "/", CACHE)
    assert (await ask(folder, "/guide", now=0.0)).body == b"guide"
    (site / "guide.html").unlink()
    assert (await ask(folder, "/guide", now=2.0)).headers["location"] == "/guide/"
    (site / "new.html").write_text("new")
    assert (await ask(folder, "/new", now=2.0)).body == b"new"


# Pages for errors


async def test_the_page_of_a_status(site: Path) -> None:
    """`404.html` before `40x.html`; without validators, never to be kept."""
    folder = StaticFolder(site, "/", CACHE)
    assert (await ask(folder, "/nothing")).body == b""
    (site / "40x.html").write_text("something is wrong")
    assert (await ask(folder, "/nothing", now=2.0)).body == b"something is wrong"
    (site / "404.html").write_text("nothing")
    for now in (4.0, 4.1):
        reply = await ask(folder, "/nothing", now=now)
        assert (reply.status, reply.body) == (404, b"nothing")
        assert reply.headers["cache-control"] == "no-cache"
        assert not {"etag", "last-modified", "accept-ranges"} & set(reply.headers)
    assert (await ask(folder, "/nothing", "HEAD", now=4.2)).status == 404
    # Conditions and ranges are of what was asked for, which is not there.
    wanted: list[dict[str, Any]] = [
        {"if_none_match": "*"}, {"if_match": '"x"'}, {"range": "bytes=0-1"}
    ]  # fmt: skip
    for fields in wanted:
        reply = await ask(folder, "/nothing", now=4.3, **fields)
        assert (reply.status, reply.body) == (404, b"nothing")


async def test_a_page_for_an_error_is_compressed_too(site: Path) -> None:
    """As any page; by its clean address in `redirect` it is a page like others."""
    text = "nothing here " * 200
    (site / "404.html").write_text(text)
    folder = StaticFolder(site, "/", CACHE, clean_urls="redirect")
    reply = await ask(folder, "/nothing", accept_encoding="gzip")
    assert (reply.status, gzip.decompress(reply.body).decode()) == (404, text)
    assert reply.headers["vary"] == "accept-encoding"
    assert (await ask(folder, "/404.html")).headers["location"] == "/404"


async def test_pages_off(site: Path) -> None:
    """Then an error is the application's to tell."""
    (site / "404.html").write_text("nothing")
    folder = StaticFolder(site, "/", CACHE, pages=False)
    assert (await ask(folder, "/nothing")).body == b""


async def test_a_page_for_a_server_that_can_read_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`50x.html` is sent as it was at start, when there is no descriptor left to open it with."""
    (site / "50x.html").write_text("soon")
    folder = StaticFolder(site, "/", CACHE)

    def short(root: Root, file: str) -> Any:
        raise HTTPError(503)

    monkeypatch.setattr(Root, "open", short)
    for _ in range(2):
        reply = await ask(folder, "/guide")
        assert (reply.status, reply.body) == (503, b"soon")
        assert reply.headers["content-type"] == HTML


async def test_a_folder_tells_its_pages_to_others(site: Path) -> None:
    """What answers elsewhere can have the folder's page for its errors."""
    from tests.unit.app.asking import request

    (site / "50x.html").write_text("soon")
    folder = StaticFolder(site, "/", CACHE)
    page = await folder.error_page(request("/api"), 500, 0.0)
    assert page is not None
    assert (page.status, page.body) == (500, b"soon")
    assert await folder.error_page(request("/api"), 403, 0.0) is None


# One page for all


@pytest.mark.parametrize(
    ("target", "fields", "found"),
    [
        ("/users/7", {"accept": NAVIGATION}, True),
        ("/users/jane.doe", {"accept": NAVIGATION}, True),
        ("/users/7/", {"accept": NAVIGATION}, True),
        ("/users/7", {"accept": NAVIGATION, "sec_fetch_dest": "document"}, True),
        ("/users/7", {"accept": "*/*", "sec_fetch_dest": "iframe"}, True),
        ("/users/7", {}, True),
        ("/users/7", {"accept": "*/*"}, True),
        ("/users/app.js", {}, False),
        ("/users/app.js", {"accept": "*/*"}, False),
        ("/api/users", {"accept": "*/*", "sec_fetch_dest": "empty"}, False),
        ("/pictures/7", {"accept": "image/*,*/*;q=0.8", "sec_fetch_dest": "image"}, False),
        ("/api/users", {"accept": "application/json"}, False),
        ("/x", {"accept": "image/png"}, False),
        ("/.env", {"accept": NAVIGATION}, False),
        ("/..%2fx", {"accept": NAVIGATION}, False),
    ],
)
async def test_a_browser_that_goes_to_a_page_gets_the_one(
    site: Path, target: str, fields: dict[str, Any], found: bool
) -> None:
    """Not what a page fetches; what decides is in Vary, of either answer."""
    (site / "404.html").write_text("nothing")
    folder = StaticFolder(site, "/", CACHE, spa="index.html")
    for _ in range(2):
        reply = await ask(folder, target, **fields)
        assert (reply.status, reply.body) == ((200, b"home") if found else (404, b"nothing"))
        assert reply.headers["vary"] == "accept-encoding, accept, sec-fetch-dest"
    assert (await ask(folder, "/app.js")).body == b"js"
    if found:
        tag = reply.headers["etag"]
        assert (await ask(folder, target, if_none_match=tag, **fields)).status == 304


async def test_the_one_page_is_answered_where_it_is_asked_for(site: Path) -> None:
    """Also in `redirect`; when it goes away later, it is a 404."""
    folder = StaticFolder(site, "/", CACHE, spa="index.html", clean_urls="redirect")
    assert (await ask(folder, "/x")).body == b"home"
    (site / "index.html").unlink()
    assert (await ask(folder, "/x", now=2.0)).status == 404


@pytest.mark.parametrize("spa", ["app.html", "sub", "guide", "index.html/", "link.html", "out"])
def test_the_one_page_must_be_there_at_start(site: Path, spa: str) -> None:
    """A wrong name would be a 404 to everybody: the error names it, and the folder."""
    (site / "link.html").symlink_to("nowhere")
    (site.parent / "secret.html").write_text("secret")
    (site / "out").symlink_to("../secret.html")
    with pytest.raises(UsageError, match=r"option spa: .*" + spa):
        StaticFolder(site, "/", CACHE, spa=spa)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_pages_may_be_large(site: Path, method: str) -> None:
    """What is too large for memory is read as it is sent: the one page, and an error's."""
    large = {"index.html": os.urandom(SMALL + 1), "404.html": os.urandom(SMALL + 2)}
    for name, content in large.items():
        (site / name).write_bytes(content)
    folder = StaticFolder(site, "/", CACHE, spa="index.html")
    for _ in range(2):
        page = await ask(folder, "/users/7", method)
        assert (page.status, page.body) == (200, large["index.html"])
        assert page.headers["vary"] == "accept-encoding, accept, sec-fetch-dest"
        part = await ask(folder, "/users/7", range="bytes=5-9")
        assert (part.status, part.body) == (206, large["index.html"][5:10])
        error = await ask(folder, "/users/app.js", method)
        assert (error.status, error.body) == (404, large["404.html"])
        assert not {"etag", "last-modified", "accept-ranges"} & set(error.headers)


async def test_a_large_page_for_an_error_is_compressed_too(site: Path) -> None:
    """And from memory then."""
    text = b"nothing here " * SMALL
    (site / "404.html").write_bytes(text[: SMALL * 2])
    folder = StaticFolder(site, "/", 4 * SMALL)
    for _ in range(2):
        reply = await ask(folder, "/nothing", accept_encoding="gzip")
        assert (reply.status, gzip.decompress(reply.body)) == (404, text[: SMALL * 2])


@pytest.mark.parametrize("fields", [{"accept": NAVIGATION}, {"accept": "*/*"}, {}])
async def test_what_is_not_there_says_what_that_depends_on(
    site: Path, fields: dict[str, Any]
) -> None:
    """A 404 may be kept by caches (RFC 9110 section 15.1): not past the file that comes, nor, where
    there is one page for all, for the browser that comes."""
    app = StaticFolder(site, "/", CACHE, spa="index.html")
    reply = await ask(app, "/users/app.js", accept="*/*", sec_fetch_dest="script")
    assert (reply.status, reply.body) == (404, b"")
    assert reply.headers == {"cache-control": "no-cache", "vary": "accept, sec-fetch-dest"}
    plain = StaticFolder(site, "/", CACHE)
    for target in ("/nothing", "/..%2fx", "/guide/"):
        reply = await ask(plain, target, **fields)
        assert (reply.status, reply.headers) == (404, {"cache-control": "no-cache"})


# What others look for


@pytest.fixture
def known(site: Path) -> Path:
    """Return a folder with what is well known, here and where it is not."""
    return write(
        site,
        {
            ".well-known/security.txt": "Contact: mailto:security@example.com",
            ".well-known/acme-challenge/token": "token",
            ".well-known/.hidden": "secret",
            ".well-known/sub/.well-known/x": "secret",
            "sub/.well-known/x": "secret",
        },
    )


async def test_rfc8615_what_is_well_known_is_served(known: Path) -> None:
    """The first segment of a folder at `/`, however it is coded; it is in no listing."""
    folder = StaticFolder(known, "/", CACHE, listing=True)
    for target, body in {
        "/.well-known/security.txt": b"Contact: mailto:security@example.com",
        "/%2Ewell-known/security.txt": b"Contact: mailto:security@example.com",
        "/.well-known/acme-challenge/token": b"token",
    }.items():
        for _ in range(2):
            reply = await ask(folder, target)
            assert (reply.status, reply.body) == (200, body)
    assert (await ask(folder, "/.well-known")).headers["location"] == "/.well-known/"
    (known / "index.html").unlink()
    assert b"guide.html" in (await ask(folder, "/")).body
    assert b".well-known" not in (await ask(folder, "/")).body


@pytest.mark.parametrize(
    "target",
    [
        "/.well-known/nothing",
        "/.well-known/.hidden",
        "/.well-known/%2ehidden",
        "/.well-known/sub/.well-known/x",
        "/.well-known/../index.html",
        "/.well-known/%2e%2e/index.html",
        "/.well-known%2fsecurity.txt",
        "/.well-known%00/security.txt",
        "/.well-known-too/x",
        "/.Well-Known/security.txt",
        "/sub/.well-known/x",
        "//.well-known/security.txt",
    ],
)
async def test_nothing_else_with_a_dot_is(known: Path, target: str) -> None:
    """Nor is it an application's page, for a status of 200 would say that it is there."""
    write(known, {".well-known-too/x": "secret"})
    folder = StaticFolder(known, "/", CACHE, spa="index.html")
    assert (await ask(folder, target, accept=NAVIGATION)).status == 404


async def test_what_is_well_known_is_so_at_the_top_alone(known: Path) -> None:
    """Below a prefix it is hidden, as any name with a dot."""
    folder = StaticFolder(known, "/docs/", CACHE)
    assert (await ask(folder, "/docs/.well-known/security.txt")).status == 404
    (known / "link").symlink_to(".well-known")
    assert (await ask(folder, "/docs/link/security.txt")).status == 404
    assert (await ask(StaticFolder(known, "/", CACHE), "/link/security.txt")).status == 200


# How long, and how strict


async def test_cache_control(site: Path) -> None:
    """By the name that was asked for, whatever a link leads to."""
    write(site, {"app.3f2a9c1b.js": "js", "style.css": "css"})
    (site / "latest.js").symlink_to("app.3f2a9c1b.js")
    folder = StaticFolder(site, "/", CACHE, cache_control={"style.css": "max-age=60", "plain": ""})
    for target, value in {
        "/": "no-cache",
        "/guide": "no-cache",
        "/app.3f2a9c1b.js": "max-age=31536000, immutable",
        "/latest.js": "no-cache",
        "/app.js": "no-cache",
        "/style.css": "max-age=60",
        "/plain": None,
    }.items():
        for _ in range(2):
            assert (await ask(folder, target)).headers.get("cache-control") == value, target


async def test_security_fields_are_everywhere(site: Path) -> None:
    """Files, redirects and pages for errors; what is for https alone is not sent over http."""
    (site / "404.html").write_text("nothing")
    folder = StaticFolder(site, "/", CACHE, security=True)
    for target in ("/guide", "/sub", "/nothing", "/app.js"):
        for _ in range(2):
            reply = await ask(folder, target)
            assert SECURITY.items() <= reply.headers.items(), target
            reply = await ask(folder, target, scheme="http")
            assert "strict-transport-security" not in reply.headers
            assert reply.headers["x-frame-options"] == "SAMEORIGIN"
    assert folder.kept("/guide", 0.0) is not folder.kept("/guide", 0.0, "http identity")
    [one] = {id(w.body) for e in folder.memory.entries.values() if "guide" in e.key
             for w in e.wholes.values()}  # fmt: skip
    assert one  # the content is in memory once


async def test_security_fields_are_on_errors_too(site: Path) -> None:
    """404, 405, 412, 416, from disk and from memory, and on OPTIONS; as it was without the option.

    Also of work that several waited for: each field once."""
    folder = StaticFolder(site, "/", CACHE, security=True)
    plain = StaticFolder(site, "/", CACHE)
    cases: list[tuple[int, str, str, dict[str, Any]]] = [
        (404, "/nothing", "GET", {}),
        (404, "/..%2fx", "HEAD", {}),
        (405, "/guide", "POST", {}),
        (412, "/guide", "GET", {"if_match": '"x"'}),
        (416, "/guide", "GET", {"range": "bytes=99-"}),
        (204, "/guide", "OPTIONS", {}),
    ]
    for status, target, method, fields in cases:
        for _ in range(2):
            reply = await ask(folder, target, method, **fields)
            assert reply.status == status
            assert SECURITY.items() <= reply.headers.items()
            assert len(reply.headers) == len(reply.fields)
            over_http = await ask(folder, target, method, scheme="http", **fields)
            assert "strict-transport-security" not in over_http.headers
            assert "content-security-policy" in over_http.headers
            bare = await ask(plain, target, method, **fields)
            assert bare.headers == {
                name: value for name, value in reply.headers.items() if name not in SECURITY
            }
            if status in (204, 405):
                assert bare.headers == {"allow": "GET, HEAD, OPTIONS"}
            if status == 416:
                assert bare.headers == {"content-range": "bytes */5"}


async def test_an_error_that_several_waited_for_is_each_one_s_own(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that fails once fails for all: the fields are added to each answer once."""

    def short(root: Root, file: str) -> Any:
        raise HTTPError(503)

    folder = StaticFolder(site, "/", CACHE, security=True)
    monkeypatch.setattr(Root, "open", short)
    for reply in await asyncio.gather(*(ask(folder, "/guide") for _ in range(5))):
        assert (reply.status, reply.headers) == (503, dict(SECURITY))
        assert len(reply.fields) == len(SECURITY)


# Hints


@pytest.fixture
def styled(site: Path) -> Path:
    """Return a folder with a page that has style sheets."""
    head = '<link rel=stylesheet href="/a.css"><link rel=stylesheet href="b.css">'
    return write(site, {"styled.html": f"<html><head>{head}</head>hello"})


LINKS = ["</a.css>; rel=preload; as=style", "<b.css>; rel=preload; as=style"]


async def test_a_page_s_style_sheets_are_told_before_it(styled: Path) -> None:
    """From disk and from memory, once each; and with the page itself (RFC 8297 section 2)."""
    folder = StaticFolder(styled, "/", CACHE, early_hints=True)
    for _ in range(2):
        reply = await ask(folder, "/styled")
        assert reply.interim == [[("link", link) for link in LINKS]]
        assert [value for name, value in reply.fields if name == "link"] == LINKS
    assert reply.cache == "hit"
    assert folder.kept("/styled", 0.0) is None  # the short way has no hints
    assert (await ask(folder, "/guide")).interim == []
    assert folder.kept("/guide", 0.0) is not None


@pytest.mark.parametrize(
    ("method", "fields", "told"),
    [
        ("GET", {}, True),
        ("HEAD", {}, False),
        ("GET", {"if_none_match": '"x"'}, False),
        ("GET", {"host": "localhost"}, False),
        ("GET", {"host": "localhost", "sec_fetch_mode": "navigate"}, True),
        ("GET", {"host": "localhost", "sec_fetch_mode": "no-cors"}, False),
    ],
)
async def test_hints_are_for_those_who_take_them(
    styled: Path, method: str, fields: dict[str, Any], told: bool
) -> None:
    """HTTP/2, which has no Host, and browsers that go to a page (RFC 8297 section 3)."""
    folder = StaticFolder(styled, "/", CACHE, early_hints=True)
    for _ in range(2):
        assert bool((await ask(folder, "/styled", method, **fields)).interim) is told


async def test_hints_are_off(styled: Path) -> None:
    """Unless they are asked for: the short way is faster."""
    folder = StaticFolder(styled, "/", CACHE)
    reply = await ask(folder, "/styled")
    assert reply.interim == []
    assert "link" not in reply.headers
    assert folder.kept("/styled", 0.0) is not None


# Markdown


@pytest.fixture
def notes(site: Path) -> Path:
    """Return a folder with Markdown."""
    pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    return write(
        site,
        {
            "note.md": "# Note\n",
            "guide.md": "# Another guide\n",
            "docs/README.md": "# Docs\n",
            "both/index.md": "# Index\n",
            "both/README.md": "# Read me\n",
        },
    )


async def test_markdown_is_a_page_for_those_who_read_pages(notes: Path) -> None:
    """By its name as the client wishes, from disk and from memory, each with its own tag."""
    folder = StaticFolder(notes, "/", CACHE, markdown=True)
    seen: set[str] = set()
    for _ in range(2):
        page = await ask(folder, "/note.md", accept=NAVIGATION)
        assert b"<h1>Note</h1>" in page.body
        assert page.headers["content-type"] == HTML
        for accept in ("*/*", "text/markdown", "text/plain", "text/html;q=0.1, text/markdown"):
            source = await ask(folder, "/note.md", accept=accept)
            assert (source.body, source.headers["content-type"]) == (
                b"# Note\n",
                "text/markdown; charset=utf-8",
            )
        assert (await ask(folder, "/note.md")).body == b"# Note\n"
        for reply in (page, source):
            assert reply.headers["vary"] == "accept, accept-encoding"
            assert reply.cache == ("hit" if seen else reply.cache)
        seen |= {page.headers["etag"], source.headers["etag"]}
    assert len(seen) == 2
    assert folder.kept("/note.md", 0.0) is None  # the short way knows no Accept


@pytest.mark.parametrize(
    ("target", "heading"),
    [
        ("/note", b"<h1>Note</h1>"),
        ("/docs/", b"<h1>Docs</h1>"),
        ("/both/", b"<h1>Index</h1>"),
        ("/both/README", b"<h1>Read me</h1>"),
        ("/guide", b"guide"),
    ],
)
async def test_markdown_has_clean_addresses(notes: Path, target: str, heading: bytes) -> None:
    """There it is a page for everybody; HTML goes first, and `index.md` before `README.md`."""
    folder = StaticFolder(notes, "/", CACHE, markdown=True)
    for _ in range(2):
        reply = await ask(folder, target)
        assert heading in reply.body
        assert reply.headers["content-type"] == HTML
        assert reply.headers["vary"] == "accept-encoding"
    assert folder.kept(target, 0.0) is not None
    assert (await ask(folder, "/docs")).headers["location"] == "/docs/"


async def test_markdown_changes(notes: Path) -> None:
    """A new version is rendered anew; a neighbour is of the source, and not of the page."""
    folder = StaticFolder(notes, "/", CACHE, markdown=True)
    assert b"<h1>Note</h1>" in (await ask(folder, "/note", now=0.0)).body
    (notes / "note.md").write_text("# Changed\n")
    (notes / "note.md.gz").write_bytes(gzip.compress(b"# Changed\n"))
    reply = await ask(folder, "/note", now=2.0, accept_encoding="gzip")
    assert b"<h1>Changed</h1>" in reply.body
    assert "content-encoding" not in reply.headers
    source = await ask(folder, "/note.md", now=2.0, accept_encoding="gzip")
    assert gzip.decompress(source.body) == b"# Changed\n"


async def test_markdown_off(notes: Path) -> None:
    """Then it is text."""
    folder = StaticFolder(notes, "/", CACHE)
    reply = await ask(folder, "/note.md", accept=NAVIGATION)
    assert reply.body == b"# Note\n"
    assert reply.headers["vary"] == "accept-encoding"
    assert (await ask(folder, "/docs/")).status == 404
    assert (await ask(folder, "/note")).status == 404


def test_markdown_needs_its_package(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the server starts, with what to install."""
    import sys

    from h2log.app.files import markdown

    monkeypatch.setitem(sys.modules, "markdown_it", None)
    markdown._parser.cache_clear()
    with pytest.raises(UsageError, match=r"markdown-it-py; install it with: pip install 'h2log\["):
        StaticFolder(site, "/", CACHE, markdown=True)
    markdown._parser.cache_clear()


# What is large


async def test_several_that_ask_for_a_large_file_get_it_each(site: Path) -> None:
    """Each with a share of the open file, which does not stay open when nobody asks for it."""
    content = os.urandom(SMALL + 10)
    (site / "large.bin").write_bytes(content)
    folder = StaticFolder(site, "/", CACHE)
    before = len(os.listdir("/proc/self/fd"))
    replies = await asyncio.gather(*(ask(folder, "/large.bin") for _ in range(20)))
    assert all(reply.body == content for reply in replies)
    replies = await asyncio.gather(*(ask(folder, "/large.bin", if_match='"x"') for _ in range(9)))
    assert {reply.status for reply in replies} == {412}
    folder.rest()  # it was asked for since the last one
    assert len(os.listdir("/proc/self/fd")) == before + 1
    folder.rest()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_each_reads_a_large_file_from_its_beginning(site: Path) -> None:
    """Who is given it may read it as any file: where one is in it moves no other."""
    content = os.urandom(SMALL + 10)
    (site / "large.bin").write_bytes(content)
    folder = StaticFolder(site, "/", CACHE)
    files = []
    for _ in range(3):
        answer = folder.answer(request("/large.bin"), 0.0)
        body = (answer if isinstance(answer, Response) else await answer).body
        assert isinstance(body, FileContent)
        files.append(body.file)
    begun = [file.read(1000) for file in files]
    assert [first + file.read() for first, file in zip(begun, files, strict=True)] == [content] * 3
    for file in files:
        file.close()
    folder.close()


async def test_a_large_file_that_is_replaced_is_opened_anew(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays open is the file that the disk has: another one, or none, is seen in time."""
    file = site / "large.bin"
    file.write_bytes(b"a" * (SMALL + 10))
    folder = StaticFolder(site, "/", CACHE)
    now = 100.0
    assert (await ask(folder, "/large.bin", now=now)).body == b"a" * (SMALL + 10)
    assert len(folder._open) == 1
    opened: list[str] = []
    real = folder._root.open

    def watched(path: str) -> Opened | Folder | None:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(folder._root, "open", watched)
    assert (await ask(folder, "/large.bin", now=now + 0.5)).body == b"a" * (SMALL + 10)
    assert not opened
    other = site / "other"
    other.write_bytes(b"b" * (SMALL + 20))
    other.replace(file)
    assert (await ask(folder, "/large.bin", now=now + 5)).body == b"b" * (SMALL + 20)
    assert len(folder._open) == 1
    file.unlink()
    assert (await ask(folder, "/large.bin", now=now + 10)).status == 404
    assert not len(folder._open)


async def test_only_so_many_large_files_stay_open(site: Path) -> None:
    """However many are asked for, 64 stay open, the last ones."""
    folder = StaticFolder(site, "/", CACHE)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(70):
        with (site / f"{number}.bin").open("wb") as file:
            file.truncate(SMALL + 1)
        assert (await ask(folder, f"/{number}.bin")).status == 200
    assert len(os.listdir("/proc/self/fd")) == before + 64
    folder.close()
    assert len(os.listdir("/proc/self/fd")) == before
