"""A WSGI application, in threads, answers through httpx and curl over HTTP/2."""

from __future__ import annotations

import os

import pytest

from tests.frameworks import facts
from tests.frameworks.served import Pool, Site
from tests.support import run

CONTENT = os.urandom(300_000)


@pytest.fixture
def flask(pool: Pool) -> Site:
    """Return Flask's application, whose interface is named."""
    return pool.site("flask", "--interface", "wsgi")


async def test_json(flask: Site) -> None:
    """JSON comes, with a number of the path in it."""
    async with flask.client() as client:
        answer = await client.get("/items/7")
        wrong = await client.get("/items/seven")
    assert (answer.http_version, answer.json()) == ("HTTP/2", {"number": 7, "double": 14})
    assert wrong.status_code == 404
    line = flask.line(answer)
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (200, "COMPLETE")
    certs = flask.server.certs
    assert certs is not None
    done = await run("curl", "-sS", "--http2", "--cacert", str(certs.ca), flask.server.url + "/")
    assert b'"world"' in done.stdout


async def test_stream(flask: Site) -> None:
    """A response that is made piece by piece comes whole."""
    async with flask.client() as client:
        answer = await client.get("/stream")
    assert answer.content.count(b"chunk") == facts.CHUNKS


async def test_upload(flask: Site) -> None:
    """A file in a form comes as it was sent."""
    async with flask.client() as client:
        answer = await client.post(
            "/upload", data={"title": "a title"}, files={"file": ("file.bin", CONTENT)}
        )
    assert answer.json() == {
        "title": "a title",
        "name": "file.bin",
        "size": len(CONTENT),
        "digest": facts.digest(CONTENT),
    }


async def test_exception(flask: Site) -> None:
    """An exception is Flask's 500."""
    async with flask.client() as client:
        answer = await client.get("/fail")
    assert answer.status_code == 500
    assert flask.line(answer)["http.response.status_code"] == 500


async def test_thread(flask: Site) -> None:
    """The application runs in a thread, and has the ids."""
    async with flask.client() as client:
        answer = await client.get("/thread")
    line = flask.line(answer)
    assert answer.json() == {
        "main_thread": False,
        "session": line["h2log.session"],
        "request": line["h2log.request"],
    }
