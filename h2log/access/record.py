"""The records of the log: what is known of a request, and of the session that it came by."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "UNKNOWN",
    "AccessRecord",
    "Detail",
    "Origin",
    "Outcome",
    "RequestFacts",
    "ResponseFacts",
    "Session",
    "SessionSink",
    "Sink",
    "TlsFacts",
]


UNKNOWN: Final = -1
"""In place of a number that the server in front of an application does not tell: `-` in a line."""


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
    WORKER_LOST = "WORKER_LOST"
    """The process that served it ended; its client may have all, some or nothing of a response."""


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


class ResponseFacts(Protocol):
    """What was answered."""

    @property
    def route(self) -> str:
        """The pattern that it answers, of a response that is kept in memory."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The handler's header fields, names in lower case."""

    def content_length(self) -> int | None:
        """Return the length of the content where it is known."""


class TlsFacts(NamedTuple):
    """What a TLS handshake agreed on."""

    version: str
    """`TLSv1.3` or `TLSv1.2`."""
    cipher: str
    """OpenSSL's name of the cipher suite."""
    sni: str
    """The server name that the client asked for, or nothing."""
    resumed: bool


class Origin(NamedTuple):
    """Where a request came from, by the word of a trusted proxy."""

    client: tuple[str, int]
    """Address and port, 0 where it is not known."""
    scheme: str
    """`https` or `http`, by which it was asked for."""
    host: str
    """The host that was asked for, with its port if it was given; nothing when it is not told."""


class Session:
    """A connection: what all of its requests have in common, and what they sum up to.

    `id` is its session id, `client` the peer's address (`unix:` by a Unix socket), `port` its port,
    (both are those that a PROXY header tells; `peer` is the proxy then), `wall` and `opened` the
    time of its accept, as epoch seconds and on the monotonic clock; `protocol` is `h2`, `1.1`,
    `1.0` or, of another server, `h3`, `-` before it is known; `sink` receives the record of each
    finished request.

    When it has ended: `reason` says why, by OpenTelemetry's names for Kestrel where it has one
    (`keep_alive_timeout`, `tls_handshake_failed`, `error_reading_headers` …) and HTTP/2 error names
    in lower case; `goaway` is the code of our GOAWAY, `duration` its seconds.
    """

    __slots__ = (
        "alpn",
        "client",
        "duration",
        "failures",
        "finished",
        "goaway",
        "id",
        "last_stream_id",
        "opened",
        "opening",
        "peak",
        "peer",
        "port",
        "protocol",
        "reason",
        "received",
        "requests",
        "sent",
        "served",
        "sink",
        "tls",
        "tls_object",
        "tls_told",
        "wall",
    )

    def __init__(
        self,
        session_id: str,
        client: str,
        port: int,
        wall: float,
        sink: Sink,
        opened: float = 0.0,
    ) -> None:
        self.id = session_id
        self.client = client
        self.port = port
        self.wall = wall
        self.opened = opened
        self.sink = sink
        self.opening: Sink | None = None
        """Receives the record of each request that has just been opened, if anybody wants to."""
        self.served: Any = None
        """Owned by who answers: what it derived from the connection."""
        self.protocol = "-"
        self.alpn = ""
        self.tls: TlsFacts | None = None
        self.peer: tuple[str, int] | None = None
        """Who has connected, where a PROXY header told of another client."""
        self.tls_object: Any = None
        """The TLS side itself, as long as the connection is open; `server.tls` asks it."""
        self.tls_told: dict[str, Any] | None = None
        """What it has answered."""
        self.requests = 0
        """Requests opened so far."""
        self.finished = 0
        """Requests finished so far."""
        self.failures: dict[Outcome, int] = {}
        """Those that ended other than COMPLETE, by outcome."""
        self.peak = 0
        """The most requests that were open at once."""
        self.received = 0
        """Bytes that came, after TLS."""
        self.sent = 0
        """Bytes handed to the transport, before TLS."""
        self.last_stream_id = 0
        self.goaway: int | None = None
        self.reason: str | None = None
        self.duration = 0.0

    def outcomes(self) -> dict[Outcome, int]:
        """Return how many requests ended in each way so far, of the ways that any did."""
        complete = self.finished - sum(self.failures.values())
        return {Outcome.COMPLETE: complete, **self.failures} if complete else dict(self.failures)


