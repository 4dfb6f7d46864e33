"""Conditional and range requests (RFC 9110 sections 13 and 14), as rules without files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from h2log.app.headers import Headers

__all__ = [
    "CONDITIONS",
    "MAX_RANGES",
    "http_time",
    "lists",
    "one_range",
    "place",
    "precondition",
    "select_ranges",
]

CONDITIONS: Final = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range")
)
"""The fields that make a GET differ from a plain one."""

_TAG: Final = re.compile(r'\s*(?:,\s*)*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_UNIT: Final = re.compile(r"bytes[ \t]*=", re.ASCII | re.IGNORECASE).match
_RANGE: Final = re.compile(r"(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.ASCII).fullmatch

MAX_RANGES: Final = 100
"""Ranges of one request; one that asks for more is sent everything (Apache's MaxRanges: 200)."""
_GAP: Final = 80
"""Fewer bytes than this between two ranges cost less than another part (RFC 9110 section 14.2)."""


def http_time(text: str) -> int | None:
    """Return an HTTP-date as epoch seconds, None when it is none (RFC 9110 section 5.6.7)."""
    if text.count(",") > 1:  # a list: there is no list of dates (sections 13.1.3 and 13.1.4)
        return None
    try:
        when = parsedate_to_datetime(text)
        return int(when.replace(tzinfo=when.tzinfo or UTC).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def lists(value: str, etag: str, *, weak: bool = False) -> bool:
    """Say whether a list of entity tags has `etag`, by strong or weak comparison.

    `*` has every tag (RFC 9110 sections 8.8.3.2, 13.1.1 and 13.1.2).
    """
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


def precondition(headers: Headers, etag: str, modified: int | None) -> int | None:
    """Return 304 or 412 when a GET or HEAD must not be answered with the content, else None.

    `etag` and `modified` (epoch seconds) are the selected representation's; without a date the
    conditions on dates are ignored (RFC 9110 sections 13.1.3 and 13.1.4). The order is that of
    section 13.2.2: If-Match before If-Unmodified-Since, If-None-Match before If-Modified-Since, and
    the tag decides where both of a pair are there.
    """
    match = headers.joined("if-match")
    if match is not None:
        if not lists(match, etag):
            return 412
    elif (value := headers.joined("if-unmodified-since")) is not None:
        since = http_time(value)
        if since is not None and modified is not None and modified > since:
            return 412
    none_match = headers.joined("if-none-match")
    if none_match is not None:
        return 304 if lists(none_match, etag, weak=True) else None
    if (value := headers.joined("if-modified-since")) is not None:
        since = http_time(value)
        if since is not None and modified is not None and modified <= since:
            return 304
    return None


def _asked_ranges(
    headers: Headers, etag: str, modified: int | None, now: float | None
) -> list[re.Match[str]] | None:
    """Return the byte ranges that are asked for, None when all is to be sent.

    What is no list of byte ranges is ignored, as RFC 9110 section 14.2 allows; so are ranges whose
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
        elif modified is None or http_time(condition) != modified:
            return None
        elif now is not None and modified > now - 1:
            return None  # it may change again within that second: no strong date (8.8.2.2)
    unit = _UNIT(value)
    if unit is None:
        return None
    asked: list[re.Match[str]] = []
    for element in value[unit.end() :].split(","):
        text = element.strip(" \t")
        if not text:  # an empty element of a list is nothing (section 5.6.1.2)
            continue
        spec = _RANGE(text)
        if spec is None or len(asked) == MAX_RANGES:
            return None
        if spec[2] and int(spec[2]) < int(spec[1]):
            return None  # invalid, and the whole set with it (section 14.1.2)
        asked.append(spec)
    return asked or None


def one_range(fields: Iterable[tuple[bytes, bytes]]) -> re.Match[str] | None:
    """Return the one byte range that a request asks for, without any other condition; else None.

    What part of a content that is, `place` tells.
    """
    found = None
    for name, value in fields:
        if name in CONDITIONS or name == b"if-range":
            if name != b"range" or found is not None:
                return None
            found = value
    if found is None:
        return None
    asked = _asked_ranges(Headers(((b"range", found),)), "", None, None)
    return asked[0] if asked is not None and len(asked) == 1 else None


def place(spec: re.Match[str], length: int) -> tuple[int, int] | None:
    """Return the first and the last byte of a range, None when the content has nothing of it."""
    if spec[3] is not None:  # the last so many bytes
        count = int(spec[3])
        return (max(0, length - count), length - 1) if count and length else None
    first = int(spec[1])
    last = int(spec[2]) if spec[2] else length - 1
    return (first, min(last, length - 1)) if first < length else None


def select_ranges(
    headers: Headers, etag: str, modified: int | None, length: int, now: float | None = None
) -> list[tuple[int, int]] | None:
    """Return the ranges asked for as (first, last), None to send all; none at all is a 416.

    Those that overlap, or nearly touch, are one; the others keep the order in which they were asked
    for (RFC 9110 sections 14.2 and 15.3.7.2). A set of more than `MAX_RANGES` is ignored, and so is
    every set where there is no content: all of nothing is an answer, and no reason for an error.
    `now` (epoch seconds) lets a date in If-Range count only once it cannot be another version's
    too.
    """
    asked = _asked_ranges(headers, etag, modified, now) if length else None
    if asked is None:
        return None
    found = [span for spec in asked if (span := place(spec, length)) is not None]
    merged: list[list[int]] = []  # first, last, and the place in which it was asked for
    for (first, last), order in sorted(zip(found, range(len(found)), strict=True)):
        if merged and first <= merged[-1][1] + _GAP:
            merged[-1][1] = max(merged[-1][1], last)
            merged[-1][2] = min(merged[-1][2], order)
        else:
            merged.append([first, last, order])
    merged.sort(key=lambda one: one[2])
    return [(first, last) for first, last, _ in merged]
