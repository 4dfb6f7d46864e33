"""The log files of the process that owns them: by generation of workers, and shared between them.

A generation is what one reading of the settings has set up. An output that a newer one sets up in
the same way goes on; one that differs is opened anew, and takes also the lines of older workers.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec

from h2log.access.record import AccessRecord, Session
from h2log.access.session_formats import SESSION_FORMATS
from h2log.config import LogSettings
from h2log.config.settings import is_file_path
from h2log.logfile.applog import AppLog, configure
from h2log.logfile.destination import kind_of
from h2log.logfile.health import Health
from h2log.logfile.selection import Selection
from h2log.logfile.writer import STDERR, STDOUT
from h2log.server.logs import (
    access_line,
    access_writer,
    app_log,
    redaction_of,
    session_writer,
    skip_of,
)
from h2log.workers.blocks import BlockWriter
from h2log.workers.marks import Mark, Marks, Written
from h2log.workers.messages import APP, SESSION

__all__ = ["Outputs", "Place", "lines_of"]

_TAIL: Final = 64 * 1024 * 1024
"""Bytes at a file's end among which the beginning of its last line is looked for."""
_NOTHING: Final = (0, 0, 0)


class Place:
    """An output: its writer, which may be replaced by another for the same path."""

    def __init__(self, writer: BlockWriter, settings: object, app: AppLog | None) -> None:
        self.writer = writer
        self.settings = settings
        self.app = app
        self.selection: Selection | None = None
        """What makes lines of records, for an output of the access log."""
        self.immediate = False
        self.mark: Mark | None = None
        """Where it is put down what is written."""
        self.before: Written = {}
        """What another process has written of that which workers send again."""
        self.came: dict[int, int] = {}
        """By worker: how many of its lines have come, or were told to be missing."""

    def upto(self, worker: int) -> int:
        """Return how many of a worker's lines are accounted for, here or by another process."""
        return max(self.came.get(worker, 0), self.before.get(worker, _NOTHING)[2])

    def written(self, worker: int) -> int:
        """Return the last turn of a worker of which another process has written something."""
        return self.before.get(worker, _NOTHING)[0]

    def forget(self, worker: int) -> None:
        """Nothing of a worker will come again."""
        self.before.pop(worker, None)
        self.came.pop(worker, None)

    def unwritten(self, worker: int, turn: int, text: bytes) -> bytes:
        """Return the lines of a worker's turn that no other process has written."""
        last, lines, upto = self.before.get(worker, _NOTHING)
        if turn != last:
            return text if turn > last else b""
        known = text.split(b"\n", lines)
        self.before[worker] = (last, lines - len(known) + 1, upto)
        return known[-1]

    def told(self, worker: int, last: int) -> bool:
        """Say whether another process has told what became of a worker's lines up to `last`."""
        return 0 < last <= self.before.get(worker, _NOTHING)[2]

    async def open(self) -> None:
        """Open. Raises UsageError."""
        await (self.app or self.writer).open()

    async def close(self) -> None:
        """Write what is left, and close."""
        await (self.app or self.writer).close()


class _Generation:
    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self.places: dict[int, Place] = {}


