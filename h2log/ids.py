"""Session and request ids, and the context that carries them through an application's code.

Ids are UUID version 7 (RFC 9562 section 5.7) written as 32 hex digits, so that they sort by the
time they were made. The `uuid6` package makes one for each millisecond; inside a millisecond the
next id is that one plus a random step (RFC 9562 section 6.2, method 2: monotonic random), which
keeps the order total and costs a tenth of a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from random import getrandbits

import uuid6

__all__ = ["NO_ID", "IdSource", "new_id", "request_id", "session_id"]

NO_ID = "-"
"""What stands in a log line where there is no session or no request."""

session_id: ContextVar[str] = ContextVar("h2log_session_id", default=NO_ID)
"""The id of the connection that the running code serves; `-` outside of one."""

request_id: ContextVar[str] = ContextVar("h2log_request_id", default=NO_ID)
"""The id of the request that the running code serves; `-` outside of one."""

# The low half of a UUID is the variant (2 bits) and 62 random bits. Clearing the top random bit of
# each seed leaves 2**61 steps of room before a sum could reach the variant; steps are below 2**32,
# so a millisecond would have to hold 2**29 ids to get there.
_SEED_MASK = ~(1 << 61)
_LOW_HALF = (1 << 64) - 1


class IdSource:
    """Makes ids: call it for the next one.

    Each id is greater, as text, than every earlier one of the same source, also when the wall
    clock is set back (the old millisecond then stays in use until the clock has caught up).
    `wall` returns the wall clock in seconds since the epoch.
    """

    __slots__ = ("_high", "_low", "_until", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._until = 0.0  # the wall time up to which the seed's millisecond serves
        self._high = ""
        self._low = 0

    def __call__(self) -> str:
        """Return a new id: 32 lower-case hex digits."""
        if self._wall() >= self._until:
            self._seed()
        else:
            self._low += getrandbits(32) + 1
        return f"{self._high}{self._low:016x}"

    def _seed(self) -> None:
        value = uuid6.uuid7().int
        self._high = f"{value >> 64:016x}"
        self._low = value & _LOW_HALF & _SEED_MASK
        self._until = ((value >> 80) + 1) / 1000


new_id = IdSource()
"""The process's source of session and request ids."""
