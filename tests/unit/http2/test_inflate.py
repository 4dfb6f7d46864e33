"""What zlib makes of HPACK's Huffman code is what the code's own tables make of it."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st

from h2log.http2 import huffman, inflate

EOS = 256
PLAIN = bytes(symbol for symbol in range(256) if REQUEST_CODES_LENGTH[symbol] <= 15)


def code(symbol: int) -> str:
    """Return a symbol's bits."""
    return f"{REQUEST_CODES[symbol]:0{REQUEST_CODES_LENGTH[symbol]}b}"


def packed(bits: str) -> bytes:
    """Return whole bytes of bits."""
    assert len(bits) % 8 == 0
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def by_tables(data: bytes) -> bytes | None:
    """Decode without zlib; None for what is wrong."""
    with patch.object(huffman, "_LONG", len(data) + 1):
        try:
            return huffman.decode(data)
        except huffman.HuffmanError:
            return None


def agreed(data: bytes) -> bytes | None:
    """Return what both ways make of `data`: the same, or zlib leaves it to the other."""
    expected = by_tables(data)
    found = inflate.inflate(data)
    assert found in (expected, None), (data.hex(), found, expected)
    return found


def test_the_last_symbols() -> None:
    """What is looked for behind the text has, for each padding, one code with a single zero."""
    by_bits = {code(symbol): symbol for symbol in range(256)}
    last = set()
    for padding in range(8):
        tail = "1" * (padding + 7) + "0" + "1" * 24
        found = next(tail[:n] for n in range(5, 16) if tail[:n] in by_bits)
        assert found.count("0") == 1
        last.add(by_bits[found])
    assert last == inflate._LAST
    for symbol in last:
        assert code(symbol).count("0") == 1


def test_symbols() -> None:
    """Those of up to fifteen bits are decoded, behind and before any other; the rest is left."""
    for symbol in range(256):
        for other in b"a0A|&~":
            text = bytes([symbol, other]) * 14 + b"end"
            assert agreed(huffman.encode(text)) == (text if symbol in PLAIN else None)


@pytest.mark.parametrize("length", range(7))
def test_padding(length: int) -> None:
    """Up to seven ones are taken, whatever the text ends in; a zero in them, or eight, are not."""
    for symbol in PLAIN:
        text = b"x" * 24 + b"0" * length + bytes([symbol])
        bits = "".join(map(code, text))
        room = -len(bits) % 8
        assert agreed(packed(bits + "1" * room)) == text
        assert agreed(packed(bits + "1" * (room + 8))) is None
        for at in range(room):
            assert agreed(packed(bits + "1" * at + "0" + "1" * (room - at - 1))) != text


def test_ends_inside() -> None:
    """EOS, and any beginning of it that is no padding, leaves the string to the tables."""
    for before in (b"a" * 24, *(b"x" * 24 + bytes([symbol]) for symbol in inflate._LAST)):
        bits = "".join(map(code, before))
        for ones in range(8, 60):
            room = -(len(bits) + ones) % 8
            for rest in ("0" * room, "1" * room):
                agreed(packed(bits + "1" * ones + rest))
        whole = bits + code(EOS) + code(ord("a"))
        assert agreed(packed(whole + "1" * (-len(whole) % 8))) is None


@settings(max_examples=400, deadline=None)
@given(st.binary(min_size=16, max_size=200))
def test_anything(data: bytes) -> None:
    """Of any bytes both make the same."""
    agreed(data)


def test_broken_texts() -> None:
    """Texts that lost, or changed, some of their end are no others'."""
    rnd = random.Random(7541)
    for _ in range(3000):
        data = bytearray(huffman.encode(bytes(rnd.choices(PLAIN, k=rnd.randint(24, 80)))))
        if rnd.random() < 0.5:
            del data[rnd.randint(16, len(data)) :]
        for _ in range(rnd.randint(0, 2)):
            data[-rnd.randint(1, 4)] ^= 1 << rnd.randrange(8)
        agreed(bytes(data))


def test_long_texts() -> None:
    """There is room for the text of any string: the shortest symbols too."""
    for size in (16, 17, 24, 1000, 60_000):
        count = size * 8 // 5
        bits = code(ord("0")) * count
        assert agreed(packed(bits + "1" * (-len(bits) % 8))) == b"0" * count
