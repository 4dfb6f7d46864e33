"""The files that an application is made of, and who watches them: `h2log run --reload`.

    sources = Sources(["."], [], ["migrations"], settings.log)
    await sources.watch()                  # from now on nothing is missed
    files = await sources.changed()        # gathered since then, or since the last time

`watchfiles` (extra `watch`) tells what changes. What counts is `*.py`, and what `include` has,
below the folders; not what `exclude` has, nor what is hidden or somebody else's: `.git`,
`__pycache__`, `node_modules`, virtual environments. A pattern is for a file's name, for its path
below the folder, or for a folder that it is in.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import shlex
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

from h2log.clock import monotonic
from h2log.config import LogSettings
from h2log.config.settings import is_file_path
from h2log.errors import UsageError

__all__ = ["Sources"]

_logger = logging.getLogger("h2log.workers")

_INCLUDED: Final = ("*.py",)
_EXCLUDED: Final = (".*", "__pycache__", "node_modules", "site-packages", "venv", "env")
_DEBOUNCE: Final = 400
_STEP: Final = 50
"""Milliseconds for which changes are gathered at most, and for which it has to be quiet: an editor
or a checkout writes many files, and all of them are one change."""
_MOST_TOLD: Final = 10
"""Files that are named of one change."""
_AT_ONCE: Final = 1.0
"""Seconds after a start in which a change may come of the start itself."""
_OFTEN: Final = 3
"""Times in a row that the same files have so changed, before somebody is told."""


class Sources:
    """Files below `folders` whose change asks for another start of the application.

    The files of `log` never count: a reload writes to them itself. Raises UsageError where
    `watchfiles` is not installed, and for a folder that is none.
    """

    def __init__(
        self,
        folders: Iterable[str],
        include: Iterable[str],
        exclude: Iterable[str],
        log: LogSettings,
    ) -> None:
        try:
            self._watchfiles: Any = importlib.import_module("watchfiles")
        except ImportError:
            raise UsageError(
                "--reload needs watchfiles; install it with: pip install 'h2log[watch]'"
            ) from None
        self._folders = tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders))
        for folder in self._folders:
            if not os.path.isdir(folder):
                raise UsageError(f"no folder {folder} to watch; name an existing one")
        self._include = (*_INCLUDED, *include)
        self._exclude = tuple(pattern.rstrip("/") for pattern in (*_EXCLUDED, *exclude))
        paths = (*(output.path for output in log.outputs), log.session.path, log.app.path)
        self._logs = frozenset(os.path.realpath(path) for path in paths if is_file_path(path))
        # Closed files of a rotation are called after the log, most often.
        self._closed_logs = tuple(f"{path}." for path in self._logs)
        self._changed: set[str] = set()
        self._before: set[str] = set()  # what had changed the last time
        self._in_a_row = 0  # changes of the same files, each at once after a start
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        """Return what is watched, for people."""
        return f"{' '.join(self._include)} in {', '.join(self._folders)}"

    def counts(self, path: str) -> bool:
        """Say whether the change of a file matters."""
        if path in self._logs or path.startswith(self._closed_logs):
            return False
        for folder in self._folders:
            below = os.path.relpath(path, folder)
            if below.startswith(os.pardir):
                continue
            excluded = any(
                fnmatchcase(part, pattern) for part in _parts(below) for pattern in self._exclude
            )
            names = (os.path.basename(below), below)
            if not excluded and any(
                fnmatchcase(name, pattern) for name in names for pattern in self._include
            ):
                return True
        return False

    def _short(self, path: str) -> str:
        """Return a file's path as people call it, below the folder that is watched."""
        folder = next((f for f in self._folders if path.startswith(f"{f}{os.sep}")), "")
        return path.removeprefix(f"{folder}{os.sep}")

    async def watch(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)  # its first step is to have the system watch

    async def changed(self) -> list[str]:
        """Return the files that have changed since the last time, as soon as there are any.

        When they are many, the last item is how many more there are. To be called when what comes
        of a change is done: a start that changes files itself would start for ever, and the remedy
        is logged.
        """
        began = monotonic()
        await self._news.wait()
        self._news.clear()
        found, self._changed = self._changed, set()
        names = [self._short(path) for path in sorted(found)]
        again = found <= self._before and monotonic() - began < _AT_ONCE
        self._in_a_row = self._in_a_row + 1 if again else 0
        self._before = found
        if self._in_a_row == _OFTEN:
            _logger.warning(
                "%s changes whenever the application starts, which starts it again: leave it out "
                "with --reload-exclude %s",
                names[0],
                shlex.quote(names[0]),
            )
        more = len(names) - _MOST_TOLD
        return [*names[:_MOST_TOLD], f"and {more} more"] if more > 1 else names

    async def stop(self) -> None:
        """Watch no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _watch(self) -> None:
        try:
            async for changes in self._watchfiles.awatch(
                *self._folders,
                watch_filter=lambda change, path: self.counts(path),
                debounce=_DEBOUNCE,
                step=_STEP,
                ignore_permission_denied=True,
            ):
                self._changed |= {path for _, path in changes}
                self._news.set()
        except Exception as error:  # too many folders for the system's inotify, for one
            _logger.error(
                "cannot watch %s: %s; changes are not noticed", ", ".join(self._folders), error
            )


def _parts(path: str) -> Iterator[str]:
    """Yield the names in a path, and the path up to each."""
    whole = ""
    for name in path.split(os.sep):
        whole = f"{whole}{os.sep}{name}" if whole else name
        yield name
        yield whole
