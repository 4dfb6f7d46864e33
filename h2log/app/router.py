"""Routes: from a method and a path to the function that answers.

Paths are matched a segment at a time on the path as sent, so that an encoded slash stays inside
its segment; a fixed segment is preferred to a `{name}`, and the search steps back when the
preferred way leads nowhere. Looking up a path costs its number of segments, whatever the number
of routes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import unquote

from h2log.app.request import Request
from h2log.app.response import Response

__all__ = ["Handler", "Route", "Router"]

Handler = Callable[[Request], Response | Awaitable[Response]]
"""Answers a request: a plain function (it must not block) or an `async` one."""

_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}").fullmatch


class Route:
    """The handlers of one path pattern, by method, and the names of its parameters."""

    __slots__ = ("handlers", "names", "path")

    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        self.path = path
        self.names = names
        self.handlers: dict[str, Handler] = {}

    def allow(self) -> str:
        """Return the value of `Allow` (RFC 9110 section 10.2.1)."""
        methods = set(self.handlers) | {"OPTIONS"}
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))

    def handler(self, method: str) -> Handler | None:
        """Return the handler of `method`; GET's answers HEAD too (RFC 9110 section 9.3.2)."""
        found = self.handlers.get(method)
        return self.handlers.get("GET") if found is None and method == "HEAD" else found


class _Node:
    __slots__ = ("children", "parameter", "route")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.route: Route | None = None


class Router:
    """All routes of an application."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, path: str, methods: Iterable[str], handler: Handler) -> None:
        """Answer `methods` on `path` with `handler`.

        Raises ValueError for a path that does not begin with `/`, for a part that is not `{name}`
        or plain, for a name twice, and for a route that is there already.
        """
        if not path.startswith("/"):
            raise ValueError(f"route {path!r} must begin with /")
        node = self._root
        names: list[str] = []
        for part in path[1:].split("/"):
            parameter = _PARAMETER(part)
            if parameter is not None:
                if parameter[1] in names:
                    raise ValueError(f"route {path!r} has the parameter {parameter[1]!r} twice")
                names.append(parameter[1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            elif "{" in part or "}" in part:
                raise ValueError(f"route {path!r}: a part is plain or {{name}}, not {part!r}")
            else:
                node = node.children.setdefault(part, _Node())
        wanted = tuple(methods)
        if not wanted:
            raise ValueError(f"route {path!r} has no method")
        route = node.route or Route(path, tuple(names))
        if route.names != tuple(names):
            raise ValueError(f"route {path} differs from {route.path} in its parameters' names")
        for method in wanted:
            if method in route.handlers:
                raise ValueError(f"route {method} {path} is there already, as {route.path}")
        node.route = route
        route.handlers.update(dict.fromkeys(wanted, handler))

    def find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of `path`, as sent without its query, and its parameters' values."""
        if not path.startswith("/"):
            return None
        values: list[str] = []
        route = self._walk(self._root, path[1:].split("/"), 0, values)
        if route is None:
            return None
        return route, dict(zip(route.names, values, strict=True))

    def _walk(self, node: _Node, parts: list[str], at: int, values: list[str]) -> Route | None:
        if at == len(parts):
            return node.route
        part = parts[at]
        child = node.children.get(part)
        if child is None and "%" in part:
            child = node.children.get(unquote(part))
        if child is not None:
            found = self._walk(child, parts, at + 1, values)
            if found is not None:
                return found
        if node.parameter is not None and part:
            values.append(unquote(part.encode("latin-1", "replace").decode("utf-8", "replace")))
            found = self._walk(node.parameter, parts, at + 1, values)
            if found is not None:
                return found
            values.pop()
        return None
