"""Where a response goes, whichever protocol its request came by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from h2log.app.response import FileContent, Response
from h2log.server.heads import ResponseHead

__all__ = ["Reply"]


class Reply(Protocol):
    """Where one response goes. After `closed` everything but `closed` and `over` does nothing."""

    noting: Callable[[], None] | None
    """Called, if set, before the record is finished for another reason than the response's end."""

    on_lost: Callable[[], None] | None
    """Called, if set, when the client is gone, in place of cancelling the task that answers."""

    @property
    def closed(self) -> bool:
        """The client is gone, or the response is complete."""

    @property
    def waiting(self) -> bool:
        """Something that was written waits for the client to take it; `stall_timeout` bounds it."""

    @property
    def local(self) -> tuple[str, int | None] | None:
        """Our side's address and port; a path and None for a Unix socket."""

    def start(self, response: Response, end: bool) -> None:
        """Send status and header; `end` when nothing follows."""

    def start_head(self, head: ResponseHead, end: bool) -> None:
        """Send status and header as `start`, from what came as bytes."""

    def answer(self, response: Response, body: bytes) -> None:
        """Send a whole response: `start`, all of its content, and its end."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response: `start_head`, all of its content, and its end."""

    def file_now(self, response: Response, content: FileContent) -> bool:
        """Send a whole response whose content is in a file; say whether it was.

        It is not, and nothing was sent, when there is something to wait for: the disk, the client,
        other responses.
        """

    def switch(self, head: ResponseHead) -> None:
        """Accept an upgrade: 101 with the fields of `head`, and 200 in HTTP/2 (RFC 8441).

        From then on content goes both ways until both sides have ended it, without a limit on its
        sum and on the time between its pieces.
        """

    def interim(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an interim response (1xx) before the final one; nothing after that has begun."""

    def write(self, data: bytes | bytearray, end: bool = False) -> None:
        """Send content, and the end of the response after it."""

    def finish(self, trailers: list[tuple[str, str]]) -> None:
        """Send the end of the response, with `trailers` where the client can take them."""

    async def drain(self) -> None:
        """Return when there is room for more content."""

    async def over(self) -> None:
        """Return when the whole response was handed over, or never will be."""

    async def room(self, most: int) -> int:
        """Return how many bytes, from 1 to `most`, may be read for this response now.

        They count as held until they are written and sent, or given back. 0 when closed.
        """

    async def send_file(self, descriptor: int, offset: int, size: int, end: bool) -> int:
        """Send `size` bytes of an open file, as far as the system has them in memory.

        `end` ends the response behind all of them. Returns how many were sent: less where the disk
        has to be waited for, or the client is gone; none where files are not sent so.
        """

    def give_back(self, size: int) -> None:
        """Say that `size` bytes of `room` will not be written."""

    def note(self) -> None:
        """The record is about to be finished before the response is complete."""

    def abort(self) -> None:
        """End a response that cannot be completed so that the client sees that it is not."""
