"""Makes the load of WebSockets over HTTP/1.1: messages that a server sends back.

use: echo.py PORT PATH CAFILE CLIENTS INFLIGHT MESSAGES. Each of CLIENTS connections is a WebSocket
and has up to INFLIGHT messages on their way; MESSAGES is a whole number of the clients. Frames are
made before, so that little of the client's time goes between an echo and the next message. What
comes back is compared, every byte of it. The cipher is TLS_AES_256_GCM_SHA384 with every server,
the first that Python offers. It prints JSON: seconds, bytes of content, all bytes, TLS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import selectors
import socket
import ssl
import struct
import sys
import time

import client
from failure import BenchError
from scenarios import ECHOED

__all__ = ["WebSocket", "fetch"]

# RFC 6455: section 4.2.2 for the handshake, section 5.2 for frames.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
NORMAL = struct.pack("!H", 1000)
TIMEOUT = 10.0


def frame(first: int, payload: bytes) -> bytes:
    """Return a client's frame, masked, of at most 125 bytes of payload."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes((first, 0x80 | len(payload))) + mask + masked


class WebSocket:
    """One WebSocket over TLS: blocking for the handshake and the end, non-blocking between."""

    def __init__(self, port: int, path: str, tls: ssl.SSLContext) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = tls.wrap_socket(raw, server_hostname="127.0.0.1")
        except BaseException:
            raw.close()
            raise
        self.unread = b""
        self.content = self.traffic = 0
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
            % (path.encode(), port, key)
        )
        while b"\r\n\r\n" not in self.unread:
            self._receive()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in lines]
        self.fields = {name.strip().lower(): value.strip() for name, _, value in fields}
        self.status = int(status.split()[1])
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if self.status == 101 and self.fields.get("sec-websocket-accept") != accept:
            raise BenchError("the server answers with another sec-websocket-accept")

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise BenchError("the server closed the connection")
        self.unread += data
        self.traffic += len(data)

    def echoes(self, message: bytes, expected: bytes) -> int:
        """Read what is there; return how many messages came back. `expected` is one's frame.

        Raises BenchError for any other message.
        """
        self._receive()
        while self.socket.pending():
            self._receive()
        size = len(expected)
        count = len(self.unread) // size
        if self.unread.startswith(expected * count):
            self.unread = self.unread[count * size :]
        else:
            count = self._walk(message)
        self.content += count * len(message)
        return count

    def _walk(self, message: bytes) -> int:
        """Take frame by frame: there is a ping between, or something wrong."""
        count = 0
        while len(self.unread) >= 2:
            first, size = self.unread[0], self.unread[1]
            if size > 125:
                raise BenchError(f"a frame of other size came: {self.unread[:4].hex()}")
            if len(self.unread) < 2 + size:
                break
            payload, self.unread = self.unread[2 : 2 + size], self.unread[2 + size :]
            if first == PING:
                self.socket.send(frame(PONG, payload))
            elif first == TEXT and payload == message:
                count += 1
            elif first != PONG:
                raise BenchError(f"another frame came: {first:#x} {payload[:40]!r}")
        return count

    def close(self) -> None:
        """Close as RFC 6455 section 7 says, and wait for the server's end of it."""
        self.socket.settimeout(TIMEOUT)
        self.socket.sendall(frame(CLOSE, NORMAL))
        while len(self.unread) < 4:
            self._receive()
        if self.unread[0] != CLOSE or self.unread[2:4] != NORMAL:
            raise BenchError(f"the server closed with {self.unread.hex()}, not with 1000")
        try:
            while self.socket.recv(1 << 16):
                pass
        except ssl.SSLEOFError:  # an end of TCP without one of TLS is an end too
            pass
        self.socket.close()


def fetch(port: int, path: str, message: bytes, tls: ssl.SSLContext) -> client.Answer:
    """Send a message on a WebSocket of its own; return what came back as the content."""
    one = WebSocket(port, path, tls)
    try:
        if one.status != 101:
            return client.Answer(one.status, one.fields)
        one.socket.sendall(frame(TEXT, message))
        expected = bytes((TEXT, len(message))) + message
        while not one.echoes(message, expected):
            pass
        one.close()
        return client.Answer(one.status, one.fields, message)
    finally:
        one.socket.close()


def load(clients: list[WebSocket], inflight: int, messages: int, sent: bytes) -> float:
    """Send `messages` on each, have them come back; return the seconds that it took."""
    selector = selectors.DefaultSelector()
    expected = bytes((TEXT, len(ECHOED))) + ECHOED
    unsent = dict.fromkeys(clients, messages - min(inflight, messages))
    missing = dict.fromkeys(clients, messages)
    blocks = [sent * number for number in range(inflight + 1)]
    began = time.perf_counter()
    for one in clients:
        # What is in flight fits the socket's buffer, so that sending never has to wait.
        one.socket.setblocking(False)
        selector.register(one.socket, selectors.EVENT_READ, one)
        one.socket.send(blocks[min(inflight, messages)])
    while missing:
        ready = selector.select(TIMEOUT)
        if not ready:
            raise BenchError(f"no message came back for {TIMEOUT:g} s")
        for key, _ in ready:
            one = key.data
            try:
                count = one.echoes(ECHOED, expected)
            except ssl.SSLWantReadError:
                continue
            missing[one] -= count
            again = min(count, unsent[one])
            if again:
                unsent[one] -= again
                one.socket.send(blocks[again])
            elif missing[one] <= 0:
                selector.unregister(one.socket)
                del missing[one]
    return time.perf_counter() - began


def main() -> None:
    port, path, cafile, *numbers = sys.argv[1:]
    clients, inflight, messages = map(int, numbers)
    tls = client.context(cafile, "http/1.1")
    try:
        opened = [WebSocket(int(port), path, tls) for _ in range(clients)]
        for one in opened:
            if one.status != 101:
                raise BenchError(f"status {one.status}, not 101")
        seconds = load(opened, inflight, messages // clients, frame(TEXT, ECHOED))
        cipher = opened[0].socket.cipher()
        for one in opened:
            one.close()
    except (BenchError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "content": sum(one.content for one in opened),
                "traffic": sum(one.traffic for one in opened),
                "tls": " ".join((cipher[1], cipher[0]) if cipher else ()),
            }
        )
    )


if __name__ == "__main__":
    main()
