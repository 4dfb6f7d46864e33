"""An independent HTTP/2 client: the `h2` package over a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.support import PATIENCE, Process, Running, client_context

__all__ = ["H2Client", "Reply"]


@dataclass
class Reply:
    """What came back on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    interim: list[int] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        """Nothing more comes."""
        return self.ended or self.reset is not None


Fields = Iterable[tuple[str, str]]


class H2Client:
    """One HTTP/2 connection of the `h2` package. `credit=False`: no window is ever reopened."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        window: int | None,
        credit: bool,
        check: bool,
    ) -> None:
        self._reader = reader
        self.writer = writer
        self._credit = credit
        self.closed = False
        self.replies: dict[int, Reply] = {}
        self.conn = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=check,
                normalize_outbound_headers=check,
            )
        )
        if window is not None:
            initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.conn.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.conn.initiate_connection()
        self.flush()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        server: Running | Process,
        *,
        window: int | None = None,
        credit: bool = True,
        check: bool = True,
    ) -> AsyncIterator[Self]:
        """Connect; the connection is closed at the end of the block."""
        context = None if server.certs is None else client_context(server.certs, "h2")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        client = cls(reader, writer, window=window, credit=credit, check=check)
        try:
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()

    def abort(self) -> None:
        """Vanish, without a word of TLS or HTTP/2."""
        self.writer.transport.abort()

    def flush(self) -> None:
        """Send what h2 has made."""
        self.writer.write(self.conn.data_to_send())

    def send(
        self,
        method: str,
        path: str,
        fields: Fields = (),
        *,
        end: bool = True,
        host: str = "localhost",
    ) -> int:
        """Send a request's header section; return its stream."""
        stream_id = self.conn.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ]
        self.conn.send_headers(stream_id, [*pseudo, *fields], end_stream=end)
        self.replies[stream_id] = Reply()
        self.flush()
        return stream_id

    async def send_body(self, stream_id: int, body: bytes, *, end: bool = True) -> None:
        """Send content as the windows allow, until the stream is over."""
        view = memoryview(body)
        while view and not self.replies[stream_id].over:
            room = self.conn.local_flow_control_window(stream_id)
            size = min(room, self.conn.max_outbound_frame_size, len(view))
            if size <= 0:
                await self.read()
                continue
            self.conn.send_data(stream_id, view[:size].tobytes())
            view = view[size:]
            self.flush()
            await self.writer.drain()
        if end and not self.replies[stream_id].over:
            self.conn.end_stream(stream_id)
            self.flush()

    async def read(self) -> None:
        """Read once."""
        try:
            data = await self._reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            raise ConnectionResetError("the server closed the connection")
        for event in self.conn.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            reply = self.replies[event.stream_id]
            reply.headers = {str(name): str(value) for name, value in event.headers}
            reply.status = int(reply.headers[":status"])
        elif isinstance(event, h2.events.TrailersReceived):
            pairs = [(str(name), str(value)) for name, value in event.headers]
            self.replies[event.stream_id].trailers = pairs
        elif isinstance(event, h2.events.InformationalResponseReceived):
            fields = {str(name): str(value) for name, value in event.headers}
            self.replies[event.stream_id].interim.append(int(fields[":status"]))
        elif isinstance(event, h2.events.DataReceived):
            self.replies[event.stream_id].body += event.data
            if self._credit and event.flow_controlled_length:
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.replies[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.replies[event.stream_id].reset = int(event.error_code)

    async def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Read until `condition` holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self.read()

    async def reply(self, stream_id: int, timeout: float = PATIENCE) -> Reply:
        """Read until a stream is over; return what came."""
        await self.until(lambda: self.replies[stream_id].over, timeout)
        return self.replies[stream_id]

    async def request(
        self, method: str, path: str, fields: Fields = (), body: bytes | None = None
    ) -> Reply:
        """Make a request and return its response."""
        stream_id = self.send(method, path, fields, end=body is None)
        if body is not None:
            await self.send_body(stream_id, body)
        return await self.reply(stream_id)

    async def get(self, path: str, *fields: tuple[str, str]) -> Reply:
        """GET `path`."""
        return await self.request("GET", path, fields)

    def reset(self, stream_id: int, code: int = 8) -> None:
        """Reset a stream (8: CANCEL)."""
        self.conn.reset_stream(stream_id, code)
        self.flush()
