"""A request ends once, whoever says so first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest

from h2log.access.exchange import Exchange
from h2log.access.record import AccessRecord, Outcome, Session


@dataclass(frozen=True)
class Facts:
    """What was asked."""

    method: str = "GET"
    path: str = "/a"
    scheme: str = "https"
    authority: str = "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


@pytest.fixture
def records() -> list[AccessRecord]:
    """Where finished records go."""
    return []


@pytest.fixture
def session(records: list[AccessRecord]) -> Session:
    """A connection whose sink is `records`."""
    return Session("5" * 32, "192.0.2.1", 40000, 1e9, records.append)


def exchange(session: Session) -> Exchange:
    """Open a request on `session` at 10 s of the monotonic clock."""
    return Exchange(session, Facts(), "7" * 32, 1, 1e9, 10.0)


def test_a_new_exchange_is_open(session: Session, records: list[AccessRecord]) -> None:
    """It has no outcome, no status, no bytes, takes no time, and is not logged."""
    opened = exchange(session)
    assert opened.outcome is None
    assert opened.verdict is Outcome.COMPLETE
    assert (opened.status, opened.received, opened.sent, opened.milliseconds) == (0, 0, 0, 0.0)
    assert records == []


def test_a_session_counts_what_it_opened(session: Session) -> None:
    """Each opened request counts, finished or not."""
    assert session.requests == 0
    exchange(session).finish(Outcome.COMPLETE, 11.0)
    exchange(session)
    assert session.requests == 2


@pytest.mark.parametrize("outcome", Outcome)
def test_finish_seals_and_logs(
    outcome: Outcome, session: Session, records: list[AccessRecord]
) -> None:
    """Every outcome ends a request, with the time from its start, and hands over its record."""
    opened = exchange(session)
    assert opened.finish(outcome, 10.0125) is True
    assert records == [opened]
    assert opened.outcome is outcome
    assert opened.milliseconds == pytest.approx(12.5)


@pytest.mark.parametrize(("first", "second"), list(product(Outcome, Outcome)))
def test_the_first_finish_decides(
    first: Outcome, second: Outcome, session: Session, records: list[AccessRecord]
) -> None:
    """Whoever comes second, with whatever outcome, changes nothing and logs nothing."""
    opened = exchange(session)
    opened.finish(first, 11.0)
    assert opened.finish(second, 12.0) is False
    assert opened.finish(second, 13.0) is False
    assert (opened.outcome, opened.end) == (first, 11.0)
    assert records == [opened]


def test_a_record_is_sealed_before_it_is_handed_over() -> None:
    """The log sees the final record; a finish from inside the log is too late."""
    seen: list[tuple[Outcome | None, float, bool]] = []

    def sink(record: AccessRecord) -> None:
        assert isinstance(record, Exchange)
        again = record.finish(Outcome.PEER_LOST, 99.0)
        seen.append((record.outcome, record.end, again))

    opened = exchange(Session("5" * 32, "192.0.2.1", 40000, 1e9, sink))
    assert opened.finish(Outcome.TIMEOUT, 12.0) is True
    assert seen == [(Outcome.TIMEOUT, 12.0, False)]


def test_requests_of_a_session_end_apart(session: Session, records: list[AccessRecord]) -> None:
    """Each has its own end, in whatever order they come."""
    one, two = exchange(session), exchange(session)
    two.finish(Outcome.CLIENT_RESET, 11.0)
    assert one.outcome is None
    one.finish(Outcome.COMPLETE, 12.0)
    assert records == [two, one]


def test_outcomes_are_named_by_themselves() -> None:
    """Ten of them, each written as its name."""
    assert [o.value for o in Outcome] == [o.name for o in Outcome]
    assert len(Outcome) == 10
