"""What a connection had is free when it has gone: nothing waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.http2.connection import Connection
from h2log.server.certificates import Certificates
from h2log.server.http2_leg import Http2Leg
from tests.server.wire import HEADERS, RawClient
from tests.support import Running, eventually


@pytest.fixture
def app() -> App:
    """An application that answers at once, and later."""
    made = App()

    @made.get("/")
    def index(request: Request) -> Response:
        return Response.text("now")

    @made.get("/later")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.text("later")

    return made


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The collector has done its work, and does no more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(*kinds: type) -> int:
    """Return how many objects of some kinds there are, also such as nobody can reach."""
    return sum(isinstance(found, kinds) for found in gc.get_objects())


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("path", [b"/", b"/later"])
async def test_a_connection_is_freed(
    app: App, certs: Certificates, secure: bool, path: bytes
) -> None:
    """Its leg and its engine, and with them the transport: TLS has a quarter of a MiB for each."""
    async with Running(app, certs if secure else None) as server:
        before = alive(Http2Leg, Connection)
        for _ in range(5):
            async with RawClient.connect(server) as client:
                client.get(1, path)
                await client.expect(HEADERS, 1)
        await eventually(lambda: not server.shared.connections)
        await eventually(lambda: alive(Http2Leg, Connection) <= before)
