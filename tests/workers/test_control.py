"""`h2log status`, `reload` and `stop`: what is told of a server, and what it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from h2log.errors import UsageError
from h2log.server.certificates import Certificates
from h2log.workers import control
from h2log.workers.control import Control
from tests.server.wire import PING, RawClient
from tests.support import PATIENCE, accepts, free_port, poll
from tests.workers.fleet import SOCKET, Clients, fleet, owner, settings, workers


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command about the server whose logs are in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "h2log", *arguments, "--control", str(folder / SOCKET)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def status(folder: Path) -> dict[str, Any]:
    """Return what the server tells, as the command asks it."""
    return control.ask(str(folder / SOCKET), {"do": "status"}, PATIENCE)


async def test_status_tells_of_everything(certs: Certificates, tmp_path: Path) -> None:
    """Workers, counters of all, open requests with their age and without secrets, the logs."""
    with fleet(tmp_path, certs) as server:
        poll(lambda: accepts(tmp_path / SOCKET))
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
        poll(lambda: all(tasks(tmp_path)) and len(status(tmp_path)["owner"]["logs"]) == 3)
        at_rest = [min(counts) for counts in zip(*(tasks(tmp_path) for _ in range(5)), strict=True)]
        with Clients(server) as clients:
            clients.more(20)
        async with RawClient.connect(server) as client:
            client.get(1, b"/forever?token=secret")
            client.send(PING, 0, 0, b"after it")
            await client.expect(PING, flags=1)
            counted = {"active": 1, "connections": 1, "requests": len(clients.ids)}
            poll(lambda: counted.items() <= status(tmp_path)["total"].items())
            found = json.loads(ask(tmp_path, "status", "--json").stdout)
            shown = ask(tmp_path, "status").stdout
        assert found["pid"] == server.pid
        assert found["url"] == server.url
        assert [worker["pid"] for worker in found["workers"]] == workers(server)
        assert {worker["state"] for worker in found["workers"]} == {"serving"}
        assert found["total"]["requests"] == len(clients.ids)
        assert found["total"]["connections"] == 1
        [request] = found["requests"]
        assert (request["method"], request["path"]) == ("GET", "/forever?token=REDACTED")
        assert request["age"] > 0
        assert found["owner"]["pid"] == owner(server)
        logs = {log["path"]: log for log in found["owner"]["logs"]}
        poll(lambda: written(status(tmp_path), tmp_path) == len(clients.ids) + 1)
        poll(lambda: all(now <= rest for now, rest in zip(tasks(tmp_path), at_rest, strict=True)))
        assert logs[str(tmp_path / "access.log")]["failing"] == ""
        for text in (server.url, "serving", "/forever?token=REDACTED", "access.log"):
            assert text in shown
        assert server.stop() == 0
    assert not (tmp_path / SOCKET).exists()


def tasks(folder: Path) -> list[int]:
    """Return how many tasks the supervisor, the owner and the workers have."""
    found = status(folder)
    told = [worker["tasks"] for worker in found["workers"]]
    return [found["tasks"], found["owner"]["tasks"], *told]


def written(found: dict[str, Any], folder: Path) -> int:
    """Return how many lines of the access log are written."""
    [log] = [log for log in found["owner"]["logs"] if log["path"] == str(folder / "access.log")]
    return int(log["written"])


def test_reload_says_what_came_of_it(certs: Certificates, tmp_path: Path) -> None:
    """When it is done; what kept the old workers is an error."""
    with fleet(tmp_path, certs, noisy=True) as server:
        before = workers(server)
        poll(lambda: accepts(tmp_path / SOCKET))
        done = ask(tmp_path, "reload")
        assert (done.returncode, done.stdout) == (0, "reloaded: 2 workers are new\n"), done.stderr
        poll(lambda: len(workers(server)) == 2)
        assert set(before).isdisjoint(workers(server))
        settings(tmp_path, "[server]\nbacklog = 0")
        done = ask(tmp_path, "reload")
        assert done.returncode == 2
        assert "nothing is reloaded, the old workers go on" in done.stderr
        assert "server.backlog" in done.stderr


def test_stop_returns_at_the_end(certs: Certificates, tmp_path: Path) -> None:
    """The server has drained then."""
    with fleet(tmp_path, certs) as server:
        poll(lambda: accepts(tmp_path / SOCKET))
        done = ask(tmp_path, "stop")
        assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        assert not workers(server)
        assert server.wait() == 0


def test_without_a_server(tmp_path: Path) -> None:
    """One line says what is missing; a socket that a dead server has left is none."""
    for _ in range(2):
        done = ask(tmp_path, "status")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "no server answers at" in done.stderr
        if not (tmp_path / SOCKET).exists():
            subprocess.run(
                [sys.executable, "-c", "import socket, sys\n"
                 "socket.socket(socket.AF_UNIX).bind(sys.argv[1])", SOCKET],
                cwd=tmp_path, check=True,
            )  # fmt: skip


def answers(folder: Path, pid: int = 0) -> bool:
    """Say whether that process answers; without a number, whether any does."""
    try:
        return status(folder)["pid"] == pid or not pid
    except UsageError:
        return False


def test_what_a_dead_server_left_is_replaced(certs: Certificates, tmp_path: Path) -> None:
    """And a server that lives keeps its socket from a second one, which serves all the same."""
    with fleet(tmp_path, certs) as server:
        poll(partial(answers, tmp_path, server.pid))
        os.kill(server.pid, 9)
        server.wait()
        poll(lambda: not answers(tmp_path))
    assert (tmp_path / SOCKET).exists()
    with fleet(tmp_path, certs) as first:
        poll(partial(answers, tmp_path, first.pid))
        with fleet(tmp_path, certs) as second:
            second.stderr.wait(lambda line: "another server has it" in line)
            assert second.stop() == 0
        assert status(tmp_path)["pid"] == first.pid


async def test_wrong_questions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each has an answer that says what is wrong with it; nothing is logged."""

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        return question

    path = tmp_path / SOCKET
    asked = Control(str(path), answer)
    await asked.open()
    try:
        for question in (b"[]", b"no JSON", b"\xff\xfe", b"[" * 4000, b"x" * 5000):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(question + b"\n")
            assert set(json.loads(await reader.readline())) == {"error"}, question[:10]
            assert await reader.read() == b""
            writer.close()
    finally:
        await asked.close()
    assert not caplog.records


