"""What goes out of one HTTP/1.1 connection: gathered, and written once a turn.

The responses to requests that came together go out together. What is complete is finished, for the
log, when it is handed to the transport.
"""

from __future__ import annotations

import asyncio
from typing import Final

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.app.response import Response, check_fields
from h2log.clock import monotonic, wall
from h2log.errors import reason_phrase
from h2log.server.heads import CONNECTION_FIELDS
from h2log.server.session import Shared, Stall

__all__ = ["Http1Output", "interim_lines", "response_lines", "trailer_section"]

_HIGH_WATER: Final = 128 * 1024
"""Bytes that a transport may hold before it counts as full (asyncio's default is 64 KiB)."""
_GATHERED: Final = 64 * 1024
"""Bytes that are gathered at most; a piece that is larger is not copied once more."""

# The server says itself how a message ends and whether the connection goes on.
_DROPPED: Final = frozenset(name.decode("ascii") for name in CONNECTION_FIELDS)

_MAX_SECTIONS: Final = 512
_MAX_SECTION: Final = 512
"""Header sections that are remembered, and the bytes of the longest: half a megabyte in all."""
_sections: dict[tuple[object, ...], tuple[bytes, int | None]] = {}


def response_lines(response: Response, trailing: bool) -> tuple[bytes, int | None]:
    """Return status line and field lines of a response, and the content-length that they declare.

    Without those that the server adds. A response that has no content has no length (RFC 9110
    section 8.6), and one in chunks, as trailers want it, neither (RFC 9112 section 6.2). Raises
    ValueError for a field that would not be one line.
    """
    key = (response.status, trailing, *response.headers)
    made = _sections.get(key)
    if made is None:
        made = _lines(response, trailing)
        if len(made[0]) <= _MAX_SECTION:
            if len(_sections) >= _MAX_SECTIONS:
                _sections.clear()
            _sections[key] = made
    return made


def _lines(response: Response, trailing: bool) -> tuple[bytes, int | None]:
    check_fields(response.headers)
    unsized = response.status == 204 or trailing
    declared = None
    lines = [f"HTTP/1.1 {response.status} {reason_phrase(response.status)}\r\n"]
    for name, value in response.headers:
        if name == "upgrade" and response.status == 426:  # it must say to what (RFC 9110, 15.5.22)
            lines.append(f"upgrade: {value}\r\nconnection: upgrade\r\n")
        if name in _DROPPED or (name == "trailer" and not trailing):
            continue
        if name == "content-length":
            if unsized or declared is not None:
                continue
            declared = int(value)
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1"), declared


def interim_lines(status: int, fields: list[tuple[str, str]]) -> bytes:
    """Return an interim response. Raises ValueError for a field that would not be one line."""
    check_fields(fields)
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    return f"HTTP/1.1 {status} {reason_phrase(status)}\r\n{lines}\r\n".encode("latin-1")


def trailer_section(fields: list[tuple[str, str]]) -> bytes:
    """Return the last chunk and the trailers behind it (RFC 9112 section 7.1)."""
    if not fields:
        return b"0\r\n\r\n"
    check_fields(fields)
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    return f"0\r\n{lines}\r\n".encode("latin-1")


class Http1Output:
    """The way out of one connection."""

    __slots__ = (
        "_date",
        "_date_tail",
        "_done",
        "_dropped",
        "_due",
        "_pieces",
        "_session",
        "_shared",
        "_size",
        "_waiters",
        "blocked",
        "closed",
        "gathering",
        "stall",
        "transport",
    )

    def __init__(self, session: Session, shared: Shared) -> None:
        self._session = session
        self._shared = shared
        self._pieces: list[bytes | bytearray] = []
        self._size = 0
        self._done: list[Exchange] = []  # responses whose last piece is among those
        self._dropped = False  # what was written last came too late: the peer was gone
        self._due = False  # it is going to be written
        self._date = ""
        self._date_tail = b""
        self._waiters: list[asyncio.Future[None]] = []
        self.transport: asyncio.Transport | None = None
        self.blocked = False
        """The transport is full."""
        self.closed = False
        """We have closed the connection, or it is lost."""
        self.gathering = False
        """Who reads will call `flush` at the end of the turn."""
        self.stall = Stall(shared.limits)

    def begin(self, transport: asyncio.Transport) -> None:
        """Write to `transport` from now on."""
        self.transport = transport
        transport.set_write_buffer_limits(_HIGH_WATER)

    def tail(self, exchange: Exchange) -> bytes:
        """Return the fields of a response that are its own, without the last line's end."""
        date = self._shared.date(wall())
        if date is not self._date:
            self._date = date
            self._date_tail = b"date: %b\r\nx-request-id: " % date.encode()
        return self._date_tail + exchange.id.encode()

    def add(self, *pieces: bytes | bytearray) -> None:
        """Send pieces with what is put, or completed, next."""
        if self.closed:
            return
        for piece in pieces:
            size = len(piece)
            if size > _GATHERED:
                self._write()
                self._pieces.append(piece)
                self._size = size
                self._write()
            else:
                self._pieces.append(piece)
                self._size += size
        if self._size > _GATHERED:
            self._write()

    def put(self, *pieces: bytes | bytearray) -> None:
        """Send pieces, at the end of this turn at the latest."""
        self.add(*pieces)
        if self._size and not (self.gathering or self._due):
            self._due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def complete(self, exchange: Exchange) -> None:
        """Finish a response when everything that was put is written."""
        self._done.append(exchange)
        if not self.gathering:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the transport, and finish what was completed by it."""
        self._due = False
        if self._size:
            self._write()
        if self._done:
            now = monotonic()
            lost = self.transport is None or (self._dropped and not self.closed)
            done, self._done = self._done, []
            for exchange in done:
                exchange.finish(Outcome.PEER_LOST if lost else exchange.verdict, now)

    def _write(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        self._session.sent += self._size
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self.transport is not None:
            self._dropped = self.transport.is_closing()
            self.transport.write(data)

    @property
    def handed_over(self) -> bool:
        """Everything that was put has gone to a transport that took it, and holds little of it."""
        return not (self._size or self._dropped or self.blocked)

    def lost(self) -> None:
        """The connection is gone: nothing more goes out."""
        self.closed = True
        self._pieces.clear()
        self._size = 0
        now = monotonic()
        done, self._done = self._done, []
        for exchange in done:  # complete, but never handed over
            exchange.finish(Outcome.PEER_LOST, now)
        self.transport = None
        self.stall.begin(None)
        self.wake()

    # Back-pressure

    def pause(self) -> None:
        """The transport is full."""
        self.blocked = True
        self.stall.begin(self.transport)

    def resume(self) -> None:
        """The transport has room again."""
        self.blocked = False
        self.wake()

    @property
    def full(self) -> bool:
        """The transport takes no more."""
        return self.blocked and not self.closed

    async def room(self) -> float:
        """Return when the transport has room, or is gone; and for how many seconds it had none."""
        if self._size and not self.gathering:
            self.flush()
        if not self.full:
            return 0.0
        began = monotonic()
        while self.full:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return monotonic() - began

    def wake(self) -> None:
        """Have those who wait for room look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
