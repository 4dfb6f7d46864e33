"""What a line says of a request that another server has: its facts, as that server tells them.

Such a server does not tell everything. What it keeps to itself is `UNKNOWN`, and `-` in a line:
the bytes of header sections, the waiting for flow control and for the socket.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

from h2log.access.exchange import Exchange
from h2log.access.record import UNKNOWN, Origin, Outcome, Session, TlsFacts
from h2log.app.response import NO_CONTENT_STATUS
from h2log.clock import monotonic, wall
from h2log.id_source import new_id

__all__ = [
    "Answered",
    "Asked",
    "bytes_of",
    "ended_so",
    "message_bytes",
    "open_exchange",
    "protocol_of",
    "tls_facts",
]

_PROTOCOLS: Final = {"3": "h3", "2": "h2", "1.1": "1.1", "1.0": "1.0"}


def protocol_of(version: str) -> str:
    """Return the log's name of an ASGI `http_version`; `-` for one that it has none for."""
    return _PROTOCOLS.get(version, "-")


class Asked:
    """What was asked: the facts of a request (`RequestFacts`)."""

    __slots__ = ("authority", "fields", "method", "path", "scheme")

    def __init__(
        self,
        method: str,
        target: bytes,
        scheme: str,
        fields: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.method = method
        self.path = target.decode("latin-1")
        self.scheme = scheme
        self.fields = tuple((bytes(name).lower(), bytes(value)) for name, value in fields)
        hosts = [value for name, value in self.fields if name == b"host"]
        self.authority = hosts[0].decode("latin-1") if hosts else ""


class Answered:
    """What was answered: the facts of a response (`ResponseFacts`)."""

    __slots__ = ("headers", "route")

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.route = ""
        self.headers = [
            (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
            for name, value in fields
        ]

    def content_length(self) -> int | None:
        """Return None: when it was declared it is among the headers."""
        return None


def open_exchange(
    session: Session, asked: Asked, stream_id: int, origin: Origin | None = None
) -> Exchange:
    """Open the exchange of a request whose header is complete now, and announce it."""
    exchange = Exchange(session, asked, new_id(), stream_id, wall(), monotonic())
    exchange.origin = origin
    exchange.header_received = exchange.header_sent = UNKNOWN
    detail = exchange.details()
    detail.stalled = detail.blocked = UNKNOWN
    exchange.active = session.requests - session.finished
    session.peak = max(session.peak, exchange.active)
    exchange.announce()
    return exchange


def ended_so(outcome: Outcome, exchange: Exchange) -> Outcome:
    """Return how a request has ended: a client that left with all of a response was not lost.

    That is a header without content behind it, or content of a declared length, which clients do
    not wait behind.
    """
    response = exchange.response
    if outcome is not Outcome.PEER_LOST or response is None or exchange.status < 200:
        return outcome
    if exchange.status in NO_CONTENT_STATUS or exchange.facts.method == "HEAD":
        return exchange.verdict
    length = dict(response.headers).get("content-length", "")
    whole = length.isdigit() and int(length) == exchange.sent
    return exchange.verdict if whole else outcome


def tls_facts(tls: Any) -> TlsFacts | None:
    """Return what a connection's `ssl_object` agreed on, None for what is none."""
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return None
    cipher = tls.cipher()
    return TlsFacts(
        version=tls.version() or "",
        cipher=cipher[0] if cipher else "",
        sni=getattr(tls, "sni", ""),
        resumed=bool(tls.session_reused),
    )


def bytes_of(data: object) -> int:
    """Return the bytes of content; 0 for what is none, which is the server's to refuse."""
    if isinstance(data, bytes):
        return len(data)
    return memoryview(data).nbytes if isinstance(data, bytearray | memoryview) else 0


def message_bytes(message: Mapping[str, Any]) -> int:
    """Return the bytes of a WebSocket message."""
    data = message.get("bytes")
    if data is not None:
        return bytes_of(data)
    text = message.get("text")
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
