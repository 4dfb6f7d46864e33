"""What an application does before it is served and after, in a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

APP = """
import logging
from h2log import App, Request, Response

app, inner = App(), App()
app.mount("/inner", inner)
app.mount("/again", inner)
said = []

@app.on_start
async def first():
    said.append("first")

@app.on_start
def second():
    said.append("second")

@inner.on_start
def mounted():
    said.append("mounted")

@app.on_stop
async def leave():
    said.append("leave")
    open("said", "w").write(" ".join(said))

@app.on_stop
def fail():
    raise ValueError("no matter")

@inner.on_stop
def leave_mounted():
    said.append("leave-mounted")

@app.get("/")
def index(request: Request) -> Response:
    return Response.text(" ".join(said))
"""

FAILING = """
from h2log import App
app, inner = App(), App()
app.mount("/inner", inner)

@app.on_stop
def closed():
    open("closed", "w").close()

@inner.on_start
async def connect():
    raise ConnectionError("the database\\nis away")
"""


def run(folder: Path, app: str) -> subprocess.Popen[str]:
    """Run an application of this source in `folder`."""
    (folder / "mine.py").write_text(app)
    return subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "mine:app", "--insecure", "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_hooks_surround_the_serving(tmp_path: Path) -> None:
    """In order at the start, in reverse at the stop; a mounted application's once."""
    with run(tmp_path, APP) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with httpx.Client(http1=False, http2=True, base_url=url) as client:
            assert client.get("/").text == "first second mounted"
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate()
    assert server.returncode == 0
    assert (tmp_path / "said").read_text() == "first second mounted leave-mounted leave"
    assert "the application's fail failed at the stop" in errors
    assert "ValueError: no matter" in errors


def test_a_start_that_fails_is_exit_code_3(tmp_path: Path) -> None:
    """Nothing is served, the error is one line at the end, and what was opened is closed."""
    with run(tmp_path, FAILING) as server:
        out, errors = server.communicate(timeout=30)
    assert (server.returncode, out) == (3, "")
    last = errors.splitlines()[-1]
    assert last.startswith("h2log: the application failed at its start: ConnectionError: ")
    assert last.endswith("mine.py, line 12)")
    assert (tmp_path / "closed").exists()
    assert "Traceback" in errors  # the application's developer needs it, with its place
