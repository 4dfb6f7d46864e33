"""What clients do to `h2log run --server hypercorn`, and what their lines say then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, TextMessage

from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.integrations.http3_client import H3Client
from tests.integrations.hypercorn_process import Hypercorn
from tests.server.h2_client import H2Client, Reply
from tests.support import PATIENCE, eventually

Head = list[tuple[bytes, bytes]]

PLAIN = [(b":scheme", b"https"), (b":authority", b"localhost")]
HEADS: dict[str, tuple[Head, int, Outcome]] = {
    "/\\xFF?path": (
        [(b":method", b"GET"), *PLAIN, (b":path", b"/\xff?path")],
        400,
        Outcome.MALFORMED,
    ),
    "/method": ([(b":method", b"G\xffT"), *PLAIN, (b":path", b"/method")], 400, Outcome.MALFORMED),
    "tunnel:443": (
        [(b":method", b"CONNECT"), (b":authority", b"tunnel:443")],
        501,
        Outcome.COMPLETE,
    ),
    "/subprotocol": (
        [
            (b":method", b"CONNECT"),
            *PLAIN,
            (b":path", b"/subprotocol"),
            (b":protocol", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-protocol", b"\xff"),
        ],
        400,
        Outcome.MALFORMED,
    ),
}
"""Requests that Hypercorn fails at, by target: their status and outcome."""

UPGRADE = (
    b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certs: Certificates) -> Iterator[Hypercorn]:
    """A server of all protocols, with a session log."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "h2log.toml"
    file.write_text(f'[log.session]\npath = "{folder}/session.log"\n')
    options = ("--http3", "--config", str(file))
    with Hypercorn(folder / "access.log", certs, *options) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypercorn]:
    """One without TLS."""
    with Hypercorn(tmp_path_factory.mktemp("plain") / "access.log", None) as running:
        yield running


def raw(target: str) -> str:
    """Return a target as the log's readers give it: a character for a byte."""
    return target.replace("\\xFF", "\xff")


@pytest.mark.parametrize("target", HEADS)
async def test_what_hypercorn_fails_at_over_http2(server: Hypercorn, target: str) -> None:
    """It is refused with a line of its own, and what else its connection has open goes on."""
    head, status, outcome = HEADS[target]
    async with H2Client.connect(server, check=False) as client:
        slow = client.send("GET", "/slow")
        refused = client.conn.get_next_available_stream_id()
        client.conn.send_headers(refused, head, end_stream=True)
        client.replies[refused] = Reply()
        client.flush()
        answer = await client.reply(refused)
        assert (await client.reply(slow)).status == 200
    line = await server.full.that(answer.headers["x-request-id"])
    assert (answer.status, line.status, line.outcome) == (status, status, outcome)
    assert (line.target, line.version, line.nth) == (raw(target), "h2", 2)


@pytest.mark.parametrize("target", HEADS)
async def test_what_hypercorn_fails_at_over_http3(server: Hypercorn, target: str) -> None:
    """Nor does it harm other streams, or the connections of others."""
    head, status, outcome = HEADS[target]
    async with H3Client.open(server.port) as other, H3Client.open(server.port) as client:
        slow, theirs = client.send("GET", "/slow"), other.send("GET", "/slow")
        answer = await client.reply(client.send_head(head))
        assert (await client.reply(slow)).status == 200
        assert (await other.reply(theirs)).status == 200
    line = await server.full.that(answer.headers["x-request-id"])
    assert (answer.status, line.status, line.outcome) == (status, status, outcome)
    assert (line.target, line.version, line.stream) == (raw(target), "h3", 4)


async def test_a_broken_http3_connection(server: Hypercorn) -> None:
    """A violation ends its own connection: SERVER_RESET for what is open on it."""
    async with H3Client.open(server.port) as other, H3Client.open(server.port) as client:
        client.send("GET", "/wait?broken3")
        await client.request("GET", "/before-broken3")
        client.send_head([(b":method", b"GET"), *PLAIN])  # without a path
        line = await server.full.one("/wait?broken3")
        assert (await other.request("GET", "/beside-broken3")).status == 200
    assert line.outcome is Outcome.SERVER_RESET


