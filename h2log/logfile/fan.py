"""Several logs of the same records: one number each, any number of files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from h2log.logfile.health import Health
from h2log.logfile.writer import LogWriter

__all__ = ["LogFan", "Opening"]


class Opening(Protocol):
    """A record of a request that goes on."""

    def opening(self) -> Any:
        """Return a copy that stays as it is, but for its `sequence`."""


class LogFan:
    """Hands each record to all of its `writers`, as one writer would take it.

    `put` is the writer's own when there is one. Without any, records are counted and forgotten.
    The `immediate` writers have theirs through `opened`, when a request is, and a numbering of
    their own. Format, predicate, rotation and bound are each writer's own; a full one holds up no
    other, but `ready` waits for all.
    """

    put: Callable[[Any], None]
    """Take a finished record and give it its number."""

    def __init__(self, writers: Iterable[LogWriter], immediate: Iterable[LogWriter] = ()) -> None:
        self.finished = tuple(writers)
        """Those that write a request when it has ended."""
        self.immediate = tuple(immediate)
        """Those that write it when it was opened."""
        self.writers = (*self.finished, *self.immediate)
        self._sequence = 0
        self._opened = 0
        self._takers = [writer.take for writer in self.finished]
        self.put = self.finished[0].put if len(self.finished) == 1 else self._put

    def _put(self, record: Any) -> None:
        self._sequence = number = self._sequence + 1
        try:
            record.sequence = number
        except AttributeError:
            pass
        for take in self._takers:
            take(record)

    def opened(self, record: Opening) -> None:
        """Take a request that was just opened: what is known of it now, for it goes on changing."""
        snapshot = record.opening()
        self._opened = snapshot.sequence = self._opened + 1
        for writer in self.immediate:
            writer.take(snapshot)

    async def open(self) -> None:
        """Open all. Raises UsageError when one cannot be; the others are closed again then."""
        opened: list[LogWriter] = []
        try:
            for writer in self.writers:
                await writer.open()
                opened.append(writer)
        except BaseException:
            for writer in opened:
                await writer.close()
            raise

    async def close(self) -> None:
        """Close all, at the same time: one that is stuck takes no time from the others."""
        await asyncio.gather(*(writer.close() for writer in self.writers))

    async def flush(self) -> None:
        """Hand every record put so far to the writers' tasks."""
        for writer in self.writers:
            writer.flush_soon()

    def reopen(self) -> None:
        """Look at once whether the paths still name the open files."""
        for writer in self.writers:
            writer.reopen()

    async def ready(self) -> None:
        """Return when all have room for more lines."""
        for writer in self.writers:
            await writer.ready()

    @property
    def overloaded(self) -> bool:
        """Whether any wants no more records for now; see `ready`."""
        return any(writer.overloaded for writer in self.writers)

    @property
    def stuck(self) -> bool:
        """Whether a thread of any could not be ended."""
        return any(writer.stuck for writer in self.writers)

    @property
    def sequence(self) -> int:
        """The number of the last finished record."""
        return self.finished[0].sequence if len(self.finished) == 1 else self._sequence

    @property
    def written(self) -> int:
        """Lines written, by all."""
        return sum(writer.written for writer in self.writers)

    @property
    def dropped(self) -> int:
        """Lines dropped, by all."""
        return sum(writer.dropped for writer in self.writers)

    def health(self) -> tuple[Health, ...]:
        """Return how each of them does, in their order."""
        return tuple(writer.health() for writer in self.writers)
