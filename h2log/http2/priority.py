"""Extensible priorities (RFC 9218): how urgent a client says a response is, and whose turn it is.

The order is: the lowest urgency first; inside one, responses that are of use only as a whole one
after the other in the order they were asked for, then those of use in part a frame each in turn.
A client that says nothing gets turns too: 8 downloads share the link.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from h2log.http2.stream import Stream

__all__ = ["DEFAULT_URGENCY", "Turns", "parse_priority"]

DEFAULT_URGENCY: Final = 3
"""RFC 9218 section 4.1; from 0, the most urgent, to 7."""

# The two members of the dictionary that have a meaning (RFC 8941 section 3.2); parameters are
# allowed on each and ignored, and the last of several decides.
_URGENCY: Final = re.compile(rb"u=([0-9]+)(?:;|\Z)").match
_INCREMENTAL: Final = re.compile(rb"i(?:=\?([01]))?(?:;|\Z)").match


def parse_priority(value: bytes) -> tuple[int, bool]:
    """Return urgency and incremental of a `priority` field or PRIORITY_UPDATE (section 4).

    What is absent, unknown or out of range has its default: 3, and not incremental.
    """
    urgency, incremental = DEFAULT_URGENCY, False
    for member in value.split(b","):
        member = member.strip(b" \t")
        found = _URGENCY(member)
        if found is not None:
            number = int(found[1]) if len(found[1]) <= 15 else 8
            urgency = number if number <= 7 else DEFAULT_URGENCY
            continue
        found = _INCREMENTAL(member)
        if found is not None:
            incremental = found[1] != b"0"
    return urgency, incremental


class Turns:
    """The streams that have something to send and may, in the order of their turns."""

    __slots__ = ("_levels", "_order")

    def __init__(self) -> None:
        self._levels: dict[int, deque[Stream]] = {}
        self._order: list[int] = []  # the urgencies that have streams, sorted

    def __bool__(self) -> bool:
        return bool(self._order)

    @property
    def urgency(self) -> int:
        """That of the stream whose turn it is; there must be one."""
        return self._order[0]

    def add(self, stream: Stream) -> None:
        """Give a stream its place; it must have none."""
        level = self._levels.get(stream.urgency)
        if level is None:
            level = self._levels[stream.urgency] = deque()
            self._order.append(stream.urgency)
            self._order.sort()
        if stream.incremental:
            level.append(stream)
            return
        for place, other in enumerate(level):
            if other.incremental or other.id > stream.id:
                level.insert(place, stream)
                return
        level.append(stream)

    def take(self) -> Stream:
        """Remove and return the stream whose turn it is; there must be one."""
        urgency = self._order[0]
        level = self._levels[urgency]
        stream = level.popleft()
        if not level:
            self._drop(urgency)
        return stream

    def remove(self, stream: Stream) -> None:
        """Take a stream out, before its urgency changes or its window is spent."""
        level = self._levels[stream.urgency]
        level.remove(stream)
        if not level:
            self._drop(stream.urgency)

    def _drop(self, urgency: int) -> None:
        del self._levels[urgency]
        self._order.remove(urgency)

    def clear(self) -> None:
        """Forget every stream."""
        self._levels.clear()
        self._order.clear()
