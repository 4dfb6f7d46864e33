"""What is served, named so that another process can make it: an application, or a folder."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from h2log.app.interfaces import described, interface_of, is_async, parameters_of, single
from h2log.config import AppSettings, Settings
from h2log.config.imports import import_object, make_importable, own_error
from h2log.errors import UsageError

# A program is also a word in a message: who only passes it on need not load what answers.
if TYPE_CHECKING:
    from h2log.app.application import App
    from h2log.app.asgi import AsgiApp

__all__ = ["Program", "count_of", "load_application"]

_EXPECTED: Final = "expected an h2log.App, an ASGI or a WSGI application"
_NAMES: Final = {
    "h2log": "an h2log.App",
    "asgi3": "an ASGI 3 application",
    "asgi2": "an ASGI 2 application",
    "wsgi": "a WSGI application",
}
_SERVED: Final = {"wsgi": "HTTP, in threads"}
"""What of it is served; of ASGI, what the specification has."""


def count_of(settings: Settings) -> int:
    """Return the number of workers: `auto` is one for each processor that we may use."""
    workers = settings.server.workers
    if workers != "auto":
        return workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not on Linux


class Program(msgspec.Struct, frozen=True):
    """The folder `root`, or without one the application of the settings, `[app]`."""

    root: str | None = None

    def build(self, settings: Settings, workers: int = 1) -> App | AsgiApp:
        """Return the application, for one of `workers` processes or more.

        Raises UsageError for a folder or a name that is none, and for an application that keeps in
        a process what the next one would need.
        """
        if self.root is None:
            app = load_application(settings.app)
            server = settings.server
            several = max(workers, count_of(settings)) > 1
            if several or server.max_requests or server.max_rss:
                _require_shared(app, settings.app.target, several=several)
            return app
        return _folder(self.root, settings)


def _folder(root: str, settings: Settings) -> App:
    from h2log.app.application import App

    app = App()
    try:
        app.static(root, cache_bytes=settings.limits.static_cache, **settings.static.options())
    except FileNotFoundError:
        raise UsageError(f"no folder {root}; name an existing one") from None
    except NotADirectoryError:
        raise UsageError(f"{root} is not a folder; name the folder to serve") from None
    except OSError as error:
        raise UsageError(f"cannot use the folder {root}: {error.strerror}") from None
    return app


def load_application(settings: AppSettings) -> App | AsgiApp:
    """Return the application that the settings name, whatever its interface, as one of two.

    Raises UsageError as `import_object`, for what is none, and for a factory that fails.
    """
    make_importable(settings.dir)
    target = settings.target
    found = import_object(target, "run it from the folder that has it, or name that with --app-dir")
    if settings.factory:
        found = _made(target, found)
        target = f"{target}()"
    kind = _kind(target, found, settings)
    if kind == "h2log":
        own: App = found
        return own
    from h2log.app.asgi import AsgiApp

    call = found
    if kind == "wsgi":
        from h2log.app.wsgi import wsgi

        call = wsgi(found, settings.threads)
    elif kind == "asgi2":
        call = single(found)
    app = AsgiApp(
        call,
        target,
        root_path=settings.root_path,
        lifespan="off" if kind == "wsgi" else settings.lifespan,
    )
    served = _SERVED.get(kind, f"HTTP and WebSocket, lifespan {settings.lifespan}")
    app.about = f"{target} is {_NAMES[kind]}: {served}"
    return app


def _made(target: str, factory: Any) -> Any:
    """Return what a factory makes."""
    if not callable(factory):
        raise UsageError(
            f"{target} is {described(factory)}, expected a factory: leave out --factory"
        )
    if is_async(factory):
        remedy = "what has to be awaited belongs into the application's lifespan"
        if interface_of(factory):
            remedy = "leave out --factory"
        raise UsageError(
            f"{target} is {described(factory)}; a factory is a plain function: {remedy}"
        )
    missing = [
        parameter.name
        for parameter in parameters_of(factory) or ()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if missing:
        raise UsageError(
            f"{target} is {described(factory)}; a factory is called without arguments"
            + (": leave out --factory" if interface_of(factory) else "")
        )
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{target}() failed: {own_error(error)}") from None
    if inspect.iscoroutine(made):
        made.close()
        raise UsageError(f"{target}() is to be awaited; a factory is a plain function")
    if made is None:
        raise UsageError(f"{target}() returned None, {_EXPECTED}")
    return made


def _kind(target: str, found: Any, settings: AppSettings) -> str:
    """Return what interface an application has, as configured, or as it looks."""
    from h2log.app.application import App

    wanted = settings.interface
    if isinstance(found, App) or wanted == "h2log":
        if not isinstance(found, App):
            raise UsageError(f"{target} is {described(found)}, expected an h2log.App")
        if wanted not in ("auto", "h2log"):
            raise UsageError(
                f"{target} is an h2log.App, not {_NAMES[wanted]}; leave out --interface {wanted}"
            )
        return "h2log"
    if wanted != "auto":
        if not callable(found):
            raise UsageError(f"{target} is {described(found)}, expected {_NAMES[wanted]}")
        return wanted
    kind = interface_of(found)
    if kind is None:
        raise UsageError(f"{target} is {described(found)}, {_EXPECTED}{_hint(found, settings)}")
    return kind


def _hint(found: Any, settings: AppSettings) -> str:
    """Return what may help with something that does not look like an application."""
    if not callable(found):
        return ""
    parameters = parameters_of(found)
    if parameters is None:
        return "; say which with --interface"
    required = [p for p in parameters if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in required):
        return "; say which with --interface"
    if required or settings.factory:
        return ""
    if is_async(found):
        return "; a factory is a plain function"
    return "; if it makes the application, add --factory"


def _require_shared(app: App | AsgiApp, target: str, *, several: bool) -> None:
    """Raise UsageError when a middleware says that what it keeps is not `shared`."""
    if all(getattr(middleware, "shared", True) for middleware in app.middlewares()):
        return
    why = (
        "with several workers each would have its own"
        if several
        else "a worker that is replaced (max_requests, max_rss) would take them along"
    )
    raise UsageError(
        f"{target} keeps user sessions in the memory of its process, and {why}: give its "
        "UserSessions a store for all, SqliteStore or RedisStore, and one secret"
        + (", or run it with --workers 1" if several else "")
    )
