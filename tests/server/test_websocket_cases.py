"""A WebSocket a frame at a time, over HTTP/1.1 and HTTP/2: the cases of the Autobahn test suite.

A test is named after the section of it whose cases are its parameters; what must hold is from
RFC 6455. The sections on UTF-8, limits and compression are in files of their own.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Iterable

import pytest

from h2log.server.certificates import Certificates
from tests.server.websocket_client import (
    BINARY,
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


@pytest.fixture(params=["http1", "http2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Over which protocol the WebSocket comes."""
    return bool(request.param == "http2")


@contextlib.asynccontextmanager
async def talking(
    certs: Certificates, h2: bool, outcome: str = "COMPLETE"
) -> AsyncIterator[RawWebSocket]:
    """A WebSocket to an application that sends back what comes; one line tells of its end."""
    async with Running(echo(), certs) as server:
        async with open_websocket(server, h2=h2) as websocket:
            yield websocket
        [record] = await server.logged(1)
        assert record.status == (200 if h2 else 101)
        assert server.outcomes == {outcome: 1}


async def said(websocket: RawWebSocket, *frames: Frame) -> None:
    """These frames come, and after our Close nothing but the server's."""
    for expected in frames:
        assert await websocket.read() == expected
    websocket.send(CLOSE, struct.pack(">H", 1000))
    assert await websocket.rest() == [Frame(CLOSE, struct.pack(">H", 1000))]


async def failed(websocket: RawWebSocket, code: int, *frames: Frame) -> None:
    """These frames come, then a Close with `code`, then the end."""
    *before, last = await websocket.rest()
    assert before == list(frames)
    assert (last.opcode, last.code) == (CLOSE, code)
    assert last.reason


def chopped(data: bytes, size: int) -> Iterable[bytes]:
    """Yield `data` in pieces."""
    return (data[at : at + size] for at in range(0, len(data), size))


# 1: framing


