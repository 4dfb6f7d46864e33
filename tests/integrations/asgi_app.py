"""An ASGI application that does what its path says; `logged` has the access log around it.

`LOG_SETTINGS` is the settings file of the log.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from h2log.asgi import AccessLogMiddleware
from h2log.ids import request_id, session_id

PIECE = b"x" * 16_384


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        await _http(scope, receive, send)


async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Serve, and take no part in lifespan."""
    assert scope["type"] != "lifespan"
    await app(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


async def _answer(send: Any, body: bytes, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})
    await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _http(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/raise":
        raise RuntimeError("as it was asked to")
    if path == "/exit":
        sys.exit(3)
    if path == "/raise-late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise RuntimeError("as it was asked to")
    if path == "/raise-after":  # as frameworks do
        await _answer(send, b"sorry", 500)
        raise RuntimeError("as it was asked to")
    if path == "/raise-head":  # a head waits for the first content
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("as it was asked to")
    if path == "/bad-head":
        await _answer(send, b"", 200, (b"name", b"one\r\ntwo"))
    if path == "/cancelled":  # somebody else's task
        raise asyncio.CancelledError
    if path == "/nothing":
        return
    if path == "/wait":
        await _disconnected(receive)
    elif path == "/sleep":
        await asyncio.sleep(60)
    elif path == "/slow":
        await asyncio.sleep(0.3)
        await _answer(send, b"slow")
    elif path == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(_disconnected(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await asyncio.sleep(0)
    elif path == "/stream":  # its end comes by itself
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two", b""):
            await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
            await asyncio.sleep(0.01)
    elif path == "/trailers":
        head = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
        await send(head)
        await send({"type": "http.response.body", "body": b"four"})
        await send({"type": "http.response.trailers", "headers": [(b"sum", b"4")]})
    elif path == "/tasks":
        await _answer(send, b"%d" % len(asyncio.all_tasks()))
    elif path == "/cookies":
        await _answer(send, b"|".join(v for n, v in scope["headers"] if n == b"cookie"))
    elif path == "/not-modified":
        await _answer(send, b"", 304, (b"etag", b'"1"'))
    elif path == "/length":
        size = 0
        more = True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await _answer(send, b"%d" % size)
    else:
        told = scope["extensions"]["h2log"]
        assert (told["session_id"], told["request_id"]) == (session_id.get(), request_id.get())
        fields = ((b"content-type", b"text/plain"), (b"x-request-id", b"the application's"))
        await _answer(send, f"{session_id.get()} {request_id.get()}".encode(), 200, *fields)


async def _websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if scope["path"] == "/early":
        assert (await receive())["type"] == "websocket.disconnect"
        return
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "raise":
            raise RuntimeError("as it was asked to")
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "websocket.send", "text": message["text"]})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """Serve as a WSGI application does."""
    if environ["PATH_INFO"] == "/raise":
        raise RuntimeError("as it was asked to")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"%d" % len(body)]


if "LOG_SETTINGS" in os.environ:
    logged = AccessLogMiddleware(app, settings=os.environ["LOG_SETTINGS"])
    quiet = AccessLogMiddleware(without_lifespan, settings=os.environ["LOG_SETTINGS"])
