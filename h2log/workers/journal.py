r"""What a worker was at when it was killed: a page of memory that outlives it.

A request that begins and ends within one turn of a worker's loop is told to the log's owner only
with its line, at the end of the turn. Killed inside the turn, the worker would take it along, and
perhaps its client has the answer. So each request is put down here when it is opened, for less
than a microsecond, and the owner reads what the last turns left behind.

The page is a file without a name. Its head is words of 8 bytes; then come the entries:

    turn, request id, session id, protocol, client, stream, lengths of method and path, both, \n
"""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from collections.abc import Callable
from typing import Final, NamedTuple

from h2log.access.record import AccessRecord

__all__ = ["Entry", "Journal", "Left", "anonymous_file", "left_behind", "new_journal"]

SIZE: Final = 1024 * 1024
"""Bytes: some 6,000 requests, or the longest path that is allowed and a few thousand others."""
_HEAD: Final = 64
_END, _SEQUENCE, _ACKNOWLEDGED, _OPENED = 0, 1, 2, 3
_ENTRY = re.compile(rb"(\d+) (\w+) (\w+) (\S*) (\S*) (\d+) (\d+) (\d+) ")


def anonymous_file(name: str, size: int) -> int:
    """Return the descriptor of a file in memory that has no name in any folder."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create(name)
    else:  # not on Linux
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, size)
    return number


def new_journal() -> int:
    """Return the descriptor of a new page."""
    return anonymous_file("h2log-journal", SIZE)


class Journal:
    """The worker's side of the page `descriptor`, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._words = memoryview(self._map)[:_HEAD].cast("Q")
        self._map.seek(_HEAD)
        self._write: Callable[[bytes], int] = self._map.write
        self._tell: Callable[[], int] = self._map.tell
        self._opened = 0
        self.turn = 1
        """The number of the turn that goes on."""

    def open(self, record: AccessRecord) -> bool:
        """Put down a request that was opened; False when there is no room."""
        session, facts = record.session, record.facts
        method, path = facts.method, facts.path
        try:
            self._write(
                f"{self.turn} {record.id} {session.id} {session.protocol} {session.client} "
                f"{record.stream_id} {len(method)} {len(path)} {method}{path}\n".encode(
                    "latin-1", "replace"
                )
            )
        except ValueError:
            return False
        self._opened += 1
        self._words[_OPENED] = self._opened
        self._words[_END] = self._tell()
        return True

    def clear(self) -> None:
        """Forget the entries: their requests are told of elsewhere."""
        self._words[_END] = _HEAD
        self._map.seek(_HEAD)

    def finished(self, sequence: int) -> None:
        """Note the number of the last line that was made."""
        self._words[_SEQUENCE] = sequence

    def acknowledged(self, sequence: int) -> None:
        """Note the number of the last line that is taken care of."""
        self._words[_ACKNOWLEDGED] = sequence


class Entry(NamedTuple):
    """A request as the page has it."""

    turn: int
    id: str
    session: str
    protocol: str
    client: str
    stream: int
    method: str
    path: str


class Left(NamedTuple):
    """What a page says."""

    entries: list[Entry]
    sequence: int
    """The number of the last line that was made."""
    acknowledged: int
    """The number of the last line that was known to be taken care of."""
    opened: int
    """How many requests were opened, ever."""


def left_behind(descriptor: int) -> Left:
    """Return what the page `descriptor` says. Its worker has ended."""
    data = os.pread(descriptor, SIZE, 0)
    if len(data) < _HEAD:
        return Left([], 0, 0, 0)
    words = memoryview(data)[:_HEAD].cast("Q")
    end, at, entries = min(words[_END], len(data)), _HEAD, []
    while at < end:
        found = _ENTRY.match(data, at, end)
        if found is None:
            break
        turn, request, session, protocol, client, stream, *lengths = found.groups()
        middle = found.end() + int(lengths[0])
        at = middle + int(lengths[1])
        texts = (data[found.end() : middle], data[middle:at])
        method, path = (text.decode("latin-1") for text in texts)
        entries.append(
            Entry(
                int(turn),
                request.decode(),
                session.decode(),
                protocol.decode("latin-1"),
                client.decode("latin-1"),
                int(stream),
                method,
                path,
            )
        )
        at += 1
    return Left(entries, words[_SEQUENCE], words[_ACKNOWLEDGED], words[_OPENED])
