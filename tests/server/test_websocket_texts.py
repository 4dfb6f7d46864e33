"""UTF-8 in WebSocket messages: section 6 of the Autobahn test suite (RFC 6455 section 8.1)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from h2log.server.certificates import Certificates
from tests.server.websocket_client import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawWebSocket,
    echo,
    frame,
    open_websocket,
)
from tests.support import Running

GREEK = "κόσμε".encode()


@contextlib.asynccontextmanager
async def talking(certs: Certificates, outcome: str) -> AsyncIterator[RawWebSocket]:
    """A WebSocket to an application that sends back what comes; one line tells of its end."""
    async with Running(echo(), certs) as server:
        async with open_websocket(server, h2=True) as websocket:
            yield websocket
        await server.logged(1)
        assert server.outcomes == {outcome: 1}


VALID: dict[str, bytes] = {
    "6.2.1": "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "6.5.1": GREEK,
    "6.7.1": b"\x00",
    "6.7.2": b"\xc2\x80",
    "6.7.3": b"\xe0\xa0\x80",
    "6.7.4": b"\xf0\x90\x80\x80",
    "6.9.1": b"\x7f",
    "6.9.2": b"\xdf\xbf",
    "6.9.3": b"\xef\xbf\xbf",
    "6.9.4": b"\xf4\x8f\xbf\xbf",
    "6.11.1": b"\xed\x9f\xbf",
    "6.11.2": b"\xee\x80\x80",
    "6.11.3": b"\xef\xbf\xbd",
    "6.22.1": b"\xef\xbf\xbe",
    "6.22.34": b"\xf4\x8f\xbf\xbe",
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
async def test_6_valid(certs: Certificates, text: bytes) -> None:
    """A valid text comes back: whole, with its bytes in fragments of their own, and in chops."""
    *first, last = (text[at : at + 1] for at in range(len(text)))
    opcodes = [TEXT] + [CONTINUATION] * len(first)
    fragments = [
        frame(opcode, byte, fin=False) for opcode, byte in zip(opcodes, first, strict=False)
    ]
    apart = b"".join([*fragments, frame(opcodes[-1], last)])
    async with talking(certs, "COMPLETE") as websocket:
        websocket.send(TEXT, text)
        assert await websocket.read() == Frame(TEXT, text)
        websocket.wire.write(apart)
        assert await websocket.read() == Frame(TEXT, text)
        for byte in frame(TEXT, text):
            websocket.wire.write(bytes([byte]))
        assert await websocket.read() == Frame(TEXT, text)
        await websocket.close()


@pytest.mark.parametrize("middle", [b"", b"middle frame payload"], ids=["6.1.2", "6.1.3"])
async def test_6_1_empty_fragments(certs: Certificates, middle: bytes) -> None:
    """Fragments may be empty, the first and the last as well."""
    async with talking(certs, "COMPLETE") as websocket:
        websocket.send(TEXT, fin=False)
        websocket.send(CONTINUATION, middle, fin=False)
        websocket.send(CONTINUATION)
        assert await websocket.read() == Frame(TEXT, middle)
        await websocket.close()


INVALID: dict[str, bytes] = {
    "6.3.1": GREEK + b"\xed\xa0\x80edited",
    "6.6.1": b"\xce",
    "6.6.3": GREEK[:2] + b"\xe1",
    "6.6.4": GREEK[:2] + b"\xe1\xbd",
    "6.8.1": b"\xf8\x88\x80\x80\x80",
    "6.8.2": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1": b"\xf7\xbf\xbf\xbf",
    "6.10.2": b"\xfb\xbf\xbf\xbf\xbf",
    "6.10.3": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "6.11.5": b"\xf4\x90\x80\x80",
    "6.12.1": b"\x80",
    "6.12.3": b"\x80\xbf",
    "6.13.1": bytes(b for lead in range(0xC0, 0xE0) for b in (lead, 0x20)),
    "6.13.3": bytes(b for lead in range(0xF0, 0xF8) for b in (lead, 0x20)),
    "6.14.1": b"\xc0",
    "6.14.2": b"\xe0\x80",
    "6.14.3": b"\xf0\x80\x80",
    "6.14.6": b"\xdf",
    "6.15.1": b"\xc0\xe0\x80\xf0\x80\x80",
    "6.16.1": b"\xfe",
    "6.16.2": b"\xff",
    "6.17.1": b"\xc0\xaf",
    "6.17.2": b"\xe0\x80\xaf",
    "6.17.3": b"\xf0\x80\x80\xaf",
    "6.18.1": b"\xc1\xbf",
    "6.18.2": b"\xe0\x9f\xbf",
    "6.18.3": b"\xf0\x8f\xbf\xbf",
    "6.19.1": b"\xc0\x80",
    "6.20.1": b"\xed\xa0\x80",
    "6.20.7": b"\xed\xbf\xbf",
    "6.21.1": b"\xed\xa0\x80\xed\xb0\x80",
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
async def test_6_invalid(certs: Certificates, text: bytes) -> None:
    """What is not UTF-8 closes with 1007: overlong forms, surrogates and what ends too early."""
    async with talking(certs, "MALFORMED") as websocket:
        websocket.send(TEXT, text)
        [last] = await websocket.rest()
        assert (last.opcode, last.code) == (CLOSE, 1007)
        assert last.reason == "the text is not UTF-8"


@pytest.mark.parametrize("chopped", [False, True], ids=["6.4.1", "6.4.3"])
async def test_6_4_fail_fast(certs: Certificates, chopped: bool) -> None:
    """A text that can become nothing valid any more closes before its frame, or message, ends."""
    begun = GREEK + b"\xf4\x90"
    async with talking(certs, "MALFORMED") as websocket:
        if chopped:
            whole = frame(TEXT, begun + bytes(100))
            websocket.wire.write(whole[: -len(bytes(100))])
        else:
            websocket.send(TEXT, begun, fin=False)
        [last] = await websocket.rest()
        assert (last.opcode, last.code) == (CLOSE, 1007)


async def test_6_a_ping_inside_a_character(certs: Certificates) -> None:
    """A control frame between the fragments of one character does it no harm."""
    async with talking(certs, "COMPLETE") as websocket:
        websocket.send(TEXT, GREEK[:1], fin=False)
        websocket.send(PING, b"\xff")
        websocket.send(CONTINUATION, GREEK[1:])
        assert await websocket.read() == Frame(PONG, b"\xff")
        assert await websocket.read() == Frame(TEXT, GREEK)
        await websocket.close()


async def test_binary_is_not_looked_at(certs: Certificates) -> None:
    """What is no text may be any bytes."""
    async with talking(certs, "COMPLETE") as websocket:
        websocket.send(2, b"\xff\xfe\xed\xa0\x80")
        assert await websocket.read() == Frame(2, b"\xff\xfe\xed\xa0\x80")
        await websocket.close()
