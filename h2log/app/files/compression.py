"""Content made smaller: gzip always, brotli and Zstandard where their packages are installed."""

from __future__ import annotations

import gzip
import importlib
from functools import cache
from typing import Any, Final

from h2log.app.files.negotiation import CODINGS

__all__ = ["LEAST", "MOST", "compress", "makeable"]

LEAST: Final = 1024
"""Bytes of the smallest content that is compressed: less fits into the first packet either way
(nginx's gzip_min_length: 20; Caddy's: 512; Apache's advice: 1,000)."""
MOST: Final = 2 * 1024 * 1024
"""Bytes of the largest content that is compressed on request: some 50 ms of a thread, once. Beyond,
a compressed neighbour (`name.br`) is served if there is one."""
_WORTH: Final = 0.95
"""The part of its size that compressed content may have at most, or it is not worth decoding."""

# Of the levels behind which little is gained for much time, on pages and scripts: the result is
# made once and kept, but the first client waits for it.
_BROTLI_QUALITY: Final = 5
_ZSTD_LEVEL: Final = 10
_GZIP_LEVEL: Final = 6
# For what is sent once and not kept.
_QUICK: Final = {"br": 2, "zstd": 3, "gzip": 3}


@cache
def _package(name: str) -> Any:
    """Return an optional package, None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@cache
def makeable() -> tuple[str, ...]:
    """Return the codings that can be made here."""
    packages = {"br": "brotli", "zstd": "zstandard"}
    return tuple(c for c in CODINGS if c not in packages or _package(packages[c]) is not None)


def compress(content: bytes, coding: str, *, quick: bool = False) -> bytes | None:
    """Return `content` in a coding of `makeable`, None when that is hardly smaller.

    The same content gives the same bytes. Blocks: runs in a thread, which lets others go on.
    """
    made: bytes
    if coding == "br":
        quality = _QUICK["br"] if quick else _BROTLI_QUALITY
        made = _package("brotli").compress(content, quality=quality)
    elif coding == "zstd":
        level = _QUICK["zstd"] if quick else _ZSTD_LEVEL
        # Its window is as large as the content, far below the 8 MB of RFC 9659.
        made = _package("zstandard").ZstdCompressor(level=level).compress(content)
    else:
        level = _QUICK["gzip"] if quick else _GZIP_LEVEL
        made = gzip.compress(content, level, mtime=0)
    return made if len(made) <= len(content) * _WORTH else None
