"""A line of the log, read back: what it told of a request."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from h2log.access.record import Outcome

__all__ = ["OF_AN_END", "Line"]

Event = Literal["open", "done"]


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a line tells of a request; None is what it does not tell, or what was not there.

    `when` is the start of the request, of morgan's formats its end. `session` and `request` are our
    ids, `request_id` the client's `x-request-id`. `target` is the path with its query, of a CONNECT
    the authority, `-` when none could be read. `length` is the response's content-length.

    `event` is `open` for a line that was written when its request arrived, `done` for one of a
    request that has ended; None where the format does not tell them apart (morgan's).
    """

    event: Event | None = None
    when: datetime | None = None
    status: int | None = None
    milliseconds: float | None = None
    session: str | None = None
    request: str | None = None
    version: str | None = None
    target: str | None = None
    method: str | None = None
    scheme: str | None = None
    authority: str | None = None
    outcome: Outcome | None = None
    sequence: int | None = None
    stream: int | None = None
    nth: int | None = None
    active: int | None = None
    headers_ms: float | None = None
    first_byte_ms: float | None = None
    stalled_ms: float | None = None
    blocked_ms: float | None = None
    received: int | None = None
    sent: int | None = None
    header_received: int | None = None
    header_sent: int | None = None
    length: int | None = None
    client: str | None = None
    port: int | None = None
    alpn: str | None = None
    tls_version: str | None = None
    tls_cipher: str | None = None
    tls_resumed: bool | None = None
    sni: str | None = None
    route: str | None = None
    cache: str | None = None
    condition: str | None = None
    reset_by: str | None = None
    reset_code: int | None = None
    referrer: str | None = None
    user_agent: str | None = None
    user: str | None = None
    traceparent: str | None = None
    request_id: str | None = None


OF_AN_END: Final = (
    *("status", "milliseconds", "outcome", "headers_ms", "first_byte_ms", "stalled_ms"),
    *("blocked_ms", "received", "sent", "header_sent", "length", "route", "cache", "condition"),
    *("reset_by", "reset_code"),
)
"""The fields that the line of an open request does not have."""
