"""The scheme of a request is that of its connection, whatever `:scheme` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log import App, Request, Response
from h2log.server.certificates import Certificates
from tests.server.wire import DATA, HEADERS, RawClient
from tests.support import Running


@pytest.mark.parametrize("secure", [True, False])
async def test_the_connection_says_what_the_scheme_is(
    certs: Certificates, tmp_path: Path, secure: bool
) -> None:
    """For handlers and for files, in memory or not: Strict-Transport-Security is sent over TLS.

    The log has what the client sent.
    """
    (tmp_path / "page.txt").write_text("a")
    app = App()
    app.static(tmp_path, at="/files", security=True)

    @app.get("/")
    def root(request: Request) -> Response:
        return Response.text(request.scheme)

    sent = ["https", "http", "http", "https", "other", "http", "https"]
    async with (
        Running(app, certs if secure else None) as server,
        RawClient.connect(server) as client,
    ):
        for nth, scheme in enumerate(sent):
            path = b"/files/page.txt" if nth else b"/"
            client.headers(
                2 * nth + 1,
                [
                    (b":method", b"GET"),
                    (b":scheme", scheme.encode()),
                    (b":authority", b"localhost"),
                    (b":path", path),
                ],
            )
            fields = client.fields(await client.expect(HEADERS, 2 * nth + 1))
            content = (await client.expect(DATA, 2 * nth + 1)).payload
            assert fields[":status"] == "200"
            if nth:
                assert ("strict-transport-security" in fields) is secure
            else:
                assert content == (b"https" if secure else b"http")
    assert [record.facts.scheme for record in server.records] == sent
    assert [record.cache for record in server.records[1:3]] == ["miss", "hit"]
