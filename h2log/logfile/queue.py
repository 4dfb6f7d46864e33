"""The lines that wait to be written, in order, and the gaps between them.

Bounded by its owner, who asks for `size` before he adds. All of it belongs to the loop's thread,
but `data`, `offset` and `note` of what is being written, which stand still for it meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from h2log.logfile.notes import Gap

__all__ = ["Queue"]

_CHUNK: Final = 256 * 1024
"""Bytes handed on at a time: a thread hop (~50 µs) is little against writing them."""

_MOST_GAPS: Final = 1000
"""Blocks and gaps in the queue from which on a gap with another reason is no gap of its own."""


class Queue:
    """Blocks of whole lines, and gaps. What is being written is `data`, from `offset` on."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of lines, also of those being written."""
        self.data = b""
        self.offset = 0
        self.note: Gap | None = None
        """What `data` tells of, when it is a note and not lines."""
        self._blocks: deque[bytes | Gap] = deque()
        self._last: Gap | None = None  # the lines missing after the last block

    def __bool__(self) -> bool:
        """Return whether anything waits that is not yet being written."""
        return bool(self._blocks) or self._last is not None

    def add(self, block: bytes) -> None:
        """Add whole lines."""
        if self._last is not None:
            self._blocks.append(self._last)
            self._last = None
        self._blocks.append(block)
        self.size += len(block)

    def miss(
        self,
        lines: int,
        first: int,
        last: int,
        now: float,
        reason: str,
        kind: str = "dropped",
        worker: int = 0,
        upto: int = 0,
    ) -> bool:
        """Add lines that are missing; `kind`, `worker` and `upto` are a gap's.

        Return whether they are a gap of their own, and no more lines of the last one.
        """
        gap = self._last
        # What explains the first of them need not explain the others, as long as it has few words.
        told = reason if len(self._blocks) < _MOST_GAPS or gap is None else gap.reason
        if gap is None or (gap.kind, gap.worker, gap.reason) != (kind, worker, told):
            if gap is not None:
                self._blocks.append(gap)
            self._last = Gap(lines, first, last, now, reason, kind, worker, upto)
            return True
        gap.lines += lines
        gap.last = last
        gap.upto = max(gap.upto, upto)
        return False

    def next(self) -> bool:
        """Turn to what comes next: lines are in `data`, a gap is in `note`; False if nothing."""
        self.data = b""
        self.offset = 0
        self.note = None
        taken: list[bytes] = []
        size = 0
        blocks = self._blocks
        while blocks and size < _CHUNK:
            block = blocks[0]
            if isinstance(block, Gap):
                if not taken:
                    blocks.popleft()
                    self.note = block
                break
            blocks.popleft()
            size += len(block)
            taken.append(block)
        self.data = b"".join(taken)
        if not taken and self.note is None:
            self.note, self._last = self._last, None
        return bool(taken) or self.note is not None

    def lines(self) -> int:
        """Return how many lines are not written yet."""
        count = sum(b.count(b"\n") for b in tuple(self._blocks) if not isinstance(b, Gap))
        return count if self.note is not None else count + self.data.count(b"\n", self.offset)

    def rest(self, most: int) -> bytes:
        """Return the last lines that are not written, at most so many bytes of them."""
        taken: list[bytes] = []
        blocks = [block for block in self._blocks if not isinstance(block, Gap)]
        if self.note is None:
            blocks.insert(0, self.data[self.offset :])
        while blocks and most > 0:
            block = blocks.pop()
            if len(block) > most:
                block = block[block.find(b"\n", len(block) - most) + 1 :]
                most = 0
            most -= len(block)
            taken.append(block)
        return b"".join(reversed(taken))

    def recount(self) -> None:
        """Find out `size` anew."""
        self.size = sum(len(b) for b in tuple(self._blocks) if not isinstance(b, Gap))
        if self.note is None:
            self.size += len(self.data) - self.offset

    def untold(self) -> int:
        """Return how many lines are missing without a note that tells of them."""
        gaps = [block for block in self._blocks if isinstance(block, Gap)]
        if self._last is not None:
            gaps.append(self._last)
        if self.note is not None and self.offset < len(self.data):
            gaps.append(self.note)
        return sum(gap.lines for gap in gaps)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]
