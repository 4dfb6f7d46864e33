"""The log as a worker has it: records in, their lines to the owner once a turn of the loop.

Formats, predicates and masks are the ones that a single process has. At the end of each turn the
lines that it made are sent, in one message, with the requests that it has opened and left open; a
request that came or ended within the turn is in the journal meanwhile (see `journal`).

When the owner takes nothing, turns are kept up to the bound of the outputs
(`log.access.max_buffer`); then lines are dropped and counted, or, with `overload = "block"`,
requests wait before that.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from h2log.access.record import AccessRecord, Session
from h2log.access.session_formats import SESSION_FORMATS
from h2log.clock import monotonic
from h2log.config import LogSettings
from h2log.logfile.destination import kind_of
from h2log.logfile.fan import LogFan
from h2log.logfile.selection import Selection
from h2log.logfile.writer import LogWriter
from h2log.server.logs import access_line, access_writer, redaction_of, skip_of
from h2log.workers.facts import open_request, open_session, progress
from h2log.workers.journal import Journal
from h2log.workers.link import Link
from h2log.workers.messages import APP, SESSION, Hello, Span, Turn

__all__ = ["Lines"]

_FULL: Final = "the owner of the log takes nothing"


class _Missing:
    """Lines of one output that were given up, and are still to be told of."""

    __slots__ = ("first", "last", "lines", "reason")

    def __init__(self, first: int, reason: str) -> None:
        self.lines = 0
        self.first = first
        self.last = first
        self.reason = reason


class AppLines:
    """Takes the texts of the application's log (see `applog.Taker`)."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.texts: list[str] = []
        self.hurry = False
        """They are to be written without waiting for more."""

    def put(self, record: Any) -> None:
        """Take a text of one or more lines."""
        self.texts.append(record if record.endswith("\n") else f"{record}\n")
        self._lines.turn_soon()

    def flush_soon(self) -> None:
        """Have them written as soon as the owner has them: at the end of this turn."""
        self.hurry = True


