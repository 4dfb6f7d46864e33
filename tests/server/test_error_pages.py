"""A failure of a handler, as a person and as a program see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log import App, HTTPError, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.support import Running

PAGE = "<h1>Something broke</h1>"
BROWSER = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8")


def build(folder: Path) -> App:
    """Return an application with a page for failures, and handlers that fail."""
    (folder / "50x.html").write_text(PAGE)
    (folder / "index.html").write_text("home")
    app = App()
    app.static(folder)

    @app.get("/now")
    def now(request: Request) -> Response:
        raise ValueError("mistake")

    @app.get("/later")
    async def later(request: Request) -> Response:
        raise ValueError("mistake")

    @app.get("/busy")
    async def busy(request: Request) -> Response:
        raise HTTPError(503, "busy", (("retry-after", "5"),))

    @app.get("/absent")
    async def absent(request: Request) -> Response:
        raise HTTPError(404, "no such thing")

    return app


@pytest.mark.parametrize("path", ["/now", "/later"])
async def test_a_person_sees_the_page_of_the_site(
    certs: Certificates, tmp_path: Path, path: str
) -> None:
    """The status stays, the id is in the response's header, and the line says HANDLER_ERROR."""
    async with Running(build(tmp_path), certs) as server, H2Client.connect(server) as client:
        reply = await client.get(path, BROWSER)
        assert (reply.status, bytes(reply.body).decode()) == (500, PAGE)
        assert reply.headers["content-type"].startswith("text/html")
        [record] = server.records
        assert reply.headers["x-request-id"] == record.id
    assert server.outcomes == {"HANDLER_ERROR": 1}


async def test_a_program_sees_text(certs: Certificates, tmp_path: Path) -> None:
    """With the id in it, as without a page."""
    async with Running(build(tmp_path), certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/now")
        assert reply.status == 500
        assert server.records[0].id.encode() in reply.body


async def test_fields_of_the_error_stay(certs: Certificates, tmp_path: Path) -> None:
    """A page for a 503 says when to come again."""
    async with Running(build(tmp_path), certs) as server, H2Client.connect(server) as client:
        reply = await client.get("/busy", BROWSER)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert bytes(reply.body).decode() == PAGE


async def test_what_the_application_says_is_its_own(certs: Certificates, tmp_path: Path) -> None:
    """A 404 that a handler raised keeps its text; without a page a failure does too."""
    async with Running(build(tmp_path), certs) as server, H2Client.connect(server) as client:
        assert b"no such thing" in (await client.get("/absent", BROWSER)).body
        (tmp_path / "50x.html").unlink()
        failed = await client.get("/now", BROWSER)
        assert failed.status == 500


async def test_a_secret_in_the_path_is_not_in_the_message(
    certs: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the application's log tells of a failure has secrets masked as the access log has."""
    async with Running(build(tmp_path), certs) as server, H2Client.connect(server) as client:
        await client.get("/now?token=s3cret&page=2")
    assert "token=REDACTED&page=2" in caplog.text
    assert "s3cret" not in caplog.text
