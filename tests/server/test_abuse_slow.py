"""Clients that send or read as slowly as they can: time limits end them, memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from h2log.server.certificates import Certificates
from tests.protocol.frames import plain
from tests.server.abuse import ARTICLE, CALM, Flood, deaf, held, scene
from tests.server.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    RawClient,
    frame,
    get_fields,
)
from tests.support import PATIENCE, eventually

MEGABYTE = 1024 * 1024
LIMIT = 0.4
"""Seconds of the limit under test; the server looks twice a second."""
PACE = 0.01
ONE = struct.pack(">I", 1)
WIDE = {4: 2**31 - 1}
POST = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/upload"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a large file and one of which 100 are less than may be held."""
    root = tmp_path_factory.mktemp("slow")
    (root / "big.bin").write_bytes(bytes(8 * MEGABYTE))
    (root / "small.bin").write_bytes(bytes(9000))
    return root


async def trickle(client: RawClient, pieces: Iterator[bytes]) -> Flood:
    """Write a piece a pace, and read, until the server closes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reading = asyncio.create_task(client.end())
    sent = 0
    async with asyncio.timeout(PATIENCE):
        while not reading.done():
            client.writer.write(next(pieces))
            sent += 1
            await asyncio.sleep(PACE)
    return Flood(sent, loop.time() - began, await reading)


def bytewise(data: bytes) -> Iterator[bytes]:
    """Return an iterator over the single bytes of `data`."""
    return (data[at : at + 1] for at in range(len(data)))


def block_without_end() -> Iterator[bytes]:
    """Yield a HEADERS frame and then, seldom, a CONTINUATION frame."""
    yield frame(HEADERS, END_STREAM, 3, b"")
    n = 0
    while True:
        n += 1
        yield frame(9, 0, 3, b"") if n in (15, 30) else b""


LATE: dict[str, tuple[str, Callable[[], Iterator[bytes]]]] = {
    "HEADERS by the byte": (
        "a frame took too long",
        lambda: bytewise(frame(HEADERS, END_HEADERS, 3, plain(get_fields(ARTICLE)) * 9)),
    ),
    "PING by the byte": ("a frame took too long", lambda: bytewise(frame(PING, 0, 0, b"x" * 999))),
    "a frame's head alone": (
        "a frame took too long",
        lambda: iter([frame(HEADERS, END_HEADERS, 3, b"x" * 9)[:8], *[b""] * 999]),
    ),
    "a block without end": ("a header block took too long", block_without_end),
    "DATA by the byte": (
        "a frame took too long",
        lambda: bytewise(frame(DATA, 0, 1, b"x" * 999)),
    ),
}


@pytest.mark.parametrize(("text", "pieces"), LATE.values(), ids=LATE)
async def test_a_frame_or_block_that_does_not_end(
    certs: Certificates, text: str, pieces: Callable[[], Iterator[bytes]]
) -> None:
    """It ends the connection when its time is over, however steadily it comes."""
    async with scene(certs, header_timeout=LIMIT, body_timeout=LIMIT) as found:
        async with RawClient.connect(found.server) as client:
            client.send(HEADERS, END_HEADERS | END_STREAM, 1, plain(get_fields(b"/wait")))
            if text == "a frame took too long":
                await eventually(lambda: found.site.entered)
            done = await trickle(client, pieces())
        assert done.ended(CALM) == text
        assert done.seconds > LIMIT
        await found.peace()
        assert set(found.outcomes) <= {"TIMEOUT", "SERVER_RESET"}
        assert len(found.attacked) == 1
        [said] = found.said
        assert said.endswith(text)


async def test_content_below_the_least_rate(certs: Certificates) -> None:
    """408 to who sends, steadily, too little of what a handler waits for; the connection lives."""
    async with scene(certs, body_timeout=LIMIT, min_rate=100_000) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(1, POST, end=False)
            answer = asyncio.create_task(client.expect(HEADERS, 1))
            async with asyncio.timeout(PATIENCE):
                while not answer.done():
                    client.send(DATA, 0, 1, b"a little")
                    await asyncio.sleep(PACE)
            assert client.fields(answer.result())[":status"] == "408"
            client.get(3, ARTICLE)
            assert client.fields(await client.expect(HEADERS, 3))[":status"] == "200"
        await found.peace()
        assert found.outcomes == {"TIMEOUT": 1, "COMPLETE": 1}


async def test_content_that_stops(certs: Certificates) -> None:
    """408 when nothing comes for `body_timeout`, whatever came before."""
    async with scene(certs, body_timeout=LIMIT) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(1, POST, end=False)
            client.send(DATA, 0, 1, bytes(16_000))
            assert client.fields(await client.expect(HEADERS, 1))[":status"] == "408"
        await found.peace()
        assert found.outcomes == {"TIMEOUT": 1}


def wide(client: RawClient) -> None:
    """Open the connection's window as far as it goes."""
    client.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 65_536))


WANTED = {
    "a large file": (b"/files/big.bin", 1),
    "a large file often": (b"/files/big.bin", 100),
    "a handler's content": (b"/stream/100", 1),
    "a handler's content often": (b"/stream/100", 100),
    "a small file often": (b"/files/small.bin", 100),
}


