"""What the owner of the log was writing when it was killed: a page of memory that outlives it.

Workers send again what was not acknowledged, and some of that stands in the files already. Which of
it cannot be told from the lines: many formats have equal ones. So the owner puts down, for each
output, of which turns of which worker the lines are that it is about to write, and where: at the
end of which file, of what size. What the file has more, when the next owner looks, was written.

The page is a file without a name, a slot for each output. A slot has two halves, of which one is in
force, and a half two places; each is written while the other is in force, and comes into force by
the change of one word:

    half in use
    length, place in use, 2 x (in a file or not, device, inode, size, newlines ahead, lines written)
    msgpack: key of the output, what was written before, what is being written; see `_Record`
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import Final

import msgspec

from h2log.workers.journal import anonymous_file

__all__ = ["Entry", "Mark", "Marks", "Written", "new_marks"]

SLOT: Final = 2 * 1024 * 1024
"""Bytes, of which only those take memory that are used: some 100 for each turn that is written at
a time, twice."""
_BASES: Final = (64, SLOT // 2)
_PLACES: Final = (2, 8)  # words after a half's beginning
_PAYLOAD: Final = 128
_ROOM: Final = SLOT // 2 - 64 - _PAYLOAD
_WORD: Final = 8

Entry = tuple[int, int, int, int]
"""A worker, 0 for the owner itself; its turn, 0 for what the owner says of it, a note or the lines
of its end; lines; how many of the worker's lines are accounted for with them, 0 without numbers."""
Written = dict[int, tuple[int, int, int]]
"""By worker: a turn before which all is written, how many lines of that turn are; and how many of
its lines are accounted for: they stand here, are told to be missing, or were left out."""


class _Record(msgspec.Struct, array_like=True):
    key: str
    written: Written
    entries: list[Entry]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def new_marks() -> int:
    """Return the descriptor of a new page."""
    return anonymous_file("h2log-marks", 0)


def advance(written: Written, entries: Iterable[Entry], lines: int) -> None:
    """Add the first `lines` lines of `entries` to what is written."""
    for worker, turn, count, upto in entries:
        took = min(count, lines)
        lines -= took
        if not took:
            return
        if not worker:
            continue
        last, of_it, known = written.get(worker, (0, 0, 0))
        if turn and last <= turn:
            last, of_it = turn, took + (of_it if last == turn else 0)
        written[worker] = (last, of_it, max(known, upto - (count - took)))


class Mark:
    """The owner's side of a slot: what it writes to one output.

    `batch` before it turns to other lines, `at` before each write to a file, `wrote` after it.
    Lines of workers that are not among `workers` will not come again.
    """

    def __init__(self, slot: mmap.mmap, key: str, written: Written, workers: set[int]) -> None:
        self.key = key
        self.written = written
        """What was written before the batch."""
        self._workers = workers
        self._map = slot
        self._words = memoryview(slot).cast("Q")
        self._entries: list[Entry] = []
        self._lines = 0  # of them
        self._at = 0  # the place in use, in words
        self.batch([])

    def batch(self, entries: list[Entry]) -> None:
        """Put down what is about to be written; all that was before is, as far as `wrote` said."""
        advance(self.written, self._entries, self._lines)
        for worker, *_ in self._entries:
            if worker not in self._workers:
                self.written.pop(worker, None)
        self._entries = entries
        self._lines = 0
        half = 1 if self._words[0] == 1 else 0  # the one that is not in force
        base = _BASES[half]
        data = _encode(_Record(self.key, self.written, entries))
        if len(data) > _ROOM:
            data = _encode(_Record(self.key, self.written, []))
        self._map[base + _PAYLOAD : base + _PAYLOAD + len(data)] = data
        words, word = self._words, base // _WORD
        words[word] = len(data)
        words[word + 1] = 0
        self._at = word
        self._put(0, (0, 0, 0, 0, 0, 0))
        words[0] = half + 1

    def _put(self, place: int, values: tuple[int, int, int, int, int, int]) -> None:
        at = self._at + _PLACES[place]
        for number, value in enumerate(values):
            self._words[at + number] = value
        self._words[self._at + 1] = place

    def at(self, descriptor: int, size: int, ahead: int) -> None:
        """Lines are about to be written to a file of `size` bytes, behind `ahead` other ones.

        Less than 0 says that they are none of the batch.
        """
        status = os.fstat(descriptor)
        place = 1 - self._words[self._at + 1]
        values = (ahead >= 0, status.st_dev, status.st_ino, size, max(0, ahead), self._lines)
        self._put(place, values)

    def wrote(self, lines: int) -> None:
        """So many lines more of the batch are written."""
        self._lines += lines
        self._put(1 - self._words[self._at + 1], (0, 0, 0, 0, 0, self._lines))

    def forget(self, worker: int) -> None:
        """Nothing of a worker will come again."""
        self.written.pop(worker, None)

    def merge(self, written: Written) -> None:
        """Know what another has written to the same output, and put it down between two batches."""
        _merge(self.written, written)
        if not self._entries:
            self.batch([])

    def so_far(self) -> Written:
        """Return what is written."""
        written = dict(self.written)
        advance(written, self._entries, self._lines)
        return written

    def end(self) -> Written:
        """Leave the slot to others; return what is written."""
        advance(self.written, self._entries, self._lines)
        self._words[0] = 0
        return self.written


