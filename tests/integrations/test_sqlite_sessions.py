"""User sessions in an SQLite file: what it survives, who may read it, who may share it.

What all stores do is in `test_session_stores`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from h2log.app.user_session_store import StoredSession, StoreError
from h2log.errors import UsageError
from h2log.integrations.sqlite_sessions import SqliteStore
from h2log.server.certificates import Certificates
from tests.support import PATIENCE, ROOT, Process, client_context, poll

NOW = 1_800_000_000.0
CHILD = "tests.integrations.sqlite_child"


def session(size: int = 1, expires: float = NOW + 100) -> StoredSession:
    """Return a user session with a value of that many bytes."""
    return StoredSession({"a": bytes(size)}, NOW, expires)


def child(what: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that uses the file; a warning of its is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", CHILD, what, str(path), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines that a process prints."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def tell(process: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


async def test_what_was_kept_survives_sigkill(tmp_path: Path) -> None:
    """Everything that the process was told is kept is there, whole, in the next one."""
    path = tmp_path / "sessions.db"
    with child("fill", path) as process:
        keys = lines(process, 400)
        process.kill()
        assert process.stdout is not None
        keys += process.stdout.read().splitlines()
    store = SqliteStore(path)
    for key in keys:
        found = await store.load(key, NOW)
        assert found is not None, key
        assert found.values == {"key": key.encode()}
    await store.close()


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    """Each opens it at the same time, none loses what the other writes."""
    path = tmp_path / "sessions.db"
    with child("share", path, "one") as one, child("share", path, "two") as two:
        for process in (one, two):
            assert lines(process, 1) == ["ready"]
        for process in (one, two):
            tell(process)
        for process in (one, two):
            assert lines(process, 1) == ["open"]
        store = SqliteStore(path)
        await store.create("shared", StoredSession({}, NOW, NOW + 100), NOW)
        for process in (one, two):
            tell(process)
        for process in (one, two):
            assert (process.wait(PATIENCE), process.stderr and process.stderr.read()) == (0, "")
    found = await store.load("shared", NOW)
    assert found is not None
    assert set(found.values) == {f"{name} {n}" for name in ("one", "two") for n in range(100)}
    await store.close()


def test_a_server_that_was_restarted_knows_its_users(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGTERM and after SIGKILL; the stop waits for nothing and leaves nothing."""
    path = tmp_path / "sessions.db"
    monkeypatch.setenv("TEST_SESSIONS", str(path))
    cookies = httpx.Cookies()
    for turn in range(1, 4):
        app = "tests.integrations.session_app:app"
        with Process("run", app, certs=certs, log=tmp_path / "access.log") as server:
            with httpx.Client(
                verify=client_context(certs), http2=True, base_url=server.url, cookies=cookies
            ) as client:
                assert client.post("/count").text == str(turn)
                cookies = client.cookies
            if turn == 1:
                server.signal(signal.SIGKILL)
                assert server.wait() == -signal.SIGKILL
            else:
                assert server.stop() == 0
                assert server.stderr.end() == []
                assert not path.with_name("sessions.db-wal").exists()


@pytest.mark.parametrize("what", ["leave", "fork"])
async def test_nobody_has_to_close_it(tmp_path: Path, what: str) -> None:
    """A process ends at once with its loop, without a warning; so does one that has forked."""
    path = tmp_path / "sessions.db"
    with child(what, path) as process:
        assert (process.wait(PATIENCE), process.stderr and process.stderr.read()) == (0, "")
    assert os.listdir(tmp_path) == ["sessions.db"]  # closed in order: nothing is left to recover
    store = SqliteStore(path)
    found = await store.load("left", NOW)
    assert found is not None
    expected = {"a": b"1"} if what == "leave" else {"a": b"1", "b": b"2", "c": b"3"}
    assert found.values == expected
    await store.close()


