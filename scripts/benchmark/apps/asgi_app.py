"""The ASGI application of the benchmark: files from memory, and JSON made for each request.

The folder is named by the environment variable BENCH_ROOT and read once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("BENCH_ROOT", "/nonexistent"))
TYPES = {".html": b"text/html; charset=utf-8"}


def _load() -> dict[str, tuple[list[tuple[bytes, bytes]], bytes]]:
    files = {}
    for file in ROOT.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            kind = TYPES.get(file.suffix, b"application/octet-stream")
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
            files["/" + str(file.relative_to(ROOT))] = (headers, content)
    return files


FILES = _load()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer one request."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    if path == "/json":
        status, content = 200, json.dumps({"hello": "world", "numbers": [1, 2, 3]}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
    elif path in FILES:
        status = 200
        headers, content = FILES[path]
    else:
        status, headers, content = 404, [(b"content-length", b"0")], b""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
