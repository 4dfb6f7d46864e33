"""Tokens: what `:name` and `:name[argument]` stand for in a format string.

A token is bound to its argument once, when its format is compiled; what comes out is a function of
the record that returns its text, escaped, or `-`. morgan's tokens mean what they mean there:
`:date` is when the line is made (the request's end), `:response-time` ends at the response's
header, both it and `:total-time` are missing without a response. `:event` is `open` in the line of
a request that arrives, which has nothing of an end, and `done` in that of one that has ended.

Escaping: texts as for a quoted column; those that stand bare in every format, and have no space
where they are valid (method, URL, host), without spaces, so that such a line comes apart again.
What is secret in them is masked (see `redaction`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, tzinfo
from difflib import get_close_matches
from typing import Final

from h2log.access.own import FAILED, failed, takes
from h2log.access.record import UNKNOWN, AccessRecord, Detail
from h2log.access.shown import DEFAULT_SHOWN, Shown, Value
from h2log.access.stamps import date_stamp
from h2log.access.text import quoted, word
from h2log.access.values import HTTP_VERSIONS, remote_user, route, split_target
from h2log.errors import UsageError

__all__ = ["Text", "TokenFunction", "bind", "suggestion", "token", "token_names"]

Text = Callable[[AccessRecord], str]
"""Returns what stands in the line: escaped, never empty."""

TokenFunction = Callable[[AccessRecord, str | None], object] | Callable[[AccessRecord], object]
"""An application's token: the record, and the argument if it takes one, in; text or None out."""

_Binder = Callable[[str | None, tzinfo, Shown], Text]

_NAME = re.compile(r"[-\w]{2,}", re.ASCII).fullmatch
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_NO_DETAIL: Final = Detail()
_MAX_DIGITS: Final = 9
"""Nanoseconds of a second: the clock has no more, and milliseconds less."""


