"""Clients of HTTP/2 that do what RFC 9113 says of GOAWAY: what they asked for in vain is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Final, Self

from tests.server.wire import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
)
from tests.support import Process, poll

__all__ = ["SteadyClients"]

_WINDOW: Final = (1 << 31) - 1 - 65535
_A_CONNECTION: Final = 2000
"""Requests after which a client leaves a connection by itself."""


class SteadyClients:
    """`count` connections at a time, each with `depth` requests for `path` open all the time.

    A connection that says GOAWAY is read to its end, and another is opened meanwhile; requests
    above the stream that it names count for nothing (section 6.8). Any other end of a request is
    a failure: a reset, a connection that ends before it, a status that is not 200. `ids` are those
    of the responses.
    """

    def __init__(self, server: Process, path: str = "/", count: int = 2, depth: int = 5) -> None:
        self.ids: list[str] = []
        self.failures: list[str] = []
        self.connections = 0
        self._server = server
        self._path = path.encode()
        self._count = count
        self._depth = depth
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def more(self, count: int = 50) -> None:
        """Wait for so many more responses."""
        wanted = len(self.ids) + count
        poll(lambda: len(self.ids) >= wanted)

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._ask(group))

    async def _ask(self, group: asyncio.TaskGroup) -> None:
        while not self._over.is_set():
            left = asyncio.Event()
            talk = group.create_task(self._talk(left))
            leaving = group.create_task(left.wait())
            await asyncio.wait((talk, leaving), return_when=asyncio.FIRST_COMPLETED)
            left.set()

    async def _talk(self, left: asyncio.Event) -> None:
        """Use a connection to its end; `left` is set when another is to be opened."""
        waiting: set[int] = set()
        try:
            async with RawClient.connect(self._server) as client:
                self.connections += 1
                client.send(WINDOW_UPDATE, 0, 0, _WINDOW.to_bytes(4))
                await self._converse(client, waiting, left)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.failures.append(f"{error!r} with {len(waiting)} requests open")

    async def _converse(self, client: RawClient, waiting: set[int], left: asyncio.Event) -> None:
        following, last = 1, _A_CONNECTION * 2
        while True:
            if following > last or self._over.is_set():
                left.set()
            while not left.is_set() and len(waiting) < self._depth:
                client.get(following, self._path)
                waiting.add(following)
                following += 2
            if not waiting:
                left.set()
                return
            found = await client.read()
            client.seen.clear()
            if found.kind == HEADERS:
                fields = client.fields(found)
                if fields[":status"] == "200":
                    self.ids.append(fields["x-request-id"])
                else:
                    self.failures.append(f"status {fields[':status']}")
            elif found.kind == RST_STREAM:
                self.failures.append(f"reset with code {found.code}")
                waiting.discard(found.stream)
            elif found.kind == GOAWAY:
                left.set()
                waiting -= {stream for stream in waiting if stream > found.last_stream}
                if found.code:
                    self.failures.append(f"GOAWAY with code {found.code}")
            elif found.kind in (PING, SETTINGS) and not found.flags & ACK:
                client.send(found.kind, ACK, 0, found.payload if found.kind == PING else b"")
            if found.kind in (HEADERS, DATA) and found.flags & END_STREAM:
                waiting.discard(found.stream)
            with contextlib.suppress(
                ConnectionError
            ):  # its answers may be on their way all the same
                await client.writer.drain()
