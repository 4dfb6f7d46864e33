"""Syslog collectors: real sockets, read by threads, that remember what came."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from h2log.logfile.writer import LogWriter
from h2log.server.certificates import Certificates
from tests.logfile.numbered import put_many
from tests.support import free_port

MESSAGE = re.compile(
    rb"<([0-9]{1,3})>1 ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z) "
    rb'([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) \[meta sequenceId="([0-9]+)"\] '
    rb"(\xef\xbb\xbf)?(.*)",
    re.DOTALL,
)
"""RFC 5424 section 6, with the structured data that h2log sends."""


_COUNT = re.compile(rb"([1-9][0-9]*) ")


class Message(NamedTuple):
    """A syslog message, taken apart."""

    priority: int
    stamp: str
    host: str
    app: str
    process: str
    id: str
    sequence: int
    marked: bool
    """Whether a byte order mark stands before the text."""
    text: str


def parsed(data: bytes) -> Message:
    """Return a message, which must be a whole one."""
    found = MESSAGE.fullmatch(data)
    assert found is not None, data[:200]
    priority, stamp, host, app, process, name, sequence, mark, text = found.groups()
    return Message(
        int(priority),
        stamp.decode(),
        host.decode(),
        app.decode(),
        process.decode(),
        name.decode(),
        int(sequence),
        mark is not None,
        text.decode("utf-8"),
    )


class Collector:
    """What came, in its order. Use: `with UdpCollector() as collector`."""

    url: str

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._reading = threading.Event()
        self._reading.set()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def messages(self) -> list[Message]:
        """What came, taken apart."""
        return [parsed(data) for data in list(self.received)]

    @property
    def texts(self) -> list[str]:
        """The lines that came."""
        return [message.text for message in self.messages]

    def start(self) -> None:
        """Listen: at the same place as before."""
        self._stopping = False
        self._begin()

    def stop(self) -> None:
        """Stop listening, and end what is open."""
        self._stopping = True
        self._reading.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads.clear()

    def pause(self) -> None:
        """Read nothing more, for now."""
        self._reading.clear()

    def resume(self) -> None:
        """Read again."""
        self._reading.set()

    def _begin(self) -> None:
        raise NotImplementedError

    def _thread(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


class DatagramCollector(Collector):
    """A datagram is a message. On a Unix socket with a path, else UDP on a free port."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = path
        self._port = free_port()  # it has to be the same after a pause

    def _begin(self) -> None:
        if self._path is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", self._port))
            self.url = f"syslog://127.0.0.1:{self._port}"
        else:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self.url = f"syslog://{self._path}"
        self._socket.settimeout(0.02)
        self._thread(self._read)

    def _read(self) -> None:
        while not self._stopping:
            self._reading.wait()
            with contextlib.suppress(TimeoutError):
                self.received.append(self._socket.recv(1_000_000))
        self._socket.close()


