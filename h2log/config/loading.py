"""Files, environment and flags, one upon the other, into one tree that knows its sources."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from h2log.config.check import Check, Problem, check, extra_of, fields_of
from h2log.config.conflicts import conflicts, is_given
from h2log.config.settings import Settings
from h2log.config.sources import Layer, environment, find_file, read_file
from h2log.config.units import duration_text, size_text
from h2log.errors import UsageError

__all__ = ["DEFAULT", "Loaded", "Value", "build", "file_problems", "load"]

DEFAULT: Final = "default"


class Value(NamedTuple):
    """A value in force."""

    key: str
    value: Any
    source: str
    unit: str = ""
    """`size`, `duration` or nothing."""

    @property
    def text(self) -> str:
        """The value as a file could have it."""
        if self.unit == "size":
            return json.dumps(size_text(self.value))
        if self.unit == "duration":
            return json.dumps(duration_text(self.value))
        return json.dumps(self.value)


class Loaded(NamedTuple):
    """The tree in force, and the source of every key that is not the default."""

    settings: Settings
    origins: dict[str, str]
    file: str | None
    """The file that was read, if any."""

    def values(self) -> Iterator[Value]:
        """Yield every value in force, in the tree's order."""
        for key, value, unit in _leaves(self.settings, ""):
            yield Value(key, value, self.origins.get(key, DEFAULT), unit)


def build(
    values: dict[str, Any], source: str = "settings", checks: Mapping[str, Check] | None = None
) -> Settings:
    """Return the validated tree for nested `values`; what is absent has its default.

    `source` names where the values come from, `checks` see `check`. Raises UsageError with the
    key's full name, what was expected and what was found.
    """
    plain, problems = check(values, checks=checks)
    settings = None if problems else msgspec.convert(plain, Settings, strict=True)
    if settings is None or (problems := _conflicts(settings, plain, checks)):
        raise _refusal([f"{source}: {problem}" for problem in problems])
    return settings


def file_problems(path: str, checks: Mapping[str, Check] | None = None) -> list[str]:
    """Return a line for each problem of a file alone; raises UsageError for its syntax."""
    plain, problems = check(read_file(path), checks=checks)
    if not problems:
        problems = _conflicts(msgspec.convert(plain, Settings, strict=True), plain, checks)
    return [f"{path}: {problem}" for problem in problems]


def load(
    file: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Iterable[Layer] = (),
    checks: Mapping[str, Check] | None = None,
    folder: str | os.PathLike[str] = ".",
) -> Loaded:
    """Return the tree in force: defaults, then the file, the environment, the flags.

    Without `file`, the one in `folder` is taken, if there is one. `checks` are as in `check`.
    Raises UsageError for the first problem, with the source, the key, what was expected and found.
    """
    file = file if file is not None else find_file(folder)
    layers = [] if file is None else [Layer(file, read_file(file))]
    variables, lines = environment(environ or {})
    known = len(layers)
    layers += [*variables, *flags]
    merged: dict[str, Any] = {"log": {"access": [{}]}}  # what a variable for every output changes
    origins: dict[str, str] = {}
    found: list[str] = []
    for n, layer in enumerate(layers):
        plain, problems = check(layer.values, checks=checks, spread=n >= known, complete=False)
        found += [f"{layer.source}: {problem}" for problem in problems]
        if not problems:
            _merge(merged, plain, "", layer, origins)
    if found or lines:
        raise _refusal([*found, *lines])
    _, problems = check(merged)
    settings = None if problems else msgspec.convert(merged, Settings, strict=True)
    if settings is None or (problems := _conflicts(settings, merged, checks)):
        raise _refusal([f"{_source(p.key, origins)}: {p}" for p in problems])
    return Loaded(settings, origins, file)


def _conflicts(
    settings: Settings, values: dict[str, Any], checks: Mapping[str, Check] | None
) -> list[Problem]:
    return list(conflicts(settings, lambda key: is_given(values, key), checks))


def _refusal(lines: list[str]) -> UsageError:
    more = len(lines) - 1
    rest = f" (and {more} more problem{'s' * (more > 1)})" if more else ""
    return UsageError(f"{lines[0]}{rest}")


def _source(key: str, origins: Mapping[str, str]) -> str:
    """Return the source of a key; of an absent one, that of a neighbour."""
    if key in origins:
        return origins[key]
    table = key.rpartition(".")[0]
    return next((origins[other] for other in origins if other.startswith(f"{table}.")), DEFAULT)


def _merge(
    into: dict[str, Any], values: dict[str, Any], key: str, layer: Layer, origins: dict[str, str]
) -> None:
    """Lay a layer's checked values over what is there, and note where each comes from."""
    for name, value in values.items():
        full = f"{key}.{name}" if key else name
        old = into.get(name)
        if isinstance(value, dict) and isinstance(old, list):
            for n, table in enumerate(old):
                _merge(table, value, f"{full}[{n}]", layer, origins)
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value, full, layer, origins)
        elif isinstance(value, list):
            tables = old if layer.by_place and isinstance(old, list) else []
            kept = min(len(tables), len(value))
            tables = [*tables[:kept], *({} for _ in value[kept:])]
            for known in list(origins):
                place = known.removeprefix(f"{full}[").partition("]")[0]
                if known.startswith(f"{full}[") and int(place) >= kept:
                    del origins[known]
            into[name] = tables
            origins[full] = layer.source
            for n, (table, item) in enumerate(zip(tables, value, strict=True)):
                _merge(table, item, f"{full}[{n}]", layer, origins)
        else:
            into[name] = value
            origins[full] = layer.source


def _leaves(table: msgspec.Struct, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield each value's key, itself and its unit; an empty list or table as one value."""
    for field in fields_of(type(table)):
        key = f"{prefix}{field.encode_name}"
        value = getattr(table, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            for n, item in enumerate(value):
                yield from _leaves(item, f"{key}[{n}].")
        elif isinstance(value, dict) and value:
            for name, item in value.items():
                if isinstance(item, msgspec.Struct):
                    yield from _leaves(item, f"{key}.{name}.")
                else:
                    yield f"{key}.{name}", item, ""
        else:
            plain = list(value) if isinstance(value, tuple) else value
            yield key, plain, extra_of(field.type).get("unit", "")