async def test_a_subprotocol_that_is_no_text(plain: Hypercorn) -> None:
    """A WebSocket over HTTP/1.1 that Hypercorn fails at is refused, too."""
    answer = await _talk(plain, UPGRADE % (b"/odd", b"sec-websocket-protocol: \xff\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    line = await plain.full.one("/odd")
    assert (line.status, line.outcome) == (400, Outcome.MALFORMED)


async def test_a_websocket_that_does_not_wait(plain: Hypercorn) -> None:
    """What is sent before it is accepted ends it: application and connection are told."""
    before = await _tasks(plain)
    answer = await _talk(plain, UPGRADE % (b"/early", b"") + b"\x81\x85\0\0\0\0hello")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await plain.full.one("/early")).status == 400
    await _are_back(plain, before)


async def test_the_second_request_of_a_read(plain: Hypercorn) -> None:
    """A malformed request that came with the one before it has its own target."""
    good, bad = b"GET /good HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /bad HTTP/1.1\r\nho st: x\r\n\r\n"
    answer = await _talk(plain, good + bad)
    assert b"HTTP/1.1 200 " in answer and b"HTTP/1.1 400 " in answer
    good_line, bad_line = await plain.full.one("/good"), await plain.full.one("/bad")
    assert (bad_line.outcome, bad_line.method, bad_line.nth) == (Outcome.MALFORMED, "GET", 2)
    assert good_line.session == bad_line.session


async def test_what_waits_behind_a_request_that_fails(plain: Hypercorn) -> None:
    """Nobody waits for the turn of a second request on a connection that ends with the first."""
    tasks = await _tasks(plain)
    for number in range(5):
        both = (f"/raise-late?first{number}", f"/second{number}")
        await _talk(
            plain, b"".join(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % p.encode() for p in both)
        )
        line = await plain.full.one(both[0])
        assert (line.sent, line.outcome) == (4, Outcome.HANDLER_ERROR)
    await _are_back(plain, tasks)


async def test_hostile_names(plain: Hypercorn) -> None:
    """No byte of a request can end its line, or begin another."""
    path = '/a\tb\n2026 200 1 "\\\x7f\x85'
    head = [(":method", "GET"), (":scheme", "http"), (":authority", 'a"b\\c'), (":path", path)]
    async with H2Client.connect(plain, check=False) as client:
        stream = client.conn.get_next_available_stream_id()
        try:
            client.conn.send_headers(stream, head, end_stream=True)
            client.replies[stream] = Reply()
            client.flush()
            await client.until(lambda: client.replies[stream].over)
        except OSError:  # h2 may refuse it, and end the connection
            pass
    text = plain.full.path.read_text("ascii")
    assert not [line for line in text.splitlines() if line.startswith("2026 200")]
    plain.full.all()  # each of them can be read


async def test_clients_that_vanish(plain: Hypercorn) -> None:
    """Tasks and descriptors are what they were, and nobody has two lines."""
    before, files = await _tasks(plain), _descriptors(plain)

    async def leave(n: int) -> None:
        async with H2Client.connect(plain) as client:
            for path in ("/wait", "/endless", "/length"):
                client.send("POST", f"{path}?left{n}", end=False)
            if n % 2:
                await client.get(f"/left{n}")
            client.abort()

    for n in range(0, 200, 20):
        await asyncio.gather(*map(leave, range(n, n + 20)))
    await _are_back(plain, before)
    await eventually(lambda: _descriptors(plain) <= files)
    came = {f"{path}?left{n}" for path in ("/wait", "/endless") for n in range(1, 200, 2)}
    await eventually(lambda: came <= {line.target for line in plain.full.all()})
    targets = [line.target for line in plain.full.all() if line.target and "left" in line.target]
    assert len(targets) == len(set(targets))


async def test_who_leaves_is_gone(server: Hypercorn, tmp_path: Path) -> None:
    """A connection that the client has closed has ended then, not at its idle timeout."""
    async with H2Client.connect(server) as client:
        await client.get("/leaves")
    session = (await server.full.one("/leaves")).session
    log = server.full.path.parent / "session.log"

    def closed() -> bool:
        events = [line.split("\t") for line in log.read_text().splitlines()]
        return any(event[1:2] == ["closed"] and session in event for event in events)

    await eventually(closed)


async def test_a_client_that_ends_its_half(plain: Hypercorn) -> None:
    """It is taken for one that has left: nothing is sent to it any more, and its line is true."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"GET /slow?half HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()
    line = await plain.full.one("/slow?half")
    assert (line.status, line.sent, line.outcome) == (None, 0, Outcome.PEER_LOST)


async def test_a_websocket_that_is_malformed(plain: Hypercorn) -> None:
    """Who breaks the protocol of WebSockets has closed nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(UPGRADE % (b"/socket?unmasked", b""))
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x01x")
        await reader.read()
    writer.close()
    line = await plain.full.one("/socket?unmasked")
    assert (line.status, line.outcome) == (101, Outcome.MALFORMED)


@pytest.mark.parametrize("ending", ["client", "application", "lost"])
async def test_websockets_over_http2(server: Hypercorn, ending: str) -> None:
    """RFC 8441: a WebSocket is a stream, with status 200 and one line at its end."""
    async with H2Client.connect(server, check=False) as client:
        stream = client.conn.get_next_available_stream_id()
        path = (b":path", f"/socket?2{ending}".encode())
        fields = [(b":protocol", b"websocket"), path, (b"sec-websocket-version", b"13")]
        client.conn.send_headers(stream, [(b":method", b"CONNECT"), *PLAIN, *fields])
        reply = client.replies[stream] = Reply()
        client.flush()
        await client.until(lambda: reply.status)
        assert reply.status == 200
        socket = Connection(ConnectionType.CLIENT)
        word = "close" if ending == "application" else "hello"
        client.conn.send_data(stream, socket.send(TextMessage(word)))
        client.flush()
        if ending == "application":
            await client.until(lambda: reply.over)
        else:
            await client.until(lambda: b"hello" in reply.body)
        if ending == "client":
            client.conn.send_data(stream, socket.send(CloseConnection(1000)))
            client.flush()
            await client.until(lambda: reply.over)
        elif ending == "lost":
            client.abort()
    line = await server.full.one(f"/socket?2{ending}")
    assert (line.status, line.version, line.request) == (200, "h2", reply.headers["x-request-id"])
    assert line.outcome is (Outcome.PEER_LOST if ending == "lost" else Outcome.COMPLETE)
    if ending != "lost":
        assert line.sent == len(reply.body)


async def _talk(server: Hypercorn, data: bytes) -> bytes:
    """Send bytes; return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


async def _tasks(server: Hypercorn) -> int:
    async with httpx.AsyncClient() as client:
        return int((await client.get(f"{server.url}/tasks")).text)


async def _are_back(server: Hypercorn, tasks: int) -> None:
    """Wait until the server has as many tasks as it had."""
    async with asyncio.timeout(PATIENCE):
        while await _tasks(server) > tasks:
            await asyncio.sleep(0.05)


def _descriptors(server: Hypercorn) -> int:
    return len(os.listdir(f"/proc/{server.popen.pid}/fd"))
