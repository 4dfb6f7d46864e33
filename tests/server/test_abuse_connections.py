"""Connections that are too many, never finish their handshake, or speak something else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from h2log.server.certificates import Certificates
from tests.server.abuse import ARTICLE, GOOD, listening, scene
from tests.server.wire import GOAWAY, HEADERS, PREFACE, RawClient, frame, settings, stream_to
from tests.support import Running, client_context, eventually

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def bare(server: Running, source: str = "127.0.0.1") -> AsyncIterator[Pair]:
    """Connect from an address, without TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def closed(reader: asyncio.StreamReader, timeout: float = 5) -> bytes:
    """Read until the server closes; return what it said."""
    said = b""
    async with asyncio.timeout(timeout):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                said += data
    return said


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_connections_beyond_the_limit_are_refused(certs: Certificates, limit: str) -> None:
    """They are closed at once, a line a second counts them; there is room when others close."""
    alone = limit.endswith("address")
    room = 3
    # Another address has a count of its own; the good clients' is not touched by it.
    most, source = GOOD + room, "127.0.0.2" if alone else "127.0.0.1"
    allowed = most if alone else room
    limits: dict[str, Any] = {limit: most}
    with listening("h2log.server") as said:
        async with scene(certs, **limits) as found, contextlib.AsyncExitStack() as stack:
            shared = found.server.shared
            taken = [
                await stack.enter_async_context(bare(found.server, source)) for _ in range(allowed)
            ]
            await eventually(lambda: shared.clients.total() == GOOD + allowed)
            for _ in range(20):
                async with bare(found.server, source) as (reader, _):
                    assert await closed(reader) == b""
            assert shared.clients.total() == GOOD + allowed
            assert not any(reader.at_eof() for reader, _ in taken)
            by = f", by {source}" if alone else ""
            line = re.compile(rf"refused (\d+) connections: limits\.{limit} = {most}{by}")

            def counted() -> list[int]:
                found = [line.fullmatch(text) for text in said if "refused" in text]
                assert all(found), said
                return [int(one[1]) for one in found if one]

            await eventually(lambda: sum(counted()) == 20)
            assert len(counted()) < 20
            if alone:
                async with RawClient.connect(found.server) as client:
                    client.get(1, ARTICLE)
                    await client.expect(HEADERS, 1)
                await eventually(lambda: shared.clients["127.0.0.1"] == GOOD)
            for _, writer in taken:
                writer.close()
            await eventually(lambda: shared.clients.total() == GOOD)
            async with RawClient.connect(found.server) as client:
                client.get(1, ARTICLE)
                await client.expect(HEADERS, 1)


def hello(certs: Certificates) -> bytes:
    """Return the ClientHello that opens a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(certs, "h2").wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def said_at_first(certs: Certificates, kind: str) -> Iterator[bytes]:
    """Return what a client says, a piece at a time."""
    first = hello(certs)
    if kind == "half":
        return iter([first[: len(first) // 2]])
    if kind == "whole":
        return iter([first])
    if kind == "trickled":
        return (first[at : at + 1] for at in range(len(first) - 1))
    return iter(())


@pytest.mark.parametrize("kind", ["nothing", "half", "whole", "trickled"])
async def test_a_handshake_that_stalls(certs: Certificates, kind: str) -> None:
    """Twenty of them are each closed after `handshake_timeout`, with a line, and none else."""
    loop = asyncio.get_running_loop()
    with listening("h2log.server") as said:
        async with scene(certs, handshake_timeout=0.4) as found:
            async with contextlib.AsyncExitStack() as stack:
                began = loop.time()
                pairs = [await stack.enter_async_context(bare(found.server)) for _ in range(20)]
                pieces = [said_at_first(certs, kind) for _ in pairs]
                ends = [asyncio.create_task(closed(reader)) for reader, _ in pairs]
                while not all(end.done() for end in ends):
                    for (_, writer), piece in zip(pairs, pieces, strict=True):
                        if not writer.is_closing():
                            with contextlib.suppress(RuntimeError):  # uvloop's, of a lost one
                                writer.write(next(piece, b""))
                    await asyncio.sleep(0.01)
                await asyncio.gather(*ends)
                assert 0.3 < loop.time() - began < 4
            await found.peace()
            assert found.server.records and not found.attacked
            failed = [text for text in said if text.startswith("TLS handshake with 127.0.0.1")]
            assert len(failed) == 20


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /upload HTTP/1.0\r\n\r\n"]
)
async def test_an_http1_request_where_http2_was_agreed(
    certs: Certificates, request_: bytes
) -> None:
    """It is recognised and told: GOAWAY with PROTOCOL_ERROR, and a line that says what it was."""
    async with scene(certs) as found:
        async with stream_to(found.server, "h2") as (reader, writer):
            client = RawClient(reader, writer)
            writer.write(request_)
            frames = await client.end()
        assert frames[-1].kind == GOAWAY and frames[-1].code == 1
        assert frames[-1].payload[8:] == b"an HTTP/1 request on an HTTP/2 connection"
        await found.peace()
        assert not found.attacked
        [said] = found.said
        assert said.endswith("PROTOCOL_ERROR: an HTTP/1 request on an HTTP/2 connection")


async def test_noise_where_http2_was_agreed(certs: Certificates) -> None:
    """Whatever comes instead of a preface, or behind it, ends the connection that it came by."""
    noise = random.Random(9113)
    starts = (b"", PREFACE, PREFACE + settings({}))
    async with scene(certs) as found:
        for n in range(30):
            async with stream_to(found.server, "h2") as (reader, writer):
                client = RawClient(reader, writer)
                # The first byte is of a length that no frame may have.
                writer.write(starts[n % 3] + b"\xff" + noise.randbytes(noise.randrange(20, 5000)))
                frames = await client.end()
                assert frames[-1].kind == GOAWAY and frames[-1].code in (1, 6)
        await found.peace()
        assert not found.attacked
        assert len(found.said) == 30


async def test_noise_where_tls_was_expected(certs: Certificates) -> None:
    """The connection is closed, with a line; nobody else notices."""
    noise = random.Random(8446)
    kinds = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        PREFACE + settings({}) + frame(6, 0, 0, bytes(8)),
        *(noise.randbytes(200) for _ in range(8)),
        *(b"\x16\x03\x01" + noise.randbytes(200) for _ in range(8)),
        b"\x80" * 70_000,
    ]
    with listening("h2log.server") as said:
        async with scene(certs, handshake_timeout=0.4) as found:
            for data in kinds:
                async with bare(found.server) as (reader, writer):
                    writer.write(data)
                    await closed(reader)
            await found.peace()
            assert not found.attacked
            assert sum(text.startswith("TLS handshake with") for text in said) == len(kinds)


async def test_connections_that_vanish_in_every_state(certs: Certificates) -> None:
    """Reset in the handshake, after it, in the preface and with a request open: all are let go."""
    async with scene(certs) as found:
        for n in range(12):
            sock = socket.create_connection(("127.0.0.1", found.server.port))
            sock.setblocking(False)
            if n % 3 == 0:
                sock.send(hello(certs)[: 1 + 20 * n])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            async with stream_to(found.server, "h2") as (_, writer):
                writer.write((PREFACE + settings({}))[: 3 * n])
                writer.transport.abort()
            async with RawClient.connect(found.server) as client:
                client.get(1, b"/wait")
                await eventually(lambda n=n: found.site.entered == n + 1)  # type: ignore[misc]
                client.writer.transport.abort()
        await found.peace()
        assert found.outcomes == {"PEER_LOST": 12}
