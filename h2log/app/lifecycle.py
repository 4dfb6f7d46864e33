"""What an application does before it is served and after: open its database, and close it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

__all__ = ["Hook", "Lifecycle", "start_all", "stop_all"]

_logger = logging.getLogger("h2log.app")

Hook = Callable[[], Awaitable[Any] | Any]
"""A plain or an `async` function without arguments."""


class Lifecycle:
    """The hooks of an application, in the order of their registration."""

    def __init__(self) -> None:
        self.starts: list[Hook] = []
        self.stops: list[Hook] = []

    async def start(self) -> None:
        """Call the hooks of the start, first to last; what one raises comes through."""
        for hook in self.starts:
            await _call(hook)

    async def stop(self) -> None:
        """Call the hooks of the stop, last to first; what one raises is logged, and the rest go on.

        What was opened last may need what was opened before it.
        """
        for hook in reversed(self.stops):
            try:
                await _call(hook)
            except Exception:
                name = getattr(hook, "__qualname__", repr(hook))
                _logger.exception("the application's %s failed at the stop", name)


async def _call(hook: Hook) -> None:
    result = hook()
    if isinstance(result, Awaitable):
        await result


async def start_all(lifecycles: Iterable[Lifecycle]) -> list[Lifecycle]:
    """Start several, each once; when one fails, stop those that were started and raise."""
    started: list[Lifecycle] = []
    for lifecycle in dict.fromkeys(lifecycles):
        try:
            await lifecycle.start()
        except BaseException:
            # Its own too: what it opened before it failed is open.
            await stop_all([*started, lifecycle])
            raise
        started.append(lifecycle)
    return started


async def stop_all(lifecycles: Iterable[Lifecycle]) -> None:
    """Stop several, the last first."""
    for lifecycle in reversed(list(lifecycles)):
        await lifecycle.stop()
