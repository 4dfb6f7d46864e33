"""Files that are read as they are sent: whole, in order, and never all in memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from h2log import App
from h2log.access.record import Outcome
from h2log.app.static import SMALL
from h2log.server import delivery, framed
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client, RawClient
from tests.support import Running, eventually, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
SIZES = [0, 1, 16_384, 16_385, SMALL - 1, SMALL, SMALL + 1, 3_000_001]
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each size, and a large one."""
    root = tmp_path_factory.mktemp("files")
    for size in SIZES:
        (root / f"{size}.bin").write_bytes(os.urandom(size))
    (root / "large.bin").write_bytes(os.urandom(MEGABYTE) * 24)
    return root


def site(folder: Path) -> App:
    """Return an application that serves the folder."""
    app = App()
    app.static(folder)
    return app


def digest(data: bytes) -> str:
    """Return what is compared instead of megabytes."""
    return hashlib.sha256(data).hexdigest()


def open_files(folder: Path) -> list[str]:
    """Return which files of the folder this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(str(folder))]


@BOTH_LOOPS
@pytest.mark.parametrize("secure", [True, False])
async def test_every_size_arrives_whole(certs: Certificates, folder: Path, secure: bool) -> None:
    """Around each border of chunk and cache, twice, over both protocols, TLS and cleartext."""
    async with (
        Running(site(folder), certs if secure else None) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for size in SIZES * 2:
            wanted = digest((folder / f"{size}.bin").read_bytes())
            reply = await two.get(f"/{size}.bin")
            assert (reply.status, digest(bytes(reply.body))) == (200, wanted), size
            assert reply.headers["content-length"] == str(size)
            answer = await one.get(f"/{size}.bin")
            assert (answer.status, digest(answer.body)) == (200, wanted), size
    assert [record.sent for record in server.records] == [s for s in SIZES * 2 for _ in range(2)]
    assert server.outcomes == {"COMPLETE": 4 * len(SIZES)}


@pytest.mark.parametrize("cold", [False, True])
async def test_many_large_files_at_once_on_one_connection(
    certs: Certificates, folder: Path, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    """Streams share connection and file: each is whole, and little is held, and opened once.

    Nothing is held of what the system has in memory.
    """
    if cold:
        monkeypatch.setattr(framed, "_NO_WAIT", None)
        monkeypatch.setattr(delivery, "_NO_WAIT", None)
    wanted = digest((folder / "3000001.bin").read_bytes())
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        streams = [client.send("GET", "/3000001.bin") for _ in range(12)]
        leg = await server.leg()
        most = 0
        opened: set[int] = set()

        def over() -> bool:
            nonlocal most
            most = max(most, leg._held)
            opened.add(len(open_files(folder)))
            return all(client.replies[stream].over for stream in streams)

        await client.until(over, 30)
        assert {digest(bytes(client.replies[s].body)) for s in streams} == {wanted}
        assert bool(most) == cold
        assert most <= MEGABYTE
        assert leg._held == 0
        assert max(opened) == 1


@BOTH_LOOPS
async def test_many_parts_of_a_large_file(certs: Certificates, folder: Path) -> None:
    """Read as they are sent: each part is right, and little is held while the client waits."""
    content = (folder / "large.bin").read_bytes()
    step = MEGABYTE // 4
    spans = [(at, at + step - 1000) for at in range(0, len(content), step)]
    asked = "bytes=" + ",".join(f"{first}-{last}" for first, last in spans)
    async with (
        Running(site(folder), certs) as server,
        H2Client.connect(server, credit=False) as client,
    ):
        stream = client.send("GET", "/large.bin", [("range", asked)])
        await client.until(lambda: len(client.replies[stream].body) == 65535)
        leg = await server.leg()
        assert leg._conn.queued + leg._held <= MEGABYTE
        client.conn.increment_flow_control_window(2**31 - 1 - 65535)
        client.conn.increment_flow_control_window(2**31 - 1 - 65535, stream)
        client.flush()
        reply = await client.reply(stream, 30)
        assert reply.status == 206
        assert len(reply.body) == int(reply.headers["content-length"])
        boundary = reply.headers["content-type"].partition("boundary=")[2].encode()
        parts = bytes(reply.body).split(b"--" + boundary)[1:-1]
        assert len(parts) == len(spans)
        for part, (first, last) in zip(parts, spans, strict=True):
            head, _, body = part.partition(b"\r\n\r\n")
            assert f"content-range: bytes {first}-{last}/{len(content)}".encode() in head
            assert digest(body[:-2]) == digest(content[first : last + 1])
        # One that is given up in the middle leaves no file open.
        stream = client.send("GET", "/large.bin", [("range", asked)])
        await client.until(lambda: bool(client.replies[stream].body))
        client.reset(stream)
        await server.logged(2)
        await eventually(lambda: not open_files(folder))
    assert server.outcomes == {"COMPLETE": 1, "CLIENT_RESET": 1}


async def test_curl_nghttp_get_a_large_file(
    certs: Certificates, folder: Path, tmp_path: Path
) -> None:
    """24 MiB through two more clients, the same to the last bit."""
    wanted = digest((folder / "large.bin").read_bytes())
    async with Running(site(folder), certs) as server:
        for arguments in (["--http2"], ["--http1.1"]):
            out = tmp_path / arguments[0]
            done = await run(
                "curl", "-sS", "--cacert", str(certs.ca), *arguments, "-o", str(out),
                f"{server.url}/large.bin",
            )  # fmt: skip
            assert done.code == 0, done.stderr
            assert digest(out.read_bytes()) == wanted
        done = await run("nghttp", f"{server.url}/large.bin")
        assert digest(done.stdout) == wanted


@BOTH_LOOPS
@pytest.mark.parametrize("protocol", ["h2", "1.1"])
async def test_a_client_that_stops_reading_holds_little(
    certs: Certificates, folder: Path, protocol: str
) -> None:
    """Of a large file no more than a megabyte is held; when it reads on, it gets all of it."""
    wanted = digest((folder / "large.bin").read_bytes())
    async with Running(site(folder), certs) as server:
        if protocol == "h2":
            window = 2**31 - 1
            async with RawClient.connect(server, {4: window}) as client:
                client.send(8, 0, 0, (window - 65535).to_bytes(4, "big"))
                for stream in range(1, 21, 2):
                    client.get(stream, b"/large.bin")
                leg = await server.leg()
                transport = leg._transport
                assert transport is not None
                await eventually(lambda: leg._conn.blocked)
                assert leg._held + leg._conn.queued <= 2 * MEGABYTE
                assert leg._held <= MEGABYTE
                assert transport.get_write_buffer_size() <= MEGABYTE
                content = {stream: hashlib.sha256() for stream in range(1, 21, 2)}
                left = set(content)
                while left:
                    frame = await client.read()
                    if frame.kind == 0:
                        content[frame.stream].update(frame.payload)
                        if frame.flags & 1:
                            left.discard(frame.stream)
                    assert leg._held <= MEGABYTE
                assert {found.hexdigest() for found in content.values()} == {wanted}
        else:
            async with Http1Client.connect(server) as one:
                one.send(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
                await eventually(lambda: server.shared.legs)
                [http1_leg] = server.shared.legs
                await eventually(lambda: getattr(http1_leg, "full", False))
                transport = getattr(http1_leg, "_transport", None)
                assert isinstance(transport, asyncio.Transport) or transport is not None
                assert transport.get_write_buffer_size() <= MEGABYTE
                assert digest((await one.answer()).body) == wanted
    assert set(server.outcomes) == {"COMPLETE"}


async def test_a_client_that_never_reads_on_is_given_up(certs: Certificates, folder: Path) -> None:
    """After `stall_timeout` the connection is closed, the requests are TIMEOUT, no file is open."""
    async with (
        Running(site(folder), certs, stall_timeout=0.3) as server,
        RawClient.connect(server, {4: 2**31 - 1}) as two,
        Http1Client.connect(server) as one,
    ):
        two.send(8, 0, 0, (2**31 - 1 - 65535).to_bytes(4, "big"))
        two.get(1, b"/large.bin")
        two.get(3, b"/large.bin")
        one.send(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: open_files(folder))
        await server.logged(3)
        two.writer.transport.abort()
        one.writer.transport.abort()
    assert server.outcomes == {"TIMEOUT": 3}
    assert {record.status for record in server.records} == {200}
    await eventually(lambda: not open_files(folder))


async def test_files_are_closed_when_their_clients_reset(certs: Certificates, folder: Path) -> None:
    """A reset in the middle of a large file ends its reading and leaves no descriptor open."""
    async with Running(site(folder), certs) as server, H2Client.connect(server) as client:
        await client.get("/1.bin")
        for _ in range(10):
            streams = [client.send("GET", "/large.bin") for _ in range(5)]
            await client.until(lambda s=streams: any(client.replies[i].body for i in s))  # type: ignore[misc]
            for stream in streams:
                client.reset(stream)
        await server.logged(51)
        await eventually(lambda: not open_files(folder))
        leg = await server.leg()
        assert leg._held == 0
    assert server.outcomes == {"COMPLETE": 1, "CLIENT_RESET": 50}


async def test_a_file_that_shrinks_while_it_is_sent_is_cut_off(
    certs: Certificates, tmp_path: Path
) -> None:
    """The client sees that it is not whole; the request is HANDLER_ERROR."""
    path = tmp_path / "shrinking.bin"
    path.write_bytes(bytes(4 * MEGABYTE))
    async with (
        Running(site(tmp_path), certs) as server,
        H2Client.connect(server, credit=False) as client,
    ):
        stream = client.send("GET", "/shrinking.bin")
        await client.until(lambda: len(client.replies[stream].body) == 65535)
        os.truncate(path, 100_000)
        client.conn.increment_flow_control_window(8 * MEGABYTE)
        client.conn.increment_flow_control_window(8 * MEGABYTE, stream)
        client.flush()
        reply = await client.reply(stream)
        assert (reply.ended, reply.reset) == (False, 2)
    [record] = server.records
    assert record.outcome is Outcome.HANDLER_ERROR


async def test_a_small_file_waits_for_a_small_window(certs: Certificates, folder: Path) -> None:
    """Content is sent as the client's windows allow, a byte at a time if it must be."""
    wanted = (folder / "16385.bin").read_bytes()
    async with Running(site(folder), certs) as server:
        await warm(server, "/16385.bin")
        async with H2Client.connect(server, window=1000) as client:
            reply = await client.get("/16385.bin")
            assert bytes(reply.body) == wanted
    assert server.outcomes == {"COMPLETE": 2}


async def warm(server: Running, path: str) -> None:
    """Bring a file into memory."""
    async with H2Client.connect(server) as client:
        with contextlib.suppress(ConnectionError):
            await client.get(path)
