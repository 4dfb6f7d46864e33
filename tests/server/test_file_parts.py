"""A part of a large file that is open: sent without looking for the file, or waiting for anything.

What the way of all requests would answer is answered, and the log tells the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from h2log import App
from h2log.access.record import AccessRecord, Outcome
from h2log.app import static
from h2log.app.files.partial import Part
from h2log.app.static import SMALL
from h2log.server.certificates import Certificates
from h2log.server.framed import MOST_FRAMED, FrameBuffer
from tests.server.h2_client import H2Client, Reply
from tests.support import Running, eventually

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
SIZE = SMALL + 100_000
OWN = ("date", "x-request-id")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a large file in a folder of its own."""
    path = tmp_path / "site" / "large.bin"
    path.parent.mkdir()
    path.write_bytes(os.urandom(SIZE))
    return path


def site(file: Path) -> App:
    """Return an application that serves the folder of a file."""
    app = App()
    app.static(file.parent)
    return app


def told(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return all of a reply that is not its own."""
    fields = [pair for pair in reply.headers.items() if pair[0] not in OWN]
    return reply.status, fields, bytes(reply.body)


def noted(record: AccessRecord) -> tuple[object, ...]:
    """Return all of a record that is not its own."""
    response = record.response
    assert response is not None
    route = response.route or (record.detail.route if record.detail is not None else "")
    return (
        record.status, record.outcome, record.sent, record.cache, record.condition, route,
        list(response.headers), response.content_length(),
    )  # fmt: skip


def short(record: AccessRecord) -> bool:
    """Say whether a request went the short way."""
    return isinstance(record.response, Part)


@BOTH_LOOPS
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("asked", ["0-0", "70000-99999", f"{SIZE - 5}-", "-30000", "5-9999999999"])
async def test_a_part_that_is_asked_for_again_is_the_same(
    certs: Certificates, file: Path, secure: bool, asked: str
) -> None:
    """Head, content and record: of the first, which opens the file, and of those that follow."""
    first, _, last = asked.partition("-")
    content = file.read_bytes()
    wanted = content[int(first) : int(last) + 1 if last else None] if first else content[-30000:]
    async with (
        Running(site(file), certs if secure else None) as server,
        H2Client.connect(server, window=2**31 - 1) as client,
    ):
        replies = [await client.get("/large.bin", ("range", f"bytes={asked}")) for _ in range(4)]
    assert {reply.status for reply in replies} == {206}
    assert {bytes(reply.body) for reply in replies} == {wanted}
    for reply in replies[1:]:
        assert told(reply) == told(replies[0])
    records = server.records
    assert len({str(noted(record)) for record in records}) == 1
    assert [record.header_sent > 100 for record in records] == [True] * 4
    fits = len(wanted) <= MOST_FRAMED
    assert [short(record) for record in records] == [False, False, fits, fits]


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("GET", [("range", "bytes=5-9"), ("if-range", '"other"')], 200),
        ("GET", [("range", "bytes=5-9"), ("if-match", '"other"')], 412),
        ("GET", [("range", "bytes=5-9"), ("if-none-match", "*")], 304),
        ("GET", [("range", "bytes=5-9,90000-90009")], 206),
        ("GET", [("range", "bytes=5-9"), ("range", "bytes=90000-90009")], 200),
        ("GET", [("range", f"bytes={SIZE}-")], 416),
        ("GET", [("range", "bytes=-0")], 416),
        ("GET", [("range", "bytes=9-5")], 200),
        ("GET", [("range", "lines=5-9")], 200),
        ("HEAD", [("range", "bytes=5-9")], 200),
    ],
)
async def test_what_is_more_than_a_part_goes_the_way_of_all(
    certs: Certificates, file: Path, method: str, fields: list[tuple[str, str]], status: int
) -> None:
    """Conditions, several ranges, and what is no range of the file."""
    async with Running(site(file), certs) as server, H2Client.connect(server) as client:
        for _ in range(3):
            assert (await client.get("/large.bin", ("range", "bytes=0-9"))).status == 206
        for _ in range(2):
            reply = await client.request(method, "/large.bin", fields)
            assert reply.status == status
        assert (await client.get("/large.bin", ("range", "bytes=0-9"))).status == 206
    assert [short(record) for record in server.records][2:] == [True, False, False, True]


async def test_a_file_that_is_replaced_is_the_new_one(
    certs: Certificates, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a file is believed its parts are of one version, then of the new one."""
    monkeypatch.setattr(static, "CHECK_INTERVAL", 0.05)
    async with Running(site(file), certs) as server, H2Client.connect(server) as client:
        for _ in range(3):
            old = await client.get("/large.bin", ("range", "bytes=0-9"))
        other = file.with_name("other")
        other.write_bytes(b"x" * SIZE)
        other.replace(file)
        new = old
        while new.headers["etag"] == old.headers["etag"]:
            assert new.body == old.body
            new = await client.get("/large.bin", ("range", "bytes=0-9"))
        assert bytes(new.body) == b"x" * 10
        file.unlink()
        while (reply := await client.get("/large.bin", ("range", "bytes=0-9"))).status == 206:
            assert bytes(reply.body) == b"x" * 10
        assert reply.status == 404


async def test_a_file_that_became_shorter_is_not_sent_as_it_was(
    certs: Certificates, file: Path
) -> None:
    """What is missing is not made up: the stream is reset, as of any file that shrinks."""
    async with Running(site(file), certs) as server, H2Client.connect(server) as client:
        for _ in range(3):
            await client.get("/large.bin", ("range", "bytes=100-199"))
        os.truncate(file, 150)
        reply = await client.get("/large.bin", ("range", "bytes=100-199"))
    if reply.reset is None:  # the file was looked at again: a second has passed
        assert (reply.status, len(reply.body)) == (206, 50)
    else:
        assert server.records[-1].outcome is Outcome.HANDLER_ERROR


async def test_an_open_file_stays_open_while_parts_are_asked_for(
    certs: Certificates, file: Path
) -> None:
    """And is closed when nobody asks; then the next opens it again."""
    app = site(file)
    [folder] = app.folders()
    async with Running(app, certs) as server, H2Client.connect(server) as client:
        for _ in range(3):
            await client.get("/large.bin", ("range", "bytes=0-9"))
        for _ in range(3):
            folder.rest()
            assert (await client.get("/large.bin", ("range", "bytes=0-9"))).status == 206
        assert all(short(record) for record in server.records[2:])
        folder.rest()
        folder.rest()
        assert not len(folder._open)
        for _ in range(3):
            assert (await client.get("/large.bin", ("range", "bytes=0-9"))).status == 206
    assert [short(record) for record in server.records][-3:] == [False, False, True]


async def test_a_small_window_has_a_part_wait(certs: Certificates, file: Path) -> None:
    """The short way is for what goes out whole."""
    async with (
        Running(site(file), certs) as server,
        H2Client.connect(server, window=1000) as client,
    ):
        for _ in range(3):
            reply = await client.get("/large.bin", ("range", "bytes=0-4999"))
            assert bytes(reply.body) == file.read_bytes()[:5000]
        reply = await client.get("/large.bin", ("range", "bytes=0-999"))
        assert bytes(reply.body) == file.read_bytes()[:1000]
    assert [short(record) for record in server.records] == [False, False, False, True]


async def test_what_the_system_has_not_in_memory_is_waited_for(
    certs: Certificates, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread: the loop reads nothing from the disk."""
    async with Running(site(file), certs) as server, H2Client.connect(server) as client:
        for _ in range(3):
            await client.get("/large.bin", ("range", "bytes=0-4999"))
        some: Callable[..., int] = FrameBuffer.add

        def half(
            buffer: FrameBuffer, number: int, stream: int, offset: int, size: int, end: bool
        ) -> int:
            less = (size + 1) // 2
            return some(buffer, number, stream, offset, less, end and less == size)

        for had in (lambda *_, **__: 0, half):
            monkeypatch.setattr(FrameBuffer, "add", had)
            reply = await client.get("/large.bin", ("range", "bytes=0-4999"))
            assert bytes(reply.body) == file.read_bytes()[:5000]
    assert [short(record) for record in server.records] == [False, False, True, False, False]


async def test_many_parts_of_one_turn(certs: Certificates, file: Path) -> None:
    """More than one turn of the loop is for, in any order: each is right, and none is left out."""
    content = file.read_bytes()
    async with (
        Running(site(file), certs) as server,
        H2Client.connect(server, window=2**31 - 1) as client,
    ):
        await client.get("/large.bin", ("range", "bytes=0-9"))
        await client.get("/large.bin", ("range", "bytes=0-9"))
        spans = [(at, at + 4000) for at in range(0, 90 * 4000, 4000)]
        streams = [
            client.send("GET", "/large.bin", [("range", f"bytes={first}-{last}")])
            for first, last in spans
        ]
        for stream, (first, last) in zip(streams, spans, strict=True):
            reply = await client.reply(stream)
            assert bytes(reply.body) == content[first : last + 1]
        await eventually(lambda: len(server.records) == 92)
    assert server.outcomes == {"COMPLETE": 92}
