"""What every store of user sessions does: memory, SQLite and Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_secret import new_token
from h2log.app.user_session_store import SessionStore, StoredSession
from h2log.integrations.redis_sessions import RedisStore
from h2log.integrations.sqlite_sessions import SqliteStore
from tests.integrations.redis_server import RedisServer

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
NOW = time.time()
"""One time for all: Redis has its own clock, which is near it."""


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Each kind of store, empty."""
    made: SessionStore
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "sessions.db")
    else:
        server: RedisServer = request.getfixturevalue("redis")
        made = RedisStore(server.url, prefix=f"{new_token()}:", timeout=5)
    yield made
    await made.close()


def session(**values: bytes) -> StoredSession:
    """Return a user session that ends in 100 seconds."""
    return StoredSession(values, NOW - 1.25, NOW + 100.5)


async def values(store: SessionStore, key: str, now: float = NOW) -> dict[str, bytes] | None:
    """Return the values of a user session."""
    found = await store.load(key, now)
    return None if found is None else found.values


async def test_what_was_created_is_loaded(store: SessionStore) -> None:
    """Bytes and times to the last bit, whatever the names; under its own id alone."""
    kept = session(a=b"1", empty=b"\xa0", binary=b"\xc4\x02\0\xff")
    odd = {"": b"2", "ä €": b"3", "expires": b"4", ".": b"5", "a b\r\n": b"6", "\0": b"7"}
    kept.values.update(odd)
    await store.create("one", kept, NOW)
    assert await store.load("one", NOW) == kept
    assert await store.load("two", NOW) is None
    await store.create("none", session(), NOW)
    assert await values(store, "none") == {}


async def test_what_was_given_and_what_was_loaded_are_copies(store: SessionStore) -> None:
    """Changing either changes nothing in the store."""
    kept = session(a=b"1")
    await store.create("one", kept, NOW)
    kept.values["a"] = b"2"
    found = await store.load("one", NOW)
    assert found is not None
    found.values["a"] = b"3"
    assert await values(store, "one") == {"a": b"1"}


async def test_update_changes_only_what_it_names(store: SessionStore) -> None:
    """What others wrote meanwhile stays; a name that is not there is taken out as well."""
    await store.create("one", session(a=b"1", b=b"2", c=b"3"), NOW)
    assert await store.update("one", {"b": b"4", "d": b"5"}, ("a", "x"), None, NOW)
    assert await values(store, "one") == {"b": b"4", "c": b"3", "d": b"5"}
    assert await store.update("one", {}, (), None, NOW)
    assert await store.update("one", {}, ("b", "c", "d"), None, NOW)
    assert await values(store, "one") == {}


async def test_update_sets_the_end_or_leaves_it(store: SessionStore) -> None:
    """The beginning is what it was."""
    await store.create("one", session(a=b"1"), NOW)
    await store.update("one", {"a": b"2"}, (), None, NOW)
    assert await store.load("one", NOW) == session(a=b"2")
    await store.update("one", {}, (), NOW + 200, NOW)
    assert await store.load("one", NOW) == StoredSession({"a": b"2"}, NOW - 1.25, NOW + 200)


async def test_what_is_not_there_is_not_made_by_a_change(store: SessionStore) -> None:
    """Nor by a new id."""
    assert not await store.update("one", {"a": b"1"}, (), NOW + 100, NOW)
    assert not await store.replace("one", "two", {"a": b"1"}, (), NOW + 100, NOW)
    assert await values(store, "one") is None
    assert await values(store, "two") is None
    await store.create("one", session(a=b"1"), NOW)
    await store.delete("one")
    await store.delete("one")
    assert not await store.update("one", {"a": b"1"}, (), None, NOW)
    assert await values(store, "one") is None


async def test_replace_moves_it(store: SessionStore) -> None:
    """With its values, its beginning and what is changed; the old id is gone."""
    await store.create("one", session(a=b"1", b=b"2"), NOW)
    assert await store.replace("one", "two", {"c": b"3"}, ("b",), NOW + 300, NOW)
    assert await values(store, "one") is None
    expected = StoredSession({"a": b"1", "c": b"3"}, NOW - 1.25, NOW + 300)
    assert await store.load("two", NOW) == expected
    assert not await store.replace("one", "three", {}, (), NOW + 300, NOW)
    assert not await store.update("one", {}, (), None, NOW)


async def test_what_has_expired_is_not_there(store: SessionStore) -> None:
    """For no method; a moment before it is."""
    for key in ("load", "update", "replace"):
        await store.create(key, session(a=b"1"), NOW)
        assert await values(store, key, NOW + 100.4) == {"a": b"1"}
    assert await values(store, "load", NOW + 100.5) is None
    assert not await store.update("update", {"b": b"2"}, (), NOW + 900, NOW + 100.5)
    assert not await store.replace("replace", "new", {}, (), NOW + 900, NOW + 100.5)
    assert await values(store, "new") is None


async def test_many_values(store: SessionStore) -> None:
    """And large ones: nothing is cut off."""
    many = {f"name {number}": bytes(10) for number in range(5_000)}
    await store.create("many", session(**many), NOW)
    changed = {f"name {number}": b"x" for number in range(0, 10_000, 2)}
    removed = [f"name {number}" for number in range(1, 5_000, 2)]
    assert await store.update("many", changed, removed, None, NOW)
    assert await values(store, "many") == changed
    await store.create("large", session(a=bytes(1_000_000)), NOW)
    assert await values(store, "large") == {"a": bytes(1_000_000)}


async def test_changes_at_once_are_all_kept(store: SessionStore) -> None:
    """Of two hundred requests none loses another's value."""
    await store.create("one", session(), NOW)
    done = await asyncio.gather(
        *(store.update("one", {f"value {n}": b"%d" % n}, (), None, NOW) for n in range(200))
    )
    assert all(done)
    assert await values(store, "one") == {f"value {n}": b"%d" % n for n in range(200)}


async def test_of_many_that_move_it_at_once_one_does(store: SessionStore) -> None:
    """There is one user session afterwards, never two."""
    await store.create("one", session(a=b"1"), NOW)
    moves = [store.replace("one", f"new {n}", {}, (), NOW + 100, NOW) for n in range(20)]
    done = await asyncio.gather(*moves)
    there = [n for n in range(20) if await values(store, f"new {n}") is not None]
    assert there == [n for n in range(20) if done[n]]
    assert len(there) == 1


async def test_what_is_cancelled_leaves_the_store_whole(store: SessionStore) -> None:
    """A change is done or not done, and every later answer belongs to its question."""
    for key in range(20):
        await store.create(f"key {key}", session(mine=b"%d" % key), NOW)
    for turn in range(20):
        work: list[Coroutine[Any, Any, object]] = []
        for key in range(10):
            work.append(store.load(f"key {key}", NOW))
            work.append(store.update(f"key {key}", {"a": b"1", "b": b"1"}, (), None, NOW))
        tasks = [asyncio.create_task(one) for one in work]
        for _ in range(turn):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    found = await asyncio.gather(*(values(store, f"key {key}") for key in range(20)))
    for key, one in enumerate(found):
        assert one is not None
        assert one["mine"] == b"%d" % key
        assert ("a" in one) == ("b" in one)


async def test_closed_it_opens_again(store: SessionStore) -> None:
    """Closing twice does no harm."""
    await store.create("one", session(a=b"1"), NOW)
    await store.close()
    await store.close()
    assert await values(store, "one") == {"a": b"1"}
