"""Accepting, and what a new connection is until its protocol is known.

Connections are accepted here, not by asyncio's server: the session id exists before TLS begins,
a failed handshake is an exception with that id, and running out of file descriptors pauses
accepting instead of spinning.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from h2log.access.record import Session, TlsFacts
from h2log.clock import monotonic, wall
from h2log.http2.frames import PREFACE
from h2log.http2.settings import EngineLimits
from h2log.id_source import new_id
from h2log.server.http1_leg import Http1Leg
from h2log.server.http2_leg import Http2Leg
from h2log.server.networks import UNIX, Networks
from h2log.server.proxy_protocol import NoHeaderError, ProxyError, read_header
from h2log.server.session import FIRST_WORDS, Shared

__all__ = ["Listener"]

_logger = logging.getLogger("h2log.server")

_ACCEPTS_A_TURN: Final = 64
"""Connections accepted before others get their turn (libuv and nginx's multi_accept bound it)."""
_SHUTDOWN_TIMEOUT: Final = 3600.0
"""Seconds that a TLS connection may take to close; `HangUp` looks whether it gets on."""
_WAIT: Final = 0.001
"""Seconds that a connection is left to another process, which should wake up for it as we did."""
_LEAST_HANDSHAKE: Final = 0.1
"""Seconds that are left for TLS, however late a PROXY header came."""
_PAUSE: Final = 0.25
"""Seconds without accepting after the system refused a descriptor."""
_PENDING_ERRORS: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ENETDOWN",
        "EPROTO",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "EPERM",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
"""Errors of the connection that was to be accepted, not of accepting (accept(2))."""
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """Accepts connections from `sockets` and hands each to the leg of its protocol.

    `context` is None for cleartext. Peers among the `proxies` have to begin with a PROXY header;
    from anybody else it is but bytes that do not belong there (as HAProxy's expect-proxy with an
    address). `start` begins, `stop` ends accepting and closes the sockets.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        context: ssl.SSLContext | None,
        shared: Shared,
        limits: EngineLimits,
        proxies: Networks | None = None,
    ) -> None:
        self._sockets = sockets
        self._proxies = proxies
        self._context = context
        self._shared = shared
        self._limits = limits
        self._refused: Counter[str] = Counter()  # connections since the last line, by limit
        self._refusal_line: asyncio.TimerHandle | None = None
        self._told = -10.0  # when the log last said that descriptors are out
        self._missed = False  # the log has said that a proxy sends no PROXY headers
        self._resume: asyncio.TimerHandle | None = None
        self.fair: Callable[[int], bool] | None = None
        """Where other processes have the same sockets: is told how many connections we have, and
        says whether one of them should rather take the next."""
        self._waited = False  # and may take one without asking
        self.pending: set[asyncio.Task[None]] = set()
        """Connections whose protocol is not known yet."""

    def start(self) -> None:
        """Accept from now on."""
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            loop.add_reader(listener.fileno(), self._accept, listener)

    def _suspend(self, seconds: float) -> None:
        """Leave new connections in the kernel's backlog for a while."""
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            loop.remove_reader(listener.fileno())
        if self._resume is not None:
            self._resume.cancel()
        self._resume = loop.call_later(seconds, self.start)

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another TLS side from the next handshake on."""
        self._context = context

    def stop(self, *, last: bool = True) -> None:
        """Take what the kernel holds for us, accept no more, and close the sockets.

        Not `last` leaves what it holds to the other processes that have the same sockets.
        """
        if self._resume is not None:
            self._resume.cancel()
        if self._refusal_line is not None:
            self._refusal_line.cancel()
            self._tell_refused()
        self.fair = None
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            loop.remove_reader(listener.fileno())
            while last and self._accept(listener):
                pass
            if self._resume is not None:
                self._resume.cancel()
            listener.close()

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a turn's worth; return whether there may be more."""
        for _ in range(_ACCEPTS_A_TURN):
            if self._waited:
                self._waited = False
            elif self.fair is not None and self.fair(self._shared.connections):
                self._waited = True
                self._suspend(_WAIT)
                return False
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionError:
                continue  # the peer was gone before we came
            except OSError as error:
                if error.errno in _PENDING_ERRORS:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                if monotonic() - self._told > 10:
                    self._told = monotonic()
                    _logger.warning(
                        "cannot accept: %s; trying again every %g s", error.strerror, _PAUSE
                    )
                self._suspend(_PAUSE)
                return False
            client, port = _peer(address)
            proxied = self._proxies is not None and client in self._proxies
            if self._full() or (not proxied and self._crowded(client)):
                sock.close()
                continue
            sock.setblocking(False)
            session = Session(new_id(), client, port, wall(), self._shared.sink, monotonic())
            session.opening = self._shared.opening
            self._shared.accepted(session)
            task = asyncio.get_running_loop().create_task(self._connect(sock, session, proxied))
            self.pending.add(task)
            task.add_done_callback(partial(self._connected, sock, session))
        return True

    def _full(self) -> bool:
        """Say whether there is no room for another connection; count those that are refused."""
        most = self._shared.limits.max_connections
        if self._shared.connections < most:
            return False
        self._refuse(f"limits.max_connections = {most}")
        return True

    def _crowded(self, client: str) -> bool:
        """Say whether a client has too many connections; who comes by a Unix socket has no address
        of its own, and a proxy that begins with PROXY headers comes for others."""
        most = self._shared.limits.max_connections_per_address
        if client == UNIX or self._shared.clients[client] < most:
            return False
        self._refuse(f"limits.max_connections_per_address = {most}, by {client}")
        return True

    def _refuse(self, limit: str) -> None:
        """Count a refused connection; a line tells the number once a second, not for each."""
        self._refused[limit] += 1
        if self._refusal_line is None:
            loop = asyncio.get_running_loop()
            self._refusal_line = loop.call_later(1.0, self._tell_refused)

    def _tell_refused(self) -> None:
        self._refusal_line = None
        for limit, count in self._refused.items():
            _logger.warning("refused %d connections: %s", count, limit)
        self._refused.clear()

    def _connected(self, sock: socket.socket, session: Session, task: asyncio.Task[None]) -> None:
        self.pending.discard(task)
        if task.cancelled():  # also one that had not begun
            sock.close()
            self._shared.gone(session, "server_shutdown")
        self._shared.changed.set()

    async def _connect(self, sock: socket.socket, session: Session, proxied: bool) -> None:
        """Take a connection through TLS to its protocol; when `proxied`, its PROXY header first."""
        debug = _logger.isEnabledFor(logging.DEBUG)
        extra = {"session_id": session.id, "request_id": "-"}
        if debug:
            _logger.debug(
                "accepted a connection from %s port %d", session.client, session.port, extra=extra
            )
        loop = asyncio.get_running_loop()
        timeout = self._shared.limits.handshake_timeout
        log = self._shared.log
        if proxied:
            if not await self._introduced(sock, session):
                sock.close()
                return
            timeout = max(_LEAST_HANDSHAKE, timeout - (monotonic() - session.opened))
        try:
            if self._context is None:
                if log is not None:  # one request a connection is held up too
                    await log.ready()
                await loop.connect_accepted_socket(lambda: _Cleartext(self, session), sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: _Secure(self, session),
                    sock,
                    ssl=self._context,
                    ssl_handshake_timeout=timeout,
                    ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
                )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._shared.gone(session, "tls_handshake_failed")
            _logger.info(
                "TLS handshake with %s failed: %s", session.client, _reason(error), extra=extra
            )
            sock.close()

    async def _introduced(self, sock: socket.socket, session: Session) -> bool:
        """Read the PROXY header, and take its client for the session's; False ends the session."""
        extra = {"session_id": session.id, "request_id": "-"}
        try:
            async with asyncio.timeout(self._shared.limits.handshake_timeout):
                told = await read_header(sock)
        except (ProxyError, OSError, TimeoutError) as error:
            text = "it did not come in time" if isinstance(error, TimeoutError) else _reason(error)
            self._shared.gone(session, "proxy_protocol_failed")
            _logger.info("PROXY header from %s: %s", session.client, text, extra=extra)
            if isinstance(error, NoHeaderError) and not self._missed:
                self._missed = True
                _logger.warning(
                    "%s is to begin connections with a PROXY header (server.proxy_protocol) and "
                    "does not: they are closed; have it send one (HAProxy: send-proxy-v2), or "
                    "leave its address out",
                    session.client,
                    extra=extra,
                )
            return False
        if told is None:
            _logger.debug("the proxy %s tells no client", session.client, extra=extra)
            return True
        _logger.debug("the proxy %s comes for %s port %d", session.client, *told, extra=extra)
        crowded = self._crowded(told[0])
        self._shared.introduced(session, *told)
        if crowded:
            self._shared.gone(session, "max_concurrent_connections_exceeded")
        return not crowded

    def leg(self, session: Session, protocol: str) -> Http2Leg | Http1Leg:
        """Return the leg for `h2` or `http/1.1`."""
        if _logger.isEnabledFor(logging.DEBUG):
            extra = {"session_id": session.id, "request_id": "-"}
            _logger.debug("speaks %s", protocol, extra=extra)
        session.alpn = protocol if self._context is not None else ""
        session.protocol = "h2" if protocol == "h2" else "1.1"
        self._shared.opened(session)
        if protocol == "h2":
            return Http2Leg(session, self._shared, self._limits)
        return Http1Leg(session, self._shared, self._context is not None)


def _peer(address: Any) -> tuple[str, int]:
    """Return a peer's address and port, from what `accept` says."""
    return (str(address[0]), address[1]) if isinstance(address, tuple) else (UNIX, 0)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


class _Secure(asyncio.Protocol):
    """A TLS connection whose handshake is done: ALPN says which leg it gets."""

    def __init__(self, listener: Listener, session: Session) -> None:
        self._listener = listener
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self._session.tls_object = tls
        cipher = tls.cipher()
        self._session.tls = TlsFacts(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            sni=getattr(tls, "sni", ""),
            resumed=bool(tls.session_reused),
        )
        leg = self._listener.leg(self._session, tls.selected_alpn_protocol() or "http/1.1")
        transport.set_protocol(leg)
        leg.connection_made(transport)


class _Cleartext(asyncio.Protocol):
    """A cleartext connection: its first bytes say which leg it gets (RFC 9113 section 3.3)."""

    def __init__(self, listener: Listener, session: Session) -> None:
        self._listener = listener
        self._session = session
        self._seen = b""
        self._since = monotonic()
        self._limit = listener._shared.limits.preface_timeout
        self._transport: asyncio.Transport | None = None
        self._ended_for = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        shared = self._listener._shared
        shared.legs.add(self)
        if shared.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        self._session.received += len(data)
        self._seen += data
        start = PREFACE[: len(self._seen)]
        if self._seen.startswith(PREFACE):
            self._become("h2")
        elif not self._seen.startswith(start):
            self._become("http/1.1")

    def _become(self, protocol: str) -> None:
        assert self._transport is not None
        self._listener._shared.left(self)
        leg = self._listener.leg(self._session, protocol)
        self._transport.set_protocol(leg)
        leg.connection_made(self._transport)
        leg.data_received(self._seen)

    def connection_lost(self, error: Exception | None) -> None:
        shared = self._listener._shared
        shared.left(self)
        lost = "connection_reset" if error is not None else "client_closed"
        shared.gone(self._session, self._ended_for or lost)

    def drain(self) -> None:
        self._limit = min(self._limit, FIRST_WORDS)

    def shut(self) -> None:
        self._close("app_shutdown_timeout")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        if now - self._since > self._limit:
            draining = self._listener._shared.draining
            self._close("server_shutdown" if draining else "request_headers_timeout")

    def _close(self, reason: str) -> None:
        self._ended_for = reason
        if self._transport is not None:
            self._transport.close()
