"""A folder's files as responses: what is found, what never is, what redirects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from h2log.app.files.media import media_type
from h2log.app.files.paths import segments
from h2log.app.static import CHECK_INTERVAL, SMALL, StaticFolder
from h2log.clock import http_date
from tests.unit.app.asking import CACHE, ask


async def get(
    folder: StaticFolder, target: str, method: str = "GET", now: float = 0.0, **fields: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, fields and content of an answer, an HTTPError's too."""
    reply = await ask(folder, target, method, now, **fields)
    return reply.status, reply.headers, reply.body


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with some files."""
    root = tmp_path / "site"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "index.html").write_text("home")
    (root / "a.txt").write_text("0123456789")
    (root / "sub" / "index.html").write_text("sub")
    (root / "sub" / "b.css").write_text("b{}")
    (root / ".env").write_text("secret")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    (root / "empty").write_text("")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "site-private").mkdir()
    (tmp_path / "site-private" / "x").write_text("secret")
    return root


@pytest.fixture
def folder(site: Path) -> StaticFolder:
    """Return the folder, served at the root."""
    return StaticFolder(site, "/", CACHE)


@pytest.fixture
def descriptors(folder: StaticFolder) -> Iterator[None]:
    """Check that a test leaves no descriptor open, once nobody asks for large files any more."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    folder.rest()
    folder.rest()
    after = set(os.listdir("/proc/self/fd"))
    assert len(after) <= len(before)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/", b"home"),
        ("/?x=1", b"home"),
        ("/index.html", b"home"),
        ("/a.txt", b"0123456789"),
        ("/a.txt?../../secret.txt", b"0123456789"),
        ("/%61%2Etxt", b"0123456789"),
        ("/sub/", b"sub"),
        ("/sub/b.css", b"b{}"),
        ("/empty", b""),
    ],
)
async def test_a_file_is_answered(folder: StaticFolder, target: str, body: bytes) -> None:
    """A file by its name, a folder by its index; decoded once, without the query."""
    status, _, content = await get(folder, target)
    assert (status, content) == (200, body)
    assert (await get(folder, target))[::2] == (200, body)  # and from memory


async def test_a_file_has_its_fields(folder: StaticFolder, site: Path) -> None:
    """Type, date, tag, that ranges are understood, and that no type is to be guessed."""
    os.utime(site / "a.txt", (784111777.5, 784111777.5))
    _, fields, _ = await get(folder, "/a.txt")
    assert fields.pop("etag").startswith('"')
    assert fields == {
        "content-type": "text/plain; charset=utf-8",
        "last-modified": "Sun, 06 Nov 1994 08:49:37 GMT",
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }


async def test_last_modified_is_never_in_the_future(folder: StaticFolder, site: Path) -> None:
    """A file with a date to come is not said to be newer than now (RFC 9110, 8.8.2.1)."""
    os.utime(site / "a.txt", (4e9, 4e9))
    status, fields, _ = await get(folder, "/a.txt")
    assert status == 200
    assert fields["last-modified"] != http_date(4e9)


async def test_a_file_from_before_1970_is_answered(folder: StaticFolder, site: Path) -> None:
    """Its date is negative, and no reason to fail."""
    os.utime(site / "a.txt", (-86400, -86400))
    status, fields, _ = await get(folder, "/a.txt")
    assert status == 200
    assert fields["last-modified"].startswith("Wed, 31 Dec 1969")
    assert (await get(folder, "/a.txt", if_none_match=fields["etag"]))[0] == 304


HOSTILE: Final = [
    "/..",
    "/../secret.txt",
    "/../site-private/x",
    "/sub/../../secret.txt",
    "/sub/..",
    "/%2e%2e/secret.txt",
    "/%2E./secret.txt",
    "/.%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/sub%2Fb.css",
    "/sub%5Cb.css",
    "/.",
    "/./a.txt",
    "/%2e/a.txt",
    "/.env",
    "/%2eenv",
    "/.git/config",
    "/sub/./b.css",
    "//a.txt",
    "//",
    "/sub//b.css",
    "///etc/passwd",
    "//etc/passwd",
    "/%2Fetc/passwd",
    "/a.txt/",
    "/a.txt/x",
    "/a.txt%00",
    "/a.txt%00.html",
    "/%00",
    "/\0",
    "/a.txt%20",
    "/a.txt.",
    "/A.TXT",
    "/%",
    "/%zz",
    "/%c0%ae%c0%ae/secret.txt",
    "/%252e%252e/secret.txt",
    "/~root",
    "/\xff\xfe",
    "/%ff%fe",
    "/\n",
    "/" + "x" * 256,
    "/" + "x" * 30000,
    "/" + "x/" * 15000,
    "/" + "%2e" * 10000,
]


