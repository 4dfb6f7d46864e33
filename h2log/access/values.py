"""What can be told of a record: each a function of it, None where there is nothing to tell.

The texts are as the wire had them (a character a byte, see `text`), not escaped yet. Whoever
prints them does that, once, at the end.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from typing import Final

from h2log.access.record import AccessRecord
from h2log.access.text import to_wire

__all__ = [
    "HTTP_VERSIONS",
    "client_request_id",
    "host_and_port",
    "query",
    "referrer",
    "remote_user",
    "request_field",
    "request_fields",
    "response_field",
    "route",
    "split_target",
    "target",
    "trace_id",
    "traceparent",
    "user_agent",
]

Fields = tuple[tuple[bytes, bytes], ...]

HTTP_VERSIONS: Final = {"h3": "3", "h2": "2.0", "1.1": "1.1", "1.0": "1.0"}
"""The session's protocol as it stands after `HTTP/`."""

# A repeated field of these names keeps its first value; other values are joined with a comma. That
# is what Node does, and so what morgan shows.
_SINGLE: Final = frozenset(
    b"age authorization content-length content-type etag expires from host if-modified-since "
    b"if-unmodified-since last-modified location max-forwards proxy-authorization referer "
    b"retry-after server user-agent".split()
)
_BASIC = re.compile(rb" *basic +([A-Za-z0-9._~+/-]+)=* *", re.IGNORECASE).fullmatch
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_LINE_BREAK = re.compile(rb"[\n\r]|\xe2\x80[\xa8\xa9]").search
_TRACEPARENT = re.compile(
    rb"((?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?",
    re.DOTALL,
).fullmatch
_REQUEST_ID = re.compile(rb"[!-~]{1,200}").fullmatch
_PORT = re.compile("(0|[1-9][0-9]{0,4})").fullmatch

# The fields looked at last: every token of a line asks for the same, and so do the lines of
# requests that share their fields. One tuple, replaced as a whole, so threads see a matching pair.
_last: tuple[Fields, dict[bytes, bytes]] = ((), {})


def request_fields(fields: Fields) -> dict[bytes, bytes]:
    """Return header fields by name, repeated ones as one value. Not to be changed."""
    global _last
    known, found = _last
    if known is not fields:
        found = dict(fields)
        if len(found) != len(fields):
            found = _joined(fields)
        _last = fields, found
    return found


def _joined(fields: Fields) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in found:
            found[name] = value
        elif name not in _SINGLE:
            found[name] += (b"; " if name == b"cookie" else b", ") + value
    return found


def request_field(record: AccessRecord, name: bytes) -> str | None:
    """Return the request's header field `name` (lower case)."""
    value = request_fields(record.facts.fields).get(name)
    if value is None:
        # HTTP/2 has the authority in place of `host`.
        return (record.facts.authority or None) if name == b"host" else None
    return value.decode("latin-1")


def response_field(record: AccessRecord, name: str) -> str | None:
    """Return the response's header field `name` (lower case), if a response was begun.

    The handler's, `content-length` and `x-request-id`; not `date`, which is added on the way out.
    """
    response = record.response
    if response is None or not record.status:
        return None
    if name == "x-request-id":
        return record.id
    values = [value for known, value in response.headers if known == name]
    if values:
        return values[0] if name == "content-length" else ", ".join(values)
    if name == "content-length" and record.status not in (204, 304):  # those have none
        length = response.content_length()
        return None if length is None else str(length)
    return None


def target(record: AccessRecord) -> str:
    """Return the path with its query; of a CONNECT the authority; `-` where none could be read."""
    facts = record.facts
    return facts.path or facts.authority or "-"


def split_target(text: str) -> tuple[str, str | None]:
    """Return the path and the query (without its question mark) of a request target."""
    path, mark, rest = text.partition("?")
    return path, rest if mark else None


def query(record: AccessRecord) -> str | None:
    """Return what follows the question mark."""
    return split_target(record.facts.path)[1]


def referrer(record: AccessRecord) -> str | None:
    """Return `referer`, or else `referrer`; an empty one only where that is all there is."""
    fields = request_fields(record.facts.fields)
    value = fields.get(b"referer")
    if not value:
        value = fields.get(b"referrer", value)
    return None if value is None else value.decode("latin-1")


def user_agent(record: AccessRecord) -> str | None:
    """Return `user-agent`."""
    value = request_fields(record.facts.fields).get(b"user-agent")
    return None if value is None else value.decode("latin-1")


def remote_user(record: AccessRecord) -> str | None:
    """Return the user whom the application has authenticated, or else who Basic credentials name.

    Those (RFC 7617) may be wrong: the status tells. As lenient as morgan: either alphabet of
    base64, and no matter how it is padded. The password is not even kept.
    """
    detail = record.detail
    if detail is not None and detail.user is not None:
        return to_wire(detail.user)
    value = request_fields(record.facts.fields).get(b"authorization")
    if value is None:
        return None
    found = _BASIC(value)
    if found is None:
        return None
    digits = found[1].translate(_URL_SAFE, b".~")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        raw = a2b_base64(digits + b"=" * (-len(digits) % 4))
    except Error:  # pragma: no cover - nothing but the alphabet is left
        return None
    user, colon, password = raw.partition(b":")
    if not colon or not user or _LINE_BREAK(password):
        return None
    return user.decode("latin-1")


def traceparent(record: AccessRecord) -> str | None:
    """Return the incoming `traceparent` if it is one (W3C Trace Context section 3.2).

    Of a later version than 00 the part that this version knows, as that document asks.
    """
    found = _traceparent(record)
    return None if found is None else found[1].decode()


def trace_id(record: AccessRecord) -> str | None:
    """Return the trace id of a valid `traceparent`."""
    found = _traceparent(record)
    return None if found is None else found[2].decode()


def _traceparent(record: AccessRecord) -> re.Match[bytes] | None:
    value = request_fields(record.facts.fields).get(b"traceparent")
    if value is None:
        return None
    found = _TRACEPARENT(value)
    if found is None or (found[3] is not None and value.startswith(b"00")):
        return None
    return found


def client_request_id(record: AccessRecord) -> str | None:
    """Return the incoming `x-request-id` if it is 1 to 200 visible ASCII characters."""
    value = request_fields(record.facts.fields).get(b"x-request-id")
    if value is None or _REQUEST_ID(value) is None:
        return None
    return value.decode()


def host_and_port(authority: str) -> tuple[str, int | None]:
    """Return the host and the port of an authority; joined by a colon they are it again."""
    host, colon, port = authority.rpartition(":")
    if colon and _PORT(port) is not None:
        return host, int(port)
    return authority, None


def route(record: AccessRecord) -> str | None:
    """Return the pattern of the route that answered, as UTF-8 of the wire."""
    detail = record.detail
    if detail is not None and detail.route:
        return to_wire(detail.route)
    # A response from memory is answered without a look at the routes: it knows its own.
    response = record.response
    return to_wire(response.route) if response is not None and response.route else None
