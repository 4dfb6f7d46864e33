"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

The code's table is `hpack`'s. Decoding is a state machine: a state is an inner node of the code's
tree, and an entry says which symbols some bytes complete from there and where they leave us.
Entries are computed when first met and kept, for long pieces and, inside a new one, for short
pieces: texts that are new as a whole (a path with another number in it) are old in most of their
pieces. What is kept is bounded, since a peer chooses it.
"""

from __future__ import annotations

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

__all__ = ["HuffmanError", "decode", "encode"]

_EOS: Final = 256
_LONG: Final = 12
"""Bytes of a long piece."""
_SHORT: Final = 4
"""Bytes of a short piece."""
_MAX_LONG: Final = 16_384
_MAX_SHORT: Final = 65_536
"""Entries kept of each: some 3 and 8 MiB for the process, should a peer fill them."""

MAX_LENGTH: Final = 2**31

_Entry = tuple[bytes, int]


class HuffmanError(ValueError):
    """The bytes are not a Huffman-coded string: bad padding, or EOS inside (RFC 7541, 5.2)."""


def _grow_tree() -> tuple[list[list[int]], frozenset[int]]:
    """Return the tree and the nodes at which a string may end.

    A node is a pair of children; a child >= 0 is a node, a child < 0 is the leaf of ~symbol. The
    padding is the most significant bits of EOS, all ones, and shorter than 8 bits.
    """
    nodes: list[list[int]] = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if nodes[node][bit] == 0:
                nodes.append([0, 0])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
    ends = [0]
    for _ in range(7):
        ends.append(nodes[ends[-1]][1])
    return nodes, frozenset(ends)


_NODES, _ENDS = _grow_tree()


class _Pieces:
    """Entries by node and bytes; all are forgotten when there are too many."""

    __slots__ = ("count", "limit", "tables")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.tables: tuple[dict[bytes, _Entry], ...] = tuple({} for _ in _NODES)

    def keep(self, node: int, piece: bytes, entry: _Entry) -> None:
        if self.count >= self.limit:
            for table in self.tables:
                table.clear()
            self.count = 0
        self.count += 1
        self.tables[node][piece] = entry


_long, _short = _Pieces(_MAX_LONG), _Pieces(_MAX_SHORT)


_bytes: dict[int, _Entry] = {}  # by `node << 8 | byte`: there can be no more than 256 x 256


def _byte(key: int) -> _Entry:
    """Compute the entry of a single byte, bit by bit. Raises HuffmanError."""
    node, byte = key >> 8, key & 0xFF
    symbols = bytearray()
    for shift in range(7, -1, -1):
        node = _NODES[node][byte >> shift & 1]
        if node < 0:
            if ~node == _EOS:
                raise HuffmanError("EOS inside a Huffman string")
            symbols.append(~node)
            node = 0
    entry = _bytes[key] = bytes(symbols), node
    return entry


def _walk(node: int, piece: bytes) -> _Entry:
    """Compute the entry of a short piece from those of its bytes. Raises HuffmanError."""
    start = node
    text = b""
    for byte in piece:
        key = node << 8 | byte
        symbols, node = _bytes.get(key) or _byte(key)
        text += symbols
    _short.keep(start, piece, (text, node))
    return text, node


def _join(node: int, piece: bytes) -> _Entry:
    """Compute the entry of a long piece, or of the rest of a string, from short ones."""
    start = node
    tables = _short.tables
    text = b""
    for pos in range(0, len(piece), _SHORT):
        part = piece[pos : pos + _SHORT]
        symbols, node = tables[node].get(part) or _walk(node, part)
        text += symbols
    if len(piece) == _LONG:
        _long.keep(start, piece, (text, node))
    return text, node


def decode(data: bytes, limit: int = MAX_LENGTH) -> bytes:
    """Return the string that `data` codes. Raises HuffmanError.

    Of a string longer than `limit` bytes no more than a piece beyond that is decoded and returned:
    it will not be used.
    """
    tables = _long.tables
    node = 0
    parts = []
    for pos in range(0, len(data), _LONG):
        piece = data[pos : pos + _LONG]
        symbols, node = tables[node].get(piece) or _join(node, piece)
        parts.append(symbols)
        limit -= len(symbols)
        if limit < 0:
            return b"".join(parts)
    if node not in _ENDS:
        raise HuffmanError("bad padding of a Huffman string")
    return b"".join(parts)


def encode(text: bytes) -> bytes:
    """Return `text` Huffman-coded and padded."""
    bits = 1  # a leading one keeps the zeros after it
    for byte in text:
        bits = bits << REQUEST_CODES_LENGTH[byte] | REQUEST_CODES[byte]
    padding = -(bits.bit_length() - 1) % 8
    bits = bits << padding | (1 << padding) - 1
    size = (bits.bit_length() - 1) // 8
    return (bits - (1 << size * 8)).to_bytes(size, "big")
