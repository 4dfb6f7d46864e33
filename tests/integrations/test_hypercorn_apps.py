"""Applications of all kinds in `h2log run --server hypercorn`, and where it listens and logs."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from h2log.access.lines import is_note
from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.integrations.hypercorn_process import Hypercorn
from tests.integrations.lines import Lines
from tests.support import PATIENCE, ROOT, client_context, eventually, run

RAW = "tests.integrations.asgi_app:app"
APPS = {
    "raw": RAW,
    "fastapi": "tests.frameworks.fastapi_app:app",
    "wsgi": "tests.integrations.asgi_app:wsgi",
}
BOUND = 64 * 1024
SHORTEST = 250
"""Bytes that no line of `h2log-full` is shorter than."""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, certs: Certificates
) -> Iterator[dict[str, Hypercorn]]:
    """A server for each application."""
    started: dict[str, Hypercorn] = {}
    try:
        for name, app in APPS.items():
            log = tmp_path_factory.mktemp(name) / "access.log"
            started[name] = Hypercorn(log, certs, app=app).__enter__()
        yield started
    finally:
        for server in started.values():
            server.__exit__(None, None, None)


def client(server: Hypercorn, http2: bool) -> httpx.AsyncClient:
    """Return an httpx client for a server."""
    assert server.certs is not None
    verify = client_context(server.certs)
    return httpx.AsyncClient(base_url=server.url, http1=not http2, http2=http2, verify=verify)


@pytest.mark.parametrize("http2", [True, False])
async def test_an_end_that_comes_by_itself(running: dict[str, Hypercorn], http2: bool) -> None:
    """A response whose last message is empty is COMPLETE when its end was sent."""
    server = running["raw"]
    async with client(server, http2) as asking:
        for n in range(5):
            assert (await asking.get(f"/stream?{http2}{n}")).text == "onetwo"
    for n in range(5):
        line = await server.full.one(f"/stream?{http2}{n}")
        assert (line.status, line.sent, line.outcome) == (200, 6, Outcome.COMPLETE)


async def test_trailers(running: dict[str, Hypercorn]) -> None:
    """A response with trailers is COMPLETE, whether the client wants them or not."""
    server = running["raw"]
    async with client(server, True) as asking:
        for te in ("trailers", ""):
            answer = await asking.get(f"/trailers?{te}", headers={"te": te} if te else {})
            assert answer.text == "four"
    for te in ("trailers", ""):
        line = await server.full.one(f"/trailers?{te}" if te else "/trailers?")
        assert (line.sent, line.outcome) == (4, Outcome.COMPLETE)


@pytest.mark.parametrize("http2", [True, False])
async def test_fastapi(running: dict[str, Hypercorn], http2: bool) -> None:
    """FastAPI's routes are in the lines."""
    server = running["fastapi"]
    async with client(server, http2) as asking:
        assert (await asking.get("/")).json() == {"hello": "world"}
        assert (await asking.get(f"/items/{int(http2)}")).status_code == 200
        assert (await asking.get(f"/missing{http2}")).status_code == 404
    line = await server.full.one(f"/items/{int(http2)}")
    assert (line.route, line.outcome) == ("/items/{number}", Outcome.COMPLETE)
    assert (await server.full.one(f"/missing{http2}")).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("http2", [True, False])
async def test_wsgi(running: dict[str, Hypercorn], http2: bool) -> None:
    """A WSGI application's responses are COMPLETE, and HANDLER_ERROR where it raised."""
    server = running["wsgi"]
    async with client(server, http2) as asking:
        assert (await asking.post(f"/w?{http2}", content=b"x" * 1000)).text == "1000"
        assert (await asking.get(f"/raise?{http2}")).status_code == 500
    line = await server.full.one(f"/w?{http2}")
    assert (line.received, line.sent, line.outcome) == (1000, 4, Outcome.COMPLETE)
    line = await server.full.one(f"/raise?{http2}")
    assert (line.status, line.outcome) == (500, Outcome.HANDLER_ERROR)


async def test_a_unix_socket(tmp_path: Path) -> None:
    """`--unix` is served, and the client is `unix:`."""
    log, path = tmp_path / "access.log", tmp_path / "socket"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "h2log", "run", RAW, "--server", "hypercorn", "--insecure"),
        *("--unix", str(path), "--access-log", str(log), "--access-format", "h2log-full"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == f"http://unix:{path}\n".encode()
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as asking:
        assert (await asking.get("/unix")).status_code == 200
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
    line = await Lines(log).one("/unix")
    assert (line.client, line.port, line.outcome) == ("unix:", None, Outcome.COMPLETE)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--unix", "{folder}/socket"), "HTTP/3 is over UDP, and there is none on a Unix socket"),
        (("--config", "{folder}/h2log.toml"), "Hypercorn cannot ask for client certificates"),
    ],
)
async def test_what_http3_cannot_do(
    tmp_path: Path, certs: Certificates, options: tuple[str, ...], text: str
) -> None:
    """It is refused with one line, and exit code 2."""
    (tmp_path / "h2log.toml").write_text(
        f'[tls]\nclient_cert = "required"\nclient_ca = "{certs.ca}"\n'
    )
    given = [option.format(folder=tmp_path) for option in options]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "h2log", "run", RAW, "--server", "hypercorn", "--http3", *given),
        *("--cert", str(certs.cert), "--key", str(certs.key), "--port", "0", "--access-log", "-"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2, errors
    [line] = errors.decode().splitlines()
    assert text in line


async def test_a_log_that_holds_requests_up(tmp_path: Path) -> None:
    """With `overload = "block"` requests wait for a pipe that nobody reads; no line is dropped."""
    pipe, settings = tmp_path / "pipe", tmp_path / "h2log.toml"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    settings.write_text(
        f'[[log.access]]\npath = "{pipe}"\nformat = "h2log-full"\nmax_buffer = {BOUND}\n'
        'overload = "block"\n'
    )
    pieces: list[bytes] = []

    def read() -> None:
        while piece := os.read(descriptor, BOUND):
            pieces.append(piece)

    with Hypercorn(pipe, None, "--config", str(settings)) as server:
        load = asyncio.create_task(run("h2load", "-n", "3000", "-c", "4", "-m", "5", server.url))
        await eventually(lambda: _waiting(descriptor) > BOUND // 2)
        held_up = await run("h2load", "-D", "1", "-c", "2", "-m", "5", f"{server.url}/held")
        found = re.search(r", (\d+) done, ", held_up.text)
        assert found is not None and int(found[1]) <= 4 * BOUND // SHORTEST
        assert not load.done()
        os.set_blocking(descriptor, True)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert "3000 succeeded" in (await load).text
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(reader.join, PATIENCE)
    os.close(descriptor)
    lines = b"".join(pieces).decode("ascii").splitlines()
    assert len([line for line in lines if not is_note(line) and "\t/held\t" not in line]) == 3000
    assert len([line for line in lines if is_note(line)]) == 1, "nothing tells of dropped lines"


def _waiting(descriptor: int) -> int:
    """Return how many bytes a pipe holds."""
    size = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, size)
    return size[0]
