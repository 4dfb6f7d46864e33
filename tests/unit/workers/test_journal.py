"""What a worker leaves behind when it is killed, and the page on which workers count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from h2log.access.record import AccessRecord, Outcome, Session
from h2log.id_source import new_id
from h2log.workers.board import Board, clear_place, new_board, set_places
from h2log.workers.journal import SIZE, Journal, left_behind, new_journal


class Facts(NamedTuple):
    """What was asked."""

    method: str
    path: str
    scheme: str = "https"
    authority: str = "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


def record(method: str = "GET", path: str = "/") -> AccessRecord:
    """Return the record of a request that was opened."""
    session = Session(new_id(), "::1", 1234, 0.0, lambda record: None)
    session.protocol = "h2"
    return AccessRecord(session, Facts(method, path), new_id(), 3, 0.0, 0.0)


@pytest.fixture
def page() -> Iterator[int]:
    """A new page."""
    number = new_journal()
    yield number
    os.close(number)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/a?b=c"), ("", ""), ("A B", "/ \n1 2 3"), ("\xff", "\x00\xe9"), ("GET", "/" * 9000)],
)
def test_an_entry_is_read_as_it_was_written(page: int, method: str, path: str) -> None:
    """Whatever a client has sent as its method and path."""
    journal = Journal(page)
    before, one, after = record(), record(method, path), record()
    for opened in (before, one, after):
        assert journal.open(opened)
    left = left_behind(page)
    assert [entry.id for entry in left.entries] == [before.id, one.id, after.id]
    entry = left.entries[1]
    assert (entry.method, entry.path) == (method, path)
    assert (entry.session, entry.client, entry.protocol) == (one.session.id, "::1", "h2")
    assert (entry.turn, entry.stream) == (1, 3)


@pytest.mark.parametrize("outcome", Outcome)
def test_an_end_is_read_as_it_was_written(page: int, outcome: Outcome) -> None:
    """Between what was opened before and after it; who has not ended has no end."""
    journal = Journal(page)
    one, other = record(path="/+"), record()
    journal.open(one)
    one.status, one.received, one.sent, one.header_sent = 599, 2**40, 2**41, 77
    one.end, one.outcome = 12345.678901, outcome
    journal.ended([one])
    journal.open(other)
    left = left_behind(page)
    assert [entry.id for entry in left.entries] == [one.id, other.id]
    assert left.endings == {one.id: (599, outcome, 2**40, 2**41, 77, 12345.678901)}


def test_what_was_cleared_is_not_read(page: int) -> None:
    """Although its bytes are still there, behind newer and shorter ones."""
    journal = Journal(page)
    for _ in range(10):
        journal.open(record(path="/long" * 20))
    journal.clear()
    assert left_behind(page).entries == []
    journal.turn += 1
    last = record()
    journal.open(last)
    assert [(entry.turn, entry.id) for entry in left_behind(page).entries] == [(2, last.id)]


def test_a_full_page_says_so(page: int) -> None:
    """What had room is there, and nothing of what had none."""
    journal = Journal(page)
    count = 0
    while journal.open(record(path="/" * 1000)):
        count += 1
    assert count > SIZE // 1200
    assert len(left_behind(page).entries) == count
    journal.clear()
    assert journal.open(record())


def test_numbers_are_read_as_they_were_noted(page: int) -> None:
    """The last line that was made, the last that is taken care of, and all that was opened."""
    journal = Journal(page)
    assert left_behind(page)[2:] == (0, 0, 0, 0, 0, 0)
    journal.finished(2**40)
    journal.acknowledged(17, 19)
    journal.sessions(23, 5)
    for _ in range(3):
        journal.open(record())
    journal.clear()
    assert left_behind(page)[2:] == (2**40, 17, 3, 19, 23, 5)


def test_the_next_connection_is_for_who_has_fewest() -> None:
    """But for an eighth; workers that accept none do not count, nor do those that have ended."""
    page = new_board()
    set_places(page, 3)
    one, two = Board(page, 1), Board(page, 2)
    assert not one.wait(0)
    assert not one.wait(5)  # there is nobody else
    assert not two.wait(0)
    assert one.wait(5)
    assert not two.wait(5)
    assert not one.wait(5)
    assert two.wait(80)
    assert not one.wait(88)
    assert one.wait(100)
    two.leave()
    assert not one.wait(100)
    two.wait(0)
    assert one.wait(100)
    clear_place(page, 2)
    assert not one.wait(100)
    os.close(page)
