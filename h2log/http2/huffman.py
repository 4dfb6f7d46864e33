"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

The code's table is `hpack`'s. Decoding is a state machine over whole bytes: a state is an inner
node of the code's tree, and an entry says which symbols a byte completes from there and where it
leaves us. Entries are computed when first met and kept: there can be no more than 256 x 256.
"""

from __future__ import annotations

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

__all__ = ["HuffmanError", "decode", "encode"]

_EOS: Final = 256
_MAX_REMEMBERED: Final = 4096
# A string longer than this is decoded each time: remembering it would let a peer choose how much
# memory the cache takes (4096 x 512 bytes at the most).
_MAX_REMEMBERED_LENGTH: Final = 512


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
_steps: dict[int, tuple[bytes, int]] = {}
_remembered: dict[bytes, bytes] = {}


def _step(key: int) -> tuple[bytes, int]:
    """Compute the entry for `node << 8 | byte`: the symbols completed and the node after."""
    node, byte = key >> 8, key & 0xFF
    symbols = bytearray()
    for shift in range(7, -1, -1):
        child = _NODES[node][byte >> shift & 1]
        if child < 0:
            if ~child == _EOS:
                raise HuffmanError("EOS inside a Huffman string")
            symbols.append(~child)
            child = 0
        node = child
    entry = _steps[key] = (bytes(symbols), node << 8)
    return entry


def decode(data: bytes) -> bytes:
    """Return the string that `data` codes. Raises HuffmanError."""
    known = _remembered.get(data)
    if known is not None:
        return known
    state = 0
    parts = []
    steps = _steps
    for byte in data:
        try:
            symbols, state = steps[state | byte]
        except KeyError:
            symbols, state = _step(state | byte)
        parts.append(symbols)
    if state >> 8 not in _ENDS:
        raise HuffmanError("bad padding of a Huffman string")
    result = b"".join(parts)
    if len(data) <= _MAX_REMEMBERED_LENGTH:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[data] = result
    return result


def encode(text: bytes) -> bytes:
    """Return `text` Huffman-coded and padded."""
    bits = 1  # a leading one keeps the zeros after it
    for byte in text:
        bits = bits << REQUEST_CODES_LENGTH[byte] | REQUEST_CODES[byte]
    padding = -(bits.bit_length() - 1) % 8
    bits = bits << padding | (1 << padding) - 1
    size = (bits.bit_length() - 1) // 8
    return (bits - (1 << size * 8)).to_bytes(size, "big")
