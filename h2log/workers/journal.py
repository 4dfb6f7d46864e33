r"""What a worker was at when it was killed: a page of memory that outlives it.

A request that begins and ends within one turn of a worker's loop is told to the log's owner only
with its line, at the end of the turn. Killed inside the turn, the worker would take it along, and
perhaps its client has the answer. So each request is put down here when it is opened, and again
when its answer is out and its line is about to be made, together for a microsecond; the owner reads
what the last turns left behind. Answers go out at the end of a turn (uvloop's writes are its last
step): a request that had ended by then without a word here has not been answered.

The page is a file without a name. Its head is words of 8 bytes; then come the entries, of requests
that were opened and of those that have ended:

    turn, session id, protocol, client, request id, stream, lengths of method and path, both, \n
    + and `_END_OF_REQUEST`
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from collections.abc import Callable
from typing import Final, NamedTuple

from h2log.access.record import AccessRecord, Outcome, Session

__all__ = ["Ending", "Entry", "Journal", "Left", "anonymous_file", "left_behind", "new_journal"]

SIZE: Final = 1024 * 1024
"""Bytes: some 6,000 requests, or the longest path that is allowed and a few thousand others."""
_HEAD: Final = 64
_END, _SEQUENCE, _ACKNOWLEDGED, _OPENED, _ARRIVALS, _SESSION_LINES, _SESSIONS = range(7)
_ENTRY = re.compile(rb"(\d+) (\w+) (\S*) (\S*) (\w+) (\d+) (\d+) (\d+) ")
_PLUS: Final = ord("+")
_END_OF_REQUEST: Final = struct.Struct("=B32sHBQQQd")
"""A plus sign, request id, status, number of the outcome, bytes of the content received and sent,
of the header sent, the end."""
_pack = _END_OF_REQUEST.pack
_OUTCOMES: Final = list(Outcome)
_NUMBERS: Final[dict[Outcome | None, int]] = {o: number for number, o in enumerate(_OUTCOMES)}


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
        self._last: Session | None = None  # whose entries begin with `_begin`
        self._last_turn = 0
        self._begin = ""
        self.turn = 1
        """The number of the turn that goes on."""

    def open(self, record: AccessRecord) -> bool:
        """Put down a request that was opened; False when there is no room."""
        session, facts, origin = record.session, record.facts, record.origin
        if session is not self._last or origin is not None or self.turn != self._last_turn:
            client = session.client if origin is None else origin.client[0]
            self._last = session if origin is None else None
            self._last_turn = self.turn
            self._begin = f"{self.turn} {session.id} {session.protocol} {client}"
        method, path = facts.method, facts.path
        try:
            self._write(
                f"{self._begin} {record.id} {record.stream_id} "
                f"{len(method)} {len(path)} {method}{path}\n".encode("latin-1", "replace")
            )
        except ValueError:
            return False
        self._opened += 1
        self._words[_OPENED] = self._opened
        self._words[_END] = self._tell()
        return True

    def ended(self, records: list[AccessRecord]) -> None:
        """Put down how requests have ended, if there is room."""
        try:
            self._write(
                b"".join(
                    [
                        _pack(
                            _PLUS,
                            record.id.encode(),
                            record.status,
                            _NUMBERS[record.outcome],
                            record.received,
                            record.sent,
                            record.header_sent,
                            record.end,
                        )
                        for record in records
                    ]
                )
            )
        except ValueError:
            return
        self._words[_END] = self._tell()

    def clear(self) -> None:
        """Forget the entries: their requests are told of elsewhere."""
        self._words[_END] = _HEAD
        self._map.seek(_HEAD)

    def finished(self, sequence: int) -> None:
        """Note the number of the last line that was made."""
        self._words[_SEQUENCE] = sequence

    def acknowledged(self, sequence: int, arrivals: int = 0) -> None:
        """Note the number of the last line that is taken care of, at an end and at an arrival."""
        self._words[_ACKNOWLEDGED] = sequence
        self._words[_ARRIVALS] = arrivals

    def sessions(self, lines: int, now: int) -> None:
        """Note how many lines of the session log were made, and how many sessions are open."""
        self._words[_SESSION_LINES] = lines
        self._words[_SESSIONS] = now


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


class Ending(NamedTuple):
    """How a request has ended; `end` is of the monotonic clock, all others are numbers of bytes."""

    status: int
    outcome: Outcome
    received: int
    sent: int
    header_sent: int
    end: float


class Left(NamedTuple):
    """What a page says."""

    entries: list[Entry]
    endings: dict[str, Ending]
    """By the request's id; among them may be some whose lines were sent."""
    sequence: int
    """The number of the last line that was made."""
    acknowledged: int
    """The number of the last line that was known to be taken care of."""
    opened: int
    """How many requests were opened, ever."""
    arrivals: int
    """How many lines at their arrival were known to be taken care of."""
    session_lines: int
    """How many lines of the session log were made."""
    sessions: int
    """How many sessions were open that have a line there."""


def left_behind(descriptor: int) -> Left:
    """Return what the page `descriptor` says. Its worker has ended."""
    data = os.pread(descriptor, SIZE, 0)
    if len(data) < _HEAD:
        return Left([], {}, 0, 0, 0, 0, 0, 0)
    words = memoryview(data)[:_HEAD].cast("Q")
    end, at, entries = min(words[_END], len(data)), _HEAD, []
    endings: dict[str, Ending] = {}
    while at < end:
        if data[at] == _PLUS and at + _END_OF_REQUEST.size <= end:
            _, ended, status, number, *rest = _END_OF_REQUEST.unpack_from(data, at)
            endings[ended.decode()] = Ending(status, _OUTCOMES[number], *rest)
            at += _END_OF_REQUEST.size
            continue
        found = _ENTRY.match(data, at, end)
        if found is None:
            break
        turn, session, protocol, client, request, stream, *lengths = found.groups()
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
    return Left(entries, endings, *words[_SEQUENCE : _SESSIONS + 1])
