r"""`h2log-full`: all that is known of a request, tab separated; it begins as `h2log` does.

A file begins with `HEADER`, which names the columns. `-` is what is not known or was not
sent; a value that is itself a dash stands as `\x2D`, one that is empty as nothing. A request that
has only arrived has no outcome, no milliseconds, and nothing else of its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from h2log.access.lines import COLUMNS, escape
from h2log.access.record import UNKNOWN, AccessRecord, Detail
from h2log.access.shown import DEFAULT_SHOWN, Shown
from h2log.access.stamps import iso
from h2log.access.values import remote_user, route

__all__ = ["DASH", "FULL_COLUMNS", "HEADER", "full_line"]

FULL_COLUMNS: Final = (
    *COLUMNS,
    "method",
    "scheme",
    "authority",
    "outcome",
    "sequence",
    "stream",
    "nth",
    "active",
    "headers-ms",
    "first-byte-ms",
    "stalled-ms",
    "blocked-ms",
    "bytes-received",
    "bytes-sent",
    "header-bytes-received",
    "header-bytes-sent",
    "client",
    "client-port",
    "alpn",
    "tls-version",
    "tls-cipher",
    "tls-resumed",
    "sni",
    "route",
    "cache",
    "condition",
    "reset-by",
    "reset-code",
    "referrer",
    "user-agent",
    "user",
    "traceparent",
    "request-id",
)
"""The names of the columns, in order; `request` is our id, `request-id` the incoming one."""

HEADER: Final = f"#Fields: {' '.join(FULL_COLUMNS)}\n"
"""The first line of a file, as in the W3C's extended log format."""

DASH: Final = "\\x2D"


def _known(text: str | None) -> str:
    """Return a column's text: `-` for None."""
    if text is None:
        return "-"
    return escape(text) if text != "-" else DASH


def _given(text: str) -> str:
    """Return a column's text: `-` for nothing."""
    return _known(text) if text else "-"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _waited(seconds: float) -> str:
    return "-" if seconds == UNKNOWN else f"{seconds * 1000:.3f}"


def _counted(number: int) -> str:
    return "-" if number == UNKNOWN else str(number)


def full_line(shown: Shown = DEFAULT_SHOWN) -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record."""
    stamp = iso()
    no_detail = Detail()
    target, authority = shown.target, shown.authority
    referrer, user_agent = shown.referrer, shown.user_agent
    traceparent, client_request_id = shown.traceparent, shown.client_request_id

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        client, port = record.client
        tls = session.tls
        if tls is None:
            security = "-\t-\t-\t-"
        else:
            security = (
                f"{_given(tls.version)}\t{_given(tls.cipher)}\t"
                f"{'yes' if tls.resumed else 'no'}\t{_given(tls.sni)}"
            )
        outcome = record.outcome
        if outcome is None:
            took, how, sent, became = "-\t-", "-\t-\t-\t-\t-\t-", "-", "-\t-\t-\t-\t-"
        else:
            detail = record.detail or no_detail
            code = detail.reset_code
            took = f"{record.status or '-'}\t{(record.end - record.start) * 1000:.3f}"
            how = (
                f"{_milliseconds(record.headers_milliseconds)}\t"
                f"{_milliseconds(record.first_byte_milliseconds)}\t"
                f"{_waited(detail.stalled)}\t{_waited(detail.blocked)}\t"
                f"{record.received}\t{record.sent}"
            )
            sent = _counted(record.header_sent)
            became = (
                f"{_known(route(record))}\t{_given(record.cache)}\t{_given(record.condition)}\t"
                f"{detail.reset_by or '-'}\t{'-' if code is None else int(code)}"
            )
        return (
            f"{stamp(record.wall)}\t{took}\t{session.id}\t{record.id}\t"
            f"{record.protocol}\t{escape(target(record))}\t"
            f"{_given(facts.method)}\t{_given(facts.scheme)}\t{_given(authority(record))}\t"
            f"{'-' if outcome is None else outcome.value}\t{record.sequence or '-'}\t"
            f"{_counted(record.stream_id)}\t{record.nth}\t{record.active}\t"
            f"{how}\t{_counted(record.header_received)}\t{sent}\t"
            f"{client or '-'}\t{port or '-'}\t{_given(session.alpn)}\t"
            f"{security}\t{became}\t"
            f"{_known(referrer(record))}\t{_known(user_agent(record))}\t"
            f"{_known(remote_user(record))}\t{_known(traceparent(record))}\t"
            f"{_known(client_request_id(record))}\n"
        )

    return line
