"""`AccessLogMiddleware` in other servers: uvicorn, Hypercorn, Granian."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.integrations.other_server import OtherServer
from tests.server.h2_client import H2Client
from tests.support import PATIENCE, Process, client_context, eventually, run

APP = "tests.integrations.asgi_app"
SERVERS = {
    "uvicorn-httptools": ["uvicorn", "--http", "httptools", "--port", "{port}"],
    "uvicorn-h11": ["uvicorn", "--http", "h11", "--ws", "wsproto", "--port", "{port}"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}"],
}


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    """Each server's name."""
    return str(request.param)


def settings(folder: Path, *, more: str = "") -> Path:
    """Write settings for a log in `folder`."""
    file = folder / "h2log.toml"
    file.write_text(
        f'[[log.access]]\npath = "{folder}/access.log"\nformat = "h2log-full"\n{more}\n'
    )
    return file


@contextlib.contextmanager
def serving(name: str, folder: Path, app: str = "logged", *options: str) -> Iterator[OtherServer]:
    """Have a server of SERVERS with an application of `asgi_app`."""
    environ = {"LOG_SETTINGS": str(settings(folder))}
    command = [*SERVERS[name], *options, f"{APP}:{app}"]
    with OtherServer(command, folder / "access.log", environ) as server:
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, OtherServer]]:
    """One of each."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(name, tmp_path_factory.mktemp(name)))
            for name in SERVERS
        }


@pytest.fixture
def server(running: dict[str, OtherServer], name: str) -> OtherServer:
    """The one that is tested."""
    return running[name]


async def test_a_line_says_what_was(server: OtherServer) -> None:
    """A request has its line with what the application and its server tell, and no more."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/facts?a=%41", headers={"user-agent": "test"})
    line = await server.full.one("/facts?a=%41")
    assert answer.text == f"{line.session} {line.request}"
    assert answer.headers.get_list("x-request-id") == [line.request]
    assert (line.version, line.status, line.method, line.scheme) == ("1.1", 200, "GET", "http")
    assert (line.outcome, line.nth, line.user_agent) == (Outcome.COMPLETE, 1, "test")
    assert (line.sent, line.received) == (len(answer.content), 0)
    assert line.header_received is line.header_sent is line.stalled_ms is line.blocked_ms is None


async def test_a_connection_is_a_session(server: OtherServer) -> None:
    """Requests that are kept alive share a session; another connection has another."""
    sessions = []
    for n in range(2):
        async with httpx.AsyncClient() as client:
            texts = [(await client.get(f"{server.url}/same?{n}")).text for _ in range(3)]
        lines = await server.full.of(f"/same?{n}", 3)
        assert len({text.split()[0] for text in texts}) == 1
        assert [line.nth for line in lines] == [line.stream for line in lines] == [1, 2, 3]
        sessions.append(lines[0].session)
    assert sessions[0] != sessions[1]


async def test_bodies(server: OtherServer) -> None:
    """Uploads are counted; HEAD and 304 have no content."""
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{server.url}/length", content=b"x" * 70_000)).text == "70000"
        await client.head(f"{server.url}/head")
        assert (await client.get(f"{server.url}/not-modified")).status_code == 304
    assert (await server.full.one("/length")).received == 70_000
    assert (await server.full.one("/head")).sent == 0
    assert (await server.full.one("/not-modified")).status == 304


async def test_applications_that_fail(server: OtherServer) -> None:
    """An exception, or no response, is a 500 of the server's, and HANDLER_ERROR."""
    for path in ("/raise", "/nothing"):
        async with httpx.AsyncClient() as client:
            assert (await client.get(server.url + path)).status_code == 500
        line = await server.full.one(path)
        assert (line.status, line.outcome) == (500, Outcome.HANDLER_ERROR)


@pytest.mark.parametrize("path", ["/raise-head", "/bad-head", "/cancelled"])
async def test_the_status_of_who_fails_early(server: OtherServer, path: str) -> None:
    """It is the one that the client was given, and none where it was given none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    line = await server.full.one(path)
    assert line.status == (int(answer.split()[1]) if answer else None)
    assert line.outcome is Outcome.HANDLER_ERROR


async def test_an_exception_after_the_start(server: OtherServer) -> None:
    """The status that was sent stands, with HANDLER_ERROR."""
    async with httpx.AsyncClient() as client:
        with contextlib.suppress(httpx.HTTPError):
            await client.get(f"{server.url}/raise-late")
    line = await server.full.one("/raise-late")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.HANDLER_ERROR)


@pytest.mark.parametrize("path", ["/wait", "/endless"])
async def test_a_client_that_vanishes(server: OtherServer, path: str) -> None:
    """It is PEER_LOST."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    if path == "/endless":
        assert await reader.read(100)
    else:
        async with httpx.AsyncClient() as client:
            await client.get(f"{server.url}/here")
    writer.transport.abort()
    assert (await server.full.one(path)).outcome is Outcome.PEER_LOST


