"""The head of an HTTP/1.1 request, and what its fields say of how it is to be read.

h11 has checked the syntax; what a server has to check besides (RFC 9112 sections 3.2 and 6.3), and
how much may come, is checked here.
"""

from __future__ import annotations

from typing import Any, Final

import h11

from h2log.config import Limits
from h2log.errors import HTTPError
from h2log.http2.head import BAD_IN_AUTHORITY
from h2log.http2.hpack import FIELD_OVERHEAD

__all__ = ["FieldFacts", "Http1Head", "fault", "fits", "head_of"]

_CHUNKED: Final = -1
# The fields that say how a request is read, and what becomes of its connection.
_READ: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade")
)


class FieldFacts:
    """The fields of a head, and what they say: requests with the same fields share it.

    `closes` says that the client wants the connection to end with the request, `upgrades` that it
    wants to go on with a WebSocket (RFC 6455 section 4.2.1).
    """

    __slots__ = (
        "authority",
        "closes",
        "cost",
        "fields",
        "hosts",
        "length",
        "memo",
        "plain",
        "size",
        "two_lengths",
        "upgrades",
    )

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self.fields = fields
        self.hosts: list[bytes] = []
        self.closes = self.upgrades = False
        declared: int | None = None
        chunked = repeated = False
        size = 0
        plain = True
        for name, value in fields:
            size += len(name) + len(value)
            if name not in _READ:
                continue
            if name == b"host":
                self.hosts.append(value)
            elif name == b"content-length":
                repeated = declared is not None
                declared = int(value)
            elif name == b"transfer-encoding":
                chunked = True
            elif name != b"connection" or value.lower() != b"keep-alive":
                plain = False
        self.authority = self.hosts[0].decode("latin-1") if self.hosts else ""
        self.two_lengths = chunked and declared is not None
        """It says both how long the content is, and that it comes in chunks."""
        self.length = _CHUNKED if chunked else declared or 0
        """Bytes of content; negative when it comes in chunks and is not known."""
        self.size = size + 4 * len(fields)
        """Bytes of the field lines."""
        self.cost = size + FIELD_OVERHEAD * len(fields)
        """What counts against `max_header_bytes`."""
        self.plain = (
            plain
            and not (chunked or repeated)
            and len(self.hosts) == 1
            and not BAD_IN_AUTHORITY(self.hosts[0])
        )
        """A request with these fields is read in the usual way, and they have no fault."""
        if not plain:
            options = _members(fields, b"connection")
            self.closes = b"close" in options
            self.upgrades = (
                b"upgrade" in options
                and b"websocket" in _members(fields, b"upgrade")
                and not self.length
            )
        self.memo: Any = None
        """Owned by whoever answers: what it has made of the fields."""


def _members(fields: tuple[tuple[bytes, bytes], ...], name: bytes) -> list[bytes]:
    """Return the members of a list that is a field, in lower case (RFC 9110 section 5.6.1)."""
    values = [value for known, value in fields if known == name]
    return [member.strip() for member in b",".join(values).lower().split(b",")]


class Http1Head:
    """What an HTTP/1.1 request asked (see `RequestFacts`)."""

    __slots__ = (
        "authority",
        "expects",
        "facts",
        "fields",
        "memo",
        "method",
        "path",
        "scheme",
        "size",
        "sound",
        "version",
    )

    def __init__(
        self,
        method: str,
        path: str,
        scheme: str,
        authority: str,
        facts: FieldFacts,
        size: int = 0,
        version: str = "1.1",
        sound: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.scheme = scheme
        self.authority = authority
        self.facts = facts
        self.fields = facts.fields
        self.size = size
        """Bytes of the target and of the field lines."""
        self.version = version
        self.sound = sound
        """It is known that it has no fault."""
        self.expects = False
        """The client waits for 100 (Continue) before it sends its content."""
        self.memo: Any = None
        """Owned by whoever answers: what it has made of the head."""

    @property
    def persists(self) -> bool:
        """The connection may go on after this request (RFC 9112 section 9.3)."""
        return not self.facts.closes and self.version >= "1.1"

    @property
    def wants_websocket(self) -> bool:
        """It is the opening handshake of a WebSocket, as far as HTTP is concerned."""
        return self.facts.upgrades and self.method == "GET" and self.version >= "1.1"


def head_of(event: h11.Request, scheme: str) -> Http1Head:
    """Return the head of a request; an absolute target is split (RFC 9112 section 3.2.2)."""
    target = event.target.decode("latin-1")
    facts = FieldFacts(tuple((bytes(name), bytes(value)) for name, value in event.headers))
    authority = facts.authority
    method = event.method.decode("ascii")
    if method != "CONNECT" and not target.startswith("/"):
        prefix, mark, rest = target.partition("://")
        if mark and prefix.lower() in ("http", "https"):
            authority, slash, path = rest.partition("/")
            if "?" in authority:  # http://host?query
                authority, _, query = rest.partition("?")
                slash, path = "/", f"?{query}"
            target = f"/{path}" if slash else "/"
    version = event.http_version.decode("ascii")
    size = len(event.target) + facts.size
    return Http1Head(method, target, scheme, authority, facts, size, version)


def fits(facts: FieldFacts, limits: Limits) -> bool:
    """Say whether the fields, and the content that they declare, are within the limits."""
    return (
        facts.cost <= limits.max_header_bytes
        and len(facts.fields) <= limits.max_header_fields
        and facts.length <= limits.max_body_bytes
    )


def fault(head: Http1Head, limits: Limits) -> tuple[HTTPError, bool] | None:
    """Return why a request must not reach a handler, and whether its connection ends; or None."""
    facts = head.facts
    if any(BAD_IN_AUTHORITY(value) for value in facts.hosts):
        return HTTPError(400, "invalid host"), False
    authority = head.authority  # of the target, where that is absolute (RFC 9110 section 4.2)
    if authority != facts.authority:
        if not authority or BAD_IN_AUTHORITY(authority.encode("latin-1")):
            return HTTPError(400, "invalid host"), False
    if head.version[:1] != "1":
        return HTTPError(505), True
    if facts.two_lengths:
        # Two lengths are how a request is smuggled past a proxy (RFC 9112 section 6.3).
        return HTTPError(400, "both transfer-encoding and content-length"), True
    most = limits.max_header_bytes
    if len(facts.fields) > limits.max_header_fields or max(facts.cost, head.size) > most:
        return HTTPError(431), False
    if head.method != "CONNECT" and not head.path.startswith("/") and head.path != "*":
        return HTTPError(400, "the request target is not a path"), False
    most = limits.max_body_bytes
    if facts.length > most:
        return HTTPError(413, f"the content is larger than {most} bytes"), False
    return None