class _Connection:
    """One of a stream collector's."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.rest = b""
        """What came of a message that is not whole yet."""
        self.parked = threading.Event()
        """Set while nothing is read."""


class StreamCollector(Collector):
    """Counted octets over TCP, or over TLS with a context; on a Unix socket lines."""

    def __init__(
        self, path: Path | None = None, context: ssl.SSLContext | None = None, buffer: int = 0
    ) -> None:
        super().__init__()
        self._path = path
        self._context = context
        self._buffer = buffer
        self._port = free_port()  # it has to be the same after a pause
        self._connections: list[_Connection] = []
        self.accepted = 0
        self.torn: list[bytes] = []
        """What connections ended with that was no whole message."""
        self.certificates: list[object] = []
        """What clients were known by."""

    def _begin(self) -> None:
        if self._path is None:
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._buffer:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
                # The sender's own buffer goes by the size of the segments.
                self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            self._listener.bind(("", self._port))  # as 127.0.0.2, too
            kind = "tcp" if self._context is None else "tls"
            self.url = f"syslog+{kind}://localhost:{self._port}"
        else:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self.url = f"syslog://{self._path}"
        self._listener.listen()
        self._listener.settimeout(0.02)
        self._thread(self._accept)

    def _accept(self) -> None:
        with self._listener:
            while not self._stopping:
                with contextlib.suppress(TimeoutError):
                    connected, _ = self._listener.accept()
                    self.accepted += 1
                    self._thread(self._serve, connected)

    def _serve(self, connected: socket.socket) -> None:
        connected.settimeout(5)
        try:
            if self._context is not None:
                connected = self._context.wrap_socket(connected, server_side=True)
                self.certificates.append(connected.getpeercert())
        except OSError:
            connected.close()
            return
        connection = _Connection(connected)
        self._connections.append(connection)
        connected.settimeout(0.02)
        try:
            while not self._stopping:
                if not self._reading.is_set():
                    connection.parked.set()
                    self._reading.wait()
                    connection.parked.clear()
                try:
                    piece = connected.recv(65_536)
                except TimeoutError:
                    continue
                if not piece:
                    break
                self._take(connection, piece)
        except OSError:
            pass
        if connection.rest:
            self.torn.append(connection.rest)
        if connection in self._connections:
            self._connections.remove(connection)
            with contextlib.suppress(OSError, ValueError):
                connected.settimeout(0.2)
                if isinstance(connected, ssl.SSLSocket):
                    connected.unwrap()
            connected.close()

    def _take(self, connection: _Connection, piece: bytes) -> None:
        """Keep the whole messages."""
        data = connection.rest + piece
        if self._path is not None:
            *whole, data = data.split(b"\n")
            self.received.extend(whole)
            connection.rest = data
            return
        at = 0
        while found := _COUNT.match(data, at):
            end = found.end() + int(found[1])
            if len(data) < end:
                break
            self.received.append(data[found.end() : end])
            at = end
        connection.rest = data[at:]

    def kill(self) -> None:
        """End like a process that is killed while it does not read.

        What its system has in the buffers counts as read as far as messages are whole: what the
        system has acknowledged is never sent again.
        """
        [connection] = self._connections
        assert connection.parked.wait(10)
        self._stopping = True
        self._threads[0].join(10)  # nobody listens any more
        self._connections.clear()
        waiting = bytearray(4)
        fcntl.ioctl(connection.socket.fileno(), termios.FIONREAD, waiting)
        size = int.from_bytes(waiting, "little")
        self._take(connection, connection.socket.recv(size, socket.MSG_PEEK))
        linger = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.socket.close()
        self.stop()

    def close_connections(self) -> None:
        """Close what is open, and go on listening."""
        for connection in list(self._connections):
            connection.socket.shutdown(socket.SHUT_RDWR)


KINDS = ["udp", "unix", "unix stream", "tcp", "tls"]


def server_side(certs: Certificates) -> ssl.SSLContext:
    """Return a collector's TLS side."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certs.cert, certs.key)
    return context


def collector_of(kind: str, folder: Path, certs: Certificates, buffer: int = 0) -> Collector:
    """Return a collector, not started yet; `buffer` is what a network's holds."""
    if kind in ("udp", "unix"):
        return DatagramCollector(folder / "log" if kind == "unix" else None)
    return StreamCollector(
        folder / "log" if kind == "unix stream" else None,
        server_side(certs) if kind == "tls" else None,
        buffer,
    )


def with_options(collector: Collector, certs: Certificates, **options: str) -> str:
    """Return the collector's URL; over TLS its authority is known."""
    if collector.url.startswith("syslog+tls:"):
        options["ca"] = str(certs.ca)
    return f"{collector.url}?{'&'.join(f'{n}={v}' for n, v in options.items())}".rstrip("?")


def came(collector: Collector, count: int, *, at_least: bool = False) -> Callable[[], bool]:
    """Return what tells whether so many messages have come."""

    def tell() -> bool:
        return len(collector.received) == count or (at_least and len(collector.received) > count)

    return tell


def data(collector: Collector) -> bytes:
    """Return the lines that came, as a file would have them."""
    return "".join(f"{text}\n" for text in collector.texts).encode()


async def overfill(writer: LogWriter) -> None:
    """Put records, at a pace, until the collector's buffers are full."""
    while not writer.health().failing:
        if writer.sequence < 150_000:
            await put_many(writer, 1000)
        await asyncio.sleep(0.002)