class Outputs:
    """Every open output. Use: `await configure(…)`, then `place` for what a worker has sent."""

    def __init__(self) -> None:
        self._generations: dict[int, _Generation] = {}
        self._open: dict[str, Place] = {}
        self.marks: Marks | None = None
        """What is written, for the next process: to be set before anything is opened."""

    async def configure(self, number: int, settings: LogSettings, *, again: bool) -> None:
        """Set up a generation. Raises UsageError when an output cannot be opened; nothing changes.

        `again` says that another process wrote to these files until it was killed: the end of one
        is made whole lines again.
        """
        generation = _Generation(settings)
        redact = redaction_of(settings)
        wanted: dict[str, tuple[int, msgspec.Struct]] = {}
        for index, output in enumerate(settings.outputs):
            if kind_of(output.path) != "logger":
                wanted[_key("access", output.path, wanted)] = (index, output)
        if settings.session.path and kind_of(settings.session.path) != "logger":
            wanted[_key("session", settings.session.path, wanted)] = (SESSION, settings.session)
        wanted[_key("app", settings.app.path, wanted)] = (APP, settings.app)
        opened: dict[str, Place] = {}
        try:
            for key, (index, wish) in wanted.items():
                place = self._open.get(key)
                if place is None or place.settings != (wish, settings.redact):
                    place = opened[key] = _place(index, wish, settings, redact)
                    self._resume(key, place, again=again)
                    await place.open()
                generation.places[index] = place
        except BaseException:
            for place in opened.values():
                if again:  # what is known of another process is for the next one
                    place.mark = None
                await self._close(place)
            raise
        for key, place in opened.items():
            old = self._open.get(key)
            if old is None:
                self._open[key] = place
                continue
            for other in self._generations.values():
                for index, known in other.places.items():
                    if known is old:
                        other.places[index] = place
            self._open[key] = place
            await self._close(old)
        self._generations[number] = generation
        configure(settings.level, console=False)

    def _resume(self, key: str, place: Place, *, again: bool) -> None:
        """Have a new output go on behind what another process wrote, if one did.

        What was opened before it for the same path, and is still at work, has looked already.
        """
        path = place.writer.path
        if self.marks is not None:
            place.mark, place.before = self.marks.take(key, path)
            if place.mark is not None:
                place.writer.watched(place.mark)
        if (old := self._open.get(key)) is not None:
            place.before, place.came = old.before, old.came
            place.writer.follow(old.writer)
        elif again and is_file_path(path):
            _cut_last_line(path)

    async def _close(self, place: Place) -> None:
        await place.close()
        if self.marks is not None and place.mark is not None:
            self.marks.leave(place.mark)

    async def forget(self, number: int) -> None:
        """A generation has no workers any more: close what only it had."""
        self._generations.pop(number, None)
        used = {id(place) for g in self._generations.values() for place in g.places.values()}
        for key, place in list(self._open.items()):
            if id(place) not in used:
                del self._open[key]
                await self._close(place)

    async def close(self) -> None:
        """Write what is left and close all; the application's log is the last."""
        places = list(self._open.values())
        # At the same time: one that is stuck takes no time from the others.
        await asyncio.gather(*(place.close() for place in places if place.app is None))
        await asyncio.gather(*(place.close() for place in places if place.app is not None))

    def place(self, generation: int, index: int) -> Place | None:
        """Return an output of a generation; None for one that is gone or none of ours."""
        found = self._generations.get(generation)
        return None if found is None else found.places.get(index)

    def access(self, generation: int) -> list[Place]:
        """Return the outputs of requests."""
        found = self._generations.get(generation)
        if found is None:
            return []
        return [place for place in found.places.values() if place.selection is not None]

    def dismiss(self, worker: int) -> None:
        """The end of a worker is told, and known to be: nothing of it will come again."""
        if self.marks is not None:
            self.marks.forget(worker)
        for place in self._open.values():
            place.forget(worker)

    def session_line(self, generation: int, session: Session) -> str:
        """Return the line of a session's end, nothing without a session log."""
        found = self._generations.get(generation)
        if found is None or SESSION not in found.places:
            return ""
        return SESSION_FORMATS[found.settings.session.format](("closed", session))

    @property
    def all(self) -> list[BlockWriter]:
        """The writers of all."""
        return [place.writer for place in self._open.values()]

    @property
    def app(self) -> AppLog | None:
        """The newest generation's application log."""
        if not self._generations:
            return None
        return self._generations[max(self._generations)].places[APP].app

    def reopen(self) -> None:
        """Look at once whether the paths still name the open files."""
        for writer in self.all:
            writer.reopen()

    def health(self) -> list[Health]:
        """Return how each of them does."""
        return [writer.health() for writer in self.all]

    @property
    def full(self) -> bool:
        """Whether lines are not to come for now: one has made requests wait, or is behind.

        An output that cannot be written is no reason: it drops lines, and knows why.
        """
        return any(writer.overloaded or writer.behind for writer in self.all)

    def flush_standard(self) -> bool:
        """Have what there is for standard output and error written; return whether some is left.

        What cannot be written now does not count: its writer waits, and then tries again.
        """
        places = list(self._open.values())
        consoles = [place.app.console for place in places if place.app is not None]
        writers = [place.writer for place in places if place.writer.path in (STDOUT, STDERR)]
        busy = False
        for writer in (*writers, *filter(None, consoles)):
            if writer.health().queued_bytes and not writer.failing:
                writer.flush_soon()
                busy = True
        return busy

    @property
    def stuck(self) -> bool:
        """Whether a thread of any could not be ended."""
        return any((place.app or place.writer).stuck for place in self._open.values())


def _key(what: str, path: str, taken: dict[str, Any]) -> str:
    """Return a name for an output: what has the same is the same place."""
    where = os.path.abspath(path) if is_file_path(path) else path
    key, count = f"{what} {where}", 1
    while key in taken:  # streams may be named more than once
        count += 1
        key = f"{what} {where} {count}"
    return key


def _place(index: int, output: Any, settings: LogSettings, redact: Any) -> Place:
    set_up = (output, settings.redact)
    if index == APP:
        app = app_log(output, BlockWriter)
        assert isinstance(app.writer, BlockWriter)
        return Place(app.writer, set_up, app)
    if index == SESSION:
        return Place(session_writer(BlockWriter, output), set_up, None)
    place = Place(access_writer(BlockWriter, output, redact), set_up, None)
    skip = skip_of(output.skip) if output.skip else None
    place.selection = Selection(access_line(output, redact), skip)
    place.immediate = output.immediate
    return place


def _cut_last_line(path: str) -> None:
    """Cut off what was begun of a line at a file's end: it will come again."""
    try:
        with open(path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail) and (whole or size <= _TAIL):
                file.truncate(size - len(tail) + whole)
    except (OSError, ValueError):  # not there, or no file that could be read
        pass


def lines_of(place: Place, records: list[AccessRecord]) -> list[tuple[int, bytes, str]]:
    """Return the blocks that an output has for `records`, or why it has none.

    With each stands the place in `records` of the last one that it is for, from 1.
    """
    if place.selection is None or not records:
        return []
    found = {id(record): number for number, record in enumerate(records, 1)}
    return [
        (found[id(kept[-1])], text, failed) for kept, text, failed in place.selection.lines(records)
    ]
