"""When the supervisor forgets workers that have ended, and the logs that only they had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from h2log.config import LogSettings
from h2log.workers.journal import new_journal
from h2log.workers.keeper import Keeper
from h2log.workers.messages import Pulse


class Departed:
    """A worker of the first generation that has ended."""

    number = 7
    generation_number = 1

    def __init__(self, journal: int) -> None:
        self.journal = journal

    def send(self, message: Any, *descriptors: int) -> None:
        """Nobody is there."""


@pytest.fixture
def departed() -> Iterator[Departed]:
    """A worker that has ended."""
    journal = new_journal()
    yield Departed(journal)
    os.close(journal)


async def test_a_generation_lasts_until_its_last_lines_are_written(departed: Departed) -> None:
    """As long as the owner has an account of one of its workers: lines may wait to be read."""
    keeper = Keeper(list)
    keeper._generations = {1: LogSettings(), 2: LogSettings()}
    keeper.dead(departed, "killed")
    keeper.forget(1)
    for _ in range(5):
        keeper._received(Pulse([], 0, [departed.number, 8]), [])
        assert keeper.generations == {1, 2}
    keeper._received(Pulse([], 0, [8]), [])
    assert keeper.generations == {2}
    assert not keeper._departed


async def test_a_generation_without_workers_goes_at_once() -> None:
    """Nobody has lines to come."""
    keeper = Keeper(list)
    keeper._generations = {1: LogSettings(), 2: LogSettings()}
    keeper.forget(1)
    assert keeper.generations == {2}
