"""The process that owns the log is stopped and killed: serving goes on, and no line is lost."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

from h2log.server.certificates import Certificates
from h2log.workers.control import ask
from tests.support import PATIENCE, Process, poll
from tests.workers.fleet import SOCKET, Clients, access, events, fleet, h2load, notes, owner


def ids(folder: Path) -> list[str]:
    """Return the ids in the access log; none stands twice."""
    found = [line["h2log.request"] for line in access(folder)]
    assert len(found) == len(set(found))
    return found


def another(server: Process, old: int) -> bool:
    """Say whether there is another owner."""
    return owner(server) != old


def test_lines_come_later_when_it_was_stopped(certs: Certificates, tmp_path: Path) -> None:
    """While it is stopped requests are answered; when it goes on their lines are written."""
    with fleet(tmp_path, certs) as server:
        writer = owner(server)
        with Clients(server) as clients:
            clients.more()
            os.kill(writer, signal.SIGSTOP)
            clients.more(100)
            os.kill(writer, signal.SIGCONT)
        assert not clients.failures
        assert server.stop() == 0
    assert sorted(ids(tmp_path)) == sorted(clients.ids)


def test_another_goes_on_when_it_was_killed(certs: Certificates, tmp_path: Path) -> None:
    """Under load, several times: each request has one line all the same, and none is torn."""
    with fleet(tmp_path, certs) as server:
        load = h2load(server, "-n", "20000", "-c", "4", "-m", "10")
        try:
            with Clients(server) as clients:
                for _ in range(3):
                    writer = owner(server)
                    clients.more()
                    os.kill(writer, signal.SIGKILL)
                    poll(partial(another, server, writer))
            text = load.communicate(timeout=60)[0]
        finally:
            load.kill()
            load.communicate()
        assert not clients.failures
        assert "20000 succeeded, 0 failed, 0 errored" in text
        assert server.stop() == 0
        assert sum("another is started" in line for line in server.stderr.lines) == 3
    found = ids(tmp_path)
    assert set(clients.ids) <= set(found)
    assert len(found) == 20000 + len(clients.ids)
    assert not notes(tmp_path)
    opened = [e["h2log.session.id"] for e in events(tmp_path)]
    assert len(opened) == 2 * len(set(opened))


def test_lines_beyond_the_bound_are_counted(certs: Certificates, tmp_path: Path) -> None:
    """While it takes nothing, workers keep what `max_buffer` allows; notes tell of the rest."""
    with fleet(tmp_path, certs, text="max_buffer = '64KB'") as server:
        writer = owner(server)
        with Clients(server, count=1) as clients:
            clients.more()
        os.kill(writer, signal.SIGSTOP)
        load = h2load(server, "-n", "5000", "-c", "8", "-m", "10")
        text = load.communicate(timeout=60)[0]
        assert "5000 succeeded" in text
        os.kill(writer, signal.SIGCONT)
        assert server.stop() == 0
    told = notes(tmp_path)
    missing = sum(note["lines"] for note in told)
    assert missing
    assert len(ids(tmp_path)) + missing == 5000 + len(clients.ids)
    assert {note["h2log.note"] for note in told} == {"dropped"}
    assert {note["worker"] for note in told} <= {1, 2}
    assert any("the owner of the log takes nothing" in note["reason"] for note in told)


def held(folder: Path) -> int:
    """Return how many bytes of lines a worker keeps, the most of them."""
    status = ask(str(folder / SOCKET), {"do": "status"}, PATIENCE)
    return max(int(worker["waiting"]) for worker in status["workers"])


def test_requests_wait_for_it_when_they_are_to(certs: Certificates, tmp_path: Path) -> None:
    """With `overload = "block"` nothing is lost: requests wait until it goes on."""
    options = "max_buffer = '1MB'\noverload = 'block'"
    with fleet(tmp_path, certs, text=options) as server:
        writer = owner(server)
        os.kill(writer, signal.SIGSTOP)
        load = h2load(server, "-n", "8000", "-c", "4", "-m", "10")
        try:
            poll(lambda: held(tmp_path) >= 1024 * 1024)
            assert load.poll() is None
            os.kill(writer, signal.SIGCONT)
            text = load.communicate(timeout=60)[0]
        finally:
            os.kill(writer, signal.SIGCONT)
            load.kill()
            load.communicate()
        assert "8000 succeeded, 0 failed" in text
        assert server.stop() == 0
    assert not notes(tmp_path)
    assert len(ids(tmp_path)) == 8000