@pytest.mark.parametrize("target", HOSTILE, ids=lambda target: target[:24])
async def test_a_hostile_path_is_not_found(folder: StaticFolder, target: str) -> None:
    """Dots, slashes, NUL, bytes and lengths in any coding: 404, by GET and by HEAD."""
    assert (await get(folder, target))[0] == 404
    assert (await get(folder, target, "HEAD"))[0] == 404


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a/b/", ["a", "b", ""]),
        ("%41", ["A"]),
        ("a%20b", ["a b"]),
        ("a+b", ["a+b"]),
        ("%25", ["%"]),
        ("%252e", ["%2e"]),
        ("a..b", ["a..b"]),
        ("a.", ["a."]),
        ("caf%C3%A9", ["café"]),
        ("caf\xc3\xa9", ["café"]),
        ("%FF", ["\udcff"]),
        *((hostile, None) for hostile in ("/", "a//b", ".", "..", "%2e", "a/.b", "a%2Fb", "a\\b")),
        *((hostile, None) for hostile in (".well-known/x", "a/.well-known")),
        *((hostile, None) for hostile in ("%5c", "%00", "a\0b", "//", "a//", ".%2F", "%2f")),
    ],
)
def test_a_path_is_names_or_none(path: str, names: list[str] | None) -> None:
    """Each segment is one file name, bytes that are no UTF-8 included, or all is refused."""
    assert segments(path) == names


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get", "TRACE", ""])
async def test_other_methods_are_not_allowed(folder: StaticFolder, method: str) -> None:
    """405 with Allow, also for what does not exist."""
    assert await get(folder, "/a.txt", method) == (405, {"allow": "GET, HEAD, OPTIONS"}, b"")


async def test_a_name_that_is_no_utf_8_is_served(folder: StaticFolder, site: Path) -> None:
    """File names are bytes; percent coding reaches all of them."""
    (site / os.fsdecode(b"caf\xe9 \xff")).write_bytes(b"latin")
    (site / "a\nb").write_bytes(b"newline")
    assert (await get(folder, "/caf%E9%20%FF"))[::2] == (200, b"latin")
    assert (await get(folder, "/a%0Ab"))[::2] == (200, b"newline")


async def test_what_is_no_file_is_not_found(folder: StaticFolder, site: Path) -> None:
    """A pipe does not block, a socket and a device are not read, a folder has no index."""
    os.mkfifo(site / "pipe")
    (site / "null").symlink_to("/dev/null")
    for target in ("/pipe", "/null", "/sub/deep/"):
        assert (await get(folder, target))[0] == 404


# Folders without their slash


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub?a=b&c", "/sub/?a=b&c"),
        ("/%73ub", "/sub/"),
        ("/sub/deep", "/sub/deep/"),
        ("/a%20b", "/a%20b/"),
        ("/caf%E9", "/caf%E9/"),
        ("/a%0D%0Ab", "/a%0D%0Ab/"),
        ("/%3Fq", "/%3Fq/"),
        ("/%40evil.example", "/%40evil.example/"),
        ("/sub?a#b", "/sub/?a%23b"),
        ("/sub?#?#", "/sub/?%23?%23"),
    ],
)
async def test_a_folder_is_redirected_to_its_slash(
    folder: StaticFolder, site: Path, target: str, location: str
) -> None:
    """308, the query kept, the path coded anew."""
    for name in (b"a b", b"caf\xe9", b"a\r\nb", b"?q", b"@evil.example"):
        (site / os.fsdecode(name)).mkdir()
    status, fields, _ = await get(folder, target)
    assert (status, fields) == (308, {"location": location})


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "/%2Fevil.example",
        "/\\evil.example",
        "/%5Cevil.example",
        "//evil.example/%2e%2e",
        "//evil.example/..",
        "/evil.example//",
        "/.//evil.example",
    ],
)
async def test_no_redirect_leads_to_another_host(
    folder: StaticFolder, site: Path, target: str
) -> None:
    """Not even where the folder exists: a location never begins with two slashes."""
    (site / "evil.example").mkdir()
    (site / "\\evil.example").mkdir()
    status, fields, _ = await get(folder, target)
    location = fields.get("location", "/")
    assert status in (308, 404)
    assert location.startswith("/")
    assert location[1:2] not in ("/", "\\")


