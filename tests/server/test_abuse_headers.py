"""Header blocks without end, too large, and small ones that unpack to much."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from h2log.http2.budget import MAX_BLOCK_BYTES, MAX_BLOCK_FRAMES
from h2log.server.certificates import Certificates
from tests.protocol.frames import integer, literal, plain
from tests.server.abuse import ARTICLE, CALM, flood, scene
from tests.server.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RawClient,
    frame,
    get_fields,
)

CONTINUATION = 9
FULL = 16_384
MEGABYTE = 1024 * 1024
POST = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/upload"),
]
FILLER = plain([(b"x-filler", bytes(50).replace(b"\0", b"x"))])


def endless(size: int) -> Callable[[int], bytes]:
    """Return the frames of a header block on stream 3, of `size` bytes each, that never ends."""
    piece = (plain(get_fields(ARTICLE)) + FILLER * FULL)[:size]

    def make(n: int) -> bytes:
        return frame(CONTINUATION, 0, 3, piece) if n else frame(HEADERS, END_STREAM, 3, piece)

    return make


@pytest.mark.parametrize("size", [0, 1, 100, FULL])
async def test_a_header_block_without_end(certs: Certificates, size: int) -> None:
    """Eight frames or 64 KiB, and the connection ends; no request was opened by it."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(1, POST, end=False)
            client.send(PING, 0, 0, b"12345678")
            await client.expect(PING, flags=ACK)
            most = max(MAX_BLOCK_FRAMES, MAX_BLOCK_BYTES // FULL + 1)
            done = await flood(client, endless(size), most, batch=1)
        assert done.ended(CALM) == "a header block without end"
        await found.peace()
        assert found.outcomes == {"SERVER_RESET": 1}
        [said] = found.said
        assert said.endswith("a header block without end")


async def test_a_header_block_in_eight_frames_is_a_request(certs: Certificates) -> None:
    """A block that does end is taken, whatever its pieces."""
    block = plain([*get_fields(ARTICLE), *((b"x-%d" % n, b"y" * 200) for n in range(90))])
    size = len(block) // MAX_BLOCK_FRAMES + 1
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    assert len(pieces) == MAX_BLOCK_FRAMES
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.send(HEADERS, END_STREAM, 1, pieces[0])
            for piece in pieces[1:-1]:
                client.send(CONTINUATION, 0, 1, piece)
            client.send(CONTINUATION, END_HEADERS, 1, pieces[-1])
            assert client.fields(await client.expect(HEADERS, 1))[":status"] == "200"
        await found.peace()
        assert found.outcomes == {"COMPLETE": 1}


LARGE: dict[str, bytes] = {
    "101 fields": plain([*get_fields(ARTICLE), *((b"x-%d" % n, b"") for n in range(97))]),
    "over 32 KiB": plain([*get_fields(ARTICLE), *((b"x", b"y" * 11_000) for _ in range(3))]),
    "over 32 KiB of little": plain([*get_fields(ARTICLE), (b"x", b"y" * 32_700)]),
    "a path of 33 KiB": plain(get_fields(b"/" + b"a" * 33_000)),
    "cookies": plain([*get_fields(ARTICLE), *((b"cookie", b"a=b") for _ in range(1000))]),
}


@pytest.mark.parametrize("block", LARGE.values(), ids=LARGE)
async def test_a_header_section_too_large_is_431(certs: Certificates, block: bytes) -> None:
    """Its stream alone is answered so; its sibling finishes and the connection goes on."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(1, POST, end=False)
            pieces = [block[at : at + FULL] for at in range(0, len(block), FULL)]
            for n, piece in enumerate(pieces):
                last = END_HEADERS if n == len(pieces) - 1 else 0
                kind, flags = (HEADERS, END_STREAM) if n == 0 else (CONTINUATION, 0)
                client.send(kind, flags | last, 3, piece)
            assert client.fields(await client.expect(HEADERS, 3))[":status"] == "431"
            client.send(DATA, END_STREAM, 1, b"abc")
            assert client.fields(await client.expect(HEADERS, 1))[":status"] == "200"
            assert (await client.expect(DATA, 1)).payload == b"3"
            client.get(5, ARTICLE)
            assert client.fields(await client.expect(HEADERS, 5))[":status"] == "200"
        await found.peace()
        assert [record.status for record in found.attacked] == [431, 200, 200]
        assert found.outcomes == {"COMPLETE": 3}
        assert found.said == []


async def test_a_hundred_fields_are_served(certs: Certificates) -> None:
    """The most that is allowed is no attack."""
    block = plain([*get_fields(ARTICLE), *((b"x-%d" % n, b"") for n in range(96))])
    async with scene(certs) as found, RawClient.connect(found.server) as client:
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, block)
        assert client.fields(await client.expect(HEADERS, 1))[":status"] == "200"


async def test_a_small_block_that_unpacks_to_much(certs: Certificates) -> None:
    """An entry of 4 KiB that is named 16,000 times is decoded to 32 KiB and not 64 MiB."""
    entry = literal(b"x-bomb", b"y" * 4000, 0x40)
    named = integer(62, 7, 0x80)
    start = plain(get_fields(ARTICLE))
    bomb = start + named * (FULL - len(start))
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            whole = END_HEADERS | END_STREAM
            client.send(HEADERS, whole, 1, start + entry)
            await client.expect(HEADERS, 1)
            tracemalloc.start()
            try:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                for stream in range(3, 17, 2):
                    client.send(HEADERS, whole, stream, bomb)
                    head = await client.expect(HEADERS, stream)
                    assert client.fields(head)[":status"] == "431"
                peak = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            assert peak < 4 * MEGABYTE, peak
            client.send(HEADERS, whole, 17, start + named)  # the table is as it was
            assert client.fields(await client.expect(HEADERS, 17))[":status"] == "200"
        await found.peace()
        assert found.outcomes == {"COMPLETE": 9}