@pytest.mark.parametrize("ending", ["client", "application", "raise", "lost"])
async def test_websockets(server: OtherServer, name: str, ending: str) -> None:
    """A WebSocket has one line, at its end, with the bytes of its messages."""
    target = f"/socket?{ending}"
    async with connect(f"ws://127.0.0.1:{server.port}{target}") as socket:
        assert socket.response is not None
        named = socket.response.headers.get("x-request-id")
        await socket.send("grüße")
        assert await socket.recv() == "grüße"
        assert not [line for line in server.full.all() if line.target == target]
        if ending == "lost":
            socket.transport.abort()
        elif ending != "client":
            await socket.send("close" if ending == "application" else "raise")
        if ending != "client":
            await socket.wait_closed()
    line = await server.full.one(target)
    ways = {"raise": Outcome.HANDLER_ERROR, "lost": Outcome.PEER_LOST}
    if (name, ending) != ("granian", "lost"):  # it tells of a close
        assert line.outcome is ways.get(ending, Outcome.COMPLETE)
    assert line.status == 101
    said = {"application": 5, "raise": 5}.get(ending, 0)
    assert (line.received, line.sent) == (7 + said, 7)
    # Granian sends none of the fields that an application accepts with.
    assert line.request == named or (named is None and name == "granian")


async def test_a_websocket_that_is_refused(server: OtherServer) -> None:
    """It has the 403 that servers answer."""
    with pytest.raises(Exception, match="403"):
        async with connect(f"ws://127.0.0.1:{server.port}/refused"):
            pass
    line = await server.full.one("/refused")
    assert (line.status, line.outcome) == (403, Outcome.COMPLETE)


async def test_http2_in_hypercorn(running: dict[str, OtherServer]) -> None:
    """Hypercorn lets us see streams, and who reset them."""
    server = running["hypercorn"]
    async with H2Client.connect(server) as client:  # type: ignore[arg-type]
        first = client.send("GET", "/endless?reset")
        assert (await client.get("/second")).status == 200
        await client.until(lambda: client.replies[first].body)
        client.reset(first)
        await client.get("/third")
    line = await server.full.one("/endless?reset")
    assert (line.version, line.stream, line.outcome) == ("h2", 1, Outcome.CLIENT_RESET)
    second = await server.full.one("/second")
    assert (second.session, second.stream) == (line.session, 3)


def _over(name: str) -> tuple[str, ...]:
    """Return h2load's option: it does not take Hypercorn's status line without a reason."""
    return () if name == "hypercorn" else ("--h1",)


@pytest.mark.parametrize(
    ("name", "app"), [*((name, "logged") for name in SERVERS), ("uvicorn-h11", "quiet")]
)
async def test_no_line_is_lost_at_the_end(name: str, app: str, tmp_path: Path) -> None:
    """SIGTERM under load: what a client has, has a line, with a lifespan of its own or ours."""
    with serving(name, tmp_path, app) as server:
        load = await asyncio.create_subprocess_exec(
            *("h2load", *_over(name), "-n", "100000", "-c", "4", f"{server.url}/load"),
            stdout=asyncio.subprocess.PIPE,
        )
        while len(server.full.all()) < 200:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop)
        output = (await load.communicate())[0].decode()
    found = re.search(r"status codes: (\d+) 2xx", output)
    assert found is not None, output
    lines = server.full.all()
    assert len(lines) >= int(found[1]) >= 200 - 4  # that may have been on their way
    assert len({line.request for line in lines}) == len(lines)


async def test_without_lifespan(tmp_path: Path) -> None:
    """A server that runs no lifespan has the log opened by the first request, and no line late."""
    with serving("uvicorn-h11", tmp_path, "logged", "--lifespan", "off") as server:
        assert not server.full.path.exists()
        async with httpx.AsyncClient() as client:
            for n in range(20):
                await client.get(f"{server.url}/{n}")
                await server.full.one(f"/{n}")
        await asyncio.to_thread(server.stop)
    assert len(server.full.all()) == 20


