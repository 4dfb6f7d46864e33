"""The engine's parsers by themselves: against `hpack`, and against never raising."""

from __future__ import annotations

import re
from random import Random
from typing import Final

import hpack
from client import Broken
from corpus import BLOCKS, BROWSER, literal
from hpack.huffman_table import decode_huffman

from h2log.errors import SessionError
from h2log.http2 import huffman
from h2log.http2.head import parse_request, trailer_fault
from h2log.http2.hpack import Decoder, encode
from h2log.http2.paths import known, path_of
from h2log.http2.priority import parse_priority

__all__ = ["PARSERS", "check"]

_NAMES: Final = [
    *b":method :path :scheme :authority :protocol content-length host cookie te".split(b" "),
    *b"connection priority x X \xff".split(b" "),
    b"",
    b"a b",
]
_VALUES: Final = [
    *b"GET CONNECT / https example.org 5 007 trailers u=1 \xff\xff".split(b" "),
    b"",
    b" x",
    b"\0",
    b"9" * 20,
    b"x" * 300,
]
_PRIORITIES: Final = [*b'u= i = ?0 ?1 , ; \t 9 3 u=3 u=5 \xff ( a=1 "'.split(b" "), b" ", b", "]
_LONG_INTEGER: Final = re.compile(rb"[\x80-\xff]{4}").search


def _mutated(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randrange(4)):
        place = random.randrange(len(changed) + 1)
        edit = random.randrange(3)
        if edit == 0:
            changed[place : place + 1] = bytes((random.randrange(256),))
        elif edit == 1:
            changed.insert(place, random.randrange(256))
        else:
            del changed[place : place + 1 + random.randrange(4)]
    return bytes(changed)


def _text(random: Random) -> bytes:
    if random.random() < 0.5:
        return random.choice(_VALUES)
    return random.randbytes(random.randrange(40))


def make(parser: str, random: Random) -> list[bytes]:
    """Make an input of a parser: pieces in order."""
    if parser == "hpack":
        encoder = hpack.Encoder()
        blocks = []
        for _ in range(1 + random.randrange(5)):
            how = random.randrange(4)
            if how == 0:
                block = random.choice(BLOCKS)
            elif how == 1:
                block = bytes(
                    encoder.encode(random.sample(BROWSER, 5), huffman=random.random() < 0.5)
                )
            else:
                if random.random() < 0.2:
                    encoder.header_table_size = random.choice((0, 50, 200, 1000, 4096))
                fields = [
                    (random.choice(_NAMES), _text(random)) for _ in range(random.randrange(6))
                ]
                block = bytes(encoder.encode(fields, huffman=how == 2))
            if random.random() < 0.1:
                block += literal(b"n" * random.randrange(30), _text(random), 0x40)
            blocks.append(_mutated(random, block) if random.random() < 0.4 else block)
        return blocks
    if parser == "huffman":
        coded = huffman.encode(_text(random) * (1 + random.randrange(3)))
        return [_mutated(random, coded) if random.random() < 0.6 else coded]
    if parser == "priority":
        parts = random.choices(_PRIORITIES, k=random.randrange(8))
        if random.random() < 0.1:  # more digits than `int` takes
            parts.insert(random.randrange(len(parts) + 1), b", u=" + b"9" * 5000)
        return [b"".join(parts)]
    pairs = range(random.randrange(9))
    return [part for _ in pairs for part in (random.choice(_NAMES), _text(random))]


def check(parser: str, data: list[bytes]) -> str:
    """Run a parser; return the outcome. Whatever is wrong is raised."""
    if parser == "hpack":
        return _check_hpack(data)
    if parser == "huffman":
        return _check_huffman(b"".join(data))
    if parser == "priority":
        urgency, incremental = parse_priority(b"".join(data))
        if not 0 <= urgency <= 7 or not isinstance(incremental, bool):
            raise Broken(f"priority {urgency}, {incremental}")
        return f"{urgency} {incremental}"
    fields = list(zip(data[::2], data[1::2], strict=False))
    fault = parse_request(list(fields), bool(len(fields) & 1)).fault
    trailer_fault(fields)
    return "" if fault is None else fault.split(" ")[0]


def _check_hpack(blocks: list[bytes]) -> str:
    ours, theirs = Decoder(1 << 24, 100_000), hpack.Decoder(1 << 24)
    for block in blocks:
        path = path_of(block)
        if path != path_of(block) or known.get(block, path) != path:
            raise Broken(f"{block.hex()} is remembered as another path")
        wanted: list[tuple[bytes, bytes]] | None
        try:
            wanted = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            wanted = None
        try:
            fields = ours.decode(block)
        except SessionError:
            if wanted is not None and not _is_stricter(block):
                raise Broken(f"hpack takes {block.hex()}, we do not") from None
            return "fault"
        if wanted is None:
            raise Broken(f"hpack does not take {block.hex()}, we do")
        if fields != wanted:
            raise Broken(f"{block.hex()} is {wanted}, not {fields}")
        entries = [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]
        if ours._dynamic[::-1] != entries:
            raise Broken(f"the tables differ after {block.hex()}")
        if ours._size > ours._limit:
            raise Broken("the table is over its limit")
        if 0 < len(fields) < 100 and hpack.Decoder().decode(encode(fields), raw=True) != fields:
            raise Broken(f"{fields} are not encoded as themselves")
    return "fields"


def _is_stricter(block: bytes) -> bool:
    """Say whether a block may have what only we refuse: an integer of five bytes or more."""
    return _LONG_INTEGER(block) is not None


def _check_huffman(data: bytes) -> str:
    wanted: bytes | None
    try:
        wanted = bytes(decode_huffman(data))
    except hpack.HPACKError:
        wanted = None
    try:
        text = huffman.decode(data)
    except huffman.HuffmanError:
        if wanted is not None:
            raise Broken(f"hpack takes {data.hex()}, we do not") from None
        return "fault"
    if text != wanted:
        raise Broken(f"{data.hex()} is {wanted!r}, not {text!r}")
    if huffman.decode(huffman.encode(text)) != text:
        raise Broken(f"{text!r} is not encoded as itself")
    return "text"


PARSERS: Final = ("hpack", "huffman", "priority", "head")
"""What `make` and `check` know, by name."""