class Lines:
    """Takes what a `Server` tells: `put`, `opened` and `tell`; use `link.connect` when possible.

    Outputs that are loggers of the application are written here, where its handlers are.
    """

    def __init__(self, settings: LogSettings, journal: Journal) -> None:
        self._journal = journal
        redact = redaction_of(settings)
        self._finished: list[tuple[int, Selection]] = []
        self._immediate: list[tuple[int, Selection]] = []
        loggers: list[LogWriter] = []
        loggers_immediate: list[LogWriter] = []
        for number, output in enumerate(settings.outputs):
            if kind_of(output.path) == "logger":
                writer = access_writer(LogWriter, output, redact)
                (loggers_immediate if output.immediate else loggers).append(writer)
                continue
            skip = skip_of(output.skip) if output.skip else None
            selection = Selection(access_line(output, redact), skip)
            (self._immediate if output.immediate else self._finished).append((number, selection))
        self._here = LogFan(loggers, loggers_immediate)
        self._takers = [writer.take for writer in loggers]
        self._session_line = (
            SESSION_FORMATS[settings.session.format] if settings.session.path else None
        )
        self.block = any(output.overload == "block" for output in settings.outputs)
        bounds = [output.max_buffer for output in settings.outputs] or [64 * 1024 * 1024]
        self._bound = max(bounds)
        self.app = AppLines(self)
        self.link = Link(self._greet, self._acknowledged)
        self.sequence = 0
        """The number of the last record."""
        self.dropped = 0
        self.sent = 0
        """Bytes of content of all finished requests."""
        self.requests: dict[str, AccessRecord] = {}
        """The open requests that the owner is told of, by id."""
        self._loop = asyncio.get_running_loop()
        self._due = False
        self._records: list[AccessRecord] = []
        self._opened: list[AccessRecord] = []  # since the last turn that was sent
        self._arrived: list[AccessRecord] = []  # for the immediate outputs
        self._arrivals = 0
        self._texts: list[str] = []  # of the session log
        self._session_lines = 0
        self._known: dict[str, Session] = {}  # what the owner knows, or is about to
        self._sessions: list[Session] = []
        self._gone: list[str] = []
        self._ended: list[str] = []
        self._missing: dict[int, _Missing] = {}
        self._room = asyncio.Event()

    # The request's side

    def put(self, record: AccessRecord) -> None:
        """Take a finished record and give it its number."""
        self.sequence = record.sequence = self.sequence + 1
        self._records.append(record)
        if not self._due:
            self.turn_soon()

    def opened(self, record: AccessRecord) -> None:
        """Take a request that was opened."""
        if not self._journal.open(record):
            self._end_turn()
            if not self._journal.open(record):  # turns wait: the oldest entries make room
                self._journal.clear()
                self._journal.open(record)
        self._opened.append(record)
        if self._immediate or self._here.immediate:
            self._arrive(record)
        if not self._due:
            self.turn_soon()

    def _arrive(self, record: AccessRecord) -> None:
        if self._here.immediate:
            self._here.opened(record)
        if self._immediate:
            snapshot = record.opening()
            self._arrivals = snapshot.sequence = self._arrivals + 1
            self._arrived.append(snapshot)

    def tell(self, event: str, session: Session) -> None:
        """Take a session's event."""
        if self._session_line is not None:
            self._texts.append(self._session_line((event, session)))
            self._session_lines += 1
            if event == "opened":
                self._know(session)
            self.turn_soon()
        if event == "closed" and self._known.pop(session.id, None) is not None:
            self._gone.append(session.id)
            self.turn_soon()
        if self._session_line is not None:
            self._journal.sessions(self._session_lines, len(self._known))

    def _know(self, session: Session) -> None:
        if session.id not in self._known:
            self._known[session.id] = session
            self._sessions.append(session)

    def turn_soon(self) -> None:
        """Send what there is at the end of this turn of the loop."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._end_turn)

    # The end of a turn

    def _end_turn(self) -> None:
        self._due = False
        records, self._records = self._records, []
        spans: list[Span] = []
        full = self.link.kept >= (self._bound * 2 if self.block else self._bound)
        if records:
            self._journal.ended(records)
            for record in records:
                self.sent += record.sent
                for take in self._takers:
                    take(record)
            self._journal.finished(self.sequence)
            if self.requests:
                ended = [r.id for r in records if self.requests.pop(r.id, None) is not None]
                self._ended += ended
            for number, selection in self._finished:
                self._make(number, selection, records, spans, full)
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            for number, selection in self._immediate:
                self._make(number, selection, arrived, spans, full)
        hurry, self.app.hurry = self.app.hurry, False
        for number, texts in ((SESSION, self._texts), (APP, self.app.texts)):
            if texts:
                text = "".join(texts).encode("utf-8", "backslashreplace")
                texts.clear()
                lines, last = text.count(b"\n"), self._session_lines
                if number == APP:
                    first = last = 0
                else:
                    first = last - lines + 1
                if full:
                    self._miss(number, lines, first, last, _FULL)
                else:
                    soon = hurry and number == APP
                    spans.append(Span(number, lines, first, last, text, hurry=soon))
        self._opened = [record for record in self._opened if record.outcome is None]
        if full:
            return
        self._send(records, spans)

    def _send(self, records: list[AccessRecord], spans: list[Span]) -> None:
        opened = self._opened
        told = (opened, spans, self._missing, self._sessions, self._ended, self._gone)
        if not records and not any(told):
            return
        self._opened = []
        for record in opened:
            self._know(record.session)
            self.requests[record.id] = record
        steps = []
        if self._session_line is not None:
            touched = {record.session for record in records}
            touched.update(record.session for record in opened)
            steps = [progress(session) for session in touched if session.id in self._known]
        missing = [
            Span(number, gap.lines, gap.first, gap.last, b"", gap.reason)
            for number, gap in self._missing.items()
        ]
        self._missing.clear()
        journal = self._journal
        self.link.send(
            Turn(
                journal.turn,
                self.sequence,
                [*missing, *spans],
                [open_session(session) for session in self._sessions],
                [open_request(record) for record in opened],
                self._ended,
                self._gone,
                steps,
                self._arrivals,
            )
        )
        self._sessions = []
        self._ended = []
        self._gone = []
        journal.turn += 1
        if not self.link.waiting:
            journal.clear()

    def _make(
        self,
        number: int,
        selection: Selection,
        records: list[AccessRecord],
        spans: list[Span],
        full: bool,
    ) -> None:
        """Make the lines of an output."""
        if full:  # not worth the formatting
            self._miss(number, len(records), records[0].sequence, records[-1].sequence, _FULL)
            return
        for kept, text, failed in selection.lines(records):
            first, last = kept[0].sequence, kept[-1].sequence
            lines = 1 if failed else text.count(b"\n")
            if failed:
                self.dropped += 1
            spans.append(Span(number, lines, first, last, text, failed))

    def _miss(self, number: int, lines: int, first: int, last: int, reason: str) -> None:
        self.dropped += lines
        gap = self._missing.get(number)
        if gap is None:
            gap = self._missing[number] = _Missing(first, reason)
        gap.lines += lines
        gap.last = last

    # The owner's side

    def _greet(self, sequence: int, again: int) -> Hello:
        sessions = [*self._known.values()]
        return Hello(
            sequence,
            [open_session(session) for session in sessions],
            [open_request(record) for record in self.requests.values()],
            again,
        )

    def _acknowledged(self, sequence: int, arrivals: int) -> None:
        self._journal.acknowledged(sequence, arrivals)
        if self._missing:
            self.turn_soon()
        if not self.overloaded:
            self._room.set()

    @property
    def overloaded(self) -> bool:
        """Whether requests are to wait: `ready` returns when there is room."""
        return self.block and self.link.kept >= self._bound

    async def ready(self) -> None:
        """Return when there is room for more lines: at once unless `overloaded`."""
        while self.overloaded:
            self._room.clear()
            await self._room.wait()

    async def open(self) -> None:
        """Open what is written here. Raises UsageError."""
        await self._here.open()

    async def close(self, timeout: float) -> bool:
        """Send what is left; return whether all of it is taken care of within `timeout` seconds.

        If it is not, no farewell is said: then the owner counts what did not come.
        """
        deadline = monotonic() + timeout
        done = False
        while not done and monotonic() < deadline:
            self._end_turn()
            settled = await self.link.settled(max(0.0, deadline - monotonic()))
            done = settled and not self._missing
        if done:
            self.link.bye()
        self.link.close()
        await self._here.close()
        return done
