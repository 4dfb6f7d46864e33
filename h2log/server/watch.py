"""Pages that load anew when a file changes, for authors: who watches the disk, and who is told.

A folder with the option `watch` puts a script into its pages (`app.files.reload`); the script opens
an event stream, which the folder has answered here. `watchfiles` (extra `watch`) tells what changes
below the folders' roots; each open page is sent an event with the addresses of that.

    watcher = Watcher(folders)
    await watcher.start()   # before the first request
    await watcher.stop()    # when the server begins to drain: it ends the streams

"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any, Final

from h2log.app.events import Event
from h2log.app.files.paths import coded
from h2log.app.response import Response
from h2log.app.static import StaticFolder
from h2log.errors import HTTPError, UsageError

__all__ = ["MOST_PAGES", "Watcher"]

_logger = logging.getLogger("h2log.watch")

MOST_PAGES: Final = 100
"""Pages that may listen at once: an author has a few open, and each is a request that stays."""
_MOST_PENDING: Final = 1000
"""Addresses that are remembered for a page that does not read; beyond, all may have changed."""
_DEBOUNCE: Final = 200
_STEP: Final = 30
"""Milliseconds for which changes are gathered at most, and for which it has to be quiet: a build
writes many files, and a page should load once for all of them."""


class _Page:
    """An open page: what changed since it was told last."""

    def __init__(self) -> None:
        self.pending: set[str] = set()
        self.changed = asyncio.Event()

    def tell(self, paths: set[str], everything: str) -> None:
        self.pending |= paths
        if len(self.pending) > _MOST_PENDING:
            self.pending = {everything}
        self.changed.set()


class Watcher:
    """Watches the folders that have the option `watch`, and tells their open pages.

    Raises UsageError where `watchfiles` is not installed.
    """

    def __init__(self, folders: Iterable[StaticFolder]) -> None:
        try:
            self._watchfiles: Any = importlib.import_module("watchfiles")
        except ImportError:
            raise UsageError(
                "to watch files needs watchfiles; install it with: pip install 'h2log[watch]'"
            ) from None
        self._pages: dict[StaticFolder, set[_Page]] = {f: set() for f in folders if f.watched}
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def listening(self) -> int:
        """How many pages wait to be told."""
        return sum(map(len, self._pages.values()))

    async def start(self) -> None:
        """Begin to watch; pages that are answered from now on are told of changes."""
        for folder in self._pages:
            folder.changes = partial(self._answer, folder)
        if self._pages:
            self._task = asyncio.get_running_loop().create_task(self._watch())
            await asyncio.sleep(0)  # its first step is to have the system watch

    async def stop(self) -> None:
        """Stop watching, and end the event streams."""
        self._stopped = True
        for pages in self._pages.values():
            for page in pages:
                page.changed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _watch(self) -> None:
        roots = sorted({folder.root for folder in self._pages})
        try:
            async for changes in self._watchfiles.awatch(
                *roots,
                watch_filter=None,
                debounce=_DEBOUNCE,
                step=_STEP,
                ignore_permission_denied=True,
            ):
                self._tell({path for _, path in changes})
        except Exception as error:  # too many folders for the system's inotify, for one
            _logger.error("cannot watch %s: %s; pages do not load anew", ", ".join(roots), error)

    def _tell(self, files: set[str]) -> None:
        """Tell each folder's pages which of its addresses may have changed."""
        for folder, pages in self._pages.items():
            paths = set()
            for file in files:
                names = os.path.relpath(file, folder.root).split(os.sep)
                # What is hidden is not served, and `..` is another folder's: both begin with a dot.
                if not any(name.startswith(".") for name in names):
                    paths.add(folder.prefix + coded(names))
            if paths:
                _logger.debug("changed: %s", ", ".join(sorted(paths)))
                for page in pages:
                    page.tell(paths, folder.prefix)

    def _answer(self, folder: StaticFolder) -> Response:
        """Answer a page that wants to be told. Raises HTTPError 503 when very many do."""
        if self._stopped or self.listening >= MOST_PAGES:
            raise HTTPError(503, "too many pages are open")
        return Response.events(self._changes(folder))

    async def _changes(self, folder: StaticFolder) -> AsyncIterator[Event]:
        page = _Page()
        self._pages[folder].add(page)
        try:
            yield Event(comment="watching", retry=500)
            while True:
                await page.changed.wait()
                if self._stopped:
                    return
                page.changed.clear()
                paths, page.pending = page.pending, set()
                yield Event("\n".join(sorted(paths)), event="change")
        finally:
            self._pages[folder].discard(page)
