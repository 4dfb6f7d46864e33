"""What the record counts of a response that did not come through."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from h2log import App, Request, Response
from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.server.wire import DATA, HEADERS, RST_STREAM, RawClient, frame
from tests.support import Running, eventually

WINDOW = 65_535
SIZE = 3_000_000


def large() -> App:
    """Return an application whose responses do not fit in a window."""
    app = App()

    @app.get("/whole")
    def whole(request: Request) -> Response:
        return Response(b"x" * SIZE)

    @app.get("/pieces")
    async def pieces(request: Request) -> Response:
        async def made() -> AsyncIterator[bytes]:
            for _ in range(SIZE // 100_000):
                yield b"x" * 100_000

        return Response(made())

    return app


@pytest.mark.parametrize("path", [b"/whole", b"/pieces"])
@pytest.mark.parametrize("ending", ["reset", "timeout", "lost"])
async def test_only_what_went_out_is_counted(certs: Certificates, path: bytes, ending: str) -> None:
    """A window's worth, and the time that the rest waited for another."""
    patience = 0.2 if ending == "timeout" else 60.0
    async with Running(large(), certs, stall_timeout=patience) as server:
        async with RawClient.connect(server) as client:
            client.get(1, path)
            await client.expect(HEADERS, 1)
            received = 0
            while received < WINDOW:
                received += len((await client.expect(DATA, 1)).payload)
            if ending == "reset":
                client.writer.write(frame(RST_STREAM, 0, 1, b"\0\0\0\x08"))
            elif ending == "timeout":
                await client.expect(RST_STREAM, 1)
            if ending != "lost":
                await eventually(lambda: server.records)
        await eventually(lambda: server.records)
    [record] = server.records
    outcomes = {
        "reset": Outcome.CLIENT_RESET,
        "timeout": Outcome.TIMEOUT,
        "lost": Outcome.PEER_LOST,
    }
    assert (record.outcome, record.sent) == (outcomes[ending], WINDOW)
    assert record.detail is not None
    assert record.detail.stalled > 0
    assert 0 < record.detail.first_byte_at <= record.end
