"""HTTP/3 by `h2log run --server hypercorn --http3`: lines of QUIC connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.integrations.http3_client import H3Client
from tests.integrations.lines import Lines
from tests.support import Process, client_context

APP = "tests.integrations.asgi_app:app"


class Http3(Process):
    """A server of HTTP/3, with the lines of its log."""

    certs: Certificates

    def __init__(self, log: Path, certs: Certificates, *options: str) -> None:
        arguments = ("run", APP, "--server", "hypercorn", "--http3", *options)
        full = ("--access-format", "h2log-full")
        super().__init__(*arguments, *full, certs=certs, log=log, noisy=True)
        self.full = Lines(log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certs: Certificates) -> Iterator[Http3]:
    """A server."""
    with Http3(tmp_path_factory.mktemp("http3") / "access.log", certs) as running:
        yield running


async def test_lines_of_http3(server: Http3) -> None:
    """A QUIC connection has a session, each of its streams a request, and the version is h3."""
    async with H3Client.open(server.port) as client:
        first = await client.request("GET", "/first?a=1")
        second = await client.request("GET", "/second")
    line = await server.full.one("/first?a=1")
    assert first.body.decode() == f"{line.session} {line.request}"
    assert first.headers["x-request-id"] == line.request
    assert (line.version, line.status, line.outcome) == ("h3", 200, Outcome.COMPLETE)
    assert (line.alpn, line.tls_version, line.stream) == ("h3", "TLSv1.3", 0)
    assert (line.sent, line.authority) == (len(first.body), "localhost")
    assert line.tls_cipher is not None and line.tls_cipher.startswith("TLS_")
    other = await server.full.one("/second")
    assert (other.session, other.nth, other.stream) == (line.session, 2, 4)
    assert second.status == 200
    async with H3Client.open(server.port) as client:
        await client.request("GET", "/third")
    assert (await server.full.one("/third")).session != line.session


async def test_the_way_to_http3_is_told(server: Http3) -> None:
    """Responses over TCP name the port of HTTP/3 (RFC 7838)."""
    async with httpx.AsyncClient(http2=True, verify=client_context(server.certs)) as client:
        answer = await client.get(f"{server.url}/told")
    assert answer.headers["alt-svc"] == f'h3=":{server.port}"; ma=3600'


async def test_cookies_in_pieces(server: Http3) -> None:
    """Browsers send each cookie as a field of its own; an application has them in one."""
    async with H3Client.open(server.port) as client:
        cookies = [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]
        reply = await client.reply(client.send("GET", "/cookies", cookies))
    assert reply.body == b"a=1; b=2"


async def test_uploads(server: Http3) -> None:
    """Content that was received is counted."""
    async with H3Client.open(server.port) as client:
        answer = await client.request("POST", "/length", b"x" * 100_000)
    assert answer.body == b"100000"
    assert (await server.full.one("/length")).received == 100_000


async def test_content_for_what_was_answered(server: Http3) -> None:
    """An upload that nobody reads does no harm to the connection, or to others."""
    async with H3Client.open(server.port) as client:
        unread = client.send("POST", "/unread", (), b"x" * 300_000)
        assert (await client.reply(unread)).status == 200
        assert (await client.request("GET", "/afterwards")).status == 200
    assert (await server.full.one("/unread")).outcome is Outcome.COMPLETE


async def test_applications_that_fail(server: Http3) -> None:
    """They are 500 and HANDLER_ERROR; who had begun is reset (H3_INTERNAL_ERROR)."""
    async with H3Client.open(server.port) as client:
        for path in ("/raise", "/exit"):  # which would have ended all of HTTP/3
            assert (await client.request("GET", path)).status == 500
        late = await client.request("GET", "/raise-late")
        assert late.reset == 0x102
        # A reset may overtake what was sent before it (RFC 9000 section 3.2).
        assert late.status in (0, 200)
        assert b"some".startswith(late.body)
    line = await server.full.one("/raise")
    assert (line.status, line.outcome) == (500, Outcome.HANDLER_ERROR)
    line = await server.full.one("/raise-late")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.HANDLER_ERROR)
    assert (line.reset_by, line.reset_code) == ("server", 0x102)


@pytest.mark.parametrize("path", ["/wait", "/endless"])
async def test_a_request_that_is_cancelled(server: Http3, path: str) -> None:
    """STOP_SENDING is CLIENT_RESET with its code; others of the connection go on."""
    async with H3Client.open(server.port) as client:
        stream = client.send("GET", f"{path}?cancel")
        if path == "/endless":
            await client.heard.wait()
        await client.request("GET", "/beside")
        client.cancel(stream)
        await client.request("GET", "/after")
        line = await server.full.one(f"{path}?cancel")
    assert (line.outcome, line.reset_by) == (Outcome.CLIENT_RESET, "client")
    assert line.reset_code == 0x10C


async def test_a_client_that_leaves(server: Http3) -> None:
    """What is open when a connection is closed is PEER_LOST."""
    async with H3Client.open(server.port) as client:
        client.send("GET", "/wait?leaves")
        await client.request("GET", "/leaving")
    assert (await server.full.one("/wait?leaves")).outcome is Outcome.PEER_LOST


async def test_the_end(tmp_path: Path, certs: Certificates) -> None:
    """SIGTERM lets what is open finish, rejects what is new, and does not wait for idle clients."""
    with Http3(tmp_path / "access.log", certs) as running:
        async with (
            H3Client.open(running.port) as idle,
            H3Client.open(running.port) as client,
        ):
            await idle.request("GET", "/idle")
            open_one = client.send("POST", "/length", (), b"", end=False)
            await client.request("GET", "/here")
            running.signal()
            while not idle.ended:  # by then the server drains
                await asyncio.sleep(0.01)
            assert (await client.reply(client.send("GET", "/new"))).reset == 0x10B
            client.send_content(open_one, b"12345")
            answer = await client.reply(open_one)
            assert (answer.status, answer.body) == (200, b"5")
            assert await asyncio.to_thread(running.wait, 5) == 0
    lines = {line.target: line.outcome for line in running.full.all()}
    assert lines == {
        "/idle": Outcome.COMPLETE,
        "/here": Outcome.COMPLETE,
        "/new": Outcome.REFUSED,
        "/length": Outcome.COMPLETE,
    }


async def test_the_end_of_what_does_not_end(tmp_path: Path, certs: Certificates) -> None:
    """Past the drain time it is SHUTDOWN."""
    with Http3(tmp_path / "access.log", certs, "--drain-timeout", "0.2") as running:
        async with H3Client.open(running.port) as client:
            client.send("GET", "/sleep")
            await client.request("GET", "/here")
            assert await asyncio.to_thread(running.stop) == 0
    assert (await running.full.one("/sleep")).outcome is Outcome.SHUTDOWN
