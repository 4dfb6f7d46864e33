"""A request from its first moment to its one line in the log.

An `Exchange` is opened when a request is, and is an `AccessRecord` that is still being filled in.
Every way out calls `finish`; the first call decides the outcome, seals the record and hands it to
the log; any later one does nothing. That, and nothing else, is why there is one line a request.
"""

from __future__ import annotations

from h2log.access.record import AccessRecord, Detail, Outcome

__all__ = ["Exchange"]


class Exchange(AccessRecord):
    """A request that is open."""

    __slots__ = ()

    def details(self) -> Detail:
        """Return the record's detail, made when it is first asked for."""
        if self.detail is None:
            self.detail = Detail()
        return self.detail

    def announce(self) -> None:
        """Tell whoever wants to know that the request was opened: call it once, before `finish`."""
        opening = self.session.opening
        if opening is not None:
            opening(self)

    def finish(self, outcome: Outcome, now: float) -> bool:
        """Seal the record with `outcome` at `now` (monotonic seconds) and log it, once.

        Returns whether this was the call that did.
        """
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self.end = now
        session = self.session
        session.finished += 1
        if outcome is not Outcome.COMPLETE:  # the usual one is the difference
            session.failures[outcome] = session.failures.get(outcome, 0) + 1
        session.sink(self)
        return True
