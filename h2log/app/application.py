"""An application: routes and folders, and what answers a request."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from h2log.app.request import Request
from h2log.app.response import Response
from h2log.app.router import Handler, Router
from h2log.app.static import StaticFolder
from h2log.errors import HTTPError

__all__ = ["App"]

_AnyHandler = TypeVar("_AnyHandler", bound=Handler)

DEFAULT_CACHE_BYTES = 64 * 1024 * 1024
"""Memory for the small files of one folder, unless `static` is told otherwise."""


class App:
    """What is served: functions on routes, and folders.

    A route is preferred to a folder; of folders the one with the longest prefix.

        app = App()

        @app.get("/hello/{name}")
        async def hello(request: Request) -> Response:
            return Response.text(f"hello {request.params['name']}")

        app.static("site", at="/")
    """

    def __init__(self) -> None:
        self._router = Router()
        self._folders: list[tuple[str, StaticFolder]] = []

    # Building

    def route(
        self, path: str, methods: Iterable[str] = ("GET",)
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer `methods` on `path` with the decorated function: plain or `async`.

        A part of the path may be `{name}`: its value is in `request.params`. A plain function runs
        where it is called and must not block. Raises ValueError as `Router.add`.
        """

        names = (methods,) if isinstance(methods, str) else methods

        def register(handler: _AnyHandler) -> _AnyHandler:
            self._router.add(path, [method.upper() for method in names], handler)
            return handler

        return register

    def get(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer GET and HEAD on `path`; see `route`."""
        return self.route(path, ("GET",))

    def post(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer POST on `path`; see `route`."""
        return self.route(path, ("POST",))

    def put(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer PUT on `path`; see `route`."""
        return self.route(path, ("PUT",))

    def patch(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer PATCH on `path`; see `route`."""
        return self.route(path, ("PATCH",))

    def delete(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Answer DELETE on `path`; see `route`."""
        return self.route(path, ("DELETE",))

    def static(
        self,
        folder: str | os.PathLike[str],
        at: str = "/",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """Serve the files of `folder` below the URL path `at`.

        `cache_bytes` bounds the memory for small files. Raises ValueError for a path that does not
        begin with `/` or is taken, FileNotFoundError and NotADirectoryError for a wrong folder.
        """
        if not at.startswith("/"):
            raise ValueError(f"a folder is served at a path that begins with /, not {at!r}")
        prefix = at if at.endswith("/") else f"{at}/"
        if any(prefix == other for other, _ in self._folders):
            raise ValueError(f"there is a folder at {at} already")
        self._folders.append((prefix, StaticFolder(folder, prefix, cache_bytes)))
        self._folders.sort(key=lambda pair: len(pair[0]), reverse=True)

    # Answering

    def kept(self, path: str, now: float) -> Response | None:
        """Return the response to a plain GET of a raw path if it is in memory, whole and current.

        Only what `answer` would find in a folder is ever there. `now` is the monotonic time.
        """
        for prefix, folder in self._folders:
            if path.startswith(prefix):
                return folder.kept(path, now)
        return None

    def answer(self, request: Request, now: float) -> Response | Awaitable[Response]:
        """Answer a request, or return what to await for the answer.

        Raises HTTPError 404, and 405 with `Allow` (RFC 9110 section 15.5.6); whatever a plain
        handler raises comes through.
        """
        if request.method == "CONNECT" and not request.protocol:
            raise HTTPError(501, "this server is no proxy")
        if request.target == "*" and request.method == "OPTIONS":  # of the whole server
            return Response(b"", 204, [("allow", "GET, HEAD, OPTIONS")])
        found = self._router.find(request.raw_path)
        if found is not None:
            route, params = found
            handler = route.handler(request.method)
            if handler is not None:
                request.params = params
                request.route = route.path
                return handler(request)
            if request.method == "OPTIONS":
                return Response(b"", 204, [("allow", route.allow())])
            raise HTTPError(405, headers=(("allow", route.allow()),))
        for prefix, folder in self._folders:
            if request.raw_path.startswith(prefix):
                if request.method == "OPTIONS":
                    return Response(b"", 204, [("allow", "GET, HEAD, OPTIONS")])
                request.route = f"{prefix}*"
                return folder.answer(request, now)
            if f"{request.raw_path}/" == prefix:
                _, mark, query = request.target.partition("?")
                return Response.redirect(f"{prefix}{mark}{query}", 308)
        raise HTTPError(404)
