"""Applications of frameworks answer httpx and curl over HTTP/2, and each request has its line."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.frameworks import facts
from tests.frameworks.served import EVERY, Site, asked_of
from tests.support import poll, run

CONTENT = os.urandom(300_000)
CHUNKS = b"".join(b"chunk %d\n" % number for number in range(facts.CHUNKS))
WITH_BACKGROUND = ("starlette", "fastapi", "quart", "litestar")
WITH_LIFESPAN = ("starlette", "fastapi", "quart", "litestar")

# A framework that answers for an exception itself, and keeps it to itself, leaves the server
# nothing to see but a response.
RAISES = {
    "starlette": "HANDLER_ERROR",
    "fastapi": "HANDLER_ERROR",
    "django": "COMPLETE",
    "quart": "COMPLETE",
    "litestar": "COMPLETE",
}


def key() -> str:
    """Return a name that no other test has."""
    return uuid.uuid4().hex


async def curl(site: Site, path: str, *arguments: str) -> bytes:
    """Ask by curl over HTTP/2; return the content."""
    certs = site.server.certs
    assert certs is not None
    done = await run(
        "curl", "-sS", "--fail", "--http2", "--cacert", str(certs.ca),
        "-w", "%{stderr}%{http_version}", *arguments, f"{site.server.url}{path}",
    )  # fmt: skip
    assert (done.code, done.stderr) == (0, "2"), done
    return done.stdout


@asked_of(*EVERY)
async def test_json(site: Site) -> None:
    """JSON comes over HTTP/2, and its line says so."""
    async with site.client() as client:
        answer = await client.get("/?n=1")
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert answer.json() == {"hello": "world"}
    line = site.line(answer)
    assert line["http.response.status_code"] == 200
    assert line["h2log.outcome"] == "COMPLETE"
    assert (line["url.path"], line["url.query"]) == ("/", "n=1")
    assert line["network.protocol.version"] == "2"
    assert line["http.response.body.size"] == len(answer.content)
    assert json.loads(await curl(site, "/")) == {"hello": "world"}


@asked_of(*EVERY)
async def test_path_parameters(site: Site) -> None:
    """A number in the path comes as a number; what is none is the framework's 4xx."""
    async with site.client() as client:
        answer = await client.get("/items/7")
        wrong = await client.get("/items/seven")
    assert answer.json() == {"number": 7, "double": 14}
    assert wrong.status_code == (422 if site.name == "fastapi" else 404)
    assert site.line(wrong)["http.response.status_code"] == wrong.status_code
    assert json.loads(await curl(site, "/items/8")) == {"number": 8, "double": 16}


@asked_of(*EVERY)
async def test_head(site: Site) -> None:
    """HEAD has no content, over HTTP/2 as over HTTP/1.1, whatever the framework sends."""
    async with site.client() as client:
        answer = await client.head("/")
    assert answer.content == b""
    line = site.line(answer)
    assert (line["h2log.outcome"], "http.response.body.size" in line) == ("COMPLETE", False)
    assert b"hello" not in await curl(site, "/", "--head", "--no-fail")


@asked_of(*EVERY)
async def test_stream(site: Site) -> None:
    """A response that is made piece by piece comes whole, and all of it is counted."""
    async with site.client() as client, client.stream("GET", "/stream") as answer:
        assert "content-length" not in answer.headers
        content = await answer.aread()
    assert content == CHUNKS
    line = site.line(answer)
    assert line["http.response.body.size"] == len(CHUNKS)
    assert line["h2log.outcome"] == "COMPLETE"
    assert await curl(site, "/stream", "--no-buffer") == CHUNKS


@asked_of(*EVERY)
async def test_upload(site: Site, tmp_path: Path) -> None:
    """A file in a form comes as it was sent, and the bytes received are counted."""
    wanted = {
        "title": "a title",
        "name": "file.bin",
        "size": len(CONTENT),
        "digest": facts.digest(CONTENT),
    }
    async with site.client() as client:
        answer = await client.post(
            "/upload", data={"title": "a title"}, files={"file": ("file.bin", CONTENT)}
        )
    assert answer.json() == wanted
    received = int(answer.request.headers["content-length"])
    assert site.line(answer)["http.request.body.size"] == received
    file = tmp_path / "file.bin"
    file.write_bytes(CONTENT)
    form = ("-F", "title=a title", "-F", f"file=@{file}")
    assert json.loads(await curl(site, "/upload", *form)) == wanted


