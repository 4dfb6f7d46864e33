"""Clients that make the server speak and do not listen: what gathers for them is bounded."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest

from h2log.http2.budget import MAX_CONTROL_OUTPUT
from h2log.server.certificates import Certificates
from tests.protocol.frames import plain
from tests.server.abuse import ARTICLE, NEVER, Scene, deaf, held, scene
from tests.server.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
    get_fields,
)
from tests.support import eventually

READ = 64 * 1024
"""Bytes that are read at once, whose answers may be on top of any bound."""
PIECES = 20_000
MEGABYTE = 1024 * 1024
WHOLE = END_HEADERS | END_STREAM
ONE = struct.pack(">I", 1)
BAD = plain([*get_fields(b"/wait"), (b"te", b"gzip")])


def asked(method: bytes, path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return the header block of a request without content."""
    return plain([(b":method", method), *get_fields(path, *more)[1:]])


async def shout(found: Scene, client: RawClient, piece: Callable[[int], bytes]) -> tuple[int, int]:
    """Write and do not read, until the server ends it, reads no more, or `PIECES` were written.

    Returns the most that the engine had in its output at a time, and the most that was held.
    """
    leg = await found.leg()
    loop = asyncio.get_running_loop()
    most_out = most_held = 0
    for n in range(0, PIECES, 500):
        client.writer.write(b"".join(map(piece, range(n, n + 500))))
        patience = loop.time() + 1
        while True:  # both sides take their turns
            await asyncio.sleep(0)
            most_out = max(most_out, leg._conn.out_size)
            most_held = max(most_held, held(leg))
            if leg._conn.closing or leg._lost or client.writer.transport.is_closing():
                return most_out, most_held
            if not client.writer.transport.get_write_buffer_size():
                break
            if loop.time() > patience:
                return most_out, most_held  # the server reads no more
    return most_out, most_held


ANSWERED: dict[str, Callable[[int], bytes]] = {
    "ping": lambda n: frame(PING, 0, 0, b"12345678") * 10,
    "settings": lambda n: frame(SETTINGS, 0, 0) * 20,
    "malformed": lambda n: b"".join(
        frame(HEADERS, WHOLE, number, BAD) for number in range(1 + 20 * n, 21 + 20 * n, 2)
    ),
}


@pytest.mark.parametrize("piece", ANSWERED.values(), ids=ANSWERED)
async def test_answers_that_nobody_reads_are_bounded(
    certs: Certificates, piece: Callable[[int], bytes]
) -> None:
    """With budgets that cannot be spent: 64 KiB of frames that steer, and the connection ends."""
    async with scene(certs, budgets=NEVER) as found:
        async with deaf(found.server) as client:
            out, most = await shout(found, client, piece)
            await eventually(lambda: not found.legs() or found.legs()[0]._conn.closing)
        assert out <= MAX_CONTROL_OUTPUT + 2 * READ
        assert most <= MEGABYTE // 2
        await found.peace()
        assert set(found.outcomes) <= {"MALFORMED"}
        [said] = found.said
        assert "ENHANCE_YOUR_CALM: the peer does not read what it asks for" in said


IGNORED: dict[str, Callable[[int], bytes]] = {
    "priority": lambda n: frame(2, 0, 3, b"\0\0\0\1\7"),
    "priority update": lambda n: frame(0x10, 0, 0, ONE + b"u=1"),
    "window update": lambda n: frame(WINDOW_UPDATE, 0, 0, ONE),
    "empty data": lambda n: frame(DATA, 0, 1),
    "unknown": lambda n: frame(0x42, 0, 0, b"grease"),
    "reset": lambda n: (
        frame(HEADERS, WHOLE, 3 + 2 * n, asked(b"GET", ARTICLE))
        + frame(RST_STREAM, 0, 3 + 2 * n, ONE)
    ),
    "ping": lambda n: frame(PING, 0, 0, b"12345678"),
    "settings": lambda n: frame(SETTINGS, 0, 0),
    "ack": lambda n: frame(SETTINGS, ACK, 0),
}


@pytest.mark.parametrize("piece", IGNORED.values(), ids=IGNORED)
async def test_a_flood_spends_its_budget_though_nobody_reads(
    certs: Certificates, piece: Callable[[int], bytes]
) -> None:
    """Budgets are spent by what is sent, whoever reads the answers; little is held meanwhile."""
    async with scene(certs) as found:
        async with deaf(found.server) as client:
            client.headers(1, [(b":method", b"POST"), *get_fields(b"/upload")[1:]], end=False)
            _, most = await shout(found, client, piece)
            await eventually(lambda: not found.legs() or found.legs()[0]._conn.closing)
        assert most <= MEGABYTE // 2
        await found.peace()
        [said] = found.said
        assert "ENHANCE_YOUR_CALM: the budget" in said


BARE: dict[str, bytes] = {
    "HEAD": asked(b"HEAD", ARTICLE),
    "OPTIONS": asked(b"OPTIONS", b"/wait"),
    "304": asked(b"GET", ARTICLE, (b"if-modified-since", b"Thu, 31 Dec 2037 00:00:00 GMT")),
}


@pytest.mark.parametrize("block", BARE.values(), ids=BARE)
async def test_responses_without_content_that_nobody_reads_are_bounded(
    certs: Certificates, block: bytes
) -> None:
    """They need no window and their streams end at once: the output's bound must hold them."""
    limits: dict[str, Any] = {"stall_timeout": 1}
    async with scene(certs, **limits) as found:
        async with deaf(found.server) as client:
            _, most = await shout(found, client, lambda n: frame(HEADERS, WHOLE, 1 + 2 * n, block))
        assert most <= MEGABYTE
        await found.peace()
