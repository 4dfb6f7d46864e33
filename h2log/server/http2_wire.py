"""Between an HTTP/2 connection's transport and its engine: turns of reading, writes, and ends.

Everything that the engine gathers while a read is taken in is written once, at the end of it; what
was completed by a write is finished then. A connection whose log has no room, or whose peer sends
many small frames, is read on later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, cast

from h2.errors import ErrorCodes

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome, Session
from h2log.clock import monotonic
from h2log.http2.events import Cause
from h2log.http2.stream import Stream
from h2log.server.http2_files import Files
from h2log.server.http2_room import HIGH_WATER
from h2log.server.session import READ_SIZE, HangUp, Hold, Shared, Stall

__all__ = ["Http2Wire"]

_logger = logging.getLogger("h2log.http2")

_LONG: Final = 0.002
"""Seconds of work with one full read after which other connections have their turn: content of
64 KiB takes less than a tenth of it, thousands of small frames ten times as much."""


_MANY: Final = 16
"""Responses that are completed in a turn before those that have more to do wait for the next."""


class Http2Wire(Files, asyncio.BufferedProtocol):
    """asyncio's protocol, and the server's `Leg`; what the engine's events mean is not known here.

    The class that extends it makes the engine, `_conn`, and is its `Events`.
    """

    __slots__ = (
        "_done",
        "_flush_due",
        "_hanging_up",
        "_hold",
        "_reading",
        "_shared",
        "_shutting",
        "_stall",
        "_stalled",
    )

    def __init__(self, session: Session, shared: Shared) -> None:
        super().__init__(shared.limits.send_buffer, shared.frames)
        self._session = session
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._done: list[Exchange] = []  # responses in the output that is to be flushed
        self._flush_due = False
        self._reading = False  # inside data_received, which flushes at its end
        self._stall = Stall(shared.limits)
        self._lost = False
        self._hold: Hold | None = None  # once the log had no room
        self._hanging_up: HangUp | None = None
        self._shutting = False
        self._stalled = False
        session.protocol = "h2"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: our SETTINGS go out."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._shared.legs.add(self)
        if self._shared.draining:
            self._conn.drain(monotonic())
        self._flush()
        log = self._shared.log
        if log is not None and log.overloaded:
            self._wait_for_log()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what to read into."""
        return self._shared.buffer

    def buffer_updated(self, size: int) -> None:
        """Take what was read."""
        self._session.received += size
        shared = self._shared
        began = monotonic() if size == READ_SIZE else 0.0
        self.data_received(bytes(shared.buffer[:size]))
        if began and monotonic() - began > _LONG:
            self._let_others()
        if shared.log is not None and shared.log.overloaded:
            self._wait_for_log()

    def data_received(self, data: bytes) -> None:
        """Read every whole frame in `data`, answer, and write once."""
        self._reading = True
        try:
            self._conn.receive(data, monotonic())
        finally:
            self._reading = False
        self._flush()

    def _let_others(self) -> None:
        """Read on in the next turn of the loop: uvloop would read up to 32 times in this one."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_again)

    def _read_again(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._hold is None or not self._hold.active:
            transport.resume_reading()

    def _wait_for_log(self) -> None:
        self._hold = self._shared.hold(self._hold, self._transport, self._read_on)

    def _read_on(self, seconds: float) -> None:
        assert self._transport is not None
        self._conn.excuse(seconds)
        self._transport.resume_reading()

    def _held_for(self) -> float:
        return 0.0 if self._hold is None else self._hold.seconds()

    def eof_received(self) -> bool:
        """The peer sends nothing more: nothing more can be asked."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was open has lost its peer."""
        self._lost = True
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        self._shared.left(self)
        conn = self._conn
        session = self._session
        session.last_stream_id = conn.last_stream_id
        session.goaway = conn.goaway
        reason = self._reason(error)
        if not self._conn.closing:
            self._conn.end()
        now = monotonic()
        for exchange in self._done:  # complete, but never handed over
            exchange.finish(Outcome.PEER_LOST, now)
        self._done.clear()
        self.wake_waiters()
        self._tell_closed()
        self._shared.gone(session, reason)  # the last: it sums up what has ended
        self._let_go()

    def _let_go(self) -> None:
        """Break the circles of leg, engine and transport: who has them frees them.

        Else each connection would keep its buffers and its TLS until the collector comes by.
        """
        self._conn.release()
        self._stall.begin(None)
        self._transport = self._hanging_up = self._hold = None

    def pause_writing(self) -> None:
        """The transport is full."""
        self._conn.blocked = True
        self._stall.begin(self._transport)
        if self._sources:
            self.files_blocked()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._conn.blocked = False
        self._conn.now = monotonic()
        if self._sources:
            self.files_unblocked()
        self._conn.pump()
        if self._sources:
            self._send_files()  # in their turns with what was queued, before the transport is full
        self._flush()
        self.wake_waiters()

    # The server's side

    def drain(self) -> None:
        """Begin to go; see `Leg`."""
        self._conn.drain(monotonic())
        self._flush()

    def abort(self) -> None:
        """Cut the connection; see `Leg`."""
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Let time pass; see `Leg`."""
        conn = self._conn
        if conn.closing:
            return
        if conn.blocked and self._stall.is_one(now):
            self._stalled = True
            conn.end(Cause.TIMEOUT)
            assert self._transport is not None
            self._transport.abort()
            return
        if self._hold is not None and self._hold.active:
            return
        conn.tick(now)
        self._flush()

    def shut(self) -> None:
        """Close now; see `Leg`."""
        self._shutting = True
        conn = self._conn
        for stream in list(conn.streams.values()):
            conn.reset(stream, ErrorCodes.CANCEL)
            self.on_reset(stream, Cause.CONNECTION, ErrorCodes.CANCEL)
        conn.stop()
        self._flush()
        if self._transport is not None and conn.blocked:
            self._transport.abort()

    def flush_soon(self) -> None:
        """Write what the engine has gathered, after the running callback."""
        if not (self._reading or self._flush_due):
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Hand the output to the transport, and finish what was completed by it."""
        self._flush_due = False
        conn = self._conn
        transport = self._transport
        if self._lost or transport is None:
            return
        if transport.is_closing() and self._hanging_up is None:
            return  # the peer is gone: `connection_lost` follows, and says so of what is open
        while conn.out_size and not conn.blocked:
            self._session.sent += conn.out_size
            transport.write(conn.take())
            if conn.pending:
                conn.pump()
        if self._done and not conn.out_size:
            now = monotonic()
            for exchange in self._done:
                exchange.finish(exchange.verdict, now)
            self._done.clear()
        conn.settle()
        if conn.closing:
            if conn.out_size:
                self._session.sent += conn.out_size
                transport.write(conn.take())
            if self._hanging_up is None:
                self._hanging_up = HangUp(transport, stopping=self._shared.draining)
        elif self._sources:
            self._send_files_soon()

    def at_once(self, stream: Stream) -> int:
        """Return how much content of a stream could be handed to the transport now."""
        return self._conn.at_once(stream) if self._has_turn else 0

    @property
    def _has_turn(self) -> bool:
        """There is a transport, this turn was not long, and no file is being sent."""
        transport = self._transport
        if self._lost or transport is None or transport.is_closing() or self._sources:
            return False
        return len(self._done) <= _MANY

    def write_framed(self, stream: Stream, size: int, end: bool) -> None:
        """Write the output, and behind it what `frames` has read for a stream.

        To be called for at most what `at_once` has allowed.
        """
        before = self._conn.take()
        self._conn.framed(stream, size, end)
        self.write_frames(before)

    def _reason(self, error: Exception | None) -> str:
        """Return why the connection ended (see `Session`)."""
        conn = self._conn
        if conn.error is not None:
            if "rapid_reset" in conn.error.detail or "server_reset" in conn.error.detail:
                return "stream_reset_limit_exceeded"
            return conn.error.code.name.lower()
        if self._stalled:
            return "min_response_data_rate"
        if self._shutting:
            return "app_shutdown_timeout"
        if conn.idle:
            return "keep_alive_timeout"
        if conn.going and self._shared.draining:
            return "server_shutdown"
        return "connection_reset" if error is not None else "client_closed"

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        """End what a stream was about: of `Events`."""
        raise NotImplementedError

    # The story of a connection, at debug level

    def debug(self, message: str, *args: object, request: str = "-") -> None:
        """Log at debug level, under the session's id."""
        _logger.debug(message, *args, extra={"session_id": self._session.id, "request_id": request})

    def _tell_closed(self) -> None:
        """Tell of the connection's end; a spent budget is for the person who runs the server."""
        error, level = self._conn.error, logging.DEBUG
        if error is not None:
            spent = error.code == ErrorCodes.ENHANCE_YOUR_CALM
            level = logging.WARNING if spent else logging.INFO
        _logger.log(
            level,
            "closed the connection of %s after %d requests: %s",
            self._session.client,
            self._session.requests,
            error or "by agreement",
            extra={"session_id": self._session.id, "request_id": "-"},
        )
