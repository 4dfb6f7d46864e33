"""The log of the application and of the server itself: one file, one console, whoever says it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from h2log.access.lines import is_note
from h2log.server.certificates import Certificates
from tests.support import PATIENCE, ROOT, Process, accepts, free_port, poll
from tests.workers.fleet import (
    SOCKET,
    Clients,
    fleet,
    owner,
    replaced,
    settings,
    workers,
)

LONG = 6000
"""Characters of a path whose line is longer than what a pipe takes in one piece (PIPE_BUF)."""


def told(server: Process, text: str) -> int:
    """Return how often the console has `text`."""
    return sum(text in line for line in server.stderr.lines)


def test_file_and_console(certs: Certificates, tmp_path: Path) -> None:
    """What a worker, the supervisor and the owner of the log say is in both, once."""
    path = tmp_path / "app.log"
    text = f'[log.app]\npath = "{path}"'
    with fleet(tmp_path, certs, text=text) as server:
        with Clients(server, "/say/something", count=1) as clients:
            clients.more(1)
        poll(lambda: told(server, "said something") == len(clients.ids))
        victim = workers(server)[0]
        os.kill(victim, signal.SIGKILL)
        poll(lambda: replaced(server, victim))
        poll(lambda: told(server, f"(process {victim}) has ended"))
        writer = owner(server)
        os.kill(writer, signal.SIGKILL)
        poll(lambda: owner(server) != writer)
        poll(lambda: f"the process {writer} that has the logs has ended" in path.read_text())
        assert server.stop() == 0
        assert told(server, f"(process {victim}) has ended (killed)") == 1
        assert told(server, f"the process {writer} that has the logs has ended (killed)") == 1
    written = path.read_text()
    assert written.count("said something") == len(clients.ids)
    assert written.count(f"(process {victim}) has ended (killed)") == 1
    assert written.count(f"the process {writer} that has the logs has ended (killed)") == 1


def test_what_does_not_concern_the_console(certs: Certificates, tmp_path: Path) -> None:
    """Its level is the file's no more than with one process: `off` leaves the file alone."""
    path = tmp_path / "app.log"
    text = f'[log.app]\npath = "{path}"\nconsole = "off"'
    with fleet(tmp_path, certs, text=text) as server:
        with Clients(server, "/say/something", count=1) as clients:
            clients.more(1)
        poll(lambda: path.read_text().count("said something") == len(clients.ids))
        assert server.stop() == 0
        assert not told(server, "said something")


SLOW = """
import os, time
from h2log import App, Request, Response
try:  # the first serves at once, the second when it may
    os.mkdir("first")
except FileExistsError:
    while not os.path.exists("go"):
        time.sleep(0.01)
app = App()
"""


def test_one_pipe_for_all(tmp_path: Path) -> None:
    """Long lines while the URL is announced, all into one pipe that is always full: none is torn.

    The application's log is there, too.
    """
    (tmp_path / "mine.py").write_text(SLOW)
    port = free_port()
    control = f'[server]\ncontrol = "{tmp_path / SOCKET}"\n'
    config = settings(tmp_path, f'{control}[log.app]\nlevel = "debug"')
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "mine:app", "--insecure", "--workers", "2",
         "--port", str(port), "--config", str(config), "--access-log", "-",
         "--log-level", "debug"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=write, stderr=write,
    )  # fmt: skip
    os.close(write)
    url = f"http://127.0.0.1:{port}"
    over, asked = threading.Event(), 0

    def ask() -> None:
        nonlocal asked
        with httpx.Client() as client:
            while not over.is_set():
                try:
                    client.get(f"{url}/{'x' * LONG}")
                    asked += 1
                except httpx.TransportError:
                    continue

    asking = threading.Thread(target=ask)
    asking.start()
    lines: list[bytes] = []
    try:
        poll(lambda: asked > 20)  # their lines are more than the pipe takes
        (tmp_path / "go").touch()
        poll(lambda: accepts(tmp_path / SOCKET))  # all serve, which is about to be announced
        with os.fdopen(read, "rb", buffering=512) as pipe:
            for line in pipe:
                lines.append(line)
                if url.encode() in line:
                    over.set()
                    process.terminate()
    finally:
        over.set()
        asking.join()
        process.terminate()
        assert process.wait(PATIENCE) == 0
    texts = [line.decode() for line in lines]
    assert f"{url}\n" in texts
    found = [text for text in texts if "x" * 100 in text and text.startswith("{")]
    assert len(found) >= asked
    for text in found:
        assert is_note(text) or len(json.loads(text)["url.path"]) == LONG + 1
    assert not [text for text in texts if "x" * 100 in text and text[0] not in "{["]
