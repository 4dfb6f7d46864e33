"""The logs of a real server, set up by a file: outputs, sessions, and the application's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log.access.lines import parse
from tests.support import poll

SETTINGS = """
[server]
port = 0
insecure = true

[[log.access]]
path = "access.log"

[[log.access]]
path = "errors.json"
format = "json"
skip = "status < 400"

[log.session]
path = "session.log"

[log.app]
path = "app.log"
level = "info"
"""
APP = """
import logging
from h2log import App, Request, Response

app = App()

@app.get("/")
async def index(request: Request) -> Response:
    logging.getLogger("mine").info("here", extra={"answer": 42})
    return Response.text("index")

@app.get("/wrong")
async def wrong(request: Request) -> Response:
    raise ValueError("mistake")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings and an application."""
    (tmp_path / "h2log.toml").write_text(SETTINGS)
    (tmp_path / "mine.py").write_text(APP)
    return tmp_path


def serve(folder: Path) -> subprocess.Popen[str]:
    """Start the folder's application with the folder's settings."""
    return subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "mine:app"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_log_gets_its_own(folder: Path) -> None:
    """Each output has its records in its format; ids are the same in all of them."""
    with serve(folder) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with httpx.Client(http1=False, http2=True, base_url=url) as client:
                for path in ("/", "/wrong", "/absent", "/"):
                    client.get(path)
        finally:
            server.send_signal(signal.SIGTERM)
        server.communicate()
        assert server.returncode == 0
    lines = [parse(line) for line in (folder / "access.log").read_text().splitlines()]
    assert [line.status for line in lines] == [200, 500, 404, 200]
    [session] = {line.session for line in lines}
    failed = [json.loads(line) for line in (folder / "errors.json").read_text().splitlines()]
    assert [line["http.response.status_code"] for line in failed] == [500, 404]
    assert [line["h2log.sequence"] for line in failed] == [2, 3]
    header, opened, closed = (folder / "session.log").read_text().splitlines()
    assert header.startswith("#Fields: ")
    assert opened.split("\t")[1:3] == ["opened", session]
    assert closed.split("\t")[1:3] == ["closed", session]
    fields = dict(zip(header.removeprefix("#Fields: ").split(), closed.split("\t"), strict=True))
    assert fields["requests"] == "4"
    assert fields["outcomes"] == "COMPLETE=3,HANDLER_ERROR=1"
    said = (folder / "app.log").read_text()
    assert f"[{session} {lines[0].request}] mine" in said
    assert '"answer":42' in said.replace(" ", "")
    assert f"[{session} {lines[1].request}] h2log.app" in said
    assert "ValueError: mistake" in said


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="SIGUSR1 is missing")
def test_sigusr1_reopens_the_logs(folder: Path) -> None:
    """As logrotate does it: moved away, a signal sent, and writing goes on in a new file."""
    with serve(folder) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with httpx.Client(http1=False, http2=True, base_url=url) as client:
                client.get("/")
                poll(lambda: (folder / "access.log").read_text().count("\n") == 1)
                os.replace(folder / "access.log", folder / "access.log.1")
                server.send_signal(signal.SIGUSR1)
                poll(lambda: (folder / "access.log").exists())
                client.get("/wrong")
        finally:
            server.send_signal(signal.SIGTERM)
        server.communicate()
        assert server.returncode == 0
    texts = [(folder / name).read_text() for name in ("access.log.1", "access.log")]
    assert [[parse(line).status for line in text.splitlines()] for text in texts] == [[200], [500]]
