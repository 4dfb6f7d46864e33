"""Listening sockets: binding, accepting, and what a new connection is until its protocol is known.

Connections are accepted here, not by asyncio's server: the session id exists before TLS begins,
a failed handshake is an exception with that id, and running out of file descriptors pauses
accepting instead of spinning.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from h2log.access.record import Session, TlsFacts
from h2log.clock import monotonic, wall
from h2log.errors import UsageError
from h2log.http2.frames import PREFACE
from h2log.http2.settings import EngineLimits
from h2log.ids import new_id
from h2log.server.http1_leg import Http1Leg
from h2log.server.http2_leg import Http2Leg
from h2log.server.session import FIRST_WORDS, Shared

__all__ = ["Listener", "bind"]

_logger = logging.getLogger("h2log.server")

_ACCEPTS_A_TURN: Final = 64
"""Connections accepted before others get their turn (libuv and nginx's multi_accept bound it)."""
_SHUTDOWN_TIMEOUT: Final = 3600.0
"""Seconds that a TLS connection may take to close; `HangUp` looks whether it gets on."""
_WAIT: Final = 0.001
"""Seconds that a connection is left to another process, which should wake up for it as we did."""
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


def bind(
    host: str, port: int, backlog: int, options: tuple[str, str] = ("--host", "--port")
) -> list[socket.socket]:
    """Return listening sockets for every address of `host`; port 0 is the same free one for all.

    `options` are what a message calls the two.
    Raises UsageError when the name is unknown, the address is not ours, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{options[0]} {host}: {reason}; give an address or a known name"
        ) from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Accepted sockets inherit it: a response must not wait for an acknowledgement.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # So that a peer which vanished without a word is noticed some day.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setblocking(False)
            listener.bind((address[0], port, *address[2:]))
            port = listener.getsockname()[1]
            listener.listen(backlog)
    except OSError as error:
        for listener in sockets:
            listener.close()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            text = (
                f"the port is in use; stop the other program, or choose another with {options[1]}"
            )
        elif error.errno == errno.EACCES:
            text = f"not permitted; ports below 1024 need rights, choose another with {options[1]}"
        elif error.errno == errno.EADDRNOTAVAIL:
            text = f"this machine does not have the address; choose another with {options[0]}"
        else:
            text = error.strerror or str(error)
        raise UsageError(f"cannot listen on {where}: {text}") from None
    return sockets


class Listener:
    """Accepts connections from `sockets` and hands each to the leg of its protocol.

    `context` is None for cleartext. `start` begins, `stop` ends accepting and closes the sockets.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        context: ssl.SSLContext | None,
        shared: Shared,
        limits: EngineLimits,
    ) -> None:
        self._sockets = sockets
        self._context = context
        self._shared = shared
        self._limits = limits
        self._refused: Counter[str] = Counter()  # connections since the last line, by limit
        self._refusal_line: asyncio.TimerHandle | None = None
        self._told = -10.0  # when the log last said that descriptors are out
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
            if self._crowded(str(address[0])):
                sock.close()
                continue
            sock.setblocking(False)
            session = Session(
                new_id(), str(address[0]), address[1], wall(), self._shared.sink, monotonic()
            )
            session.opening = self._shared.opening
            self._shared.accepted(session)
            task = asyncio.get_running_loop().create_task(self._connect(sock, session))
            self.pending.add(task)
            task.add_done_callback(partial(self._connected, sock, session))
        return True

    def _crowded(self, client: str) -> bool:
        """Say whether there is no room for another connection; count those that are refused."""
        limits = self._shared.limits
        clients = self._shared.clients
        if self._shared.connections >= limits.max_connections:
            self._refuse(f"limits.max_connections = {limits.max_connections}")
        elif clients[client] >= limits.max_connections_per_address:
            most = limits.max_connections_per_address
            self._refuse(f"limits.max_connections_per_address = {most}, by {client}")
        else:
            return False
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

    async def _connect(self, sock: socket.socket, session: Session) -> None:
        """Take a connection through TLS to its protocol."""
        debug = _logger.isEnabledFor(logging.DEBUG)
        extra = {"session_id": session.id, "request_id": "-"}
        if debug:
            _logger.debug(
                "accepted a connection from %s port %d", session.client, session.port, extra=extra
            )
        loop = asyncio.get_running_loop()
        timeout = self._shared.limits.handshake_timeout
        log = self._shared.log
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
