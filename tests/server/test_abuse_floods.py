"""Floods of frames that are each allowed: the connection that sends them ends, and no other."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from h2log.http2.budget import BUDGETS
from h2log.server.certificates import Certificates
from tests.protocol.frames import headers, plain, rst_stream
from tests.protocol.wire import GET, Peer
from tests.server.abuse import ARTICLE, CALM, flood, scene
from tests.server.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
    get_fields,
    settings,
    stream_to,
)
from tests.support import eventually

PRIORITY, PRIORITY_UPDATE, UNKNOWN = 2, 0x10, 0x42
OPEN = END_HEADERS
WHOLE = END_HEADERS | END_STREAM
POST = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/upload"),
]
WAIT = plain(get_fields(b"/wait"))
ONE = struct.pack(">I", 1)


def odd(n: int) -> int:
    """Return the stream of the n-th request after stream 1."""
    return 3 + 2 * n


FRAMES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "ping": ("ping", lambda n: frame(PING, 0, 0, b"%08d" % n)),
    "ping ack": ("ping", lambda n: frame(PING, ACK, 0, b"%08d" % n)),
    "settings": ("settings", lambda n: frame(SETTINGS, 0, 0)),
    "settings window": ("settings", lambda n: settings({4: 65535 + n % 9})),
    "settings ack": ("settings", lambda n: frame(SETTINGS, ACK, 0)),
    "goaway": ("settings", lambda n: frame(GOAWAY, 0, 0, bytes(8))),
    "priority": ("priority", lambda n: frame(PRIORITY, 0, odd(n), b"\0\0\0\1\7")),
    "priority of one": ("priority", lambda n: frame(PRIORITY, 0, 1, b"\0\0\0\0\7")),
    "priority update": (
        "priority",
        lambda n: frame(PRIORITY_UPDATE, 0, 0, ONE + b"u=%d" % (n % 8)),
    ),
    "window update": ("window_update", lambda n: frame(WINDOW_UPDATE, 0, 0, ONE)),
    "window update of a stream": ("window_update", lambda n: frame(WINDOW_UPDATE, 0, 1, ONE)),
    "empty data": ("empty_data", lambda n: frame(DATA, 0, 1)),
    "padding alone": ("empty_data", lambda n: frame(DATA, 8, 1, b"\x03\0\0\0")),
    "unknown": ("unknown_frame", lambda n: frame(UNKNOWN, 0xFF, n, b"grease")),
}


@pytest.mark.parametrize(("budget", "piece"), FRAMES.values(), ids=FRAMES)
async def test_a_flood_spends_its_budget(
    certs: Certificates, budget: str, piece: Callable[[int], bytes]
) -> None:
    """GOAWAY and the closing line name the budget; what was open ends as SERVER_RESET, once."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(1, POST, end=False)
            done = await flood(client, piece)
        text = done.ended(CALM)
        assert text == f"the budget {budget} is spent"
        burst, rate = BUDGETS[budget]
        assert done.sent >= burst
        answers = max(done.count(PING, ACK), done.count(SETTINGS, ACK))
        assert answers <= burst + rate * done.seconds + 1
        await found.peace()
        assert found.outcomes == {"SERVER_RESET": 1}
        [said] = found.said
        assert (
            f"closed the connection of 127.0.0.1 after 1 requests: ENHANCE_YOUR_CALM: {text}"
            == said
        )