@pytest.mark.parametrize("server_name", ["uvicorn-h11", "hypercorn"])
async def test_several_processes(server_name: str, tmp_path: Path) -> None:
    """Workers share the file: one rotates it, and every line is in it once."""
    more = 'rotate = { size = "20KB" }'
    environ = {"LOG_SETTINGS": str(settings(tmp_path, more=more))}
    command = [*SERVERS[server_name], "--workers", "2", f"{APP}:logged"]
    with OtherServer(command, tmp_path / "access.log", environ) as server:
        options = (*_over(server_name), "-n", "500", "-c", "20")
        for ended in range(1, 3):
            done = await run("h2load", *options, f"{server.url}/several")
            assert "500 succeeded" in done.text
            await eventually(lambda: len(list(tmp_path.glob("access*log*"))) > ended)  # noqa: B023
        await asyncio.to_thread(server.stop)
    text = "".join(file.read_text() for file in tmp_path.glob("access*log*"))
    found = re.findall(r"^2[^\t]+\t200\t[^\t]+\t([0-9a-f]{32})\t([0-9a-f]{32})\t", text, re.M)
    assert len(found) == len({request for _, request in found}) == 1000
    assert len({session for session, _ in found}) == 40


async def test_workers_that_are_terminated_while_they_drain(tmp_path: Path) -> None:
    """Hypercorn does that to the others when the first has ended: every request has its line."""
    environ = {"LOG_SETTINGS": str(settings(tmp_path))}
    command = [*SERVERS["hypercorn"], "--workers", "2", "--graceful-timeout", "5", f"{APP}:logged"]
    with OtherServer(command, tmp_path / "access.log", environ) as server:
        async with H2Client.connect(server) as client:  # type: ignore[arg-type]
            client.send("GET", "/wait")
            for n in range(100):
                await client.get(f"/{n}")
            await asyncio.to_thread(server.stop)
    lines = server.full.all()
    assert len({line.request for line in lines}) == len(lines) == 101
    assert [line.outcome for line in lines if line.target == "/wait"] == [Outcome.SHUTDOWN]


async def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    """It stops the start of a server that runs lifespan, and says why."""
    (tmp_path / "h2log.toml").write_text('[[log.access]]\npath = "/dev/null/access.log"\n')
    environ = {"LOG_SETTINGS": str(tmp_path / "h2log.toml")}
    command = ["uvicorn", "--port", "{port}", f"{APP}:logged"]
    server = OtherServer(command, tmp_path / "access.log", environ)
    why = r"cannot open the access log /dev/null"
    with pytest.raises(pytest.fail.Exception, match=why), server:
        pass
    assert server.popen.returncode == 3


async def test_under_h2log_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """h2log's server has a line already, and the middleware makes no other, and no file."""
    monkeypatch.setenv("LOG_SETTINGS", str(settings(tmp_path)))
    log = tmp_path / "server.log"
    for backend in ("h2log", "hypercorn"):
        with Process("run", f"{APP}:logged", "--server", backend, certs=None, log=log) as server:
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{server.url}/{backend}")).status_code == 200
            assert server.stop() == 0
    assert [line.path for line in server.lines] == ["/h2log", "/hypercorn"]
    assert not (tmp_path / "access.log").exists()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_tls_and_proxies_in_uvicorn(loop: str, tmp_path: Path, certs: Certificates) -> None:
    """A connection of TLS is one session; each request has the client that a proxy names."""
    environ = {"LOG_SETTINGS": str(settings(tmp_path))}
    tls = ["--ssl-certfile", str(certs.cert), "--ssl-keyfile", str(certs.key)]
    command = ["uvicorn", "--loop", loop, *tls, "--port", "{port}", f"{APP}:logged"]
    with OtherServer(command, tmp_path / "access.log", environ) as server:
        url = f"https://127.0.0.1:{server.port}/from"
        async with httpx.AsyncClient(verify=client_context(certs)) as client:
            for n in (1, 2):
                await client.get(f"{url}?{n}", headers={"x-forwarded-for": f"203.0.113.{n}"})
            await client.get(f"{url}?3")
        lines = [await server.full.one(f"/from?{n}") for n in (1, 2, 3)]
    assert [line.client for line in lines] == ["203.0.113.1", "203.0.113.2", "127.0.0.1"]
    assert [line.nth for line in lines] == [1, 2, 3]
    assert len({line.session for line in lines}) == 1
    assert lines[0].port is None and lines[2].port is not None
    assert {line.tls_version for line in lines} == {"TLSv1.3"}
