"""Values against the tree: every problem in them, each with its key's full name.

msgspec stops at the first problem and knows no units, so the tree is walked here, and msgspec
decides about each value.
"""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from h2log.config.settings import Settings
from h2log.config.units import duration, size
from h2log.errors import UsageError

__all__ = [
    "Check",
    "Problem",
    "all_keys",
    "check",
    "element_of",
    "extra_of",
    "fields_of",
    "plain_kind",
    "shown",
]

Check = Callable[..., object]
"""Takes a text of the settings; raises UsageError or ValueError when it cannot be used."""

_FORMS: Final = {
    "size": 'bytes or a size such as "64KB"',
    "duration": 'seconds or a duration such as "10s"',
}
_SHOWN: Final = 100
"""Characters of a wrong value that an error repeats."""


class Problem(NamedTuple):
    """What is wrong with the value of a key."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


def check(
    values: object,
    *,
    checks: Mapping[str, Check] | None = None,
    spread: bool = False,
    complete: bool = True,
) -> tuple[dict[str, Any], list[Problem]]:
    """Return nested `values` with units as numbers, and every problem in them.

    `checks` has what compiles texts, by name: `format`, `session format`, `skip`, `rotate.every`,
    `rotate.name`, `rotate.keep`, `rotate.timezone`, `network`, `budget` (a name in
    `limits.budgets`); for `output`, which takes more than a text, see `conflicts`. With `spread`, a
    table may stand for every table of a list. Without `complete`, what has no default may be
    absent.
    """
    walk = _Walk(checks or {}, spread, complete)
    plain = walk.table(values, Settings, "")
    return plain, walk.problems


class _Walk:
    def __init__(self, checks: Mapping[str, Check], spread: bool, complete: bool) -> None:
        self._checks = checks
        self._spread = spread
        self._complete = complete
        self.problems: list[Problem] = []

    def _complain(self, key: str, text: str) -> None:
        self.problems.append(Problem(key, text))

    def table(self, value: object, kind: type[msgspec.Struct], key: str) -> dict[str, Any]:
        """Return the plain values of a table."""
        if not isinstance(value, dict):
            self._complain(key, f"expected a table, got {shown(value)}")
            return {}
        fields = {field.encode_name: field for field in fields_of(kind)}
        plain = {}
        for name, item in value.items():
            full = _join(key, name)
            if name in fields:
                plain[name] = self.value(item, fields[name].type, full)
            else:
                self._complain(full, f"unknown key; {_instead(key, str(name), list(fields))}")
        if self._complete:
            for name, field in fields.items():
                if field.required and name not in value:
                    self._complain(_join(key, name), "is missing")
        return plain

    def value(self, value: object, kind: Any, key: str) -> Any:
        """Return the plain value of a key of type `kind`."""
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.table(value, kind, key)
        element = element_of(kind)
        if element is None:
            return self._leaf(value, kind, key)
        if get_origin(kind) is dict:
            return self._named_tables(value, element, key)
        if self._spread and isinstance(value, dict):
            return self.table(value, element, key)
        if not isinstance(value, list | tuple):
            self._complain(key, f"expected a list of tables ([[{key}]]), got {shown(value)}")
            return []
        return [self.table(item, element, f"{key}[{n}]") for n, item in enumerate(value)]

    def _named_tables(
        self, value: object, element: type[msgspec.Struct], key: str
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._complain(key, f"expected a table, got {shown(value)}")
            return {}
        plain = {}
        for name, item in value.items():
            full = _join(key, name)
            if self._compiles("budget", str(name), full):
                plain[name] = self.table(item, element, full)
        return plain

    def _leaf(self, value: object, kind: Any, key: str) -> Any:
        extra = extra_of(kind)
        plain = _without_unit(value, extra.get("unit", ""))
        try:
            plain = msgspec.convert(plain, kind, strict=True)
        except msgspec.ValidationError as error:
            self._complain(key, f"{_expected(str(error), kind, extra, plain)}, got {shown(value)}")
            return plain
        if isinstance(plain, float) and math.isinf(plain):
            self._complain(key, f"expected a finite number, got {shown(value)}")
        if isinstance(plain, str):
            if "\0" in plain:
                self._complain(key, f"holds a NUL character, got {shown(value)}")
            elif plain:
                self._compiles(extra.get("check", ""), plain, key)
        elif isinstance(plain, tuple):
            for n, item in enumerate(plain):
                self._compiles(extra.get("check", ""), item, f"{key}[{n}]")
        return plain

    def _compiles(self, name: str, text: str, key: str) -> bool:
        compile_ = self._checks.get(name)
        if compile_ is not None:
            try:
                compile_(text)
            except (UsageError, ValueError) as error:
                self._complain(key, " ".join(str(error).split()).removeprefix(f"{name}: "))
                return False
        return True


def _without_unit(value: object, unit: str) -> object:
    if isinstance(value, str):
        try:
            if unit == "size":
                return size(value)
            if unit == "duration":
                return duration(value)
        except ValueError:
            pass
    return value


def _expected(complaint: str, kind: Any, extra: Mapping[str, str], plain: object) -> str:
    """Return what a value should have been, from msgspec's complaint and what the tree knows."""
    if "expected" in extra:
        return f"expected {extra['expected']}"
    choices = [choice for choice in get_args(plain_kind(kind)) if isinstance(choice, str)]
    if get_origin(plain_kind(kind)) is Literal:
        return f"expected one of {', '.join(choices)}"
    # A text that had a unit would be a number by now.
    number = isinstance(plain, int | float) and not isinstance(plain, bool)
    if "unit" in extra and not number:
        return f"expected {_FORMS[extra['unit']]}"
    text = complaint.partition(" - at `")[0].partition(", got ")[0].replace("`", "")
    text = re.sub(r"str of length >= 1$", "a text", text)
    return text.replace("Expected", "expected", 1)


