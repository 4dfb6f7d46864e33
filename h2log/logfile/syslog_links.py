"""Connections to a syslog collector: what is sent, and what is known to have arrived.

1. A message is sent whole or not at all. What a broken stream took a part of counts for nothing to
   its reader, since octets are counted (RFC 6587 section 3.4.1); on a Unix stream, where lines end
   with LF (section 3.4.2), a stream only breaks when nobody reads it any more.
2. A stream holds each message until the other side's system has it, as the kernel tells: those
   that it does not have when the stream breaks are given back, to be sent again. They may come
   twice then, and one that the collector's system had and the collector did not read is lost with
   it: no syslog transport has an acknowledgement by the collector itself.
3. A datagram is gone when it is sent. UDP tells of a port that nobody listens at (ICMP), and the
   last message is given back then; what waits at a Unix socket is lost with its collector.
4. A datagram that is longer than the socket takes is cut, and ends in ` #cut bytes=70123`, its
   whole length.

Calls block, for `PATIENCE` seconds at most, and are made from one thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from h2log.clock import monotonic
from h2log.errors import UsageError
from h2log.logfile.syslog_url import SyslogUrl

try:
    import fcntl
    import termios

    _OUTQ: int | None = termios.TIOCOUTQ
except (ImportError, AttributeError):  # Windows
    _OUTQ = None

__all__ = ["PATIENCE", "Datagrams", "Link", "Stream", "connect", "tls_context"]

PATIENCE: Final = 2.0
"""Seconds that a collector may take nothing before that is a failure (lines wait then)."""
_SILENCE: Final = 30
"""Seconds after which the system gives up a peer that acknowledges nothing (RFC 5482)."""
_SIZES: Final = (65_507, 65_000, 32_768, 16_384, 9_216, 8_192, 4_096, 2_048, 1_024, 480)
"""Bytes of a datagram that are tried when it is too long: UDP over IPv4 ends at the first, macOS
has 9,216 and, for Unix sockets, 2,048; every receiver takes 480 (RFC 5426 section 3.2)."""
_STEP: Final = 16_384
"""Bytes sent at a time: a TLS record (RFC 8446 section 5.1)."""
_GLANCE: Final = 0.005
"""Seconds between two looks at whether everything has arrived."""
_VERDICT: Final = 0.25
"""Seconds for a TLS 1.3 collector to object to our certificate: it may after the handshake."""
_UNKNOWN: Final = 256 * 1024
"""Bytes that may be on their way where the system does not tell how many are."""


class Link(Protocol):
    """An open connection."""

    broken: OSError | None
    """Why nothing more can be sent."""
    cut: int
    """Messages of which only the beginning was sent."""

    def send(self, messages: Sequence[bytes]) -> int:
        """Send messages; return how many, from the first on, were taken. OSError when none was.

        After a TimeoutError the link is whole; after any other error it is `broken`. So it may be
        after a return.
        """
        ...

    def check(self) -> None:
        """Raise OSError when the link turns out to be broken."""
        ...

    @property
    def settled(self) -> bool:
        """Whether nothing that was sent is on its way any more, as far as can be known."""
        ...

    def settle(self, seconds: float) -> None:
        """Wait until it is so. Raises TimeoutError, and OSError as `check`."""
        ...

    def close(self, seconds: float) -> list[bytes]:
        """Close, once all has arrived or so many seconds have gone.

        Returns the messages that were taken and may not have arrived, oldest first.
        """
        ...


class Datagrams:
    """A connected datagram socket, UDP or Unix; a message each."""

    def __init__(self, connected: socket.socket) -> None:
        self.broken: OSError | None = None
        self.cut = 0
        connected.settimeout(PATIENCE)
        self._socket = connected
        self._udp = connected.family != getattr(socket, "AF_UNIX", None)
        self._last = b""
        self._looked = True  # for an error, since that was sent

    def send(self, messages: Sequence[bytes]) -> int:
        """Send messages, as `Link.send`."""
        done = 0
        try:
            for message in messages:
                self._send(message)
                self._last, self._looked = message, False
                done += 1
            self._look()
        except TimeoutError:
            if not done:
                raise TimeoutError(errno.ETIMEDOUT, "the collector does not read") from None
        except OSError as error:
            self.broken = error
            if not done:
                raise
        return done

    def _send(self, message: bytes) -> None:
        whole = message
        sizes = iter(_SIZES)
        while True:
            try:
                self._socket.send(message)
            except OSError as error:
                size = next((size for size in sizes if size < len(message)), 0)
                if error.errno != errno.EMSGSIZE or not size:
                    raise
                message = _beginning(whole, size)
            else:
                self.cut += message is not whole
                return

    def _look(self) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def check(self) -> None:
        """Raise OSError when the port was found to be closed."""
        if self.broken is None:
            try:
                self._look()
            except OSError as error:
                self.broken = error
            self._looked = True
        if self.broken is not None:
            raise self.broken

    @property
    def settled(self) -> bool:
        """Whether an error was looked for since the last message."""
        return self._looked or not self._udp

    def settle(self, seconds: float) -> None:
        """Look for an error."""
        self.check()

    def close(self, seconds: float) -> list[bytes]:
        """Close; return the last message if nobody was at its port. More is not known."""
        with contextlib.suppress(OSError):
            self.check()
        self._socket.close()
        refused = self.broken is not None and self.broken.errno == errno.ECONNREFUSED
        return [self._last] if self._udp and refused and self._last else []


def _beginning(message: bytes, size: int) -> bytes:
    """Return what of a message fits into `size` bytes, and a mark."""
    mark = b" #cut bytes=%d" % len(message)
    return message[: size - len(mark)].decode("utf-8", "ignore").encode() + mark


class Stream:
    """A connected stream: TCP, TLS or Unix. `frame` tells messages apart on it."""

    def __init__(self, connected: socket.socket, frame: Callable[[bytes], bytes]) -> None:
        self.broken: OSError | None = None
        self.cut = 0
        connected.settimeout(PATIENCE)
        self._socket = connected
        self._frame = frame
        # The kernel knows after a TCP connection has broken, too, what did not arrive.
        self._tcp = connected.family != getattr(socket, "AF_UNIX", None)
        self._position = 0  # octets handed to the system
        self._sent: deque[tuple[int, bytes]] = deque()  # the end of each message, which may not
        # have arrived, and itself
        self._rest = b""  # of the last of those
        self._owed = 0  # octets of it that were offered: OpenSSL wants the same again

    def send(self, messages: Sequence[bytes]) -> int:
        """Send messages, as `Link.send`."""
        frames = [self._frame(message) for message in messages]
        whole = self._rest + b"".join(frames)
        failure: OSError | None = None
        at = 0
        offered = 0
        with memoryview(whole) as view:
            try:
                while at < len(whole):
                    offered = at + (self._owed or min(_STEP, len(whole) - at))
                    with view[at:offered] as piece:
                        at += self._socket.send(piece)
                    self._owed = 0
            except OSError as error:
                failure = error
        # Of what was offered and not taken, OpenSSL may have sent a part all the same.
        touched = offered if isinstance(self._socket, ssl.SSLSocket) else at
        end = len(self._rest)
        taken = 0
        for message, frame in zip(messages, frames, strict=True):
            if end >= touched:
                break
            end += len(frame)
            self._sent.append((self._position + end, message))
            taken += 1
        self._position += at
        self._rest = whole[at:end]
        self._owed = max(touched - at, 0)
        if _is_ours(failure):
            failure = TimeoutError(errno.ETIMEDOUT, "the collector does not read")
        else:
            self.broken = failure
        if failure is not None and not taken:
            raise failure
        self._forget()
        return taken

    def _forget(self) -> None:
        """Forget the messages that the other side's system has."""
        if self._tcp or self.broken is None:
            self._forget_until(self._position - self._under_way())

    def _forget_until(self, position: int) -> None:
        while self._sent and self._sent[0][0] <= position:
            self._sent.popleft()

    def _under_way(self) -> int:
        """Return how many octets, at most, were sent and did not arrive."""
        if _OUTQ is not None:
            try:
                count = fcntl.ioctl(self._socket.fileno(), _OUTQ, bytes(4))
                return int(struct.unpack("i", count)[0])
            except (OSError, ValueError):
                pass
        return _UNKNOWN

    def check(self) -> None:
        """Raise OSError when the collector has closed the connection, or it is lost."""
        self.listen(0.0)

    def listen(self, seconds: float) -> None:
        """Take what the collector says; raise OSError if it is the end."""
        if self.broken is None:
            self._forget()  # reading the end, OpenSSL may answer with an alert, which never arrives
            self._socket.settimeout(seconds)
            try:
                # What it says is of no interest (over TLS: session tickets), its end is.
                if not self._socket.recv(_STEP):
                    if not self._tcp and sys.platform == "linux":
                        # Had it not read everything, this would be a reset (unix(7)).
                        self._forget_until(self._position)
                    self.broken = ConnectionResetError(
                        errno.ECONNRESET, "the collector has closed the connection"
                    )
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError as error:
                self.broken = None if _is_ours(error) else error
            finally:
                self._socket.settimeout(PATIENCE)
        if self.broken is not None:
            raise self.broken

    @property
    def settled(self) -> bool:
        """Whether all that was sent has arrived, if the system tells."""
        self._forget()
        return not self._sent or _OUTQ is None

    def settle(self, seconds: float) -> None:
        """Wait for the other side's system to have everything."""
        deadline = monotonic() + seconds
        while not self.settled:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, "the collector does not read")
            self.listen(min(left, _GLANCE))

    def close(self, seconds: float) -> list[bytes]:
        """End the stream well (RFC 5425 section 4.4: close_notify), and see everything arrive."""
        deadline = monotonic() + seconds
        self._forget()
        try:
            if self.broken is None and not self._rest:
                self._socket.settimeout(min(seconds, 1.0))
                if isinstance(self._socket, ssl.SSLSocket):
                    with contextlib.suppress(OSError, ValueError):
                        self._socket.unwrap()
                self._socket.shutdown(socket.SHUT_WR)
                self.settle(max(deadline - monotonic(), 0.0))
                # Closed with something unread, it would end in a reset.
                self._socket.setblocking(False)
                while self._socket.recv(_STEP):
                    pass
        except OSError:
            pass
        finally:
            self._forget()
            self._socket.close()
        return [message for _, message in self._sent]