class Marks:
    """The slots of the page `descriptor`, and what another owner has left in them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.workers: set[int] = set()
        """Those whose lines may come again."""
        self._slots: list[mmap.mmap] = []
        self._taken: dict[int, Mark] = {}
        self._left: dict[str, list[tuple[int, _Record, tuple[int, ...]]]] = {}
        for number in range(os.fstat(descriptor).st_size // SLOT):
            slot = self._map(number)
            if (found := _left(slot)) is not None:
                self._left.setdefault(found[0].key, []).append((number, *found))

    def _map(self, number: int) -> mmap.mmap:
        slot = mmap.mmap(self._descriptor, SLOT, offset=number * SLOT)
        self._slots.append(slot)
        return slot

    def take(self, key: str, path: str) -> tuple[Mark | None, Written]:
        """Return a slot for the output `key` at `path`, and what another owner has written to it.

        There may be no room for a slot.
        """
        left = self._left.pop(key, [])
        written: Written = {}
        for beside in self._taken.values():
            if beside.key == key:
                _merge(written, beside.so_far())
        for _, record, place in left:
            found = dict(record.written)
            advance(found, record.entries, place[5] + (_more(path, *place[1:5]) if place[0] else 0))
            _merge(written, found)
        kept = {number for records in self._left.values() for number, *_ in records}
        free = (n for n in range(len(self._slots)) if n not in self._taken and n not in kept)
        number = left[0][0] if left else next(free, len(self._slots))
        if number == len(self._slots):
            try:
                os.ftruncate(self._descriptor, (number + 1) * SLOT)
                self._map(number)
            except (OSError, ValueError):
                return None, written
        mark = self._taken[number] = Mark(self._slots[number], key, dict(written), self.workers)
        for other, *_ in left[1:]:
            self._slots[other][:_WORD] = bytes(_WORD)
        return mark, written

    def leave(self, mark: Mark) -> None:
        """An output is closed; one with the same key may be open."""
        self._taken = {n: other for n, other in self._taken.items() if other is not mark}
        written = mark.end()
        for other in self._taken.values():
            if other.key == mark.key:
                other.merge(written)

    def forget(self, worker: int) -> None:
        """Nothing of a worker will come again."""
        self.workers.discard(worker)
        for mark in self._taken.values():
            mark.forget(worker)


def _merge(written: Written, other: Written) -> None:
    for worker, place in other.items():
        last, of_it, upto = written.get(worker, place)
        written[worker] = (*max(place[:2], (last, of_it)), max(place[2], upto))


def _left(slot: mmap.mmap) -> tuple[_Record, tuple[int, ...]] | None:
    """Return what a slot says: what was being written, and the place in use."""
    with memoryview(slot).cast("Q") as words:
        if words[0] not in (1, 2):
            return None
        base = _BASES[words[0] - 1]
        word = base // _WORD
        at = word + _PLACES[words[word + 1] & 1]
        length, place = words[word], tuple(words[at : at + 6])
    try:
        return _decode(slot[base + _PAYLOAD : base + _PAYLOAD + length]), place
    except msgspec.MsgspecError:  # of another release, during an upgrade
        return None


def _more(path: str, device: int, inode: int, size: int, ahead: int) -> int:
    """Return how many lines a file has behind `size` bytes and `ahead` lines.

    Somebody may have renamed it just now.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        names = [path, *(entry.path for entry in os.scandir(folder) if entry.inode() == inode)]
    except OSError:
        names = [path]
    for name in names:
        try:
            with open(name, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) == (device, inode):
                    file.seek(size)
                    return max(0, file.read().count(b"\n") - ahead)
        except OSError:
            continue
    return 0
