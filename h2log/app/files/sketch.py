"""How often something was asked for, roughly, in little memory (TinyLFU).

A count-min sketch: four rows of counters, a key counts in one of each, and its frequency is the
least of its four. After a while all counters are halved, so that what was popular yesterday does
not stay for ever. G. Einziger, R. Friedman, B. Manes: TinyLFU, a highly efficient cache admission
policy (2017).
"""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_FREQUENT", "FrequencySketch"]

MOST_FREQUENT: Final = 15
"""The most that a counter counts, as in the paper: more would only take longer to forget."""
_ROWS: Final = 4
_HALVED: Final = bytes(count // 2 for count in range(256))
_SAMPLE: Final = 2.5
"""Counts for each counter of a row after which all are halved: as in Caffeine, ten for each entry
of the cache, which has four counters a row."""


class FrequencySketch:
    """Estimates how often each of very many keys was counted.

    `width` counters a row, a power of two up to 65,536: some four times the entries to be compared.
    Hashes are Python's, seeded anew in each process: nobody outside can make keys collide.
    """

    __slots__ = ("_left", "_mask", "_rows", "_sample")

    def __init__(self, width: int) -> None:
        if width & (width - 1) or not 0 < width <= 1 << 16:
            raise ValueError(f"the width is a power of two up to 65,536, not {width}")
        self._mask = width - 1
        self._rows = [bytearray(width) for _ in range(_ROWS)]
        self._sample = self._left = max(1, int(width * _SAMPLE))

    def count(self, key: str) -> None:
        """Count a key once."""
        bits = hash(key)
        least = self.frequency(key)
        if least < MOST_FREQUENT:
            for row in self._rows:  # only the least ones: what collides counts less
                at = bits & self._mask
                bits >>= 16
                if row[at] == least:
                    row[at] = least + 1
        self._left -= 1
        if not self._left:
            self._rows = [row.translate(_HALVED) for row in self._rows]
            self._left = self._sample // 2

    def frequency(self, key: str) -> int:
        """Return about how often a key was counted: never less, but for halving and the bound."""
        bits = hash(key)
        least = MOST_FREQUENT
        for row in self._rows:
            count = row[bits & self._mask]
            if count < least:
                least = count
            bits >>= 16
        return least
