"""Server-sent events (HTML standard, section 9.2): what an event is, and how a stream of them is.

The stream itself has no clock: who sends it adds `KEEP_ALIVE` whenever nothing was sent for
`EventStream.keep_alive` seconds, so that proxies keep the connection and a client that has
vanished is noticed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final, Self

import msgspec

__all__ = ["KEEP_ALIVE", "Event", "EventStream"]

KEEP_ALIVE: Final = b":\n\n"
"""A comment: clients take it for nothing (section 9.2.6)."""

# The ends of lines in a stream; what else Python takes for one is text there (section 9.2.5).
_LINES: Final = re.compile("\r\n|\r|\n").split
_BREAK: Final = re.compile("[\r\n]").search


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    `data` is its text, of any number of lines; None leaves it out, and then the client only takes
    note of the rest. `event` is its type (`message` without), `id` what the client sends back as
    Last-Event-ID when it connects anew, `retry` the milliseconds that it waits before that,
    `comment` what it ignores. Raises ValueError for a type or id with a line break, an id with a
    NUL (clients ignore such an id) and a `retry` that is no whole number from 0 on; TypeError for
    data that is no text.
    """

    data: str | None = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for name in ("data", "event", "id", "comment"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(
                    f"the {name} of an event is {type(value).__name__}, expected str; "
                    "for JSON there is Event.json"
                )
        if self.event is not None and _BREAK(self.event):
            raise ValueError(f"the type of an event is one line, got {self.event!r}")
        if self.id is not None and (_BREAK(self.id) or "\0" in self.id):
            raise ValueError(f"the id of an event is one line without NUL, got {self.id!r}")
        if self.retry is not None and (type(self.retry) is not int or self.retry < 0):
            raise ValueError(f"retry is whole milliseconds, from 0 on, got {self.retry!r}")

    @classmethod
    def json(
        cls,
        value: object,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> Self:
        """Return an event whose data is `value` as JSON. Raises TypeError as `Response.json`."""
        return cls(msgspec.json.encode(value).decode(), event, id, retry)

    def encode(self) -> bytes:
        """Return the event as it is sent."""
        lines = []
        if self.comment is not None:
            lines += [f": {line}" for line in _LINES(self.comment)]
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        if self.data is not None:
            lines += [f"data: {line}" for line in _LINES(self.data)]
        return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


class EventStream:
    """The content of a response of events: an asynchronous iterator of their bytes.

    `source` gives `Event`s, or texts that are events of data alone; `keep_alive` is in seconds,
    None for none. Raises TypeError for a source that is no asynchronous iterable, ValueError for a
    `keep_alive` that is not above 0; iterating raises TypeError for what is no event.
    """

    __slots__ = ("_events", "keep_alive")

    def __init__(self, source: AsyncIterable[Event | str], keep_alive: float | None = 15.0) -> None:
        if not isinstance(source, AsyncIterable):
            raise TypeError(
                f"events come from an asynchronous iterable, not {type(source).__name__}; "
                "call the `async def` function that yields them"
            )
        if keep_alive is not None and not keep_alive > 0:
            raise ValueError(f"keep_alive must be seconds above 0, or None, got {keep_alive!r}")
        self._events = aiter(source)
        self.keep_alive = keep_alive
        """Seconds of silence after which a comment is sent."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        event = await anext(self._events)
        if isinstance(event, str):
            event = Event(event)
        elif not isinstance(event, Event):
            raise TypeError(
                f"the response's events gave {type(event).__name__}, expected Event or str"
            )
        return event.encode()

    async def aclose(self) -> None:
        """Close the source, if it can be closed."""
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
