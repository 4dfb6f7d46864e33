"""permessage-deflate (RFC 7692): sections 12 and 13 of the Autobahn test suite, and bombs."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
import zlib
from random import Random

import pytest
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

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

TAIL = b"\x00\x00\xff\xff"
OFFER = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")]


def deflated(data: bytes, bits: int = 12) -> bytes:
    """Return one message, compressed by itself."""
    made = zlib.compressobj(wbits=-bits)
    return (made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def inflated_in_256(data: bytes) -> bytes:
    """Return what one message is for a client with the least window.

    zlib refuses 2^8 for raw data, but takes what a zlib header tells; and it looks back further as
    long as it has not given away what it made.
    """
    inflater = zlib.decompressobj(wbits=8)
    made = [inflater.decompress(b"\x08\x1d" + data + TAIL, 1)]
    while made[-1]:
        made.append(inflater.decompress(inflater.unconsumed_tail, 1))
    return b"".join(made)


class Talk:
    """A client that compresses, by wsproto, as it was agreed on."""

    def __init__(self, websocket: RawWebSocket) -> None:
        self.websocket = websocket
        extension = PerMessageDeflate()
        extension.finalize(websocket.headers["sec-websocket-extensions"])
        self._frames = FrameProtocol(client=True, extensions=[extension])
        self.compressed = 0
        """Bytes that came of messages."""

    async def ask(self, message: str | bytes) -> str | bytes:
        """Send a message, and return the next that comes."""
        await self.websocket.wire.push(bytes(self._frames.send_data(message)))
        found = message[:0]
        while True:
            data = await self.websocket.wire.read()
            assert data, "the server has ended the stream"
            self.compressed += len(data)
            self._frames.receive_bytes(data)
            for event in self._frames.received_frames():
                found += event.payload  # type: ignore[operator]  # of the same type
                if event.message_finished:
                    return found

    async def close(self) -> None:
        """Close."""
        self.websocket.send(CLOSE, struct.pack(">H", 1000))
        await self.websocket.rest()


ACCEPTED: dict[str, tuple[str, str]] = {
    "13.1": ("permessage-deflate", "; server_max_window_bits=12"),
    "13.2": (
        "permessage-deflate; client_no_context_takeover; client_max_window_bits",
        "; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
    ),
    "13.3": ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
    "8 bits": ("permessage-deflate; server_max_window_bits=8", "; server_max_window_bits=8"),
    "13.5": (
        "permessage-deflate; client_max_window_bits=9",
        "; server_max_window_bits=12; client_max_window_bits=9",
    ),
    "13.6": (
        "permessage-deflate; server_no_context_takeover; client_max_window_bits; "
        "server_max_window_bits=15",
        "; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
    ),
    "13.7": (
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=16, "
        "permessage-deflate; server_no_context_takeover, permessage-deflate",
        "; server_no_context_takeover; server_max_window_bits=12",
    ),
    "quoted": (
        'x-other; v="1", permessage-deflate; server_max_window_bits="1\\0"',
        "; server_max_window_bits=10",
    ),
}


@pytest.mark.parametrize("h2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("case", ACCEPTED)
async def test_13_offers(certs: Certificates, case: str, h2: bool) -> None:
    """The first offer that can be kept is taken, and messages of every size come back."""
    offer, answer = ACCEPTED[case]
    fields = [("sec-websocket-extensions", offer)]
    async with (
        Running(echo(), certs) as server,
        open_websocket(server, fields=fields, h2=h2) as websocket,
    ):
        assert websocket.headers["sec-websocket-extensions"] == "permessage-deflate" + answer
        if case != "8 bits":  # wsproto knows none below 9
            talk = Talk(websocket)
            for size in (0, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072):
                text = ("Lorem ipsum dolor sit amet, consetetur " * (size // 39 + 1))[:size]
                assert await talk.ask(text) == text
                assert await talk.ask(text.encode()) == text.encode()
            assert talk.compressed < 120_000
        await websocket.close()
    assert server.outcomes == {"COMPLETE": 1}


async def test_13_the_least_window(certs: Certificates) -> None:
    """For a client with a window of 256 bytes nothing refers further back than that."""
    fields = [("sec-websocket-extensions", "permessage-deflate; server_max_window_bits=8")]
    message = Random(7692).randbytes(400) * 30
    async with (
        Running(echo(), certs) as server,
        open_websocket(server, fields=fields) as websocket,
    ):
        await websocket.wire.push(frame(BINARY, message))
        answer = await websocket.read()
        assert answer.rsv == 4
        assert inflated_in_256(answer.payload) == message
        with pytest.raises(zlib.error, match="too far back"):
            inflated_in_256(deflated(message))
        await websocket.close()


DECLINED = {
    "unknown parameter": "permessage-deflate; level=9",
    "value of a flag": "permessage-deflate; server_no_context_takeover=1",
    "too few bits": "permessage-deflate; server_max_window_bits=7",
    "too many bits": "permessage-deflate; client_max_window_bits=16",
    "leading zero": "permessage-deflate; server_max_window_bits=09",
    "no bits": "permessage-deflate; server_max_window_bits",
    "twice": "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
    "another": "permessage-bzip2, x-webkit-deflate-frame",
}


@pytest.mark.parametrize("offer", DECLINED.values(), ids=DECLINED)
async def test_rfc7692_7_1_declined(certs: Certificates, offer: str) -> None:
    """An offer with what is not defined is declined, and the WebSocket goes on without it."""
    fields = [("sec-websocket-extensions", offer)]
    async with (
        Running(echo(), certs) as server,
        open_websocket(server, fields=fields) as websocket,
    ):
        assert websocket.status == 101
        assert "sec-websocket-extensions" not in websocket.headers
        websocket.send(TEXT, b"*" * 5000)
        assert await websocket.read() == Frame(TEXT, b"*" * 5000)
        await websocket.close()


async def test_compression_is_off(certs: Certificates) -> None:
    """Without `websocket.compression` every offer is declined."""
    async with (
        Running(echo(), certs, websocket={"compression": False}) as server,
        open_websocket(server, fields=OFFER) as websocket,
    ):
        assert "sec-websocket-extensions" not in websocket.headers
        await websocket.close()


async def test_the_threshold(certs: Certificates) -> None:
    """Messages below it are sent as they are, from it on compressed; control frames never."""
    async with (
        Running(echo(), certs, websocket={"compression_threshold": 100}) as server,
        open_websocket(server, fields=OFFER) as websocket,
    ):
        websocket.send(TEXT, b"*" * 99)
        assert await websocket.read() == Frame(TEXT, b"*" * 99)
        websocket.send(TEXT, b"*" * 100)
        answer = await websocket.read()
        assert answer.rsv == 4
        assert zlib.decompressobj(-12).decompress(answer.payload + TAIL) == b"*" * 100
        websocket.send(PING, b"*" * 125)
        assert await websocket.read() == Frame(PONG, b"*" * 125)
        await websocket.close()


async def test_rfc7692_7_2_3_examples(certs: Certificates) -> None:
    """The examples of section 7.2.3: fragments, a shared window, stored and final blocks, two."""
    examples = [
        [frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)],
        [
            frame(TEXT, bytes.fromhex("f248cd"), fin=False, rsv=4),
            frame(PING, b"between"),
            frame(CONTINUATION, bytes.fromhex("c9c90700")),
        ],
        [frame(TEXT, bytes.fromhex("f200110000"), rsv=4)],
        [frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=4)],
        [frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4)],
        [frame(TEXT, bytes.fromhex("f24805000000ffffcac9c90700"), rsv=4)],
        [frame(TEXT, b"Hello")],
    ]
    async with (
        Running(echo(), certs) as server,
        open_websocket(server, fields=OFFER) as websocket,
    ):
        for frames in examples:
            websocket.wire.write(b"".join(frames))
            if len(frames) > 1:
                assert await websocket.read() == Frame(PONG, b"between")
            assert await websocket.read() == Frame(TEXT, b"Hello")
        await websocket.close()
    assert server.outcomes == {"COMPLETE": 1}


WRONG: dict[str, tuple[bytes, int]] = {
    "no deflate": (frame(TEXT, b"\xff\xff\xff", rsv=4), 1007),
    "no UTF-8": (frame(TEXT, deflated(b"\xed\xa0\x80"), rsv=4), 1007),
    "bit on a continuation": (
        frame(TEXT, deflated(b"one")[:2], fin=False, rsv=4) + frame(CONTINUATION, b"", rsv=4),
        1002,
    ),
    "bit on a ping": (frame(PING, b"", rsv=4), 1002),
    "another bit": (frame(TEXT, b"", rsv=6), 1002),
}


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
async def test_rfc7692_6_wrong(certs: Certificates, data: bytes, code: int) -> None:
    """What cannot be inflated closes with 1007, a bit where it must not be with 1002."""
    async with Running(echo(), certs) as server:
        async with open_websocket(server, fields=OFFER, h2=True) as websocket:
            websocket.wire.write(data)
            [last] = await websocket.rest()
            assert (last.opcode, last.code) == (CLOSE, code)
        await server.logged(1)
    assert server.outcomes == {"MALFORMED": 1}


# Bombs

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("fragments", [1, 8])
async def test_a_bomb_is_not_inflated(certs: Certificates, fragments: int) -> None:
    """64 MiB in 64 KiB are inflated up to the limit and no further: 1009, with little memory."""
    bomb = deflated(bytes(64 * MEGABYTE))
    assert len(bomb) < 70_000
    size = -(-len(bomb) // fragments)
    pieces = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    async with Running(echo(), certs, websocket={"max_message": MEGABYTE}) as server:
        async with open_websocket(server, fields=OFFER) as websocket:
            tracemalloc.start()
            try:
                for nth, piece in enumerate(pieces):
                    opcode = CONTINUATION if nth else BINARY
                    rsv = 0 if nth else 4
                    last = nth == len(pieces) - 1
                    websocket.wire.write(frame(opcode, piece, fin=last, rsv=rsv))
                [close] = await websocket.rest()
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert (close.opcode, close.code) == (CLOSE, 1009)
            assert most < 8 * MEGABYTE
        await server.logged(1)
    assert server.outcomes == {"SERVER_RESET": 1}


async def test_a_message_of_the_limit(certs: Certificates) -> None:
    """A compressed message of exactly the limit passes, one byte more does not."""
    async with Running(echo(), certs, websocket={"max_message": 100_000}) as server:
        async with open_websocket(server, fields=OFFER) as websocket:
            talk = Talk(websocket)
            assert await talk.ask(bytes(100_000)) == bytes(100_000)
            await talk.close()
        async with open_websocket(server, fields=OFFER) as websocket:
            websocket.send(BINARY, deflated(bytes(100_001)), rsv=4)
            [last] = await websocket.rest()
            assert last.code == 1009
        await server.logged(2)
    assert server.outcomes == {"COMPLETE": 1, "SERVER_RESET": 1}


async def test_a_chain_of_final_blocks(certs: Certificates) -> None:
    """Each final block makes a new stream: a message may have some, a flood of them ends it."""
    final = bytes.fromhex("0300")  # final, and empty
    async with Running(echo(), certs) as server:
        async with open_websocket(server, fields=OFFER) as websocket:
            websocket.send(TEXT, final * 3 + deflated(b"Hello"), rsv=4)
            assert await websocket.read() == Frame(TEXT, b"Hello")
            websocket.send(TEXT, final * 5000, rsv=4)
            [last] = await websocket.rest()
            assert last.code == 1008
        await server.logged(1)
    assert server.outcomes == {"SERVER_RESET": 1}


async def test_many_share_the_loop(certs: Certificates) -> None:
    """Compressed conversations side by side keep their windows apart."""

    async def one(server: Running, word: str) -> None:
        async with open_websocket(server, fields=OFFER, h2=True) as websocket:
            talk = Talk(websocket)
            for n in range(5):
                text = f"{word} {n} " * 400
                assert await talk.ask(text) == text
            await talk.close()

    async with Running(echo(), certs) as server:
        await asyncio.gather(*(one(server, f"word{n}") for n in range(8)))
        await server.logged(8)
    assert server.outcomes == {"COMPLETE": 8}
