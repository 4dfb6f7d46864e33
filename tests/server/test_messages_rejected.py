"""Uploads that are answered before they are read: what they cost the connection is nothing."""

from __future__ import annotations

import hashlib
import os

import pytest

from h2log import App, HTTPError, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.support import Running

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
LIMIT = 3_000_000
PIECE = 20_000


def application() -> App:
    """Return an application that wants a password, or takes what is not too large."""
    app = App()

    @app.post("/secret")
    def secret(request: Request) -> Response:
        raise HTTPError(401, headers=(("www-authenticate", 'Basic realm="x"'),))

    @app.post("/later")
    async def later(request: Request) -> Response:
        raise HTTPError(401, headers=(("www-authenticate", 'Basic realm="x"'),))

    @app.post("/digest")
    async def digest(request: Request) -> Response:
        found = hashlib.sha256()
        async for piece in request:
            found.update(piece)
        return Response.text(found.hexdigest())

    return app


async def send(client: H2Client, stream: int, size: int, *, end: bool = False) -> None:
    """Send content, whether or not the stream has its response."""
    while client.conn.local_flow_control_window(stream) < size:
        await client.read()
    for at in range(0, size, 10_000):
        client.conn.send_data(stream, bytes(10_000), end_stream=end and at + 10_000 == size)
    client.flush()


@BOTH_LOOPS
@pytest.mark.parametrize("end", ["whole", "cut", "left"])
async def test_a_thousand_rejected_uploads_leak_no_window(certs: Certificates, end: str) -> None:
    """413 by its length, 401 by a plain and an async handler, with 20 KB of each on its way.

    Whether the client then sends the rest, resets the stream or leaves it as it is: 1,000 of them,
    twenty times the connection's window, and the whole window is still there, on both sides; a
    large upload goes through it.
    """
    async with (
        Running(application(), certs, max_body_bytes=LIMIT, max_streams=300) as server,
        H2Client.connect(server) as two,
    ):
        await two.until(lambda: two.conn.remote_settings.max_concurrent_streams == 300)
        for n in range(1000):
            path, status = (("/digest", 413), ("/secret", 401), ("/later", 401))[n % 3]
            size = LIMIT + 1 if status == 413 else 2 * PIECE
            # The server ends what is left open when it is more than a hundred.
            await two.until(lambda: two.conn.open_outbound_streams < 200)
            stream = two.send("POST", path, [("content-length", str(size))], end=False)
            # On its way whether or not the answer is: the client has not looked.
            await send(two, stream, PIECE)
            reply = await two.reply(stream)
            assert reply.status == status
            if end == "whole" and status == 401 and reply.reset is None:
                await send(two, stream, PIECE, end=True)
            elif end == "cut" and reply.reset is None:
                two.reset(stream)
        body = os.urandom(2_500_000)
        reply = await two.request("POST", "/digest", body=body)
        assert bytes(reply.body).decode() == hashlib.sha256(body).hexdigest()
        conn = (await server.leg())._conn
        window = server.shared.limits.connection_window
        assert conn.receive_window + conn._uncredited == window
        assert two.conn.outbound_flow_control_window == conn.receive_window
        assert conn.error is None
    assert server.outcomes == {"COMPLETE": 1001}
    assert len(server.sessions) == 1
    statuses = [record.status for record in server.records]
    assert (statuses.count(413), statuses.count(401), statuses.count(200)) == (334, 666, 1)


async def test_a_handler_that_reads_a_part_and_refuses(certs: Certificates) -> None:
    """What it has read and what it has not are both given back, a hundred times over."""
    app = application()

    @app.post("/part")
    async def part(request: Request) -> Response:
        async for _ in request:
            break
        raise HTTPError(401)

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        for _ in range(100):
            stream = two.send("POST", "/part", end=False)
            await two.send_body(stream, bytes(100_000), end=False)
            assert (await two.reply(stream)).status == 401
            if two.replies[stream].reset is None:
                two.reset(stream)
        body = os.urandom(2_000_000)
        reply = await two.request("POST", "/digest", body=body)
        assert bytes(reply.body).decode() == hashlib.sha256(body).hexdigest()
        conn = (await server.leg())._conn
        window = server.shared.limits.connection_window
        assert conn.receive_window + conn._uncredited == window
