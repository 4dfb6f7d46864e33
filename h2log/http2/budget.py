"""What a peer may spend: every bound that protects the engine, with its reason and precedents."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_BLOCK_BYTES", "MAX_BLOCK_FRAMES", "MAX_REMEMBERED_HEADS", "OUTPUT_LIMIT"]

MAX_BLOCK_FRAMES: Final = 8
"""Frames of one header block, HEADERS and CONTINUATION together.

A block of the accepted size fits in four full frames; an endless one is the CONTINUATION flood
(CVE-2024-27316 and kin). nghttp2 allows 8 CONTINUATION frames, Envoy the same.
"""

MAX_BLOCK_BYTES: Final = 64 * 1024
"""Bytes of one compressed header block: twice what its fields may decode to (nghttp2: 64 KiB)."""

MAX_REMEMBERED_HEADS: Final = 64
"""Header blocks remembered a connection, of at most `MAX_REMEMBERED_BLOCK` bytes each.

A browser's page or a load of one URL repeats a handful; more would let an idle connection keep
more memory than its share.
"""

MAX_PATTERNS: Final = 4
"""Header blocks a connection of which all but the path is remembered: a browser's pages, styles,
scripts and images differ in `accept` and its kin."""

MAX_REMEMBERED_BLOCK: Final = 256
"""Bytes of the longest header block that is remembered."""

MAX_RECENT_RESETS: Final = 1000
"""Streams that we reset and of which frames may still be on their way (RFC 9113 section 5.1)."""

OUTPUT_LIMIT: Final = 128 * 1024
"""Bytes of output that may gather before they are handed to the transport."""
