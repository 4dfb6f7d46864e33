"""The Huffman code of HPACK, decoded by zlib.

Deflate (RFC 1951) has its own Huffman codes, which a block may define: canonical ones of at most
fifteen bits, packed from the least significant bit of a byte. HPACK's (RFC 7541, appendix B) is
canonical too, and packed from the most significant bit. So what HPACK has coded is, with the bits
of each byte the other way round, a block of deflate whose codes are HPACK's.

- The symbols of more than fifteen bits are left out: what is neither printable ASCII nor a
  backslash. All of them begin with fifteen ones, and that is free for the end of the block.
- Behind the string come seven ones, a zero, and ones to the end of the block. Padding is up to
  seven ones (section 5.2); with the seven and the zero it begins a symbol of which no other has
  this: its only zero is that one. So if such a symbol comes last, and the end after it, then what
  was before it is whole and its padding good. Else the string is wrong, or has a longer symbol.
"""

from __future__ import annotations

import zlib
from typing import Final

from hpack.huffman_constants import REQUEST_CODES_LENGTH

__all__ = ["inflate"]

_LONGEST: Final = 15
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TAIL: Final = b"\xfe\xff\xff\xff"
_LAST: Final = frozenset(b")+>[~}`{")
"""The symbols whose codes begin with 7 to 14 ones and a zero, and have no other zero."""


def _preamble() -> bytes:
    """Return a block's beginning, up to where its text follows (RFC 1951 section 3.2.7)."""
    lengths = [length if length <= _LONGEST else 0 for length in REQUEST_CODES_LENGTH[:256]]
    lengths.append(_LONGEST)  # the end of the block
    lengths.append(0)  # no distances
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    pieces = [
        *[(0b10, 10)] * 3,  # empty blocks, or the text would not begin with a byte
        *[(1, 1), (2, 2), (0, 5), (0, 5), (len(order) - 4, 4)],
        # Each length is written in four bits, as it is; there are no repetitions.
        *[(0 if symbol > _LONGEST else 4, 3) for symbol in order],
        *[(_REVERSED[length] >> 4, 4) for length in lengths],
    ]
    bits = at = 0
    for value, width in pieces:
        bits |= value << at
        at += width
    assert at % 8 == 0
    return bits.to_bytes(at // 8, "little")


_block = zlib.decompressobj(-9)  # the least: without distances there is nothing to look back for
_block.decompress(_preamble())
_another = _block.copy


def inflate(data: bytes) -> bytes | None:
    """Return the string that `data` codes, of 16 bytes or more; None if it is not for us to say.

    That is when it is wrong, or has symbols that are rare.
    """
    block = _another()
    # The shortest symbol has 5 bits: no string comes to more than this.
    text = block.decompress((data + _TAIL).translate(_REVERSED), len(data) * 2)
    if text and text[-1] in _LAST and len(block.unused_data) < 2:
        return text[:-1]
    return None
