"""Where settings stand: a file in TOML or JSON, and the environment.

A variable is `H2LOG_` and a key: `H2LOG_SERVER__PORT` with two underscores between the levels
always, `H2LOG_SERVER_PORT` with one where only one key can be meant. `H2LOG_LOG_ACCESS_FORMAT`
means the format of every output. Lists and tables are JSON.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, get_args, get_origin

import msgspec

from h2log.config.check import all_keys, element_of, fields_of, plain_kind, shown
from h2log.config.settings import Settings
from h2log.errors import UsageError

__all__ = ["FILES", "PREFIX", "Layer", "environment", "find_file", "read_file"]

FILES: Final = ("h2log.toml", "h2log.json")
"""Names that are looked for in the working directory."""
PREFIX: Final = "H2LOG_"
FILE_VARIABLE: Final = "H2LOG_CONFIG"
"""Names the file, as `--config` does."""

_WORDS: Final = {"true": True, "yes": True, "on": True, "1": True}
_WORDS_NOT: Final = {"false": False, "no": False, "off": False, "0": False}


class Layer(NamedTuple):
    """Values of one source; a later layer wins over an earlier one."""

    source: str
    values: dict[str, Any]
    by_place: bool = False
    """A list's tables change those in the same places, instead of replacing the list."""


def find_file(folder: str | os.PathLike[str] = ".") -> str | None:
    """Return the name of the settings' file in `folder`, or None.

    Raises UsageError when there are two.
    """
    found = [name for name in FILES if os.path.lexists(Path(folder, name))]
    if len(found) > 1:
        raise UsageError(f"{' and '.join(found)} are both here; name one with --config")
    return str(Path(folder, found[0])) if found else None


def read_file(path: str) -> dict[str, Any]:
    """Return the values in a file: JSON when it is called so, else TOML.

    Raises UsageError that names the file, and the line and column of an error in it.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no file {path}; name an existing one") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        raise _syntax(path, before, len(before), "is not UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be read: {reason.lower()}") from None
    import tomllib  # many have no file

    try:
        return _json(text) if path.lower().endswith(".json") else tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise _syntax(path, text, error.pos, _lower(error.msg)) from None
    except tomllib.TOMLDecodeError as error:
        message, _, _ = str(error).rpartition(" (at ")
        place = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        if place is not None:
            where = f"line {place[1]}, column {place[2]}"
            raise UsageError(f"{path}: {where}: {_lower(message)}") from None
        raise _syntax(path, text, len(text), _lower(message or str(error))) from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path}: {_lower(str(error))}") from None


def _json(text: str) -> Any:
    """Return JSON's value; what Python adds to JSON, and a key given twice, are errors."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {shown(twice)} stands twice in a table")
        return found

    def refuse(word: str) -> NoReturn:
        # Python takes them without saying where they stand: the first that is not inside a string.
        places = re.finditer(rf'"(?:[^"\\]|\\.)*"|({re.escape(word)})', text)
        place = next((found.start() for found in places if found[1]), 0)
        raise json.JSONDecodeError(f"the word {word} is no JSON", text, place)

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def _syntax(path: str, text: str, position: int, message: str) -> UsageError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return UsageError(f"{path}: line {line}, column {column}: {message}")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


# The environment


def environment(environ: Mapping[str, str]) -> tuple[list[Layer], list[str]]:
    """Return a layer for each variable that sets something, and a line for each problem."""
    layers: list[Layer] = []
    problems: list[str] = []
    ours = sorted(name for name in environ if name.startswith(PREFIX) and name != FILE_VARIABLE)
    plain = _plain_names(all_keys()) if ours else {}
    for name in ours:
        text = environ[name]
        if _of_kubernetes(name, text):
            continue
        source = f"environment {name}"
        try:
            key = _key(name, plain)
            value = _value(text, _kind(key))
        except ValueError as error:
            problems.append(f"{source}: {error}")
            continue
        for part in reversed(key):
            value = {part: value}
        layers.append(Layer(source, value))
    return layers, problems


def _of_kubernetes(name: str, text: str) -> bool:
    """Return whether a variable is Kubernetes's, which has such for each service's name.

    A service `h2log` gives every pod `H2LOG_SERVICE_HOST`, `H2LOG_PORT=tcp://10.0.0.1:8443` and
    more; they are nobody's mistake.
    """
    return (
        text.startswith(("tcp://", "udp://", "sctp://"))
        or re.search(r"_SERVICE_(HOST|PORT)(_|$)", name) is not None
        or re.search(r"_PORT_\d+_(TCP|UDP|SCTP)(_|$)", name) is not None
    )


def _plain_names(keys: Iterable[str]) -> dict[str, list[list[str]]]:
    """Return the keys that each variable with single underscores may mean."""
    found: dict[str, list[list[str]]] = {}
    for key in keys:
        parts = key.replace("[]", "").split(".")
        found.setdefault(f"{PREFIX}{'_'.join(parts).upper()}", []).append(parts)
    return found


def _key(name: str, plain: Mapping[str, list[list[str]]]) -> list[str]:
    """Return the parts of the key that a variable names; raises ValueError if there is none."""
    meant = plain.get(name, [])
    if len(meant) == 1:
        return meant[0]
    if meant:
        forms = " or ".join(PREFIX + "__".join(parts).upper() for parts in meant)
        raise ValueError(f"could mean more than one key; use {forms}")
    double = "__" in name
    parts = name.removeprefix(PREFIX).lower().split("__")
    if double and _kind(parts) is not None:
        return parts
    known = [
        PREFIX + ("__" if double else "_").join(parts).upper()
        for group in plain.values()
        for parts in group
    ]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"keys begin with {', '.join(_sections())}"
    raise ValueError(f"unknown key; {hint}")


def _sections() -> list[str]:
    return [f"{PREFIX}{key.upper()}_" for key in all_keys() if "." not in key]


def _kind(parts: list[str]) -> Any:
    """Return the type of a key, None where there is none."""
    kind: Any = Settings
    for part in parts:
        if get_origin(kind) is dict:
            kind = element_of(kind)
            continue
        table = element_of(kind) or kind
        if not (isinstance(table, type) and issubclass(table, msgspec.Struct)):
            return None
        fields = {field.encode_name: field.type for field in fields_of(table)}
        kind = fields.get(part)
    return kind


def _value(text: str, kind: Any) -> Any:
    """Return a variable's text as the value that its type asks for, or as it is."""
    names = element_of(kind) is None and get_origin(plain_kind(kind)) is tuple
    if (
        names
        or element_of(kind) is not None
        or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))
    ):
        try:
            return _json(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            what = 'list is JSON here, such as ["a", "b"]' if names else "table is JSON here"
            raise ValueError(f"a {what}: {where}: {_lower(error.msg)}") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
    bare = plain_kind(kind)
    if bare is bool:
        word = text.strip().lower()
        return {**_WORDS, **_WORDS_NOT}.get(word, text)
    if bare in (int, float) or int in get_args(bare):
        if re.fullmatch(r"[+-]?\d{1,30}", text.strip(), re.ASCII):
            return int(text)
        if bare is float and re.fullmatch(
            r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text.strip().lower()
        ):
            return float(text)
    return text
