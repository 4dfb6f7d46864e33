"""User sessions in an SQLite file: for one machine, over restarts, and for several processes.

Every operation is one statement in a transaction of its own, run by the thread that aiosqlite has
for the connection: what was asked for is done whole or not at all, whoever is cancelled or killed,
and statements of several processes come one after the other. The file is in WAL mode with
`synchronous=NORMAL`: what was written survives the end of the process, also by SIGKILL; a loss of
power may take the last moments, and harms nothing older (https://www.sqlite.org/wal.html).

The table `user_sessions` has a row a user session: its id, its values as a msgpack map of
names and bytes, and when it began and ends in epoch seconds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from h2log.app.user_session_store import StoredSession, StoreError
from h2log.errors import UsageError
from h2log.integrations.lifetime import until_loop_ends

try:
    import aiosqlite
except ImportError:
    raise UsageError("a SqliteStore needs aiosqlite: pip install aiosqlite") from None

__all__ = ["SqliteStore"]

_PAGE: Final = 4096
_SWEEP_EVERY: Final = 60.0
"""Seconds between two looks for what has expired."""
_SWEEP_MOST: Final = 500
"""Rows that one such look deletes, so that nobody waits long for it."""

_SCHEMA: Final = 1
"""`PRAGMA user_version` of the files that this module makes."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS user_sessions (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS user_sessions_expires ON user_sessions (expires)"

_BROKEN: Final = frozenset(
    (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
    )
)
"""Errors after which the file is opened anew: what is there may be another one by now."""

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode


def _merged(data: bytes, changed: bytes, removed: bytes) -> bytes:
    """The SQL function `merged`: what is stored, without and with what a request changed."""
    values = _unpack(data)
    for name in msgspec.msgpack.decode(removed, type=list[str]):
        values.pop(name, None)
    values.update(_unpack(changed))
    return _pack(values)


class SqliteStore:
    """Keeps user sessions in the file `path`, which is made for its owner alone (mode 0600).

    The file grows to `max_bytes` at most: past that nothing new is kept until something has
    expired. `timeout` is how many seconds a statement waits for another process. The file is
    opened at the first use, and closed by `close` or with the loop.

    Raises UsageError for a folder that is not there, and for what is there and no file of this
    kind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1024 * 1024 * 1024,
        timeout: float = 2.0,
    ) -> None:
        self.path = Path(path).absolute()
        self._max_pages = max(16, max_bytes // _PAGE)
        self._timeout = timeout
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None  # process and loop
        self._connection: aiosqlite.Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._life: AsyncGenerator[None, None] | None = None
        self._inherited: list[object] = []
        self._swept = 0.0
        _check(self.path)

    async def load(self, key: str, now: float) -> StoredSession | None:
        """Return the user session `key`, None when there is none."""
        rows = await self._run(
            "SELECT data, created, expires FROM user_sessions WHERE id = ? AND expires > ?",
            (key, now),
        )
        if not rows:
            return None
        [(data, created, expires)] = rows
        try:
            values = _unpack(data)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path}: a row cannot be read: {error}") from error
        return StoredSession(values, created, expires)

    async def create(self, key: str, session: StoredSession, now: float) -> None:
        """Keep a new user session; now and then delete what has expired."""
        if abs(now - self._swept) >= _SWEEP_EVERY:
            self._swept = now
            await self.sweep(now)
        row = (key, _pack(session.values), session.created, session.expires)
        insert = "INSERT INTO user_sessions (id, data, created, expires) VALUES (?, ?, ?, ?)"
        try:
            await self._run(insert, row)
        except StoreError as error:
            if _code(error.__cause__) != sqlite3.SQLITE_FULL:
                raise
            await self.sweep(now)
            await self._run(insert, row)

    async def update(
        self,
        key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float | None,
        now: float,
    ) -> bool:
        """Change values; False when there is no such user session."""
        return await self._change(key, key, changed, removed, expires, now)

    async def replace(
        self,
        key: str,
        new_key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float,
        now: float,
    ) -> bool:
        """Change values and the id; False when there is no such user session."""
        return await self._change(key, new_key, changed, removed, expires, now)

    async def delete(self, key: str) -> None:
        """Forget the user session `key`, if there is one."""
        await self._run("DELETE FROM user_sessions WHERE id = ?", (key,))

    async def sweep(self, now: float) -> None:
        """Delete some of what has expired; `create` does so once a minute."""
        await self._run(
            "DELETE FROM user_sessions WHERE id IN "
            "(SELECT id FROM user_sessions WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (now, _SWEEP_MOST),
        )

    async def close(self) -> None:
        """Close the file. Used again, it opens again."""
        life, self._life = self._life, None
        if life is not None:
            await life.aclose()

    async def _change(
        self,
        key: str,
        new_key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float | None,
        now: float,
    ) -> bool:
        rows = await self._run(
            "UPDATE user_sessions SET id = ?, data = merged(data, ?, ?), "
            "expires = coalesce(?, expires) WHERE id = ? AND expires > ? RETURNING 1",
            (new_key, _pack(changed), _pack(list(removed)), expires, key, now),
        )
        return bool(rows)

    # The connection

    async def _run(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows."""
        try:
            connection = await self._open()
            return list(await connection.execute_fetchall(statement, values))
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: closed meanwhile
            if _code(error) in _BROKEN:
                await self.close()
            raise StoreError(f"{self.path}: {error}") from error

    async def _open(self) -> aiosqlite.Connection:
        """Return the connection of this process and loop, opened by whoever comes first."""
        owner = (os.getpid(), asyncio.get_running_loop())
        if self._owner != owner:
            self._leave_behind(owner)
        while self._connection is None:
            if self._opening is None:
                self._opening = asyncio.create_task(self._connect())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)
        return self._connection

    def _leave_behind(self, owner: tuple[int, asyncio.AbstractEventLoop]) -> None:
        """Give up the connection of another loop or process, which has closed it or will."""
        if self._connection is not None:
            if self._owner is not None and self._owner[0] != owner[0]:
                # The parent process goes on with its own: nothing of it may be closed here
                # (https://www.sqlite.org/howtocorrupt.html section 2.6).
                self._inherited += [self._connection, self._life]
            else:
                self._connection.stop()
        self._owner = owner
        self._connection = self._opening = self._life = None

    def _opened(self, task: asyncio.Task[None]) -> None:
        if self._opening is task:
            self._opening = None
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; perhaps nobody does any more

    async def _connect(self) -> None:
        connection = await aiosqlite.connect(
            self.path,
            timeout=self._timeout,
            isolation_level=None,  # a transaction for each statement
            factory=partial(_Connection, max_pages=self._max_pages),
        )

        async def disconnect() -> None:
            if self._connection is connection:
                self._connection = None
            with suppress(sqlite3.Error):  # it was broken, and is given up
                await connection.close()

        self._life = await until_loop_ends(disconnect)
        self._connection = connection


