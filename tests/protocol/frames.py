"""Frames as bytes and back: a builder for each type, and a parser (RFC 9113 sections 4.1 and 6).

The builders keep no rule but the layout, so that a test can break any of the others. Nothing here
is the engine's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

DEFAULT_FRAME_SIZE = 16_384
DEFAULT_WINDOW = 65_535
MAX_31 = 2**31 - 1

_HEAD = Struct(">BHBBL")
_U32 = Struct(">L")
_PAIR = Struct(">HL")
_TWO = Struct(">LL")
_DEPENDENCY = Struct(">LB")


# Building


def raw(
    kind: int,
    flags: int,
    stream_id: int,
    payload: bytes = b"",
    *,
    length: int | None = None,
    reserved: bool = False,
) -> bytes:
    """Return a frame with exactly these parts; `length` may differ from the payload's."""
    size = len(payload) if length is None else length
    number = stream_id | (1 << 31 if reserved else 0)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def _padded(payload: bytes, pad: int | None) -> tuple[int, bytes]:
    if pad is None:
        return 0, payload
    return PADDED, bytes((pad,)) + payload + bytes(pad)


def data(
    stream_id: int, content: bytes = b"", *, end: bool = False, pad: int | None = None
) -> bytes:
    """Return a DATA frame, with `pad` bytes of padding if that is not None."""
    flags, payload = _padded(content, pad)
    return raw(DATA, flags | (END_STREAM if end else 0), stream_id, payload)


def headers(
    stream_id: int,
    block: bytes,
    *,
    end: bool = True,
    end_headers: bool = True,
    pad: int | None = None,
    depends_on: int | None = None,
) -> bytes:
    """Return a HEADERS frame with a whole header block, or the beginning of one."""
    if depends_on is not None:
        block = _DEPENDENCY.pack(depends_on, 15) + block
    flags, payload = _padded(block, pad)
    flags |= (END_STREAM if end else 0) | (END_HEADERS if end_headers else 0)
    flags |= WITH_PRIORITY if depends_on is not None else 0
    return raw(HEADERS, flags, stream_id, payload)


def continuation(stream_id: int, block: bytes, *, end_headers: bool = True) -> bytes:
    """Return a CONTINUATION frame."""
    return raw(CONTINUATION, END_HEADERS if end_headers else 0, stream_id, block)


def priority(stream_id: int, depends_on: int = 0, weight: int = 15) -> bytes:
    """Return a PRIORITY frame."""
    return raw(PRIORITY, 0, stream_id, _DEPENDENCY.pack(depends_on, weight))


def rst_stream(stream_id: int, code: int = 8) -> bytes:
    """Return a RST_STREAM frame, of CANCEL when no other code is given."""
    return raw(RST_STREAM, 0, stream_id, _U32.pack(code))


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame of these values, in order."""
    return raw(SETTINGS, 0, 0, b"".join(_PAIR.pack(key, value) for key, value in pairs))


SETTINGS_ACK = raw(SETTINGS, ACK, 0)


def push_promise(stream_id: int, promised: int, block: bytes) -> bytes:
    """Return a PUSH_PROMISE frame, which a client must never send."""
    return raw(PUSH_PROMISE, END_HEADERS, stream_id, _U32.pack(promised) + block)


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """Return a PING frame."""
    return raw(PING, ACK if ack else 0, 0, payload)


def goaway(last_stream_id: int = 0, code: int = 0, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return raw(GOAWAY, 0, 0, _TWO.pack(last_stream_id, code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return raw(WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


# Header blocks by hand (RFC 7541 sections 5 and 6)


def integer(value: int, prefix: int, pattern: int = 0) -> bytes:
    """Return `value` as an HPACK integer of `prefix` bits under `pattern`."""
    mask = (1 << prefix) - 1
    if value < mask:
        return bytes((pattern | value,))
    coded = bytearray((pattern | mask,))
    value -= mask
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*coded, value))


def string(text: bytes, *, huffman: bool = False) -> bytes:
    """Return an HPACK string; with `huffman`, `text` is taken as coded already."""
    return integer(len(text), 7, 0x80 if huffman else 0) + text


def literal(name: bytes, value: bytes, pattern: int = 0x00) -> bytes:
    """Return a field as a literal: 0x00 not indexed, 0x10 never indexed, 0x40 indexed."""
    return bytes((pattern,)) + string(name) + string(value)


def plain(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of literals that touches no table."""
    return b"".join(literal(name, value) for name, value in fields)