def test_each_loop_has_its_own_connection(tmp_path: Path) -> None:
    """The store may be used in one loop after the other; no thread is left."""
    store = SqliteStore(tmp_path / "sessions.db")
    before = threading.active_count()
    asyncio.run(store.create("one", session(), NOW))
    poll(lambda: threading.active_count() <= before)
    assert asyncio.run(store.load("one", NOW)) == session()
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(store.load("one", NOW)) == session()
    loop.close()  # and nobody shut its generators down
    assert asyncio.run(store.load("one", NOW)) == session()
    poll(lambda: threading.active_count() <= before)


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It and what SQLite puts beside it; one that was open to others is so no more."""
    path = tmp_path / "sessions.db"
    old = os.umask(0)
    try:
        store = SqliteStore(path)
        await store.create("one", session(), NOW)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes == {f"sessions.db{end}": 0o600 for end in ("", "-wal", "-shm")}
    await store.close()
    path.chmod(0o644)
    await store.load("one", NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


def test_what_cannot_be_such_a_file_is_a_usage_error(tmp_path: Path) -> None:
    """At the start, with the path and what is wrong with it."""
    with pytest.raises(UsageError, match=r"folder of .*/no/sessions\.db is not there"):
        SqliteStore(tmp_path / "no" / "sessions.db")
    with pytest.raises(UsageError, match="it is no file"):
        SqliteStore(tmp_path)
    (tmp_path / "text").write_text("This is text, and long enough to be a header. " * 100)
    with pytest.raises(UsageError, match="text: file is not a database"):
        SqliteStore(tmp_path / "text")
    for name, statement, words in (
        ("later", "PRAGMA user_version = 7", "user_version is 7, not 1"),
        ("other", "CREATE TABLE articles (id)", "it has other tables"),
    ):
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(UsageError, match=words):
            SqliteStore(tmp_path / name)
    (tmp_path / "empty").touch()
    SqliteStore(tmp_path / "empty")


async def test_what_cannot_be_opened_later_is_a_store_error(tmp_path: Path) -> None:
    """It names the file, and the store works when the file can be opened again."""
    folder = tmp_path / "folder"
    folder.mkdir()
    store = SqliteStore(folder / "sessions.db")
    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"sessions\.db: .*No such file"):
            await store.load("one", NOW)
    folder.mkdir()
    (folder / "sessions.db").write_text("This is text, and long enough to be a header. " * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        await store.load("one", NOW)
    (folder / "sessions.db").unlink()
    await store.create("one", session(), NOW)
    assert await store.load("one", NOW) == session()
    await store.close()


async def test_a_file_that_another_keeps_locked_is_a_store_error(tmp_path: Path) -> None:
    """Writing waits for `timeout`, reading does not; it goes on when the lock has gone."""
    path = tmp_path / "sessions.db"
    store = SqliteStore(path, timeout=0.01)
    await store.create("one", session(), NOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        await store.update("one", {"b": b"2"}, (), None, NOW)
    assert await store.load("one", NOW) == session()
    other.execute("ROLLBACK")
    other.close()
    assert await store.update("one", {"b": b"2"}, (), None, NOW)
    await store.close()


async def test_a_row_that_is_spoilt_is_a_store_error(tmp_path: Path) -> None:
    """Of that row, for reading and for writing."""
    path = tmp_path / "sessions.db"
    store = SqliteStore(path)
    for key in ("good", "bad"):
        await store.create(key, session(), NOW)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE user_sessions SET data = x'c1' WHERE id = 'bad'")
    other.close()
    with pytest.raises(StoreError, match="a row cannot be read"):
        await store.load("bad", NOW)
    with pytest.raises(StoreError, match="user-defined function raised exception"):
        await store.update("bad", {}, (), None, NOW)
    assert await store.load("good", NOW) == session()
    await store.close()


async def test_what_has_expired_is_deleted(tmp_path: Path) -> None:
    """Once a minute, when something new comes."""
    path = tmp_path / "sessions.db"
    store = SqliteStore(path)
    for number in range(20):
        await store.create(f"old {number}", session(expires=NOW + 10), NOW)
    await store.create("new", session(expires=NOW + 100), NOW + 50)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM user_sessions").fetchone() == (21,)
        await store.create("newer", session(expires=NOW + 100), NOW + 60)
        found = other.execute("SELECT id FROM user_sessions ORDER BY id").fetchall()
    other.close()
    assert found == [("new",), ("newer",)]
    await store.close()


async def test_the_file_is_bounded(tmp_path: Path) -> None:
    """A full one takes nothing new, keeps what it has, and goes on when something has expired."""
    path = tmp_path / "sessions.db"
    store = SqliteStore(path, max_bytes=200_000)
    made: list[str] = []

    async def fill() -> None:
        while True:
            await store.create(f"{len(made)}", session(10_000), NOW)
            made.append("one more")

    with pytest.raises(StoreError, match="full"):
        await fill()
    assert 10 < len(made) < 20
    assert path.stat().st_size <= 200_000
    with pytest.raises(StoreError, match="full"):
        await store.create("more", session(10_000), NOW + 99)
    assert await store.load("0", NOW + 99) == session(10_000)
    await store.create("more", session(10_000, NOW + 200), NOW + 100)
    assert await store.load("more", NOW + 100) is not None
    await store.close()


async def test_an_opening_that_is_cancelled_opens_for_the_next(tmp_path: Path) -> None:
    """Whoever is cancelled while the file is opened takes it away from nobody."""
    store = SqliteStore(tmp_path / "sessions.db")
    for turns in range(8):
        first = asyncio.create_task(store.load("one", NOW))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        assert await store.load("one", NOW) is None
        await asyncio.gather(first, return_exceptions=True)
        await store.close()