@asked_of(*EVERY)
async def test_events(site: Site) -> None:
    """Server-sent events come, each with its name and its data."""
    async with site.client() as client, client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = await answer.aread()
    for content in (text, await curl(site, "/events", "--no-buffer")):
        lines = content.decode().replace("\r\n", "\n")
        blocks = [block for block in lines.split("\n\n") if block.strip()]
        events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        assert events == [{"event": "count", "data": str(number)} for number in range(3)]
    assert site.line(answer)["h2log.outcome"] == "COMPLETE"


@asked_of(*WITH_BACKGROUND)
async def test_background(site: Site) -> None:
    """A background task runs after the response was sent, and carries its request's ids."""
    name = key()
    async with site.client() as client:
        answer = await client.post(f"/background/{name}")
        assert (answer.status_code, answer.json()) == (202, {"accepted": True})
        line = site.line(answer)  # the request has ended, and the task waits
        assert line["h2log.outcome"] == "COMPLETE"
        assert (await client.get(f"/noted/{name}")).json() == {"what": ""}
        assert (await client.post(f"/release/{name}")).status_code == 204
    assert await site.noted(name) == {
        "what": "background",
        "session": line["h2log.session"],
        "request": line["h2log.request"],
    }


@asked_of(*WITH_LIFESPAN)
async def test_lifespan_state(site: Site) -> None:
    """What the application has kept at its start, its requests find."""
    async with site.client() as client:
        assert (await client.get("/started")).json() == {"started": facts.STARTED}


@asked_of(*EVERY)
async def test_exception(site: Site) -> None:
    """An exception is a 500; the line says HANDLER_ERROR where the framework lets it through."""
    async with site.client() as client:
        answer = await client.get("/fail")
        again = await client.get("/")
    assert (answer.status_code, again.status_code) == (500, 200)
    line = site.line(answer)
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (500, RAISES[site.name])
    assert line["h2log.session"] == site.line(again)["h2log.session"]


@asked_of(*EVERY)
async def test_exception_in_stream(site: Site) -> None:
    """An exception in the middle of a response ends the stream alone, as no whole response does."""
    async with site.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/broken")
        again = await client.get("/")
    assert again.status_code == 200
    line = site.line_of("/broken")
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (200, "HANDLER_ERROR")
    assert line["h2log.session"] == site.line(again)["h2log.session"]


@asked_of(*EVERY)
async def test_place(site: Site) -> None:
    """An application sees asyncio, a task of its own, and the ids that its line has."""
    async with site.client() as client:
        first = await client.get("/place")
        second = await client.get("/place")
    for answer in (first, second):
        line = site.line(answer)
        found: dict[str, Any] = answer.json()
        ids = (line["h2log.session"], line["h2log.request"])
        assert found["sniffio"] == "asyncio"
        assert found["anyio"] == found["task"]
        assert found["main_thread"]
        assert (found["session"], found["request"]) == ids
        extension = found["extension"]
        assert (extension["session_id"], extension["request_id"]) == ids
        assert extension["stream_id"] == line["h2log.stream"]
        assert (found["http_version"], found["spec_version"]) == ("2", "2.5")


@asked_of(*EVERY)
async def test_thread(site: Site) -> None:
    """A handler that runs in a thread has the ids as well."""
    async with site.client() as client:
        answer = await client.get("/thread")
    line = site.line(answer)
    assert answer.json() == {
        "main_thread": False,
        "session": line["h2log.session"],
        "request": line["h2log.request"],
    }


@asked_of("fastapi")
async def test_route(site: Site) -> None:
    """The line has the pattern of the route, where the framework tells it."""
    async with site.client() as client:
        answer = await client.get("/items/9")
    assert site.line(answer)["http.route"] == "/items/{number}"


@asked_of(*WITH_LIFESPAN)
def test_stop(site: Site) -> None:
    """A stop lets the application end its lifespan; the exit code is 0."""
    assert site.server.stop() == 0
    poll(lambda: facts.STOPPED in site.server.stdout.lines)
