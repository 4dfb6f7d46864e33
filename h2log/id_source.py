"""Makes session and request ids.

Ids are UUID version 7 (RFC 9562 section 5.7) written as 32 hex digits, so that they sort by the
time they were made. The `uuid6` package makes the first of each second; those after it have the
current millisecond in front and its random part plus a step behind (RFC 9562 section 6.2, method
2: monotonic random), which keeps the order total and costs a tenth of a new one.

It is apart from `ids`, as that package loads much: who only reads ids does without.
"""

from __future__ import annotations

import os
import time
from random import getrandbits

import uuid6

__all__ = ["IdSource", "new_id"]

# The low half of a UUID is the variant (2 bits) and 62 random bits. Clearing the top random bit of
# each seed leaves 2**61 of room before a sum could reach the variant; steps are below 2**32, so a
# second would have to hold 2**29 ids to get there.
_SEED_MASK = ~(1 << 61)
_LOW_HALF = (1 << 64) - 1
_SEED_LIFE = 1000  # milliseconds


class IdSource:
    """Makes ids: call it for the next one.

    Each id is greater, as text, than every earlier one of the same source, also when the wall
    clock is set back (the latest millisecond then stays in use until the clock has caught up).
    """

    __slots__ = ("_head", "_low", "_middle", "_millisecond", "_seeded", "_step")

    def __init__(self) -> None:
        self._millisecond = 0  # of the latest id
        self._seeded = 0  # the millisecond of the latest seed
        self._middle = ""  # version and the seed's first random bits: four digits
        self._head = ""  # the millisecond and the middle: sixteen digits
        self._low = 0
        self._step = 0

    def __call__(self, wall: float | None = None) -> str:
        """Return a new id: 32 lower-case hex digits. `wall` is the time, if it was just read."""
        millisecond = int((time.time() if wall is None else wall) * 1000)
        self._low += self._step
        if millisecond > self._millisecond:
            self._millisecond = millisecond
            if millisecond - self._seeded >= _SEED_LIFE:
                self._seed(millisecond)
            self._head = f"{millisecond:012x}{self._middle}"
        return f"{self._head}{self._low:016x}"

    def reseed(self) -> None:
        """Forget the seed: in a forked process, whose parent goes on with it."""
        self._millisecond = self._seeded = 0

    def _seed(self, millisecond: int) -> None:
        value = uuid6.uuid7().int
        self._middle = f"{value >> 64 & 0xFFFF:04x}"
        self._low = value & _LOW_HALF & _SEED_MASK
        self._step = getrandbits(32) | 1
        self._seeded = millisecond


new_id = IdSource()
"""The process's source of session and request ids."""
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=new_id.reseed)
