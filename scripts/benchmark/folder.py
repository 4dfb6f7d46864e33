"""The folder that every server serves: articles, a large file, a page with its compressed forms."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

try:
    import brotli
except ImportError:  # the extra `compression`, which scripts/bench installs
    brotli = None

__all__ = [
    "ARTICLE",
    "ARTICLES",
    "CODINGS",
    "LARGE",
    "PACKED",
    "article",
    "build_root",
    "neighbour",
]

ARTICLES = 1_000
ARTICLE_BYTES = 6_200
LARGE_BYTES = 10_000_000
LARGE = "/large/10mb.bin"
PACKED = "/packed/06-request.html"
CODINGS = {"br": ".br", "gzip": ".gz"}
"""Content codings, and the suffixes of files that are compressed so."""


def article(number: int) -> str:
    """Return the path of an article."""
    return f"/article/{hashlib.md5(str(number).encode()).hexdigest()}/06-request.html"


ARTICLE = article(0)


def neighbour(file: Path, coding: str) -> Path:
    """Return where a file's compressed form is."""
    return file.with_name(file.name + CODINGS[coding])


def build_root(root: Path) -> None:
    """Make the folder.

    Compressed forms lie beside one page alone, so that no other scenario's files have any. Without
    the package brotli it has the one of gzip only.
    """
    page = "<!doctype html>\n<title>A request</title>\n" + "<p>The way of one request.</p>\n" * 300
    content = page.encode()[:ARTICLE_BYTES]
    for number in range(ARTICLES):
        file = root / article(number)[1:]
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    large = root / LARGE[1:]
    large.parent.mkdir()
    large.write_bytes(hashlib.sha256(b"large").digest() * (LARGE_BYTES // 32))
    packed = root / PACKED[1:]
    packed.parent.mkdir()
    content = _prose()
    packed.write_bytes(content)
    neighbour(packed, "gzip").write_bytes(gzip.compress(content, 9, mtime=0))
    if brotli is not None:
        neighbour(packed, "br").write_bytes(brotli.compress(content))


def _prose() -> bytes:
    """Return a page that compresses as text does, to a third: some words often, most seldom."""
    chance = random.Random(6)
    syllables = [first + second for first in "bdfklmnprstvw" for second in "aeiou"]
    words = ["".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3)))) for _ in range(400)]
    often = [1 / rank for rank in range(1, len(words) + 1)]
    page = "<!doctype html>\n<title>A request</title>\n"
    while len(page) < ARTICLE_BYTES:
        page += f"<p>{' '.join(chance.choices(words, often, k=40)).capitalize()}.</p>\n"
    return page.encode()[:ARTICLE_BYTES]
