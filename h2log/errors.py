"""The exception tree.

An error carries its consequence: `SessionError` becomes GOAWAY, `StreamError` becomes RST_STREAM,
`HTTPError` becomes a response, `UsageError` becomes one line on stderr and exit code 2,
`StartupError` the same with exit code 3.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from h2.errors import ErrorCodes

__all__ = [
    "H2logError",
    "HTTPError",
    "MalformedError",
    "SessionError",
    "StartupError",
    "StreamError",
    "UsageError",
]


class H2logError(Exception):
    """The root of every exception that h2log raises on purpose."""


class UsageError(H2logError):
    """A mistake of the person who started h2log: a bad option, file or setting.

    The message names the thing and the remedy; the command line prints it as one line and exits
    with code 2.
    """


class StartupError(H2logError):
    """The application failed before it was served: its message, and exit code 3 (as uvicorn's)."""


class SessionError(H2logError):
    """A connection error (RFC 9113 section 5.4.1): GOAWAY with `code`, then the connection closes.

    `code` is the HTTP/2 error code, `detail` the debug data of the GOAWAY frame.
    """

    def __init__(self, code: ErrorCodes, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail


class StreamError(H2logError):
    """A stream error (RFC 9113 section 5.4.2): RST_STREAM with `code` on `stream_id` alone."""

    def __init__(self, stream_id: int, code: ErrorCodes, detail: str) -> None:
        super().__init__(f"stream {stream_id}: {code.name}: {detail}")
        self.stream_id = stream_id
        self.code = code
        self.detail = detail


class MalformedError(StreamError):
    """A request that is no well-formed HTTP message (RFC 9113 section 8.1.1): PROTOCOL_ERROR."""

    def __init__(self, stream_id: int, detail: str) -> None:
        super().__init__(stream_id, ErrorCodes.PROTOCOL_ERROR, detail)


class HTTPError(H2logError):
    """Raised by a handler to answer with `status` and a short text.

    `status` is an HTTP status code from 400 to 599; `detail` is sent to the client as it is, the
    standard reason phrase when it is empty; `headers` are added to the response.
    Raises ValueError for a status outside that range.
    """

    def __init__(
        self, status: int, detail: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"HTTPError status must be from 400 to 599, got {status}")
        self.status = status
        self.detail = detail or reason_phrase(status)
        self.headers = headers
        super().__init__(f"{status} {self.detail}")


# Their names of today (RFC 9110, section 15.5), which Python has from 3.13 on.
_RENAMED: Final = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def reason_phrase(status: int) -> str:
    """Return the standard reason phrase of `status`, or `Status N` for an unregistered one."""
    try:
        return _RENAMED.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"