class Detail:
    """What a record has besides, when the request was more than a hit in the cache.

    Times are seconds; `headers_at` and `first_byte_at` are on the monotonic clock, 0 when it never
    came to that, and where all went out at once, at the end. `reset_by` is `client`, `server` or
    nothing, `reset_code` the HTTP/2 error code.
    """

    __slots__ = (
        "blocked",
        "first_byte_at",
        "headers_at",
        "reset_by",
        "reset_code",
        "route",
        "stalled",
        "user",
    )

    def __init__(self) -> None:
        self.headers_at = 0.0
        self.first_byte_at = 0.0
        self.stalled = 0.0
        """Waiting for the peer's flow-control window."""
        self.blocked = 0.0
        """Waiting for the socket."""
        self.route = ""
        """The pattern of the route that answered."""
        self.user: str | None = None
        """The user whom the application has authenticated."""
        self.reset_by = ""
        self.reset_code: int | None = None


class AccessRecord:
    """What is known of one request. Final once `outcome` is set.

    Without an outcome the request is open: a line made of it then tells that it has arrived, and
    nothing of its end (see `opening`).

    `protocol` is the session's at its start: over HTTP/1 it may differ from one request to the
    next. `wall` is the epoch time at which its header was complete; `start` and `end` are seconds
    of the monotonic clock, the header complete and the last byte handed to the transport; `status`
    is 0 when no response began; `received` and `sent` count bytes of content, `header_received` and
    `header_sent` those of the header sections on the wire (compressed in HTTP/2); `nth` is its
    position in the session, from 1, `active` the requests open at its start, itself among them;
    `verdict` is the outcome that the response has once it is complete: a 500 for an exception is
    HANDLER_ERROR all the same. `cache` says why a static file was answered as it was (`hit`,
    `miss`), `condition` which condition decided (`etag`, `date`, `range`). `sequence` is given by
    the log, from 1, without a gap. `origin` is set where a trusted proxy told of another client,
    scheme or host. `detail` is None for a response from memory that was handed over at once: all of
    its times are its end.
    """

    __slots__ = (
        "active",
        "cache",
        "condition",
        "detail",
        "end",
        "facts",
        "header_received",
        "header_sent",
        "id",
        "nth",
        "origin",
        "outcome",
        "protocol",
        "received",
        "response",
        "sent",
        "sequence",
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
        self.protocol = session.protocol
        self.facts = facts
        self.id = request_id
        self.stream_id = stream_id
        self.wall = wall
        self.start = start
        self.end = start
        self.status = 0
        self.received = 0
        self.sent = 0
        self.header_received = 0
        self.header_sent = 0
        self.active = 1
        self.cache = ""
        self.condition = ""
        self.sequence = 0
        self.response: ResponseFacts | None = None
        self.detail: Detail | None = None
        self.origin: Origin | None = None
        self.verdict = Outcome.COMPLETE
        self.outcome: Outcome | None = None
        session.requests = self.nth = session.requests + 1

    def opening(self) -> AccessRecord:
        """Return what was known when the request was opened, as a record of its own.

        A line can be made of it while this one goes on: it has no outcome, no response and no
        bytes, takes no time, and has no `sequence` yet. What the two share does not change.
        """
        made = AccessRecord.__new__(AccessRecord)  # not counted by the session once more
        made.session = self.session
        made.protocol = self.protocol
        made.facts = self.facts
        made.origin = self.origin
        made.id = self.id
        made.stream_id = self.stream_id
        made.wall = self.wall
        made.start = made.end = self.start
        made.nth = self.nth
        made.active = self.active
        made.header_received = self.header_received
        made.status = made.received = made.sent = made.header_sent = made.sequence = 0
        made.cache = made.condition = ""
        made.response = made.detail = made.outcome = None
        made.verdict = Outcome.COMPLETE
        return made

    @property
    def client(self) -> tuple[str, int]:
        """Address and port of who asked, 0 where the port is not known."""
        origin = self.origin
        return (self.session.client, self.session.port) if origin is None else origin.client

    @property
    def milliseconds(self) -> float:
        """From the header complete to the last byte handed to the transport."""
        return (self.end - self.start) * 1000

    @property
    def headers_milliseconds(self) -> float | None:
        """From the header complete to the response's header handed over; None if it never was."""
        if not self.status:
            return None
        at = self.end if self.detail is None else self.detail.headers_at or self.end
        return (at - self.start) * 1000

    @property
    def first_byte_milliseconds(self) -> float | None:
        """From the header complete to the first byte of content handed over, if there was one."""
        if not self.sent:
            return None
        at = self.end if self.detail is None else self.detail.first_byte_at or self.end
        return (at - self.start) * 1000


Sink = Callable[[AccessRecord], None]
"""What takes a finished record."""

SessionSink = Callable[[str, Session], None]
"""What takes a session's event: `opened`, when its protocol is known, or `closed`."""
