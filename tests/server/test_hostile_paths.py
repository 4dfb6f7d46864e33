"""Paths that try to leave the folder: never a byte from outside, never a 5xx."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from h2log import App
from h2log.server.certificates import Certificates
from tests.server.wire import HEADERS, RST_STREAM, Http1Client, RawClient
from tests.support import Running, run

SECRET = b"the bytes from outside"
SECRET_NAME = "name-that-is-told-to-nobody"
INSIDE = b"inside"
STORED = gzip.compress(SECRET * 100, 0)
"""Compressed without becoming smaller: the secret stands in it as it is."""
assert SECRET in STORED

DOTS = ("..", "%2e%2e", "%2E.", ".%2e", "..%00", "..;", "..%20", "%c0%ae%c0%ae", "%uff0e%uff0e")
SLASHES = ("/", "%2f", "%2F", "\\", "%5c", "%252f", "%c0%af", "//")
# A file; what clean URLs would add `.html` or `.md` to; a folder with an index; one to be listed.
TARGETS = ("secret.txt", "secret", "note", "outside/", "unlisted/")
HOSTILE: list[str] = [
    # every way to write "one up", with every way to write a slash
    *(f"/{dots}{slash}{name}" for dots in DOTS for slash in SLASHES for name in TARGETS),
    *(f"/sub/{dots}/{dots}/{name}" for dots in DOTS for name in TARGETS),
    *(f"/sub{slash}{dots}{slash}{dots}{slash}secret" for dots in DOTS for slash in SLASHES[1:]),
    *(f"/{'../' * depth}etc/passwd" for depth in (1, 2, 5, 20)),
    *(f"/{'%2e%2e/' * depth}etc/passwd" for depth in (1, 5, 20)),
    *(f"/{'..%2f' * depth}etc%2fpasswd" for depth in (1, 5, 20)),
    # absolute names
    "//etc/passwd",
    "///etc/passwd",
    "/%2fetc%2fpasswd",
    "/%2fetc/passwd",
    "//secret.txt",
    "/C:/windows/win.ini",
    "/C:%5cwindows%5cwin.ini",
    "/%5c%5chost%5cshare",
    "/file:///etc/passwd",
    "/~root/",
    "/~/secret.txt",
    # NUL and control bytes, coded
    "/inside.txt%00",
    "/inside.txt%00.html",
    "/%00",
    "/%00/etc/passwd",
    "/inside.txt%0a",
    "/%0d%0aSet-Cookie:x",
    "/%7f",
    "/%ff%fe",
    "/%80",
    "/%ed%a0%80",
    "/%f0%9f%92%a9",
    # broken percent coding
    "/%",
    "/%2",
    "/%zz",
    "/%%32%65",
    "/%u002e",
    "/%-1",
    "/inside.txt%",
    # dotfiles
    "/.hidden",
    "/%2ehidden",
    "/.git/config",
    "/sub/.env",
    "/.",
    "/./",
    "/./inside.txt",
    "/sub/.",
    "/sub/./inside.txt",
    "/.../secret.txt",
    "/..",
    "/../",
    "/%2e",
    "/%2e%2e",
    # empty segments and slashes in odd places
    "//",
    "///",
    "//inside.txt",
    "/sub//inside.txt",
    "/sub///",
    "/inside.txt/",
    "/inside.txt//",
    "/inside.txt/.",
    "/inside.txt/..",
    "/inside.txt/../inside.txt",
    "/sub/../inside.txt",
    # what is no file, or leads away
    "/outside-link.txt",
    "/outside-folder/secret.txt",
    "/outside-folder/",
    "/outside-folder",
    "/absolute-link",
    "/loop",
    "/loop/x",
    "/dangling",
    "/pipe",
    "/socket-like%3d",
    "/unreadable.txt",
    "/device",
    "/device/zero",
    # what leads outside by a feature: a page or a text without its suffix, an index, a neighbour
    "/outside-page",
    "/outside-page.html",
    "/outside-note",
    "/outside-note.md",
    "/index-outside/",
    "/index-outside",
    "/readme-outside/",
    "/readme-outside/README",
    "/page-is-folder",
    "/page-is-pipe",
    "/styled.css",
    "/styled.css.gz",
    "/styled.css.br",
    "/styled.css.zst",
    "/hidden-page/.page",
    "/hidden-page/%2epage",
    "/.html",
    "/.md",
    "/%2ehtml",
    "/sub/.html",
    "/..html",
    "/..%00.html",
    "/inside.txt%00.gz",
    "/404",
    "/404.html",
    "/50x.html",
    "/.h2log/changes",
    "/sub/?sort=../../secret.txt&order=%00",
    "/sub/?sort=%3Cscript%3E&sort=size",
    "/listed/",
    "/listed/?sort=name&order=desc",
    "/listed/up/",
    "/listed/up/?sort=size",
    # links to what is hidden, and what is well known but leads elsewhere
    "/git-link",
    "/git-link/",
    "/git-link/config",
    "/hidden-link.txt",
    "/hidden-index/",
    "/sub/.well-known/x",
    "/.well-known/out.txt",
    "/.well-known/up/secret.txt",
    "/.well-known/up/",
    "/.well-known/git/config",
    "/.well-known/.hidden",
    "/.well-known/%2ehidden",
    "/.well-known/sub/.hidden",
    "/.well-known/../inside.txt",
    "/%2ewell-known/%2e%2e/%2e%2e/secret.txt",
    "/.well-known%2f..%2f..%2fsecret.txt",
    "/.well-known",
    # long and deep ones
    "/" + "a" * 300,
    "/" + "a" * 5000,
    "/" + "a/" * 1000,
    "/" + "%2e%2e%2f" * 500,
    "/" + "sub/" * 500 + "inside.txt",
    # look-alikes of the tricks of servers that rewrite paths
    "/inside.txt::$DATA",
    "/inside.txt;.css",
    "/INSIDE.TXT",
    "/sub;x=1/inside.txt",
    "/index.html%20",
    "/inside.txt.",
    "/CON",
    "/cgi-bin/%%32%65%%32%65/secret.txt",
    "/*",
    "/?/../secret.txt",
    "/sub?/../../secret.txt",
    "/#/../secret.txt",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that must not be served from it, and a secret beside it."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_bytes(SECRET)
    (tmp_path / "outside" / "index.html").write_bytes(SECRET)
    for name in ("secret.html", "note.md", "secret.css"):
        (tmp_path / name).write_bytes(SECRET)
    for name in ("secret.gz", "secret.br", "secret.zst"):
        (tmp_path / name).write_bytes(STORED)
    (tmp_path / "unlisted").mkdir()
    (tmp_path / "unlisted" / SECRET_NAME).write_bytes(SECRET)
    (tmp_path / "site-secret").mkdir()  # a name that begins as the folder's does
    (tmp_path / "site-secret" / "secret.txt").write_bytes(SECRET)
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    for name in ("inside.txt", "sub/inside.txt", "index.html"):
        (root / name).write_bytes(INSIDE)
    for name in (".hidden", ".git/config", "sub/.env"):
        (root / name).write_bytes(SECRET)
    (root / "outside-link.txt").symlink_to("../secret.txt")
    (root / "sibling").symlink_to("../site-secret")
    (root / "outside-folder").symlink_to(tmp_path / "outside")
    (root / "absolute-link").symlink_to("/etc/passwd")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    (root / "device").symlink_to("/dev")
    (root / "inside-link.txt").symlink_to("inside.txt")
    os.mkfifo(root / "pipe")
    for name in ("index-outside", "readme-outside", "page-is-folder.html", "hidden-page", "listed"):
        (root / name).mkdir()
    (root / "outside-page.html").symlink_to("../secret.html")
    (root / "outside-note.md").symlink_to("../note.md")
    (root / "index-outside" / "index.html").symlink_to(tmp_path / "secret.html")
    (root / "readme-outside" / "README.md").symlink_to(tmp_path / "note.md")
    os.mkfifo(root / "page-is-pipe.html")
    (root / "styled.css").write_bytes(INSIDE)
    for suffix in ("gz", "br", "zst"):
        (root / f"styled.css.{suffix}").symlink_to(f"../secret.{suffix}")
    (root / "hidden-page" / ".page.html").write_bytes(SECRET)
    (root / "git-link").symlink_to(".git")
    (root / "hidden-link.txt").symlink_to(".hidden")
    (root / "hidden-index").mkdir()
    (root / "hidden-index" / "index.html").symlink_to("../.git/config")
    for name in (".well-known/sub", "sub/.well-known"):
        (root / name).mkdir(parents=True)
    for name in (".well-known/.hidden", ".well-known/sub/.hidden", "sub/.well-known/x"):
        (root / name).write_bytes(SECRET)
    (root / ".well-known" / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / ".well-known" / "up").symlink_to("../..")
    (root / ".well-known" / "git").symlink_to("../.git")
    (root / "404.html").symlink_to("../secret.html")
    (root / "50x.html").symlink_to(tmp_path / "secret.html")
    (root / "listed" / "up").symlink_to(tmp_path / "unlisted")
    (root / "listed" / "away").symlink_to(tmp_path)
    (root / "listed" / f".{SECRET_NAME}").write_bytes(SECRET)
    return root


APPS: dict[str, dict[str, Any]] = {
    "usual": {},
    "everything": {
        "listing": True,
        "markdown": True,
        "spa": "index.html",
        "early_hints": True,
        "security": True,
    },
    "redirecting": {"listing": True, "clean_urls": "redirect", "spa": "index.html"},
    "nothing": {
        "precompressed": False,
        "compress": False,
        "clean_urls": False,
        "pages": False,
    },
}


def app_of(folder: Path, kind: str) -> App:
    """Return an application that serves the folder, with the options of a kind."""
    app = App()
    app.static(folder, **APPS[kind])
    return app


def harmless(status: int, location: str, body: bytes) -> bool:
    """Say whether a response gave nothing away, and led nowhere else."""
    if status >= 500 or SECRET in body or b"root:" in body or SECRET_NAME.encode() in body:
        return False
    return not location or (location[0] == "/" and location[1:2] not in ("/", "\\"))


def test_the_table_is_long_enough() -> None:
    """At least five hundred different paths."""
    assert len(set(HOSTILE)) == len(HOSTILE) >= 500


@pytest.mark.parametrize("kind", APPS)
async def test_no_path_leads_outside_over_http2(
    certs: Certificates, folder: Path, kind: str
) -> None:
    """Each is answered or reset, on one connection that lives on, with its own line."""
    async with (
        Running(app_of(folder, kind), certs) as server,
        RawClient.connect(server) as client,
    ):
        stream = 1
        for path in [*HOSTILE, "/sibling/secret.txt", "/../secret.txt\0", "/..\n/secret.txt"]:
            client.get(stream, path.encode(), (b"accept-encoding", b"gzip, br, zstd"))
            body, status, location = b"", 0, ""
            while True:
                frame = await client.read()
                if frame.stream != stream:
                    assert frame.kind != 7, "GOAWAY"
                    continue
                if frame.kind == RST_STREAM:
                    break
                if frame.kind == HEADERS:
                    fields = client.fields(frame)
                    status, location = int(fields[":status"]), fields.get("location", "")
                else:
                    body += frame.payload
                if frame.flags & 1:
                    break
            assert harmless(status, location, body), path
            if body == INSIDE:
                assert status == 200
            stream += 2
        client.get(stream, b"/inside-link.txt")
        assert (await client.expect(0, stream)).payload == INSIDE
    assert len(server.records) == (stream + 1) // 2
    assert all(record.status < 500 for record in server.records)
    served = {r.facts.path for r in server.records if r.status == 200}
    if kind in ("usual", "nothing"):
        assert served == {"/?/../secret.txt", "/inside-link.txt", "/styled.css"}


@pytest.mark.parametrize("kind", APPS)
async def test_no_path_leads_outside_over_http1(
    certs: Certificates, folder: Path, kind: str
) -> None:
    """The same paths as the target of HTTP/1.1, also in absolute form, also as a browser asks."""
    browser = "Accept: text/html,*/*;q=0.8", "Accept-Encoding: gzip", "Sec-Fetch-Dest: document"
    async with Running(app_of(folder, kind), certs) as server:
        for form, fields in (("{}", browser), ("https://localhost{}", ())):
            async with Http1Client.connect(server) as client:
                for path in HOSTILE:
                    answer = await client.get(form.format(path), *fields)
                    location = answer.headers.get("location", "")
                    assert harmless(answer.status, location, answer.body), path
    assert len(server.records) == 2 * len(HOSTILE)
    assert all(record.status < 500 for record in server.records)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_a_listing_tells_no_name_from_elsewhere(
    certs: Certificates, folder: Path, accept: str
) -> None:
    """Neither hidden ones, nor what links lead to outside."""
    async with (
        Running(app_of(folder, "everything"), certs) as server,
        Http1Client.connect(server) as client,
    ):
        answer = await client.get("/listed/", f"Accept: {accept}")
        assert answer.status == 200
        for name in (SECRET_NAME, "up", "away", "secret"):
            assert f'{name}"'.encode() not in answer.body
            assert f"{name}/".encode() not in answer.body


async def test_a_neighbour_that_becomes_a_link_is_not_followed_out(
    certs: Certificates, folder: Path
) -> None:
    """One that was served, and now leads outside, is as if it were not there."""
    path = folder / "styled.css.gz"
    path.unlink()
    path.write_bytes(gzip.compress(INSIDE))
    async with (
        Running(app_of(folder, "usual"), certs) as server,
        Http1Client.connect(server) as client,
    ):
        answer = await client.get("/styled.css", "Accept-Encoding: gzip")
        assert gzip.decompress(answer.body) == INSIDE
        path.unlink()
        path.symlink_to("../secret.gz")
        while "content-encoding" in answer.headers:  # for a second, what memory holds
            answer = await client.get("/styled.css", "Accept-Encoding: gzip")
            assert SECRET not in answer.body
        assert answer.body == INSIDE


async def test_curl_with_paths_as_they_are(certs: Certificates, folder: Path) -> None:
    """A client that does not tidy paths gets 404s."""
    app = App()
    app.static(folder)
    async with Running(app, certs) as server:
        for path in ("/../secret.txt", "/sub/../../secret.txt", "/%2e%2e/secret.txt"):
            done = await run(
                "curl",
                "-sS",
                "--path-as-is",
                "--cacert",
                str(certs.ca),
                f"{server.url}{path}",
            )
            assert done.text == "404 Not Found\n"


async def test_a_folder_that_becomes_a_link_is_not_followed_out(
    certs: Certificates, folder: Path
) -> None:
    """A file that was in memory and is now a link to the outside is not served from there."""
    app = App()
    app.static(folder)
    async with Running(app, certs) as server, Http1Client.connect(server) as client:
        assert (await client.get("/inside.txt")).body == INSIDE
        (folder / "inside.txt").unlink()
        (folder / "inside.txt").symlink_to(folder.parent / "secret.txt")
        answer = await client.get("/inside.txt")
        while answer.status == 200:
            assert answer.body == INSIDE  # for a second, what memory holds
            answer = await client.get("/inside.txt")
        assert answer.status == 404
