"""Stopping: what was accepted is answered and logged, what is new is not taken."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from h2log.server import http1_leg
from h2log.server.certificates import Certificates
from tests.server.test_outcomes import Gate
from tests.server.wire import DATA, GOAWAY, HEADERS, PING, Http1Client, RawClient
from tests.support import PATIENCE, Process, Running, eventually, poll, tool

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
APP = "tests.server.process_app:app"
NO_LIMIT = 2**31 - 1


def curl(server: Process, path: str) -> subprocess.Popen[bytes]:
    """Begin a request whose status curl will print."""
    assert server.certs is not None
    return subprocess.Popen(
        [tool("curl"), "-sS", "--cacert", str(server.certs.ca), "-w", "%{http_code}",
         "-o", "/dev/null", f"{server.url}{path}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def status(client: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for a client; return its exit code and the status it was given."""
    stdout, _ = client.communicate(timeout=PATIENCE)
    return client.returncode, stdout.decode()


def accepts(server: Process) -> bool:
    """Say whether the server takes a connection."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return True
    except ConnectionError:
        return False


def counted(text: str, what: str) -> int:
    """Return one of the numbers of h2load's summary."""
    found = re.search(rf"(\d+) {what}", text)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize("target", [["serve"], ["run", APP]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(
    certs: Certificates, tmp_path: Path, target: list[str], number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C: exit code 0, well before the drain timeout."""
    with Process(*target, certs=certs, log=tmp_path / "access.log") as server:
        server.signal(number)
        assert server.wait(5) == 0


def test_stopping_under_load_loses_nothing(certs: Certificates, tmp_path: Path) -> None:
    """What a client has an answer to is in the log, and what is in the log as 200 has arrived."""
    with Process("run", APP, certs=certs, log=tmp_path / "access.log") as server:
        slow = [curl(server, "/slow/1500") for _ in range(3)]
        load = subprocess.Popen(
            [tool("h2load"), "-n", "500000", "-c", "4", "-m", "10", f"{server.url}/style.css"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            poll(lambda: connected(server) >= 7)
            poll(lambda: len(server.lines) > 2000)
            server.signal()
            assert server.wait() == 0
            text = load.communicate(timeout=PATIENCE)[0].decode()
        finally:
            load.kill()
            load.communicate()
        assert [status(client) for client in slow] == [(0, "200")] * 3
        lines = server.lines
    paths = Counter((line.path, line.status) for line in lines)
    assert paths.pop(("/slow/1500", 200)) == 3
    assert paths.pop(("/style.css", 200)) == counted(text, "succeeded") > 2000
    assert counted(text, "5xx") == counted(text, "4xx") == 0
    assert set(paths) <= {("/style.css", None)}  # told by GOAWAY that they were not taken
    assert len({line.request for line in lines}) == len(lines)


def test_new_connections_are_refused_while_old_requests_go_on(
    certs: Certificates, tmp_path: Path
) -> None:
    """The listening socket closes first; the open request is answered with 200."""
    with Process("run", APP, certs=certs, log=tmp_path / "access.log") as server:
        client = curl(server, "/slow/2000")
        poll(lambda: connected(server))
        assert accepts(server)
        server.signal()
        poll(lambda: not accepts(server))
        assert server.popen.poll() is None
        assert status(client) == (0, "200")
        assert server.wait() == 0
        assert [(line.path, line.status) for line in server.lines] == [("/slow/2000", 200)]


def connected(server: Process) -> int:
    """Return how many clients are connected: what they ask for will be answered."""
    sockets = Path(f"/proc/{server.pid}/net/tcp").read_text()
    return len(re.findall(rf"0100007F:{server.port:04X} 0100007F:\w+ 01 ", sockets))


async def waiting(server: Process, stack: contextlib.AsyncExitStack, count: int) -> None:
    """Open requests that are never answered; return when the server has them."""
    for _ in range(count):
        client = await stack.enter_async_context(RawClient.connect(server))
        client.get(1, b"/forever")
        client.send(PING, 0, 0, b"after it")
        await client.expect(PING, flags=1)


async def test_what_does_not_end_in_time_is_shut_and_logged(
    certs: Certificates, tmp_path: Path
) -> None:
    """After `--drain-timeout` each open request has its line, status -."""
    async with contextlib.AsyncExitStack() as stack:
        log = tmp_path / "access.log"
        arguments = ("run", APP, "--drain-timeout", "0.3")
        with Process(*arguments, certs=certs, log=log) as server:
            await waiting(server, stack, 3)
            server.signal()
            server.wait(5)
            assert [(line.path, line.status) for line in server.lines] == [("/forever", None)] * 3


async def test_a_second_signal_stops_at_once(certs: Certificates, tmp_path: Path) -> None:
    """Long before the drain timeout; open requests are logged all the same."""
    async with contextlib.AsyncExitStack() as stack:
        log = tmp_path / "access.log"
        arguments = ("run", APP, "--drain-timeout", "60")
        with Process(*arguments, certs=certs, log=log) as server:
            await waiting(server, stack, 2)
            server.signal(signal.SIGINT)
            poll(lambda: not accepts(server))
            assert server.popen.poll() is None
            server.signal(signal.SIGINT)
            assert server.wait(5) == 0, server.stderr.lines
            assert [(line.path, line.status) for line in server.lines] == [("/forever", None)] * 2


@BOTH_LOOPS
async def test_two_goaways(certs: Certificates) -> None:
    """The first lets requests on their way in; the second names the last that is answered."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/wait")
        await eventually(lambda: gate.entered == 1)
        stopping = asyncio.create_task(server.server.stop(PATIENCE))
        first = await client.expect(GOAWAY)
        assert (first.last_stream, first.code) == (NO_LIMIT, 0)
        ping = await client.expect(PING)
        client.get(3, b"/wait")  # was on its way
        await eventually(lambda: gate.entered == 2)
        client.send(PING, 1, 0, ping.payload)
        second = await client.expect(GOAWAY)
        assert (second.last_stream, second.code) == (3, 0)
        client.get(5, b"/wait")  # too late, and the client knows
        await server.logged(1)
        assert not stopping.done()
        gate.open.set()
        answered = {frame.stream for frame in await client.end() if frame.kind == DATA}
        assert answered == {1, 3}
        await stopping
    assert server.outcomes == {"COMPLETE": 2, "REFUSED": 1}


@BOTH_LOOPS
async def test_a_client_that_does_not_answer_the_ping_is_not_waited_for(
    certs: Certificates,
) -> None:
    """The second GOAWAY comes after a grace of about a second all the same."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/wait")
        await eventually(lambda: gate.entered == 1)
        stopping = asyncio.create_task(server.server.stop(PATIENCE))
        assert (await client.expect(GOAWAY)).last_stream == NO_LIMIT
        assert (await client.expect(GOAWAY)).last_stream == 1
        gate.open.set()
        await client.expect(HEADERS, 1)
        await stopping
    assert server.outcomes == {"COMPLETE": 1}


@BOTH_LOOPS
async def test_http1_finishes_the_open_request_and_closes(
    certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Connection: close; connections that have been idle for a moment are closed at once."""
    monkeypatch.setattr(http1_leg, "FIRST_WORDS", 0.0)
    gate = Gate()
    async with (
        Running(gate.app, certs) as server,
        Http1Client.connect(server) as busy,
        Http1Client.connect(server) as idle,
        Http1Client.connect(server) as streaming,
    ):
        assert (await idle.get("/now")).status == 200
        busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        streaming.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: gate.entered == 2)
        stopping = asyncio.create_task(server.server.stop(PATIENCE))
        assert await idle.rest() == b""
        assert not stopping.done()
        gate.open.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert (await streaming.answer()).body == b"firstlast"
        assert await busy.rest() == await streaming.rest() == b""
        await stopping
    assert server.outcomes == {"COMPLETE": 3}


@BOTH_LOOPS
async def test_http1_answers_requests_that_cross_the_stop(certs: Certificates) -> None:
    """Who was just answered, and not told that it was the last time, may have sent another."""
    gate = Gate()
    async with (
        Running(gate.app, certs) as server,
        Http1Client.connect(server) as kept,
        Http1Client.connect(server) as streaming,
    ):
        assert (await kept.get("/now")).status == 200
        streaming.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: gate.entered == 1)
        stopping = asyncio.create_task(server.server.stop(PATIENCE))
        await eventually(lambda: server.server._shared.draining)
        answer = await kept.get("/now")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        gate.open.set()
        assert (await streaming.answer()).body == b"firstlast"
        answer = await streaming.get("/now")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await kept.rest() == await streaming.rest() == b""
        await stopping
    assert server.outcomes == {"COMPLETE": 4}


@BOTH_LOOPS
async def test_a_drain_can_be_hurried(certs: Certificates) -> None:
    """`hurry` ends a drain that would go on; a stopped server stays stopped."""
    gate = Gate()
    async with Running(gate.app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/wait")
        await eventually(lambda: gate.entered == 1)
        draining = asyncio.create_task(server.server.stop(60))
        await client.expect(GOAWAY)
        server.server.hurry()
        await asyncio.wait_for(draining, 5)
        await server.server.stop(0)
    assert server.outcomes == {"SHUTDOWN": 1}


async def test_an_idle_client_that_does_not_read_keeps_nobody(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """What a pool of connections holds is cut when the server stops, long before the deadline."""
    async with Running(Gate().app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/now")
        await client.expect(HEADERS, 1)
        async with asyncio.timeout(PATIENCE):
            await server.server.stop(PATIENCE * 100)
    assert "did not end in time" not in caplog.text
