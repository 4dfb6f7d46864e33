"""Session and request ids: their form, their order, their time, and that no two are alike."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import pytest
import uuid6

from h2log.id_source import IdSource, new_id
from h2log.ids import NO_ID, request_id, session_id

MANY: Final = 200_000
FORM = re.compile(r"[0-9a-f]{32}")


def milliseconds(identifier: str) -> int:
    """Return the time that an id carries (RFC 9562 section 5.7: its first 48 bits)."""
    return int(identifier[:12], 16)


def well_formed(identifier: str) -> bool:
    """Say whether an id is 32 lower-case hex digits of a UUID, version 7."""
    if FORM.fullmatch(identifier) is None:
        return False
    value = uuid.UUID(hex=identifier)
    return value.version == 7 and value.variant == uuid.RFC_4122


def make_ids(count: int) -> list[str]:
    """Return ids of this process's own source; run in processes of their own."""
    return [new_id() for _ in range(count)]


def test_an_id_is_a_uuid_of_version_7() -> None:
    """Each of 200,000 ids is 32 hex digits with version 7 and the RFC 9562 variant."""
    assert [i for i in make_ids(MANY) if not well_formed(i)] == []


def test_ids_rise_as_text() -> None:
    """Each of 200,000 ids is greater than the one before, also across milliseconds."""
    made = make_ids(MANY)
    assert all(a < b for a, b in itertools.pairwise(made))
    assert len({milliseconds(i) for i in made}) > 10


def test_the_time_in_an_id_is_the_wall_clock_s() -> None:
    """At full speed the time of an id is never 2 ms ahead of the clock, nor behind it."""
    source = IdSource()
    ahead = behind = 0
    for _ in range(MANY):
        before = time.time_ns()
        stamp = milliseconds(source())
        after = time.time_ns()
        ahead = max(ahead, stamp - after // 10**6)
        behind = max(behind, before // 10**6 - stamp)
    assert ahead <= 2
    assert behind <= 2


def test_ids_rise_when_the_clock_is_set_back() -> None:
    """A clock that jumps an hour back, and comes back later, breaks neither order nor form."""
    source = IdSource()
    now = time.time()
    made = [source(now) for _ in range(1000)]
    made += [source(now - 3600 + n / 200_000) for n in range(50_000)]
    made += [source(now + n / 1000) for n in range(2000)]
    assert all(a < b for a, b in itertools.pairwise(made))
    assert [i for i in made if not well_formed(i)] == []
    assert milliseconds(made[-1]) == int((now + 1.999) * 1000)


def test_one_second_has_room_for_half_a_milliard_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """2**29 of the largest steps on top of the largest seed leave version and variant alone."""
    largest = uuid6.UUID(int=(1_700_000_000_000 << 80) | ((1 << 76) - 1), version=7)
    monkeypatch.setattr("h2log.id_source.uuid6.uuid7", lambda: largest)
    # A step of 2**50 stands for 2**18 steps of 2**32: 2**11 of them are 2**29 of those.
    monkeypatch.setattr("h2log.id_source.getrandbits", lambda bits: (1 << 50) - 1)
    source = IdSource()
    made = [source(1_700_000_000.5) for _ in range(1 + 2**11)]
    assert [i for i in made if not well_formed(i)] == []
    assert {i[:16] for i in made} == {made[0][:16]}
    assert all(a < b for a, b in itertools.pairwise(made))


def test_every_second_has_its_own_randomness() -> None:
    """Seed and step are drawn again: from the ids of one second those of the next do not follow."""
    source = IdSource()
    seconds = [[int(source(1e9 + n), 16) & (2**62 - 1) for _ in range(2)] for n in range(50)]
    assert len({first for first, _ in seconds}) == 50
    assert len({second - first for first, second in seconds}) > 45


def test_a_time_that_was_just_read_is_used() -> None:
    """An id made for a moment carries that moment's millisecond."""
    source = IdSource()
    assert [milliseconds(source(wall)) for wall in (1e9, 1e9 + 0.0015, 1e9 + 2)] == [
        10**12,
        10**12 + 1,
        10**12 + 2000,
    ]


def test_two_sources_of_a_process_share_no_id() -> None:
    """Sources do not know of each other, and need not."""
    one, other = IdSource(), IdSource()
    pairs = [(one(), other()) for _ in range(20_000)]
    assert len({i for pair in pairs for i in pair}) == 40_000


def test_processes_share_no_id() -> None:
    """Two processes that make ids at the same time never make the same one."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(make_ids, (50_000, 50_000))
    assert len(set(first) | set(second)) == 100_000


def test_a_forked_process_shares_no_id_with_its_parent() -> None:
    """What a fork copies, the seed and the step, is not used by both."""
    program = (
        "import os, sys\n"
        "from h2log.id_source import new_id\n"
        "new_id(1e9)\n"
        "child = os.fork()\n"
        "made = ' '.join(new_id(1e9 + 0.001) for _ in range(100))\n"
        "if child: os.waitpid(child, 0)\n"
        "sys.stdout.write(made + ' ')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    made = done.stdout.split()
    assert len(made) == 200
    assert len(set(made)) == 200


async def test_ids_follow_the_code_that_serves() -> None:
    """Each task has its own ids, a thread that it starts has them too; outside there is none."""

    async def serve(session: str, request: str) -> tuple[str, str]:
        session_id.set(session)
        request_id.set(request)
        return await asyncio.to_thread(lambda: (session_id.get(), request_id.get()))

    found = list(await asyncio.gather(serve("s1", "r1"), serve("s2", "r2")))
    assert found == [("s1", "r1"), ("s2", "r2")]
    assert (session_id.get(), request_id.get()) == (NO_ID, NO_ID) == ("-", "-")
