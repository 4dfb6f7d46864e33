"""User sessions in the memory of one process: bounded, and gone when it ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from h2log.app.user_session_store import StoredSession

__all__ = ["MemoryStore"]

_ENTRY_OVERHEAD: Final = 700
"""Bytes that a user session takes besides its values (its id, two dictionaries, the record)."""
_VALUE_OVERHEAD: Final = 150
"""Bytes that a value takes besides its name and content."""


def _cost(values: Mapping[str, bytes]) -> int:
    return _ENTRY_OVERHEAD + sum(
        _VALUE_OVERHEAD + 4 * len(name) + len(value) for name, value in values.items()
    )


class MemoryStore:
    """Keeps user sessions in memory, for one process: the default, for development and tests too.

    At most `max_sessions`, in at most about `max_bytes` of memory; past either the one that was
    not used for the longest time goes. Raises ValueError for bounds that are not positive.
    """

    shared = False
    """Whether other processes have what one of them keeps, and one that comes after it too."""

    def __init__(self, max_sessions: int = 100_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        if max_sessions < 1 or max_bytes < 1:
            raise ValueError("max_sessions and max_bytes of a MemoryStore must be at least 1")
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()  # the longest unused first
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many are kept, expired ones that nobody met yet among them."""
        return len(self._sessions)

    @property
    def size(self) -> int:
        """About how many bytes of memory they take."""
        return self._bytes

    async def load(self, key: str, now: float) -> StoredSession | None:
        """Return the user session `key`, None when there is none."""
        session = self._current(key, now)
        if session is None:
            return None
        self._sessions.move_to_end(key)
        return session._replace(values=dict(session.values))

    async def create(self, key: str, session: StoredSession, now: float) -> None:
        """Keep a new user session; what is too much goes."""
        self._put(key, session._replace(values=dict(session.values)), now)

    async def update(
        self,
        key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float | None,
        now: float,
    ) -> bool:
        """Change values; False when there is no such user session."""
        session = self._current(key, now)
        if session is None:
            return False
        self._put(key, _merged(session, changed, removed, expires), now)
        return True

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
        session = self._current(key, now)
        if session is None:
            return False
        self._drop(key)
        self._put(new_key, _merged(session, changed, removed, expires), now)
        return True

    async def delete(self, key: str) -> None:
        """Forget the user session `key`, if there is one."""
        self._drop(key)

    async def close(self) -> None:
        """Do nothing: what is in memory needs no closing, and may be used again."""

    def _current(self, key: str, now: float) -> StoredSession | None:
        session = self._sessions.get(key)
        if session is not None and session.expires <= now:
            self._drop(key)
            return None
        return session

    def _put(self, key: str, session: StoredSession, now: float) -> None:
        self._drop(key)
        self._sessions[key] = session
        self._bytes += _cost(session.values)
        while self._sessions:
            oldest, first = next(iter(self._sessions.items()))
            over = len(self._sessions) > self._max_sessions or self._bytes > self._max_bytes
            if not over and first.expires > now:
                return
            self._drop(oldest)

    def _drop(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            self._bytes -= _cost(session.values)


def _merged(
    session: StoredSession,
    changed: Mapping[str, bytes],
    removed: Collection[str],
    expires: float | None,
) -> StoredSession:
    values = {name: value for name, value in session.values.items() if name not in removed}
    values.update(changed)
    return StoredSession(values, session.created, session.expires if expires is None else expires)
