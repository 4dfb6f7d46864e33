"""Workers that are killed: what they had open is logged, the rest goes on, and others come."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.server.wire import HEADERS, RawClient
from tests.support import Process, client_context, eventually, poll
from tests.workers.fleet import (
    APP,
    Clients,
    access,
    events,
    fleet,
    h2load,
    notes,
    owner,
    replaced,
    settings,
    workers,
)


def outcomes(folder: Path) -> Counter[str]:
    """Return how many requests ended how."""
    return Counter(line["h2log.outcome"] for line in access(folder))


async def test_open_requests_get_their_line(certs: Certificates, tmp_path: Path) -> None:
    """Outcome WORKER_LOST, with everything that was known; the session ends for that reason."""
    with fleet(tmp_path, certs) as server:
        before = workers(server)
        async with RawClient.connect(server) as client:
            client.get(1, b"/forever?a=1", (b"user-agent", b"test"))
            client.get(3, b"/slow/1")
            await client.expect(HEADERS, 3)
            await eventually(lambda: outcomes(tmp_path)["COMPLETE"])
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            await eventually(lambda: outcomes(tmp_path)["WORKER_LOST"])
        poll(lambda: len(set(workers(server)) - set(before)) == 2)
        assert server.stop() == 0
    lines = {line["h2log.outcome"]: line for line in access(tmp_path)}
    assert lines.keys() == {"WORKER_LOST", "COMPLETE"}
    assert len(access(tmp_path)) == 2
    lost = lines["WORKER_LOST"]
    assert (lost["url.path"], lost["url.query"]) == ("/forever", "a=1")
    assert lost["user_agent.original"] == "test"
    assert lost["tls.protocol.version"] == "1.3"
    assert (lost["h2log.stream"], lost["h2log.nth"]) == (1, 1)
    assert "http.response.status_code" not in lost
    assert lost["h2log.session"] == lines["COMPLETE"]["h2log.session"]
    opened, closed = events(tmp_path)
    assert opened["h2log.event"] == "session.opened"
    assert closed["h2log.event"] == "session.closed"
    assert closed["error.type"] == "worker_lost"
    assert closed["h2log.session.id"] == opened["h2log.session.id"] == lost["h2log.session"]
    assert closed["h2log.session.requests"] == 2
    assert closed["h2log.session.outcomes"] == {"COMPLETE": 1, "WORKER_LOST": 1}


def noted(notes: Path) -> int:
    """Return how much the application has noted."""
    return notes.stat().st_size if notes.exists() else 0


def grown(notes: Path, size: int) -> bool:
    """Say whether it has noted so much."""
    return noted(notes) > size


def test_workers_are_killed_again_and_again(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one was at: each request that a handler saw has one line, and no line is torn."""
    seen = tmp_path / "notes"
    monkeypatch.setenv("FLEET_NOTES", str(seen))
    choose = random.Random(7)
    with fleet(tmp_path, certs) as server:
        with Clients(server, count=1) as clients:
            for _ in range(4):
                # Fast ones begin and end within a turn of the worker's loop; slow ones are open.
                loads = [
                    h2load(server, "-D", "60", "-c", "8", "-m", "10"),
                    h2load(server, "-D", "60", "-c", "8", "-m", "2", path="/slow/200"),
                ]
                try:
                    poll(partial(grown, seen, noted(seen) + 9999), 30)
                    victim = choose.choice(workers(server))
                    os.kill(victim, signal.SIGKILL)
                finally:
                    for load in loads:
                        load.kill()
                        load.communicate()
                poll(partial(replaced, server, victim), 30)
        assert server.stop() == 0
    ids = [line["h2log.request"] for line in access(tmp_path)]
    assert len(ids) == len(set(ids)), "a request has two lines"
    assert set(seen.read_text().split()) <= set(ids), "a request has no line"
    assert set(clients.ids) <= set(ids)
    assert len(clients.failures) <= 4
    assert outcomes(tmp_path)["WORKER_LOST"]
    at = Counter((e["h2log.event"], e["h2log.session.id"]) for e in events(tmp_path))
    assert set(at.values()) == {1}
    opened = {session for event, session in at if event == "session.opened"}
    assert opened <= {session for event, session in at if event == "session.closed"}