def test_a_server_that_ends_before_it_answers(tmp_path: Path) -> None:
    """That is what is said of it."""
    path = str(tmp_path / SOCKET)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        server = threading.Thread(target=hang_up)
        server.start()
        with pytest.raises(UsageError, match="has ended before it answered"):
            control.ask(path, {"do": "reload"}, PATIENCE)
        server.join()


def test_what_a_stop_keeps_from_being_reloaded(certs: Certificates, tmp_path: Path) -> None:
    """Who asked for it is told; nobody has to read a traceback."""
    app = tmp_path / "stuck.py"
    app.write_text("from h2log import App\napp = App()\n")
    with fleet(tmp_path, certs, "--app-dir", str(tmp_path), target="stuck:app") as server:
        poll(partial(answers, tmp_path))
        app.write_text("import threading\nthreading.Event().wait()\n")
        began = subprocess.Popen(
            [sys.executable, "-m", "h2log", "reload", "--control", str(tmp_path / SOCKET)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        poll(lambda: len(workers(server)) == 3)
        assert server.stop() == 0
        assert "nothing is reloaded: the server stops" in began.communicate(timeout=PATIENCE)[1]
        assert not any("Traceback" in line for line in server.stderr.lines)


def test_a_reload_moves_the_other_sockets(certs: Certificates, tmp_path: Path) -> None:
    """The control socket is where the settings of now have it, and so is the admin listener."""
    with fleet(tmp_path, certs) as server:
        poll(partial(answers, tmp_path))
        port = free_port()
        moved = tmp_path / "moved.sock"
        settings(tmp_path, f"[server]\ncontrol = '{moved}'\n[admin]\nport = {port}")
        assert ask(tmp_path, "reload").returncode == 0
        poll(lambda: accepts(moved))
        assert not (tmp_path / SOCKET).exists()
        assert control.ask(str(moved), {"do": "status"}, PATIENCE)["pid"] == server.pid
        assert httpx.get(f"http://127.0.0.1:{port}/-/readyz").status_code == 200
        moved.unlink()  # by somebody who has cleaned up
        server.signal(signal.SIGHUP)
        poll(lambda: moved.exists() and accepts(moved))
        settings(tmp_path)
        assert control.ask(str(moved), {"do": "reload"}, PATIENCE)
        poll(partial(answers, tmp_path, server.pid))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/-/readyz")
        assert server.stop() == 0
    assert not moved.exists() and not (tmp_path / SOCKET).exists()
