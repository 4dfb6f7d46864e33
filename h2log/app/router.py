"""Routes: from a method and a path to what answers.

A path without parameters is found by one look-up, whatever their number. Others are matched a
segment at a time, on the path as sent, so that an encoded slash stays inside its segment. Where
several patterns fit, the leftmost difference decides: plain text before a value, and of values
`uuid`, `int`, `float`, the application's own, `str`, `path`. A pattern that fits but has not the
method is passed over: 405 is for paths where none has it.

The search steps back when the preferred way leads nowhere; it never comes to one place of the tree
of patterns twice, so that it costs no more than that has places, and a path no more than its length
in segments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from h2log.app.patterns import PATH, STR, Converter, Pattern, Segment, canonical, decoded
from h2log.app.request import Request
from h2log.app.response import Response

__all__ = ["EXTENDED_CONNECT", "Answer", "Handler", "Router", "Target", "allow", "caller"]

Answer = Response | Awaitable[Response]
"""A response, or what to await for it."""
Handler = Callable[[Request], Answer]
"""Answers a request: a plain function (it must not block) or an `async` one."""

EXTENDED_CONNECT: Final = "CONNECT :protocol"
"""The key of handlers of extended CONNECT (RFC 8441), which no method can be: a handler for it is
never given the CONNECT that asks for a proxy."""


def caller() -> str:
    """Return the file and line that called the application's method: `hello.py:12`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("h2log.app."):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return f"{file.removeprefix(os.path.join(os.getcwd(), ''))}:{frame.f_lineno}"


def allow(methods: Iterable[str]) -> str:
    """Return the value of `Allow` (RFC 9110 section 10.2.1): OPTIONS is always answered."""
    names = {"CONNECT" if method == EXTENDED_CONNECT else method for method in methods}
    return ", ".join(sorted(names | {"OPTIONS"}))


class Target:
    """What answers one method of one pattern.

    `call` is the handler with all that surrounds it; `pattern` is for the log; `names` are those of
    the values; `mounted` is the prefix of the application whose route it is.
    """

    __slots__ = ("call", "mounted", "names", "pattern")

    def __init__(self, call: Handler, pattern: str, names: tuple[str, ...], mounted: str) -> None:
        self.call = call
        self.pattern = pattern
        self.names = names
        self.mounted = mounted


class _Methods(dict[str, Target]):
    """The targets of one pattern by method; GET's answers HEAD too (RFC 9110 section 9.3.2)."""

    __slots__ = ("_own_head",)

    def __init__(self) -> None:
        super().__init__()
        self._own_head = False

    def add(self, method: str, target: Target) -> None:
        assert method not in self or (method == "HEAD" and not self._own_head)
        self[method] = target
        if method == "HEAD":
            self._own_head = True
        elif method == "GET" and not self._own_head:
            self["HEAD"] = target


class _Node:
    """A place in the tree: the segments so far were matched."""

    __slots__ = ("methods", "plain", "tails", "values")

    def __init__(self) -> None:
        self.plain: dict[str, _Node] = {}
        self.values: list[tuple[Converter, _Node]] = []
        """By rank."""
        self.tails: list[tuple[int, _Node]] = []
        """What comes after a `path`, by how many segments that is, the most first."""
        self.methods: _Methods | None = None

    def value(self, converter: Converter) -> _Node:
        """Return the place after a value, made if it is not there."""
        for known, node in self.values:
            if known == converter:
                return node
        node = _Node()
        self.values.append((converter, node))
        self.values.sort(key=lambda pair: pair[0].rank)
        return node

    def tail(self, size: int) -> _Node:
        """Return the place after a path that `size` segments follow, made if it is not there."""
        for known, node in self.tails:
            if known == size:
                return node
        node = _Node()
        self.tails.append((size, node))
        self.tails.sort(key=lambda pair: -pair[0])
        return node


class Router:
    """All routes that one server has."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Methods] = {}
        """Targets by method, by the canonical path that is the whole pattern."""
        self.methods: set[str] = set()
        """Every method of any route."""
        self._root = _Node()
        self._deepest = 0
        """Segments that a path can have for any pattern with values."""

    def __bool__(self) -> bool:
        return bool(self.methods)

    def add(self, pattern: Pattern, methods: Iterable[str], target: Target) -> None:
        """Answer `methods` on `pattern` with `target`; nothing else may do so."""
        fixed = pattern.fixed
        if fixed is not None:
            entry = self.fixed.setdefault(fixed, _Methods())
        else:
            entry = self._leaf(pattern.segments)
        for method in methods:
            entry.add(method, target)
        self.methods.update(entry)

    def _leaf(self, segments: tuple[Segment, ...]) -> _Methods:
        node = self._root
        for at, segment in enumerate(segments):
            if isinstance(segment, str):
                node = node.plain.setdefault(segment, _Node())
            elif segment == PATH:
                node = node.tail(len(segments) - at - 1)
            else:
                node = node.value(segment)
        self._deepest = max(self._deepest, sys.maxsize if PATH in segments else len(segments))
        if node.methods is None:
            node.methods = _Methods()
        return node.methods

    def find(self, path: str, method: str) -> tuple[Target, dict[str, Any]] | None:
        """Return what answers `method` on a path as sent, without its query, and the values.

        What a converter raises besides ValueError comes through.
        """
        spelled = canonical(path)
        entry = self.fixed.get(spelled)
        if entry is not None and method in entry:
            return entry[method], {}
        if path.count("/") > self._deepest or path[:1] != "/":
            return None
        parts = path.split("/")
        values: list[Any] = []
        same = spelled is path
        target = _walk(self._root, parts, parts if same else spelled.split("/"), 1, values, method)
        return None if target is None else (target, dict(zip(target.names, values, strict=True)))

    def allowed(self, path: str) -> set[str]:
        """Return the methods that a path as sent has; none when it is no route's."""
        spelled = canonical(path)
        seen = set(self.fixed.get(spelled, ()))
        if path.count("/") <= self._deepest and path[:1] == "/":
            _walk(self._root, path.split("/"), spelled.split("/"), 1, [], seen)
        return seen


def _walk(
    node: _Node,
    parts: list[str],
    spelled: list[str],
    at: int,
    values: list[Any],
    wanted: str | set[str],
) -> Target | None:
    """Return what answers the parts from `at` on with a method, its values after those given.

    With a set instead of a method nothing is found, and the set gets the methods of all that fits.
    """
    if at == len(parts):
        if node.methods is None:
            return None
        if isinstance(wanted, str):
            return node.methods.get(wanted)
        wanted.update(node.methods)
        return None
    child = node.plain.get(spelled[at])
    if child is not None:
        found = _walk(child, parts, spelled, at + 1, values, wanted)
        if found is not None:
            return found
    part = parts[at]
    if node.values and part:
        text = decoded(part)
        for converter, child in node.values:
            try:
                value = text if converter is STR else converter.convert(text)
            except ValueError:
                continue
            values.append(value)
            found = _walk(child, parts, spelled, at + 1, values, wanted)
            if found is not None:
                return found
            values.pop()
    for size, child in node.tails:
        end = len(parts) - size
        text = decoded("/".join(parts[at:end])) if end > at else ""
        if text:
            try:
                value = PATH.convert(text)
            except ValueError:
                continue
            values.append(value)
            found = _walk(child, parts, spelled, end, values, wanted)
            if found is not None:
                return found
            values.pop()
    return None
