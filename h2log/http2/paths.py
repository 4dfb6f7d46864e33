"""Paths of requests as clients code them, remembered for all connections once they come again.

A path is most of what differs between requests, and decoding it (Huffman, checks, text) was a tenth
of the cost of a small response. What a path means does not depend on the connection where it is a
literal that is not indexed. Those that come once, as of a crawler or with a query that counts, must
not fill the memory: a bit for each that came is asked first (a doorkeeper, as in TinyLFU).
"""

from __future__ import annotations

from typing import Final

from h2log.http2.head import BAD_IN_PATH
from h2log.http2.hpack import path_literal

__all__ = ["known", "path_of"]

_MAX_PATHS: Final = 4096
"""With their keys some 200 bytes each: less than a MiB for the usual ones."""
_MAX_LITERAL: Final = 256
"""Bytes of the longest that is remembered, as of a whole header block."""
_DOOR: Final = 1 << 16

known: Final[dict[bytes, str]] = {}
"""Texts by their literals: look here before `path_of`."""
_door = bytearray(_DOOR)


def path_of(literal: bytes) -> str | None:
    """Return the path if `literal` is exactly one literal `:path` that is not indexed.

    None when it is anything else, or no path that begins with a slash and is well-formed: what is
    wrong then is for `Decoder.decode` and `parse_request` to say.
    """
    path = path_literal(literal)
    if path is None or path[:1] != b"/" or BAD_IN_PATH(path):
        return None
    text = path.decode("latin-1")
    if len(literal) <= _MAX_LITERAL:
        place = hash(literal) % _DOOR
        if not _door[place]:
            _door[place] = 1
        else:
            if len(known) >= _MAX_PATHS:
                known.clear()
                _door[:] = bytes(_DOOR)
            known[literal] = text
    return text
