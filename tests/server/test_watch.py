"""Pages that load anew when a file changes: the script, the events, and a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from h2log import App
from h2log.app.application import DEFAULT_CACHE_BYTES
from h2log.app.files.reload import CHANGES
from h2log.app.static import StaticFolder
from h2log.errors import UsageError
from h2log.server import watch
from h2log.server.certificates import Certificates
from h2log.server.watch import Watcher
from tests.server.h2_client import H2Client, Reply
from tests.support import Running, eventually, tool

pytest.importorskip("watchfiles", reason="watchfiles is not installed")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a page."""
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("<html><body>one</body></html>")
    (root / "bare.html").write_text("bare")
    (root / "a b.css").write_text("p{}")
    (root / "sub" / "x.txt").write_text("x")
    return root


@contextlib.asynccontextmanager
async def watched(
    site: Path, certs: Certificates | None, at: str = "/"
) -> AsyncIterator[tuple[Running, Watcher]]:
    """Serve a folder, and watch it."""
    app = App()
    app.static(site, at=at, watch=True)
    watcher = Watcher(app.folders())
    async with Running(app, certs) as server:
        await watcher.start()
        try:
            yield server, watcher
        finally:
            await watcher.stop()


async def listen(client: H2Client, watcher: Watcher, at: str = "/") -> Reply:
    """Open an event stream; return what comes of it."""
    before = watcher.listening
    stream = client.send("GET", at + CHANGES)
    reply = client.replies[stream]
    await client.until(lambda: b"watching" in reply.body)
    assert watcher.listening == before + 1
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    return reply


async def test_an_open_page_is_told_what_changes(certs: Certificates, site: Path) -> None:
    """Files that are written, made and removed, by their addresses; hidden ones are nobody's."""
    async with watched(site, certs) as (server, watcher), H2Client.connect(server) as client:
        reply = await listen(client, watcher)
        (site / ".hidden").write_text("x")
        (site / "a b.css").write_text("p{color:red}")
        await client.until(lambda: b"event: change\ndata: /a%20b.css\n" in reply.body)
        (site / "sub" / "new.txt").write_text("new")
        await client.until(lambda: b"data: /sub/new.txt\n" in reply.body)
        (site / "sub" / "x.txt").unlink()
        await client.until(lambda: b"data: /sub/x.txt\n" in reply.body)
        assert b"hidden" not in reply.body


async def test_every_open_page_is_told_and_those_that_left_are_not(
    certs: Certificates, site: Path
) -> None:
    """What a page that is closed listened to is forgotten."""
    async with (
        watched(site, certs, "/docs/") as (server, watcher),
        H2Client.connect(server) as one,
        H2Client.connect(server) as two,
    ):
        first = await listen(one, watcher, "/docs/")
        second = await listen(two, watcher, "/docs/")
        (site / "bare.html").write_text("changed")
        for client, reply in ((one, first), (two, second)):
            await client.until(lambda reply=reply: b"data: /docs/bare.html\n" in reply.body)  # type: ignore[misc]
        one.abort()
        await eventually(lambda: watcher.listening == 1)
    assert watcher.listening == 0


async def test_a_page_has_the_script_and_what_is_current(certs: Certificates, site: Path) -> None:
    """At the end of its body, each time anew, and its tag is another than without it."""
    app = App()
    app.static(site)
    async with Running(app, certs) as server, H2Client.connect(server) as client:
        plain = await client.get("/")
    assert b"<script>" not in plain.body
    async with watched(site, certs) as (server, _), H2Client.connect(server) as client:
        reply = await client.get("/")
        body = bytes(reply.body)
        assert body.startswith(b"<html><body>one<script>")
        assert body.endswith(b"</script></body></html>")
        assert b'new EventSource("/.h2log/changes")' in body
        assert reply.headers["etag"] != plain.headers["etag"]
        for n in range(20):  # not even for a second is an old one believed
            (site / "index.html").write_text(f"<body>{n}" + "x" * n)
            assert bytes((await client.get("/")).body).startswith(b"<body>%d" % n)
        assert (await client.get("/bare.html")).body.startswith(b"bare<script>")
        assert (await client.get("/sub/x.txt")).body == b"x"


async def test_the_streams_end_when_the_watch_does(certs: Certificates, site: Path) -> None:
    """So that a server that stops does not wait for pages that are open."""
    async with watched(site, certs) as (server, watcher), H2Client.connect(server) as client:
        reply = await listen(client, watcher)
        await watcher.stop()
        await client.until(lambda: reply.ended)
        assert (await client.get("/" + CHANGES)).status == 503
    assert server.outcomes == {"COMPLETE": 2}


async def test_not_everybody_may_listen(
    certs: Certificates, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a request that stays open: there is an end to them."""
    monkeypatch.setattr(watch, "MOST_PAGES", 2)
    async with watched(site, certs) as (server, watcher), H2Client.connect(server) as client:
        await listen(client, watcher)
        await listen(client, watcher)
        assert (await client.get("/" + CHANGES)).status == 503


async def test_without_a_watch_there_is_no_stream(certs: Certificates, site: Path) -> None:
    """Nor a script."""
    app = App()
    app.static(site)
    watcher = Watcher(app.folders())
    await watcher.start()
    async with Running(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.get("/" + CHANGES)).status == 404
    await watcher.stop()


def test_to_watch_needs_its_package(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the server starts, with what to install."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"watchfiles; install it with: pip install 'h2log\[watch"):
        Watcher([StaticFolder(site, "/", DEFAULT_CACHE_BYTES, watch=True)])


async def test_chromium_loads_a_page_anew(certs: Certificates, site: Path, tmp_path: Path) -> None:
    """A real browser: the page again when it changes, and a style sheet alone without it."""
    (site / "index.html").write_text('<link rel=stylesheet href="/a b.css"><p>one</p>')
    async with watched(site, certs) as (server, watcher):

        def count(path: str) -> int:
            paths = [record.facts.path.partition("?")[0] for record in server.records]
            return paths.count(path)

        process = subprocess.Popen(
            [
                tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
                "--ignore-certificate-errors", "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path}/chromium", "--remote-debugging-port=0",
                f"{server.url}/",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            await eventually(lambda: watcher.listening == 1, 30)
            (site / "a b.css").write_text("p{color:red}")
            await eventually(lambda: count("/a%20b.css") == 2, 30)
            assert count("/") == 1
            (site / "index.html").write_text('<link rel=stylesheet href="/a b.css"><p>two</p>')
            await eventually(lambda: count("/") == 2, 30)
            await eventually(lambda: watcher.listening == 1, 30)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
