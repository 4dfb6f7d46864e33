"""Patterns of paths, the values that they take out, and the one spelling paths are compared in.

A pattern is `/` and segments between slashes. A segment is plain text, or `{name}`, or
`{name:converter}` for a value of a type. These are there; an application adds its own:

| converter | a segment that is | value |
|---|---|---|
| `str` | not empty | str (`{name}` means `{name:str}`) |
| `int` | ASCII digits, perhaps after a minus | int |
| `float` | the same, perhaps with a point and digits, and finite | float |
| `uuid` | 32 hex digits, perhaps with the usual hyphens | uuid.UUID |
| `path` | one or more whole segments | str with slashes |

The value of a `path` is fit to be joined to a folder: it does not begin with a slash, has no `.` or
`..` between slashes (or backslashes) and no NUL, however these are coded. Other values are what was
sent, percent coding undone: a `str` may be `..` or have a slash in it that was sent as `%2F`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

from h2log.errors import UsageError

__all__ = [
    "CONVERTERS",
    "OWN_RANK",
    "PATH",
    "STR",
    "Converter",
    "Pattern",
    "RouteError",
    "canonical",
    "covers",
    "decoded",
    "parse_pattern",
    "parse_prefix",
]


class RouteError(UsageError, ValueError):
    """A route, folder, mount or error handler that cannot be: the message names it and its place.

    It is a ValueError for the code that registers, and one line and exit code 2 for the person who
    starts a server with it.
    """


# The one spelling

_SAFE: Final = "!$&'()*+,;=:@~"
"""What stands for itself in a segment beside letters, digits and `-._` (pchar, RFC 3986 section
3.3)."""
_IS_CANONICAL: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*").fullmatch


def canonical(path: str, encoding: str = "latin-1") -> str:
    """Return a path in the one spelling that equivalent paths share (RFC 3986 section 6.2.2).

    Percent coding is undone and done anew, so that what needs none has none, and what is left has
    upper-case digits; an encoded slash stays coded, since it does not part segments. Dot segments
    and empty ones stay: they are segments like any other. `path` is as it was sent, a character a
    byte; a pattern's text has the encoding `utf-8`.
    """
    if _IS_CANONICAL(path):
        return path
    raw = path.encode(encoding, "replace")
    return "/".join([quote(unquote_to_bytes(part), safe=_SAFE) for part in raw.split(b"/")])


def decoded(part: str) -> str:
    """Return a part of a path as text: percent coding undone, as UTF-8, what is none as U+FFFD."""
    if "%" not in part and part.isascii():
        return part
    return unquote_to_bytes(part.encode("latin-1", "replace")).decode("utf-8", "replace")


def covers(prefix: str, path: str) -> bool:
    """Say whether a canonical path is at or below a canonical prefix, which has no last slash."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


# Converters


@dataclass(frozen=True, slots=True)
class Converter:
    """A kind of value.

    `convert` makes it of a segment's text and raises ValueError for a text that is none: the
    pattern then does not match. `rank` orders the kinds that stand at one place: the least is tried
    first.
    """

    name: str
    convert: Callable[[str], Any]
    rank: int


_INT: Final = re.compile(r"-?[0-9]+").fullmatch
_FLOAT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?").fullmatch
_UUID: Final = re.compile(
    r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
).fullmatch
_LEADS_OUT: Final = re.compile(r"\A[/\\]|\0|(?:\A|[/\\])\.\.?(?:[/\\]|\Z)").search


def _int(text: str) -> int:
    # What Python takes besides: spaces, underscores, a plus, digits of other scripts.
    if _INT(text) is None:
        raise ValueError("no integer")
    return int(text)  # ValueError past Python's own limit of digits


def _float(text: str) -> float:
    value = float(text) if _FLOAT(text) is not None else math.inf
    if not math.isfinite(value):
        raise ValueError("no number")
    return value


def _uuid(text: str) -> UUID:
    if _UUID(text) is None:
        raise ValueError("no UUID")
    return UUID(text)


def _path(text: str) -> str:
    if _LEADS_OUT(text):
        raise ValueError("leads out of its folder")
    return text


OWN_RANK: Final = 3
"""Rank of an application's own converters: after those of one form, before any text."""
PATH: Final = Converter("path", _path, 5)
"""The one converter that takes several segments."""
STR: Final = Converter("str", str, 4)
"""The converter that leaves a text as it is."""
CONVERTERS: Final[Mapping[str, Converter]] = {
    "uuid": Converter("uuid", _uuid, 0),
    "int": Converter("int", _int, 1),
    "float": Converter("float", _float, 2),
    "str": STR,
    "path": PATH,
}
"""The converters of every application, by name."""


# Patterns

Segment = str | Converter
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_][A-Za-z0-9_]*))?\}")
_NEVER_IN_A_PATH: Final = re.compile(r"[?#\x00-\x1f\x7f]").search


class Pattern(NamedTuple):
    """A pattern, taken apart.

    `text` is what was written; `segments` are canonical texts and converters; `names` are those of
    the values, in order.
    """

    text: str
    segments: tuple[Segment, ...]
    names: tuple[str, ...]

    @property
    def fixed(self) -> str | None:
        """The one canonical path that matches, None when there is more than one."""
        if self.names:
            return None
        return "/" + "/".join([part for part in self.segments if isinstance(part, str)])


def parse_pattern(text: str, converters: Mapping[str, Converter]) -> Pattern:
    """Return the pattern that `text` is. Raises RouteError for what is none."""
    _check_path("route", text)
    names: list[str] = []
    segments = tuple(_segments(text, converters, names))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RouteError(f"route {text!r} has the parameter {twice!r} twice; name them differently")
    if segments.count(PATH) > 1:
        raise RouteError(f"route {text!r} has two paths; where the first ends cannot be known")
    return Pattern(text, segments, tuple(names))


def _segments(
    text: str, converters: Mapping[str, Converter], names: list[str]
) -> Iterator[Segment]:
    for part in text[1:].split("/"):
        parameter = _PARAMETER.fullmatch(part)
        if parameter is not None:
            names.append(parameter[1])
            kind = parameter[2] or "str"
            if kind not in converters:
                raise RouteError(
                    f"route {text!r}: no converter {kind!r}; there are "
                    f"{', '.join(sorted(converters))}; App.converter adds one"
                )
            yield converters[kind]
        elif "{" in part or "}" in part:
            raise RouteError(
                f"route {text!r}: a part is plain, {{name}} or {{name:converter}}, not {part!r}"
            )
        else:
            yield canonical(part, "utf-8")


def parse_prefix(what: str, text: str) -> str:
    """Return a path without parameters as a canonical prefix, which has no last slash: "" for `/`.

    `what` names its use for the message. Raises RouteError for a path that is none, that has a
    parameter, or an empty part.
    """
    _check_path(what, text)
    if "{" in text or "}" in text:
        raise RouteError(f"{what} {text!r} cannot have parameters; name a plain path")
    prefix = text.removesuffix("/")
    if "//" in prefix + "/":
        raise RouteError(f"{what} {text!r} has an empty part; a single slash parts two")
    return canonical(prefix, "utf-8")


def _check_path(what: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what}: a path is text, not {type(text).__name__}")
    if not text.startswith("/"):
        raise RouteError(f"{what} {text!r} must begin with /")
    if _NEVER_IN_A_PATH(text):
        raise RouteError(f"{what} {text!r}: no path has a query, a fragment or a control character")
