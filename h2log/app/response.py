"""A response as a handler makes it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from copy import copy
from datetime import datetime
from functools import partial
from io import FileIO
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

import msgspec

from h2log.app.cookies import SameSite, set_cookie
from h2log.app.events import Event, EventStream
from h2log.app.files.shared import SharedFile
from h2log.errors import HTTPError, reason_phrase

__all__ = ["Fields", "FileAt", "FileContent", "Response", "Work", "error_response"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header or trailer fields."""

Work = Callable[[], object]
"""Work after a response: an `async` function, or a plain one that does not block."""

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_BAD_IN_VALUE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search
_REDIRECTS: Final = (301, 302, 303, 307, 308)
NO_CONTENT_STATUS: Final = frozenset((204, 304))
"""Final responses that never have content (RFC 9110 sections 15.3.5 and 15.4.5)."""

NO_TRAILERS: Final = frozenset(
    (
        # Framing and the connection
        "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
        # Routing, controls and conditions
        "cache-control", "expect", "host", "if-match", "if-modified-since", "if-none-match",
        "if-range", "if-unmodified-since", "max-forwards", "pragma", "range",
        # Authentication
        "authorization", "cookie", "proxy-authenticate",
        "proxy-authorization", "set-cookie", "www-authenticate",
        # What the response is, and how its content is to be taken
        "age", "content-encoding", "content-range", "content-type", "date", "expires", "location",
        "retry-after", "vary", "warning", "x-request-id",
    )
)  # fmt: skip
"""Fields that mean nothing, or something dangerous, in a trailer section (RFC 9110, 6.5.1)."""


class FileContent(NamedTuple):
    """`length` bytes of an open, unbuffered file from `offset` on; who sends it closes it."""

    file: FileIO | SharedFile
    offset: int
    length: int


class FileAt(NamedTuple):
    """The file at `path`: opened right behind the handler, see `Response.file`."""

    path: str


