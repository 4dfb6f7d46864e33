"""Between the path of a URL and the names of files, in both directions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = ["WELL_KNOWN", "coded", "is_normal", "segments"]

WELL_KNOWN: Final = ".well-known"
"""The folder of a site that others look into by its name (RFC 8615): the one with a dot that is
served, directly below `/` and nowhere else."""

# Percent coding in lower case, or of what needs none: letters, digits, "-", ".", "_" and "~".
_ODD: Final = re.compile(
    "%(?![0-9A-F]{2})|%(?:2D|2E|3[0-9]|4[1-9A-F]|5[0-9A]|5F|6[1-9A-F]|7[0-9A]|7E)"
).search


def segments(path: str, *, well_known: bool = False) -> list[str] | None:
    """Return the file names that a raw URL path means, None when it may mean none.

    `path` is what stands behind the folder's own prefix. Each segment is one name, percent coding
    undone once; the last is empty when the path ends with a slash. A name that begins with a dot
    or has a slash, a backslash or NUL in it is refused, however it is coded, and so is an empty
    segment. `well_known`: but for a first segment that is `.well-known`.
    """
    names: list[str] = []
    for part in path.split("/"):
        name = unquote_to_bytes(part.encode("latin-1", "replace"))
        hidden = name[:1] == b"." and (names or not well_known or name != os.fsencode(WELL_KNOWN))
        if hidden or b"/" in name or b"\\" in name or b"\0" in name:
            return None
        names.append(os.fsdecode(name))
    if "" in names[:-1]:
        return None
    return names


def coded(names: Iterable[str]) -> str:
    """Return file names as a URL path, every byte that could mean anything else percent-coded."""
    return "/".join(quote(os.fsencode(name), safe="") for name in names)


def is_normal(path: str) -> bool:
    """Say whether a raw URL path is spelled as it usually is (RFC 3986 section 6.2.2)."""
    return _ODD(path) is None
