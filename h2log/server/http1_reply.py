"""The response to one HTTP/1.1 request, between its handler and the connection.

How its end is told (RFC 9112 section 6.3): it has none where there is no content; by its length
where that is known; by the last chunk otherwise, and for a client of HTTP/1.0, which knows no
chunks, by the end of the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from h2log.access.exchange import Exchange
from h2log.access.record import ResponseFacts
from h2log.app.response import NO_CONTENT_STATUS, FileContent, Response
from h2log.clock import monotonic
from h2log.server.content import ContentBuffer
from h2log.server.heads import ResponseHead
from h2log.server.http1_output import Http1Output, interim_lines, response_lines, trailer_section

__all__ = ["Http1Reply", "ReplyLeg"]

_MAX_DISCARD: Final = 1024 * 1024
"""Bytes of unwanted content that are read to keep a connection; beyond, it is closed."""


class ReplyLeg(Protocol):
    """What a response needs of its connection."""

    output: Http1Output

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port."""

    @property
    def going(self) -> bool:
        """The connection takes no further request."""

    def completed(self, reply: Http1Reply) -> None:
        """The response is complete."""

    def switched(self, reply: Http1Reply) -> None:
        """What comes from now on is the stream's."""

    def give_up(self, reply: Http1Reply) -> None:
        """Close so that the client sees that the response is not complete."""

    def balance(self) -> None:
        """Read on, or stop reading, by what has come and was not used."""

    def close(self) -> None:
        """Close the connection."""


