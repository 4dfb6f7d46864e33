"""Clients go away in the middle: each framework's idiom sees it, and the line says how."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.served import EVERY, Site, asked_of
from tests.server.h2_client import H2Client
from tests.support import tool

GROUPS = ("starlette", "fastapi")
Leave = Callable[[H2Client, int], None]


def key() -> str:
    """Return a name that no other test has."""
    return uuid.uuid4().hex


def reset(client: H2Client, stream_id: int) -> None:
    """Cancel the request, and keep the connection."""
    client.reset(stream_id)


def vanish(client: H2Client, stream_id: int) -> None:
    """Close the connection without a word."""
    client.abort()


WAYS = [
    pytest.param(reset, "CLIENT_RESET", id="reset"),
    pytest.param(vanish, "PEER_LOST", id="vanish"),
]


async def left(site: Site, path: str, leave: Leave) -> dict[str, Any]:
    """Ask for `path`, go away once content has come; return the line."""
    async with H2Client.connect(site.server) as client:
        stream_id = client.send("GET", path)
        await client.until(lambda: client.replies[stream_id].body)
        leave(client, stream_id)
        return await asyncio.to_thread(site.line_of, path)


@pytest.mark.parametrize(("leave", "outcome"), WAYS)
@asked_of(*EVERY)
async def test_stream_is_ended(site: Site, leave: Leave, outcome: str) -> None:
    """What makes an endless response is closed or cancelled when its client goes away."""
    name = key()
    line = await left(site, f"/endless/{name}", leave)
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (200, outcome)
    noted = await site.noted(name)
    assert noted["what"] in ("GeneratorExit", "CancelledError")
    if noted["what"] == "CancelledError":  # a generator that is collected may be so anywhere
        assert noted["request"] == line["h2log.request"]


@pytest.mark.parametrize(("leave", "outcome"), WAYS)
@asked_of(*GROUPS)
async def test_is_disconnected(site: Site, leave: Leave, outcome: str) -> None:
    """`request.is_disconnected` says so to code that sends nothing meanwhile."""
    name = key()
    line = await left(site, f"/polled/{name}", leave)
    assert line["h2log.outcome"] == outcome
    noted = await site.noted(name)
    assert (noted["what"], noted["request"]) == ("is_disconnected", line["h2log.request"])


@pytest.mark.parametrize(("leave", "outcome"), WAYS)
@asked_of(*GROUPS)
async def test_task_group(site: Site, leave: Leave, outcome: str) -> None:
    """A task group of anyio, one of whose tasks listens for the client, is cancelled."""
    name = key()
    line = await left(site, f"/group/{name}", leave)
    assert line["h2log.outcome"] == outcome
    noted = await site.noted(name)
    assert (noted["what"], noted["request"]) == ("cancelled", line["h2log.request"])


@pytest.mark.parametrize(("leave", "outcome"), WAYS)
@asked_of("starlette")
async def test_middleware(site: Site, leave: Leave, outcome: str) -> None:
    """Both get through Starlette's BaseHTTPMiddleware, which has a task group around them."""
    endings = {"endless": ("GeneratorExit", "CancelledError"), "group": ("cancelled",)}
    for path, endings_of_path in endings.items():
        name = key()
        line = await left(site, f"/surrounded/{path}/{name}", leave)
        assert line["h2log.outcome"] == outcome
        assert (await site.noted(name))["what"] in endings_of_path
    async with site.client() as client:
        assert (await client.get("/surrounded/")).headers["x-surrounded"] == "yes"


@asked_of(*EVERY)
async def test_curl_is_killed(site: Site) -> None:
    """The same over HTTP/1.1, by a curl that is killed."""
    name = key()
    certs = site.server.certs
    assert certs is not None
    curl = await asyncio.create_subprocess_exec(
        tool("curl"), "-sSN", "--http1.1", "--cacert", str(certs.ca),
        f"{site.server.url}/endless/{name}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert curl.stdout is not None
        assert await curl.stdout.readline() == b"tick\n"
    finally:
        curl.kill()
        await curl.communicate()
    line = await asyncio.to_thread(site.line_of, f"/endless/{name}")
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (200, "PEER_LOST")
    assert line["network.protocol.version"] == "1.1"
    assert (await site.noted(name))["what"] in ("GeneratorExit", "CancelledError")


@pytest.mark.parametrize(("leave", "outcome"), WAYS)
@asked_of(*EVERY)
async def test_upload_is_left(site: Site, leave: Leave, outcome: str) -> None:
    """A client that goes away in the middle of an upload has its one line, with what came of it."""
    name = key()
    boundary = "limit"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    )
    fields = [
        ("content-type", f"multipart/form-data; boundary={boundary}"),
        ("content-length", "100000"),
    ]
    path = f"/upload?{name}"
    body = head.encode() + bytes(20_000)
    async with H2Client.connect(site.server) as client:
        stream_id = client.send("POST", path, fields, end=False)
        await client.send_body(stream_id, body, end=False)
        # The connection is ours alone: an answer behind it says that all of it has arrived.
        assert (await client.get("/")).status == 200
        leave(client, stream_id)
        line = await asyncio.to_thread(site.line_with, "url.query", name)
    assert line["h2log.outcome"] == outcome
    assert line["http.request.body.size"] == len(body)
    assert "http.response.status_code" not in line
    async with site.client() as other:
        assert (await other.get("/")).status_code == 200
