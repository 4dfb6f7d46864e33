"""SIGHUP, a changed certificate, more workers and fewer: what is new takes over without a gap."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates, make_certificates
from tests.server.wire import DATA, GOAWAY, HEADERS, PING, RawClient
from tests.support import Process, eventually, poll
from tests.workers.fleet import (
    Clients,
    access,
    children,
    fleet,
    h2load,
    notes,
    settings,
    workers,
)
from tests.workers.steady import SteadyClients

SOURCE = """
from h2log import App, Request, Response
app = App()

@app.get("/")
def index(request: Request) -> Response:
    return Response.text("{text}")
"""


@pytest.fixture
def pair(certs: Certificates, tmp_path: Path) -> Certificates:
    """A copy of the certificate that a test may change."""
    folder = tmp_path / "pair"
    shutil.copytree(certs.cert.parent, folder)
    names = ("ca", "ca_key", "cert", "key")
    return replace(certs, **{name: folder / getattr(certs, name).name for name in names})


def presented(server: Process) -> bytes:
    """Return the certificate of a handshake."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port)) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found


def renew(pair: Certificates) -> bytes:
    """Issue another certificate for the same authority; return it."""
    make_certificates(pair.cert.parent, [f"n{os.urandom(4).hex()}.test"])
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text().partition("-----END")[0] + END)


END = "-----END CERTIFICATE-----\n"


def reloaded(server: Process, times: int) -> bool:
    """Say whether the server has told that often that it was reloaded."""
    return sum("reloaded: 2 workers are new" in line for line in server.stderr.lines) >= times


def test_the_workers_are_replaced_under_load(pair: Certificates, tmp_path: Path) -> None:
    """Several times, each with a new certificate: no request fails, and the new one is shown."""
    with fleet(tmp_path, pair, "--log-level", "info") as server:
        before = set(workers(server))
        # h2load takes the end of a connection for that of all its requests: those that it has not
        # begun are failures to it, whatever GOAWAY says of them.
        load = h2load(server, "-D", "600", "-c", "4", "-m", "10", "--rps", "100")
        try:
            with (
                SteadyClients(server, "/slow/20", depth=10) as steady,
                Clients(server, count=1, http2=False) as clients,
            ):
                steady.more()
                for n in range(3):
                    fresh = renew(pair)
                    server.signal(signal.SIGHUP)
                    poll(partial(reloaded, server, n + 1), 30)
                    # An old one may be about to read that it has to drain.
                    poll(lambda fresh=fresh: {presented(server) for _ in range(3)} == {fresh})  # type: ignore[misc]
                    steady.more()
                    clients.more(1)
        finally:
            load.kill()
            load.communicate()
        assert not steady.failures
        assert steady.connections >= 4
        assert not clients.failures
        assert clients.statuses == {200}
        poll(lambda: len(workers(server)) == 2)
        assert before.isdisjoint(workers(server))
        assert server.stop() == 0
    lines = access(tmp_path)
    ids = [line["h2log.request"] for line in lines]
    assert len(ids) == len(set(ids))
    assert {*steady.ids, *clients.ids} <= set(ids)
    assert "WORKER_LOST" not in {line["h2log.outcome"] for line in lines}
    assert not notes(tmp_path)


