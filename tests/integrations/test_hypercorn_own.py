"""h2log's lines in a Hypercorn that somebody else starts: `h2log.integrations.hypercorn`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import httpx
import pytest
from hypercorn.config import Config

from h2log.access.record import Outcome
from h2log.errors import UsageError
from h2log.integrations.hypercorn import traced
from h2log.integrations.hypercorn_trace import install
from h2log.server.certificates import Certificates
from tests.integrations.http3_client import H3Client
from tests.integrations.other_server import OtherServer
from tests.server.h2_client import H2Client
from tests.support import client_context, eventually, free_port, poll, run

APP = "tests.integrations.asgi_app:app"
TRACED = ["hypercorn", "-c", "python:h2log.integrations.hypercorn", "--bind", "127.0.0.1:{port}"]


def write_settings(folder: Path) -> Path:
    """Write the settings that a server started in `folder` has."""
    file = folder / "h2log.toml"
    file.write_text(
        f'[[log.access]]\npath = "{folder}/access.log"\nformat = "h2log-full"\n'
        f'[log.session]\npath = "{folder}/session.log"\n'
    )
    return file


def session_log(folder: Path) -> list[list[str]]:
    """Return the columns of the session log, of connections that spoke HTTP."""
    lines = (folder / "session.log").read_text().splitlines()
    found = [line.split("\t") for line in lines if not line.startswith("#")]
    return [columns for columns in found if columns[5] != "-"]


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop"])
async def test_the_configuration_is_the_module(tmp_path: Path, worker_class: str) -> None:
    """`-c python:h2log.integrations.hypercorn` is all that it takes."""
    write_settings(tmp_path)
    command = [*TRACED, "--worker-class", worker_class, APP]
    with OtherServer(command, tmp_path / "access.log") as server:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{server.url}/facts")
        async with H2Client.connect(server) as asking:  # type: ignore[arg-type]
            reset = asking.send("GET", "/wait")
            await asking.get("/beside")
            asking.reset(reset)
            await asking.get("/after")
        line = await server.full.one("/facts")
        assert answer.text == f"{line.session} {line.request}"
        assert answer.headers["x-request-id"] == line.request
        assert (await server.full.one("/wait")).outcome is Outcome.CLIENT_RESET

        def ended() -> list[str]:
            return [columns[10] for columns in session_log(tmp_path) if columns[1] == "closed"]

        await eventually(lambda: len(ended()) == 2)
        assert await asyncio.to_thread(server.stop) == 0
        assert "Running on" in server.output, "Hypercorn's own log is as it was"
    assert ended() == ["client_closed", "client_closed"]


async def test_a_configuration_file_with_a_line_more(tmp_path: Path) -> None:
    """A configuration in Python gets the log by an import."""
    write_settings(tmp_path)
    (tmp_path / "conf.py").write_text(
        "from h2log.integrations.hypercorn import logger_class\nkeep_alive_timeout = 1\n"
    )
    command = ["hypercorn", "-c", "file:conf.py", "--bind", "127.0.0.1:{port}", APP]
    with OtherServer(command, tmp_path / "access.log") as server:
        async with httpx.AsyncClient() as client:
            await client.get(f"{server.url}/configured")
        assert (await server.full.one("/configured")).status == 200


async def test_workers_share_the_log(tmp_path: Path) -> None:
    """Every request has its line, also those that the end of another worker cuts short."""
    write_settings(tmp_path)
    command = [*TRACED, "--workers", "2", "--graceful-timeout", "5", APP]
    with OtherServer(command, tmp_path / "access.log") as server:
        done = await run("h2load", "-n", "1000", "-c", "20", f"{server.url}/many")
        assert "1000 succeeded" in done.text
        async with H2Client.connect(server) as asking:  # type: ignore[arg-type]
            asking.send("GET", "/sleep")
            await asking.get("/here")
            await asyncio.to_thread(server.stop)
    lines = server.full.all()
    assert len(lines) == 1002
    assert len({line.request for line in lines}) == 1002
    assert [line.outcome for line in lines if line.target == "/sleep"] == [Outcome.SHUTDOWN]
    events = [columns[1] for columns in session_log(tmp_path)]
    assert events.count("opened") == events.count("closed") == 21


async def test_term_under_load(tmp_path: Path) -> None:
    """SIGTERM loses no line."""
    write_settings(tmp_path)
    with OtherServer([*TRACED, APP], tmp_path / "access.log") as server:
        load = await asyncio.create_subprocess_exec(
            *("h2load", "-n", "100000", "-c", "4", "-m", "10", f"{server.url}/load"),
            stdout=asyncio.subprocess.PIPE,
        )
        while len(server.full.all()) < 200:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop)
        output = (await load.communicate())[0].decode()
    found = re.search(r"status codes: (\d+) 2xx", output)
    assert found is not None, output
    lines = server.full.all()
    complete = [line for line in lines if line.outcome is Outcome.COMPLETE]
    assert len(complete) >= int(found[1]) >= 200 - 40  # that may have been on their way
    assert len({line.request for line in lines}) == len(lines)


async def test_http3_and_tls(tmp_path: Path, certs: Certificates) -> None:
    """QUIC that Hypercorn was told to bind is traced, too."""
    write_settings(tmp_path)
    port = free_port()
    command = [*TRACED, "--quic-bind", f"127.0.0.1:{port}", "--certfile", str(certs.cert)]
    command += ["--keyfile", str(certs.key), APP]
    with OtherServer(command, tmp_path / "access.log") as server:
        async with H3Client.open(port) as client:
            answer = await client.request("GET", "/http3")
        line = await server.full.one("/http3")
        assert answer.body.decode() == f"{line.session} {line.request}"
        assert (line.version, line.alpn) == ("h3", "h3")
        url = f"https://127.0.0.1:{server.port}/tls"
        async with httpx.AsyncClient(http2=True, verify=client_context(certs)) as secure:
            await secure.get(url)
        line = await server.full.one("/tls")
        assert (line.version, line.tls_version) == ("h2", "TLSv1.3")


@pytest.mark.parametrize(
    ("settings", "options", "why"),
    [
        ('[[log.access]]\npath = "/dev/null/x"\n', (), "cannot open the access log /dev/null/x"),
        ('[[log.access]]\nformat = ":nothing"\n', (), "unknown token :nothing"),
        ("[log]\nno = 1\n", (), "log.no: unknown key"),
    ],
)
def test_what_is_wrong(tmp_path: Path, settings: str, options: tuple[str, ...], why: str) -> None:
    """A mistake ends the worker with one line that names it."""
    (tmp_path / "h2log.toml").write_text(settings)
    server = OtherServer([*TRACED, *options, APP], tmp_path / "access.log")
    with contextlib.suppress(pytest.fail.Exception), server:
        poll(lambda: server.popen.poll() is not None)
    assert server.popen.returncode is not None
    assert f"h2log: {why}" in server.output.replace("h2log.toml: ", "")
    assert "Traceback" not in server.output


def test_by_code(tmp_path: Path) -> None:
    """`traced` refuses wrong settings at once, and returns its configuration."""
    config = Config()
    assert traced(config, write_settings(tmp_path)) is config
    with pytest.raises(UsageError, match=r"missing\.toml"):
        traced(Config(), tmp_path / "missing.toml")


def test_an_unknown_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose insides may be others is refused, with the remedy."""
    monkeypatch.setattr("h2log.integrations.hypercorn_trace.version", lambda name: "0.19.0")
    with pytest.raises(UsageError, match=r"Hypercorn 0\.19\.0 .* pip install"):
        install()
