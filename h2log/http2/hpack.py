"""Header compression (RFC 7541): a decoder with bounds, and an encoder that needs no table.

The decoder works field by field: an indexed field is the table's own tuple, so a block that a
client repeats costs a few list look-ups. It says whether a block changed the dynamic table, since
a block that did not is a pure function of its bytes until the next one that does.

The encoder uses the static table and literals without indexing only. Its output does not depend
on the connection, so that a response's block can be built once and sent on all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from h2.errors import ErrorCodes
from hpack.table import HeaderTable

from h2log.errors import SessionError
from h2log.http2 import huffman

__all__ = [
    "DEFAULT_TABLE_SIZE",
    "FIELD_OVERHEAD",
    "Decoder",
    "Field",
    "encode",
    "encode_field",
    "literal_name",
    "path_literal",
]

Field = tuple[bytes, bytes]

FIELD_OVERHEAD: Final = 32
"""Added to a field's name and value wherever its size counts (RFC 7541, 4.1; RFC 9113, 6.5.2)."""
DEFAULT_TABLE_SIZE: Final = 4096
"""The dynamic table's bound before SETTINGS say otherwise; all that we offer, as nginx and Go."""

_STATIC: Final[tuple[Field, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_STATIC_COUNT: Final = len(_STATIC)
_PATH_INDEX: Final = 4
# An integer of more than four continuation bytes is over 2**28: nothing here is that large.
_MAX_INTEGER_BYTES: Final = 4


def _fault(detail: str) -> SessionError:
    # The table's state is lost with the block: always the connection's error (RFC 9113, 4.3).
    return SessionError(ErrorCodes.COMPRESSION_ERROR, detail)


def _integer(block: bytes, pos: int, mask: int) -> tuple[int, int]:
    """Decode the integer at `pos` with the prefix `mask`; return it and the next position.

    RFC 7541 section 5.1.
    """
    value = block[pos] & mask
    pos += 1
    if value < mask:
        return value, pos
    shift = 0
    for byte in block[pos : pos + _MAX_INTEGER_BYTES]:
        pos += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
    raise _fault("an integer is cut short or too large")


def _string(block: bytes, pos: int) -> tuple[bytes, int]:
    """Decode the string at `pos`; return it and the next position (RFC 7541 section 5.2)."""
    try:
        coded = block[pos]
    except IndexError:
        raise _fault("a string is missing") from None
    length = coded & 0x7F
    if length < 0x7F:
        pos += 1
    else:
        length, pos = _integer(block, pos, 0x7F)
    end = pos + length
    text = block[pos:end]
    if len(text) != length:
        raise _fault("a string is cut short")
    if coded & 0x80:
        try:
            return huffman.decode(text), end
        except huffman.HuffmanError as error:
            raise _fault(str(error)) from None
    return text, end


class Decoder:
    """Decodes the header blocks of one connection, in order.

    `max_bytes` and `max_fields` bound what one block may grow to while it is decoded. A block over
    a bound is still decoded to its end, since the table must follow, but its further fields are
    thrown away and `too_large` is set.
    """

    __slots__ = (
        "_dynamic",
        "_limit",
        "_max_bytes",
        "_max_fields",
        "_size",
        "changed",
        "path_span",
        "room",
        "too_large",
    )

    def __init__(self, max_bytes: int = 32_768, max_fields: int = 100) -> None:
        self._max_bytes = max_bytes
        self._max_fields = max_fields
        self._dynamic: list[Field] = []  # the newest entry last: index 62 is [-1]
        self._size = 0
        self._limit = DEFAULT_TABLE_SIZE
        self.changed = False
        """Whether the last block changed the dynamic table."""
        self.too_large = False
        """Whether the last block went over a bound; its fields are then incomplete."""
        self.room = 0
        """Bytes that the last block's fields left of `max_bytes`."""
        self.path_span: tuple[int, int] | None = None
        """Where the last block has `:path` as a literal that is not indexed, if it has one."""

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a header block, names and values as bytes.

        Raises SessionError(COMPRESSION_ERROR).
        """
        fields: list[Field] = []
        self.changed = self.too_large = False
        self.path_span = None
        room, most = self._max_bytes, self._max_fields
        first = True
        dynamic = self._dynamic
        pos, end = 0, len(block)
        while pos < end:
            byte = block[pos]
            if byte & 0x80:  # an indexed field, section 6.1
                index = byte & 0x7F
                if index < 0x7F:
                    pos += 1
                else:
                    index, pos = _integer(block, pos, 0x7F)
                if 0 < index < _STATIC_COUNT:
                    field = _STATIC[index]
                else:
                    field = self._entry(index)
            elif byte & 0x60 == 0x20:  # a dynamic table size update, section 6.3
                if not first:
                    raise _fault("a table size update after a field")
                limit, pos = _integer(block, pos, 0x1F)
                if limit > DEFAULT_TABLE_SIZE:
                    raise _fault(f"a table size update to {limit}, over {DEFAULT_TABLE_SIZE}")
                self._limit = limit
                self._evict()
                self.changed = True
                continue
            else:  # a literal, sections 6.2.1 to 6.2.3
                start = pos
                indexed = byte & 0x40
                mask = 0x3F if indexed else 0x0F
                index = byte & mask
                if index == mask:
                    index, pos = _integer(block, pos, mask)
                else:
                    pos += 1
                if index == 0:
                    name, pos = _string(block, pos)
                elif index < _STATIC_COUNT:
                    name = _STATIC[index][0]
                else:
                    name = self._entry(index)[0]
                value, pos = _string(block, pos)
                field = (name, value)
                if indexed:
                    dynamic.append(field)
                    self._size += len(name) + len(value) + FIELD_OVERHEAD
                    if self._size > self._limit:
                        self._evict()
                    self.changed = True
                elif index == _PATH_INDEX:
                    self.path_span = start, pos
            first = False
            room -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD
            if room >= 0 and len(fields) < most:
                fields.append(field)
            elif room >= 0 and (crumbs := _crumbs(field, fields, most - self._max_fields)):
                most += crumbs
                fields.append(field)
            else:
                room = -1
                self.too_large = True
        self.room = room
        return fields

    def _entry(self, index: int) -> Field:
        if index == 0:
            raise _fault("index 0")
        try:
            return self._dynamic[_STATIC_COUNT - 1 - index]
        except IndexError:
            raise _fault(f"index {index} is beyond the table") from None

    def _evict(self) -> None:
        """Drop the oldest entries until the table fits (RFC 7541 sections 4.3 and 4.4)."""
        gone = 0
        for name, value in self._dynamic:
            if self._size <= self._limit:
                break
            self._size -= len(name) + len(value) + FIELD_OVERHEAD
            gone += 1
        del self._dynamic[:gone]


def _crumbs(field: Field, fields: list[Field], known: int) -> int:
    """Return how many more fields than `known` are there for a cookie that came in pieces.

    Browsers send each pair as a field of its own (RFC 9113 section 8.2.3): all are one.
    """
    if known and field[0] == b"cookie":  # no look at all the others for each
        return 1
    return max(0, sum(name == b"cookie" for name, _ in (*fields, field)) - 1 - known)


def path_literal(literal: bytes) -> bytes | None:
    """Return the path if `literal` is exactly one literal `:path` that is not indexed.

    None when it is anything else; what is wrong then is for `Decoder.decode` to say.
    """
    size = len(literal) - 2
    if size < 0 or literal[0] & 0xEF != _PATH_INDEX:
        return None
    try:
        if literal[1] == 0x80 | size and size < 0x7F:  # the usual one, at once
            return huffman.decode(literal[2:])
        path, after = _string(literal, 1)
    except (SessionError, huffman.HuffmanError):
        return None
    return path if after == len(literal) else None


def _prefixed(value: int, mask: int, pattern: int) -> bytes:
    """Return `value` as an integer whose first byte carries `pattern` (RFC 7541 section 5.1)."""
    if value < mask:
        return bytes((pattern | value,))
    coded = bytearray((pattern | mask,))
    value -= mask
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def _literal(text: bytes) -> bytes:
    if len(text) > _MAX_HUFFMAN:
        return _prefixed(len(text), 0x7F, 0) + text
    short = huffman.encode(text)
    if len(short) < len(text):
        return _prefixed(len(short), 0x7F, 0x80) + short
    return _prefixed(len(text), 0x7F, 0) + text


def _static_names() -> dict[bytes, int]:
    names: dict[bytes, int] = {}
    for index, (name, _) in enumerate(_STATIC[1:], 1):
        names.setdefault(name, index)
    return names


_MAX_HUFFMAN: Final = 256
"""Bytes of the longest text that is worth coding: the work grows with its square."""

_FIELD_INDEX: Final = {field: index for index, field in enumerate(_STATIC) if index}
_NAME_INDEX: Final = _static_names()


def encode_field(name: bytes, value: bytes) -> bytes:
    """Return one field's bytes: indexed when the static table has it, else a plain literal.

    `name` must be in lower case (RFC 9113 section 8.2).
    """
    if len(name) + len(value) > _MAX_HUFFMAN:  # not kept: a client may have chosen its length
        return literal_name(name) + _literal(value)
    return _encode_field(name, value)


@lru_cache(maxsize=2048)
def _encode_field(name: bytes, value: bytes) -> bytes:
    index = _FIELD_INDEX.get((name, value))
    if index is not None:
        return _prefixed(index, 0x7F, 0x80)
    return literal_name(name) + _literal(value)


def literal_name(name: bytes) -> bytes:
    """Return the beginning of a literal without indexing; a value's string is to follow."""
    index = _NAME_INDEX.get(name)
    return _prefixed(index, 0x0F, 0) if index is not None else b"\0" + _literal(name)


def encode(fields: Iterable[Field]) -> bytes:
    """Return the header block of `fields`; the same bytes on every connection."""
    return b"".join([encode_field(name, value) for name, value in fields])
