"""What the traced parts of a Hypercorn share, and how they find it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from hypercorn.config import Config
from hypercorn.logging import Logger

from h2log.access.record import Session, SessionSink, Sink
from h2log.clock import monotonic, wall
from h2log.id_source import new_id
from h2log.server.networks import UNIX

__all__ = ["Overloadable", "TracedLogger", "Tracer", "server_of", "session_of", "tracer_of"]


class Overloadable(Protocol):
    """A log that may want requests to wait."""

    @property
    def overloaded(self) -> bool:
        """It holds as much as it may."""

    async def ready(self) -> None:
        """Return when it has room."""


class Tracer:
    """What the traced connections of a server share.

    Finished requests go to `sink`, those that were opened to `opening`, the events of sessions to
    `tell`; `log` is set when requests are to wait for it.
    """

    def __init__(
        self,
        sink: Sink,
        tell: SessionSink | None = None,
        opening: Sink | None = None,
        log: Overloadable | None = None,
    ) -> None:
        self._sink = sink
        self._tell = tell
        self._opening = opening
        self.log = log
        self.tasks: set[asyncio.Task[Any]] = set()
        """Those that serve connections."""
        self.datagrams: set[Any] = set()
        """The servers of HTTP/3."""
        self.rested = asyncio.Event()
        """Set when a connection of HTTP/3 may have nothing to do any more."""
        self.hurried = False
        self._sessions: set[Session] = set()

    def hurry(self) -> None:
        """Wait no longer for open requests: they end as SHUTDOWN."""
        self.hurried = True
        for task in self.tasks:
            task.cancel()

    def session(self, address: Any, protocol: str = "-") -> Session:
        """Return the session of a connection that was just accepted from `address`."""
        host, port = "", 0
        if isinstance(address, tuple):
            host, port = address[:2]
        elif address is not None:  # a Unix socket's, which has no name
            host = UNIX
        session = Session(new_id(), str(host), port, wall(), self._sink, monotonic())
        session.opening = self._opening
        session.protocol = protocol
        self._sessions.add(session)
        return session

    def opened(self, session: Session) -> None:
        """A connection's protocol is known."""
        if self._tell is not None:
            self._tell("opened", session)

    def gone(self, session: Session, reason: str) -> None:
        """A connection has ended."""
        session.duration = monotonic() - session.opened
        session.reason = reason
        if self._tell is not None and session in self._sessions:
            self._tell("closed", session)
        self._sessions.discard(session)

    def shut(self) -> None:
        """The process ends, and every connection with it."""
        for session in list(self._sessions):
            self.gone(session, "app_shutdown_timeout")


class TracedLogger(Logger):
    """Hypercorn's logger, and where its connections find their tracer: `config.logger_class`."""

    def __init__(self, tracer: Tracer, config: Config) -> None:
        super().__init__(config)
        self.tracer = tracer


def tracer_of(config: Config) -> Tracer | None:
    """Return the tracer of a server with this configuration, if it has one."""
    log = config.log
    return log.tracer if isinstance(log, TracedLogger) else None


def session_of(protocol: Any) -> Session | None:
    """Return the session of a protocol's connection, if that is traced."""
    session = getattr(protocol, "session", None)
    if session is None:
        session = getattr(server_of(protocol), "session", None)
    return session


def server_of(protocol: Any) -> Any:
    """Return what a protocol sends by: the connection's server."""
    return getattr(getattr(protocol, "send", None), "__self__", None)