def test_a_worker_is_killed_while_nobody_takes_its_lines(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request that a handler saw has a line, or is counted in a note, and not both."""
    seen = tmp_path / "notes"
    monkeypatch.setenv("FLEET_NOTES", str(seen))
    with fleet(tmp_path, certs, text="max_buffer = '64KB'") as server:
        writer = owner(server)
        os.kill(writer, signal.SIGSTOP)
        load = h2load(server, "-D", "60", "-c", "8", "-m", "10")
        try:
            poll(partial(grown, seen, 200_000), 30)
            victim = workers(server)[0]
            os.kill(victim, signal.SIGKILL)
            poll(partial(replaced, server, victim), 30)
        finally:
            load.kill()
            load.communicate()
            os.kill(writer, signal.SIGCONT)
        assert server.stop() == 0
    ids = [line["h2log.request"] for line in access(tmp_path)]
    assert len(ids) == len(set(ids))
    told = notes(tmp_path)
    assert "dropped" in {note["h2log.note"] for note in told} <= {"dropped", "lost"}
    more = len(ids) + sum(note["lines"] for note in told) - len(seen.read_text().split())
    assert 0 <= more <= 80  # requests that were opened, and had not come to their handler


def test_a_worker_and_the_owner_are_killed(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together: the next owner counts what neither can tell any more."""
    seen = tmp_path / "notes"
    monkeypatch.setenv("FLEET_NOTES", str(seen))
    with fleet(tmp_path, certs) as server:
        load = h2load(server, "-D", "60", "-c", "8", "-m", "10")
        try:
            poll(partial(grown, seen, 50_000), 30)
            writer, victim = owner(server), workers(server)[0]
            os.kill(writer, signal.SIGKILL)
            os.kill(victim, signal.SIGKILL)
            poll(partial(replaced, server, victim), 30)
            poll(lambda: owner(server) != writer)
        finally:
            load.kill()
            load.communicate()
        assert server.stop() == 0
    ids = [line["h2log.request"] for line in access(tmp_path)]
    assert len(ids) == len(set(ids))
    told = notes(tmp_path)
    assert {note["reason"] for note in told} == {"killed, and the owner of the log"}
    assert len(ids) + sum(note["lines"] for note in told) >= len(seen.read_text().split())


DYING = """
import os

def line(record):
    if record.facts.path == "/last" and not os.path.exists("{mark}"):
        open("{mark}", "w").close()
        os.kill(os.getpid(), 9)
    return f"{{record.id}} {{record.status}} {{record.outcome.value}} {{record.sent}}"
"""


def test_what_was_answered_is_told_as_it_was(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a request's line was sent: it has the status and outcome that it had."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "dying.py").write_text(DYING.format(mark=tmp_path / "mark"))
    config = settings(tmp_path, form="python:dying:line")
    with Process(
        "run", APP, "--workers", "2", "--config", str(config),
        certs=certs, log=tmp_path / "access.log",
    ) as server:  # fmt: skip
        before = workers(server)
        with httpx.Client(http2=True, verify=client_context(certs)) as client:
            answer = client.get(f"{server.url}/last")
        poll(lambda: set(workers(server)) != set(before))
        assert server.stop() == 0
    wanted = f"{answer.headers['x-request-id']} 404 COMPLETE {len(answer.content)}"
    assert (tmp_path / "access.log").read_text().splitlines() == [wanted]


def test_a_worker_that_ends_by_itself(certs: Certificates, tmp_path: Path) -> None:
    """Is told with its exit code and replaced; the request that it ended by is WORKER_LOST."""
    with fleet(tmp_path, certs) as server:
        before = set(workers(server))
        with Clients(server, "/exit/7", count=1) as clients:
            poll(lambda: clients.failures)
        poll(lambda: len(now := set(workers(server))) == 2 and now != before)
        server.stderr.wait(lambda line: "has ended (exit code 7): another is started" in line)
        assert server.stop() == 0
    ended = [line for line in access(tmp_path) if line["url.path"] == "/exit/7"]
    assert {line["h2log.outcome"] for line in ended} <= {"WORKER_LOST", "SHUTDOWN"}


def test_a_frozen_worker_is_replaced(certs: Certificates, tmp_path: Path) -> None:
    """One that gives no sign of life is killed; what it had open is WORKER_LOST."""
    with fleet(tmp_path, certs, text="[server]\nworker_timeout = 2") as server:
        before = set(workers(server))
        frozen = min(before)
        os.kill(frozen, signal.SIGSTOP)
        server.stderr.wait(lambda line: "gives no sign of life for 2 s: it is killed" in line)
        server.stderr.wait(lambda line: "has ended (frozen): another is started" in line)
        poll(lambda: replaced(server, frozen))
        with Clients(server) as clients:
            poll(lambda: len(clients.ids) > 20)
        assert not clients.failures
        assert server.stop() == 0


def test_a_worker_that_ended_in_order_is_replaced_too(certs: Certificates, tmp_path: Path) -> None:
    """SIGTERM to one worker drains it: its request is answered, and nothing is lost."""
    with fleet(tmp_path, certs) as server:
        before = set(workers(server))
        with Clients(server, "/slow/300", count=4, http2=False) as clients:
            poll(lambda: len(clients.ids) > 4)
            os.kill(min(before), signal.SIGTERM)
            poll(lambda: replaced(server, min(before)))
        assert server.stop() == 0
    assert set(outcomes(tmp_path)) == {"COMPLETE"}
    assert len(access(tmp_path)) == len(clients.ids)
