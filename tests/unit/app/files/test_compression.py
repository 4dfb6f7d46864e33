"""Content made smaller, and read again by other programs than those that made it."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable

import pytest

from h2log.app.files.compression import compress, makeable
from tests.support import tool

TEXT = b"".join(b"<p>The way of request %d.</p>\n" % n for n in range(400))
NODE = "process.stdin.pipe(require('zlib').createBrotliDecompress()).pipe(process.stdout)"
PROGRAMS = {"br": ["node", "-e", NODE], "gzip": ["gzip", "-dc"]}


def brotli(content: bytes) -> bytes:
    """Decode brotli by its package."""
    package = pytest.importorskip("brotli")
    found: bytes = package.decompress(content)
    return found


def zstd(content: bytes) -> bytes:
    """Decode Zstandard by its package."""
    package = pytest.importorskip("zstandard")
    found: bytes = package.ZstdDecompressor().decompress(content)
    return found


DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli,
    "zstd": zstd,
    "gzip": gzip.decompress,
}


def test_gzip_is_always_there() -> None:
    """The others where their packages are."""
    assert set(makeable()) <= set(DECODERS)
    assert "gzip" in makeable()


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("coding", makeable())
def test_what_is_made_smaller_is_the_same(coding: str, quick: bool) -> None:
    """The same bytes each time, so that a strong tag is true; decoded it is what it was."""
    made = compress(TEXT, coding, quick=quick)
    assert made is not None
    assert len(made) < len(TEXT) / 3
    assert compress(TEXT, coding, quick=quick) == made
    assert DECODERS[coding](made) == TEXT


@pytest.mark.parametrize("coding", [coding for coding in makeable() if coding in PROGRAMS])
def test_another_program_reads_it(coding: str) -> None:
    """One that knows nothing of ours; Zstandard is read by curl, see `tests/server`."""
    made = compress(TEXT, coding)
    command, *arguments = PROGRAMS[coding]
    done = subprocess.run(
        [tool(command), *arguments], input=made, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == TEXT


@pytest.mark.parametrize("coding", makeable())
def test_what_hardly_gets_smaller_is_left(coding: str) -> None:
    """Not worth the client's decoding."""
    import random

    assert compress(random.Random(3).randbytes(4096), coding) is None
