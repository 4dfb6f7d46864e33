"""What an application and all that is mounted in it answer, in one table.

Of what could answer a path: a route, wherever it was registered; else, within the application that
is mounted closest to the path, the folder with the longest prefix; else the route that differs in
its last slash, by a redirect; else 404. What nothing answers (404, 405) is an error of that
application, so that its middleware and its error handlers see it, and then those around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, NoReturn

from h2log.app.middleware import Continued, Layer, entered, guard, surround
from h2log.app.patterns import Pattern, canonical, covers
from h2log.app.registry import Registry
from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.app.router import EXTENDED_CONNECT, Answer, Handler, Router, Target, allow
from h2log.app.static import StaticFolder
from h2log.errors import HTTPError

__all__ = ["Table"]

_KNOWN_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY", EXTENDED_CONNECT)
)
"""Methods that are recognised whether a route has them or not (RFC 9110 section 9.3, RFC 5789,
draft-ietf-httpbis-safe-method-w-body): not allowed is 405, any other is 501 (section 9.1)."""
_FOLDER_ALLOWS: Final = "GET, HEAD, OPTIONS"
_MAX_CLEAR: Final = 4096
"""Paths of kept files that are remembered as no route's."""
_MAX_CLEAR_LENGTH: Final = 512


class _Scope:
    """An application where it is mounted: its prefix, and what surrounds its answers."""

    __slots__ = ("_enters", "_errors", "_layers", "_parent", "prefix", "text")

    def __init__(self, registry: Registry, prefix: str, text: str, parent: _Scope | None) -> None:
        self.prefix = prefix
        self.text = text
        self._parent = parent
        self._layers = [layer._replace(prefix=prefix + layer.prefix) for layer in registry.layers]
        self._errors = registry.errors
        # Middleware is shown the prefix of its application; what it calls sets its own again.
        self._enters = any(scope._layers for scope in self.outwards() if scope is not self)

    def outwards(self) -> Iterator[_Scope]:
        """Yield this scope, and each that it is in."""
        scope: _Scope | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def layers(self, *, folder: bool) -> Iterator[Layer]:
        """Yield the middleware around a handler, or a folder, of this application."""
        for scope in self.outwards():
            yield from (layer for layer in scope._layers if layer.static or not folder)

    def wrap(self, call: Handler, *, folder: bool = False) -> Handler:
        """Return `call` with what surrounds it, here and outwards: itself where that is nothing."""
        if self._enters:
            call = entered(call, self.prefix)
        for scope in self.outwards():
            for layer in reversed(scope._layers):
                if layer.static or not folder:
                    call = surround(call, layer, scope.prefix)
            if scope._errors:
                call = guard(call, scope._errors, scope.prefix)
        return call


class _Files(NamedTuple):
    """A folder where it is served."""

    prefix: str
    folder: StaticFolder
    scope: _Scope
    fallthrough: bool


Kept = tuple[str, Callable[[str, float, str], Response | None], "set[str] | None"]
"""A folder's prefix; what returns a response that it keeps in memory; the paths of which it is
known that nothing is preferred to the folder, or None where nothing ever is."""


