"""What every connection shares with the server, and what each leg has in common."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from h2log.access.record import Session, SessionSink, Sink
from h2log.clock import DateCache, monotonic
from h2log.config import Limits
from h2log.server.dispatch import Dispatcher

__all__ = ["Leg", "Shared", "Stall", "hang_up"]

READ_SIZE: Final = 64 * 1024
"""Bytes of one read: a few full TLS records. A new buffer of uvloop's 256 KiB for each read would
be mapped and unmapped every time, a tenth of the cost of a small request."""
CLOSE_GRACE: Final = 5.0
"""Seconds that the last output of a closed connection may take (nginx lingering_timeout 5)."""


class Leg(Protocol):
    """One connection's protocol, once it is known."""

    def drain(self) -> None:
        """Begin to go: finish what is open, take nothing new, then close."""

    def tick(self, now: float) -> None:
        """Let time pass: `now` is the monotonic time. Called about twice a second."""

    def shut(self) -> None:
        """Close now; what is open ends as SHUTDOWN."""


@dataclass(slots=True)
class Shared:
    """What the connections of a server share. Set up once; `legs` is each connection's to enter."""

    dispatcher: Dispatcher
    limits: Limits
    sink: Sink
    session_sink: SessionSink | None = None
    date: DateCache = field(default_factory=DateCache)
    legs: set[Leg] = field(default_factory=set)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_SIZE)))
    """What every connection reads into: a read is copied out before the next one begins."""
    draining: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a connection has ended."""

    clients: Counter[str] = field(default_factory=Counter)
    """Open connections by client address, also those whose protocol is not known yet."""

    def opened(self, session: Session) -> None:
        """A connection's protocol is known."""
        if self.session_sink is not None:
            self.session_sink("opened", session)

    def gone(self, session: Session, reason: str) -> None:
        """A connection's socket is closed: call it once for each that was accepted."""
        session.duration = monotonic() - session.opened
        session.reason = reason
        if self.session_sink is not None:
            self.session_sink("closed", session)
        self.clients[session.client] -= 1
        if not self.clients[session.client]:
            del self.clients[session.client]

    def left(self, leg: Leg) -> None:
        """A connection has ended."""
        self.legs.discard(leg)
        self.changed.set()


class Stall:
    """Watches a transport that is full: does its peer read, and fast enough?"""

    __slots__ = ("_left", "_limits", "_since", "_transport")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._since = 0.0
        self._left = 0

    def begin(self, transport: asyncio.Transport | None) -> None:
        """The transport has become full."""
        self._transport = transport
        self._since = monotonic()
        self._left = transport.get_write_buffer_size() if transport is not None else 0

    def is_one(self, now: float) -> bool:
        """Say whether less than `min_rate` went out over the last `stall_timeout`."""
        elapsed = now - self._since
        if elapsed <= self._limits.stall_timeout or self._transport is None:
            return False
        left = self._transport.get_write_buffer_size()
        sent = self._left - left
        self._since, self._left = now, left
        return sent <= 0 or sent < self._limits.min_rate * elapsed


def hang_up(transport: asyncio.Transport) -> asyncio.TimerHandle:
    """Close a connection so that what was written arrives.

    A cleartext socket is closed for writing only, and read until the peer closes: closing it with
    unread data would reset it, and the reset would overtake the response (RFC 9112 section 9.6).
    TLS does the same with its close_notify. The handle is of the abort that follows when the peer
    does nothing; cancel it when the connection is lost.
    """
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
    return asyncio.get_running_loop().call_later(CLOSE_GRACE, transport.abort)
