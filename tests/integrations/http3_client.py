"""An HTTP/3 client: aioquic's, over a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

from tests.support import PATIENCE

__all__ = ["H3Client", "H3Reply"]


@dataclass
class H3Reply:
    """What came back on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reset: int | None = None


class H3Client(QuicConnectionProtocol):
    """One QUIC connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._http = H3Connection(self._quic)
        self.replies: dict[int, H3Reply] = {}
        self.heard = asyncio.Event()
        self.ended = False
        """The connection was closed."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Self]:
        """Connect to a port of this machine; the connection is closed at the end of the block."""
        # What verifies names there does not take a certificate with `*.localhost` among them.
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=H3_ALPN,
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
        )
        made: Any = connect("127.0.0.1", port, configuration=configuration, create_protocol=cls)
        async with made as client:
            yield client

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take what came."""
        if isinstance(event, ConnectionTerminated):
            self.ended = True
        if isinstance(event, StreamReset) and event.stream_id in self.replies:
            reply = self.replies[event.stream_id]
            reply.reset = event.error_code
            reply.over.set()
        for http_event in self._http.handle_event(event):
            self._take(http_event)

    def _take(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        reply = self.replies[event.stream_id]
        if isinstance(event, HeadersReceived):
            reply.headers = {name.decode(): value.decode() for name, value in event.headers}
            reply.status = int(reply.headers[":status"])
        else:
            reply.body += event.data
        self.heard.set()
        if event.stream_ended:
            reply.over.set()

    def send(
        self,
        method: str,
        path: str,
        fields: Iterable[tuple[bytes, bytes]] = (),
        body: bytes | None = None,
        *,
        end: bool = True,
    ) -> int:
        """Send a request; return its stream. Without `end` more content is to come."""
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
            *fields,
        ]
        return self.send_head(head, body, end=end)

    def send_head(
        self, head: list[tuple[bytes, bytes]], body: bytes | None = None, *, end: bool = True
    ) -> int:
        """Send a request with its pseudo fields as they are; return its stream."""
        stream_id = self._quic.get_next_available_stream_id()
        self.replies[stream_id] = H3Reply()
        self._http.send_headers(stream_id, head, end_stream=body is None)
        if body is None:
            self.transmit()
        else:
            self.send_content(stream_id, body, end=end)
        return stream_id

    def send_content(self, stream_id: int, body: bytes, *, end: bool = True) -> None:
        """Send content of a request."""
        self._http.send_data(stream_id, body, end_stream=end)
        self.transmit()

    def cancel(self, stream_id: int, code: int = 0x10C) -> None:
        """Want no response any more (H3_REQUEST_CANCELLED)."""
        self._quic.stop_stream(stream_id, code)
        self.transmit()

    async def reply(self, stream_id: int) -> H3Reply:
        """Wait until a stream is over; return what came."""
        reply = self.replies[stream_id]
        async with asyncio.timeout(PATIENCE):
            await reply.over.wait()
        return reply

    async def request(self, method: str, path: str, body: bytes | None = None) -> H3Reply:
        """Make a request and return its response."""
        return await self.reply(self.send(method, path, (), body))
