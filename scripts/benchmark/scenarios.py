"""What is asked of the servers.

| scenario   | what is asked                                                                      |
|------------|------------------------------------------------------------------------------------|
| hot        | one article of 6.2 KB, again and again                                             |
| many       | 1,000 articles in turn                                                             |
| cold       | every URL new (`?q=N`): no header block repeats, not on another connection either  |
| browser    | one article, with the request headers of Chromium; no server compresses it         |
| compressed | one page, of which compressed files lie beside it: br, or what else a server sends |
| large      | one file of 10 MB, one request at a time on each connection                        |
| range      | 64 KiB from the middle of that file                                                |
| connect    | a new connection for each request                                                  |
| idle       | memory of connections that have asked once and stay open                           |
| function   | a handler that makes JSON                                                          |
| route      | the same of 300 routes, with a number in the path: a hundred paths in turn         |

The rest is asked of one ASGI application, the same file for every server:

| scenario       | what is asked                                                                  |
|----------------|--------------------------------------------------------------------------------|
| asgi-raw       | 13 bytes of text, no framework                                                 |
| asgi-h1        | the same over HTTP/1.1, connections kept alive, one request at a time on each  |
| asgi-fastapi   | JSON from a route of FastAPI with a number in the path: a hundred in turn      |
| asgi-stream    | 64 chunks of 1 KiB, each sent by itself, their sum not declared                |
| asgi-upload    | POST of 64 KiB, which the application reads whole and compares                 |
| websocket-echo | messages of 64 bytes of text, sent back; over HTTP/1.1                         |
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import Answer
from folder import ARTICLE, ARTICLES, LARGE, PACKED, article, neighbour

__all__ = ["ECHOED", "SCENARIOS", "Scenario"]

JSON = "/json"
TEXT = "/asgi/raw"
GREETING = b"Hello, World!"
CHUNK = bytes(range(256)) * 4
CHUNKS = 64
UPLOAD = bytes(range(256)) * 256
ECHOED = b"0123456789abcdef" * 4
RESOURCES = 100
"""In `route`: each has three routes."""

# Chromium 131 on Linux, asking for a page. h2load adds :method, :path, :scheme and :authority.
CHROMIUM = {
    "sec-ch-ua": '"Chromium";v="131", "Not_A Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "upgrade-insecure-requests": "1",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
    "sec-fetch-site": "none",
    "sec-fetch-mode": "navigate",
    "sec-fetch-user": "?1",
    "sec-fetch-dest": "document",
    "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-US,en;q=0.9",
    "priority": "u=0, i",
}
SPAN = (5_000_000, 5_065_535)


@dataclass(frozen=True)
class Scenario:
    """One kind of load, and the unit of the figure that is compared."""

    name: str
    what: str
    unit: str = "µs/request"
    paths: tuple[str, ...] = (ARTICLE,)
    """All answered with as many bytes."""
    headers: dict[str, str] = field(default_factory=dict)
    clients: int | None = None
    """Connections, instead of the command line's."""
    streams: int | None = None
    """Concurrent requests of a connection, instead of the command line's."""
    fresh: bool = False
    """Every URL is new."""
    waves: bool = False
    """Every request has a connection of its own."""
    plain: bool = False
    """The client takes compressed content, and no server is to make any."""
    packed: bool = False
    """The server sends the file's compressed form that lies beside it."""
    span: tuple[int, int] | None = None
    """The first and the last byte that are asked for, instead of a whole file."""
    answer: Any = None
    """What a handler makes of the first path, as JSON; None where it is a file."""
    app: str = ""
    """The ASGI application of `apps`, MODULE:ATTR, that every server runs; else what it likes."""
    content: bytes | None = None
    """What the ASGI application answers, where that is no JSON."""
    upload: bytes = b""
    """What is sent with POST."""
    protocol: str = "h2"
    """By its ALPN name."""
    echo: bool = False
    """A request is a WebSocket message, which comes back; a connection is one WebSocket."""
    targets: dict[str, float] = field(default_factory=dict)
    """The most that h2log may need, as a multiple of what these peers need."""

    @property
    def computed(self) -> bool:
        """Whether a handler makes the answers."""
        return self.answer is not None or self.content is not None

    def fault(self, got: Answer, root: Path, codings: tuple[str, ...]) -> str:
        """Say what is wrong with the answer to the first path, nothing when it is as it should be.

        `codings` are those of compressed files that the server knows, the best first.
        """
        status = 101 if self.echo else 200 if self.span is None else 206
        if got.status != status:
            return f"status {got.status}, not {status}"
        file = root / self.paths[0][1:]
        coding = ""
        if self.packed:
            coding = next((one for one in codings if neighbour(file, one).exists()), "")
        if got.fields.get("content-encoding", "") != coding:
            encoded = got.fields.get("content-encoding", "none")
            return f"content-encoding {encoded}, not {coding or 'none'}"
        if self.content is not None:
            return "" if got.content == self.content else "other content"
        if self.computed:
            try:
                same = json.loads(got.content) == self.answer
            except ValueError:
                same = False
            return "" if same else "other content"
        content = (neighbour(file, coding) if coding else file).read_bytes()
        if self.span is not None:
            first, last = self.span
            span = f"bytes {first}-{last}/{len(content)}"
            if got.fields.get("content-range") != span:
                return f"content-range {got.fields.get('content-range', 'none')}, not {span}"
            content = content[first : last + 1]
        return "" if got.content == content else "other content"