class _Connection(sqlite3.Connection):
    """A connection that is ready for use: made in the thread that it lives in."""

    def __init__(self, path: str, *, max_pages: int, timeout: float, **options: Any) -> None:
        _make_file(path)
        super().__init__(path, timeout=timeout, **options)
        try:
            self.create_function("merged", 3, _merged, deterministic=True)
            self._set_up(path, max_pages, time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def _set_up(self, path: str, max_pages: int, deadline: float) -> None:
        while True:
            try:
                self._prepare(path, max_pages)
            except sqlite3.OperationalError as error:
                # Two processes that make a file at once: the change to WAL does not wait its turn.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _prepare(self, path: str, max_pages: int) -> None:
        [(version,)] = self.execute("PRAGMA user_version").fetchall()
        if version not in (0, _SCHEMA):
            raise sqlite3.DatabaseError(_foreign(version))
        self.execute("PRAGMA journal_mode = WAL").fetchall()
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute(f"PRAGMA max_page_count = {max_pages}").fetchall()
        if version == 0:
            self.execute(_TABLE)
            self.execute(_INDEX)
            self.execute(f"PRAGMA user_version = {_SCHEMA}")


def _code(error: BaseException | None) -> int:
    """Return SQLite's primary result code, 0 for what is no error of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _foreign(version: int) -> str:
    return f"its user_version is {version}, not {_SCHEMA}: it is not a file of user sessions"


def _make_file(path: str) -> None:
    """See to it that the file is there and its owner's alone; SQLite makes its others alike."""
    if sys.platform == "win32":
        return
    # An existing file must not be opened here: closing it would take SQLite's locks away from
    # other connections of this process (https://www.sqlite.org/howtocorrupt.html section 2.2).
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if os.stat(path).st_mode & 0o077:
            try:
                os.chmod(path, 0o600)
            except PermissionError:  # somebody else's: theirs to decide
                pass


def _check(path: Path) -> None:
    """Raise UsageError when `path` cannot be a file of user sessions."""
    if not path.parent.is_dir():
        raise UsageError(f"the folder of user sessions' file {path} is not there: make it first")
    if not path.exists():
        return
    if not path.is_file():
        raise UsageError(f"user sessions cannot be kept in {path}: it is no file")
    connection = sqlite3.connect(path)
    try:
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        if _code(error) == sqlite3.SQLITE_BUSY:
            return
        raise UsageError(f"user sessions cannot be kept in {path}: {error}") from None
    finally:
        connection.close()
    if version not in (0, _SCHEMA):
        raise UsageError(f"user sessions cannot be kept in {path}: {_foreign(version)}")
    if tables and "user_sessions" not in tables:
        raise UsageError(f"user sessions cannot be kept in {path}: it has other tables")
