"""Where the data of user sessions are kept, as the middleware meets it.

A store keeps, by id, the encoded values of a user session by their names, when it began, and when
it ends unless it is used. Several requests may use one user session at once, in several processes:
each hands over what it changed, and a store puts that into what it has then, so that the last
write to a value wins and none is lost to a write of another value. What is deleted stays deleted:
`update` and `replace` never make a user session anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, Protocol

from h2log.errors import HTTPError

__all__ = ["RETRY_AFTER", "SessionStore", "StoreError", "StoredSession"]

RETRY_AFTER: Final = 5
"""Seconds after which a client may try again: about what a Redis takes to start again."""


class StoreError(HTTPError):
    """A store cannot be reached, or cannot do its work: 503 with Retry-After (RFC 9110, 15.6.4).

    `reason` is for the log; the client is told only that it may come back.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            503,
            "user sessions are not available at the moment",
            (("retry-after", str(RETRY_AFTER)),),
        )
        self.reason = reason

    def __str__(self) -> str:
        return f"user sessions are not available: {self.reason}"


class StoredSession(NamedTuple):
    """What a store has of a user session: encoded values by name, and epoch seconds."""

    values: dict[str, bytes]
    created: float
    expires: float


class SessionStore(Protocol):
    """Keeps user sessions. Every method raises StoreError when it cannot do what it should.

    Times are epoch seconds; `now` is the present. A user session whose `expires` has come is not
    there any more, for every method. A store opens what it needs at its first use.
    """

    async def load(self, key: str, now: float) -> StoredSession | None:
        """Return the user session `key`, None when there is none."""

    async def create(self, key: str, session: StoredSession, now: float) -> None:
        """Keep a new user session."""

    async def update(
        self,
        key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float | None,
        now: float,
    ) -> bool:
        """Put `changed` values in and take `removed` ones out; False when there is no such one.

        `expires` is when it ends from now on; None leaves that as it is.
        """

    async def replace(
        self,
        key: str,
        new_key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float,
        now: float,
    ) -> bool:
        """Do what `update` does, and give the user session the id `new_key` in the same step."""

    async def delete(self, key: str) -> None:
        """Forget the user session `key`, if there is one."""

    async def close(self) -> None:
        """Give back what the store has open. Used again, it opens again."""
