"""What goes wrong at the start of several processes is one line, an exit code, and nobody left."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.support import poll
from tests.workers.fleet import Clients, access, fleet, owner, replaced, workers

GOOD = "from h2log import App\napp = App()\n"


def refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` with two workers: it does not come to serving."""
    return subprocess.run(
        [sys.executable, "-m", "h2log", "run", *arguments, "--workers", "2", "--insecure"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("import nowhere", 2, "h2log: cannot import mine: ModuleNotFoundError: No module named"),
        ("app = 1", 2, "h2log: mine:app is int, expected an h2log.App"),
        ("1 / 0", 2, "h2log: cannot import mine: ZeroDivisionError: division by zero"),
        (
            f"{GOOD}\n@app.on_start\ndef boot():\n    raise OSError('no database')",
            3,
            "h2log: the application failed at its start: OSError: no database",
        ),
        ("import os\nos._exit(9)", 3, "h2log: a worker has ended before it served (exit code 9)"),
    ],
)
def test_an_application_that_fails(tmp_path: Path, source: str, code: int, text: str) -> None:
    """Its error stops the start, as with one process."""
    (tmp_path / "mine.py").write_text(source)
    done = refused(tmp_path, "mine:app", "--port", "0")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.splitlines()[-1].startswith(text), done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Is told once, by the supervisor."""
    (tmp_path / "mine.py").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = refused(tmp_path, "mine:app", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the port is in use" in done.stderr


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    """As with one process, whoever opens it."""
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "file").touch()
    done = refused(tmp_path, "mine:app", "--port", "0", "--access-log", "file/access.log")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot open the access log file/access.log: Not a directory" in done.stderr


def test_a_log_that_may_not_be_written(tmp_path: Path) -> None:
    """Names the file and the reason."""
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "logs").mkdir(mode=0o500)
    # There is a place where root may not write either.
    path = "logs/access.log" if os.geteuid() else "/sys/kernel/access.log"
    done = refused(tmp_path, "mine:app", "--port", "0", "--access-log", path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot open the access log {path}: " in done.stderr
    assert "Permission denied" in done.stderr or "Read-only file system" in done.stderr


def test_a_certificate_that_is_missing(tmp_path: Path) -> None:
    """The workers' word for it is the command's."""
    (tmp_path / "mine.py").write_text(GOOD)
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", "mine:app", "--workers", "2", "--port", "0",
         "--cert", "nowhere.pem"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nowhere.pem" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", ["0", "many", "-1"])
def test_a_number_of_workers_that_is_none(tmp_path: Path, number: str) -> None:
    """Is a mistake of whoever started it."""
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "serve", "--workers", number],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--workers" in done.stderr and 'from 1 to 1024, or "auto"' in done.stderr


def test_a_worker_that_cannot_come_back(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, ever later; the other serves, and the mended one comes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    source = tmp_path / "mending.py"
    good = Path(__file__).with_name("fleet_app.py").read_text()
    source.write_text(good)
    with fleet(tmp_path, certs, target="mending:app", noisy=True) as server:
        source.write_text("1 / 0")
        victim = workers(server)[0]
        os.kill(victim, 9)
        server.stderr.wait(lambda line: "ZeroDivisionError" in line and "in 0.5 s" in line)
        server.stderr.wait(lambda line: "ZeroDivisionError" in line and "in 1 s" in line)
        with Clients(server) as clients:
            clients.more()
            source.write_text(good)
            poll(lambda: replaced(server, victim))
        assert not clients.failures
        assert server.stop() == 0


def test_a_log_that_cannot_be_opened_again(certs: Certificates, tmp_path: Path) -> None:
    """A new owner of the log tries again, and serving goes on: the lines come when it can."""
    logs = tmp_path / "logs"
    (tmp_path / "away").mkdir()
    (tmp_path / "file").write_text("in the way")
    logs.symlink_to("away")
    with fleet(logs, certs, noisy=True) as server:
        with Clients(server) as clients:
            clients.more()
            old = owner(server)
            lead(logs, "file")
            os.kill(old, 9)
            server.stderr.wait(lambda line: "cannot be opened again" in line)
            clients.more()
            lead(logs, "away")
            clients.more()
        assert not clients.failures
        assert server.stop() == 0
    text = (logs / "access.log").read_text()
    assert all(identifier in text for identifier in clients.ids)


def lead(link: Path, target: str) -> None:
    """Have a link lead elsewhere, in one step: at no time is there nothing."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.rename(link)


def test_no_descriptor_for_another_process(certs: Certificates, tmp_path: Path) -> None:
    """The supervisor tries again until it can start a worker, and the owner of the log."""
    with fleet(tmp_path, certs, noisy=True) as server:
        victim, old = workers(server)[0], owner(server)
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        os.kill(victim, 9)
        server.stderr.wait(lambda line: "cannot start a worker: Too many open files" in line)
        os.kill(old, 9)
        server.stderr.wait(lambda line: "that has the logs: Too many open files" in line)
        with Clients(server, count=1) as clients:
            clients.more()
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
            poll(lambda: replaced(server, victim))
            assert owner(server) != old
        assert not clients.failures
        assert server.stop() == 0
    assert set(clients.ids) <= {line["h2log.request"] for line in access(tmp_path)}
