"""WebSockets of frameworks, over HTTP/1.1 by `websockets` and over HTTP/2 (RFC 8441) by `h2`."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.frameworks.served import Site, asked_of
from tests.server.websocket_client import CLOSE, TEXT, open_websocket
from tests.support import client_context

# Django has none of its own.
WITH_WEBSOCKETS = ("starlette", "fastapi", "quart", "litestar")


def key() -> str:
    """Return a name that no other test has."""
    return uuid.uuid4().hex


def opened(site: Site, name: str, **options: Any) -> connect:
    """Return a WebSocket of `websockets`, to be opened."""
    assert site.server.certs is not None
    url = f"wss://127.0.0.1:{site.server.port}/chat/{name}"
    context = client_context(site.server.certs, "http/1.1")
    return connect(url, ssl=context, proxy=None, **options)


async def line_of(site: Site, name: str) -> dict[str, Any]:
    """Wait for the one line of a WebSocket."""
    return await asyncio.to_thread(site.line_of, f"/chat/{name}")


async def said(websocket: ClientConnection, text: str) -> dict[str, Any]:
    """Say something; return the answer."""
    await websocket.send(text)
    answer: dict[str, Any] = json.loads(await websocket.recv())
    return answer


@asked_of(*WITH_WEBSOCKETS)
async def test_http1(site: Site) -> None:
    """Messages go both ways, the ids are those of the one line, which is written at the end."""
    name = key()
    async with opened(site, name, subprotocols=["other", "chat"]) as websocket:
        assert websocket.subprotocol == "chat"
        answers = [await said(websocket, f"message {number}") for number in range(3)]
        await websocket.send("bye")
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert (websocket.close_code, websocket.close_reason) == (4000, "bye")
    line = await line_of(site, name)
    assert [answer["said"] for answer in answers] == [f"message {number}" for number in range(3)]
    ids = (line["h2log.session"], line["h2log.request"])
    assert {(answer["session"], answer["request"]) for answer in answers} == {ids}
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (101, "COMPLETE")
    assert line["network.protocol.version"] == "1.1"
    assert line["http.request.body.size"] > 0
    assert line["http.response.body.size"] > sum(len(answer["said"]) for answer in answers)


@asked_of(*WITH_WEBSOCKETS)
async def test_http2(site: Site) -> None:
    """The same over HTTP/2, whose status is 200."""
    name = key()
    protocols = [("sec-websocket-protocol", "other, chat")]
    async with open_websocket(site.server, f"/chat/{name}", protocols, h2=True) as websocket:
        assert websocket.status == 200
        assert websocket.headers["sec-websocket-protocol"] == "chat"
        websocket.send(TEXT, b"a message")
        answer = json.loads((await websocket.read()).payload)
        websocket.send(TEXT, b"bye")
        closed = await websocket.read()
        assert (closed.code, closed.reason) == (4000, "bye")
        websocket.send(CLOSE, (4000).to_bytes(2, "big"))
        assert await websocket.rest() == []
    line = await line_of(site, name)
    assert answer == {
        "said": "a message",
        "session": line["h2log.session"],
        "request": line["h2log.request"],
    }
    assert (line["http.response.status_code"], line["h2log.outcome"]) == (200, "COMPLETE")
    assert line["network.protocol.version"] == "2"
    assert line["http.request.method"] == "CONNECT"


@pytest.mark.parametrize("h2", [False, True], ids=["http1", "http2"])
@asked_of(*WITH_WEBSOCKETS)
async def test_closed_by_client(site: Site, h2: bool) -> None:
    """The application is told the client's code."""
    name = key()
    async with open_websocket(site.server, f"/chat/{name}", h2=h2) as websocket:
        closed = await websocket.close(4001, b"enough")
        assert closed.code == 4001
    assert (await line_of(site, name))["h2log.outcome"] == "COMPLETE"
    told = "disconnect" if site.name == "quart" else "disconnect 4001"
    assert (await site.noted(name))["what"] == told


@pytest.mark.parametrize("h2", [False, True], ids=["http1", "http2"])
@asked_of(*WITH_WEBSOCKETS)
async def test_client_vanishes(site: Site, h2: bool) -> None:
    """A client that is gone without a word is a disconnect with 1006, and PEER_LOST."""
    name = key()
    async with open_websocket(site.server, f"/chat/{name}", h2=h2) as websocket:
        websocket.send(TEXT, b"a message")
        assert (await websocket.read()).opcode == TEXT
        websocket.wire.vanish()
        line = await line_of(site, name)
    assert line["h2log.outcome"] == "PEER_LOST"
    told = "disconnect" if site.name == "quart" else "disconnect 1006"
    assert (await site.noted(name))["what"] == told


@asked_of(*WITH_WEBSOCKETS)
async def test_compressed(site: Site) -> None:
    """Large messages are compressed both ways, and come as they were sent."""
    name = key()
    async with opened(site, name, compression="deflate") as websocket:
        text = "a message " * 10_000
        assert (await said(websocket, text))["said"] == text
        assert any(type(e).__name__ == "PerMessageDeflate" for e in websocket.protocol.extensions)
    line = await line_of(site, name)
    assert line["h2log.outcome"] == "COMPLETE"
    assert max(line["http.request.body.size"], line["http.response.body.size"]) < len(text) // 10


@asked_of(*WITH_WEBSOCKETS)
async def test_no_such_websocket(site: Site) -> None:
    """What no route takes is refused with a 4xx, over both protocols, and has its line."""
    for h2 in (False, True):
        name = key()
        async with open_websocket(site.server, f"/no-chat/{name}", h2=h2) as websocket:
            assert websocket.status in (403, 404)
        line = await asyncio.to_thread(site.line_of, f"/no-chat/{name}")
        assert line["http.response.status_code"] == websocket.status
