"""Paths that try to leave the folder: never a byte from outside, never a 5xx."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from h2log import App
from h2log.server.certificates import Certificates
from tests.server.wire import HEADERS, RST_STREAM, Http1Client, RawClient
from tests.support import Running, run

SECRET = b"the bytes from outside"
INSIDE = b"inside"

DOTS = ("..", "%2e%2e", "%2E.", ".%2e", "..%00", "..;", "..%20", "%c0%ae%c0%ae", "%uff0e%uff0e")
SLASHES = ("/", "%2f", "%2F", "\\", "%5c", "%252f", "%c0%af", "//")
HOSTILE: list[str] = [
    # every way to write "one up", with every way to write a slash
    *(f"/{dots}{slash}secret.txt" for dots in DOTS for slash in SLASHES),
    *(f"/sub/{dots}/{dots}/secret.txt" for dots in DOTS),
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
    return root


def harmless(status: int, body: bytes) -> bool:
    """Say whether a response gave nothing away."""
    return status < 500 and SECRET not in body and b"root:" not in body


def test_the_table_is_long_enough() -> None:
    """At least a hundred different paths."""
    assert len(set(HOSTILE)) == len(HOSTILE) >= 100


async def test_no_path_leads_outside_over_http2(certs: Certificates, folder: Path) -> None:
    """Each is answered or reset, on one connection that lives on, with its own line."""
    app = App()
    app.static(folder)
    async with Running(app, certs) as server, RawClient.connect(server) as client:
        stream = 1
        for path in [*HOSTILE, "/sibling/secret.txt", "/../secret.txt\0", "/..\n/secret.txt"]:
            client.get(stream, path.encode())
            body, status = b"", 0
            while True:
                frame = await client.read()
                if frame.stream != stream:
                    assert frame.kind != 7, "GOAWAY"
                    continue
                if frame.kind == RST_STREAM:
                    break
                if frame.kind == HEADERS:
                    status = int(client.fields(frame)[":status"])
                else:
                    body += frame.payload
                if frame.flags & 1:
                    break
            assert harmless(status, body), path
            if body == INSIDE:
                assert status == 200
            stream += 2
        client.get(stream, b"/inside-link.txt")
        assert (await client.expect(0, stream)).payload == INSIDE
    assert len(server.records) == (stream + 1) // 2
    assert all(record.status < 500 for record in server.records)
    served = {r.facts.path for r in server.records if r.status == 200}
    assert served == {"/?/../secret.txt", "/inside-link.txt"}


async def test_no_path_leads_outside_over_http1(certs: Certificates, folder: Path) -> None:
    """The same paths as the target of HTTP/1.1, also in absolute form."""
    app = App()
    app.static(folder)
    async with Running(app, certs) as server:
        for form in ("{}", "https://localhost{}"):
            async with Http1Client.connect(server) as client:
                for path in HOSTILE:
                    answer = await client.get(form.format(path))
                    assert harmless(answer.status, answer.body), path
    assert len(server.records) == 2 * len(HOSTILE)


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
