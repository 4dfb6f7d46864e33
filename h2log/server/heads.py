"""Response header sections that came as bytes: checked once, and remembered in wire form.

An application sends the same header section again and again, or one that differs in its length
alone. What a `ResponseHead` needs, the check of its fields and its form in HTTP/2 and HTTP/1.1, is
done when it is first met.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from h2log.errors import reason_phrase
from h2log.http2.hpack import encode

__all__ = ["CONNECTION_FIELDS", "ResponseHead", "response_head"]

CONNECTION_FIELDS: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"date",
    )
)
"""What the server says itself, or what HTTP/2 does not have (RFC 9113 section 8.2.2)."""

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_BAD_IN_VALUE: Final = re.compile(rb"[^\t\x20-\x7e\x80-\xff]").search

_MOST: Final = 1024
_MOST_BYTES: Final = 1024
"""Heads that are remembered, and the bytes of the longest: a few megabytes in all."""
_heads: dict[tuple[object, ...], ResponseHead] = {}


class ResponseHead:
    """A response's status and header fields: the log's `ResponseFacts`, and bytes for the wire.

    `fields` have names in lower case, without `CONNECTION_FIELDS`; `length` is the content-length
    that they declare, `block` the HPACK block, to which `date` and `x-request-id` are added.
    """

    __slots__ = ("_headers", "_lines", "block", "fields", "length", "route", "status")

    def __init__(self, status: int, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self.status = status
        self.fields = fields
        self.length = _declared(fields)
        self.route = ""
        """Nothing: an application's routes are its own."""
        # A 204 has no content-length (RFC 9110 section 8.6).
        if status == 204:
            fields = tuple(pair for pair in fields if pair[0] != b"content-length")
        self.block = encode([(b":status", b"%d" % status), *fields])
        self._headers: list[tuple[str, str]] | None = None
        self._lines: bytes | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The fields as texts."""
        if self._headers is None:
            self._headers = [(n.decode("ascii"), v.decode("latin-1")) for n, v in self.fields]
        return self._headers

    @property
    def lines(self) -> bytes:
        """Status line and field lines of HTTP/1.1, each with its end, but for what differs.

        That is `date`, `x-request-id`, `connection` and `transfer-encoding`. Without the reason
        phrase of a status that has none, but with the space before it (RFC 9112 section 4).
        """
        if self._lines is None:
            phrase = reason_phrase(self.status).encode("ascii")
            fields = b"".join(
                b"%b: %b\r\n" % pair
                for pair in self.fields
                if self.status != 204 or pair[0] != b"content-length"
            )
            self._lines = b"HTTP/1.1 %d %b\r\n%b" % (self.status, phrase, fields)
        return self._lines

    def content_length(self) -> int | None:
        """Return the declared length."""
        return self.length


def _declared(fields: tuple[tuple[bytes, bytes], ...]) -> int | None:
    declared = {value for name, value in fields if name == b"content-length"}
    if not declared:
        return None
    if len(declared) > 1:
        raise ValueError(f"several values of content-length: {sorted(declared)!r}")
    [value] = declared
    if not value.isdigit():
        raise ValueError(f"invalid content-length {value!r}")
    return int(value)


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> ResponseHead:
    """Return the head of a response; one like an earlier one is that.

    Raises TypeError for what are no pairs of bytes, ValueError for a status that is not from 101
    to 599, for a field that would not be one line (RFC 9110 section 5.5), and a content-length that
    is none.
    """
    key: tuple[object, ...] = (status, *fields)
    try:
        found = _heads.get(key)
    except TypeError:  # lists for pairs are allowed, and bytearrays for bytes
        key = (status, *map(_hashable, key[1:]))
        found = _heads.get(key)
    if found is not None:
        return found
    if not isinstance(status, int):
        raise TypeError(f"status is {type(status).__name__}, expected int")
    if not 101 <= status <= 599:
        raise ValueError(f"status must be from 101 to 599, got {status}")
    size = 0
    kept = []
    for pair in key[1:]:
        name, value = _checked(pair)
        size += len(name) + len(value)
        if name in CONNECTION_FIELDS or (name == b"content-length" and (name, value) in kept):
            continue
        kept.append((name, value))
    head = ResponseHead(int(status), tuple(kept))
    if size <= _MOST_BYTES:
        if len(_heads) >= _MOST:
            _heads.clear()
        _heads[key] = head
    return head


def _hashable(pair: object) -> object:
    """Return a pair as a tuple of bytes, if that is what it means."""
    if not isinstance(pair, tuple | list):
        raise TypeError(f"a header field is a pair of bytes, not {type(pair).__name__}")
    return tuple(bytes(part) if isinstance(part, bytearray) else part for part in pair)


def _checked(pair: object) -> tuple[bytes, bytes]:
    """Return a field with its name in lower case."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"a header field is a pair of bytes, not {pair!r}")
    name, value = pair
    for part in (name, value):
        if not isinstance(part, bytes):
            raise TypeError(f"a header field is a pair of bytes, not of {type(part).__name__}")
    if not _NAME(name):
        raise ValueError(f"invalid name of a header field {name!r}")
    if _BAD_IN_VALUE(value):
        raise ValueError(f"invalid value of the header field {name.decode('ascii')}: {value!r}")
    return name.lower(), value.strip(b" \t")
