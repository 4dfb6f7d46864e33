"""PROXY headers in front of TLS and of HTTP: from a real HAProxy, and from who lies."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import ssl
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.proxies import haproxy
from tests.server.telling_app import telling
from tests.server.wire import Http1Client
from tests.support import Process, Running, client_context, eventually, run
from tests.unit.server.test_proxy_protocol import SIGNATURE, V4, WRONG, v2

TRUSTED = {"proxy_protocol": ["127.0.0.1"]}
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n"
BINARY = v2(1, 0x11, V4)
TOLD = {"client": "192.0.2.1", "port": 4711}
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def curl(certs: Certificates | None, port: int, *arguments: str) -> dict[str, object]:
    """Ask `/` with curl; return what the application tells."""
    secure = [] if certs is None else ["--cacert", str(certs.ca)]
    scheme = "http" if certs is None else "https"
    done = await run("curl", "-sS", *secure, *arguments, f"{scheme}://127.0.0.1:{port}/")
    assert done.code == 0, done.stderr
    told: dict[str, object] = json.loads(done.text)
    return told


async def introduced(server: Running, header: bytes, secure: ssl.SSLContext | None) -> bytes:
    """Connect, send a header, begin TLS if there is to be any, and ask; return what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(header)
        if secure is not None:
            await writer.start_tls(secure, server_hostname="localhost")
        writer.write(ASK)
        return await reader.read()
    finally:
        writer.close()


# A real proxy


@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("secure", [True, False])
async def test_haproxy_tells_the_client(
    certs: Certificates, tmp_path: Path, options: str, secure: bool
) -> None:
    """HTTP/2 through HAProxy in TCP mode: the client is curl's address and port."""
    pair = certs if secure else None
    prior = [] if secure else ["--http2-prior-knowledge"]
    async with Running(telling(), pair, server=TRUSTED) as server:
        with haproxy(tmp_path, f"127.0.0.1:{server.port}", options) as port:
            told = await curl(pair, port, "--local-port", "21000-29999", "--http2", *prior)
        [record] = await server.logged(1)
    assert record.session.protocol == "h2"
    assert told["client"] == "127.0.0.1"
    assert isinstance(told["port"], int) and 21000 <= told["port"] <= 29999
    assert record.session.port == told["port"]
    peer = record.session.peer
    assert peer is not None and peer[0] == "127.0.0.1" and peer[1] != told["port"]


async def test_haproxy_s_options_of_version_2(certs: Certificates, tmp_path: Path) -> None:
    """Fields for a unique id, the names that TLS has, and a checksum are no trouble."""
    options = "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl"
    more = "unique-id-format %[uuid()]"
    async with Running(telling(), certs, server=TRUSTED) as server:
        with haproxy(tmp_path, f"127.0.0.1:{server.port}", options, more) as port:
            assert (await curl(certs, port))["client"] == "127.0.0.1"
        assert server.sessions[0].peer is not None


