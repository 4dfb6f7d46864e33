"""From accept to a known protocol: TLS, ALPN, cleartext, and peers that get it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest

from h2log import App, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import PREFACE, SETTINGS, Http1Client, RawClient, settings, stream_to
from tests.support import Running, client_context, eventually, run, tool

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


def hello() -> App:
    """Return an application with one route."""
    app = App()

    @app.get("/")
    def root(request: Request) -> Response:
        return Response.text(f"hello over {request.scheme}")

    return app


@BOTH_LOOPS
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["http/1.0", "h2"], "h2"),
        ([], None),
    ],
)
async def test_alpn_chooses_the_protocol(
    certs: Certificates, offered: list[str], chosen: str | None
) -> None:
    """h2 where it is offered; HTTP/1.1 where it is not, or nothing is."""
    async with Running(hello(), certs) as server:
        async with stream_to(server, *offered) as (_, writer):
            tls = writer.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == chosen
            assert tls.version() == "TLSv1.3"
        async with stream_to(server, *offered) as (reader, writer):
            if chosen == "h2":
                writer.write(PREFACE + settings({}))
                assert (await reader.readexactly(9))[3] == SETTINGS
            else:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await Http1Client(reader, writer).answer()).body == b"hello over https"


@pytest.mark.parametrize(
    ("version", "cipher", "works"),
    [
        (ssl.TLSVersion.TLSv1_3, None, True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA", False),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-SHA384", False),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", False),
    ],
)
async def test_tls_versions_and_ciphers(
    certs: Certificates, version: ssl.TLSVersion, cipher: str | None, works: bool
) -> None:
    """TLS 1.2 with forward secrecy and AEAD, and 1.3 (RFC 9113 sections 9.2.2 and 9.2.3)."""
    context = client_context(certs, "h2")
    context.minimum_version = context.maximum_version = version
    if cipher is not None:
        context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    async with Running(hello(), certs) as server:
        connecting = asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        if not works:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connecting
            return
        _, writer = await connecting
        tls = writer.get_extra_info("ssl_object")
        assert cipher in (None, tls.cipher()[0])
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.compression() is None
        writer.close()
        await writer.wait_closed()


async def test_tls11_is_not_spoken(certs: Certificates) -> None:
    """openssl's client, with its security level lowered, cannot connect with TLS 1.1."""
    tool("openssl")
    async with Running(hello(), certs) as server:
        done = await run(
            "openssl", "s_client", "-connect", f"127.0.0.1:{server.port}",
            "-tls1_1", "-cipher", "ALL:@SECLEVEL=0",
        )  # fmt: skip
        assert done.code != 0
        assert "Cipher is (NONE)" in done.text
        done = await run("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2")
        assert "Secure Renegotiation IS supported" in done.text
        assert "Verify return code" in done.text


@BOTH_LOOPS
async def test_a_failed_handshake_disturbs_nobody(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain HTTP, noise, half a handshake, no trust: logged with the session, without a line."""
    caplog.set_level(logging.INFO, "h2log.server")
    async with Running(hello(), certs) as server, H2Client.connect(server) as good:
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PREFACE, b"\x00" * 100, b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            if data == b"\x16\x03\x01":
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            assert (await good.get("/")).status == 200
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=ssl.create_default_context()
            )
        writer.close()
        await eventually(lambda: len(failed(caplog)) >= 5)
        assert (await good.get("/")).status == 200
    assert server.outcomes == {"COMPLETE": 5}
    sessions = {str(vars(record)["session_id"]) for record in failed(caplog)}
    assert len(sessions) == len(failed(caplog))
    assert all(len(session) == 32 for session in sessions)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def failed(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in caplog.records if "handshake" in r.getMessage()]


@BOTH_LOOPS
async def test_a_handshake_that_does_not_come_is_given_up(certs: Certificates) -> None:
    """A peer that connects and says nothing is closed after `handshake_timeout`."""
    async with Running(hello(), certs, handshake_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
    assert server.records == []


@BOTH_LOOPS
async def test_http2_peers_that_never_begin_are_closed(certs: Certificates) -> None:
    """No preface, half of it, or no SETTINGS: closed after `preface_timeout`."""
    async with Running(hello(), certs, preface_timeout=0.2) as server:
        for data in (b"", PREFACE[:10], PREFACE):
            async with stream_to(server, "h2") as (reader, writer):
                writer.write(data)
                async with asyncio.timeout(5):
                    with contextlib.suppress(ConnectionError):
                        while await reader.read(65536):
                            pass
    assert server.records == []


async def test_curl_reaches_both_protocols_in_cleartext(certs: Certificates) -> None:
    """Prior knowledge is HTTP/2; anything else HTTP/1.1, an offer of h2c declined."""
    async with Running(hello(), None) as server:
        assert server.url.startswith("http://127.0.0.1:")
        for option, version in (
            ("--http2-prior-knowledge", "2"),
            ("--http1.1", "1.1"),
            ("--http1.0", "1.1"),
            ("--http2", "1.1"),
        ):
            done = await run("curl", "-sS", option, "-w", "|%{http_version}", f"{server.url}/")
            assert done.text == f"hello over http|{version}", done.stderr
        done = await run("nghttp", f"{server.url}/")
        assert done.text == "hello over http"
    assert [line.version for line in server.lines] == ["h2", "1.1", "1.0", "1.1", "h2"]


@BOTH_LOOPS
async def test_a_preface_in_pieces(certs: Certificates) -> None:
    """The protocol is known as soon as the bytes leave no doubt, however they come."""
    async with Running(hello(), None) as server:
        for size in (1, 2, 5, 23):
            async with stream_to(server) as (reader, writer):
                client = RawClient(reader, writer)
                data = PREFACE + settings({})
                for at in range(0, len(data), size):
                    writer.write(data[at : at + size])
                    await writer.drain()
                    await asyncio.sleep(0)
                client.get(1, b"/")
                assert (await client.expect(0, 1)).payload.startswith(b"hello over")
        async with stream_to(server) as (reader, writer):
            one = Http1Client(reader, writer)
            for byte in b"PRIVATE / HTTP/1.1\r\nHost: x\r\n\r\n":  # begins as the preface does
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            assert (await one.answer()).status == 501
    assert [line.version for line in server.lines] == ["h2"] * 4 + ["1.1"]


@BOTH_LOOPS
async def test_cleartext_peers_that_say_nothing_are_closed(certs: Certificates) -> None:
    """Silence, or a preface's beginning, ends after `preface_timeout`, or when the server stops."""
    async with Running(hello(), None, preface_timeout=0.2) as server:
        for data in (b"", b"PRI * HTT"):
            async with stream_to(server) as (reader, writer):
                writer.write(data)
                assert await reader.read() == b""
    async with Running(hello(), None) as server, stream_to(server) as (reader, _):
        await eventually(lambda: server.shared.legs)
        await server.server.stop(5)
        assert await reader.read() == b""


@BOTH_LOOPS
async def test_a_connection_that_is_gone_at_once(certs: Certificates) -> None:
    """A hundred connections that are reset before or in the handshake leave nothing behind."""
    async with Running(hello(), certs) as server:
        for n in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if n % 2:
                writer.write(b"\x16\x03\x01\x02\x00\x01")
            writer.transport.abort()
        listener = server.server._listener
        assert listener is not None
        async with H2Client.connect(server) as client:
            assert (await client.get("/")).status == 200
        await eventually(lambda: not listener.pending)
    assert server.outcomes == {"COMPLETE": 1}
