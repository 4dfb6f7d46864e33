"""Which files stay in memory: bounded in bytes, by recency and by frequency (W-TinyLFU).

What comes in goes through a small *window*; from there it gets into the main part if there is room,
or if it is asked for more often than all that would have to leave for it, together. So files that
are asked for once, a crawler's or a scanner's, do not push out those that are asked for every
second, and one large file has to be worth as much as the many small ones it would replace. The main
part is in two: *probation*, and *protected* for what was used again there. The least recently used
of each goes first.

G. Einziger and others: TinyLFU (2017); Lightweight robust size aware cache management (2021), whose
rule of admission by the victims' aggregated frequency this is.

Looking something up is a look into `entries`, and costs nothing here: `used` is to be called once
in a while for what is in use (`StaticFolder` does at most once a second for each).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from h2log.app.files.sketch import FrequencySketch

__all__ = ["Memory"]

_WINDOW_PART: Final = 100
"""The window has the 100th part, as in the paper: little recency, much frequency."""
_PROTECTED: Final = 0.8
"""The part of the rest that may be protected, as in the paper."""
_USUAL_COST: Final = 8 * 1024
"""Bytes that an entry takes, of the order of: what the sketch's size is made from."""

_WINDOW, _PROBATION, _PROTECTED_PART = 0, 1, 2
OUT: Final = -1
"""The part of an entry that is not kept."""


class Kept(Protocol):
    """What is kept."""

    key: str
    part: int
    """Owned by the memory: `OUT` until it is in."""
    cost: int
    """Bytes; what changes it calls `Memory.grown`."""


_Entry = TypeVar("_Entry", bound=Kept)


class Memory(Generic[_Entry]):
    """At most `limit` bytes of entries; `on_drop` is called with each that had to leave."""

    def __init__(self, limit: int, on_drop: Callable[[_Entry], None]) -> None:
        self.limit = limit
        self.bytes = 0
        """What the entries cost now."""
        self.entries: dict[str, _Entry] = {}
        self._on_drop = on_drop
        self._parts: tuple[OrderedDict[str, _Entry], ...] = (
            OrderedDict(),
            OrderedDict(),
            OrderedDict(),
        )
        self._sizes = [0, 0, 0]
        width = 1024
        while width < min(4 * limit // _USUAL_COST, 1 << 16):
            width *= 2
        self._sketch = FrequencySketch(width)

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, entry: _Entry) -> bool:
        """Take an entry in, in the place of one of the same key; say whether it stayed."""
        old = self.entries.get(entry.key)
        if old is not None:
            self.drop(old)
        self._sketch.count(entry.key)
        if entry.cost > self.limit:
            return False
        self.entries[entry.key] = entry
        self._add(entry, _WINDOW)
        window = self._parts[_WINDOW]
        while window and (
            self.bytes > self.limit or self._sizes[_WINDOW] > self.limit // _WINDOW_PART
        ):
            candidate = next(iter(window.values()))
            if self.bytes <= self.limit or self._admit(candidate):
                self._move(candidate, _PROBATION)
            else:
                self.drop(candidate)
        return entry.part != OUT

    def used(self, entry: _Entry) -> None:
        """Say that an entry is in use."""
        self._sketch.count(entry.key)
        if entry.part == OUT:
            return
        if entry.part != _PROBATION:
            self._parts[entry.part].move_to_end(entry.key)
            return
        self._move(entry, _PROTECTED_PART)
        protected = self._parts[_PROTECTED_PART]
        while self._sizes[_PROTECTED_PART] > self.limit * _PROTECTED and len(protected) > 1:
            self._move(next(iter(protected.values())), _PROBATION)

    def grown(self, entry: _Entry, cost: int) -> bool:
        """Note that an entry now costs `cost` bytes; others leave for it. Say whether it stayed."""
        if entry.part == OUT:
            entry.cost = cost
            return False
        more = cost - entry.cost
        entry.cost = cost
        self.bytes += more
        self._sizes[entry.part] += more
        while self.bytes > self.limit:
            self.drop(self._oldest(entry))
        return entry.part != OUT

    def drop(self, entry: _Entry) -> None:
        """Let an entry go."""
        if entry.part != OUT:
            del self.entries[entry.key]
            self._remove(entry)
            self._on_drop(entry)

    def _admit(self, candidate: _Entry) -> bool:
        """Make room for a candidate out of the window, if it is worth what would leave for it."""
        worth = self._sketch.frequency(candidate.key)
        needed = self.bytes - self.limit
        victims: list[_Entry] = []
        for part in (_PROBATION, _PROTECTED_PART):
            for victim in self._parts[part].values():
                if needed <= 0:
                    break
                worth -= self._sketch.frequency(victim.key)
                if worth <= 0:
                    return False
                victims.append(victim)
                needed -= victim.cost
        if needed > 0:
            return False
        for victim in victims:
            self.drop(victim)
        return True

    def _oldest(self, spared: _Entry) -> _Entry:
        """Return what goes first; `spared` only when there is nothing else."""
        for part in (_PROBATION, _PROTECTED_PART, _WINDOW):
            for entry in self._parts[part].values():
                if entry is not spared:
                    return entry
        return spared

    def _add(self, entry: _Entry, part: int) -> None:
        entry.part = part
        self._parts[part][entry.key] = entry
        self._sizes[part] += entry.cost
        self.bytes += entry.cost

    def _remove(self, entry: _Entry) -> None:
        del self._parts[entry.part][entry.key]
        self._sizes[entry.part] -= entry.cost
        self.bytes -= entry.cost
        entry.part = OUT

    def _move(self, entry: _Entry, part: int) -> None:
        self._remove(entry)
        self._add(entry, part)
