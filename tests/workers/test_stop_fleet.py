"""The end of several processes: what was accepted is answered and logged, in bounded time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.wire import PING, RawClient
from tests.support import PATIENCE, Process, poll
from tests.workers.fleet import (
    Clients,
    access,
    alive,
    children,
    events,
    fleet,
    h2load,
    owner,
    workers,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_fleet_stops(certs: Certificates, tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, and no process is left."""
    with fleet(tmp_path, certs) as server:
        pids = [*workers(server), owner(server)]
        server.signal(number)
        assert server.wait(5) == 0
        assert not alive(pids)


def test_ctrl_c_of_a_terminal_reaches_all(certs: Certificates, tmp_path: Path) -> None:
    """The whole group gets SIGINT, or SIGTERM: the supervisor decides what it means for each."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with fleet(tmp_path, certs) as server, Clients(server, "/slow/300", http2=False) as clients:
            clients.more(4)
            os.killpg(server.pid, number)
            assert server.wait() == 0
        assert set(clients.ids) <= {line["h2log.request"] for line in access(tmp_path)}
    assert Counter(line["h2log.outcome"] for line in access(tmp_path)).keys() == {"COMPLETE"}


def test_slow_responses_are_not_cut(certs: Certificates, tmp_path: Path) -> None:
    """Under load with 50 responses of two seconds: none is lost, and each has its line."""
    with fleet(tmp_path, certs) as server:
        load = h2load(server, "-n", "500000", "-c", "4", "-m", "10")
        slow = h2load(server, "-n", "50", "-c", "10", "-m", "5", path="/slow/2000")
        try:
            poll(lambda: (tmp_path / "access.log").stat().st_size > 2_000_000)
            poll(lambda: connections(server) >= 14)
            server.signal()
            assert server.wait() == 0
            text = slow.communicate(timeout=PATIENCE)[0]
            fast = load.communicate(timeout=PATIENCE)[0]
        finally:
            for process in (load, slow):
                process.kill()
                process.communicate()
    assert "50 succeeded, 0 failed, 0 errored" in text, text
    done = Counter(
        (line["url.path"], line.get("http.response.status_code")) for line in access(tmp_path)
    )
    assert done.pop(("/slow/2000", 200)) == 50
    found = re.search(r"(\d+) succeeded", fast)
    assert found is not None
    assert done.pop(("/", 200)) >= int(found[1])
    assert set(done) <= {("/", None)}


def connections(server: Process) -> int:
    """Return how many sessions were opened."""
    path = Path(str(server.log)).with_name("session.log")
    return path.read_text().count("session.opened")


async def test_clients_that_hang_do_not_hold_it_up(certs: Certificates, tmp_path: Path) -> None:
    """After `--drain-timeout` what is open ends as SHUTDOWN."""
    async with contextlib.AsyncExitStack() as stack:
        with fleet(tmp_path, certs, "--drain-timeout", "0.3") as server:
            for _ in range(4):
                await waiting(server, stack)
            server.signal()
            assert server.wait(5) == 0
    assert Counter(line["h2log.outcome"] for line in access(tmp_path)) == {"SHUTDOWN": 4}
    assert len(events(tmp_path)) == 8


async def waiting(server: Process, stack: contextlib.AsyncExitStack) -> None:
    """Open a request that is never answered; return when the server has it."""
    client = await stack.enter_async_context(RawClient.connect(server))
    client.get(1, b"/forever")
    client.send(PING, 0, 0, b"after it")
    await client.expect(PING, flags=1)


async def test_a_second_signal_hurries(certs: Certificates, tmp_path: Path) -> None:
    """Long before the drain timeout; what is open is logged all the same."""
    async with contextlib.AsyncExitStack() as stack:
        with fleet(tmp_path, certs, "--drain-timeout", "60") as server:
            await waiting(server, stack)
            server.signal()
            with pytest.raises(subprocess.TimeoutExpired):
                server.popen.wait(0.5)
            server.signal()
            assert server.wait(5) == 0
    assert [line["h2log.outcome"] for line in access(tmp_path)] == ["SHUTDOWN"]


def test_nobody_is_left_without_the_supervisor(certs: Certificates, tmp_path: Path) -> None:
    """When it is killed, the workers drain and end, and the owner of the log after them."""
    with fleet(tmp_path, certs) as server:
        pids = [*workers(server), *children(server, "h2log.workers.owner")]
        with Clients(server, "/slow/500", count=1, http2=False) as clients:
            clients.more(2)
            server.signal(signal.SIGKILL)
            server.wait()
            poll(lambda: not alive(pids))
    assert set(clients.ids) <= {line["h2log.request"] for line in access(tmp_path)}


WAITING = """
import asyncio

async def app(scope, receive, send):
    print("begun", flush=True)
    await asyncio.Event().wait()
"""


def test_a_stop_while_they_begin(tmp_path: Path) -> None:
    """Workers whose application is not ready are given up, and nothing is an error."""
    (tmp_path / "waiting.py").write_text(WAITING)
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "waiting:app", "--workers", "2", "--insecure",
         "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    assert "ERROR" not in errors and "Traceback" not in errors