async def test_what_is_open_ends_as_it_began(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old worker says GOAWAY, answers what is open, and ends; new requests go to a new one."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("FLEET_GATE", str(gate))
    with fleet(tmp_path, certs, "--log-level", "info") as server:
        async with RawClient.connect(server) as client:
            client.get(1, b"/gated")
            client.send(PING, 0, 0, b"after it")
            await client.expect(PING, flags=1)
            server.signal(signal.SIGHUP)
            await client.expect(GOAWAY)
            async with RawClient.connect(server) as other:
                other.get(1, b"/")
                other_pid = int((await other.expect(DATA, 1)).payload)
            gate.touch()
            await client.expect(HEADERS, 1)
            pid = int((await client.expect(DATA, 1)).payload)
        assert pid != other_pid
        await eventually(lambda: pid not in workers(server))
        assert server.stop() == 0
    assert {line["h2log.outcome"] for line in access(tmp_path)} == {"COMPLETE"}


def test_new_code_and_settings(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application and the settings are read anew; a mistake in either keeps the old ones."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    source = tmp_path / "changing.py"
    source.write_text(SOURCE.format(text="first"))
    arguments = ("--log-level", "info")
    with fleet(tmp_path, certs, *arguments, target="changing:app", noisy=True) as server:
        before = workers(server)
        source.write_text("import nowhere")
        server.signal(signal.SIGHUP)
        line = server.stderr.wait(lambda line: "nothing is reloaded" in line)
        assert "the old workers go on: cannot import changing" in line
        source.write_text(SOURCE.format(text="second"))
        settings(tmp_path, "[server]\nbacklog = 'many'")
        server.signal(signal.SIGHUP)
        server.stderr.wait(lambda line: "server.backlog: expected" in line)
        settings(tmp_path, f'[log.app]\npath = "{tmp_path}"')
        server.signal(signal.SIGHUP)
        server.stderr.wait(lambda line: "cannot open the application's log" in line)
        poll(lambda: workers(server) == before)
        settings(tmp_path, form=":id :status")
        server.signal(signal.SIGHUP)
        poll(lambda: reloaded(server, 1), 30)
        poll(lambda: set(before).isdisjoint(workers(server)))
        with Clients(server, count=1) as clients:
            poll(lambda: clients.ids)
        assert server.stop() == 0
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert sorted(lines) == sorted(f"{identifier} 200" for identifier in clients.ids)


def test_a_certificate_that_changes_is_noticed(pair: Certificates, tmp_path: Path) -> None:
    """Without any signal, and without another process; a bad pair keeps the old one."""
    with fleet(tmp_path, pair, noisy=True) as server:
        before = workers(server)
        fresh = renew(pair)
        poll(lambda: {presented(server) for _ in range(8)} == {fresh})
        pair.key.write_text("nothing")
        server.stderr.wait(lambda line: "the certificate is not renewed, the old one stays" in line)
        assert presented(server) == fresh
        server.signal(signal.SIGHUP)
        server.stderr.wait(lambda line: "nothing is reloaded, the old workers go on" in line)
        assert presented(server) == fresh
        poll(lambda: workers(server) == before)
        assert server.stop() == 0


@pytest.mark.parametrize("by", ["change", "signal"])
def test_one_process_renews_its_certificate(pair: Certificates, tmp_path: Path, by: str) -> None:
    """With a single worker too, when the files change and on SIGHUP."""
    with Process("serve", certs=pair, log=tmp_path / "access.log") as server:
        assert not children(server, "h2log.workers.worker")
        fresh = renew(pair)
        if by == "signal":
            server.signal(signal.SIGHUP)
        poll(lambda: presented(server) == fresh)
        assert server.stop() == 0


RENEWING = """
from pathlib import Path
from h2log import App
from h2log.server.certificates import make_certificates

app = App()

@app.on_start
async def renew():
    make_certificates(Path({folder!r}), ["meanwhile.test"])
"""


def test_a_certificate_that_changes_before_it_is_served(pair: Certificates, tmp_path: Path) -> None:
    """The files are watched from before they are read: a long start hides no change."""
    (tmp_path / "renewing.py").write_text(RENEWING.format(folder=str(pair.cert.parent)))
    arguments = ["run", "renewing:app", "--app-dir", str(tmp_path)]
    with Process(*arguments, certs=pair, log=tmp_path / "access.log") as server:
        text = pair.cert.read_text()
        poll(lambda: presented(server) == ssl.PEM_cert_to_DER_cert(text.partition(END)[0] + END))
        assert server.stop() == 0


def serve(server: Process, count: int) -> bool:
    """Say whether so many processes serve."""
    return len(workers(server)) == count


def test_more_workers_and_fewer(certs: Certificates, tmp_path: Path) -> None:
    """SIGTTIN starts one, SIGTTOU drains one, but the last; no request fails."""
    with fleet(tmp_path, certs) as server:
        with Clients(server, http2=False) as clients:
            server.signal(signal.SIGTTIN)
            poll(lambda: len(workers(server)) == 3)
            for count in (2, 1):
                clients.more()
                server.signal(signal.SIGTTOU)
                poll(partial(serve, server, count))
            server.signal(signal.SIGTTOU)
            clients.more()
        assert len(workers(server)) == 1
        assert not clients.failures
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("option", "path", "reason"),
    [
        ("max_requests = 50", "/", "it has answered"),
        ("max_rss = '150MB'", "/grow/10", "bytes of memory"),
    ],
)
def test_workers_are_recycled(
    certs: Certificates, tmp_path: Path, option: str, path: str, reason: str
) -> None:
    """After so many requests, or with so much memory: another serves before one drains."""
    with fleet(tmp_path, certs, "--log-level", "info", text=f"[server]\n{option}") as server:
        before = set(workers(server))
        with Clients(server, path, count=1, http2=False) as clients:
            server.stderr.wait(lambda line: "is replaced" in line and reason in line)
        assert not clients.failures
        poll(lambda: len(now := set(workers(server))) == 2 and now != before)
        assert server.stop() == 0


def test_moved_logs_are_opened_again(certs: Certificates, tmp_path: Path) -> None:
    """SIGUSR1 after another program has moved the files: all are new, and no line is lost."""
    names = ("access.log", "session.log")
    with fleet(tmp_path, certs) as server:
        with SteadyClients(server, "/slow/5") as clients:
            for n in range(3):
                clients.more()
                for name in names:
                    (tmp_path / name).rename(tmp_path / f"{name}.{n}")
                server.signal(signal.SIGUSR1)
                poll(lambda: all((tmp_path / name).exists() for name in names))
                clients.more()
        assert not clients.failures
        assert server.stop() == 0
    parts = [tmp_path / "access.log", *tmp_path.glob("access.log.?")]
    texts = [part.read_text("ascii") for part in parts]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    assert len(parts) == 4
    assert {text[-1:] for text in texts} <= {"\n", ""}
    assert sorted(line["h2log.request"] for line in lines) == sorted(clients.ids)
