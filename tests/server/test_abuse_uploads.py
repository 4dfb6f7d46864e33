"""Content over the limit: refused, the client told to stop, and no window lost by it."""

from __future__ import annotations

import asyncio
import struct

import pytest

from h2log.server.certificates import Certificates
from tests.server.abuse import ARTICLE, Scene, scene
from tests.server.wire import DATA, END_STREAM, HEADERS, RST_STREAM, WINDOW_UPDATE, RawClient

POST = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/upload"),
]
LIMIT = 20_000
PIECE = bytes(8000)
DECLARED = (b"content-length", b"1000000")
KINDS = pytest.mark.parametrize("fields", [[*POST, DECLARED], POST], ids=["declared", "streamed"])


def granted(client: RawClient) -> int:
    """Return the bytes of content that the server has let the connection send so far."""
    updates = [f for f in client.seen if f.kind == WINDOW_UPDATE and f.stream == 0]
    return 65_535 + sum(int.from_bytes(f.payload, "big") for f in updates)


async def greeted(found: Scene, client: RawClient) -> None:
    """Read the windows that the server opens at its start; open ours."""
    client.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
    await client.expect(WINDOW_UPDATE, 0)
    assert granted(client) == found.server.shared.limits.connection_window


@KINDS
async def test_a_client_that_goes_on_sending_is_told_to_stop(
    certs: Certificates, fields: list[tuple[bytes, bytes]]
) -> None:
    """413, and RST_STREAM(NO_ERROR) a second later; what is sent until then is thrown away."""
    async with scene(certs, max_body_bytes=LIMIT) as found:
        async with RawClient.connect(found.server) as client:
            await greeted(found, client)
            client.headers(1, fields, end=False)
            for _ in range(3):
                client.send(DATA, 0, 1, PIECE)
            head = await client.expect(HEADERS, 1)
            assert client.fields(head)[":status"] == "413"
            began = asyncio.get_running_loop().time()
            stop = asyncio.create_task(client.expect(RST_STREAM, 1))
            while not stop.done():
                client.send(DATA, 0, 1, b"more and more")
                await asyncio.sleep(0.01)  # the pace of the upload
            waited = asyncio.get_running_loop().time() - began
            assert stop.result().code == 0
            assert 0.4 < waited < 3
            client.send(DATA, 0, 1, b"on its way already")
            client.get(3, ARTICLE)
            assert client.fields(await client.expect(HEADERS, 3))[":status"] == "200"
        await found.peace()
        assert [record.status for record in found.attacked] == [413, 200]
        assert found.outcomes == {"COMPLETE": 2}


@KINDS
@pytest.mark.parametrize("end", [True, False], ids=["ended", "reset"])
async def test_a_thousand_refused_uploads_leak_no_window(
    certs: Certificates, fields: list[tuple[bytes, bytes]], end: bool
) -> None:
    """Each is more than the limit; all of them are eight times the connection's window."""
    async with scene(certs, max_body_bytes=LIMIT // 5) as found:
        window = found.server.shared.limits.connection_window
        async with RawClient.connect(found.server) as client:
            await greeted(found, client)
            sent = 0
            for batch in range(0, 1000, 20):
                streams = [1 + 2 * (batch + n) for n in range(20)]
                for stream in streams:
                    client.headers(stream, fields, end=False)
                    client.send(DATA, END_STREAM if end else 0, stream, PIECE)
                    sent += len(PIECE)
                for stream in streams:
                    head = next(
                        (f for f in client.seen if f.kind == HEADERS and f.stream == stream), None
                    )
                    head = head or await client.expect(HEADERS, stream)
                    assert client.fields(head)[":status"] == "413"
                    if not end:
                        client.send(RST_STREAM, 0, stream, struct.pack(">I", 8))
                client.seen = [f for f in client.seen if f.kind == WINDOW_UPDATE]
                assert granted(client) - sent > 0
            client.headers(2001, POST, end=False)
            client.send(DATA, END_STREAM, 2001, b"abc")
            assert client.fields(await client.expect(HEADERS, 2001))[":status"] == "200"
            sent += 3
            assert sent > 7 * window
            left = granted(client) - sent
            assert window // 2 < left <= window
        await found.peace()
        assert found.outcomes["COMPLETE"] == 1001
        assert [record.status for record in found.attacked] == [413] * 1000 + [200]


async def test_unread_content_is_given_back_when_a_stream_is_reset(certs: Certificates) -> None:
    """Uploads that are reset before any handler read them return what they took."""
    async with scene(certs) as found:
        window = found.server.shared.limits.connection_window
        wait = [(b":method", b"GET"), *POST[1:3], (b":path", b"/wait")]
        async with RawClient.connect(found.server) as client:
            await greeted(found, client)
            sent = 0
            for n in range(500):
                client.headers(1 + 2 * n, wait, end=False)
                client.send(DATA, 0, 1 + 2 * n, PIECE)
                client.send(RST_STREAM, 0, 1 + 2 * n, struct.pack(">I", 8))
                sent += len(PIECE)
                while granted(client) - sent < len(PIECE):
                    await client.expect(WINDOW_UPDATE, 0)
            client.get(2001, ARTICLE)
            await client.expect(HEADERS, 2001)
            assert window // 2 < granted(client) - sent <= window
        await found.peace()
        assert found.outcomes == {"CLIENT_RESET": 500, "COMPLETE": 1}
