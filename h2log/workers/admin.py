"""The admin listener: is the server alive, is it ready, and its counters, over plain HTTP/1.1.

    GET /-/healthz     200 as long as the supervisor runs
    GET /-/readyz      200 while a worker serves and no stop was asked for, else 503
    GET /-/counters    what `h2log status --json` tells, without the open requests

For the machine itself and its neighbours: no TLS, no log, loopback unless set up otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import h11

__all__ = ["Admin"]

_logger = logging.getLogger("h2log.workers")

_LIMIT: Final = 8192
"""Bytes of a request's header."""
_PATIENCE: Final = 10.0
"""Seconds for a request to come, and for its answer to go."""
_MOST: Final = 64
"""Connections at once; further ones are closed."""

_Page = tuple[int, str, bytes]


class Admin:
    """Answers on `sockets`. `ready` says whether we are, `counters` returns them."""

    def __init__(
        self,
        sockets: list[socket.socket],
        ready: Callable[[], bool],
        counters: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._sockets = sockets
        self._ready = ready
        self._counters = counters
        self._servers: list[asyncio.Server] = []
        self._open = 0

    async def open(self) -> None:
        """Answer from now on."""
        for sock in self._sockets:
            self._servers.append(await asyncio.start_server(self._talk, sock=sock))
        host, port = self._sockets[0].getsockname()[:2]
        _logger.info("admin listener on http://%s:%d", host, port)

    def close(self) -> None:
        """Answer no more."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for sock in self._sockets:  # those that were never opened
            sock.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST:
                async with asyncio.timeout(_PATIENCE):
                    await self._answer(reader, writer)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection closes then."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LIMIT)
        head = False
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    data = await reader.read(_LIMIT)
                    if not data and not connection.trailing_data[0]:
                        return
                    connection.receive_data(data)
                    continue
                break
            if not isinstance(event, h11.Request):
                return
            head = event.method == b"HEAD"
            status, kind, body = await self._page(event)
        except h11.RemoteProtocolError as error:
            status, kind, body = error.error_status_hint or 400, "text/plain", b"bad request\n"
        headers = [
            ("content-type", f"{kind}; charset=utf-8"),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("connection", "close"),
            *([("allow", "GET, HEAD")] if status == 405 else []),
        ]
        with contextlib.suppress(h11.LocalProtocolError):
            data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
            writer.write(data if head else data + body)
            await writer.drain()

    async def _page(self, request: h11.Request) -> _Page:
        if request.method not in (b"GET", b"HEAD"):
            return 405, "text/plain", b"GET, please\n"
        match request.target.partition(b"?")[0]:
            case b"/-/healthz":
                return 200, "text/plain", b"ok\n"
            case b"/-/readyz":
                if self._ready():
                    return 200, "text/plain", b"ready\n"
                return 503, "text/plain", b"not ready\n"
            case b"/-/counters":
                text = json.dumps(await self._counters(), indent=2) + "\n"
                return 200, "application/json", text.encode()
        return 404, "text/plain", b"there are /-/healthz, /-/readyz and /-/counters\n"