class Http1Reply:
    """The response to one request: the `Reply` of its handler.

    `persists` says whether the client lets the connection go on after this response.
    """

    __slots__ = (
        "_bare",
        "_chunked",
        "_gone",
        "_left",
        "_leg",
        "content",
        "content_ended",
        "discarded",
        "ended",
        "exchange",
        "held_back",
        "last",
        "noting",
        "on_lost",
        "persists",
        "switched",
        "task",
        "unasked",
        "unread",
    )

    def __init__(self, leg: ReplyLeg, exchange: Exchange, persists: bool) -> None:
        self._leg = leg
        self._gone = False
        self._bare = False  # the response has no content, whatever its fields say
        self._chunked = False
        self._left: int | None = None  # bytes of content to come, if that is known
        self.exchange = exchange
        self.content: ContentBuffer | None = None
        self.task: asyncio.Task[None] | None = None
        self.noting: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.persists = persists
        self.content_ended = True
        self.unread = 0
        """Bytes of content that the handler has not read."""
        self.discarded = 0
        self.last = False
        """The connection ends with this response."""
        self.held_back = False
        """The client waits for 100 (Continue) before it sends content."""
        self.unasked = False
        """It was still waiting when the response began."""
        self.switched = False
        """The connection is a two-way stream of bytes."""
        self.ended = False
        """The whole response was handed over."""

    @property
    def closed(self) -> bool:
        """The client is gone, or the response is complete."""
        return self._gone or self.ended

    @property
    def waiting(self) -> bool:
        """The transport is full."""
        return self._leg.output.blocked

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port."""
        return self._leg.local

    @property
    def delivered(self) -> bool:
        """The client was given all that it waits for, though the response has not been ended.

        That is a header without content behind it, or content of a declared length (RFC 9112
        section 6.3): a client that leaves then has lost nothing.
        """
        return (
            self.exchange.status > 101
            and (self._bare or self._left == 0)
            and self._leg.output.handed_over
        )

    # Content, from the leg

    def feed(self, data: bytes) -> None:
        """Content has come."""
        self.held_back = False
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
        self.held_back = False
        self.content_ended = True
        if self.content is not None:
            self.content.end()

    def may_discard(self) -> bool:
        """Say whether reading the rest of unwanted content is worth the connection."""
        return self.discarded <= _MAX_DISCARD

    def content_read(self, size: int) -> None:
        """The handler read some content: there is room for more."""
        if not self.ended:
            self.unread -= size
            self._leg.balance()

    def go_on(self) -> None:
        """A handler waits for content that the client holds back (RFC 9110 section 10.1.1)."""
        if self.held_back and not self._gone:
            self.held_back = False
            self._leg.output.put(interim_lines(100, []))

    # The handler's side: see `Reply`

    def start(self, response: Response, end: bool) -> None:
        """Send status and header."""
        if self.closed:
            return
        trailing = not end and response.trailers is not None and self._takes_trailers()
        lines, declared = response_lines(response, trailing)
        length = None
        if declared is None and not trailing and response.status not in NO_CONTENT_STATUS:
            length = response.content_length()
        self.exchange.details().headers_at = monotonic()
        self._send(self._begin(response.status, response, lines, declared, length), end)

    def start_head(self, head: ResponseHead, end: bool) -> None:
        """Send status and header, from what came as bytes."""
        if self.closed:
            return
        self.exchange.details().headers_at = monotonic()
        length = 0 if end and self.exchange.facts.method != "HEAD" else None
        self._send(self._begin(head.status, head, head.lines, head.length, length), end)

    def answer(self, response: Response, body: bytes) -> None:
        """Send a whole response."""
        self.start(response, end=not body)
        if body:
            self.write(body, end=True)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response."""
        if self.closed:
            return
        exchange = self.exchange
        bare = head.status in NO_CONTENT_STATUS or exchange.facts.method == "HEAD"
        size = len(body)
        if not bare and head.length is not None and head.length != size:
            raise ValueError(f"{size} bytes of content, not its content-length of {head.length}")
        first = self._begin(head.status, head, head.lines, head.length, None if bare else size)
        if bare or not body:
            self._leg.output.add(first)
        else:
            exchange.sent = size
            self._leg.output.add(first, body)
        self._left = None
        self._end()

    def _send(self, section: bytes, end: bool) -> None:
        if end:
            self._leg.output.add(section)
            self._end()
        else:
            self._leg.output.put(section)

    def _begin(
        self,
        status: int,
        response: ResponseFacts,
        lines: bytes,
        declared: int | None,
        length: int | None,
    ) -> bytes:
        """Return the header section; the length is `declared` in `lines`, or `length` if known."""
        exchange = self.exchange
        method = exchange.facts.method
        leg = self._leg
        # Content that the client holds back and nobody will read keeps no connection; and after a
        # 2xx to CONNECT it would take what follows for a tunnel's (RFC 9110 section 9.3.6).
        self.unasked = self.held_back
        self.held_back = False
        self.last = (
            leg.going
            or not self.persists
            or (self.unasked and not self.content_ended)
            or (method == "CONNECT" and status < 300)
        )
        self._bare = status in NO_CONTENT_STATUS or method == "HEAD"
        framing = b""
        if declared is None and status not in NO_CONTENT_STATUS:
            if length is not None:
                declared = length
                framing = b"content-length: %d\r\n" % length
            elif exchange.session.protocol != "1.0":
                framing = b"transfer-encoding: chunked\r\n"
                self._chunked = not self._bare
        if not self._bare:
            self._left = declared
        exchange.status = status
        exchange.response = response
        end = b"\r\nconnection: close\r\n\r\n" if self.last else b"\r\n\r\n"
        section = b"".join((lines, framing, leg.output.tail(exchange), end))
        exchange.header_sent = len(section)
        return section

    def switch(self, head: ResponseHead) -> None:
        """Accept an upgrade to WebSocket (RFC 6455 section 4.2.2); see `Reply`."""
        if self.closed:
            return
        exchange = self.exchange
        fields = head.lines.partition(b"\r\n")[2]  # its status is that of HTTP/2
        section = b"".join(
            (
                b"HTTP/1.1 101 Switching Protocols\r\n",
                b"upgrade: websocket\r\nconnection: upgrade\r\n",
                fields,
                self._leg.output.tail(exchange),
                b"\r\n\r\n",
            )
        )
        exchange.status = 101
        exchange.response = head
        exchange.header_sent = len(section)
        exchange.details().headers_at = monotonic()
        self.switched = True
        self.content_ended = False
        if self.content is not None:
            self.content.lift()
        self._leg.output.put(section)
        self._leg.switched(self)

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response to a client that is known to understand it.

        Those of HTTP/1.0 know none (RFC 9110 section 15.2), and several of HTTP/1.1 take a 103 for
        the response (RFC 8297 section 3): browsers that go to a page do not.
        """
        if self.closed or self.exchange.status or self.exchange.session.protocol == "1.0":
            return
        if (b"sec-fetch-mode", b"navigate") in self.exchange.facts.fields:
            self._leg.output.put(interim_lines(status, headers))

    def file_now(self, response: Response, content: FileContent) -> bool:
        """Send no file in the turn of its request: others of the connection may be before it."""
        return False

    async def send_file(self, descriptor: int, offset: int, size: int, end: bool) -> int:
        """Leave it to `write`: there are no frames to be made."""
        return 0

    def write(self, data: bytes | bytearray, end: bool = False) -> None:
        """Send content. Raises ValueError for more, or less, than was declared."""
        if self.closed:
            return
        if data and not self._bare:
            size = len(data)
            self._count(size)
            if not self.exchange.sent:
                self.exchange.details().first_byte_at = monotonic()
            self.exchange.sent += size
            output = self._leg.output
            send = output.add if end else output.put
            if self._chunked:
                send(b"%x\r\n" % size, data, b"\r\n")
            else:
                send(data)
        if end:
            self._end()

    def _count(self, size: int) -> None:
        if self._left is not None:
            if size > self._left:
                raise ValueError(f"content beyond its content-length, by {size - self._left} bytes")
            self._left -= size

    def finish(self, trailers: list[tuple[str, str]]) -> None:
        """Send the end of the response, with trailers if the client asked for them."""
        if not self.closed:
            self._end(trailers if trailers and self._takes_trailers() else [])

    def _takes_trailers(self) -> bool:
        """Say whether the client wants trailers (RFC 9110 section 6.5.1); HTTP/1.0 has none."""
        if self.exchange.session.protocol == "1.0":
            return False
        wishes = [value for name, value in self.exchange.facts.fields if name == b"te"]
        members = b",".join(wishes).lower().split(b",")
        return any(member.partition(b";")[0].strip() == b"trailers" for member in members)

    def _end(self, trailers: list[tuple[str, str]] | None = None) -> None:
        if self._left:
            raise ValueError(f"{self._left} bytes less than its content-length")
        if self._chunked:
            self._leg.output.add(trailer_section(trailers or []))
        self.ended = True
        self.unread = 0
        self._leg.completed(self)

    async def over(self) -> None:
        """Return at once: what was written is the transport's."""

    async def drain(self) -> None:
        """Wait for the transport."""
        waited = await self._leg.output.room()
        if waited:
            self.exchange.details().blocked += waited

    async def room(self, most: int) -> int:
        """Wait for the transport; see `Reply`."""
        await self.drain()
        return 0 if self.closed else most

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
        """The client is gone: the handler is cancelled at its next await, or told."""
        if self._gone:
            return
        self._gone = True
        if self.switched and self.content is not None:
            self.content.end()
        self.content = None
        if self.on_lost is not None:
            self.on_lost()
        elif self.task is not None and not self.task.done():
            self.task.cancel()
