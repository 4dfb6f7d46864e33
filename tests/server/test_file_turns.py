"""Files that are sent on one connection at the same time: in turns, as priorities are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from h2log import App, Request, Response
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.app.static import SMALL
from h2log.clock import monotonic
from h2log.http2.settings import EngineLimits
from h2log.server.dispatch import Dispatcher
from h2log.server.http2_leg import Http2Leg
from h2log.server.session import Shared
from tests.protocol.frames import (
    PREFACE,
    DataFrame,
    headers,
    parse,
    plain,
    settings,
    window_update,
)
from tests.protocol.wire import GET
from tests.server.http1_conversation import Line, limits_of
from tests.server.wire import DATA, RST_STREAM, WINDOW_UPDATE, RawClient
from tests.support import Running, eventually

FRAMES = 40
SIZE = FRAMES * 16_384
WIDE = 2**31 - 1
assert SIZE > SMALL


@pytest.fixture
def site(tmp_path: Path) -> App:
    """Return an application that serves a file of `FRAMES` full frames."""
    (tmp_path / "large.bin").write_bytes(bytes(SIZE))
    app = App()
    app.static(tmp_path)
    return app


async def opened(client: RawClient) -> None:
    """Open the connection's window, and have the server open the file."""
    client.send(WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4, "big"))
    client.get(1, b"/large.bin", (b"range", b"bytes=0-0"))
    await order(client, 1)


async def order(client: RawClient, *streams: int) -> list[int]:
    """Return the streams of the DATA frames that come until all of `streams` have ended."""
    left = set(streams)
    found = []
    while left:
        frame = await client.read()
        if frame.kind == DATA:
            found.append(frame.stream)
            if frame.flags & 1:
                left.remove(frame.stream)
    return found


async def test_files_take_turns_of_a_frame(site: App) -> None:
    """Who says nothing of priorities has each file grow as fast as the others."""
    async with Running(site, None) as server, RawClient.connect(server, {4: WIDE}) as client:
        await opened(client)
        for stream in (3, 5, 7):
            client.get(stream, b"/large.bin")
        assert await order(client, 3, 5, 7) == [3, 5, 7] * FRAMES
    assert server.outcomes == {"COMPLETE": 4}


async def test_files_go_out_in_the_order_of_their_priorities(site: App) -> None:
    """The most urgent first, then those of use only whole one after the other (RFC 9218)."""
    said = {3: b"u=4, i", 5: b"u=4, i", 7: b"u=2", 9: b"u=2", 11: b"u=0"}
    async with Running(site, None) as server, RawClient.connect(server, {4: WIDE}) as client:
        await opened(client)
        for stream, priority in said.items():
            client.get(stream, b"/large.bin", (b"priority", priority))
        found = await order(client, *said)
    wanted = [11] * FRAMES + [7] * FRAMES + [9] * FRAMES + [3, 5] * FRAMES
    assert found == wanted


async def test_a_file_that_has_no_window_holds_up_no_other(site: App) -> None:
    """It goes on when it has one; the record tells that the client let it wait."""
    async with Running(site, None) as server, RawClient.connect(server, {4: 32_768}) as client:
        await opened(client)
        client.get(3, b"/large.bin")
        client.get(5, b"/large.bin")
        client.send(WINDOW_UPDATE, 0, 5, (SIZE - 32_768).to_bytes(4, "big"))
        assert (await order(client, 5)).count(3) == 2
        leg = await server.leg()
        assert leg._conn.streams[3].waiting
        held = monotonic()
        await eventually(lambda: monotonic() - held > 0.02)
        client.send(WINDOW_UPDATE, 0, 3, (SIZE - 32_768).to_bytes(4, "big"))
        assert len(await order(client, 3)) == FRAMES - 2
    [first] = [record for record in server.records if record.stream_id == 3]
    assert first.detail is not None
    assert first.detail.stalled >= 0.02
    assert (first.sent, first.outcome) == (SIZE, Outcome.COMPLETE)