def _join(key: str, name: object) -> str:
    text = str(name) if re.fullmatch(r"[\w-]+", str(name), re.ASCII) else shown(name)
    return f"{key}.{text}" if key else text


def _instead(table: str, name: str, siblings: list[str]) -> str:
    """Return the advice for an unknown key: the nearest known one, or those that are known."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), siblings, 1)
    if near:
        return f"did you mean {_join(table, near[0]) if table else near[0]}?"
    # The right name in the wrong table; else one that is spelled like it, anywhere.
    keys = {key: key.rpartition(".")[2] for key in all_keys()}
    wanted = difflib.get_close_matches(name.lower(), list(keys.values()), 1, 0.8)
    if wanted:
        return f"did you mean {next(key for key, last in keys.items() if last == wanted[0])}?"
    return f"there are {', '.join(siblings)}"


@cache
def fields_of(table: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a table: msgspec would work their types out anew each time."""
    return msgspec.structs.fields(table)


def all_keys(kind: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield every key of the tree in its order, tables too; `[]` stands for a list's tables."""
    for field in fields_of(kind):
        key = f"{prefix}{field.encode_name}"
        yield key
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from all_keys(field.type, f"{key}.")
        elif get_origin(field.type) is tuple:
            yield from all_keys(get_args(field.type)[0], f"{key}[].")


def element_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the table of a list of tables, or of a table of tables; None for anything else."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return arguments[0]  # type: ignore[no-any-return]  # the tree has no other tuples
    if origin is dict and isinstance(arguments[1], type):
        return arguments[1] if issubclass(arguments[1], msgspec.Struct) else None
    return None


def plain_kind(kind: Any) -> Any:
    """Return a type without its annotations; for a union, its parts' as well."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(plain_kind(part) for part in get_args(kind))]  # noqa: UP007 - of a tuple
    return kind


def extra_of(kind: Any) -> Mapping[str, str]:
    """Return what the tree knows of a type besides its constraints."""
    found: dict[str, str] = {}
    if get_origin(kind) is Annotated:
        for meta in get_args(kind)[1:]:
            if isinstance(meta, msgspec.Meta) and meta.extra:
                found.update(meta.extra)
    return found


def shown(value: object) -> str:
    """Return a value as its person wrote it, or nearly, and not more than fits in a line."""
    if isinstance(value, datetime.date | datetime.time):
        text = value.isoformat()
    else:
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
