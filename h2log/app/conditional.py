"""Conditional and range requests (RFC 9110 sections 13 and 14), as rules without files."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from h2log.app.headers import Headers

__all__ = ["CONDITIONS", "UNSATISFIABLE", "http_time", "precondition", "select_range"]

CONDITIONS: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range")
)
"""The fields that make a GET differ from a plain one."""

_TAG: Final = re.compile(r'\s*(?:,\s*)*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_RANGE: Final = re.compile(
    r"bytes[ \t]*=[ \t]*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))[ \t]*", re.ASCII | re.IGNORECASE
).fullmatch

UNSATISFIABLE: Final = (-1, -1)
"""What `select_range` returns for a range that the content does not have."""


def http_time(text: str) -> int | None:
    """Return an HTTP-date as epoch seconds, None when it is none (RFC 9110 section 5.6.7)."""
    if text.count(",") > 1:  # a list: there is no list of dates (sections 13.1.3 and 13.1.4)
        return None
    try:
        when = parsedate_to_datetime(text)
        return int(when.replace(tzinfo=when.tzinfo or UTC).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def _lists(value: str, etag: str, *, weak: bool) -> bool:
    """Say whether a list of entity tags has `etag`, by weak or strong comparison (8.8.3.2)."""
    if value.strip() == "*":
        return True
    if not weak and etag.startswith("W/"):
        return False
    pos = 0
    while (match := _TAG.match(value, pos)) is not None:
        tag = match[1]
        if (tag.removeprefix("W/") == etag.removeprefix("W/")) if weak else tag == etag:
            return True
        pos = match.end()
    return False


def precondition(headers: Headers, etag: str, modified: int) -> int | None:
    """Return 304 or 412 when a GET or HEAD must not be answered with the content, else None.

    `etag` and `modified` (epoch seconds) are the selected representation's. The order is that of
    RFC 9110 section 13.2.2: If-Match before If-Unmodified-Since, If-None-Match before
    If-Modified-Since, and the tag decides where both of a pair are there.
    """
    match = headers.joined("if-match")
    if match is not None:
        if not _lists(match, etag, weak=False):
            return 412
    elif (value := headers.joined("if-unmodified-since")) is not None:
        since = http_time(value)
        if since is not None and modified > since:
            return 412
    none_match = headers.joined("if-none-match")
    if none_match is not None:
        return 304 if _lists(none_match, etag, weak=True) else None
    if (value := headers.joined("if-modified-since")) is not None:
        since = http_time(value)
        if since is not None and modified <= since:
            return 304
    return None


def select_range(headers: Headers, etag: str, modified: int, length: int) -> tuple[int, int] | None:
    """Return the one range asked for as (first, last), None to send all, or `UNSATISFIABLE`.

    What is no single byte range is ignored, as RFC 9110 section 14.2 allows; so is a range whose
    If-Range names another representation (section 13.1.5), compared strongly.
    """
    value = headers.joined("range")
    if value is None:
        return None
    condition = headers.get("if-range")
    if condition is not None:
        if condition.lstrip().startswith(('"', "W/")):
            if condition.strip() != etag or etag.startswith("W/"):
                return None
        elif http_time(condition) != modified:
            return None
    found = _RANGE(value)
    if found is None:
        return None
    if found[3] is not None:  # the last so many bytes
        count = int(found[3])
        if count == 0 or length == 0:
            return UNSATISFIABLE
        return max(0, length - count), length - 1
    first = int(found[1])
    last = int(found[2]) if found[2] else length - 1
    if found[2] and last < first:
        return None
    if first >= length:
        return UNSATISFIABLE
    return first, min(last, length - 1)