def token(name: str, function: TokenFunction) -> None:
    """Define `:name`, or replace it, for every format that is compiled from now on.

    `function(record, argument)`, or `function(record)` for a token without an argument, returns
    the text, which is escaped, or None for `-`; what is no text is turned into one. It is given the
    record as it is, and masks what is secret itself (see `redaction`). When it raises, the
    exception's name stands there (`!KeyError`): a request has its line whatever an application's
    token does; see `own`. Raises UsageError for a bad name, and for a function that cannot be
    called so.
    """
    if _NAME(name) is None:
        raise UsageError(
            f"bad token name {name!r}: two or more letters, digits, - or _, without the colon"
        )

    what = f"token :{name}"
    call: Callable[..., object] = function
    alone = takes(call, what, ("record", "argument"), ("record",)) == 1

    def binder(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
        if alone:
            _no_argument(argument)
        rest = () if alone else (argument,)

        def text(record: AccessRecord) -> str:
            try:
                value = call(record, *rest)
                if value is None:
                    return "-"
                return quoted(value if type(value) is str else str(value)) or "-"
            except FAILED as error:
                failed(what, error)
                return f"!{type(error).__name__}"

        return text

    _binders[name] = binder


def token_names() -> list[str]:
    """Return the names of all tokens, sorted."""
    return sorted(_binders)


def bind(name: str, argument: str | None, zone: tzinfo = UTC, shown: Shown = DEFAULT_SHOWN) -> Text:
    """Return the function of a token with its argument.

    `zone` is what dates are told in, `shown` has the values as they may be seen.
    Raises KeyError for an unknown token, ValueError with the reason for a bad argument.
    """
    return _binders[name](argument, zone, shown)


def suggestion(word: str, names: list[str], mark: str = "") -> str:
    """Return `, did you mean …?` with the names near `word`, or nothing when none is."""
    near = [f"{mark}{name}" for name in get_close_matches(word.lower(), names, 3, 0.6)]
    if not near:
        return ""
    *others, last = near
    return f", did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


# How a token's function is made


def _bare(text: Text) -> _Binder:
    """Return the binder of a token without an argument whose text is as it shall be."""

    def binder(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
        _no_argument(argument)
        return text

    return binder


def _shown(pick: Callable[[Shown], Value], escape: Callable[[str], str]) -> _Binder:
    """Return the binder of a token without an argument for one of the values that are shown."""

    def binder(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
        _no_argument(argument)
        return _escaped(pick(shown), escape)

    return binder


def _no_argument(argument: str | None) -> None:
    if argument is not None:
        raise ValueError("it takes no argument")


def _escaped(value: Value, escape: Callable[[str], str]) -> Text:
    def text(record: AccessRecord) -> str:
        found = value(record)
        return escape(found) if found else "-"

    return text


def _quoted(value: Value) -> _Binder:
    return _bare(_escaped(value, quoted))


def _word(value: Value) -> _Binder:
    return _bare(_escaped(value, word))


def _user(value: str) -> str:
    # It stands before the date's bracket, which readers of the common log format look for.
    return quoted(value).replace("[", "\\x5B")


def _milliseconds(value: Callable[[AccessRecord], float | None]) -> _Binder:
    def binder(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
        digits = "3" if argument is None else argument
        if not (digits.isascii() and digits.isdigit() and int(digits) <= _MAX_DIGITS):
            raise ValueError(f"expected a number of digits, from 0 to {_MAX_DIGITS}")
        form = f".{int(digits)}f"

        def text(record: AccessRecord) -> str:
            found = value(record)
            return "-" if found is None else format(found, form)

        return text

    return binder


def _date(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
    stamp = date_stamp(argument, zone)
    # The end; of a request that is open, its start.
    return lambda record: stamp(record.wall + (record.end - record.start))


def _start(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
    stamp = date_stamp(argument, zone)
    return lambda record: stamp(record.wall)


def _field(argument: str | None) -> str:
    if argument is None:
        raise ValueError("it needs the name of a header field in brackets")
    if _FIELD_NAME(argument) is None:
        raise ValueError("expected the name of a header field")
    return argument.lower()


def _request_header(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
    return _escaped(shown.request_field(_field(argument)), quoted)


def _response_header(argument: str | None, zone: tzinfo, shown: Shown) -> Text:
    return _escaped(shown.response_field(_field(argument)), quoted)


# The built-in ones


def _total(record: AccessRecord) -> float | None:
    return record.milliseconds if record.status and record.outcome is not None else None


def _duration(record: AccessRecord) -> float | None:
    return record.milliseconds if record.outcome is not None else None


def _detail(record: AccessRecord) -> Detail:
    return record.detail or _NO_DETAIL


def _waited(record: AccessRecord, seconds: float) -> float | None:
    return None if record.outcome is None or seconds == UNKNOWN else seconds * 1000


def _stalled(record: AccessRecord) -> float | None:
    return _waited(record, _detail(record).stalled)


def _blocked(record: AccessRecord) -> float | None:
    return _waited(record, _detail(record).blocked)


def _count(value: Callable[[AccessRecord], int]) -> _Binder:
    """Return the binder of what counts until the end."""
    return _bare(lambda record: "-" if record.outcome is None else _counted(value(record)))


def _counted(number: int) -> str:
    return "-" if number == UNKNOWN else str(number)


def _reset_code(record: AccessRecord) -> str:
    code = _detail(record).reset_code
    return "-" if code is None else str(int(code))


def _tls(name: str) -> _Binder:
    """Return the binder of a field of the session's TLS facts."""

    def value(record: AccessRecord) -> str | None:
        tls = record.session.tls
        found = None if tls is None else getattr(tls, name)
        return str(found).lower() if type(found) is bool else found

    return _word(value)


_binders: Final[dict[str, _Binder]] = {
    # morgan's
    "date": _date,
    "http-version": _bare(lambda record: HTTP_VERSIONS.get(record.protocol, "-")),
    "method": _word(lambda record: record.facts.method),
    "pid": _bare(lambda record: str(os.getpid())),
    "referrer": _shown(lambda shown: shown.referrer, quoted),
    "remote-addr": _bare(lambda record: record.client[0] or "-"),
    "remote-user": _bare(_escaped(remote_user, _user)),
    "req": _request_header,
    "res": _response_header,
    "response-time": _milliseconds(lambda record: record.headers_milliseconds),
    "status": _bare(lambda record: str(record.status or "-")),
    "total-time": _milliseconds(_total),
    "url": _shown(lambda shown: shown.target, word),
    "user-agent": _shown(lambda shown: shown.user_agent, quoted),
    # when and how long
    "start": _start,
    "duration": _milliseconds(_duration),
    "ttfb": _milliseconds(lambda record: record.first_byte_milliseconds),
    "stall": _milliseconds(_stalled),
    "blocked": _milliseconds(_blocked),
    # which
    "session": _bare(lambda record: record.session.id),
    "id": _bare(lambda record: record.id),
    "stream": _bare(lambda record: _counted(record.stream_id)),
    "nth": _bare(lambda record: str(record.nth)),
    "active": _bare(lambda record: str(record.active)),
    "sequence": _bare(lambda record: str(record.sequence or "-")),
    "request-id": _shown(lambda shown: shown.client_request_id, quoted),
    "traceparent": _shown(lambda shown: shown.traceparent, quoted),
    "trace-id": _shown(lambda shown: shown.trace_id, quoted),
    # what was asked
    "scheme": _word(lambda record: record.facts.scheme),
    "authority": _shown(lambda shown: shown.authority, word),
    "path": _shown(lambda shown: lambda record: split_target(shown.path(record))[0], word),
    "query": _shown(lambda shown: shown.query, word),
    "protocol": _bare(lambda record: record.protocol),
    "route": _word(route),
    # what became of it
    "event": _bare(lambda record: "open" if record.outcome is None else "done"),
    "outcome": _bare(lambda record: "-" if record.outcome is None else record.outcome.value),
    "reset-by": _bare(lambda record: _detail(record).reset_by or "-"),
    "reset-code": _bare(_reset_code),
    "bytes-received": _count(lambda record: record.received),
    "bytes-sent": _count(lambda record: record.sent),
    "header-bytes-received": _bare(lambda record: _counted(record.header_received)),
    "header-bytes-sent": _count(lambda record: record.header_sent),
    "cache": _quoted(lambda record: record.cache),
    "condition": _quoted(lambda record: record.condition),
    # by which connection
    "client-port": _bare(lambda record: str(record.session.port or "-")),
    "alpn": _word(lambda record: record.session.alpn),
    "tls-version": _tls("version"),
    "tls-cipher": _tls("cipher"),
    "tls-resumed": _tls("resumed"),
    "sni": _tls("sni"),
}