class Table:
    """What answers a request, compiled from what was registered.

    Raises UsageError when a folder that was there has gone.
    """

    def __init__(self, registry: Registry) -> None:
        self._router = Router()
        self.fixed: Final = self._router.fixed
        """See `Router`."""
        self._scopes: list[_Scope] = []
        self._folders: list[_Files] = []
        root = self._root = _Scope(registry, "", "", None)
        self._gather(registry, root)
        # The innermost of several at one prefix owns it: an application mounted at `/`.
        self._scopes.sort(key=lambda scope: len(scope.prefix))
        self._scopes.reverse()
        self._folders.sort(key=lambda files: -len(files.prefix))
        self._methods = _KNOWN_METHODS | self._router.methods
        # Where middleware surrounds a part of a folder, whose other files are kept.
        self._barred: list[str] = []
        self.kept: Final[list[Kept]] = [self._keeping(files) for files in self._folders]
        """The folders, in the order in which they are looked for."""

    def _gather(self, registry: Registry, scope: _Scope) -> None:
        self._scopes.append(scope)
        lead = tuple(scope.prefix.split("/")[1:])
        for route in registry.routes:
            own = route.pattern
            pattern = Pattern(scope.text + own.text, lead + own.segments, own.names)
            call = route.handler
            if route.errors is not None:
                call = guard(call, route.errors, scope.prefix)
            target = Target(scope.wrap(call), pattern.text, pattern.names, scope.prefix)
            methods = [EXTENDED_CONNECT if m == "CONNECT" else m for m in route.methods]
            self._router.add(pattern, methods, target)
        for folder in registry.folders:
            prefix = scope.prefix + folder.prefix
            self._folders.append(_Files(prefix, folder.at(prefix), scope, folder.fallthrough))
        for mount in registry.mounts:
            inner = _Scope(
                mount.registry, scope.prefix + mount.prefix, scope.text + mount.text, scope
            )
            self._gather(mount.registry, inner)

    def folders(self) -> Iterator[StaticFolder]:
        """Yield what serves the folders, in the order in which they are looked for."""
        return (files.folder for files in self._folders)

    # What folders keep in memory

    def _keeping(self, files: _Files) -> Kept:
        barred = []
        for layer in files.scope.layers(folder=True):
            if covers(layer.prefix, files.prefix):
                return files.prefix, _nothing, None
            if layer.prefix.startswith(files.prefix):
                barred.append(layer.prefix)
        self._barred += barred
        alone = not self._router and len(self._scopes) == 1 and not barred
        return files.prefix, files.folder.kept, None if alone else set()

    def clears(self, path: str, entry: Kept) -> bool:
        """Say whether what a folder keeps for a path is what would be answered, and remember it."""
        prefix, _, clear = entry
        spelled = canonical(path)
        if any(covers(barred, spelled) for barred in self._barred):
            return False
        try:
            if self._router.allowed(path):
                return False
        except Exception:  # a converter's: for `answer` to tell
            return False
        folders = self._folders_of(spelled, self._owner(spelled))
        if not folders or folders[0].prefix != prefix:
            return False
        if clear is not None and len(path) <= _MAX_CLEAR_LENGTH:
            if len(clear) >= _MAX_CLEAR:
                clear.clear()
            clear.add(path)
        return True

    # Answering

    def answer(self, request: Request, now: float) -> Answer:
        """Answer a request, or return what to await for the answer; see `App.answer`."""
        try:
            found = self._router.find(request.raw_path, request.method)
            call = self._otherwise(request, now) if found is None else _matched(request, *found)
        except Exception as error:  # of a converter of the application's own
            call = self._failing(request, error)
        return call(request)

    def _otherwise(self, request: Request, now: float) -> Handler:
        """Return what answers a request that no route's method does."""
        method = request.method
        path = request.raw_path
        if method == "CONNECT":
            if not request.protocol:
                return self._refuse(request, self._root, 501, "this server is no proxy")
            method = EXTENDED_CONNECT
            found = self._router.find(path, method)
            if found is not None:
                return _matched(request, *found)
        if path == "*" and method == "OPTIONS":  # of the whole server (RFC 9110 section 9.3.7)
            methods = self._router.methods | ({"GET", "HEAD"} if self._folders else set())
            return self._root.wrap(_always(_options(allow(methods))))
        if method not in self._methods:
            return self._refuse(request, self._root, 501, "this server has no such method")
        if path[:1] != "/":
            return self._refuse(request, self._root, 400, "the request target is not a path")
        return self._unrouted(request, method, now)

    def _unrouted(self, request: Request, method: str, now: float) -> Handler:
        """Return what answers a request that no route does."""
        path = request.raw_path
        spelled = canonical(path)
        scope = self._owner(spelled)
        request.mounted = scope.prefix
        allowed = self._router.allowed(path)
        if allowed:
            value = allow(allowed)
            if method == "OPTIONS":
                return scope.wrap(_always(_options(value)))
            return self._refuse(request, scope, 405, headers=(("allow", value),))
        folders = self._folders_of(spelled, scope)
        location = None
        if not folders or method not in ("GET", "HEAD", "OPTIONS"):  # a file may be there
            location = self._turned(path, spelled)
        if location is not None and method != EXTENDED_CONNECT:
            return scope.wrap(_always(_redirect(request, location)))
        if folders:
            return self._file(request, folders, spelled, now)
        return self._refuse(request, scope, 404)

    def _owner(self, spelled: str) -> _Scope:
        """Return the application that is mounted closest to a path."""
        return next((s for s in self._scopes if covers(s.prefix, spelled)), self._root)

    def _refuse(
        self,
        request: Request,
        scope: _Scope,
        status: int,
        detail: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Handler:
        def refuse(request: Request) -> NoReturn:
            # Made here: an error that its own traceback leads back to is garbage that stays.
            raise HTTPError(status, detail, headers)

        request.mounted = scope.prefix
        return scope.wrap(refuse)

    def _failing(self, request: Request, error: Exception) -> Handler:
        def fail(request: Request) -> NoReturn:
            raise error

        scope = self._owner(canonical(request.raw_path))
        request.mounted = scope.prefix
        return scope.wrap(fail)

    def _turned(self, path: str, spelled: str) -> str | None:
        """Return the path that differs in its last slash, if that is a route's.

        It is the canonical one, so that it has nothing that a browser reads as a slash, and it does
        not begin with two: that would be another host (RFC 3986 section 4.2).
        """
        if spelled.startswith("//") or spelled == "/":
            return None
        other = path[:-1] if path.endswith("/") else f"{path}/"
        return canonical(other) if self._router.allowed(other) else None

    # Files

    def _folders_of(self, spelled: str, scope: _Scope) -> list[_Files]:
        """Return the folders that a path is looked for in, in order."""
        found = []
        for files in self._folders:
            # A folder's own path is its prefix without the slash, too.
            if f"{spelled}/".startswith(files.prefix) and files.prefix.startswith(
                f"{scope.prefix}/"
            ):
                found.append(files)
                if not files.fallthrough:
                    break
        return found

    def _file(self, request: Request, folders: list[_Files], spelled: str, now: float) -> Handler:
        prefix = folders[0].prefix
        scope = folders[0].scope
        request.mounted = scope.prefix
        if len(spelled) < len(prefix):
            return scope.wrap(_always(_redirect(request, prefix)), folder=True)
        if request.method == "OPTIONS":
            return scope.wrap(folders[0].folder.options, folder=True)
        if not request.raw_path.startswith(prefix):  # the prefix is coded needlessly
            return scope.wrap(_always(_redirect(request, spelled)), folder=True)

        def serve(request: Request) -> Answer:
            first = folders[0]
            if not self._router and len(folders) == 1:
                request.route = f"{first.prefix}*"
                return first.folder.answer(request, now)
            answer = _attempt(first, request, now)
            if isinstance(answer, Response) and answer.status != 404:
                return answer
            return Continued(answer, lambda answer: self._search(request, folders, now, answer))

        return scope.wrap(serve, folder=True)

    async def _search(
        self, request: Request, folders: list[_Files], now: float, answer: Answer | HTTPError
    ) -> Response:
        """Return what the first folder answers, or one that it falls through to, or a redirect."""
        missing: Response | HTTPError | None = None
        for files in folders:
            if missing is not None:
                answer = _attempt(files, request, now)
            found = await _awaited(answer)
            if isinstance(found, Response) and found.status != 404:
                _discard(missing)
                return found
            # The first page that a folder has for it is better than none.
            if isinstance(missing, Response):
                _discard(found)
            elif missing is None or isinstance(found, Response):
                missing = found
        path = request.raw_path
        location = self._turned(path, canonical(path))
        if location is not None:
            _discard(missing)
            request.route = ""
            return _redirect(request, location)
        if isinstance(missing, Response):
            return missing
        assert missing is not None
        raise HTTPError(404, missing.detail, missing.headers)


def _matched(request: Request, target: Target, values: dict[str, Any]) -> Handler:
    request.params = values
    request.route = target.pattern
    request.mounted = target.mounted
    return target.call


def _attempt(files: _Files, request: Request, now: float) -> Answer | HTTPError:
    """Return a folder's answer, or the error that says that it has nothing."""
    request.route = f"{files.prefix}*"
    try:
        return files.folder.answer(request, now)
    except HTTPError as error:
        if error.status != 404:
            raise
        return _unraised(error)


async def _awaited(answer: Answer | HTTPError) -> Response | HTTPError:
    if isinstance(answer, Response | HTTPError):
        return answer
    try:
        return await answer
    except HTTPError as error:
        if error.status != 404:
            raise
        return _unraised(error)


def _unraised(error: HTTPError) -> HTTPError:
    """Return the same error without a story: that would know the frame that keeps it."""
    return HTTPError(error.status, error.detail, error.headers)


def _discard(unsent: Response | HTTPError | None) -> None:
    if isinstance(unsent, Response) and isinstance(unsent.body, FileContent):
        unsent.body.file.close()


def _nothing(path: str, now: float, wished: str) -> None:
    """Return what a folder keeps that middleware surrounds."""


def _always(response: Response) -> Handler:
    return lambda request: response


def _options(allowed: str) -> Response:
    return Response(b"", 204, [("allow", allowed)])


def _redirect(request: Request, path: str) -> Response:
    """Return a redirect to a canonical path, with the request's query."""
    _, mark, query = request.target.partition("?")
    return Response.redirect(path + mark + query.replace("#", "%23"), 308)