class Response:
    """A status, header fields and content.

    `body` is bytes, text (sent as UTF-8), an asynchronous iterable of bytes, a `FileContent` or a
    `FileAt`.
    `headers` are pairs or a mapping; names in any case are lower-cased. `content-length` is added
    where the length is known, `date` and `x-request-id` when the response is sent.

    `trailers` are fields that follow the content: pairs, a mapping, or a function without
    arguments that gives them once the content is through. HTTP/2 always carries them, HTTP/1.1
    when the request says `TE: trailers` (then without `content-length`); elsewhere, and where there
    is no content, they are left out.

    `background` is work to do once the response was handed over, or its client is gone: a function
    without arguments, `async` or plain (it must not block), or several, one after the other. An
    exception of one is logged under the request's ids, and the next one follows.

    Raises ValueError for a status that is not from 200 to 599, for a header or trailer that would
    not be one line (RFC 9110 section 5.5), and for a trailer that must be a header (section
    6.5.1); TypeError for what is of no such type.
    """

    __slots__ = ("background", "body", "headers", "route", "status", "trailers", "wire", "wire1")

    def __init__(
        self,
        body: bytes
        | bytearray
        | memoryview
        | str
        | AsyncIterable[bytes]
        | FileContent
        | FileAt = b"",
        status: int = 200,
        headers: Fields = (),
        content_type: str | None = None,
        *,
        trailers: Fields | Callable[[], Fields] | None = None,
        background: Work | Iterable[Work] = (),
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status is {type(status).__name__}, expected int")
        if not 200 <= status <= 599:
            raise ValueError(f"status must be from 200 to 599, got {status}")
        if isinstance(body, str):
            body = body.encode()
            content_type = content_type or "text/plain; charset=utf-8"
        elif isinstance(body, bytearray | memoryview):
            body = bytes(body)
        fields = lower_fields(headers)
        if content_type is not None:
            fields.insert(0, ("content-type", content_type))
        if not isinstance(body, bytes | FileContent | FileAt | AsyncIterable):
            raise TypeError(
                f"a response's body is bytes, text, an asynchronous iterable of bytes or a file, "
                f"not {type(body).__name__}; for JSON there is Response.json"
            )
        if trailers is not None and not callable(trailers):
            trailers = check_trailers(trailers)
            if trailers and not any(name == "trailer" for name, _ in fields):
                # A sender should announce them (RFC 9110 section 6.6.2).
                names = ", ".join(dict.fromkeys(name for name, _ in trailers))
                fields.append(("trailer", names))
        check_fields(fields)
        self.body = body
        self.status = int(status)
        self.headers = fields
        self.trailers = trailers
        self.background: list[Work] | None = None
        """What `after` adds to."""
        self.route = ""
        """The pattern that it answers, for the log: of what is kept in memory."""
        self.wire: Any = None
        """Owned by whoever sends it: this response as bytes, when it is sent again and again."""
        self.wire1: Any = None
        """The same for HTTP/1.1."""
        if background != ():
            for work in background if isinstance(background, Iterable) else (background,):
                self.after(work)

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Fields = ()) -> Self:
        """Return `text` as text/plain."""
        return cls(text, status, headers, "text/plain; charset=utf-8")

    @classmethod
    def html(cls, text: str, status: int = 200, headers: Fields = ()) -> Self:
        """Return `text` as text/html."""
        return cls(text, status, headers, "text/html; charset=utf-8")

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Fields = ()) -> Self:
        """Return `value` as JSON. Raises TypeError for what msgspec cannot encode."""
        return cls(msgspec.json.encode(value), status, headers, "application/json")

    @classmethod
    def redirect(cls, location: str, status: int = 307, headers: Fields = ()) -> Self:
        """Return a redirect to `location`, a URI reference (RFC 9110 section 10.2.2).

        Raises ValueError for a status that redirects nowhere: 301, 302, 303, 307 and 308 do.
        """
        if status not in _REDIRECTS:
            raise ValueError(
                f"a redirect is one of {', '.join(map(str, _REDIRECTS))}, not {status}"
            )
        return cls(b"", status, [("location", location), *lower_fields(headers)])

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        content_type: str | None = None,
        status: int = 200,
        headers: Fields = (),
        *,
        download: str | None = None,
    ) -> Self:
        """Return the file at `path`, with its type, date, tag and length.

        It is opened when the handler has returned: a 404 when it is not there, and a 304, 412, 206
        or 416 as the conditions and ranges of the request want it. Middleware is given what came of
        it, and errors go to error handlers, as if the handler had raised them. `path` is taken as
        it is: what of it comes from a client, a handler has to check, or to leave to `App.static`.
        With `download` the client saves it under that name (RFC 6266).
        """
        fields = lower_fields(headers)
        if download is not None:
            fields.append(("content-disposition", attachment(download)))
        return cls(FileAt(os.fspath(path)), status, fields, content_type)

    @classmethod
    def stream(
        cls,
        pieces: AsyncIterable[bytes],
        content_type: str = "application/octet-stream",
        status: int = 200,
        headers: Fields = (),
    ) -> Self:
        """Return content that is sent as `pieces` gives it, which waits while its client does.

        It is closed when the client is gone.
        """
        return cls(pieces, status, headers, content_type)

    @classmethod
    def events(
        cls,
        source: AsyncIterable[Event | str],
        keep_alive: float | None = 15.0,
        status: int = 200,
        headers: Fields = (),
    ) -> Self:
        """Return server-sent events: each is sent as soon as `source` gives it.

        After `keep_alive` seconds of silence a comment is sent (None: never). A client that
        connects anew says where it was: `Request.last_event_id`. Raises as `EventStream`.
        """
        fields = lower_fields(headers)
        names = {name for name, _ in fields}
        for name, value in (("cache-control", "no-store"), ("x-accel-buffering", "no")):
            if name not in names:  # the second: nginx, and what follows it, must not gather them
                fields.append((name, value))
        return cls(EventStream(source, keep_alive), status, fields, "text/event-stream")

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | float | None = None,
        domain: str | None = None,
        path: str | None = "/",
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite | None = "Lax",
        partitioned: bool = False,
    ) -> None:
        """Have the client keep a cookie; see `h2log.app.cookies.set_cookie`.

        One of the same name, domain and path that was set before is replaced: a response sets a
        cookie once (RFC 6265bis section 4.1.1). Raises ValueError.
        """
        field = set_cookie(
            name,
            value,
            max_age=max_age,
            expires=expires,
            domain=domain,
            path=path,
            secure=secure,
            http_only=http_only,
            same_site=same_site,
            partitioned=partitioned,
        )
        identity = _cookie_identity(field)
        self.headers[:] = [
            pair
            for pair in self.headers
            if pair[0] != "set-cookie" or _cookie_identity(pair[1]) != identity
        ]
        self.headers.append(("set-cookie", field))

    def delete_cookie(
        self,
        name: str,
        *,
        domain: str | None = None,
        path: str | None = "/",
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite | None = "Lax",
        partitioned: bool = False,
    ) -> None:
        """Have the client forget a cookie; the rest is to be as it was when it was set."""
        self.set_cookie(
            name,
            "",
            max_age=0,
            expires=0,
            domain=domain,
            path=path,
            secure=secure,
            http_only=http_only,
            same_site=same_site,
            partitioned=partitioned,
        )

    def after(self, work: Callable[..., object], *arguments: Any, **named: Any) -> Self:
        """Add work to do after the response, with its arguments; return the response."""
        if not callable(work):
            if isinstance(work, Coroutine):
                work.close()
            raise TypeError(
                f"background work is a function to call, not {type(work).__name__}; "
                "leave out its parentheses"
            )
        if self.background is None:
            self.background = []
        self.background.append(partial(work, *arguments, **named) if arguments or named else work)
        return self

    def copy(self) -> Self:
        """Return the same response, whose fields can be changed without changing this one's."""
        made: Self
        if self.__class__ is Response:
            # As `copy` does, ten times as fast: whatever middleware surrounds is copied.
            made = object.__new__(self.__class__)
            made.body = self.body
            made.status = self.status
        else:
            made = copy(self)
        made.headers = list(self.headers)
        trailers = self.trailers
        made.trailers = list(trailers) if isinstance(trailers, list) else trailers
        made.background = None if self.background is None else list(self.background)
        made.wire = made.wire1 = None
        return made

    def trailer_fields(self) -> list[tuple[str, str]]:
        """Return the trailers, asked of the function that gives them if there is one.

        Raises as the response itself, and what the function raises.
        """
        given = self.trailers
        return check_trailers((given() if callable(given) else given) or ())

    def content_length(self) -> int | None:
        """Return the length of the content where it is known."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.length if isinstance(self.body, FileContent) else None

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def attachment(name: str) -> str:
    """Return the Content-Disposition of what is to be saved as `name` (RFC 6266).

    Clients that do not know the second form take the first, in ASCII.
    """
    plain = re.sub(r"[^ !#$&+\-.0-9A-Z^_`a-z{}~()\[\]@,=\']", "_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    coded = quote(name, safe="!#$&+-.^_`|~", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}"


def lower_fields(fields: Fields) -> list[tuple[str, str]]:
    """Return `fields` as pairs with names in lower case. Raises TypeError for what are none."""
    pairs = fields.items() if isinstance(fields, Mapping) else fields
    try:
        return [(name.lower(), value) for name, value in pairs]
    except (AttributeError, TypeError, ValueError):
        raise TypeError(f"headers are pairs of texts, or a mapping, got {fields!r}") from None


def check_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a header field that would not be one line (RFC 9110 section 5.5).

    Raises TypeError for a field that is no pair of texts.
    """
    name: object = None
    value: object = None
    try:
        for name, value in fields:
            if _NAME(name) is None:
                raise ValueError(f"invalid header name {name!r}")
            if _BAD_IN_VALUE(value) or value != value.strip(" \t"):
                raise ValueError(f"invalid value of header {name}: {value!r}")
    except (TypeError, AttributeError):
        raise TypeError(
            f"a header is a name and a value that are texts, got {name!r}: {value!r}"
        ) from None


def check_trailers(fields: Fields) -> list[tuple[str, str]]:
    """Return trailer fields as pairs with names in lower case.

    Raises ValueError for one that must be a header, since it frames, routes, modifies,
    authenticates or describes the message (RFC 9110 section 6.5.1), and as `check_fields`.
    """
    pairs = lower_fields(fields)
    check_fields(pairs)
    for name, _ in pairs:
        if name in NO_TRAILERS:
            raise ValueError(f"{name} must be a header, not a trailer")
    return pairs


def _cookie_identity(field: str) -> tuple[str, str, str]:
    """Return what a client knows a cookie by: its name, domain and path."""
    pair, *attributes = field.split("; ")
    found = {"domain": "", "path": ""}
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        found[name.lower()] = value
    return pair.partition("=")[0], found["domain"], found["path"]


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