@pytest.mark.parametrize(("path", "count"), WANTED.values(), ids=WANTED)
async def test_a_client_that_does_not_read(
    certs: Certificates, folder: Path, path: bytes, count: int
) -> None:
    """At most 1 MiB is held for it, and it is cut off after `stall_timeout`."""
    async with scene(certs, folder, stall_timeout=LIMIT) as found:
        async with deaf(found.server, WIDE) as client:
            wide(client)
            for n in range(count):
                client.get(1 + 2 * n, path)
            leg = await found.leg()
            most = 0
            async with asyncio.timeout(PATIENCE):
                while not leg._lost:
                    most = max(most, held(leg))
                    await asyncio.sleep(PACE)
            del leg
        assert 128 * 1024 < most <= MEGABYTE
        await found.peace()
        outcomes = found.outcomes
        assert outcomes["TIMEOUT"] >= 1 and set(outcomes) <= {"TIMEOUT", "PEER_LOST", "COMPLETE"}
        assert outcomes.total() == count


async def test_a_client_that_reads_below_the_least_rate(certs: Certificates, folder: Path) -> None:
    """Reading steadily, but next to nothing, is as good as not reading."""
    async with scene(certs, folder, stall_timeout=LIMIT, min_rate=10 * MEGABYTE) as found:
        async with deaf(found.server, WIDE) as client:
            wide(client)
            client.get(1, b"/files/big.bin")
            leg = await found.leg()
            read = 0
            async with asyncio.timeout(PATIENCE):
                while not leg._lost:
                    with contextlib.suppress(ConnectionError, ssl.SSLError):  # cut off meanwhile
                        read += len(await client._reader.read(512))
                    await asyncio.sleep(PACE)
            del leg
        assert read > 2 * 512, "it did read"
        await found.peace()
        assert found.outcomes == {"TIMEOUT": 1}


@pytest.mark.parametrize(
    ("path", "count"),
    # Handlers may have to wait for each other's time limit: fewer of them.
    [
        (path, 24 if path == b"/stream/100" and count > 1 else count)
        for path, count in WANTED.values()
    ],
    ids=WANTED,
)
async def test_a_window_that_is_never_opened(
    certs: Certificates, folder: Path, path: bytes, count: int
) -> None:
    """The streams are reset after `stall_timeout`; 1 MiB at most waits; the connection lives."""
    async with scene(certs, folder, stall_timeout=LIMIT) as found:
        async with RawClient.connect(found.server, {4: 0}) as client:
            for n in range(count):
                client.get(1 + 2 * n, path)
            client.send(PING, 0, 0, b"all sent")
            await client.expect(PING, flags=ACK)
            leg = await found.leg()
            most = 0
            while len(found.attacked) < count:
                most = max(most, held(leg))
                await client.read()
            del leg
            resets = [f for f in client.seen if f.kind == RST_STREAM]
            while len(resets) < count:
                resets.append(await client.expect(RST_STREAM))
            assert {f.code for f in resets} == {8}
            assert most <= MEGABYTE
            client.send(4, 0, 0, struct.pack(">HI", 4, 65_535))
            client.get(401, ARTICLE)
            assert (await client.expect(DATA, 401, END_STREAM)).payload.endswith(b"</html>\n")
        await found.peace()
        assert found.outcomes == {"TIMEOUT": count, "COMPLETE": 1}


@pytest.mark.parametrize("of", ["stream", "connection"])
@pytest.mark.parametrize(
    "path",
    [b"/files/big.bin", b"/stream/100", ARTICLE],
    ids=["a large file", "a handler's content", "a small file"],
)
async def test_a_window_that_is_opened_by_the_byte(
    certs: Certificates, folder: Path, path: bytes, of: str
) -> None:
    """A byte now and then is below the least rate: the stream is reset, the connection lives."""
    limits: dict[str, Any] = {"stall_timeout": LIMIT, "min_rate": 10_000}
    async with scene(certs, folder, **limits) as found:
        async with RawClient.connect(found.server, {4: 0} if of == "stream" else WIDE) as client:
            if of == "connection":  # spend it
                client.get(1, b"/stream/1")
                while sum(len(f.payload) for f in client.seen if f.kind == DATA) < 65_535:
                    await client.expect(DATA, 1)
                client.send(RST_STREAM, 0, 1, ONE)
            client.get(3, path)
            await client.expect(HEADERS, 3)
            reset = asyncio.create_task(client.expect(RST_STREAM, 3))
            try:
                async with asyncio.timeout(PATIENCE):
                    while not reset.done():
                        client.send(WINDOW_UPDATE, 0, 3 if of == "stream" else 0, ONE)
                        await asyncio.sleep(0.02)
            finally:
                reset.cancel()
            assert reset.result().code == 8
            client.send(PING, 0, 0, b"on we go")
            await client.expect(PING, flags=ACK)
        await found.peace()
        assert found.outcomes["TIMEOUT"] == 1
