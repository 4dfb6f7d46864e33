"""Clients that misbehave among clients that do not, and a system that has no more to give."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.process_app import app
from tests.server.wire import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http1Client,
    RawClient,
    frame,
    get_fields,
    settings,
)
from tests.support import PATIENCE, Process, Running, client_context, eventually, poll, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
APP = "tests.server.process_app:app"
ARTICLES = [
    f"/article/a2e12610c3f94d0b8e7f5a4b3c2d1e0f/{name}.html"
    for name in ("01-connection", "03-header-compression", "06-request", "08-log")
]
BAD, GOOD = 50, 10
MEGABYTE = 1024 * 1024
ROUNDS = 15

Server = Running | Process


async def resets(server: Server, done: asyncio.Event) -> int:
    """Reset each of three responses in its middle, and go."""
    async with H2Client.connect(server, credit=False) as client:
        streams = [client.send("GET", "/stream/20") for _ in range(3)]
        await client.until(lambda: all(client.replies[s].status for s in streams))
        for stream in streams:
            client.reset(stream)
        await done.wait()
    return 3


async def vanishes(server: Server, done: asyncio.Event) -> int:
    """Cut the connection in the middle of three responses, without a word."""
    async with H2Client.connect(server, credit=False) as client:
        streams = [client.send("GET", "/stream/20") for _ in range(3)]
        await client.until(lambda: all(client.replies[s].status for s in streams))
        client.abort()
    return 3


async def vanishes_on_http1(server: Server, done: asyncio.Event) -> int:
    """Cut an HTTP/1.1 connection in the middle of its response."""
    async with Http1Client.connect(server) as client:
        client.send(b"GET /stream/400 HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.reader.readexactly(100_000)
        client.writer.transport.abort()
    return 1


async def stops_reading(server: Server, done: asyncio.Event) -> int:
    """Ask for much with windows wide open, and read no more than the beginning."""
    async with RawClient.connect(server, {4: 2**31 - 1}) as client:
        client.send(WINDOW_UPDATE, 0, 0, (2**31 - 1 - 65535).to_bytes(4, "big"))
        for stream in (1, 3, 5):
            client.get(stream, b"/stream/1000")
        seen: set[int] = set()
        while len(seen) < 3:
            seen.add((await client.read()).stream or 1)
        await done.wait()
        client.writer.transport.abort()
    return 3


async def zero_window(server: Server, done: asyncio.Event) -> int:
    """Never open a window: files, streams and small answers wait."""
    async with RawClient.connect(server, {4: 0}) as client:
        for stream, path in ((1, b"/stream/9"), (3, ARTICLES[0].encode()), (5, b"/state")):
            client.get(stream, path)
            await client.expect(1, stream)
        await done.wait()
        client.writer.transport.abort()
    return 3


KINDS = (resets, vanishes, vanishes_on_http1, stops_reading, zero_window)


async def loads_articles(server: Server, rounds: int) -> int:
    """Load every article again and again; each must arrive whole."""
    async with H2Client.connect(server) as client:
        for _ in range(rounds):
            streams = [client.send("GET", path) for path in ARTICLES]
            for stream in streams:
                reply = await client.reply(stream)
                assert (reply.status, reply.ended) == (200, True)
                assert len(reply.body) == int(reply.headers["content-length"])
                assert bytes(reply.body).rstrip().endswith(b"</html>")
    return rounds * len(ARTICLES)


async def storm(server: Server) -> tuple[int, int]:
    """Let all of them loose; return how many requests the good and the bad ones opened."""
    done = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        bad = [group.create_task(KINDS[n % len(KINDS)](server, done)) for n in range(BAD)]
        good = [group.create_task(loads_articles(server, ROUNDS)) for _ in range(GOOD)]
        await asyncio.wait(good)
        done.set()
    return sum(task.result() for task in good), sum(task.result() for task in bad)


@BOTH_LOOPS
@pytest.mark.parametrize("secure", [True, False])
async def test_bad_clients_do_not_hurt_good_ones(certs: Certificates, secure: bool) -> None:
    """Every opened request has one record; nothing is left of those that went."""
    async with Running(app, certs if secure else None) as server:
        good, bad = await storm(server)
        await server.logged(good + bad)
        await eventually(lambda: not server.shared.legs and not server.shared.dispatcher.tasks)
        assert len(server.records) == good + bad
    outcomes = server.outcomes
    assert outcomes["COMPLETE"] == good
    assert outcomes["CLIENT_RESET"] + outcomes["PEER_LOST"] == bad
    assert outcomes["CLIENT_RESET"] == 30
    assert len(server.sessions) == BAD + GOOD


async def test_a_process_is_what_it_was_after_a_storm(certs: Certificates, tmp_path: Path) -> None:
    """Lines, tasks, descriptors and memory: round after round they come back to where they were."""
    with Process("run", APP, certs=certs, log=tmp_path / "access.log") as server:

        async def state() -> str:
            done = await run("curl", "-sS", "--cacert", str(certs.ca), f"{server.url}/state")
            assert done.code == 0, done.stderr
            return done.text

        before, descriptors = await state(), server.descriptors()
        total, sizes = 1, []
        for _ in range(3):
            total += sum(await storm(server))
            poll(lambda: len(server.lines) >= total)  # noqa: B023
            poll(lambda: server.descriptors() <= descriptors + 1)
            async with asyncio.timeout(PATIENCE):
                while await state() != before:
                    total += 1
            total += 1
            # Once the last connection has gone, memory is given back to the system.
            sizes.append(server.resident())
            poll(lambda: server.resident() < sizes[0] + 8 * MEGABYTE)
        assert server.stop() == 0
        lines = server.lines
    assert len(lines) == total
    assert len({line.request for line in lines}) == total
    assert all(line.status in (200, None) for line in lines)
    good = Counter(line.session for line in lines if line.path in ARTICLES and line.status == 200)
    assert Counter(good.values())[ROUNDS * len(ARTICLES)] == 3 * GOOD


@contextlib.asynccontextmanager
async def silent(server: Process, count: int) -> AsyncIterator[None]:
    """Connect and say nothing."""
    sockets = []
    try:
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sockets.append(sock)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        yield
    finally:
        for sock in sockets:
            sock.close()


async def test_running_out_of_descriptors_pauses_and_recovers(
    certs: Certificates, tmp_path: Path
) -> None:
    """It says so, waits without spinning, serves who is there, and accepts again afterwards."""
    with Process("serve", certs=certs, log=tmp_path / "access.log") as server:
        async with H2Client.connect(server) as old:
            assert (await old.get("/")).status == 200
            limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            low = server.descriptors() + 10
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (low, limits[1]))
            async with silent(server, 40):
                before = server.cpu_seconds()
                loop = asyncio.get_running_loop()
                began = loop.time()

                def said() -> int:
                    return sum("cannot accept" in line for line in server.stderr.lines)

                await eventually(lambda: said() >= 1)
                served = 0
                while loop.time() - began < 1.0:
                    assert (await old.get("/")).status == 200
                    served += 1
                took = loop.time() - began
                assert server.cpu_seconds() - before < 0.5 * took + 0.001 * served
                assert said() == 1, "it is said, and not again and again"
            done = await run("curl", "-sS", "--cacert", str(certs.ca), f"{server.url}/")
            assert done.code == 0, done.stderr
        assert server.stop() == 0
        assert {line.status for line in server.lines} == {200}
        assert len(server.lines) == served + 2


@contextlib.asynccontextmanager
async def deaf(server: Running) -> AsyncIterator[RawClient]:
    """Connect with hardly any room for what the server says, and read none of it."""
    assert server.certs is not None
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=client_context(server.certs, "h2"), server_hostname="127.0.0.1", limit=1024
    )
    writer.write(PREFACE + settings({}) + frame(SETTINGS, ACK, 0))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("flood", ["ping", "settings", "reset"])
async def test_a_flood_from_a_client_that_does_not_read_is_bounded(
    certs: Certificates, flood: str
) -> None:
    """What a peer makes us say does not pile up while it does not listen: 2 MiB at the most."""
    async with Running(app, certs) as server, deaf(server) as client:
        leg = await server.leg()
        transport = leg._transport
        assert transport is not None
        stream, most = 1, 0
        for _ in range(200):
            if flood == "ping":
                pieces = [frame(PING, 0, 0, b"12345678")] * 10_000
            elif flood == "settings":
                pieces = [frame(SETTINGS, 0, 0)] * 20_000
            else:
                block = client.block(get_fields(ARTICLES[0].encode()))
                pieces = []
                for _ in range(400):
                    pieces.append(frame(HEADERS, END_STREAM | END_HEADERS, stream, block))
                    pieces.append(frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))
                    stream += 2
            client.writer.write(b"".join(pieces))
            for _ in range(20):  # both sides take their turns
                await asyncio.sleep(0)
                most = max(most, transport.get_write_buffer_size() + leg._conn.out_size)
            if leg not in server.shared.legs or client.writer.transport.is_closing():
                break
            if most > 2 * MEGABYTE:
                break
        assert most <= 2 * MEGABYTE
