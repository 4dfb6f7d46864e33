"""What was registered at an application, and at those mounted in it.

A registry knows the registries that it is mounted in: a duplicate is refused where it is
registered, in whatever order routes and mounts come, and the error names both places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from h2log.app.lifecycle import Lifecycle
from h2log.app.middleware import ErrorHandler, ErrorHandlers, Layer, Middleware
from h2log.app.patterns import (
    CONVERTERS,
    OWN_RANK,
    Converter,
    Pattern,
    RouteError,
    Segment,
    parse_pattern,
    parse_prefix,
)
from h2log.app.router import Handler
from h2log.app.static import StaticFolder

__all__ = ["Folder", "Mount", "Registry", "Route"]

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch


class Route(NamedTuple):
    """A handler of some methods of a pattern, and the place that registered it."""

    pattern: Pattern
    methods: tuple[str, ...]
    handler: Handler
    errors: ErrorHandlers | None
    place: str


class Folder:
    """A folder of files below `prefix`, which is canonical and ends with a slash.

    `fallthrough`: a file that it lacks is looked for in the next folder.
    """

    __slots__ = ("_make", "_served", "fallthrough", "place", "prefix")

    def __init__(
        self, prefix: str, make: Callable[[str], StaticFolder], fallthrough: bool, place: str
    ) -> None:
        self.prefix = prefix
        self.fallthrough = fallthrough
        self.place = place
        self._make = make
        self._served = {prefix: make(prefix)}

    def at(self, prefix: str) -> StaticFolder:
        """Return what serves the folder at `prefix`: another one where the application is mounted.

        Raises UsageError when the folder has gone.
        """
        if prefix not in self._served:
            try:
                self._served[prefix] = self._make(prefix)
            except OSError as error:
                raise RouteError(
                    f"cannot use the folder registered at {self.place}: {error}"
                ) from error
        return self._served[prefix]


class Mount(NamedTuple):
    """An application below `prefix`, which is canonical, without a last slash: "" for `/`."""

    prefix: str
    text: str
    registry: Registry
    place: str

    @property
    def segments(self) -> tuple[str, ...]:
        """The prefix's segments."""
        return tuple(self.prefix.split("/")[1:])


class _Above(NamedTuple):
    """A registry that has what another registers, below a prefix, by mounts at `places`."""

    registry: Registry
    prefix: str
    segments: tuple[str, ...]
    text: str
    places: tuple[str, ...]


class _Claim(NamedTuple):
    """A path that is taken, by what was registered at the first of `places`, mounted at others."""

    text: str
    places: tuple[str, ...]
    fallthrough: bool = False

    def below(self, text: str, places: tuple[str, ...]) -> _Claim:
        return _Claim(text + self.text, self.places + places, self.fallthrough)

    def __str__(self) -> str:
        return f"{self.text} ({', mounted at '.join(self.places)})"


_Key = tuple[tuple[Segment, ...], str]