async def test_haproxy_s_health_checks(
    certs: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own connections say LOCAL: they are the proxy's, and a server that is up stays up."""
    caplog.set_level(logging.DEBUG, "h2log.server")
    # The interval is also the time that a check may take; the first that fails is one too many.
    options = "send-proxy-v2 check check-send-proxy check-ssl verify none inter 5s"
    async with Running(telling(), certs, server=TRUSTED) as server:
        with haproxy(tmp_path, f"127.0.0.1:{server.port}", options) as port:
            await eventually(lambda: "the proxy 127.0.0.1 tells no client" in caplog.text)
            assert (await curl(certs, port))["client"] == "127.0.0.1"
    assert "no PROXY header" not in caplog.text


async def test_haproxy_at_a_unix_socket(tmp_path: Path) -> None:
    """A proxy on the same machine is trusted as `unix`, and tells the address of its client."""
    place = tmp_path / "h2log.sock"
    settings = {"unix": str(place), "proxy_protocol": ["unix"]}
    async with Running(telling(), None, server=settings) as server:
        with haproxy(tmp_path, f"unix@{place}", "send-proxy") as port:
            told = await curl(None, port)
        [record] = await server.logged(1)
    assert told["client"] == record.session.client == "127.0.0.1"
    assert record.session.peer == ("unix:", 0)


@pytest.mark.parametrize("count", [1, 2])
async def test_the_command(certs: Certificates, tmp_path: Path, count: int) -> None:
    """`--proxy-protocol`, by one process and by several: the log has the client.

    The command that the start shows sends a header, too.
    """
    log = tmp_path / "access.log"
    arguments = ["run", "tests.server.telling_app:app", "--workers", str(count)]
    arguments += ["--proxy-protocol", "10.0.0.0/8,127.0.0.1", "--access-format", ":remote-addr"]
    with Process(*arguments, certs=certs, log=log) as server:
        with haproxy(tmp_path, f"127.0.0.1:{server.port}", "send-proxy-v2") as port:
            told = await curl(certs, port, "--interface", "127.0.0.7")
        shown = server.stdout.wait(lambda line: line.startswith("try"))
        tried = await run(*shlex.split(shown.removeprefix("try")))
        assert (tried.code, "HTTP/2 200" in tried.text) == (0, True), tried.stderr
        assert server.stop() == 0
    assert told["client"] == "127.0.0.7"
    assert log.read_text() == "127.0.0.7\n127.0.0.1\n"


# Who else may say something


@pytest.mark.parametrize("header", [LINE, BINARY])
@pytest.mark.parametrize("secure", [True, False])
async def test_the_client_of_every_line(
    certs: Certificates, header: bytes, secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the one told, in the application and in the log; the debug log has the proxy."""
    caplog.set_level(logging.DEBUG, "h2log.server")
    context = client_context(certs) if secure else None
    async with Running(telling(), certs if secure else None, server=TRUSTED) as server:
        answer = await introduced(server, header, context)
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        [record] = await server.logged(1)
    assert body == {**body, **TOLD}
    assert (record.session.client, record.session.port) == ("192.0.2.1", 4711)
    assert record.client == ("192.0.2.1", 4711)
    assert "the proxy 127.0.0.1 comes for 192.0.2.1 port 4711" in caplog.text


async def test_an_untrusted_peer_is_not_believed(certs: Certificates) -> None:
    """Nobody looks for its header: it is no TLS, and no request; without one it is served."""
    others = {"proxy_protocol": ["10.0.0.0/8"]}
    async with Running(telling(), certs, server=others) as server:
        with pytest.raises((ssl.SSLError, OSError)):
            await introduced(server, LINE, client_context(certs))
        async with Http1Client.connect(server) as client:
            assert json.loads((await client.get("/")).body)["client"] == "127.0.0.1"
    async with Running(telling(), None, server=others) as server:
        assert (await introduced(server, LINE, None)).startswith(b"HTTP/1.1 400 ")
        [record] = await server.logged(1)
        assert record.session.client == "127.0.0.1"


@pytest.mark.parametrize(
    "data",
    [ASK, b"\x16\x03\x01\x02\x00", *(data for data, _ in WRONG[3:6]), WRONG[-2][0], LINE[:-1], b""],
)
async def test_a_trusted_peer_has_to_begin_with_one(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything else closes the connection, with a line and a reason, and without a request."""
    caplog.set_level(logging.INFO, "h2log.server")
    async with Running(telling(), None, server=TRUSTED) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.write_eof()
        try:
            assert await reader.read() == b""
        except ConnectionResetError:  # what it sent was not read
            pass
        writer.close()
        await eventually(lambda: not server.shared.connections)
        assert not server.shared.clients
        assert server.records == []
    [line] = [record for record in caplog.records if "PROXY header from" in record.message]
    assert line.levelno == logging.INFO


async def test_a_proxy_that_sends_no_header_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing works then, so the log says why without being asked, and what the remedy is.

    A connection that ends before any byte is a health check.
    """
    async with Running(telling(), None, server=TRUSTED) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        with haproxy(tmp_path, f"127.0.0.1:{server.port}", "") as port:
            for _ in range(3):
                assert (await run("curl", "-sS", f"http://127.0.0.1:{port}/")).code
    [line] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("127.0.0.1 is to begin connections with a PROXY header")
    assert "send-proxy-v2" in line


async def test_every_wrong_header_ends_its_connection() -> None:
    """At once, while its sender waits for an answer; others are served."""
    async with Running(telling(), None, server=TRUSTED) as server:
        for data, _ in WRONG:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:  # what it sent was not read
                pass
            writer.close()
        assert (await introduced(server, LINE, None)).startswith(b"HTTP/1.1 200 ")
        await eventually(lambda: not server.shared.connections)


async def test_a_slow_header_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """`handshake_timeout` is from the accept to the header's end, however it drips."""
    caplog.set_level(logging.INFO, "h2log.server")
    async with Running(telling(), None, server=TRUSTED, handshake_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(LINE[:20])
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        finally:
            writer.close()
    assert "PROXY header from 127.0.0.1: it did not come in time" in caplog.text


async def test_a_stop_ends_who_has_not_sent_one() -> None:
    """A connection that says nothing keeps no server from its end."""
    async with Running(telling(), None, server=TRUSTED, patience=0.1) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await eventually(lambda: server.shared.connections)
    assert server.shared.connections == 0
    assert await reader.read() == b""
    writer.close()


async def test_limits_are_the_told_client_s(caplog: pytest.LogCaptureFixture) -> None:
    """The proxy may have any number of connections, each client only its own."""
    async with Running(telling(), None, server=TRUSTED, max_connections_per_address=2) as server:
        open_ones = []
        for n in range(6):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"PROXY TCP4 192.0.2.%d 1.1.1.1 1 1\r\n" % (n // 2))
            open_ones.append(writer)
        await eventually(lambda: len(server.shared.legs) == 6)
        assert server.shared.clients == {"192.0.2.0": 2, "192.0.2.1": 2, "192.0.2.2": 2}
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PROXY TCP4 192.0.2.1 1.1.1.1 1 1\r\n")
        assert await reader.read() == b""
        writer.close()
        assert server.shared.clients == {"192.0.2.0": 2, "192.0.2.1": 2, "192.0.2.2": 2}
        for writer in open_ones:
            writer.close()
        await eventually(lambda: not server.shared.clients)
    assert "limits.max_connections_per_address = 2, by 192.0.2.1" in caplog.text


async def test_a_header_and_a_request_in_one_piece_or_many() -> None:
    """Wherever the bytes are cut, the request behind the header is whole."""
    everything = SIGNATURE + BINARY[12:] + ASK
    async with Running(telling(), None, server=TRUSTED) as server:
        for cut in range(1, len(BINARY) + 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(everything[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(everything[cut:])
            answer = await reader.read()
            writer.close()
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["client"] == "192.0.2.1"