async def test_a_folder_below_a_prefix_redirects_below_it(site: Path) -> None:
    """The prefix is part of the location."""
    folder = StaticFolder(site, "/files/", CACHE)
    assert (await get(folder, "/files/sub"))[1] == {"location": "/files/sub/"}
    assert (await get(folder, "/files/"))[2] == b"home"


async def test_a_redirect_never_leads_to_itself(folder: StaticFolder, site: Path) -> None:
    """An index that is a link to a folder is no file, and no reason to go round in circles."""
    (site / "loop").mkdir()
    (site / "loop" / "index.html").symlink_to("..")
    assert (await get(folder, "/loop/"))[0] == 404
    (site / "index.html").unlink()
    (site / "index.html").symlink_to(".")
    assert (await get(folder, "/"))[0] == 404


# Links


async def test_links_lead_anywhere_inside_and_nowhere_outside(
    folder: StaticFolder, site: Path
) -> None:
    """To a file and to a folder, relative and absolute; outside, dangling, in a circle: 404."""
    (site / "in").symlink_to("a.txt")
    (site / "abs").symlink_to(site / "a.txt")
    (site / "dir").symlink_to("sub")
    (site / "up").symlink_to(".")
    for target, body in (("/in", b"0123456789"), ("/abs", b"0123456789"), ("/dir/", b"sub")):
        assert (await get(folder, target))[::2] == (200, body)
    assert (await get(folder, "/up/up/a.txt"))[2] == b"0123456789"
    assert (await get(folder, "/up"))[1] == {"location": "/up/"}
    (site / "out").symlink_to("../secret.txt")
    (site / "parent").symlink_to("..")
    (site / "near").symlink_to("../site-private")
    (site / "gone").symlink_to("nothing")
    (site / "circle").symlink_to("circle")
    for target in ("/out", "/parent", "/parent/secret.txt", "/near/x", "/gone", "/circle"):
        assert (await get(folder, target))[0] == 404, target


async def test_a_link_does_not_show_what_is_hidden(folder: StaticFolder, site: Path) -> None:
    """By whatever name: to a file or a folder with a dot in front, through others, up and down."""
    (site / "gitlink").symlink_to(".git")
    (site / "env.txt").symlink_to(".env")
    (site / "page.html").symlink_to(".git/config")
    (site / "sub" / "round").symlink_to("../gitlink")
    (site / ".store").mkdir()
    (site / ".store" / "shown").mkdir()
    (site / ".store" / "shown" / "index.html").write_text("secret")
    (site / "deep").symlink_to(".store/shown")
    for target in ("/gitlink", "/gitlink/", "/gitlink/config", "/env.txt", "/page", "/page.html",
                   "/sub/round/config", "/deep", "/deep/"):  # fmt: skip
        assert (await get(folder, target))[0] == 404, target
    listed = StaticFolder(site, "/", CACHE, listing=True)
    (site / "index.html").unlink()
    page = (await get(listed, "/"))[2].decode()
    assert "a.txt" in page
    assert not [name for name in ("gitlink", "env.txt", "page.html", "deep") if name in page]


async def test_the_root_itself_may_be_hidden(site: Path) -> None:
    """Who serves a folder by its name wants it to be served."""
    folder = StaticFolder(site / ".git", "/", CACHE)
    assert (await get(folder, "/config"))[2] == b"secret"


