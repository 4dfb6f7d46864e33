"""The response to one HTTP/1.1 request, between its handler and the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from h2log.access.exchange import Exchange
from h2log.app.response import Response
from h2log.clock import monotonic
from h2log.server.content import ContentBuffer

__all__ = ["Http1Reply", "ReplyLeg"]

_MAX_DISCARD: Final = 1024 * 1024
"""Bytes of unwanted content that are read to keep a connection; beyond, it is closed."""


class ReplyLeg(Protocol):
    """What a response needs of its connection."""

    @property
    def content_is_held_back(self) -> bool:
        """The client waits for 100 (Continue) before it sends content."""

    @property
    def full(self) -> bool:
        """The transport takes no more."""

    def respond(self, reply: Http1Reply, response: Response) -> None:
        """Send status and header."""

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response."""

    def content(self, data: bytes | bytearray) -> None:
        """Send content."""

    def complete(self, reply: Http1Reply, trailers: list[tuple[str, str]]) -> None:
        """The response is complete; `trailers` follow its content."""

    def give_up(self, reply: Http1Reply) -> None:
        """Close so that the client sees that the response is not complete."""

    async def wait_writable(self) -> None:
        """Return when the transport has room, or is gone."""

    def balance(self) -> None:
        """Read on, or stop reading, by what has come and was not used."""

    def close(self) -> None:
        """Close the connection."""


class Http1Reply:
    """The response to one request: the `Reply` of its handler."""

    __slots__ = (
        "_gone",
        "_leg",
        "content",
        "content_ended",
        "discarded",
        "ended",
        "exchange",
        "last",
        "noting",
        "task",
        "trailing",
        "unasked",
        "unread",
    )

    def __init__(self, leg: ReplyLeg, exchange: Exchange, content: ContentBuffer | None) -> None:
        self._leg = leg
        self._gone = False
        self.exchange = exchange
        self.content = content
        self.task: asyncio.Task[None] | None = None
        self.noting: Callable[[], None] | None = None
        self.trailing = False
        """The response ends with trailers: it is sent in chunks."""
        self.content_ended = content is None
        self.unread = 0
        """Bytes of content that the handler has not read."""
        self.discarded = 0
        self.last = False
        """The connection ends with this response."""
        self.unasked = False
        """The client held back its content, waiting for 100 (Continue), when the response began."""
        self.ended = False
        """The whole response was handed to the transport."""

    @property
    def closed(self) -> bool:
        """The client is gone, or the response is complete."""
        return self._gone or self.ended

    # Content, from the leg

    def feed(self, data: bytes) -> None:
        """Content has come."""
        self.exchange.received += len(data)
        if self.ended:
            self.discarded += len(data)
            if not self.may_discard():
                self._leg.close()
            return
        if self.content is not None and data:
            self.unread += len(data)
            self.content.feed(data)

    def feed_end(self) -> None:
        """The content is complete."""
        self.content_ended = True
        if self.content is not None:
            self.content.end()

    def may_discard(self) -> bool:
        """Say whether reading the rest of unwanted content is worth the connection."""
        return self.discarded <= _MAX_DISCARD

    def must_close(self) -> bool:
        """Say whether the response ends the connection, for content nobody will read."""
        self.unasked = self._leg.content_is_held_back
        return not self.content_ended and self.unasked

    # The handler's side: see `Reply`

    def start(self, response: Response, end: bool) -> None:
        """Send status and header."""
        if self.closed:
            return
        self.trailing = not end and response.trailers is not None and self._takes_trailers()
        self._leg.respond(self, response)
        self.exchange.status = response.status
        if end:
            self._end()

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response to a client that is known to understand it.

        Those of HTTP/1.0 know none (RFC 9110 section 15.2), and several of HTTP/1.1 take a 103 for
        the response (RFC 8297 section 3): browsers that go to a page do not.
        """
        if self.closed or self.exchange.status:
            return
        if (b"sec-fetch-mode", b"navigate") in self.exchange.facts.fields:
            self._leg.interim(status, headers)

    def write(self, data: bytes | bytearray, end: bool = False) -> None:
        """Send content."""
        if self.closed:
            return
        if data:
            if not self.exchange.sent:
                self.exchange.details().first_byte_at = monotonic()
            self.exchange.sent += len(data)
            self._leg.content(data)
        if end:
            self._end()

    def finish(self, trailers: list[tuple[str, str]]) -> None:
        """Send the end of the response, with trailers if the client asked for them."""
        if not self.closed:
            self._end(trailers if self.trailing else [])

    def _takes_trailers(self) -> bool:
        """Say whether the client wants trailers (RFC 9110 section 6.5.1); HTTP/1.0 has none."""
        if self.exchange.session.protocol == "1.0":
            return False
        wishes = [value for name, value in self.exchange.facts.fields if name == b"te"]
        members = b",".join(wishes).lower().split(b",")
        return any(member.partition(b";")[0].strip() == b"trailers" for member in members)

    def _end(self, trailers: list[tuple[str, str]] | None = None) -> None:
        self.ended = True
        self.unread = 0
        self._leg.complete(self, trailers or [])
        self._leg.balance()

    async def over(self) -> None:
        """Return at once: what was written is the transport's."""

    async def drain(self) -> None:
        """Wait for the transport."""
        await self._wait()

    async def _wait(self) -> None:
        if not self._leg.full:
            return
        began = monotonic()
        await self._leg.wait_writable()
        self.exchange.details().blocked += monotonic() - began

    async def room(self, most: int) -> int:
        """Wait for the transport; see `Reply`."""
        await self._wait()
        return 0 if self.closed else most

    @property
    def alone(self) -> bool:
        """Responses of HTTP/1.1 go one after the other."""
        return True

    def give_back(self, size: int) -> None:
        """Nothing is counted here: one response at a time goes out."""

    def abort(self) -> None:
        """Close the connection: the client sees that the response is not complete."""
        if not self.closed:
            self._leg.give_up(self)

    def note(self) -> None:
        """The record is about to be finished before the response is complete."""
        if self.noting is not None:
            self.noting()

    def lost(self) -> None:
        """The client is gone: the handler is cancelled at its next await."""
        self._gone = True
        if self.task is not None and not self.task.done():
            self.task.cancel()
