"""What is asked of the servers, and the folder that they serve.

| scenario | what is asked                                                                         |
|----------|---------------------------------------------------------------------------------------|
| hot      | one article of 6.2 KB, again and again                                                |
| many     | 1,000 articles in turn                                                                |
| cold     | every URL new (`?q=N`): no header block ever repeats, not even on another connection  |
| browser  | one article, with the request headers of Chromium                                     |
| large    | one file of 10 MB, one request at a time on each connection                           |
| connect  | a new connection for each request                                                     |
| idle     | memory of connections that have asked once and stay open                              |
| function | a handler that makes JSON                                                             |
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SCENARIOS", "Scenario", "build_root"]

ARTICLES = 1_000
ARTICLE_BYTES = 6_200
LARGE_BYTES = 10_000_000
LARGE = "/large/10mb.bin"
JSON = "/json"
ANSWER = {"hello": "world", "numbers": [1, 2, 3]}

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


def article(number: int) -> str:
    """Return the path of an article."""
    return f"/article/{hashlib.md5(str(number).encode()).hexdigest()}/06-request.html"


ARTICLE = article(0)


def build_root(root: Path) -> None:
    """Make the folder that every server serves."""
    page = "<!doctype html>\n<title>A request</title>\n" + "<p>The way of one request.</p>\n" * 300
    content = page.encode()[:ARTICLE_BYTES]
    for number in range(ARTICLES):
        file = root / article(number)[1:]
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    large = root / LARGE[1:]
    large.parent.mkdir()
    large.write_bytes(hashlib.sha256(b"large").digest() * (LARGE_BYTES // 32))


@dataclass(frozen=True)
class Scenario:
    """One kind of load, and the unit of the figure that is compared."""

    name: str
    what: str
    unit: str = "µs/request"
    paths: tuple[str, ...] = (ARTICLE,)
    headers: dict[str, str] = field(default_factory=dict)
    clients: int | None = None
    """Connections, instead of the command line's."""
    streams: int | None = None
    """Concurrent requests of a connection, instead of the command line's."""
    fresh: bool = False
    """Every URL is new."""
    waves: bool = False
    """Every request has a connection of its own."""

    def accepts(self, content: bytes, root: Path) -> bool:
        """Tell whether `content` is what the first path should be answered with."""
        if self.paths[0] == JSON:
            try:
                return bool(json.loads(content) == ANSWER)
            except ValueError:
                return False
        return content == (root / self.paths[0][1:]).read_bytes()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("hot", "one article of 6.2 KB"),
        Scenario(
            "many", "1,000 articles of 6.2 KB", paths=tuple(article(n) for n in range(ARTICLES))
        ),
        Scenario("cold", "one article of 6.2 KB, every URL new", fresh=True),
        Scenario("browser", "one article of 6.2 KB, Chromium's request headers", headers=CHROMIUM),
        Scenario("large", "a file of 10 MB", "µs/MB", (LARGE,), streams=1),
        Scenario(
            "connect",
            "a new connection for each request, 200 at a time",
            "µs/connection",
            clients=200,
            streams=1,
            waves=True,
        ),
        Scenario("idle", "1,000 connections that have asked once", "KiB/connection"),
        Scenario("function", "a handler that makes JSON", paths=(JSON,)),
    )
}
