"""What a request's or a trailer section's fields must be (RFC 9113 sections 8.1 to 8.3).

The rules, in one place:

- a field name is a lower-case token; a name that begins with a colon is a pseudo-header;
- a value has no control character but HTAB, and neither begins nor ends with SP or HTAB;
- pseudo-headers come first, each at most once, and only the defined ones: exactly one `:method`,
  `:scheme` and `:path`; a CONNECT request has `:method` and `:authority` alone, or `:protocol` too
  and then all of them (RFC 8441);
- no connection-specific field; `te` is `trailers` or absent;
- `content-length` is digits, and all of them agree; `host` agrees with `:authority`;
- trailers have no pseudo-header.

A request that breaks one is malformed: a stream error, never the connection's.
"""

from __future__ import annotations

import re
from typing import Any, Final

from h2log.http2.hpack import Field

__all__ = ["BAD_IN_AUTHORITY", "BAD_IN_PATH", "RequestHead", "parse_request", "trailer_fault"]

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_BAD_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z").search
BAD_IN_PATH: Final = re.compile(rb"[\x00-\x20\x7f]").search
BAD_IN_AUTHORITY: Final = re.compile(rb"[\x00-\x20\x7f@/?#\\]").search
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,19}").fullmatch

_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))


class Rest:
    """What a head is without its path."""

    __slots__ = ("memo", "priority", "priority_known")

    def __init__(self) -> None:
        self.priority: tuple[int, bool] | None = None
        """Urgency and incremental, if the client said any (RFC 9218)."""
        self.priority_known = False
        self.memo: Any = None
        """Owned by the layer above: anything that it derived from all but the path."""


class RequestHead:
    """A request's header section; immutable once parsed, and shared by requests that repeat it.

    `path` is the `:path` with its query, `authority` falls back to `host`; texts are latin-1, so
    that each character is a byte of the wire. `fields` are the regular fields in order, cookies
    joined (RFC 9113 section 8.2.3). `fault` is None, or what makes the request malformed; a
    malformed head holds what could be read of it.
    """

    __slots__ = (
        "authority",
        "content_length",
        "fault",
        "fields",
        "memo",
        "method",
        "path",
        "protocol",
        "rest",
        "scheme",
        "too_large",
    )

    def __init__(self) -> None:
        self.method = ""
        self.scheme = ""
        self.authority = ""
        self.path = ""
        self.protocol = ""
        """The protocol of an extended CONNECT (RFC 8441), else nothing."""
        self.fields: tuple[Field, ...] = ()
        self.content_length: int | None = None
        self.fault: str | None = None
        self.too_large = False
        """It went over the bounds of a header section; `fields` are incomplete: answer 431."""
        self.memo: Any = None
        """Owned by the layer above: anything that it derived from this head alone."""
        self.rest = Rest()
        """Shared by heads that differ in nothing but their path."""

    def with_path(self, path: str) -> RequestHead:
        """Return a head that differs in its path alone, which `paths.path_of` has found good.

        This head must be well-formed, and no CONNECT.
        """
        head = RequestHead.__new__(RequestHead)
        head.method = self.method
        head.scheme = self.scheme
        head.authority = self.authority
        head.path = path
        head.protocol = self.protocol
        head.fields = self.fields
        head.content_length = self.content_length
        head.fault = None
        head.too_large = False
        head.memo = None
        head.rest = self.rest
        return head

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.path!r} fault={self.fault!r}>"


def _field_fault(name: bytes, value: bytes) -> str | None:
    """Return what is wrong with a regular field by itself, or None."""
    if _NAME(name) is None:
        return f"invalid field name {name[:64]!r}"
    if _BAD_IN_VALUE(value):
        return f"invalid value of {name.decode()}"
    if name in _CONNECTION_SPECIFIC:
        return f"connection-specific field {name.decode()}"
    if name == b"te" and value.lower() != b"trailers":
        return "te is not trailers"
    return None


# Fields that passed `_field_fault`: clients repeat theirs, and the table's own tuples come back as
# the same objects. Bounded by count and by the size of what may enter.
_passed: dict[Field, None] = {}
_MAX_PASSED: Final = 2048
_MAX_PASSED_SIZE: Final = 512


