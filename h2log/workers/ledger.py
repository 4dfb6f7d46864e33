"""What the owner of the log knows of one worker, and what it does about its messages and its end.

Turns come in order. Each brings lines, which go to the outputs, and tells which requests are open
and which are not any more. A turn is acknowledged when every line of it was written or counted as
missing: what the worker may then forget is on its way no more.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from h2log.access.record import AccessRecord, Session
from h2log.clock import monotonic, wall
from h2log.workers.blocks import BlockWriter
from h2log.workers.facts import (
    advance,
    lost_record,
    request_of_entry,
    session_of,
    session_of_entry,
)
from h2log.workers.journal import left_behind
from h2log.workers.messages import APP, SESSION, Hello, OpenRequest, Span, Turn
from h2log.workers.outputs import Outputs, Place, lines_of

__all__ = ["Ledger"]

LOST: Final = "worker_lost"
"""Why a session ended whose worker was killed."""
SHUT: Final = "server_shutdown"
"""Why one ended whose client did not close it in time."""


class Ledger:
    """The owner's account of the worker `number` of a `generation`."""

    def __init__(self, number: int, generation: int, outputs: Outputs, journal: int) -> None:
        self.number = number
        self.generation = generation
        self.clean = False
        """It has said that nothing more comes."""
        self.turn = 0
        """The last turn that came."""
        self._outputs = outputs
        self._journal = journal
        self._sequence = 0  # the number of the last line that came, or was told to be missing
        self._arrivals = 0  # the same of lines at an arrival
        self._greeted = False
        self._again = 0  # turns to come that were sent before
        self._sure: set[str] = set()  # what was open when it connected, after all that was written
        self._sessions: dict[str, Session] = {}
        self._requests: dict[str, OpenRequest] = {}
        # Turns whose lines are not all written: the writers, and what they must have written.
        self._pending: deque[tuple[int, list[tuple[BlockWriter, int]]]] = deque()

    def greet(self, hello: Hello) -> None:
        """Take what the worker has told another owner before."""
        self._greeted = True
        self._again = hello.again
        self._sequence = max(self._sequence, hello.sequence)
        for session in hello.sessions:
            self._sessions[session.id] = session_of(session)
            self._sure.add(session.id)
        for request in hello.requests:
            self._requests[request.id] = request
            self._sure.add(request.id)

    def take(self, turn: Turn) -> None:
        """Take a turn."""
        again = self._again > 0
        self._again -= again
        self.turn = turn.turn
        for session in turn.sessions:
            self._sessions[session.id] = session_of(session)
        for request in turn.opened:
            self._requests[request.id] = request
        marks = [
            mark for span in turn.spans if (mark := self._span(span, turn.turn, again)) is not None
        ]
        self._sequence = max(self._sequence, turn.last)
        self._arrivals = max(self._arrivals, turn.arrivals)
        self._pending.append((turn.turn, marks))
        for step in turn.progress:
            if step.session in self._sessions:
                advance(self._sessions[step.session], step)
        for identifier in turn.ended:
            self._requests.pop(identifier, None)
        for identifier in turn.gone:
            self._sessions.pop(identifier, None)

    def _span(self, span: Span, turn: int, again: bool) -> tuple[BlockWriter, int] | None:
        place = self._outputs.place(self.generation, span.output)
        if place is None:
            return None
        writer = place.writer
        numbered = span.output != APP
        told = again and not span.text and place.told(self.number, span.last)
        if numbered:
            place.came[self.number] = max(span.last, place.came.get(self.number, 0))
        if not span.text:
            if not span.reason or told:
                return None
            writer.miss(span.lines, span.first, span.last, self.number, span.reason)
            return writer, writer.accepted
        text, lines = span.text, span.lines
        if again:
            text = place.unwritten(self.number, turn, text)
            lines = text.count(b"\n")
            if not lines:
                return None
        worker = self.number if numbered else 0
        origin = (self.number, turn)
        writer.take_lines(text, lines, span.first, span.last, worker, origin)
        if place.app is not None:  # some of it is for the console, too
            place.app.took(text.decode(), hurry=span.hurry)
        return writer, writer.accepted

    def acknowledge(self) -> int:
        """Return the last turn that is taken care of and was not returned before, or 0."""
        done = 0
        pending = self._pending
        while pending and all(w.closed or w.done >= mark for w, mark in pending[0][1]):
            done = pending.popleft()[0]
        return done

    @property
    def pending(self) -> bool:
        """Whether a turn is not acknowledged yet."""
        return bool(self._pending)

    # The worker's end

    def lost(self, reason: str) -> None:
        """The worker has ended without a word: write what is to be said of all that it had open.

        What it had answered, without telling us any more, has the outcome that it had then.
        """
        now, stamp = monotonic(), wall()
        left = left_behind(self._journal)
        if not self._greeted:  # what it has told was told to an owner that is gone
            self._sequence, self._arrivals = left.acknowledged, left.arrivals
        fresh: dict[str, int] = {}
        for entry in left.entries:
            if entry.turn > self.turn and self._greeted and entry.id not in self._requests:
                if entry.session not in self._sessions:
                    self._sessions[entry.session] = session_of_entry(entry, stamp, now)
                self._requests[entry.id] = request_of_entry(entry, stamp, now)
                fresh[entry.id] = entry.turn
        records = []
        for request in self._requests.values():
            session = self._sessions.get(request.session)
            if session is None:
                session = _unknown(request)
            records.append(lost_record(request, session, now, left.endings.get(request.id)))
        self._requests.clear()
        total = max(left.opened, left.sequence)
        marks = []
        for place in self._outputs.access(self.generation):
            turn = place.written(self.number)
            if place.immediate:
                came = [r.opening() for r in records if fresh.get(r.id, 0) > turn]
                known = max(self._arrivals, place.upto(self.number))
                self._end(place, came, left.opened, known, left.opened, reason)
            else:
                known = max(self._sequence, place.upto(self.number))
                ends = records
                if turn > self.turn:  # what has not come again may be an end that stands there
                    ends = [r for r in records if r.id in self._sure or fresh.get(r.id, 0) > turn]
                self._end(place, ends, total, known, left.sequence, reason)
            marks.append((place.writer, place.writer.accepted))
        self._pending.append((0, marks))
        self._close_sessions(now, LOST, left.session_lines + left.sessions, reason)

    def _end(
        self,
        place: Place,
        records: list[AccessRecord],
        total: int,
        known: int,
        last: int,
        reason: str,
    ) -> None:
        """Write the last lines of an output, of `records`; `last` is the last number that was used.

        `total` requests were there, `known` of them are accounted for. Those, and the ones that get
        a line now, leave the rest. What was finished and not told cannot be known from what was
        open: it has a line too, or is counted.
        """
        writer, number = place.writer, self.number
        missing = total - known - len(records)
        if missing > 0:
            first, last = (known + 1, last) if last > known else (0, 0)
            upto = total - len(records)
            writer.miss(missing, first, last, number, reason, "lost", upto)
        for kept, text, failed in lines_of(place, records):
            upto = total - len(records) + kept
            if failed:
                writer.miss(1, 0, 0, number, failed, upto=upto)
            else:
                writer.take_lines(text, text.count(b"\n"), 0, 0, number, (number, 0), upto)

    def left(self) -> None:
        """The worker has ended in order: what was still connected then is no more."""
        self._close_sessions(monotonic(), SHUT)

    def _close_sessions(self, now: float, reason: str, total: int = 0, killed: str = "") -> None:
        """Write the last lines of sessions; of `total` lines some may have gone with the worker."""
        place = self._outputs.place(self.generation, SESSION)
        if place is not None:
            sessions = [*self._sessions.values()]
            if place.written(self.number) > self.turn:
                sessions = [session for session in sessions if session.id in self._sure]
            count = total - len(sessions)
            missing = count - place.upto(self.number)
            if missing > 0:
                place.writer.miss(missing, 0, 0, self.number, killed, "lost", count)
            texts = []
            for session in sessions:
                session.reason = reason
                session.duration = max(0.0, now - session.opened)
                texts.append(self._outputs.session_line(self.generation, session))
            block = "".join(texts).encode("utf-8", "backslashreplace")
            if texts:
                origin = (self.number, 0)
                place.writer.take_lines(block, len(texts), 0, 0, self.number, origin, total)
            self._pending.append((0, [(place.writer, place.writer.accepted)]))
        self._sessions.clear()


def _unknown(request: OpenRequest) -> Session:
    """Return a session of which only a request tells."""
    return Session(request.session, "", 0, request.wall, _nobody, request.start)


def _nobody(record: object) -> None:
    """The sink of a session that has ended."""
