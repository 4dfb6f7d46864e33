"""h2load: twenty thousand requests, twenty thousand lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.support import Process, poll, run

REQUESTS, CLIENTS = 20_000, 10
ARTICLE = "/article/a2e12610c3f94d0b8e7f5a4b3c2d1e0f/06-request.html"


@pytest.mark.parametrize("log", ["file", "-"])
async def test_every_request_has_its_line(certs: Certificates, tmp_path: Path, log: str) -> None:
    """All are 200; as many lines and request ids as requests, a session id a connection."""
    path = tmp_path / "access.log" if log == "file" else "-"
    with Process("serve", certs=certs, log=path) as server:
        done = await run(
            "h2load", "-n", str(REQUESTS), "-c", str(CLIENTS), "-m", "10", f"{server.url}{ARTICLE}"
        )
        assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in done.text
        assert f"{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx" in done.text
        poll(lambda: len(server.lines) >= REQUESTS)
        assert server.stop() == 0
        lines = server.lines
    assert len(lines) == REQUESTS
    assert {(line.status, line.version, line.path) for line in lines} == {(200, "h2", ARTICLE)}
    assert len({line.request for line in lines}) == REQUESTS
    sessions = Counter(line.session for line in lines)
    assert len(sessions) == CLIENTS
    assert set(sessions.values()) == {REQUESTS // CLIENTS}


async def test_http1_under_load(certs: Certificates, tmp_path: Path) -> None:
    """The same over HTTP/1.1, which h2load speaks too."""
    with Process("serve", certs=certs, log=tmp_path / "access.log") as server:
        done = await run(
            "h2load", "--h1", "-n", "3000", "-c", "10", "-m", "1", f"{server.url}{ARTICLE}"
        )
        assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in done.text
        assert server.stop() == 0
        lines = server.lines
    assert len({line.request for line in lines}) == len(lines) == 3000
    assert {(line.status, line.version) for line in lines} == {(200, "1.1")}
    assert len({line.session for line in lines}) == 10


async def test_every_new_url_has_its_own_line(certs: Certificates, tmp_path: Path) -> None:
    """Paths are not mixed up between streams that are open at the same time."""
    paths = [f"/style.css?n={n}" for n in range(2000)]
    listed = tmp_path / "paths"
    with Process("serve", certs=certs, log=tmp_path / "access.log") as server:
        listed.write_text("".join(f"{server.url}{path}\n" for path in paths))
        done = await run("h2load", "-n", "2000", "-c", "1", "-m", "50", "-i", str(listed))
        assert "2000 succeeded" in done.text
        assert server.stop() == 0
        lines = server.lines
    assert len(lines) == len({line.request for line in lines}) == 2000
    assert {line.path for line in lines} == set(paths)
    assert {line.status for line in lines} == {200}
