"""A request as a handler meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol
from urllib.parse import unquote

from h2log.app.headers import Headers, Query

__all__ = ["Content", "Request"]


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
    percent coding undone; `scheme`; `authority` (the host); `client` is the peer's address and
    port; `session_id` and `id` are the connection's and the request's ids, as in the log; `params`
    are the values of the route's parts; `protocol` is that of an extended CONNECT (RFC 8441).

    Set by what answers, for the log: `route` is the pattern that matched, `cache` whether a static
    file was in memory (`hit`, `miss`), `condition` what decided that it was not sent whole (`etag`,
    `date`, `range`).
    """

    __slots__ = (
        "_content",
        "_headers",
        "_interim",
        "_pieces",
        "_query",
        "_read",
        "_streamed",
        "authority",
        "cache",
        "client",
        "condition",
        "fields",
        "id",
        "method",
        "params",
        "protocol",
        "raw_path",
        "route",
        "scheme",
        "session_id",
        "target",
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
        self.params: dict[str, str] = {}
        self._content = content
        self._headers: Headers | None = None
        self._query: Query | None = None
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
    def query(self) -> Query:
        """The query's parameters."""
        if self._query is None:
            self._query = Query(self.target.partition("?")[2])
        return self._query

    def early_hints(self, *links: str) -> None:
        """Tell the client, before the response, what it will need: 103 (RFC 8297).

        `links` are values of Link fields: `</style.css>; rel=preload; as=style`. Does nothing once
        the response has begun. Raises ValueError for a value that would not be one line.
        """
        for link in links:
            if not link.isprintable() or not link.isascii() or link != link.strip(" "):
                raise ValueError(f"invalid Link {link!r}")
        if self._interim is not None and links:
            self._interim(103, [("link", link) for link in links])

    async def stream(self) -> AsyncIterator[bytes]:
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

    def _begin(self, *, streaming: bool) -> None:
        if self._streamed or (streaming and self._pieces):
            raise RuntimeError("the content of this request is being read already, in pieces")
        self._streamed = streaming

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} {self.id}>"
