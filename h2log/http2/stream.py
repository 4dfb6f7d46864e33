"""One stream: its two halves, its windows, and what waits to be sent on it.

The states of RFC 9113 section 5.1, as a server without push meets them:

    idle --HEADERS--> open --END_STREAM received--> half-closed (remote)
      open, half-closed (remote) --END_STREAM sent--> half-closed (local), closed
      any but idle --RST_STREAM either way--> closed

A `Stream` exists from its HEADERS to `closed`; idle and closed streams have no object: an
identifier above the highest seen is idle, any other without an object is closed. A request that is
answered the moment it is read passes from idle to closed without ever having one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from h2log.http2.head import RequestHead
from h2log.http2.hpack import Field

__all__ = ["Stream"]


class Stream:
    """A request that is open. Every field is the connection's to change, but `context`."""

    __slots__ = (
        "closed",
        "context",
        "end_queued",
        "expected",
        "head",
        "held_up",
        "id",
        "incremental",
        "measured",
        "parked",
        "progress",
        "queue",
        "queued",
        "receive_window",
        "received",
        "remote_ended",
        "started",
        "taken",
        "trailer_fields",
        "trailers",
        "uncredited",
        "unread",
        "unsent",
        "urgency",
        "waiting",
        "window",
    )

    def __init__(
        self, stream_id: int, head: RequestHead, window: int, receive_window: int, now: float
    ) -> None:
        self.id = stream_id
        self.head = head
        self.context: Any = None
        """Owned by the layer above."""
        self.window = window
        """Bytes that the peer lets us send; negative after SETTINGS shrank it (section 6.9.2)."""
        self.receive_window = receive_window
        """Bytes that the peer may still send."""
        self.unread = 0
        """Bytes received that the layer above has not consumed."""
        self.uncredited = 0
        """Bytes consumed that no WINDOW_UPDATE has given back yet."""
        self.expected = head.content_length
        self.received = 0
        """Bytes of content received, without padding."""
        self.trailer_fields: tuple[Field, ...] = ()
        """The trailers received (RFC 9113 section 8.1)."""
        self.remote_ended = False
        self.started = False
        """A final response's header section was sent."""
        self.queue: deque[bytes | bytearray | memoryview] = deque()
        self.queued = 0
        """Bytes in `queue`."""
        self.unsent = 0
        """What `queued` was when the stream was closed."""
        self.end_queued = False
        """The queue's end is the stream's end."""
        self.trailers: bytes | None = None
        """A header block to send after the queue."""
        self.parked = True
        """Not in the connection's round of streams that have something to send and may."""
        self.progress = now
        """When content last went out, or began to wait for the peer."""
        self.measured = now
        """The start of the time that `taken` counts."""
        self.taken = 0
        """Bytes that went out since `measured`."""
        self.urgency = 3
        self.incremental = True
        """See `priority.Turns`; a client that says nothing gets its turns."""
        self.held_up = False
        """The layer above has waited for a window: `measured` goes on over an empty queue."""
        self.waiting = False
        """Set by the layer above while it makes no content for want of a window."""
        self.closed = False

    def __repr__(self) -> str:
        ends = f"remote_ended={self.remote_ended} closed={self.closed}"
        return f"<Stream {self.id} {ends} queued={self.queued}>"
