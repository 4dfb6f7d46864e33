"""What a line shows of a record: the values of `values`, what is secret in them masked.

Every format takes from here whatever a client or a handler put into words: with another
`Redaction` all of them hide something else. A user's name (Basic authentication) is shown though
its header field is secret: it is who asked, and the password beside it is never kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from h2log.access import values
from h2log.access.record import AccessRecord
from h2log.access.redaction import DEFAULT, MASK, Masker, Redaction

__all__ = ["DEFAULT_SHOWN", "Shown", "Value"]

Value = Callable[[AccessRecord], str | None]
"""Returns what a record has of something, None where it has nothing."""

_Text = Callable[[AccessRecord], str]


class Shown:
    """The values of records as a `redaction` lets them be seen. Each is a function of the record.

    They are bound once, for each format that is compiled: a line costs what it has to.
    """

    __slots__ = (
        "authority",
        "client_request_id",
        "path",
        "query",
        "redaction",
        "referrer",
        "target",
        "trace_id",
        "traceparent",
        "user_agent",
    )

    def __init__(self, redaction: Redaction = DEFAULT) -> None:
        self.redaction = redaction
        path = self.path = _path(redaction.url)
        """The request target as it was sent: the path with its query, or nothing."""
        self.authority = _authority(redaction.authority)
        """The host with its port, or nothing."""
        self.target = _target(redaction)
        """The path with its query; of a CONNECT the authority; `-` where none could be read."""
        self.query: Value = lambda record: values.split_target(path(record))[1]
        """What follows the question mark."""
        # It comes by either name.
        name = "referrer" if redaction.hides_header("referrer") else "referer"
        self.referrer = _masked(values.referrer, redaction, name)
        """`referer`, or else `referrer`."""
        self.user_agent = _masked(values.user_agent, redaction, "user-agent")
        self.client_request_id = _masked(values.client_request_id, redaction, "x-request-id")
        self.traceparent = _masked(values.traceparent, redaction, "traceparent")
        self.trace_id = _masked(values.trace_id, redaction, "traceparent")

    def request_field(self, name: str) -> Value:
        """Return the function that returns the request's header field `name` (lower case)."""
        key = name.encode()
        return _masked(lambda record: values.request_field(record, key), self.redaction, name)

    def response_field(self, name: str) -> Value:
        """Return the function that returns the response's header field `name` (lower case)."""
        return _masked(lambda record: values.response_field(record, name), self.redaction, name)


def _path(url: Masker) -> _Text:
    def path(record: AccessRecord) -> str:
        text = record.facts.path
        # As in `Redaction.url`, which it is not worth to call for most.
        return url(text) if "=" in text or "%" in text or "@" in text else text

    return path


def _authority(mask: Masker) -> _Text:
    def authority(record: AccessRecord) -> str:
        text = record.facts.authority
        return mask(text) if "@" in text else text

    return authority


def _target(redaction: Redaction) -> _Text:
    url, authority = redaction.url, redaction.authority

    def target(record: AccessRecord) -> str:
        text = record.facts.path
        if not text:
            return authority(record.facts.authority) or "-"
        return url(text) if "=" in text or "%" in text or "@" in text else text

    return target


def _masked(value: Value, redaction: Redaction, name: str) -> Value:
    """Return `value`, which is the header field `name`, masked."""
    if redaction.hides_header(name):
        return lambda record: MASK if value(record) else value(record)
    mask = redaction.field(name)

    def masked(record: AccessRecord) -> str | None:
        text = value(record)
        if text is None or not ("=" in text or "%" in text or "@" in text):
            return text
        return mask(text)

    return masked


DEFAULT_SHOWN: Final = Shown()
"""As every format shows them unless it is told otherwise."""
