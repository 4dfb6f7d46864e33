"""What the calls of an ASGI application need of the one who makes them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.errors import HTTPError
from h2log.server.asgi_files import PathFiles
from h2log.server.reply import Reply

__all__ = ["Host"]


class Host(Protocol):
    """What a call needs of the one who makes it; see `AsgiHost`."""

    files: PathFiles
    """Those that applications name."""

    def refuse(self, error: HTTPError, exchange: Exchange, reply: Reply) -> None:
        """Answer in place of the application."""

    def give_up(self, outcome: Outcome, exchange: Exchange, reply: Reply) -> None:
        """End a response that has begun so that the client sees that it is not complete."""

    def tell(
        self, message: str, exchange: Exchange, error: BaseException | None, *more: object
    ) -> None:
        """Log a fault of the application's."""

    def cut_off(self, exchange: Exchange) -> None:
        """Log that a call was cancelled in what it did once its response was complete."""

    def left(self, exchange: Exchange, count: int) -> None:
        """Count calls of a connection that go on though their client has given them up."""

    def done(self, task: asyncio.Task[None] | None) -> None:
        """A call has returned."""