async def test_the_root_may_be_a_link(site: Path, tmp_path: Path) -> None:
    """What it leads to when the server starts is served, also after it leads elsewhere."""
    (tmp_path / "link").symlink_to(site)
    folder = StaticFolder(tmp_path / "link", "/", CACHE)
    assert (await get(folder, "/a.txt"))[2] == b"0123456789"
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "site-private")
    assert (await get(folder, "/x", now=10.0))[0] == 404
    assert (await get(folder, "/a.txt", now=10.0))[0] == 200


def test_a_root_is_a_folder(site: Path) -> None:
    """What does not exist, and what is a file, is refused when the server starts."""
    with pytest.raises(FileNotFoundError):
        StaticFolder(site / "nothing", "/", CACHE)
    with pytest.raises(NotADirectoryError):
        StaticFolder(site / "a.txt", "/", CACHE)


# Conditions, ranges, large files


@pytest.mark.parametrize("size", [100, SMALL, SMALL + 1, 3 * SMALL])
@pytest.mark.usefixtures("descriptors")
async def test_conditions_and_ranges_of_small_and_large_files(
    folder: StaticFolder, site: Path, size: int
) -> None:
    """From memory or from the disk: the same statuses, fields and bytes."""
    content = bytes(n * 7 % 251 for n in range(size))
    (site / "data.bin").write_bytes(content)
    for _ in range(2):  # the second time a small file is in memory
        status, fields, body = await get(folder, "/data.bin")
        assert (status, body) == (200, content)
        assert fields["content-type"] == "application/octet-stream"
        etag = fields["etag"]
        status, kept, body = await get(folder, "/data.bin", if_none_match=etag)
        assert (status, body) == (304, b"")
        assert kept["etag"] == etag
        assert "content-type" not in kept
        assert (await get(folder, "/data.bin", if_match='"other"'))[0] == 412
        status, part, body = await get(folder, "/data.bin", range="bytes=10-19")
        assert (status, body) == (206, content[10:20])
        assert part == fields | {"content-range": f"bytes 10-19/{size}"}
        assert (await get(folder, "/data.bin", range="bytes=-7"))[2] == content[-7:]
        assert (await get(folder, "/data.bin", range="bytes=90-", if_range=etag))[2] == content[90:]
        assert (await get(folder, "/data.bin", range="bytes=90-", if_range='"x"'))[0] == 200
        assert await get(folder, "/data.bin", range=f"bytes={size}-") == (
            416,
            {"content-range": f"bytes */{size}"},
            b"",
        )
        assert (await get(folder, "/data.bin", "HEAD", range="bytes=10-19"))[0] == 200


# Its own 404


async def test_a_folder_has_its_own_404(folder: StaticFolder, site: Path) -> None:
    """A 404.html is the content of a 404, also one that is too large to keep."""
    (site / "404.html").write_text("nothing here")
    status, fields, body = await get(folder, "/nothing")
    assert (status, body) == (404, b"nothing here")
    assert fields == {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    assert (await get(folder, "/404.html"))[0] == 200
    (site / "404.html").write_bytes(b"x" * (SMALL + 1))
    assert (await get(folder, "/nothing", now=CHECK_INTERVAL * 2))[2] == b"x" * (SMALL + 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.png", "image/png"),
        ("A.PNG", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.webp", "image/webp"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.txt.xz", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
        ("a.html\n", "application/octet-stream"),
    ],
)
def test_a_name_has_a_media_type(name: str, expected: str) -> None:
    """Text says that it is UTF-8; what is not known is bytes; the same on every machine."""
    assert media_type(f"/srv/{name}") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/shm")
async def test_a_date_beyond_all_calendars_is_no_error() -> None:
    """A file system may have dates after the year 9999: the file is served all the same."""
    path = Path(f"/dev/shm/h2log-test-{os.getpid()}")
    path.mkdir()
    try:
        (path / "a").write_text("far")
        os.utime(path / "a", (2**40, 2**40))
        assert (await get(StaticFolder(path, "/", CACHE), "/a"))[::2] == (200, b"far")
    finally:
        (path / "a").unlink()
        path.rmdir()