async def test_a_file_whose_client_opens_no_window_is_given_up(site: App) -> None:
    """After `stall_timeout`, as any response; what it had is told."""
    async with (
        Running(site, None, stall_timeout=0.3) as server,
        RawClient.connect(server, {4: 32_768}) as client,
    ):
        await opened(client)
        client.get(3, b"/large.bin")
        while (await client.read()).kind != RST_STREAM:
            pass
        await server.logged(2)
    record = server.records[-1]
    assert (record.sent, record.outcome) == (32_768, Outcome.TIMEOUT)


async def test_a_file_that_is_reset_leaves_the_round(site: App) -> None:
    """The others have its turns, and its task ends."""
    async with Running(site, None) as server, RawClient.connect(server, {4: 32_768}) as client:
        await opened(client)
        for stream in (3, 5, 7):
            client.get(stream, b"/large.bin")
        for _ in range(2 * 3):
            while (await client.read()).kind != DATA:
                pass
        client.send(RST_STREAM, 0, 5, (8).to_bytes(4, "big"))
        for stream in (3, 7):
            client.send(WINDOW_UPDATE, 0, stream, (SIZE - 32_768).to_bytes(4, "big"))
        assert await order(client, 3, 7) == [3, 7] * (FRAMES - 2)
        leg = await server.leg()
        assert not leg._sources
    assert server.outcomes == {"COMPLETE": 3, "CLIENT_RESET": 1}


@pytest.mark.parametrize("priority", [b"u=3, i", b"u=1, i", b"u=5, i"])
async def test_files_and_streams_without_end_share_a_connection(site: App, priority: bytes) -> None:
    """However much handlers have to send: who is more urgent has more, the same has its turns."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(50_000)

    @site.get("/endless")
    async def handler(request: Request) -> Response:
        return Response.stream(endless())

    async with (
        Running(site, None, patience=0.1) as server,
        RawClient.connect(server, {4: WIDE}) as client,
    ):
        await opened(client)
        others = (3, 5, 7, 9)
        for stream in others:
            client.get(stream, b"/endless", (b"priority", b"u=3, i"))
        leg = await server.leg()
        await eventually(lambda: leg._conn.blocked)
        client.get(11, b"/large.bin", (b"priority", priority))
        found: list[int] = []
        while len(found) < 3000 and found.count(11) < FRAMES:
            frame = await client.read()
            if frame.kind == DATA:
                found.append(frame.stream)
        if priority == b"u=5, i":
            assert found.count(11) < FRAMES
        else:
            assert found.count(11) == FRAMES
            at = found.index(11)
            most = max(found[at:].count(stream) for stream in others)
            assert most <= 2 * FRAMES
        for stream in (*others, 11):
            client.send(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
        await server.logged(6)


async def test_what_waited_for_the_socket_goes_on_beside_a_file(site: App) -> None:
    """More than goes out in one turn is queued when there is room again; all of it goes out."""

    @site.get("/content")
    def handler(request: Request) -> Response:
        return Response(bytes(100_000))

    records: list[AccessRecord] = []
    shared = Shared(Dispatcher(site), limits_of(), records.append)
    session = Session("0" * 32, "192.0.2.1", 1, 0.0, records.append, monotonic())
    shared.accepted(session)
    line = Line()
    leg = Http2Leg(session, shared, EngineLimits())
    leg.connection_made(line)
    leg.data_received(PREFACE + settings((4, WIDE)) + window_update(0, WIDE - 65_535))

    def get(stream: int, path: bytes) -> bytes:
        return headers(stream, plain([*GET[:3], (b":path", path)]))

    leg.data_received(get(1, b"/large.bin"))  # the file is found
    await eventually(lambda: len(records) == 1)
    leg.pause_writing()
    leg.data_received(get(3, b"/large.bin") + b"".join(get(n, b"/content") for n in (5, 7, 9, 11)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.writes.clear()
    leg.resume_writing()
    await eventually(lambda: len(records) == 6)
    sent = [f for f in parse(b"".join(line.writes)) if isinstance(f, DataFrame)]
    for stream, size in ((3, SIZE), (5, 100_000), (7, 100_000), (9, 100_000), (11, 100_000)):
        assert sum(frame.size for frame in sent if frame.stream_id == stream) == size
    leg.connection_lost(None)
