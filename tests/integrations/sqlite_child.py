"""Processes that use a file of user sessions: `-m tests.integrations.sqlite_child WHAT PATH`.

`fill` creates user sessions without end and prints the id of each that is kept; `share NAME` waits
for a line, then puts a hundred values into the user session `shared`; `leave` uses the file and
ends without closing it; `fork` does so in a child too, which the parent outlives.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from h2log.app.user_session_store import StoredSession
from h2log.integrations.sqlite_sessions import SqliteStore

END = 4e9


def session(**values: bytes) -> StoredSession:
    """Return a user session that ends in the far future."""
    return StoredSession(values, 0.0, END)


async def fill(store: SqliteStore) -> None:
    """Create user sessions until somebody ends the process."""
    number = 0
    while True:
        keys = [f"{number}-{part}" for part in range(4)]
        for key in await asyncio.gather(*(created(store, key) for key in keys)):
            print(key, flush=True)
        number += 1


async def created(store: SqliteStore, key: str) -> str:
    """Create a user session; return its id once it is kept."""
    await store.create(key, session(key=key.encode()), time.time())
    return key


async def share(store: SqliteStore, name: str) -> None:
    """Put values into the user session that another process uses as well."""
    print("ready", flush=True)
    sys.stdin.readline()
    await store.load("shared", 0.0)  # opens the file, at the same time as the other
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(100):
        assert await store.update("shared", {f"{name} {number}": b"x"}, (), None, 0.0)


async def leave(store: SqliteStore) -> None:
    """Use the file."""
    await store.create("left", session(a=b"1"), 0.0)


async def look(store: SqliteStore) -> None:
    """Look at what another process has left, and change it."""
    assert await store.update("left", {"b": b"2"}, (), None, 0.0)


async def fork(store: SqliteStore) -> None:
    """Use the file in a child as well."""
    await leave(store)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.Runner().run(look(store))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert await store.update("left", {"c": b"3"}, (), None, 0.0)


def main(what: str, path: str, *arguments: str) -> None:
    """Do `what` with the file."""
    work = {"fill": fill, "share": share, "leave": leave, "fork": fork}[what]
    asyncio.run(work(SqliteStore(path), *arguments))  # type: ignore[operator]


if __name__ == "__main__":
    main(*sys.argv[1:])