@pytest.mark.parametrize("size", [0, 125, 126, 127, 128, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
async def test_1_framing(certs: Certificates, h2: bool, opcode: int, size: int) -> None:
    """1.1.1 to 1.2.7: a message of any length comes back as it was."""
    payload = b"*" * size if opcode == TEXT else b"\xfe" * size
    async with talking(certs, h2) as websocket:
        await websocket.wire.push(frame(opcode, payload))
        await said(websocket, Frame(opcode, payload))


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
async def test_1_framing_in_chops(certs: Certificates, h2: bool, opcode: int) -> None:
    """1.1.8, 1.2.8: the same when it comes in pieces of 997 bytes."""
    payload = b"*" * 65536
    async with talking(certs, h2) as websocket:
        for piece in chopped(frame(opcode, payload), 997):
            await websocket.wire.push(piece)
        await said(websocket, Frame(opcode, payload))


async def test_1_framing_unmasked(certs: Certificates, h2: bool) -> None:
    """A client must mask: a server closes with 1002 (RFC 6455 section 5.1)."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.wire.write(frame(TEXT, b"hello", mask=None))
        await failed(websocket, 1002)


@pytest.mark.parametrize(
    "length",
    [b"\x7e\x00\x05", b"\x7f" + bytes(7) + b"\x05", b"\x7f\x80" + bytes(6) + b"\x05"],
    ids=["two bytes for one", "eight for one", "the highest bit"],
)
async def test_1_framing_lengths(certs: Certificates, h2: bool, length: bytes) -> None:
    """A length has its shortest form, and 63 bits (RFC 6455 section 5.2)."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.wire.write(frame(BINARY, b"12345", length=length))
        await failed(websocket, 1002)


# 2: pings and pongs


@pytest.mark.parametrize(
    "payload",
    [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125],
    ids=["2.1", "2.2", "2.3", "2.4"],
)
async def test_2_ping(certs: Certificates, h2: bool, payload: bytes) -> None:
    """2.1 to 2.4: a ping is answered with its payload."""
    async with talking(certs, h2) as websocket:
        websocket.send(PING, payload)
        await said(websocket, Frame(PONG, payload))


async def test_2_5_ping_too_long(certs: Certificates, h2: bool) -> None:
    """A control frame has 125 bytes at most (RFC 6455 section 5.5)."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.send(PING, b"\xfe" * 126)
        await failed(websocket, 1002)


async def test_2_6_ping_in_chops(certs: Certificates, h2: bool) -> None:
    """A ping that comes a byte at a time is one ping."""
    async with talking(certs, h2) as websocket:
        for piece in chopped(frame(PING, b"\xfe" * 125), 1):
            websocket.wire.write(piece)
        await said(websocket, Frame(PONG, b"\xfe" * 125))


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload"], ids=["2.7", "2.8"])
async def test_2_pong(certs: Certificates, h2: bool, payload: bytes) -> None:
    """2.7 to 2.9: a pong that nobody asked for is ignored."""
    async with talking(certs, h2) as websocket:
        websocket.send(PONG, payload)
        websocket.send(PING, b"ping payload")
        await said(websocket, Frame(PONG, b"ping payload"))


@pytest.mark.parametrize("size", [65536, 1], ids=["2.10", "2.11"])
async def test_2_ten_pings(certs: Certificates, h2: bool, size: int) -> None:
    """2.10, 2.11: ten pings have ten answers, in order."""
    payloads = [b"payload-%d" % n for n in range(10)]
    async with talking(certs, h2) as websocket:
        for piece in chopped(b"".join(frame(PING, payload) for payload in payloads), size):
            websocket.wire.write(piece)
        await said(websocket, *(Frame(PONG, payload) for payload in payloads))


# 3: reserved bits

RESERVED = {
    "3.1": [frame(TEXT, b"Hello", rsv=1)],
    "3.2": [frame(TEXT, b"Hello"), frame(TEXT, b"Hello", rsv=2)],
    "3.3": [frame(TEXT, b"Hello"), frame(TEXT, b"Hello", rsv=3)],
    "3.4": [frame(TEXT, b"Hello"), frame(TEXT, b"Hello", rsv=4)],
    "3.5": [frame(BINARY, b"\x00\xff", rsv=5)],
    "3.6": [frame(PING, b"\x00\xff", rsv=6)],
    "3.7": [frame(CLOSE, rsv=7)],
}


@pytest.mark.parametrize("frames", RESERVED.values(), ids=RESERVED)
async def test_3_reserved_bits(certs: Certificates, h2: bool, frames: list[bytes]) -> None:
    """A reserved bit means nothing without an extension: 1002, after what came before it."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        for data in frames[:-1]:
            websocket.wire.write(data)
            assert await websocket.read() == Frame(TEXT, b"Hello")
        websocket.wire.write(frames[-1])
        websocket.send(PING)
        await failed(websocket, 1002)


# 4: opcodes


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"], ids=["empty", "payload"])
async def test_4_opcodes(certs: Certificates, h2: bool, opcode: int, payload: bytes) -> None:
    """4.1.1 to 4.2.5: a reserved opcode closes with 1002, after what came before it."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.send(TEXT, b"Hello, world!")
        assert await websocket.read() == Frame(TEXT, b"Hello, world!")
        websocket.send(opcode, payload)
        websocket.send(PING)
        await failed(websocket, 1002)


# 5: fragmentation


def part(opcode: int, payload: bytes = b"") -> bytes:
    """Return a fragment that is not the last."""
    return frame(opcode, payload, fin=False)


TOGETHER = [Frame(TEXT, b"fragment1fragment2")]
PONGED = [Frame(PONG, b"ping payload"), *TOGETHER]
FRAGMENTED: dict[str, tuple[list[bytes], list[Frame]]] = {
    "5.3": ([part(TEXT, b"fragment1"), frame(CONTINUATION, b"fragment2")], TOGETHER),
    "5.6": (
        [
            part(TEXT, b"fragment1"),
            frame(PING, b"ping payload"),
            frame(CONTINUATION, b"fragment2"),
        ],
        PONGED,
    ),
    "5.19": (
        [
            part(TEXT, b"fragment1"),
            part(CONTINUATION, b"fragment2"),
            frame(PING, b"pongme 1!"),
            part(CONTINUATION, b"fragment3"),
            part(CONTINUATION, b"fragment4"),
            frame(PING, b"pongme 2!"),
            frame(CONTINUATION, b"fragment5"),
        ],
        [
            Frame(PONG, b"pongme 1!"),
            Frame(PONG, b"pongme 2!"),
            Frame(TEXT, b"fragment1fragment2fragment3fragment4fragment5"),
        ],
    ),
}


@pytest.mark.parametrize("size", [65536, 1], ids=["whole", "chops"])
@pytest.mark.parametrize(("frames", "answers"), FRAGMENTED.values(), ids=FRAGMENTED)
async def test_5_fragmentation(
    certs: Certificates, h2: bool, frames: list[bytes], answers: list[Frame], size: int
) -> None:
    """5.3 to 5.8, 5.19, 5.20: fragments are one message, whatever is between them."""
    async with talking(certs, h2) as websocket:
        for piece in chopped(b"".join(frames), size):
            websocket.wire.write(piece)
        await said(websocket, *answers)


WRONG_FRAGMENTS = {
    "5.1": [part(PING, b"fragment1"), frame(CONTINUATION, b"fragment2")],
    "5.2": [part(PONG, b"fragment1"), frame(CONTINUATION, b"fragment2")],
    "5.9": [frame(CONTINUATION, b"non-continuation payload")],
    "5.12": [part(CONTINUATION, b"non-continuation payload")],
    "5.16": [part(CONTINUATION, b"fragment1"), part(TEXT), frame(CONTINUATION)],
    "5.17": [frame(CONTINUATION, b"fragment1"), part(TEXT), frame(CONTINUATION)],
    "5.18": [part(TEXT, b"fragment1"), frame(TEXT, b"fragment2")],
    "binary": [part(TEXT, b"fragment1"), frame(BINARY, b"fragment2")],
    "close": [part(CLOSE)],
}


@pytest.mark.parametrize("size", [65536, 1], ids=["whole", "chops"])
@pytest.mark.parametrize("frames", WRONG_FRAGMENTS.values(), ids=WRONG_FRAGMENTS)
async def test_5_wrong_fragments(
    certs: Certificates, h2: bool, frames: list[bytes], size: int
) -> None:
    """Control frames are not fragmented, and a continuation continues something: else 1002."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        for piece in chopped(b"".join(frames), size):
            websocket.wire.write(piece)
        await failed(websocket, 1002)


async def test_5_15_after_a_message(certs: Certificates, h2: bool) -> None:
    """A message that is through cannot be continued; it was answered all the same."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.wire.write(part(TEXT, b"fragment1") + frame(CONTINUATION, b"fragment2"))
        assert [await websocket.read()] == TOGETHER
        websocket.wire.write(part(CONTINUATION, b"fragment3") + frame(TEXT, b"fragment4"))
        await failed(websocket, 1002)


# 7: closing


async def test_7_1_1_message_then_close(certs: Certificates, h2: bool) -> None:
    """A message is answered, then the Close."""
    async with talking(certs, h2) as websocket:
        websocket.send(TEXT, b"Hello World!")
        await said(websocket, Frame(TEXT, b"Hello World!"))


@pytest.mark.parametrize(
    "after",
    [
        frame(CLOSE, b"\x03\xe8"),
        frame(PING),
        frame(TEXT, b"Hello"),
        frame(CONTINUATION, b"fragment2"),
        b"\xff" * 300,
    ],
    ids=["7.1.2", "7.1.3", "7.1.4", "7.1.5", "garbage"],
)
async def test_7_after_a_close(certs: Certificates, h2: bool, after: bytes) -> None:
    """7.1.2 to 7.1.6: what comes after a Close is ignored; the last of a message was."""
    async with talking(certs, h2) as websocket:
        websocket.send(TEXT, b"fragment1", fin=False)
        websocket.wire.write(frame(CLOSE, b"\x03\xe8") + after)
        assert await websocket.rest() == [Frame(CLOSE, b"\x03\xe8")]


PAYLOADS = {
    "7.3.1": b"",
    "7.3.3": struct.pack(">H", 1000),
    "7.3.4": struct.pack(">H", 1000) + b"Hello World!",
    "7.3.5": struct.pack(">H", 1000) + b"*" * 123,
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_7_3_payload(certs: Certificates, h2: bool, payload: bytes) -> None:
    """A Close is answered with its code, if it has one (RFC 6455 section 5.5.1)."""
    async with talking(certs, h2) as websocket:
        websocket.send(CLOSE, payload)
        assert await websocket.rest() == [Frame(CLOSE, payload[:2])]


WRONG_PAYLOADS = {
    "7.3.2": (b"\x03", 1002),
    "7.3.6": (struct.pack(">H", 1000) + b"*" * 124, 1002),
    "7.5.1": (struct.pack(">H", 1000) + b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80", 1007),
}


@pytest.mark.parametrize(("payload", "code"), WRONG_PAYLOADS.values(), ids=WRONG_PAYLOADS)
async def test_7_wrong_payload(certs: Certificates, h2: bool, payload: bytes, code: int) -> None:
    """A code has two bytes, a Close no more than 125, and a reason is UTF-8."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.send(CLOSE, payload)
        await failed(websocket, code)


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
async def test_7_7_valid_codes(certs: Certificates, h2: bool, code: int) -> None:
    """7.7.1 to 7.7.13: a code that may be sent is sent back."""
    async with talking(certs, h2) as websocket:
        assert await websocket.close(code) == Frame(CLOSE, struct.pack(">H", code))


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
async def test_7_9_invalid_codes(certs: Certificates, h2: bool, code: int) -> None:
    """7.9.1 to 7.13.2: a code that must not be sent closes with 1002 (RFC 6455 section 7.4)."""
    async with talking(certs, h2, "MALFORMED") as websocket:
        websocket.send(CLOSE, struct.pack(">H", code))
        await failed(websocket, 1002)
