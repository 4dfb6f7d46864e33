"""The ASGI application of the benchmark: files from memory, JSON, a WebSocket.

The folder is named by the environment variable BENCH_ROOT and read once. Of a file of `/large` or
`/packed` it sends a range, or the compressed file beside it, when the request asks for that. Its
300 routes are found by hand: the resource in a dictionary, then the three of it in turn. What is
below `/asgi` compares servers that run ASGI applications.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Fields = list[tuple[bytes, bytes]]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

ROOT = Path(os.environ.get("BENCH_ROOT", "/nonexistent"))
TYPES = {".html": b"text/html; charset=utf-8"}
SUFFIXES = {b"br": ".br", b"gzip": ".gz"}
VARYING = ("/large/", "/packed/")
SPAN = re.compile(rb"bytes=(\d+)-(\d+)").fullmatch


def _load() -> dict[str, tuple[Fields, bytes]]:
    files = {}
    for file in ROOT.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            kind = TYPES.get(file.suffix, b"application/octet-stream")
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
            files["/" + str(file.relative_to(ROOT))] = (headers, content)
    return files


FILES = _load()
VARIED = {path: FILES.pop(path) for path in list(FILES) if path.startswith(VARYING)}


def _varied(path: str, asked: dict[bytes, bytes]) -> tuple[int, Fields, bytes]:
    """Answer for a file of which the request's fields choose what is sent."""
    headers, content = VARIED[path]
    span = SPAN(asked.get(b"range", b""))
    if span is not None:
        first, last = int(span[1]), int(span[2])
        part = content[first : last + 1]
        return (
            206,
            [
                headers[0],
                (b"content-length", b"%d" % len(part)),
                (b"content-range", b"bytes %d-%d/%d" % (first, last, len(content))),
            ],
            part,
        )
    accepted = asked.get(b"accept-encoding", b"")
    for coding, suffix in SUFFIXES.items():
        if coding in accepted and path + suffix in VARIED:
            packed = VARIED[path + suffix][1]
            return (
                200,
                [
                    headers[0],
                    (b"content-encoding", coding),
                    (b"content-length", b"%d" % len(packed)),
                    (b"vary", b"accept-encoding"),
                ],
                packed,
            )
    return 200, headers, content


def _index(name: str) -> dict[str, Any]:
    return {"resource": name}


def _one(name: str, id: str) -> dict[str, Any]:
    return {"resource": name, "id": int(id)}


def _part(name: str, id: str, part: str) -> dict[str, Any]:
    return {"resource": name, "id": int(id), "part": part}


ROUTES = {
    f"resource-{number:03}": (
        (re.compile(rf"/api/(resource-{number:03})").fullmatch, _index),
        (re.compile(rf"/api/(resource-{number:03})/(-?\d+)").fullmatch, _one),
        (re.compile(rf"/api/(resource-{number:03})/(-?\d+)/([^/]+)").fullmatch, _part),
    )
    for number in range(100)
}


def _made(path: str) -> dict[str, Any] | None:
    """Return what a route makes, None where there is none."""
    if path == "/json":
        return {"hello": "world", "numbers": [1, 2, 3]}
    name = path.split("/")[2] if path.startswith("/api/") else ""
    for match, make in ROUTES.get(name, ()):
        found = match(path)
        if found is not None:
            return make(*found.groups())
    return None


GREETING = b"Hello, World!"
CHUNK = bytes(range(256)) * 4
CHUNKS = 64
UPLOAD = bytes(range(256)) * 256


async def _raw(receive: Receive, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"13"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": GREETING})


async def _stream(receive: Receive, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/octet-stream")],
        }
    )
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body"})


async def _upload(receive: Receive, send: Send) -> None:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    content = json.dumps({"received": len(body)}).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200 if body == UPLOAD else 400,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


SERVED = {"/asgi/raw": _raw, "/asgi/stream": _stream, "/asgi/upload": _upload}


async def _echo(receive: Receive, send: Send) -> None:
    """Send every message of a WebSocket back."""
    while True:
        message = await receive()
        kind = message["type"]
        if kind == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        elif kind == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            return


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    kind = scope["type"]
    if kind == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if kind == "websocket":
        await _echo(receive, send)
        return
    path = scope["path"]
    if path in SERVED:
        await SERVED[path](receive, send)
        return
    if path in FILES:
        status = 200
        headers, content = FILES[path]
    elif path in VARIED:
        status, headers, content = _varied(path, dict(scope["headers"]))
    elif (made := _made(path)) is not None:
        status, content = 200, json.dumps(made).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
    else:
        status, headers, content = 404, [(b"content-length", b"0")], b""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
