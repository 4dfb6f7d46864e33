"""User sessions in the memory of one process, and several processes: refused, with the remedy."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import Process, client_context, free_port
from tests.workers.fleet import fleet, workers

APP = """
from h2log import App, Request, Response
from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_sessions import UserSessions
from h2log.integrations.sqlite_sessions import SqliteStore

SECRET = "thirty-two characters, or more of them"

def counting(**options):
    made = App()
    made.use(UserSessions(SECRET, **options), static=False)

    @made.get("/")
    def count(request: Request) -> Response:
        request.user_session["seen"] = request.user_session.get("seen", 0) + 1
        return Response.text(str(request.user_session["seen"]))

    return made

default = counting()
memory = counting(store=MemoryStore())
sqlite = counting(store=SqliteStore("sessions.db"))
above = App()
middle = App()
middle.mount("/inner", default)
above.mount("/middle", middle)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with applications that have user sessions."""
    (tmp_path / "mine.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "options", "why"),
    [
        ("mine:default", ("--workers", "2"), "with several workers each would have its own"),
        ("mine:memory", ("--workers", "2"), "or run it with --workers 1"),
        ("mine:above", ("--workers", "2"), "mine:above keeps user sessions in the memory"),
        ("mine:default", ("--max-requests", "9"), "a worker that is replaced"),
        ("mine:default", ("--max-rss", "1GB"), "a worker that is replaced"),
    ],
)
def test_memory_is_refused(folder: Path, target: str, options: tuple[str, ...], why: str) -> None:
    """At the start, with code 2 and the stores that will do; mounted applications too."""
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", target, *options, "--insecure", "--port", "0"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert why in line
    assert "SqliteStore or RedisStore" in line


def test_a_store_for_all_will_do(
    certs: Certificates, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user session goes on whichever worker answers."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "mine.py").write_text(APP.replace("sessions.db", str(folder / "sessions.db")))
    with fleet(folder, certs, target="mine:sqlite") as server:
        assert len(workers(server)) == 2
        jar = httpx.Cookies()
        for seen in range(1, 11):
            with httpx.Client(verify=client_context(certs), cookies=jar) as client:
                assert client.get(server.url).text == str(seen)
                jar = client.cookies
        assert server.stop() == 0


def test_one_worker_keeps_them(
    certs: Certificates, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for a store; a second worker, on SIGTTIN, is refused and the first goes on."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with Process("run", "mine:default", certs=certs, log=folder / "log") as server:
        with httpx.Client(verify=client_context(certs)) as client:
            assert [client.get(server.url).text for _ in range(3)] == ["1", "2", "3"]
        assert server.stop() == 0
    text = f"[admin]\nport = {free_port()}"
    with fleet(folder, certs, target="mine:default", text=text, count=1) as server:
        before = workers(server)
        with httpx.Client(verify=client_context(certs)) as client:
            assert client.get(server.url).text == "1"
            server.signal(signal.SIGTTIN)
            server.stderr.wait(lambda line: "each would have its own" in line)
            assert client.get(server.url).text == "2"
        assert before[0] in workers(server)
        assert server.stop() == 0
