"""An application: routes, folders and other applications, and what answers a request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, Unpack

from h2log.app.files.negotiation import IDENTITY
from h2log.app.lifecycle import Hook, Lifecycle, start_all, stop_all
from h2log.app.middleware import ErrorHandler, Middleware
from h2log.app.registry import Registry
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.app.router import Answer, Handler, caller
from h2log.app.static import StaticFolder, StaticOptions
from h2log.app.table import Kept, Table

__all__ = ["App", "Registered"]

_AnyHandler = TypeVar("_AnyHandler", bound=Handler)
_AnyErrorHandler = TypeVar("_AnyErrorHandler", bound=ErrorHandler)
_AnyHook = TypeVar("_AnyHook", bound=Hook)
_AnyMiddleware = TypeVar("_AnyMiddleware", bound=Middleware)

Errors = Mapping[int | type[Exception], ErrorHandler]

DEFAULT_CACHE_BYTES = 64 * 1024 * 1024
"""Memory for the small files of one folder, unless `static` is told otherwise."""


class Registered(NamedTuple):
    """Something that answers: methods, the whole pattern, and the file and line it is from."""

    methods: tuple[str, ...]
    pattern: str
    place: str


class App:
    """What is served: functions on routes, folders, and other applications below a prefix.

    A route is preferred to a folder; of folders the one with the longest prefix. A path that
    differs from a route's in its last slash is redirected to it (308) where no folder has it.

        app = App()

        @app.get("/users/{id:int}")
        async def user(request: Request) -> Response:
            return Response.json(await load(request.params["id"]))

        @app.error(404)
        def nothing(request: Request, error: HTTPError) -> Response:
            return Response.html("<h1>Nothing here</h1>", 404)

        app.static("site", at="/")
        app.mount("/admin", admin)

    `static_fallthrough` is what `static` takes for `fallthrough` unless it is told otherwise.
    """

    def __init__(self, *, static_fallthrough: bool = False) -> None:
        self._registry = Registry(self._forget)
        self._static_fallthrough = static_fallthrough
        self._table: Table | None = None
        self._kept: list[Kept] = []
        self._started: list[Lifecycle] = []
        self.log_health: Callable[[], Sequence[Any]] = tuple
        """Returns how each log does: the outputs of the access log, the session's, our own.

        Set by who serves the application in one process; objects with `path`, `written`, `dropped`,
        `skipped`, `bytes`, `queued_lines`, `queued_bytes`, `failing` and more (`logfile.health`).
        """

    # Building: routes

    def route(
        self, path: str, methods: Iterable[str] = ("GET",), *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer `methods` on `path` with the decorated function: plain or `async`.

        A part of the path may be `{name}` or `{name:converter}` (see `patterns`): its value is in
        `request.params`, and a part that does not convert does not match. A plain function runs
        where it is called and must not block. GET answers HEAD too, and OPTIONS is answered, unless
        there are functions for them. CONNECT is the extended one (RFC 8441).

        `errors` are handlers of what this function raises, as `error` takes them. Raises
        RouteError, a ValueError, for a pattern that is none and for a route that is there already,
        here or through a mount.
        """
        names = (methods,) if isinstance(methods, str) else tuple(methods)
        place = caller()

        def register(handler: _AnyHandler) -> _AnyHandler:
            self._registry.add_route(path, names, handler, errors, place)
            return handler

        return register

    def get(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer GET and HEAD on `path`; see `route`."""
        return self.route(path, ("GET",), errors=errors)

    def head(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer HEAD on `path`, instead of what answers GET; see `route`."""
        return self.route(path, ("HEAD",), errors=errors)

    def post(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer POST on `path`; see `route`."""
        return self.route(path, ("POST",), errors=errors)

    def put(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer PUT on `path`; see `route`."""
        return self.route(path, ("PUT",), errors=errors)

    def patch(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer PATCH (RFC 5789) on `path`; see `route`."""
        return self.route(path, ("PATCH",), errors=errors)

    def delete(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer DELETE on `path`; see `route`."""
        return self.route(path, ("DELETE",), errors=errors)

    def options(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer OPTIONS on `path`, instead of the answer that has `Allow` alone; see `route`."""
        return self.route(path, ("OPTIONS",), errors=errors)

    def query(
        self, path: str, *, errors: Errors | None = None
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer QUERY, a safe method with content, on `path`; see `route`."""
        return self.route(path, ("QUERY",), errors=errors)

    def converter(self, name: str, convert: Callable[[str], Any]) -> None:
        """Let routes to come have parameters `{…:name}`: `convert` makes their values.

        It is given a segment's text, not empty, percent coding undone, and raises ValueError for a
        text that is none of its kind: the route then does not match. It must not block. Raises
        RouteError for a name that is taken.
        """
        self._registry.add_converter(name, convert)

    def static(
        self,
        folder: str | os.PathLike[str],
        at: str = "/",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        *,
        fallthrough: bool | None = None,
        **options: Unpack[StaticOptions],
    ) -> None:
        """Serve the files of `folder` below the URL path `at`.

        `cache_bytes` bounds the memory for small files; `options` are those of `StaticOptions`.
        With `fallthrough` a file that the folder lacks is looked for in the next one: that with the
        next longest prefix, or registered next for the same path.

        Raises RouteError for a path that is none or is taken, UsageError for a wrong option,
        FileNotFoundError and NotADirectoryError for a wrong folder.
        """
        if fallthrough is None:
            fallthrough = self._static_fallthrough

        def make(prefix: str) -> StaticFolder:
            return StaticFolder(folder, prefix, cache_bytes, **options)

        self._registry.add_folder(at, make, fallthrough, caller())

    def mount(self, path: str, app: App) -> None:
        """Answer what is below `path` with another application, as it is now and will be.

        Its routes, folders, middleware and error handlers are below `path`, and its requests have
        that as `request.mounted`, percent-coded, without a last slash. What it does not answer is
        its 404; a route of this application that reaches below `path` is answered, though. Raises
        RouteError for a path that is none or is taken, for an application inside itself, and for a
        route or folder that would be there twice.
        """
        if not isinstance(app, App):
            raise TypeError(f"an application is mounted, not {type(app).__name__}")
        self._registry.mount(path, app._registry, caller())

    # Building: around handlers

    def middleware(self, function: _AnyMiddleware) -> _AnyMiddleware:
        """Surround everything that this application answers with the decorated function; see `use`.

        @app.middleware
        async def timed(request: Request, call_next: CallNext) -> Response:
            began = monotonic()
            response = await call_next(request)
            response.headers.append(("server-timing", f"app;dur={monotonic() - began}"))
            return response
        """
        self.use(function)
        return function

    def use(self, middleware: Middleware, *, prefix: str = "/", static: bool = True) -> None:
        """Surround what this application answers at or below `prefix` with a middleware.

        The first that is added is the outermost. It sees what the request asks for: `route` and
        `params` are set, and errors (HTTPError 404 and 405 too) are exceptions of `call_next`.
        What is not below `prefix` costs next to nothing more. A folder's page may have an address
        that is not: `/private` does not cover `/private.html` or `/private.md`, of which it is the
        clean URL; add the middleware for these too, or keep such pages in a folder `/private/`.
        `static=False` leaves folders out: their files then are answered from memory as without it.
        Raises RouteError for a prefix that is no path.
        """
        self._registry.add_layer(middleware, prefix, static)

    def error(self, kind: int | type[Exception]) -> Callable[[_AnyErrorHandler], _AnyErrorHandler]:
        """Answer errors of a status, or exceptions of a class, with the decorated function.

        It is given the request and the exception, plain or `async`. The most specific class or the
        exact status is chosen, first of the route's own handlers, then of its application's, then
        of those that it is mounted in; what a handler raises goes on outwards. 500 is every
        exception that no class has a handler for; however it is answered, one that is no HTTPError
        is logged when the response's status is 500 or more. Raises RouteError for a kind that has a
        handler, or that is no error's status.
        """
        place = caller()

        def register(handler: _AnyErrorHandler) -> _AnyErrorHandler:
            self._registry.add_error(kind, handler, place)
            return handler

        return register

    # Building: before the first request and after the last

    def on_start(self, hook: _AnyHook) -> _AnyHook:
        """Call the decorated function, plain or `async`, before the server listens.

        In the order of registration; those of a mounted application come after this one's. When one
        raises, the server does not start: its message is shown, and the exit code is 3.
        """
        self._registry.lifecycle.starts.append(hook)
        return hook

    def on_stop(self, hook: _AnyHook) -> _AnyHook:
        """Call the decorated function, plain or `async`, when the last request has ended.

        In the reverse order of registration. What it raises is logged; the others are called. Also
        called when the start fails.
        """
        self._registry.lifecycle.stops.append(hook)
        return hook

    # Looking

    def routes(self) -> Iterator[Registered]:
        """Yield every route and folder, mounted ones too, in the order of registration.

        A folder's pattern ends with `*`.
        """
        yield from _registered(self._registry, "", "")

    def folders(self) -> Iterator[StaticFolder]:
        """Yield what serves each folder, mounted ones too, the longest prefix first.

        Raises as `prepare`.
        """
        return (self._table or self.prepare()).folders()

    def middlewares(self) -> Iterator[Middleware]:
        """Yield what was given to `use`, in mounted applications too."""
        return _middlewares(self._registry)

    def prepare(self) -> Table:
        """Get ready for requests; the first request does it otherwise, and each after a change.

        Raises UsageError when a folder has gone.
        """
        self._table = table = Table(self._registry)
        self._kept = table.kept
        return table

    async def error_page(self, request: Request, status: int, now: float) -> Response | None:
        """Return the page for an error of the folder that the path is in, None when it has none.

        For errors that no folder has answered; see `StaticFolder.error_page`.
        """
        for folder in self.folders():
            if request.raw_path.startswith(folder.prefix):
                return await folder.error_page(request, status, now)
        return None

    async def start(self) -> None:
        """Call what `on_start` was given, here and in mounted applications, each once.

        What one raises comes through, after `on_stop`'s of those that were started.
        """
        self._started = await start_all(_lifecycles(self._registry))

    async def stop(self) -> None:
        """Call what `on_stop` was given, of all that `start` has started."""
        started, self._started = self._started, []
        await stop_all(started)

    def _forget(self) -> None:
        self._table = None
        self._kept = []

    # Answering

    def kept(self, path: str, now: float, wished: str = IDENTITY) -> Response | None:
        """Return the response to a plain GET of a raw path if it is in memory, whole and current.

        Only what `answer` would find in a folder is ever there, and nothing that middleware
        surrounds. `now` is the monotonic time; `wished` the request's wish (see
        `files.negotiation`).
        """
        for entry in self._kept:
            prefix, kept, clear = entry
            if path.startswith(prefix):
                response = kept(path, now, wished)
                if clear is None or response is None or path in clear:
                    return response
                table = self._table
                return response if table is not None and table.clears(path, entry) else None
        return None

    def answer(self, request: Request, now: float) -> Answer:
        """Answer a request, or return what to await for the answer. `now` is the monotonic time.

        Raises HTTPError 404, and 405 with `Allow` (RFC 9110 section 15.5.6), and 501 for a method
        that is unknown (section 15.6.2) or asks for a proxy; whatever a plain handler raises, and
        no error handler answers, comes through.
        """
        table = self._table
        if table is None:
            table = self.prepare()
        methods = table.fixed.get(request.raw_path)
        if methods is not None:
            target = methods.get(request.method)
            if target is not None:
                request.route = target.pattern
                request.mounted = target.mounted
                return target.call(request)
        return table.answer(request, now)


def _registered(registry: Registry, prefix: str, text: str) -> Iterator[Registered]:
    for route in registry.routes:
        yield Registered(route.methods, text + route.pattern.text, route.place)
    for folder in registry.folders:
        yield Registered(("GET",), f"{prefix}{folder.prefix}*", folder.place)
    for mount in registry.mounts:
        yield from _registered(mount.registry, prefix + mount.prefix, text + mount.text)


def _middlewares(registry: Registry) -> Iterator[Middleware]:
    for layer in registry.layers:
        yield layer.run
    for mount in registry.mounts:
        yield from _middlewares(mount.registry)


def _lifecycles(registry: Registry) -> Iterator[Lifecycle]:
    yield registry.lifecycle
    for mount in registry.mounts:
        yield from _lifecycles(mount.registry)
