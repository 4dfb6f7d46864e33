"""The table of users, in an SQLite file."""

from __future__ import annotations

import sqlite3
from typing import Annotated

import aiosqlite
from msgspec import Meta, Struct, convert

from h2log import HTTPError
from h2log.errors import UsageError

__all__ = ["Row", "User", "Users"]


class User(Struct, forbid_unknown_fields=True):
    """What a client says of a user."""

    name: Annotated[str, Meta(pattern=r"\S", max_length=100)]
    email: Annotated[str, Meta(pattern=r"\A[^@\s]+@[^@\s]+\Z", max_length=254)]  # RFC 5321, 4.5.3.1


class Row(Struct):
    """What the table has of a user; `version` counts the changes."""

    id: int
    name: str
    email: str
    version: int


_TABLE = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    version INTEGER NOT NULL DEFAULT 1
)
"""
_CHECK = "SELECT id, name, email, version FROM users LIMIT 0"
_PAGE = "SELECT * FROM users WHERE id > :after ORDER BY id LIMIT :most"
_FIND = "SELECT * FROM users WHERE id = :id"
_ADD = "INSERT INTO users (name, email) VALUES (:name, :email) RETURNING *"
# The same values again are no change: PUT is idempotent (RFC 9110 section 9.2.2).
_CHANGE = """
UPDATE users SET name = :name, email = :email,
    version = version + (name <> :name OR email <> :email COLLATE BINARY)
WHERE id = :id AND version = ifnull(:version, version) RETURNING *
"""
_REMOVE = "DELETE FROM users WHERE id = :id AND version = ifnull(:version, version) RETURNING *"

_LARGEST = 2**63 - 1
"""The largest id that SQLite knows."""


class Users:
    """The users in the SQLite file `path`, which is made when it is not there.

    Each statement is a transaction of its own, run by the connection's thread: a request that is
    cancelled leaves nothing half done, and other processes may use the file at the same time.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Open the file. Raises UsageError for one that cannot be used."""
        try:
            self._connection = await aiosqlite.connect(self.path, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            await self._run(_TABLE)
            await self._run(_CHECK)
        except sqlite3.Error as error:
            await self.close()
            raise UsageError(
                f"cannot keep users in {self.path}: {error}; "
                "name another file in the environment variable USERS_DB"
            ) from None

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def page(self, after: int, most: int) -> list[Row]:
        """Return up to `most` users: those with the lowest ids past `after`."""
        return await self._run(_PAGE, after=_within(after), most=most)

    async def find(self, id: int) -> Row:
        """Return a user. Raises HTTPError 404."""
        for row in await self._run(_FIND, id=_within(id)):
            return row
        raise HTTPError(404, f"no user {id}")

    async def add(self, user: User) -> Row:
        """Keep a new user. Raises HTTPError 409 for an e-mail address that another user has."""
        [row] = await self._run(_ADD, name=user.name, email=user.email)
        return row

    async def change(self, id: int, user: User, version: int | None = None) -> Row:
        """Replace what is known of a user: of that `version`, if one is named.

        Raises HTTPError 404, 409 for an e-mail address that another user has, and 412.
        """
        values = {"id": _within(id), "version": version, "name": user.name, "email": user.email}
        for row in await self._run(_CHANGE, **values):
            return row
        raise _not_there(id, version)

    async def remove(self, id: int, version: int | None = None) -> None:
        """Forget a user: that `version`, if one is named. Raises HTTPError 404 and 412."""
        if not await self._run(_REMOVE, id=_within(id), version=version):
            raise _not_there(id, version)

    async def _run(self, sql: str, **values: str | int | None) -> list[Row]:
        assert self._connection is not None, "open() has not been called"
        try:
            rows = await self._connection.execute_fetchall(sql, values)
        except sqlite3.IntegrityError:  # the one constraint that a User can break
            raise HTTPError(409, f"$.email: another user has {values['email']}") from None
        return [convert(dict(row), Row) for row in rows]


def _within(id: int) -> int:
    """Return an id, or one that no row has where SQLite could not even compare it."""
    return id if 0 <= id <= _LARGEST else _LARGEST


def _not_there(id: int, version: int | None) -> HTTPError:
    if version is None:
        return HTTPError(404, f"no user {id}")
    return HTTPError(412, f"user {id} was changed meanwhile")