class Registry:
    """Routes, folders, mounted applications, middleware, error handlers and converters.

    `changed` is called after each addition, here or below.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.routes: list[Route] = []
        self.folders: list[Folder] = []
        self.mounts: list[Mount] = []
        self.layers: list[Layer] = []
        self.errors = ErrorHandlers()
        self.lifecycle = Lifecycle()
        self.converters: dict[str, Converter] = dict(CONVERTERS)
        self._changed = changed
        self._parents: list[tuple[Mount, Registry]] = []
        # What is taken here by any registry below, for the next that wants it.
        self._taken: dict[_Key, _Claim] = {}
        self._folders_taken: dict[str, _Claim] = {}

    def _above(self) -> Iterator[_Above]:
        """Yield this registry, and each that it is mounted in, as often as it is."""
        yield _Above(self, "", (), "", ())
        for mount, parent in self._parents:
            for up in parent._above():
                yield _Above(
                    up.registry,
                    up.prefix + mount.prefix,
                    up.segments + mount.segments,
                    up.text + mount.text,
                    (mount.place, *up.places),
                )

    def _has_changed(self) -> None:
        for up in self._above():
            up.registry._changed()

    # Routes

    def add_route(
        self,
        path: str,
        methods: Iterable[str],
        handler: Handler,
        errors: Mapping[int | type[Exception], ErrorHandler] | None,
        place: str,
    ) -> None:
        """Answer `methods` on `path` with `handler`.

        Raises RouteError for a pattern that is none, for a method that is no token (RFC 9110
        section 9.1), and for a route that is there already.
        """
        if not callable(handler):
            raise TypeError(f"a handler of {path!r} is a function, not {type(handler).__name__}")
        pattern = parse_pattern(path, self.converters)
        names = tuple(dict.fromkeys(_method(name, path) for name in methods))
        if not names:
            raise RouteError(f"route {path!r} has no method; name one")
        handlers = ErrorHandlers.of(errors, place) if errors else None
        self._take({(pattern.segments, name): _Claim(path, (place,)) for name in names}, {})
        self.routes.append(Route(pattern, names, handler, handlers, place))
        self._has_changed()

    def _take(self, routes: Mapping[_Key, _Claim], folders: Mapping[str, _Claim]) -> None:
        """Take routes and folders, here and in every registry above: all or none."""
        # By registry too: one that is mounted twice in another has its routes there twice.
        taken: dict[tuple[Registry, _Key | str], _Claim] = {}
        for up in self._above():
            for (segments, method), claim in routes.items():
                key = (up.segments + segments, method)
                mine = claim.below(up.text, up.places)
                theirs = up.registry._taken.get(key) or taken.get((up.registry, key))
                if theirs is not None:
                    raise RouteError(
                        f"route {method} {mine} is there already: {theirs}; remove one of them"
                    )
                taken[up.registry, key] = mine
            for prefix, claim in folders.items():
                mine = claim.below(up.text, up.places)
                at = up.prefix + prefix
                theirs = up.registry._folders_taken.get(at) or taken.get((up.registry, at))
                if theirs is not None and not theirs.fallthrough:
                    raise RouteError(
                        f"a folder at {mine} is there already: {theirs}; remove one of them, or "
                        f"let the other fall through"
                    )
                taken[up.registry, at] = mine
        for (registry, wanted), mine in taken.items():
            if isinstance(wanted, str):
                registry._folders_taken[wanted] = mine
            else:
                registry._taken[wanted] = mine

    def add_converter(self, name: str, convert: Callable[[str], Any]) -> None:
        """Add a converter for patterns to come. Raises RouteError for a name that is taken."""
        if _NAME(name) is None:
            raise RouteError(f"a converter's name is letters, digits and _, not {name!r}")
        if not callable(convert):
            raise TypeError(f"converter {name!r} is a function, not {type(convert).__name__}")
        if name in self.converters:
            raise RouteError(f"there is a converter {name!r} already; choose another name")
        self.converters[name] = Converter(name, convert, OWN_RANK)

    # Folders

    def add_folder(
        self, path: str, make: Callable[[str], StaticFolder], fallthrough: bool, place: str
    ) -> None:
        """Serve what `make` returns for a prefix below `path`.

        Raises RouteError for a path that is none or has a folder, unless that one falls through.
        """
        prefix = parse_prefix("a folder's path", path) + "/"
        folder = Folder(prefix, make, fallthrough, place)
        self._take({}, {prefix: _Claim(path, (place,), fallthrough)})
        self.folders.append(folder)
        self._has_changed()

    # Mounts

    def mount(self, path: str, other: Registry, place: str) -> None:
        """Answer what is below `path` with what `other` has, now and later.

        Raises RouteError for a path that is none or has an application, for an application inside
        itself, and for what is there already.
        """
        prefix = parse_prefix("a mount's path", path)
        for known in self.mounts:
            if known.prefix == prefix:
                raise RouteError(
                    f"there is an application mounted at {path} already, at {known.place}; "
                    f"choose another path than that at {place}"
                )
        if any(up.registry is other for up in self._above()):
            raise RouteError(f"an application cannot be mounted inside itself: {path} at {place}")
        mount = Mount(prefix, path.removesuffix("/"), other, place)
        self._take(
            {
                (mount.segments + segments, method): claim.below(mount.text, (place,))
                for (segments, method), claim in other._taken.items()
            },
            {
                prefix + below: claim.below(mount.text, (place,))
                for below, claim in other._folders_taken.items()
            },
        )
        self.mounts.append(mount)
        other._parents.append((mount, self))
        self._has_changed()

    # Middleware

    def add_layer(self, run: Middleware, path: str, static: bool) -> None:
        """Surround what is below `path` with a middleware. Raises RouteError for a wrong path."""
        if not callable(run):
            raise TypeError(f"a middleware is a function, not {type(run).__name__}")
        self.layers.append(Layer(run, parse_prefix("a middleware's path", path), static))
        self._has_changed()

    def add_error(self, kind: int | type[Exception], handler: ErrorHandler, place: str) -> None:
        """Answer errors of a kind with `handler`. Raises as `ErrorHandlers.add`."""
        self.errors.add(kind, handler, place)
        self._has_changed()


def _method(name: str, path: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"route {path!r}: a method is text, not {type(name).__name__}")
    if _METHOD(name) is None:
        raise RouteError(f"route {path!r}: {name!r} is no method")
    return name.upper()
