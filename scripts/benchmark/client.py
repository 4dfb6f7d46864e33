"""A small blocking HTTP/2 client: asks once (readiness, content), or holds idle connections.

use: client.py PORT PATH COUNT CAFILE. It opens COUNT connections with one request each, prints
`ready`, waits for a line on standard input, prints how many are still open, and ends.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
from failure import BenchError

__all__ = ["Answer", "Connection", "context", "fetch", "fetch_http1"]


class Answer(NamedTuple):
    """What a server answered: its header fields by name, and all of its content."""

    status: int = 0
    fields: Mapping[str, str] = {}
    content: bytes = b""


def context(cafile: Path | str, protocol: str = "h2") -> ssl.SSLContext:
    """Return a TLS context that trusts the benchmark's certificate only."""
    made = ssl.create_default_context(cafile=str(cafile))
    made.set_alpn_protocols([protocol])
    return made


class Connection:
    """One HTTP/2 connection over TLS."""

    def __init__(self, port: int, tls: ssl.SSLContext, timeout: float = 10.0) -> None:
        self.authority = f"127.0.0.1:{port}"
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = tls.wrap_socket(raw, server_hostname="127.0.0.1")
        except BaseException:
            raw.close()
            raise
        if self.socket.selected_alpn_protocol() != "h2":
            self.socket.close()
            raise BenchError("the server did not choose h2")
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration())
        self.engine.initiate_connection()

    def ask(self, path: str, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """Ask for `path`: POST with content, GET without."""
        stream = self.engine.get_next_available_stream_id()
        fields = {
            ":method": "POST" if content else "GET",
            ":scheme": "https",
            ":authority": self.authority,
            ":path": path,
            **headers,
        }
        self.engine.send_headers(stream, list(fields.items()), end_stream=not content)
        status, answered, received = 0, {}, []
        rest = memoryview(content)
        while True:
            while rest and (
                room := min(
                    self.engine.local_flow_control_window(stream),
                    self.engine.max_outbound_frame_size,
                )
            ):
                part, rest = rest[:room], rest[room:]
                self.engine.send_data(stream, part.tobytes(), end_stream=not rest)
            self._flush()
            data = self.socket.recv(1 << 16)
            if not data:
                raise BenchError("the server closed the connection before it had answered")
            ended = False
            for event in self.engine.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    answered = {
                        name.decode(): value.decode("latin-1") for name, value in event.headers
                    }
                    status = int(answered[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    received.append(event.data)
                    self.engine.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    raise BenchError(f"the server answered with {event!r}")
            self._flush()
            if ended:
                return Answer(status, answered, b"".join(received))

    def _flush(self) -> None:
        if out := self.engine.data_to_send():
            self.socket.sendall(out)

    def is_open(self) -> bool:
        """Tell whether the server has left the connection as it was: no end, no GOAWAY."""
        self.socket.setblocking(False)
        try:
            while select.select([self.socket], [], [], 0)[0] or self.socket.pending():
                data = self.socket.recv(1 << 16)
                if not data:
                    return False
                for event in self.engine.receive_data(data):
                    if isinstance(event, h2.events.ConnectionTerminated):
                        return False
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return True


def fetch(
    port: int, path: str, headers: Mapping[str, str], tls: ssl.SSLContext, content: bytes = b""
) -> Answer:
    """Ask once on a connection of its own."""
    connection = Connection(port, tls)
    try:
        return connection.ask(path, headers, content)
    finally:
        connection.socket.close()


def fetch_http1(
    port: int, path: str, headers: Mapping[str, str], tls: ssl.SSLContext, content: bytes = b""
) -> Answer:
    """Ask once over HTTP/1.1, on a connection of its own."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)
    try:
        connection.request("POST" if content else "GET", path, content or None, dict(headers))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
    except http.client.HTTPException as error:
        raise BenchError(f"{type(error).__name__}: {error}") from None
    finally:
        connection.close()


def main() -> None:
    port, path, count, cafile = sys.argv[1:]
    tls = context(cafile)
    connections = []
    for _ in range(int(count)):
        connection = Connection(int(port), tls)
        connections.append(connection)
        answer = connection.ask(path, {})
        if answer.status != 200:
            sys.exit(f"status {answer.status}")
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(connection.is_open() for connection in connections), flush=True)


if __name__ == "__main__":
    main()
