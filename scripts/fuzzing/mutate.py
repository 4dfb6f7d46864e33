"""A mutator that knows frames: it changes conversations a little, and keeps what led somewhere new.

Most of a mutated conversation still holds, so that it reaches deep; what is changed is a frame's
place, any part of it, its bytes, where the input is cut, how time passes, and the application.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

import case as cases
from case import Case
from corpus import Item, conversations, pieces, steps_of
from execute import GREETING

__all__ = ["Mutator"]

_FLAGS: Final = (0, 1, 4, 5, 8, 0x0C, 0x0D, 0x20, 0x24, 0x2D, 0xFF)
_IDS: Final = (0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 99, 2**31 - 1, 2**31 + 1)
_BYTES: Final = (0, 1, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0x82, 0xBE, 0xFE, 0xFF)
_KEPT: Final = 512
_LARGE: Final = 8_000


class Mutator:
    """Makes cases out of a random generator."""

    def __init__(self, random: Random) -> None:
        self._random = random
        talks: list[tuple[list[Item], int]] = [
            (items, cases.PREFACE_SENT | cases.REFERENCE * (number & 1))
            for number, items in enumerate(conversations())
        ]
        greeting: list[Item] = [GREETING[:24], GREETING[24:33], GREETING[33:]]
        talks += [(greeting + items, 0) for items, _ in talks[:8]]
        self._pool = [
            (items, bytes(random.randrange(256) for _ in range(8)), profile)
            for items, profile in talks
        ]
        self._first = len(self._pool)
        self._pieces = pieces()
        self._made: tuple[list[Item], bytes, int] = self._pool[0]

    def seeds(self) -> Iterator[Case]:
        """Make every conversation as it is, with each way of answering."""
        for items, _, greeted in self._pool[: self._first]:
            for kind in range(16):
                for profile in (1, cases.REFERENCE | 2):
                    yield Case(greeted & 0x80 | profile, bytes((kind,)) * 8, steps_of(items, []))

    def next(self) -> Case:
        """Make a case."""
        below = self._below
        items, script, profile = self._pool[below(len(self._pool))]
        items = items[:]
        for _ in range(1 + below(4)):
            items = self._mutated(items)
        if below(4) == 0:
            changed = bytearray(script)
            changed[below(8)] = below(256)
            script = bytes(changed)
        if below(3) == 0:
            profile = profile & 0xF8 | below(8)
        if below(8) == 0:
            profile ^= cases.REFERENCE
        self._made = items, script, profile
        size = sum([len(item) for item in items if isinstance(item, bytes)])
        cuts: list[int] = []
        how = below(8)
        if size and how < 3:
            cuts = sorted([below(size) for _ in range(1 + below(4))])
        elif size and how == 3:
            step = 1 + below(64)
            cuts = list(range(step, min(size, 60 * step), step))
        return Case(profile, script, steps_of(items, cuts))

    def keep(self) -> None:
        """The last case led somewhere new: mutate it further."""
        items = self._made[0]
        if sum([len(item) for item in items if isinstance(item, bytes)]) > _LARGE:
            return  # it would only be slow
        if len(self._pool) < _KEPT:
            self._pool.append(self._made)
        else:
            self._pool[self._first + self._below(_KEPT - self._first)] = self._made

    def _below(self, bound: int) -> int:
        return int(self._random.random() * bound)

    def _mutated(self, items: list[Item]) -> list[Item]:
        below = self._below
        how = below(16)
        size = len(items)
        if how < 4 or not size:  # put something in
            items.insert(below(size + 1), self._pieces[below(len(self._pieces))])
        elif how == 4:
            del items[below(size)]
        elif how == 5:  # the same again, once or often
            place = below(size)
            item = items[place]
            times = 1 if below(8) else 2 + below(20)
            if not isinstance(item, bytes) or len(item) * times < 40_000:
                items[place:place] = [item] * times
        elif how == 6:
            one, other = below(size), below(size)
            items[one], items[other] = items[other], items[one]
        elif how == 7 and size < 60:  # the end of another
            other_items = self._pool[below(len(self._pool))][0]
            items = items[: below(size + 1)] + other_items[below(len(other_items) + 1) :]
        elif how == 8 and below(4) == 0 and size < 30:  # more requests of the same kind
            self._multiply(items)
        else:
            place = below(size)
            item = items[place]
            if isinstance(item, bytes):
                items[place] = self._frame(item)
            else:
                items[place] = item[0], below(256)
        return items

    def _multiply(self, items: list[Item]) -> None:
        below = self._below
        place = below(len(items))
        item = items[place]
        if isinstance(item, bytes) and 9 <= len(item) < 600:
            number = 1 + 2 * below(200)
            items[place : place + 1] = [
                item[:5] + (number + 2 * n).to_bytes(4, "big") + item[9:]
                for n in range(below(40) if below(6) else 130)
            ]

    def _frame(self, item: bytes) -> bytes:
        below = self._below
        how = below(12)
        if how < 2 and len(item) >= 9:
            return item[:4] + bytes((_FLAGS[below(len(_FLAGS))],)) + item[5:]
        if how < 5 and len(item) >= 9:
            return item[:5] + _IDS[below(len(_IDS))].to_bytes(4, "big") + item[9:]
        if how == 5:
            return item[:3] + bytes((below(18),)) + item[4:]
        if how == 6:  # another length, with the payload as it is
            return (below(40) if below(3) else below(1 << 24)).to_bytes(3, "big") + item[3:]
        changed = bytearray(item)
        if how < 10:  # another payload, with the right length
            for _ in range(1 + below(3)):
                place = 9 + below(max(1, len(changed) - 9))
                edit = below(5)
                if edit == 0:
                    changed[place : place + 1] = bytes((below(256),))
                elif edit == 1:
                    changed[place : place + 1] = bytes((_BYTES[below(len(_BYTES))],))
                elif edit == 2:
                    changed.insert(place, below(256))
                elif edit == 3:
                    del changed[place : place + 1 + below(4)]
                else:
                    begin = 9 + below(max(1, len(changed) - 9))
                    changed[place:place] = changed[begin : begin + 1 + below(16)]
            changed[:3] = max(0, len(changed) - 9).to_bytes(3, "big")
        else:  # any byte
            for _ in range(1 + below(3)):
                place = below(len(changed) + 1)
                edit = below(3)
                if edit == 0:
                    changed[place : place + 1] = bytes((below(256),))
                elif edit == 1:
                    changed.insert(place, below(256))
                else:
                    del changed[place : place + 1 + below(4)]
        return bytes(changed)