# Parsing


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of any type."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def size(self) -> int:
        """The payload's length."""
        return len(self.payload)


@dataclass(frozen=True, slots=True)
class DataFrame(Frame):
    """DATA without padding: the engine sends none."""

    @property
    def end(self) -> bool:
        """Whether the stream ends with it."""
        return bool(self.flags & END_STREAM)


@dataclass(frozen=True, slots=True)
class HeadersFrame(Frame):
    """HEADERS; the payload is a fragment of a header block."""

    @property
    def end(self) -> bool:
        """Whether the stream ends with it."""
        return bool(self.flags & END_STREAM)


@dataclass(frozen=True, slots=True)
class ContinuationFrame(Frame):
    """CONTINUATION."""


@dataclass(frozen=True, slots=True)
class RstStreamFrame(Frame):
    """RST_STREAM."""

    @property
    def code(self) -> int:
        """The error code."""
        code: int = _U32.unpack(self.payload)[0]
        return code


@dataclass(frozen=True, slots=True)
class SettingsFrame(Frame):
    """SETTINGS."""

    @property
    def ack(self) -> bool:
        """Whether it acknowledges ours."""
        return bool(self.flags & ACK)

    @property
    def values(self) -> list[tuple[int, int]]:
        """The pairs in order."""
        return [_PAIR.unpack_from(self.payload, pos) for pos in range(0, self.size, 6)]


@dataclass(frozen=True, slots=True)
class PingFrame(Frame):
    """PING."""

    @property
    def ack(self) -> bool:
        """Whether it answers ours."""
        return bool(self.flags & ACK)


@dataclass(frozen=True, slots=True)
class GoAwayFrame(Frame):
    """GOAWAY."""

    @property
    def last_stream_id(self) -> int:
        """The last stream that may have been acted on."""
        return int.from_bytes(self.payload[:4], "big") & MAX_31

    @property
    def code(self) -> int:
        """The error code."""
        return int.from_bytes(self.payload[4:8], "big")


@dataclass(frozen=True, slots=True)
class WindowUpdateFrame(Frame):
    """WINDOW_UPDATE."""

    @property
    def increment(self) -> int:
        """Bytes that may be sent in addition."""
        increment: int = _U32.unpack(self.payload)[0]
        return increment & MAX_31


_TYPES: dict[int, type[Frame]] = {
    DATA: DataFrame,
    HEADERS: HeadersFrame,
    RST_STREAM: RstStreamFrame,
    SETTINGS: SettingsFrame,
    PING: PingFrame,
    GOAWAY: GoAwayFrame,
    WINDOW_UPDATE: WindowUpdateFrame,
    CONTINUATION: ContinuationFrame,
}


def split(stream: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames that `stream` begins with, and the rest of it."""
    found: list[Frame] = []
    pos = 0
    while len(stream) - pos >= 9:
        high, low, kind, flags, number = _HEAD.unpack_from(stream, pos)
        end = pos + 9 + (high << 16 | low)
        if end > len(stream):
            break
        frame_type = _TYPES.get(kind, Frame)
        found.append(frame_type(kind, flags, number & MAX_31, stream[pos + 9 : end]))
        pos = end
    return found, stream[pos:]


def parse(output: bytes) -> list[Frame]:
    """Return the frames of `output`, which must be whole ones."""
    found, rest = split(output)
    assert not rest, f"the output ends inside a frame: {rest!r}"
    return found