async def test_window_updates_are_not_free_for_an_identifier(certs: Certificates) -> None:
    """A high stream identifier is one request, and earns what one request does."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.headers(2_000_001, POST, end=False)
            done = await flood(client, lambda n: frame(WINDOW_UPDATE, 0, 0, ONE), 5000)
        assert "window_update" in done.ended(CALM)


async def test_rapid_reset(certs: Certificates) -> None:
    """Requests that are reset at once: 1,000 of them, 33 a second after that, each with a line."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            done = await flood(
                client,
                lambda n: frame(HEADERS, WHOLE, odd(n), WAIT) + frame(RST_STREAM, 0, odd(n), ONE),
            )
        assert done.ended(CALM) == "the budget rapid_reset is spent"
        burst, rate = BUDGETS["rapid_reset"]
        await found.peace()
        outcomes = found.outcomes
        assert set(outcomes) == {"CLIENT_RESET", "SERVER_RESET"}
        assert outcomes["SERVER_RESET"] == 1, "the one whose reset was too much"
        assert burst <= outcomes["CLIENT_RESET"] <= burst + rate * done.seconds + 1
        assert len(found.site.cancelled) == found.site.entered, "no handler goes on"
        assert {record.status for record in found.attacked} == {0}
        [said] = found.said
        assert said.endswith("the budget rapid_reset is spent")


async def test_rapid_reset_of_small_files(certs: Certificates) -> None:
    """Responses that were complete before their reset came are COMPLETE; the budget is spent."""
    block = plain(get_fields(ARTICLE))
    async with scene(certs) as found:
        async with RawClient.connect(found.server, {4: 2**31 - 1}) as client:
            client.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 65536))
            done = await flood(
                client,
                lambda n: frame(HEADERS, WHOLE, odd(n), block) + frame(RST_STREAM, 0, odd(n), ONE),
            )
        assert done.ended(CALM) == "the budget rapid_reset is spent"
        await found.peace()
        assert set(found.outcomes) == {"COMPLETE"}
        assert found.outcomes["COMPLETE"] >= BUDGETS["rapid_reset"].burst


def test_rapid_reset_refills_by_its_rate() -> None:
    """After the burst of 1,000 a second brings 33 more, and no 34th."""
    peer = Peer("hold")
    stream = 1

    def resets(count: int) -> None:
        nonlocal stream
        for _ in range(count):
            peer.send(headers(stream, plain(GET)), rst_stream(stream))
            stream += 2

    resets(1000)
    assert peer.conn.error is None
    for _ in range(3):
        peer.tick(1.0)
        resets(33)
        assert peer.conn.error is None
    resets(1)
    assert peer.conn.error is not None and peer.conn.error.code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_handlers_of_reset_streams_are_cancelled_at_once(
    certs: Certificates, record_property: Callable[[str, object], None]
) -> None:
    """A PING behind a hundred resets is answered when every handler has been cancelled."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            for n in range(100):
                client.send(HEADERS, WHOLE, odd(n), WAIT)
            await eventually(lambda: found.site.entered == 100)
            began = asyncio.get_running_loop().time()
            for n in range(100):
                client.send(RST_STREAM, 0, odd(n), ONE)
            client.send(PING, 0, 0, b"all gone")
            await client.expect(PING, flags=ACK)
            assert len(found.site.cancelled) == 100
            slowest = max(found.site.cancelled) - began
            record_property("seconds", slowest)
            assert slowest < 1
            assert found.outcomes == {"CLIENT_RESET": 100}
            client.get(odd(100), ARTICLE)
            await client.expect(HEADERS, odd(100))
        await found.peace()
        assert found.said == []


async def test_a_browser_that_leaves_pages_is_not_an_attacker(certs: Certificates) -> None:
    """Five times a hundred open requests that are reset together leave the connection as it was."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            for page in range(5):
                streams = [odd(page * 100 + n) for n in range(100)]
                for stream in streams:
                    client.send(HEADERS, WHOLE, stream, WAIT)
                await eventually(lambda n=page: found.site.entered == (n + 1) * 100)  # type: ignore[misc]
                for stream in streams:
                    client.send(RST_STREAM, 0, stream, ONE)
            client.get(2001, ARTICLE)
            await client.expect(HEADERS, 2001)
        await found.peace()
        assert found.outcomes == {"CLIENT_RESET": 500, "COMPLETE": 1}


