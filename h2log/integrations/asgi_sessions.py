"""Whose connection a request came by, as far as the server in front of an application lets us see.

ASGI has no name for a connection. uvicorn's `receive` belongs to an object that has its
transport, Hypercorn's `send` to a stream that has its protocol: either is there as long as the
connection is, and only once. Of any other server there is `scope["client"]`: an address and port
are one connection's while it lasts, and some time later perhaps another's.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from h2log.access.record import UNKNOWN, Origin, Outcome, Session, Sink
from h2log.clock import monotonic, wall
from h2log.id_source import new_id
from h2log.integrations.asgi_facts import protocol_of, tls_facts
from h2log.server.networks import UNIX

__all__ = ["Peer", "Sessions", "origin_of", "peer_of"]

_IDLE: Final = 75.0
"""Seconds without a request after which the same address and port are a new connection's, as long
as servers keep an idle one (`limits.idle_timeout`)."""
_MOST: Final = 10_000
"""Addresses and ports that are remembered; the one not seen for longest goes first."""


def _nothing() -> None:
    return None


class Peer:
    """What a server lets us see of one request's connection.

    `connection` is an object that is there as long as it is, None when we see none; `address` who
    has connected; `tls` its `ssl_object`; `stream_id` the HTTP/2 or HTTP/3 stream; `gone()` how the
    client left, if it did; `lost()` whether a WebSocket has ended without a close, and `begun()`
    whether the server has begun a response, None when we do not see that either.
    """

    __slots__ = ("address", "begun", "connection", "gone", "lost", "stream_id", "tls")

    def __init__(
        self,
        connection: object = None,
        address: tuple[str, int] = ("", 0),
        tls: object = None,
        stream_id: int = UNKNOWN,
        gone: Callable[[], Outcome | None] = _nothing,
        lost: Callable[[], bool | None] = _nothing,
        begun: Callable[[], bool | None] = _nothing,
    ) -> None:
        self.connection = connection
        self.address = address
        self.tls = tls
        self.stream_id = stream_id
        self.gone = gone
        self.lost = lost
        self.begun = begun


_UNSEEN: Final = Peer()


def peer_of(receive: Any, send: Any) -> Peer:
    """Return what can be seen behind a server's `receive` and `send`; never raises."""
    try:
        owner = getattr(receive, "__self__", None)
        if type(owner).__module__.startswith("uvicorn."):
            return _of_uvicorn(owner)
        owner = getattr(send, "__self__", None)
        if type(owner).__module__.startswith("hypercorn."):
            return _of_hypercorn(owner)
    except AttributeError:  # another version of it, with other names
        pass
    return _UNSEEN


def _of_uvicorn(cycle: Any) -> Peer:
    transport = cycle.transport

    def gone() -> Outcome | None:
        return Outcome.PEER_LOST if getattr(cycle, "disconnected", False) else None

    def lost() -> bool | None:
        # Its code is 1005 for a close without one, and for no close at all.
        protocol = getattr(cycle, "conn", cycle)
        if hasattr(protocol, "close_rcvd"):  # of websockets
            return protocol.close_rcvd is None
        return _still_open(protocol)

    def begun() -> bool | None:
        return getattr(cycle, "response_started", None) if _is_of_http(cycle) else None

    address = _address_of(transport)
    tls = transport.get_extra_info("ssl_object")
    return Peer(transport, address, tls, UNKNOWN, gone, lost, begun)


def _is_of_http(cycle: Any) -> bool:
    """Say whether an object of uvicorn's is a request's; else it is a WebSocket's."""
    return type(cycle).__name__ == "RequestResponseCycle"