def _route(number: int) -> str:
    """Return a path of `route`: a resource's, and the number of something in it."""
    return f"/api/resource-{number:03}/{1000 + number}"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("hot", "one article of 6.2 KB"),
        Scenario(
            "many", "1,000 articles of 6.2 KB", paths=tuple(article(n) for n in range(ARTICLES))
        ),
        Scenario("cold", "one article of 6.2 KB, every URL new", fresh=True),
        Scenario(
            "browser",
            "one article of 6.2 KB, Chromium's request headers, compressed by nobody",
            headers=CHROMIUM,
            plain=True,
        ),
        Scenario(
            "compressed",
            "a page of 6.2 KB, sent as br, or as gzip by a server that has no br",
            paths=(PACKED,),
            headers={"accept-encoding": "br, gzip"},
            packed=True,
        ),
        Scenario("large", "a file of 10 MB", "µs/MB", (LARGE,), streams=1),
        Scenario(
            "range",
            "64 KiB from the middle of a file of 10 MB",
            paths=(LARGE,),
            headers={"range": f"bytes={SPAN[0]}-{SPAN[1]}"},
            span=SPAN,
        ),
        Scenario(
            "connect",
            "a new connection for each request, 200 at a time",
            "µs/connection",
            clients=200,
            streams=1,
            waves=True,
        ),
        Scenario("idle", "1,000 connections that have asked once", "KiB/connection"),
        Scenario(
            "function",
            "a handler that makes JSON",
            paths=(JSON,),
            answer={"hello": "world", "numbers": [1, 2, 3]},
        ),
        Scenario(
            "route",
            "300 routes, a handler that makes JSON of a number in the path",
            paths=tuple(_route(n) for n in range(RESOURCES)),
            answer={"resource": "resource-000", "id": 1000},
        ),
        Scenario(
            "asgi-raw",
            "ASGI, 13 bytes of text",
            paths=(TEXT,),
            app="asgi_app:app",
            content=GREETING,
            targets={"granian": 0.6, "hypercorn-uvloop": 1 / 15},
        ),
        Scenario(
            "asgi-h1",
            "ASGI, 13 bytes of text, over HTTP/1.1",
            paths=(TEXT,),
            streams=1,
            app="asgi_app:app",
            content=GREETING,
            protocol="http/1.1",
            targets={"uvicorn": 1.3},
        ),
        Scenario(
            "asgi-fastapi",
            "ASGI, JSON by FastAPI, a number in the path",
            paths=tuple(f"/items/{1000 + number}" for number in range(RESOURCES)),
            answer={"item_id": 1000, "name": "item 1000"},
            app="fastapi_app:app",
        ),
        Scenario(
            "asgi-stream",
            "ASGI, 64 chunks of 1 KiB",
            paths=("/asgi/stream",),
            app="asgi_app:app",
            content=CHUNK * CHUNKS,
        ),
        Scenario(
            "asgi-upload",
            "ASGI, POST of 64 KiB, read whole",
            paths=("/asgi/upload",),
            answer={"received": len(UPLOAD)},
            app="asgi_app:app",
            upload=UPLOAD,
        ),
        Scenario(
            "websocket-echo",
            "ASGI, messages of 64 bytes sent back, HTTP/1.1",
            "µs/message",
            paths=("/asgi/echo",),
            app="asgi_app:app",
            content=ECHOED,
            protocol="http/1.1",
            echo=True,
        ),
    )
}
