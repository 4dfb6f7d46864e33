"""What a connection tells the layer above, as it reads: one method an event."""

from __future__ import annotations

from enum import Enum, unique
from typing import Protocol

from h2log.http2.head import RequestHead
from h2log.http2.stream import Stream

__all__ = ["Cause", "Events", "Nobody"]


@unique
class Cause(Enum):
    """Why a stream ended before both halves were through."""

    PEER_RESET = "peer reset"
    MALFORMED = "malformed"
    """The request broke RFC 9113 section 8 after it was delivered (content-length, trailers)."""
    STREAM_ERROR = "stream error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """The whole connection ended."""


class Events(Protocol):
    """The layer above. No method may raise; each may call back into the connection."""

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        """A well-formed request; `ended` when it has no content.

        The layer answers with `send_prepared`, or takes the stream with `open_stream`, before it
        returns.
        """

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        """A request that was opened and will not be delivered: it was reset, or ignored.

        `cause` is MALFORMED (see `head.fault`) or None when there was no room for it.
        """

    def on_data(self, stream: Stream, data: bytes) -> None:
        """Content of a request, never empty; give its size to `consumed` once it was read."""

    def on_end(self, stream: Stream) -> None:
        """The request's content is complete."""

    def on_progress(self, stream: Stream) -> None:
        """Some of the stream's queue went out."""

    def on_sent(self, stream: Stream) -> None:
        """The whole response is in the output; the stream is closed."""

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        """The stream is closed before its time; `code` is the HTTP/2 error code."""

    def on_window(self) -> None:
        """A window has opened: what waited for one may go on."""


class Nobody:
    """The layer above a connection that is lost: `Events` that do nothing."""

    def on_request(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        """Do nothing."""

    def on_refused(self, stream_id: int, head: RequestHead, cause: Cause | None) -> None:
        """Do nothing."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        """Do nothing."""

    def on_end(self, stream: Stream) -> None:
        """Do nothing."""

    def on_progress(self, stream: Stream) -> None:
        """Do nothing."""

    def on_sent(self, stream: Stream) -> None:
        """Do nothing."""

    def on_reset(self, stream: Stream, cause: Cause, code: int) -> None:
        """Do nothing."""

    def on_window(self) -> None:
        """Do nothing."""
