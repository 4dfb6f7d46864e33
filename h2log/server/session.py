"""What every connection shares with the server, and what each leg has in common."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from h2log.access.record import Session, SessionSink, Sink
from h2log.clock import DateCache, monotonic
from h2log.config import Limits
from h2log.server.dispatch import Dispatcher
from h2log.server.forwarded import Origins
from h2log.server.framed import FrameBuffer

if TYPE_CHECKING:
    from h2log.server.asgi import AsgiHost

__all__ = ["HangUp", "Hold", "Leg", "Shared", "Stall", "local_address"]

READ_SIZE: Final = 64 * 1024
"""Bytes of one read: a few full TLS records. A new buffer of uvloop's 256 KiB for each read would
be mapped and unmapped every time, a tenth of the cost of a small request."""
STOP_GRACE: Final = 0.5
"""Seconds between looks at a peer that has everything and does not close, when the server stops; at
the third the connection is cut. An idle client in a pool answers nothing until it is used again."""
CLOSE_GRACE: Final = 5.0
"""Seconds that the last output of a closed connection may take (nginx lingering_timeout 5)."""

FIRST_WORDS: Final = 1.0
"""Seconds that a new connection has for its first request when the server stops, as long as a TLS
handshake has then: its client connected to one that served. An HTTP/1.1 connection that was in use
has as long for its next one, as nginx's `keepalive_min_timeout` has it."""


class Leg(Protocol):
    """One connection's protocol, once it is known."""

    def drain(self) -> None:
        """Begin to go: finish what is open, take nothing new, then close."""

    def tick(self, now: float) -> None:
        """Let time pass: `now` is the monotonic time. Called about twice a second."""

    def shut(self) -> None:
        """Close now; what is open ends as SHUTDOWN."""

    def abort(self) -> None:
        """Cut the connection: something is wrong with it."""


class Overloadable(Protocol):
    """A log that may want requests to wait."""

    @property
    def overloaded(self) -> bool:
        """It holds as much as it may."""

    async def ready(self) -> None:
        """Return when it has room."""


@dataclass(slots=True)
class Shared:
    """What the connections of a server share. Set up once; `legs` is each connection's to enter."""

    dispatcher: Dispatcher
    limits: Limits
    sink: Sink
    session_sink: SessionSink | None = None
    asgi: AsgiHost | None = None
    """Answers every request, where an ASGI application is served."""
    opening: Sink | None = None
    """Receives the record of each request when it was opened."""
    proxies: Origins | None = None
    """Set when the word of proxies is taken for a request's client, scheme and host."""
    log: Overloadable | None = None
    """Set when requests are to wait for the log."""
    held: deque[Hold] = field(default_factory=deque)
    """Connections that wait for it, in the order in which they began to."""
    waking: asyncio.Task[None] | None = None

    def hold(
        self,
        hold: Hold | None,
        transport: asyncio.Transport | None,
        read_on: Callable[[float], None],
    ) -> Hold | None:
        """Have a connection wait until the log has room; return its `hold`, once it has one."""
        if transport is None or transport.is_closing():
            return hold
        if hold is None:
            hold = Hold(transport, read_on)
        if not hold.active:
            hold.begin()
            self.held.append(hold)
            if self.waking is None:
                self.waking = asyncio.get_running_loop().create_task(self._wake())
        return hold

    async def _wake(self) -> None:
        """Let connections go on, one after the other: what each has sent may fill the log again."""
        assert self.log is not None
        while self.held:
            await self.log.ready()
            self.held.popleft().end()
            for _ in range(2):  # the loop looks at its sockets, then calls who reads from it
                await asyncio.sleep(0)
        self.waking = None

    date: DateCache = field(default_factory=DateCache)
    legs: set[Leg] = field(default_factory=set)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_SIZE)))
    """What every connection reads into: a read is copied out before the next one begins."""
    frames: FrameBuffer = field(default_factory=FrameBuffer)
    """What every connection reads files into."""
    draining: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a connection has ended."""

    clients: Counter[str] = field(default_factory=Counter)
    """Open connections by client address, also those whose protocol is not known yet."""
    connections: int = 0
    """All of them."""
    ever: int = 0
    """Connections accepted so far."""

    def accepted(self, session: Session) -> None:
        """A connection was accepted: `gone` follows, once."""
        self.connections += 1
        self.ever += 1
        self.clients[session.client] += 1

    def introduced(self, session: Session, client: str, port: int) -> None:
        """A connection's proxy told for whom it comes: the client counts from now on."""
        self._uncount(session.client)
        session.peer = (session.client, session.port)
        session.client, session.port = client, port
        self.clients[client] += 1

    def _uncount(self, client: str) -> None:
        self.clients[client] -= 1
        if not self.clients[client]:
            del self.clients[client]

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
        self.changed.set()
        self.connections -= 1
        self._uncount(session.client)
        session.tls_object = None  # the log may keep the session, but not this

    def left(self, leg: Leg) -> None:
        """A connection has ended."""
        self.legs.discard(leg)
        self.changed.set()


