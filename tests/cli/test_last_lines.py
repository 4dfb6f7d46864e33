"""The end of connections and of the process, as the logs tell it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from h2log.access import parse_line
from tests.server.wire import PREFACE, SETTINGS, frame
from tests.support import free_port, poll

SETTINGS_FILE = """
[server]
port = 0
insecure = true
drain_timeout = 1

[[log.access]]
path = "access.log"
format = "json"

[log.session]
path = "session.log"
format = "h2log"
"""
APP = """
import asyncio, sys
from h2log import App, Request, Response

app = App()

@app.get("/slow")
async def slow(request: Request) -> Response:
    await asyncio.Event().wait()

@app.get("/fast")
async def fast(request: Request) -> Response:
    return Response.text("fast")

@app.get("/task")
async def task(request: Request) -> Response:
    async def leave():
        sys.exit(5)
    request.state["task"] = asyncio.create_task(leave())
    return Response.text("left")

@app.get("/callback")
async def callback(request: Request) -> Response:
    asyncio.get_running_loop().call_soon(sys.exit, 6)
    return Response.text("called")
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the application in `folder`; yield the process and its address, then end it."""
    (folder / "h2log.toml").write_text(SETTINGS_FILE)
    (folder / "mine.py").write_text(APP)
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "mine:app"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def sessions(folder: Path) -> list[dict[str, str]]:
    """Return the session log's lines, by column."""
    path = folder / "session.log"
    header, *rest = (path.read_text() if path.exists() else "").splitlines() or [""]
    names = header.removeprefix("#Fields:").split()
    return [dict(zip(names, line.split("\t"), strict=True)) for line in rest]


def closed(folder: Path) -> list[dict[str, str]]:
    """Return the lines of the sessions that have ended."""
    return [row for row in sessions(folder) if row["event"] == "closed"]


def connect(url: str, request: bytes) -> socket.socket:
    """Connect and send."""
    host, _, port = url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(request)
    return sock


ONE = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
BROKEN = b"GET /slow HTTP/1.1\r\nHost: x"
TWO = PREFACE + frame(SETTINGS, 0, 0) + frame(1, 5, 1, b"\x82\x86\x04\x05/slow\x41\x01x")


@pytest.mark.parametrize(
    ("request_", "outcome"), [(ONE, "PEER_LOST"), (BROKEN, "PEER_LOST"), (TWO, "PEER_LOST")]
)
def test_a_lost_connection_sums_up_what_it_ended(
    tmp_path: Path, request_: bytes, outcome: str
) -> None:
    """The session's line counts the requests that ended with it, and the bytes that came."""
    with serving(tmp_path) as (_, url):
        with connect(url, request_) as sock:
            if request_ is BROKEN:
                sock.shutdown(socket.SHUT_WR)
            poll(lambda: len(sessions(tmp_path)) >= 1)
            if request_ is TWO:
                while b"\x04\x01" not in sock.recv(65536):  # our SETTINGS are acknowledged
                    pass
        poll(lambda: len(closed(tmp_path)) == 1)
    [row] = closed(tmp_path)
    lines = (tmp_path / "access.log").read_text().splitlines()
    [line] = [parse_line("json", text) for text in lines]
    assert line.outcome is not None
    assert (row["requests"], row["outcomes"]) == ("1", f"{line.outcome.value}=1")
    assert line.outcome.value == outcome
    assert int(row["received"]) == len(request_)


def test_sessions_that_outlive_the_drain_are_closed_in_the_log(tmp_path: Path) -> None:
    """A peer that answers nothing to our close keeps neither the server nor its line."""
    with serving(tmp_path) as (server, url), ExitStack() as held:
        for _ in range(3):
            held.enter_context(connect(url, TWO))
        poll(lambda: len(sessions(tmp_path)) == 3)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert len(closed(tmp_path)) == 3
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert [parse_line("json", text).target for text in lines] == ["/slow"] * 3


@pytest.mark.parametrize("path", ["/task", "/callback"])
def test_nobody_but_a_signal_ends_the_server(tmp_path: Path, path: str) -> None:
    """`sys.exit` in a task or a callback is told in the log, and others go on being served."""
    with serving(tmp_path) as (server, url):
        with httpx.Client(http1=False, http2=True, base_url=url) as client:
            assert client.get(path).status_code == 200
            assert client.get("/fast").text == "fast"
            assert client.get("/fast").text == "fast"
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
        assert server.returncode == 0
    assert "does not end the server" in errors
    assert len((tmp_path / "access.log").read_text().splitlines()) == 3


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_trap(tmp_path: Path, closing: str) -> None:
    """No file of ours takes their numbers, and what would be written there goes nowhere."""
    port = free_port()
    command = f"exec {sys.executable} -m h2log serve . --insecure --port {port} {closing}"
    with subprocess.Popen(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE) as server:
        poll(lambda: _listens(port))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert (tmp_path / "logs" / "access.log").read_text() == ""


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)):
            return True
    except ConnectionRefusedError:
        return False


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="SIGUSR1 is missing")
def test_a_rotation_during_the_start_does_not_kill(tmp_path: Path) -> None:
    """SIGUSR1 before there is a log means nothing."""
    (tmp_path / "mine.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\n"
        "from h2log import App\napp = App()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "mine:app", "--insecure", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