RESETS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "malformed": (
        "MALFORMED",
        lambda n: frame(HEADERS, WHOLE, odd(n), plain([*get_fields(b"/wait"), (b"te", b"gzip")])),
    ),
    "malformed content-length": (
        "MALFORMED",
        lambda n: (
            frame(HEADERS, OPEN, odd(n), plain([*POST, (b"content-length", b"3")]))
            + frame(DATA, END_STREAM, odd(n), b"ab")
        ),
    ),
    "window update by 0": (
        "SERVER_RESET",
        lambda n: frame(HEADERS, WHOLE, odd(n), WAIT) + frame(WINDOW_UPDATE, 0, odd(n), bytes(4)),
    ),
    "window overflow": (
        "SERVER_RESET",
        lambda n: (
            frame(HEADERS, WHOLE, odd(n), WAIT)
            + frame(WINDOW_UPDATE, 0, odd(n), b"\x7f\xff\xff\xff")
        ),
    ),
    "data after the end": (
        "SERVER_RESET",
        lambda n: frame(HEADERS, WHOLE, odd(n), WAIT) + frame(DATA, 0, odd(n), b"x"),
    ),
    "headers after the end": (
        "SERVER_RESET",
        lambda n: frame(HEADERS, WHOLE, odd(n), WAIT) * 2,
    ),
    "priority of a wrong length": (
        "SERVER_RESET",
        lambda n: frame(HEADERS, WHOLE, odd(n), WAIT) + frame(PRIORITY, 0, odd(n), bytes(4)),
    ),
    "depends on itself": (
        "SERVER_RESET",
        lambda n: (
            frame(HEADERS, WHOLE, odd(n), WAIT)
            + frame(PRIORITY, 0, odd(n), struct.pack(">IB", odd(n), 1))
        ),
    ),
}


@pytest.mark.parametrize(("outcome", "piece"), RESETS.values(), ids=RESETS)
async def test_made_you_reset(
    certs: Certificates, outcome: str, piece: Callable[[int], bytes]
) -> None:
    """What forces the server to reset streams is counted: a hundred of them, one a second then."""
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            done = await flood(client, piece, 1000, 50)
        assert done.ended(CALM) == "the budget server_reset is spent"
        burst, rate = BUDGETS["server_reset"]
        most = burst + rate * done.seconds + 2
        await found.peace()
        assert set(found.outcomes) == {outcome}
        assert burst < found.outcomes[outcome] <= most
        assert burst < done.count(RST_STREAM) <= most
        assert len(found.site.cancelled) == found.site.entered
        [said] = found.said
        assert said.endswith("the budget server_reset is spent")


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_streams_over_the_limit_are_counted(certs: Certificates, acknowledged: bool) -> None:
    """What is beyond the limit is refused and logged, and counted whether the limit is known."""
    async with scene(certs) as found:
        async with stream_to(found.server, "h2") as (reader, writer):
            client = RawClient(reader, writer)
            writer.write(PREFACE + settings({}))
            await client.expect(SETTINGS)
            if acknowledged:
                client.send(SETTINGS, ACK)
            done = await flood(client, lambda n: frame(HEADERS, WHOLE, odd(n), WAIT), 10_000)
        assert done.ended(CALM).endswith("is spent")
        await found.peace()
        assert found.outcomes["SERVER_RESET"] == 100
        assert found.outcomes["REFUSED"] == done.count(RST_STREAM)
        assert set(found.outcomes) == {"SERVER_RESET", "REFUSED"}


async def test_frames_of_streams_that_are_over(certs: Certificates) -> None:
    """What may have been on its way is ignored, but not for ever."""
    bad = plain([*get_fields(b"/wait"), (b"te", b"gzip")])
    async with scene(certs) as found:
        async with RawClient.connect(found.server) as client:
            client.send(HEADERS, OPEN, 1, bad)
            await client.expect(RST_STREAM, 1)
            done = await flood(client, lambda n: frame(DATA, 0, 1))
        assert done.ended(CALM) == "the budget stray_frame is spent"
        assert done.sent >= BUDGETS["stray_frame"].burst
        await found.peace()
        assert found.outcomes == {"MALFORMED": 1}