def _of_hypercorn(stream: Any) -> Peer:
    protocol = stream.send.__self__
    server = getattr(protocol.send, "__self__", None)  # of QUIC there is none
    writer = getattr(server, "writer", None)
    multiplexed = hasattr(protocol, "streams")

    def gone() -> Outcome | None:
        # A response that was sent whole closes its stream, too.
        if not stream.closed or stream.state.name in ("CLOSED", "HTTPCLOSED"):
            return None
        alive = multiplexed and not getattr(protocol, "closed", True)
        return Outcome.CLIENT_RESET if alive else Outcome.PEER_LOST

    def lost() -> bool | None:
        # Its code is 1006 for what the client closes, too.
        return _still_open(getattr(stream, "connection", None))

    def begun() -> bool:
        return stream.state.name not in ("REQUEST", "HANDSHAKE")

    tls = None if writer is None else writer.get_extra_info("ssl_object")
    if writer is None:
        address = _host_and_port(stream.client)
    else:
        address = _address_of(writer)
    stream_id = stream.stream_id if multiplexed else UNKNOWN
    return Peer(protocol, address, tls, stream_id, gone, lost, begun)


def _address_of(transport: Any) -> tuple[str, int]:
    """Return who has connected, `unix:` for who came by a Unix socket."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
        return UNIX, 0
    return _host_and_port(transport.get_extra_info("peername"))


def _host_and_port(address: Any) -> tuple[str, int]:
    """Return an address as ASGI has it in `client`; nothing and 0 where it is not known."""
    if not address or isinstance(address, str | bytes):
        return "", 0
    host, port = (*address, 0)[:2]
    return str(host or ""), int(port or 0)


def origin_of(scope: Any, session: Session, scheme: str) -> Origin | None:
    """Return whom a request comes from, if that is not who has connected: a proxy tells of it."""
    client = _host_and_port(scope.get("client"))
    if not client[0] or client == (session.client, session.port):
        return None
    return Origin(client, scheme, "")


def _still_open(connection: Any) -> bool | None:
    """Say whether a WebSocket of wsproto's is open, which has ended: then it was lost."""
    state = getattr(getattr(connection, "state", None), "name", None)
    return None if state is None else state == "OPEN"


class Sessions:
    """The sessions of the connections that requests come by; records go to `sink`."""

    def __init__(self, sink: Sink, opening: Sink) -> None:
        self._sink = sink
        self._opening = opening
        self._seen: WeakKeyDictionary[object, Session] = WeakKeyDictionary()
        self._told: OrderedDict[tuple[object, ...], tuple[Session, float]] = OrderedDict()

    def of(self, scope: Any, peer: Peer) -> Session:
        """Return the session of a request's connection, a new one for a new connection."""
        # To uvloop's transport of TLS nothing can be attached, but to what it encrypts with.
        for connection in (peer.connection, peer.tls):
            if connection is None:
                continue
            try:
                session = self._seen.get(connection)
                if session is None:
                    session = self._seen[connection] = self._new(scope, peer)
            except TypeError:
                continue
            return session
        return self._by_address(scope, peer)

    def _by_address(self, scope: Any, peer: Peer) -> Session:
        client = _host_and_port(scope.get("client"))
        if not all(
            client
        ):  # who has no port is told of by a proxy, whose connections we cannot see
            return self._new(scope, peer)
        now = monotonic()
        version = scope.get("http_version")
        key = (*client, *(scope.get("server") or ()), _scheme(scope), version)
        told = self._told
        known = told.pop(key, None)
        if known is None or version == "1.0" or _is_over(known[0], now - known[1]):
            session = self._new(scope, peer)
        else:
            session = known[0]
        told[key] = (session, now)
        if len(told) > _MOST:
            told.popitem(last=False)
        return session

    def _new(self, scope: Any, peer: Peer) -> Session:
        host, port = peer.address if peer.address[0] else _host_and_port(scope.get("client"))
        session = Session(new_id(), host, port, wall(), self._sink, monotonic())
        session.opening = self._opening
        session.protocol = protocol_of(scope.get("http_version") or "")
        session.tls = tls_facts(peer.tls)
        if session.tls is not None and hasattr(peer.tls, "selected_alpn_protocol"):
            session.alpn = peer.tls.selected_alpn_protocol() or ""
        return session


def _is_over(session: Session, quiet: float) -> bool:
    return quiet > _IDLE and session.requests == session.finished


def _scheme(scope: Any) -> str:
    """Return `https` or `http`, of a WebSocket too: its connection may have had requests."""
    return "https" if scope.get("scheme") in ("https", "wss") else "http"
