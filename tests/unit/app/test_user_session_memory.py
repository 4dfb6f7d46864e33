"""User sessions in memory: their bounds. What all stores do is in tests/integrations."""

from __future__ import annotations

import random

import pytest

from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_store import StoredSession


def session(size: int = 0, expires: float = 100.0) -> StoredSession:
    """Return a user session with a value of that many bytes."""
    return StoredSession({"value": bytes(size)}, 0.0, expires)


async def kept(store: MemoryStore, *keys: str, now: float = 0.0) -> str:
    """Return which of the keys are there, one character each."""
    return "".join([key for key in keys if await store.load(key, now) is not None])


async def test_the_longest_unused_goes_when_there_are_too_many() -> None:
    """Reading is use, and so is a change."""
    store = MemoryStore(max_sessions=3)
    for key in "abc":
        await store.create(key, session(), 0)
    await store.load("a", 0)
    await store.update("b", {"x": b"1"}, (), None, 0)
    await store.create("d", session(), 0)
    assert len(store) == 3
    assert await kept(store, *"abcd") == "abd"


async def test_it_is_bounded_in_bytes() -> None:
    """By what is put in first and by what is changed later."""
    store = MemoryStore(max_bytes=100_000)
    for key in "abcde":
        await store.create(key, session(26_000), 0)
    assert await kept(store, *"abcde") == "cde"
    await store.update("c", {"more": bytes(40_000)}, (), None, 0)
    assert await kept(store, *"abcde") == "ce"
    await store.create("f", session(200_000), 0)
    assert (len(store), store.size) == (0, 0)


async def test_what_has_expired_makes_room() -> None:
    """Before anything that has not, and without anybody asking for it."""
    store = MemoryStore(max_sessions=10)
    for key in "abc":
        await store.create(key, session(expires=10), 0)
    await store.create("d", session(expires=20), 5)
    assert len(store) == 4
    await store.create("e", session(expires=30), 10)
    assert len(store) == 2
    assert await kept(store, *"abcde", now=10) == "de"


async def test_its_size_is_that_of_what_it_has() -> None:
    """After whatever was done with it; nothing is lost count of."""
    chance = random.Random(1)
    store = MemoryStore(max_sessions=20, max_bytes=60_000)
    for now in range(2_000):
        key = str(chance.randrange(40))
        match chance.randrange(5):
            case 0 | 1:
                await store.create(
                    key, session(chance.randrange(9_000), now + chance.randrange(50)), now
                )
            case 2:
                changed = {"more": bytes(chance.randrange(5_000))}
                await store.update(key, changed, ("value",), None, now)
            case 3:
                await store.replace(key, f"{key}'", {}, (), now + 20, now)
            case 4:
                await store.delete(key)
        assert len(store) <= 20
        assert store.size <= 60_000
    for key in [*map(str, range(40)), *(f"{key}'" for key in range(40))]:
        await store.delete(key)
    assert (len(store), store.size) == (0, 0)


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0), (-1, 1)])
def test_bounds_are_positive(bounds: tuple[int, int]) -> None:
    """Any other is a ValueError."""
    with pytest.raises(ValueError, match="at least 1"):
        MemoryStore(*bounds)
