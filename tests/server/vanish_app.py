"""An ASGI application that awaits, for clients that vanish: `run tests.server.vanish_app:app`.

The environment variable VANISH_CALLS names a file in which each call leaves its request's id.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BLOCK = bytes(65536)
CALLS = os.environ.get("VANISH_CALLS", os.devnull)
_calls = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


async def _answer(send: Send, body: bytes = b"done") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def _state(receive: Receive, send: Send) -> None:
    """Say what there is once the garbage is collected."""
    gc.collect()
    state = {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
    }
    await _answer(send, json.dumps(state).encode())


async def _wait(receive: Receive, send: Send) -> None:
    """Do nothing until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _sleep(receive: Receive, send: Send) -> None:
    """Be busy elsewhere, then answer whoever is still there."""
    await asyncio.sleep(0.01)
    await _answer(send)


async def _down(receive: Receive, send: Send) -> None:
    """Send for ever."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        await asyncio.sleep(0)


async def _up(receive: Receive, send: Send) -> None:
    """Take all content, and say how much it was."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await _answer(send, b"%d" % size)


async def _chat(receive: Receive, send: Send) -> None:
    """Send every message back."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


ROUTES = {
    "/state": _state,
    "/wait": _wait,
    "/sleep": _sleep,
    "/down": _down,
    "/up": _up,
    "/chat": _chat,
}


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    os.write(_calls, f"{scope['extensions']['h2log']['request_id']}\n".encode())
    await ROUTES[scope["path"]](receive, send)