def _check(field: Field) -> str | None:
    if field in _passed:
        return None
    fault = _field_fault(*field)
    if fault is None and len(field[0]) + len(field[1]) <= _MAX_PASSED_SIZE:
        if len(_passed) >= _MAX_PASSED:
            _passed.clear()
        _passed[field] = None
    return fault


def parse_request(fields: list[Field], extended_connect: bool = False) -> RequestHead:
    """Return the head that `fields` are, with its `fault` if it is malformed.

    `extended_connect` allows CONNECT with `:protocol`, and then `:scheme` and `:path` (RFC 8441).
    """
    head = RequestHead()
    pseudo: dict[bytes, bytes] = {}
    count = 0
    fault = None
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo:
            fault = fault or f"two {name.decode()}"
        elif name not in _PSEUDO and not (extended_connect and name == b":protocol"):
            fault = fault or f"unknown pseudo-header {name[:64]!r}"
        else:
            pseudo[name] = value
        count += 1
    head.method = pseudo.get(b":method", b"").decode("latin-1")
    head.scheme = pseudo.get(b":scheme", b"").decode("latin-1")
    head.authority = pseudo.get(b":authority", b"").decode("latin-1")
    head.path = pseudo.get(b":path", b"").decode("latin-1")
    head.protocol = pseudo.get(b":protocol", b"").decode("latin-1")
    regular = fields[count:]
    head.fault = (
        fault or _pseudo_fault(pseudo) or _regular_fault(head, regular, b":authority" in pseudo)
    )
    head.fields = tuple(regular)
    return head


def _pseudo_fault(pseudo: dict[bytes, bytes]) -> str | None:
    method = pseudo.get(b":method")
    if method is None:
        return "no :method"
    if _METHOD(method) is None:
        return "invalid :method"
    authority = pseudo.get(b":authority")
    if authority is not None and BAD_IN_AUTHORITY(authority):
        # Userinfo is not allowed for http and https (section 8.3.1), hence no @.
        return "invalid :authority"
    protocol = pseudo.get(b":protocol")
    if protocol is not None:
        if method != b"CONNECT":
            return ":protocol without CONNECT"
        if _METHOD(protocol) is None or not authority:
            return "invalid :protocol" if authority else "CONNECT without :authority"
    elif method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo:
            return "CONNECT with :scheme or :path"
        return None if authority else "CONNECT without :authority"
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path")
    if scheme is None:
        return "no :scheme"
    if _SCHEME(scheme) is None:
        return "invalid :scheme"
    if path is None:
        return "no :path"
    if BAD_IN_PATH(path):
        return "invalid :path"
    if path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS"):
        return "empty :path" if not path else ":path does not begin with /"
    return None


def _regular_fault(head: RequestHead, regular: list[Field], has_authority: bool) -> str | None:
    """Check the regular fields; note content-length and host, and join the cookies in place."""
    host: bytes | None = None
    cookies = 0
    for field in regular:
        if field not in _passed:
            fault = _check(field)
            if fault is not None:
                return fault if field[0][:1] != b":" else "a pseudo-header after a field"
        name, value = field
        if name == b"content-length":
            if _DIGITS(value) is None:
                return "invalid content-length"
            if head.content_length not in (None, int(value)):
                return "two different content-length"
            head.content_length = int(value)
        elif name == b"cookie":
            cookies += 1
        elif name == b"host":
            if host is not None:
                return "two host fields"
            host = value
    if host is not None:
        if BAD_IN_AUTHORITY(host):
            return "invalid host"
        text = host.decode("latin-1")
        if has_authority and text.lower() != head.authority.lower():
            return "host differs from :authority"
        head.authority = head.authority or text
    if cookies > 1:
        joined = b"; ".join([value for name, value in regular if name == b"cookie"])
        regular[:] = [field for field in regular if field[0] != b"cookie"]
        regular.append((b"cookie", joined))
    return None


def trailer_fault(fields: list[Field]) -> str | None:
    """Return what makes a trailer section malformed, or None."""
    for field in fields:
        if field[0][:1] == b":":
            return "a pseudo-header in trailers"
        fault = _check(field)
        if fault is not None:
            return fault
    return None
