"""How many connections each worker has: a page that all of them see, and accept by.

All workers accept from the same sockets, so that none of them waits for one that is busy, frozen or
dead; but then the first to wake up would take a whole burst (measured: 50 of 50 connections, by one
of two workers). So a worker that has more connections than another leaves the next one to it for
about a millisecond, and takes it itself if nobody has. SO_REUSEPORT, with a socket for each worker,
spreads no better than dice, and what it has given to a worker that hangs, hangs.

Each worker writes one word of the page: its connections and one, or 0 when it accepts none. The
first word is the supervisor's: how many words are in use.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from h2log.workers.journal import anonymous_file

__all__ = ["Board", "clear_place", "new_board", "set_places"]

_WORDS: Final = 4096
_WORD: Final = 8


def new_board() -> int:
    """Return the descriptor of a new page."""
    return anonymous_file("h2log-board", _WORDS * _WORD)


def set_places(descriptor: int, places: int) -> None:
    """Say that places 1 to `places` may be in use."""
    os.pwrite(descriptor, min(places, _WORDS - 1).to_bytes(_WORD, "little"), 0)


def clear_place(descriptor: int, place: int) -> None:
    """A worker has ended."""
    os.pwrite(descriptor, bytes(_WORD), place % _WORDS * _WORD)


class Board:
    """The worker's side: its `place` on the page `descriptor`, which stays the caller's."""

    def __init__(self, descriptor: int, place: int) -> None:
        self._words = memoryview(mmap.mmap(descriptor, _WORDS * _WORD)).cast("Q")
        self._place = place % _WORDS

    def wait(self, connections: int) -> bool:
        """Note our connections; return whether another worker should rather take the next one.

        An eighth more than another has is no reason: bursts are to be accepted fast.
        """
        words = self._words
        words[self._place] = connections + 1
        fewest = min(filter(None, words[1 : words[0] + 1]), default=0)
        return connections + 1 - fewest > connections >> 3

    def leave(self) -> None:
        """We take no more."""
        self._words[self._place] = 0