def local_address(transport: asyncio.Transport | None) -> tuple[str, int | None] | None:
    """Return our side's address and port; a path and None for a Unix socket."""
    name = None if transport is None else transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return (str(name[0]), int(name[1]))
    return (str(name), None) if name else None


class Hold:
    """A connection that waits for the log: nothing is read, and its peer's time stands still.

    `on_end` is called with the seconds that a wait has taken, and reads on.
    """

    __slots__ = ("_before", "_on_end", "_since", "_transport")

    def __init__(self, transport: asyncio.Transport, on_end: Callable[[float], None]) -> None:
        self._transport = transport
        self._on_end = on_end
        self._since: float | None = None
        self._before = 0.0  # seconds of the waits that are over

    @property
    def active(self) -> bool:
        """The connection waits now."""
        return self._since is not None

    def begin(self) -> None:
        """Read nothing more."""
        self._since = monotonic()
        self._transport.pause_reading()

    def end(self) -> None:
        """The log has room."""
        assert self._since is not None
        seconds = monotonic() - self._since
        self._since = None
        self._before += seconds
        if not self._transport.is_closing():
            self._on_end(seconds)

    def seconds(self) -> float:
        """Return for how long it has waited, all in all."""
        return self._before + (0.0 if self._since is None else monotonic() - self._since)


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


class HangUp:
    """The end of a connection: what was written arrives, as long as its peer reads.

    A cleartext socket is closed for writing only, and read until the peer closes: closing it with
    unread data would reset it, and the reset would overtake the response (RFC 9112 section 9.6).
    TLS does the same with its close_notify. When nothing more goes out for `CLOSE_GRACE`, or the
    peer does not answer the close, the connection is aborted. `cancel` when it is lost. A server
    that stops has less patience, `STOP_GRACE`: what the kernel has is sent all the same. A peer
    that has `ended` its side already sends nothing more that would have to be read.
    """

    __slots__ = ("_grace", "_idle", "_left", "_timer", "_transport")

    def __init__(
        self, transport: asyncio.Transport, *, stopping: bool, ended: bool = False
    ) -> None:
        self._transport = transport
        self._grace = STOP_GRACE if stopping else CLOSE_GRACE
        self._left = transport.get_write_buffer_size()
        self._idle = 0
        if transport.can_write_eof() and not ended:
            transport.write_eof()
        else:
            transport.close()
        self._timer = asyncio.get_running_loop().call_later(self._grace, self._look)

    def _look(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left < self._left:
            self._idle = 0
        else:
            self._idle += 1
        self._left = left
        # With TLS the transport below has a buffer of its own, of which nobody tells.
        if self._idle > (0 if left else 2):
            self._transport.abort()
        else:
            # Whoever still takes something is given the usual time.
            grace = CLOSE_GRACE if left else self._grace
            self._timer = asyncio.get_running_loop().call_later(grace, self._look)

    def cancel(self) -> None:
        """The connection is lost."""
        self._timer.cancel()
