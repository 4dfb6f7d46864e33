"""What is served, named so that another process can make it: an application, or a folder."""

from __future__ import annotations

import os

import msgspec

from h2log.app.application import App
from h2log.config import Settings
from h2log.config.imports import import_object
from h2log.errors import UsageError

__all__ = ["Program", "count_of", "load_application"]


def count_of(settings: Settings) -> int:
    """Return the number of workers: `auto` is one for each processor that we may use."""
    workers = settings.server.workers
    if workers != "auto":
        return workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not on Linux


class Program(msgspec.Struct, frozen=True):
    """An application by its name, `module:attribute`, or without one the folder `root`."""

    target: str | None = None
    root: str = ""

    def build(self, settings: Settings, workers: int = 1) -> App:
        """Return the application, for one of `workers` processes or more.

        Raises UsageError for a folder or a name that is none, and for an application that keeps in
        a process what the next one would need.
        """
        if self.target is not None:
            app = load_application(self.target)
            server = settings.server
            several = max(workers, count_of(settings)) > 1
            if several or server.max_requests or server.max_rss:
                _require_shared(app, self.target, several=several)
            return app
        app = App()
        try:
            app.static(
                self.root, cache_bytes=settings.limits.static_cache, **settings.static.options()
            )
        except FileNotFoundError:
            raise UsageError(f"no folder {self.root}; name an existing one") from None
        except NotADirectoryError:
            raise UsageError(f"{self.root} is not a folder; name the folder to serve") from None
        except OSError as error:
            raise UsageError(f"cannot use the folder {self.root}: {error.strerror}") from None
        return app


def load_application(target: str) -> App:
    """Return the application that `module:attribute` names.

    Raises UsageError as `import_object`, and for what is none.
    """
    found = import_object(target)
    if not isinstance(found, App):
        raise UsageError(f"{target} is {type(found).__name__}, expected an h2log.App")
    return found


def _require_shared(app: App, target: str, *, several: bool) -> None:
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
