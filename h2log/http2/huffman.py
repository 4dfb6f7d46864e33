"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

The code's table is `hpack`'s. Decoding is a state machine that takes a byte at a time: a state is
an inner node of the code's tree, and its table says for each byte which symbols that completes, and
the table of the node where it leads. Tables are made when they are first come to, some forty of the
256 for texts of ASCII, and nothing else is kept. So a text that is new costs what an old one does,
35 ns a byte; to remember pieces made the old ones a third cheaper, and new ones thrice as dear.
Longer ones are zlib's to decode (see `inflate`), which takes 6 ns a byte once it has begun.
"""

from __future__ import annotations

from typing import Any, Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from h2log.http2.inflate import inflate

__all__ = ["HuffmanError", "decode", "encode"]

_EOS: Final = 256
_LONG: Final = 24
"""Bytes from which on zlib is faster, though its beginning costs what 18 bytes do here."""
_END: Final = 256
"""The place in a table, behind those of the bytes, that says whether a string may end there."""

_Table = list[Any]
"""For each byte None where that completes EOS, else symbols and the next table; then `_END`."""


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
_TABLES: Final[list[_Table]] = [[] for _ in _NODES]
_FIRST: Final = _TABLES[0]


def _make(table: _Table) -> None:
    """Fill in the table of a node, which is empty."""
    start = next(node for node, found in enumerate(_TABLES) if found is table)
    table += [_entry(start, byte) for byte in range(256)]
    table.append(start in _ENDS)


def _entry(node: int, byte: int) -> tuple[bytes, _Table] | None:
    """Return which symbols a byte completes from a node, bit by bit, and where it leads."""
    symbols = bytearray()
    for shift in range(7, -1, -1):
        node = _NODES[node][byte >> shift & 1]
        if node < 0:
            if ~node == _EOS:
                return None
            symbols.append(~node)
            node = 0
    return bytes(symbols), _TABLES[node]


def decode(data: bytes) -> bytes:
    """Return the string that `data` codes. Raises HuffmanError."""
    if len(data) >= _LONG:
        text = inflate(data)
        if text is not None:
            return text
    while True:
        table = _FIRST
        parts: list[bytes] = []
        add = parts.append
        try:
            for byte in data:
                symbols, table = table[byte]
                add(symbols)
            ended = table[_END]
        except IndexError:  # it was come to for the first time: once more, from the beginning
            _make(table)
            continue
        except TypeError:
            raise HuffmanError("EOS inside a Huffman string") from None
        if not ended:
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
