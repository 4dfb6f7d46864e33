"""Lines of every named format, read back. Strict: what no record could have made is refused.

Each parser fills in of a `Line` what its format tells. Texts are those of the wire again, a
character a byte; what was masked reads as the mask. `combined` and its kin write `-` both for a
value that is missing and for one that is a dash or empty, as morgan does; such a one reads as None.
The other formats tell them apart, and the line of a request that arrives from that of its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from h2log.access.full import DASH, FULL_COLUMNS
from h2log.access.jsonread import read_caddy, read_ecs, read_json
from h2log.access.lines import parse, unescape
from h2log.access.parsed import OF_AN_END, Line
from h2log.access.record import Outcome
from h2log.access.stamps import MONTHS

__all__ = ["Line", "parse_line"]


def parse_line(format_name: str, line: str) -> Line:
    """Return what `line`, without its newline, tells; it was written in the named format.

    Raises ValueError with what is wrong with it, and for a note of the log (`is_note` tells it
    apart, `read_note` reads it), KeyError for a format that is none.
    """
    return _PARSERS[format_name](line)


# Columns


def _default(line: str) -> Line:
    read = parse(line)
    return Line(
        event="open" if read.milliseconds is None else "done",
        when=read.when,
        status=read.status,
        milliseconds=read.milliseconds,
        session=read.session,
        request=read.request,
        version=read.version,
        target=read.path,
    )


_NUMBER = re.compile("0|[1-9][0-9]{0,18}").fullmatch
_MILLISECONDS = re.compile(r"(?:0|[1-9][0-9]{0,11})\.[0-9]{3}").fullmatch
_PRINTABLE = re.compile("[\\x20-\\x7e]*").fullmatch


def _number(text: str) -> int:
    if _NUMBER(text) is None:
        raise ValueError(f"expected a number, got {text[:60]!a}")
    return int(text)


def _milliseconds(text: str) -> float:
    if _MILLISECONDS(text) is None:
        raise ValueError(f"expected a number with three decimals, got {text[:60]!a}")
    return float(text)


def _text(text: str) -> str:
    if _PRINTABLE(text) is None:
        raise ValueError("expected printable ASCII, all else escaped")
    return unescape(text)


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"expected yes or no, got {text[:60]!a}")
    return text == "yes"


# Of the columns that `h2log` has not: the name in a Line, and what reads it.
_FULL: Final[tuple[tuple[str, Callable[[str], Any]], ...]] = (
    ("method", _text),
    ("scheme", _text),
    ("authority", _text),
    ("outcome", Outcome),
    ("sequence", _number),
    ("stream", _number),
    ("nth", _number),
    ("active", _number),
    ("headers_ms", _milliseconds),
    ("first_byte_ms", _milliseconds),
    ("stalled_ms", _milliseconds),
    ("blocked_ms", _milliseconds),
    ("received", _number),
    ("sent", _number),
    ("header_received", _number),
    ("header_sent", _number),
    ("client", _text),
    ("port", _number),
    ("alpn", _text),
    ("tls_version", _text),
    ("tls_cipher", _text),
    ("tls_resumed", _yes),
    ("sni", _text),
    ("route", _text),
    ("cache", _text),
    ("condition", _text),
    ("reset_by", _text),
    ("reset_code", _number),
    ("referrer", _text),
    ("user_agent", _text),
    ("user", _text),
    ("traceparent", _text),
    ("request_id", _text),
)


def _full(line: str) -> Line:
    columns = line.split("\t")
    made = _default("\t".join(columns[:7]))
    if len(columns) != len(FULL_COLUMNS):
        raise ValueError(f"line: expected {len(FULL_COLUMNS)} columns, got {len(columns)}")
    for (name, read), title, column in zip(_FULL, FULL_COLUMNS[7:], columns[7:], strict=True):
        if column != "-":
            try:
                setattr(made, name, "-" if column == DASH else read(column))
            except ValueError as error:
                raise ValueError(f"{title}: {error}") from None
    if (made.outcome is None) is not (made.event == "open"):
        raise ValueError("outcome: a request has one if it has milliseconds")
    if made.event == "open":
        for name in OF_AN_END:
            if getattr(made, name) is not None:
                raise ValueError(f"{name}: the request has only arrived")
    return made


# morgan's

_WORD: Final = r"([\x21\x23-\x7e]+)"
_QUOTED: Final = r'"([\x20\x21\x23-\x7e]+)"'
_VERSION: Final = r"HTTP/(3|2\.0|1\.1|1\.0|-)"
_STATUS: Final = "([1-9][0-9]{2}|-)"
_LENGTH: Final = "([0-9]{1,19}|-)"
_TIME: Final = r"((?:0|[1-9][0-9]{0,11})\.[0-9]{3}|-) ms"
_USER: Final = r"([\x20\x21\x23-\x5a\x5c-\x7e]+)"
_DATE: Final = r"\[([0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} \+0000)\]"

_COMMON: Final = f'{_WORD} - {_USER} {_DATE} "{_WORD} {_WORD} {_VERSION}" {_STATUS} {_LENGTH}'
_COMMON_NAMES: Final = (
    *("client", "user", "when", "method", "target", "version", "status", "length"),
)
_SHAPES: Final = {
    "common": (_COMMON, _COMMON_NAMES),
    "combined": (
        f"{_COMMON} {_QUOTED} {_QUOTED}",
        (*_COMMON_NAMES, "referrer", "user_agent"),
    ),
    "dev": (
        rf"(?:\x1b\[0m)?{_WORD} {_WORD} (?:\x1b\[[0-9]+m)?{_STATUS}(?:\x1b\[0m)? {_TIME} - "
        rf"{_LENGTH}(?:\x1b\[0m)?",
        ("method", "target", "status", "headers_ms", "length"),
    ),
    "short": (
        f"{_WORD} {_USER} {_WORD} {_WORD} {_VERSION} {_STATUS} {_LENGTH} - {_TIME}",
        ("client", "user", "method", "target", "version", "status", "length", "headers_ms"),
    ),
    "tiny": (
        f"{_WORD} {_WORD} {_STATUS} {_LENGTH} - {_TIME}",
        ("method", "target", "status", "length", "headers_ms"),
    ),
}
_VERSIONS: Final = {"3": "h3", "2.0": "h2", "1.1": "1.1", "1.0": "1.0", "-": "-"}


def _clf_date(text: str) -> datetime:
    day, month, rest = text.split("/")
    year, hour, minute, second = rest.removesuffix(" +0000").split(":")
    if month not in MONTHS:
        raise ValueError(f"no month {month}")
    return datetime(
        int(year),
        MONTHS.index(month) + 1,
        int(day),
        int(hour),
        int(minute),
        int(second),
        tzinfo=UTC,
    )


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "when": _clf_date,
    "status": int,
    "length": int,
    "headers_ms": float,
}


def _morgan(name: str) -> Callable[[str], Line]:
    shape, names = _SHAPES[name]
    match = re.compile(shape).fullmatch

    def read(line: str) -> Line:
        found = match(line)
        if found is None:
            raise ValueError(f"line: not one of the format {name}: {line[:60]!a}")
        made = Line()
        for key, text in zip(names, found.groups(), strict=True):
            if key == "version":
                made.version = _VERSIONS[text]
            elif text != "-" or key == "target":
                try:
                    setattr(made, key, _READERS.get(key, unescape)(text))
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        return made

    return read


_PARSERS: Final[dict[str, Callable[[str], Line]]] = {
    "h2log": _default,
    "h2log-full": _full,
    **{name: _morgan(name) for name in _SHAPES},
    "json": read_json,
    "ecs": read_ecs,
    "caddy": read_caddy,
}
