"""A request as a handler meets it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar, overload
from urllib.parse import unquote

import msgspec
from python_multipart.multipart import parse_options_header

from h2log.app.cookies import parse_cookies
from h2log.app.forms import Form, FormLimits, parse_form
from h2log.app.headers import Headers, Query
from h2log.errors import HTTPError

__all__ = ["Content", "Request"]

_Target = TypeVar("_Target")

_LIMITS: Final = FormLimits()
_JSON: Final = re.compile(rb"application/(json|[^/;\s]+\+json)").fullmatch
_INVALID: Final = re.compile(r"(.*?)(?: - at (`key` in )?`(.*)`)?", re.DOTALL).fullmatch


class Content(Protocol):
    """Where a request's content comes from: whoever reads the connection."""

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end.

        Raises HTTPError(413) past the limit, HTTPError(408) when the client stalls, and is
        cancelled when the client goes away.
        """


class Request:
    """One request.

    `method`; `target` is the path with its query as the client sent it; `path` the path alone,
    percent coding undone; `scheme` is `https` over TLS, else `http`, whatever the client says;
    `authority` (the host); `client` is the peer's address and port. The three may be what a trusted
    proxy says (`server.proxy_headers`). `session_id` and `id` are the connection's and the
    request's ids, as in the log; `params` are the values of the route's parts; `protocol` is that
    of an extended CONNECT (RFC 8441).

    Set by what answers, for the log: `route` is the pattern that matched, `cache` whether a static
    file was in memory (`hit`, `miss`), `condition` what decided that it was not sent whole (`etag`,
    `date`, `range`), `user` the name of the authenticated user, `failure` the unexpected exception
    that an error handler has answered.

    `mounted` is the prefix below which the application that answers is mounted; `state` belongs to
    middleware and handlers, `user_session` to the middleware of user sessions.
    """

    __slots__ = (
        "_content",
        "_cookies",
        "_form",
        "_headers",
        "_interim",
        "_pieces",
        "_query",
        "_read",
        "_state",
        "_streamed",
        "authority",
        "cache",
        "client",
        "condition",
        "failure",
        "fields",
        "id",
        "method",
        "mounted",
        "params",
        "protocol",
        "raw_path",
        "route",
        "scheme",
        "session_id",
        "target",
        "user",
        "user_session",
    )

    def __init__(
        self,
        *,
        method: str,
        target: str,
        scheme: str,
        authority: str,
        fields: tuple[tuple[bytes, bytes], ...],
        client: tuple[str, int],
        session_id: str,
        request_id: str,
        content: Content | None,
        interim: Callable[[int, list[tuple[str, str]]], None] | None = None,
        protocol: str = "",
    ) -> None:
        self.method = method
        self.target = target
        self.raw_path = target.partition("?")[0]
        self.scheme = scheme
        self.authority = authority
        self.fields = fields
        self.client = client
        self.session_id = session_id
        self.id = request_id
        self.protocol = protocol
        self.route = ""
        self.cache = ""
        self.condition = ""
        self._interim = interim
        self.params: dict[str, Any] = {}
        self.mounted = ""
        self.failure: BaseException | None = None
        self.user: str | None = None
        self.user_session: Any = None
        self._state: dict[str, Any] | None = None
        self._content = content
        self._headers: Headers | None = None
        self._query: Query | None = None
        self._cookies: dict[str, str] | None = None
        self._form: Form | None = None
        self._read: bytes | None = None
        self._pieces: list[bytes] = []  # of `_read`, until it is whole
        self._streamed = False

    @property
    def path(self) -> str:
        """The path, percent coding undone as UTF-8."""
        return unquote(self.raw_path.encode("latin-1", "replace").decode("utf-8", "replace"))

    @property
    def headers(self) -> Headers:
        """The header fields; names in any case."""
        if self._headers is None:
            self._headers = Headers(self.fields)
        return self._headers

    @property
    def state(self) -> dict[str, Any]:
        """What middleware and handlers tell each other about this request; empty at first."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def query(self) -> Query:
        """The query's parameters."""
        if self._query is None:
            self._query = Query(self.target.partition("?")[2])
        return self._query

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name, the first of several with one name; see `parse_cookies`."""
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.getall("cookie"))
        return self._cookies

    @property
    def last_event_id(self) -> str:
        """The id of the last event that a client had of a stream, or nothing.

        See the HTML standard, section 9.2.4.
        """
        return self.headers.get("last-event-id", "").encode("latin-1").decode("utf-8", "replace")

    def early_hints(self, *links: str) -> None:
        """Tell the client, before the response, what it will need: 103 (RFC 8297).

        `links` are values of Link fields: `</style.css>; rel=preload; as=style`. Does nothing once
        the response has begun, nor over HTTP/1.1 unless a browser goes to a page: other clients
        may take a 103 for the response (RFC 8297 section 3). Raises ValueError for a value that
        would not be one line.
        """
        for link in links:
            if not link.isprintable() or not link.isascii() or link != link.strip(" "):
                raise ValueError(f"invalid Link {link!r}")
        if self._interim is not None and links:
            self._interim(103, [("link", link) for link in links])

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the content in pieces, as they come. Raises as `body`.

        What was streamed is not kept: a second use raises RuntimeError, also by `body`. After
        `body` it yields what that returned.
        """
        if self._read is not None:
            yield self._read
            return
        self._begin(streaming=True)
        if self._content is not None:
            while piece := await self._content.read():
                yield piece

    async def body(self) -> bytes:
        """Return the whole content; the same bytes each time.

        Raises HTTPError(413) when it is larger than the server's limit, HTTPError(408) when the
        client stalls.
        """
        if self._read is None:
            self._begin(streaming=False)
        # Several may wait here at once, and one that is cancelled loses nothing for the others.
        while self._read is None:
            piece = await self._content.read() if self._content is not None else b""
            if piece:
                self._pieces.append(piece)
            elif self._read is None:
                self._read = b"".join(self._pieces)
                self._pieces.clear()
        return self._read

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the content in pieces; see `stream`."""
        return self.stream()

    @overload
    async def json(self) -> Any: ...

    @overload
    async def json(self, type: type[_Target]) -> _Target: ...

    @overload
    async def json(self, type: Any) -> Any: ...

    async def json(self, type: Any = Any) -> Any:
        """Return the content, which is JSON (RFC 8259), as a `type` that msgspec knows.

        Such are classes of msgspec, dataclasses, typed dictionaries, `list[int]`, unions …
        Raises HTTPError 415 when the content's type is another or missing (a page of another site
        can send such a request without asking), or when it has a content coding, 400 for what is no
        JSON, and 422 for what is, but no `type`: the detail names the place, `$.user.age: expected
        int, got str`. Raises as `body`, and TypeError for a type that msgspec does not know.
        """
        self._check_coding()
        content_type = self.headers.get("content-type")
        if not _is_json(content_type):
            raise HTTPError(
                415,
                f"expected application/json in UTF-8, got {content_type or 'no content-type'}",
                (("accept", "application/json"),),
            )
        body = await self.body()
        if not body:
            raise HTTPError(400, "expected JSON, got no content")
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.ValidationError as error:
            raise HTTPError(422, _invalid(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPError(400, f"malformed JSON: {error}") from None
        except RecursionError:
            raise HTTPError(400, "malformed JSON: too deeply nested") from None

    async def form(
        self,
        *,
        max_fields: int = _LIMITS.max_fields,
        max_files: int = _LIMITS.max_files,
        max_field_bytes: int = _LIMITS.max_field_bytes,
    ) -> Form:
        """Return the content, which is a form; the same one each time.

        Files of up to 1 MiB are in memory, larger ones in a temporary file; all are closed when
        the request ends. `max_field_bytes` bounds each field, four times as much all of them; the
        server's `max_body_bytes` bounds the whole. Raises HTTPError 415 for what is no form or has
        a content coding, 400 for a malformed one, 413 past a limit, 503 when the server has no room
        for its files. Raises as `stream`; the content is used up then.
        """
        if self._form is None:
            self._check_coding()
            limits = FormLimits(max_fields, max_files, max_field_bytes)
            content_type = self.headers.get("content-type")
            async with aclosing(self.stream()) as pieces:
                self._form = await parse_form(content_type, pieces, limits)
        return self._form

    def release(self) -> None:
        """The request has ended: close what was opened for it. The server calls it."""
        if self._form is not None:
            self._form.close_soon()

    def _check_coding(self) -> None:
        """Refuse content that is coded: nothing here decodes it (RFC 9110 section 15.5.16)."""
        coding = self.headers.joined("content-encoding")
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            raise HTTPError(
                415,
                f"expected content without a coding, got content-encoding {coding}",
                (("accept-encoding", "identity"),),
            )

    def _begin(self, *, streaming: bool) -> None:
        if self._streamed or (streaming and self._pieces):
            raise RuntimeError("the content of this request is being read already, in pieces")
        self._streamed = streaming

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} {self.id}>"


def _is_json(content_type: str | None) -> bool:
    """Say whether it is JSON's (RFC 8259), or has its suffix (RFC 6839), and UTF-8."""
    media_type, options = parse_options_header(content_type)
    charset = options.get(b"charset", b"utf-8").lower()
    return _JSON(media_type) is not None and charset in (b"utf-8", b"utf8")


def _invalid(message: str) -> str:
    """Return what msgspec says of a wrong type with the place in front.

    "Expected `int`, got `str` - at `$.age`" becomes "$.age: expected int, got str".
    """
    found = _INVALID(message)
    assert found is not None
    text = found[1].replace("`", "")
    place = f"{found[3] or '$'}{' (a key)' if found[2] else ''}"
    return f"{place}: {text[:1].lower()}{text[1:]}"