def _is_ours(error: OSError | None) -> bool:
    """Return whether an error is that of our own patience, and not the system's of a dead peer."""
    return isinstance(error, TimeoutError) and error.errno is None


def _counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


def _ended(message: bytes) -> bytes:
    return message + b"\n"


def tls_context(url: SyslogUrl) -> ssl.SSLContext | None:
    """Return how the collector is verified, None without TLS. UsageError for what cannot be read.

    TLS 1.2 or later (RFC 9662), and the certificate is of the host in the URL (RFC 5425 section
    5.2).
    """
    if url.transport != "tls":
        return None
    name, path = "ca", url.ca
    try:
        context = ssl.create_default_context(cafile=url.ca or None)
        if url.cert:
            name, path = "cert", url.cert
            context.load_cert_chain(url.cert, url.key or None, password=_no_password)
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ssl.SSLError):  # its words are OpenSSL's
            reason = "no PEM file of that kind"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise UsageError(
            f"syslog+tls://{url.host}: cannot use {name}={path}: {reason}; name another file"
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("it needs a password")


def connect(url: SyslogUrl, context: ssl.SSLContext | None = None, turn: int = 0) -> Link:
    """Connect to the collector. Raises OSError.

    Of a host with more than one address, UDP takes the next one at each `turn`: it is only by its
    messages that one finds out who listens.
    """
    if url.transport == "unix":
        return _connect_unix(url.path)
    if url.transport == "udp":
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[turn % len(found)]
        return Datagrams(_connected(socket.socket(family, kind, protocol), address))
    connected = socket.create_connection((url.host, url.port), PATIENCE)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE * 1000)
        if context is not None:
            connected = context.wrap_socket(connected, server_hostname=url.host)
        stream = Stream(connected, _counted)
        if isinstance(connected, ssl.SSLSocket) and connected.version() == "TLSv1.3":
            stream.listen(_VERDICT)
    except ssl.SSLCertVerificationError as error:
        connected.close()
        reason = f"its certificate is not trusted: {error.verify_message}"
        raise OSError(errno.EACCES, f"{reason} (?ca=FILE names its authority)") from None
    except ssl.SSLError as error:
        connected.close()
        reason = (error.reason or "no handshake").lower().replace("_", " ")
        raise OSError(errno.EPROTO, f"TLS: {reason}") from None
    except BaseException:
        connected.close()
        raise
    return stream


def _connect_unix(path: str) -> Link:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "there are no Unix sockets here; name a host")
    try:
        return Datagrams(_connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), path))
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    return Stream(_connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path), _ended)


def _connected(new: socket.socket, address: Any) -> socket.socket:
    try:
        new.settimeout(PATIENCE)
        new.connect(address)
    except BlockingIOError:  # of a Unix socket whose backlog is full
        new.close()
        raise TimeoutError(errno.ETIMEDOUT, "the collector accepts no connections") from None
    except BaseException:
        new.close()
        raise
    return new
