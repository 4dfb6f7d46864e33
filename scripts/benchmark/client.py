"""A small blocking HTTP/2 client: asks once (readiness, content), or holds idle connections.

use: client.py PORT PATH COUNT CAFILE. It opens COUNT connections with one request each, prints
`ready`, waits for a line on standard input, prints how many are still open, and ends.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from failure import BenchError

__all__ = ["Connection", "context", "fetch"]


def context(cafile: Path | str) -> ssl.SSLContext:
    """Return a TLS context that trusts the benchmark's certificate only."""
    made = ssl.create_default_context(cafile=str(cafile))
    made.set_alpn_protocols(["h2"])
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

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for `path`; return status and content."""
        stream = self.engine.get_next_available_stream_id()
        fields = {
            ":method": "GET",
            ":scheme": "https",
            ":authority": self.authority,
            ":path": path,
        }
        self.engine.send_headers(stream, list(fields.items()), end_stream=True)
        self.socket.sendall(self.engine.data_to_send())
        status, content = 0, []
        while True:
            data = self.socket.recv(1 << 16)
            if not data:
                raise BenchError("the server closed the connection before it had answered")
            ended = False
            for event in self.engine.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers or ())[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    content.append(event.data)
                    self.engine.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    raise BenchError(f"the server answered with {event!r}")
            if reply := self.engine.data_to_send():
                self.socket.sendall(reply)
            if ended:
                return status, b"".join(content)

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


def fetch(port: int, path: str, tls: ssl.SSLContext, timeout: float = 10.0) -> tuple[int, bytes]:
    """Ask once on a connection of its own; return status and content."""
    connection = Connection(port, tls, timeout)
    try:
        return connection.get(path)
    finally:
        connection.socket.close()


def main() -> None:
    port, path, count, cafile = sys.argv[1:]
    tls = context(cafile)
    connections = []
    for _ in range(int(count)):
        connection = Connection(int(port), tls)
        connections.append(connection)
        status, _content = connection.get(path)
        if status != 200:
            sys.exit(f"status {status}")
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(connection.is_open() for connection in connections), flush=True)


if __name__ == "__main__":
    main()
