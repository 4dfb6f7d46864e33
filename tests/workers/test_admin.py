"""The admin listener, and what systemd is told and gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, free_port, poll
from tests.workers.fleet import Clients, fleet, owner, workers

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def port() -> int:
    """A port that is free."""
    return free_port()


def test_health_and_counters(certs: Certificates, tmp_path: Path, port: int) -> None:
    """Alive, ready, counters of all workers; anything else is an error of HTTP."""
    text = f"[admin]\nport = {port}"
    with fleet(tmp_path, certs, text=text) as server:
        with Clients(server) as clients:
            clients.more(20)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/-/") as admin:
            assert admin.get("healthz").text == "ok\n"
            assert admin.get("readyz").status_code == 200
            assert admin.head("healthz").content == b""
            poll(lambda: admin.get("counters").json()["total"]["requests"] == len(clients.ids))
            counters = admin.get("counters").json()
            assert [worker["pid"] for worker in counters["workers"]] == workers(server)
            assert counters["owner"]["pid"] == owner(server)
            assert admin.get("nothing").status_code == 404
            assert admin.post("healthz").status_code == 405
            assert admin.get("healthz", headers={"x": "y" * 20_000}).status_code == 431
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(b"no http\r\n\r\n")
                assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
        assert server.stop() == 0


SLOW = """
import os, time
from h2log import App
try:  # the first serves at once, the second when it may
    os.mkdir("first")
except FileExistsError:
    while not os.path.exists("go"):
        time.sleep(0.01)
app = App()
"""


def test_not_ready_without_a_worker(
    certs: Certificates, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single worker is supervised, too, when there is an admin listener."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "slow.py").write_text(SLOW.replace('("', f'("{tmp_path}/'))
    text = f"[admin]\nport = {port}"
    with fleet(tmp_path, certs, target="slow:app", text=text, count=1) as server:
        [pid] = workers(server)
        ready = f"http://127.0.0.1:{port}/-/readyz"
        assert httpx.get(ready).status_code == 200
        os.kill(pid, signal.SIGKILL)
        poll(lambda: httpx.get(ready).status_code == 503)
        (tmp_path / "go").touch()
        poll(lambda: httpx.get(ready).status_code == 200)
        assert server.stop() == 0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        os.chdir(tmp_path)
        sock.bind("notify")
        os.chdir(ROOT)
        sock.settimeout(PATIENCE)
        yield sock


def told(manager: socket.socket, wanted: str) -> str:
    """Return the first message that has `wanted`."""
    while True:
        message = manager.recv(4096).decode()
        if wanted in message:
            return message


def test_systemd_gives_a_socket_and_is_told(manager: socket.socket, tmp_path: Path) -> None:
    """Socket activation; ready, alive, reloading, ready again, stopping."""
    (tmp_path / "mine.py").write_text("from h2log import App\napp = App()\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # As systemd does: descriptor 3, and the process that is meant.
        start = (
            "import os, sys\n"
            f"os.dup2({listener.fileno()}, 3)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'h2log', 'run', 'mine:app', "
            "'--insecure', '--workers', '1'])\n"
        )
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": "notify",
            "LISTEN_FDS": "1",
            "WATCHDOG_USEC": "30000000",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", start], cwd=tmp_path, env=environ, stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()], text=True,
        )  # fmt: skip
    with process:
        try:
            assert f"MAINPID={process.pid}" in told(manager, "READY=1")
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
            told(manager, "WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in told(manager, "RELOADING=1")
            told(manager, "READY=1")
            process.terminate()
            told(manager, "STOPPING=1")
        finally:
            process.terminate()
    assert process.returncode == 0
