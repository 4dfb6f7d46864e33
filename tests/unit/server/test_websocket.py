"""A WebSocket on bytes in memory: what it makes of them does not depend on how they come."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h2log.access.exchange import Exchange
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.config import WebSocketSettings
from h2log.server.content import ContentBuffer
from h2log.server.websocket import WebSocket
from h2log.server.websocket_codes import check_code
from h2log.server.websocket_handshake import DeflateTerms
from tests.server.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
)

TERMS = DeflateTerms(12, 12, False, False)


class Facts:
    """What was asked."""

    method, path, scheme, authority = "GET", "/", "https", "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


class Sent:
    """The other end of the stream: what was sent to it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.waiting = False
        self.on_lost: Callable[[], None] | None = None

    def write(self, data: bytes | bytearray, end: bool = False) -> None:
        assert not self.ended
        self.data += data
        self.ended = end

    async def drain(self) -> None:
        pass

    def note(self) -> None:
        pass


class Rig:
    """A WebSocket, and both ends of its stream."""

    def __init__(self, terms: DeflateTerms | None = None, **values: Any) -> None:
        self.records: list[AccessRecord] = []
        session = Session("session", "127.0.0.1", 1, 0.0, self.records.append)
        self.exchange = Exchange(session, Facts(), "request", 1, 0.0, 0.0)
        self.sent = Sent()
        self.read = 0
        self.held = 0.0
        self.content = ContentBuffer(0, 1.0, 0, self._on_read, None, lambda: self.held)
        self.content.lift()
        chosen = WebSocketSettings(**{"ping_interval": 0, **values})
        reply: Any = self.sent
        self.websocket = WebSocket(self.exchange, reply, self.content, chosen, terms)
        self.websocket.start()

    def _on_read(self, size: int) -> None:
        self.read += size

    async def rest(self) -> list[str | bytes]:
        """Receive what has come."""
        found = []
        while (message := await self.websocket.receive()) is not None:
            found.append(message)
        return found

    @property
    def verdict(self) -> Outcome:
        """How the request ended, or will."""
        return self.exchange.outcome or self.exchange.verdict


def deflated(*messages: bytes) -> list[bytes]:
    """Return messages, compressed one after the other."""
    made = zlib.compressobj(wbits=-12)
    return [(made.compress(m) + made.flush(zlib.Z_SYNC_FLUSH))[:-4] for m in messages]


ONE, TWO = deflated(b"a text" * 50, b"a text" * 60)
STREAM = b"".join(
    [
        frame(TEXT, "héllo".encode()),
        frame(PING, b"1"),
        frame(BINARY, bytes(300)),
        frame(TEXT, b"\xc3", fin=False),
        frame(PING, b"2"),
        frame(CONTINUATION, b"\xa9", fin=False),
        frame(CONTINUATION),
        frame(TEXT, ONE[:3], fin=False, rsv=4),
        frame(PONG, b"3"),
        frame(CONTINUATION, ONE[3:]),
        frame(TEXT, TWO, rsv=4),
        frame(BINARY),
        frame(CLOSE, b"\x0f\xa1done"),
    ]
)
MESSAGES = ["héllo", bytes(300), "é", "a text" * 50, "a text" * 60, b""]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40), st.integers(1, 3))
@example(list(range(len(STREAM))), 1)
@settings(max_examples=60)
def test_any_pieces(cuts: list[int], most: int) -> None:
    """However a stream is cut, and however little may wait, the same comes out and goes back."""

    async def check() -> None:
        rig = Rig(TERMS, max_queue=most)
        ends = sorted({*cuts, len(STREAM)})
        for start, end in zip([0, *ends], ends, strict=False):
            if start < end:
                rig.content.feed(STREAM[start:end])
        assert await rig.rest() == MESSAGES
        assert (rig.websocket.code, rig.websocket.reason) == (4001, "done")
        assert bytes(rig.sent.data) == b"\x8a\x011" + b"\x8a\x012" + b"\x88\x02\x0f\xa1"
        assert rig.sent.ended and rig.verdict is Outcome.COMPLETE and rig.sent.on_lost is None
        assert rig.read == len(STREAM)

    asyncio.run(check())


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300)
def test_any_bytes(data: bytes, compressed: bool) -> None:
    """Whatever comes, there is one end, and no exception."""

    async def check() -> None:
        rig = Rig(TERMS if compressed else None, max_message=1000)
        if data:
            rig.content.feed(data)
        rig.content.end()
        await rig.rest()
        assert rig.sent.ended
        assert rig.verdict in (
            Outcome.COMPLETE,
            Outcome.MALFORMED,
            Outcome.PEER_LOST,
            Outcome.SERVER_RESET,
        )

    asyncio.run(check())


FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE]),
    st.one_of(st.binary(max_size=140), st.text(max_size=60).map(str.encode), st.just(b"\x03\xe8")),
    fin=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 4]),
    mask=st.sampled_from([b"\0\0\0\0", b"\x11\x22\x33\x44", b"\xff\0\xff\0", None]),
)


@given(st.lists(FRAMES, max_size=8).map(b"".join), st.binary(max_size=6))
@settings(max_examples=400)
def test_simple_messages_are_no_exception(frames: bytes, more: bytes) -> None:
    """What comes whole takes a shorter way than what comes a byte at a time, to the same place."""

    async def outcome(size: int) -> tuple[object, ...]:
        rig = Rig(max_message=100)
        data = frames + more
        for at in range(0, len(data), size):
            if not rig.websocket.over:
                rig.content.feed(data[at : at + size])
        rig.content.end()
        messages = await rig.rest()
        websocket = rig.websocket
        return messages, websocket.code, websocket.reason, bytes(rig.sent.data), rig.verdict

    async def check() -> None:
        assert await outcome(1) == await outcome(1 << 16)

    asyncio.run(check())


async def test_tiny_fragments_are_joined() -> None:
    """A message of many fragments is what it is, and takes no more than that."""
    rig = Rig()
    rig.content.feed(frame(TEXT, b"", fin=False))
    for _ in range(20_000):
        rig.content.feed(frame(CONTINUATION, b"xy", fin=False))
    rig.content.feed(frame(CONTINUATION, "€".encode()))
    assert await rig.websocket.receive() == "xy" * 20_000 + "€"


async def test_what_waits_is_bounded_in_bytes() -> None:
    """Messages that wait are bounded by `max_message` as well; then nothing more is taken."""
    rig = Rig(max_message=10_000)
    pieces = [frame(BINARY, bytes(4000)) for _ in range(20)]
    for piece in pieces:
        rig.content.feed(piece)
    taken = rig.read
    assert taken < 6 * 4008 + 16_384
    for _ in range(20):
        assert await rig.websocket.receive() == bytes(4000)
    assert rig.read == 20 * 4008


async def test_what_came_before_the_close_is_received() -> None:
    """The server's going away takes nothing from the application, its own close does."""
    for close, left in ((WebSocket.go_away, ["one"]), (_close, [])):
        rig = Rig()
        rig.content.feed(frame(TEXT, b"one"))
        close(rig.websocket)
        rig.content.feed(frame(TEXT, b"two"))
        rig.content.feed(frame(CLOSE, b"\x03\xe9"))
        assert await rig.rest() == left
        assert rig.sent.ended and rig.verdict is Outcome.COMPLETE


def _close(websocket: WebSocket) -> None:
    websocket.close(1001, "")


async def test_a_connection_that_is_held_is_not_late() -> None:
    """Time in which nothing is read of the connection is not the client's."""
    rig = Rig(ping_interval=0.01, ping_timeout=0.25)
    await _while(lambda: not rig.sent.data)
    rig.held = 60.0  # as if reading had stopped for that long since the ping
    await asyncio.sleep(0.4)  # more than it may take to answer
    assert rig.websocket.open
    rig.websocket.fail()


async def test_a_close_that_has_not_gone_out_is_not_late() -> None:
    """The client's time to answer our Close is none in which it still takes what is before it."""
    rig = Rig(close_timeout=0.01)
    rig.sent.waiting = True
    rig.websocket.close(1000, "")
    await asyncio.sleep(0.1)  # ten times what it may take to answer
    assert not rig.websocket.over
    rig.sent.waiting = False
    await _while(lambda: not rig.websocket.over)
    assert rig.verdict is Outcome.TIMEOUT


async def _while(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while condition():
            await asyncio.sleep(0.001)


async def test_a_fault_of_our_own_ends_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What should not happen is logged, and ends this WebSocket alone with 1011."""
    rig = Rig()

    def broken() -> None:
        raise LookupError("what should not happen")

    monkeypatch.setattr(rig.websocket._frames, "received_frames", broken)
    rig.content.feed(frame(TEXT, b"one"))
    assert bytes(rig.sent.data) == b"\x88\x02\x03\xf3" and rig.sent.ended
    assert rig.verdict is Outcome.HANDLER_ERROR
    assert "what should not happen" in caplog.text


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
def test_codes_that_may_be_sent(code: int) -> None:
    """Those of the registry, and those of applications."""
    assert check_code(code) == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, "1000", None])
def test_codes_that_may_not(code: object) -> None:
    """The others raise."""
    with pytest.raises(ValueError, match="cannot be sent"):
        check_code(code)
