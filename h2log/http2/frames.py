"""HTTP/2 frames as bytes: types, flags, and a builder for each frame that a server sends.

The layout is RFC 9113 section 4.1: length (24 bits), type (8), flags (8), a reserved bit and the
stream identifier (31), then the payload.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from h2.errors import ErrorCodes

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 section 3.4)."""

DEFAULT_FRAME_SIZE: Final = 16_384
"""The largest payload that everyone must accept, and all that we accept (RFC 9113, 4.2)."""
MAX_WINDOW: Final = 2**31 - 1
"""The largest flow-control window (RFC 9113 section 6.9.1)."""
MAX_STREAM_ID: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
"""Every window's size before SETTINGS say otherwise (RFC 9113 section 6.9.2)."""

# Frame types, RFC 9113 section 6. Plain ints: they are compared for every frame.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10
"""RFC 9218 section 7.1."""

# Flags.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

HEADER: Final = Struct(">BHBBL")
"""A frame header: high and low part of the length, type, flags, stream id with reserved bit."""
U32: Final = Struct(">L")
SETTING: Final = Struct(">HL")
GOAWAY_HEAD: Final = Struct(">LL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a whole frame: `payload` must be shorter than 2**24 bytes."""
    length = len(payload)
    return HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def start(kind: int, flags: int, length: int) -> bytes:
    """Return the first five bytes of a frame header; the four of the stream id follow."""
    return HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, 0)[:5]


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame with `values` by identifier (RFC 9113 section 6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(k, v) for k, v in values.items()))


def goaway(last_stream_id: int, code: int, debug: str = "") -> bytes:
    """Return a GOAWAY frame; `debug` is cut at 512 bytes (RFC 9113 section 6.8)."""
    head = GOAWAY_HEAD.pack(last_stream_id, code)
    return frame(GOAWAY, 0, 0, head + debug.encode("utf-8", "replace")[:512])


def rst_stream(stream_id: int, code: ErrorCodes) -> bytes:
    """Return a RST_STREAM frame (RFC 9113 section 6.4)."""
    return frame(RST_STREAM, 0, stream_id, U32.pack(code))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame: `increment` from 1 to 2**31-1 (RFC 9113 section 6.9)."""
    return frame(WINDOW_UPDATE, 0, stream_id, U32.pack(increment))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)
