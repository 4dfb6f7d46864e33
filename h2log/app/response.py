"""A response as a handler makes it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable, Mapping
from io import FileIO
from typing import Any, Final, NamedTuple

import msgspec

from h2log.errors import HTTPError, reason_phrase

__all__ = ["FileContent", "Response", "error_response"]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_BAD_IN_VALUE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search
NO_CONTENT_STATUS: Final = frozenset((204, 304))
"""Final responses that never have content (RFC 9110 sections 15.3.5 and 15.4.5)."""


class FileContent(NamedTuple):
    """`length` bytes of an open, unbuffered file from `offset` on; who sends it closes it."""

    file: FileIO
    offset: int
    length: int


class Response:
    """A status, header fields and content.

    `body` is bytes, text (sent as UTF-8), an asynchronous iterable of bytes, or a `FileContent`.
    `headers` are pairs or a mapping; names in any case are lower-cased. `content-length` is added
    where the length is known, `date` and `x-request-id` when the response is sent.
    Raises ValueError for a status that is not from 200 to 599, and for a header that would not be
    one line (RFC 9110 section 5.5).
    """

    __slots__ = ("body", "headers", "status", "wire")

    def __init__(
        self,
        body: bytes | str | AsyncIterable[bytes] | FileContent = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"status must be from 200 to 599, got {status}")
        if isinstance(body, str):
            body = body.encode()
            content_type = content_type or "text/plain; charset=utf-8"
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        fields = [(name.lower(), value) for name, value in pairs]
        if content_type is not None:
            fields.insert(0, ("content-type", content_type))
        check_fields(fields)
        if not isinstance(body, bytes | FileContent | AsyncIterable):
            raise TypeError(
                f"a response's body is bytes, text, an asynchronous iterable of bytes or a file, "
                f"not {type(body).__name__}; for JSON there is Response.json"
            )
        self.body = body
        self.status = status
        self.headers = fields
        self.wire: Any = None
        """Owned by whoever sends it: this response as bytes, when it is sent again and again."""

    @classmethod
    def text(cls, text: str, status: int = 200) -> Response:
        """Return `text` as text/plain."""
        return cls(text, status, content_type="text/plain; charset=utf-8")

    @classmethod
    def html(cls, text: str, status: int = 200) -> Response:
        """Return `text` as text/html."""
        return cls(text, status, content_type="text/html; charset=utf-8")

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """Return `value` as JSON. Raises TypeError for what msgspec cannot encode."""
        return cls(msgspec.json.encode(value), status, content_type="application/json")

    @classmethod
    def redirect(cls, location: str, status: int = 307) -> Response:
        """Return a redirect to `location`, a URI reference (RFC 9110 section 10.2.2)."""
        return cls(b"", status, [("location", location)])

    def content_length(self) -> int | None:
        """Return the length of the content where it is known."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.length if isinstance(self.body, FileContent) else None

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def check_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a header field that would not be one line (RFC 9110 section 5.5)."""
    for name, value in fields:
        if _NAME(name) is None:
            raise ValueError(f"invalid header name {name!r}")
        if _BAD_IN_VALUE(value) or value != value.strip(" \t"):
            raise ValueError(f"invalid value of header {name}: {value!r}")


def error_response(error: HTTPError, request_id: str) -> Response:
    """Return what the client is told of `error`: the detail, and the id to look for in the log."""
    detail = error.detail
    if error.status >= 500:
        detail = f"{detail}\nrequest id: {request_id}"
    text = f"{error.status} {reason_phrase(error.status)}\n" + (
        f"{detail}\n" if detail != reason_phrase(error.status) else ""
    )
    return Response(
        text.encode("utf-8", "backslashreplace"),
        error.status,
        error.headers,
        content_type="text/plain; charset=utf-8",
    )
