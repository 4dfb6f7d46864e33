"""A request from its first moment to its one line in the log.

An `Exchange` is opened when a request is, and is an `AccessRecord` that is still being filled in.
Every way out calls `finish`; the first call decides the outcome, seals the record and hands it to
the log; any later one does nothing. That, and nothing else, is why there is one line a request.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from typing import Protocol

__all__ = ["AccessRecord", "Exchange", "Outcome", "RequestFacts", "Session", "Sink"]


@unique
class Outcome(Enum):
    """How a request ended."""

    COMPLETE = "COMPLETE"
    """The whole response was handed to the transport."""
    CLIENT_RESET = "CLIENT_RESET"
    """The client cancelled it (RST_STREAM)."""
    SERVER_RESET = "SERVER_RESET"
    """We reset it, or the connection, for the client's violation of the protocol."""
    PEER_LOST = "PEER_LOST"
    """The connection was lost."""
    HANDLER_ERROR = "HANDLER_ERROR"
    """The handler raised, or sent something that cannot be sent."""
    TIMEOUT = "TIMEOUT"
    """The client took too long to send the rest, or to take the response."""
    REFUSED = "REFUSED"
    """There was no room for it; the client may try again (REFUSED_STREAM)."""
    MALFORMED = "MALFORMED"
    """It was no well-formed request (RFC 9113 section 8.1.1)."""
    SHUTDOWN = "SHUTDOWN"
    """The server stopped before it was through."""


class RequestFacts(Protocol):
    """What was asked, as the wire had it: texts of latin-1, a character a byte. Never changes."""

    @property
    def method(self) -> str:
        """The method, or nothing when none could be read."""

    @property
    def path(self) -> str:
        """The request target: the path with its query."""

    @property
    def scheme(self) -> str:
        """`https` or `http`."""

    @property
    def authority(self) -> str:
        """The host, with its port if it was given."""

    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """The header fields, names in lower case."""


class Session:
    """A connection: what all of its requests have in common.

    `id` is its session id, `client` the peer's address, `port` its port, `wall` the epoch seconds
    of its accept; `protocol` is `h2`, `1.1` or `1.0`, `-` before it is known; `sink` receives the
    record of each finished request; `requests` counts those opened.
    """

    __slots__ = ("client", "id", "port", "protocol", "requests", "sink", "wall")

    def __init__(self, session_id: str, client: str, port: int, wall: float, sink: Sink) -> None:
        self.id = session_id
        self.client = client
        self.port = port
        self.wall = wall
        self.sink = sink
        self.protocol = "-"
        self.requests = 0


class AccessRecord:
    """What is known of one request. Final once `outcome` is set.

    `wall` is the epoch time at which its header was complete; `start` and `end` are seconds of the
    monotonic clock, the header complete and the last byte handed to the transport; `status` is 0
    when no response began; `received` and `sent` count bytes of content; `verdict` is the outcome
    that the response has once it is complete: a 500 for an exception is HANDLER_ERROR all the same.
    """

    __slots__ = (
        "end",
        "facts",
        "id",
        "outcome",
        "received",
        "sent",
        "session",
        "start",
        "status",
        "stream_id",
        "verdict",
        "wall",
    )

    def __init__(
        self,
        session: Session,
        facts: RequestFacts,
        request_id: str,
        stream_id: int,
        wall: float,
        start: float,
    ) -> None:
        self.session = session
        self.facts = facts
        self.id = request_id
        self.stream_id = stream_id
        self.wall = wall
        self.start = start
        self.end = start
        self.status = 0
        self.received = 0
        self.sent = 0
        self.verdict = Outcome.COMPLETE
        self.outcome: Outcome | None = None
        session.requests += 1

    @property
    def milliseconds(self) -> float:
        """From the header complete to the last byte handed to the transport."""
        return (self.end - self.start) * 1000


class Exchange(AccessRecord):
    """A request that is open."""

    __slots__ = ()

    def finish(self, outcome: Outcome, now: float) -> bool:
        """Seal the record with `outcome` at `now` (monotonic seconds) and log it, once.

        Returns whether this was the call that did.
        """
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self.end = now
        self.session.sink(self)
        return True


Sink = Callable[[AccessRecord], None]
"""What takes a finished record."""
