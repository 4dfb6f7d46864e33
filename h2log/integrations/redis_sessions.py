"""User sessions in Redis: for several workers and machines. Needs `pip install 'h2log[redis]'`.

A user session is a hash: `created` and `expires` in epoch seconds, and each value, in msgpack,
under its name with a dot in front. Redis itself deletes it when it has expired. What changes one
is a script, which Redis runs as one step (https://redis.io/docs/latest/develop/programmability).

What Redis has to be for this: one server, or a primary with replicas behind one address (`replace`
moves a user session from one key to another, which a cluster refuses). Whether user sessions
survive its restart is its own setting (`appendonly yes`); with `maxmemory` and an eviction policy
other than `noeviction` it may forget some.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Collection, Coroutine, Mapping
from typing import Any, Final, TypeVar, cast

from h2log.app.user_session_store import StoredSession, StoreError
from h2log.errors import UsageError
from h2log.integrations.lifetime import until_loop_ends

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError:
    raise UsageError("a RedisStore needs redis: pip install 'h2log[redis]'") from None

__all__ = ["RedisStore"]

_T = TypeVar("_T")

# KEYS: the id. ARGV: milliseconds until it ends, then fields and values. (A script, and not a
# transaction: of a command in one that fails redis-py tells with its arguments, which are secrets.)
_CREATE: Final = """
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
# KEYS: the id, the id from now on. ARGV: now; expires ("" leaves it); milliseconds until then; how
# many fields are removed, these, then fields and values that are set. A command that is sent again,
# because the connection broke before its reply, finds its work done, and does it once more.
_CHANGE: Final = """
local function there(key)
    local expires = redis.call('HGET', key, 'expires')
    return expires and tonumber(expires) > tonumber(ARGV[1])
end
local key, new = KEYS[1], KEYS[2]
if there(key) then
    if key ~= new then redis.call('RENAME', key, new) end
elseif key == new or not there(new) then
    return 0
end
local first = 5 + tonumber(ARGV[4])
for i = 5, first - 1 do redis.call('HDEL', new, ARGV[i]) end
for i = first, #ARGV, 2 do redis.call('HSET', new, ARGV[i], ARGV[i + 1]) end
if ARGV[2] ~= '' then
    redis.call('HSET', new, 'expires', ARGV[2])
    redis.call('PEXPIRE', new, ARGV[3])
end
return 1
"""


class RedisStore:
    """Keeps user sessions in the Redis at `url`: `redis://`, `rediss://` (TLS) or `unix://`.

    `prefix` stands before each key. `timeout` is in seconds, for connecting, for each reply, and
    for a free one of at most `max_connections` connections. They are opened when they are needed,
    and closed by `close` or with the loop. One that broke is replaced at once, so that a Redis that
    was restarted is used again with the next request.

    Raises UsageError for a URL that is none.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        prefix: str = "h2log:session:",
        timeout: float = 1.0,
        max_connections: int = 50,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._max_connections = max_connections
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None  # process and loop
        self._client: Redis | None = None
        self._life: AsyncGenerator[None, None] | None = None
        self._inherited: list[object] = []
        self._writing: set[asyncio.Task[Any]] = set()
        try:
            self._pool()
        except (ValueError, TypeError) as error:
            # Not the URL itself: it may have a password.
            raise UsageError(
                f"the URL of the Redis for user sessions is wrong: {error}; "
                "expected redis://HOST:PORT/NUMBER"
            ) from None

    def __repr__(self) -> str:
        return "<RedisStore>"  # the URL may have a password

    async def load(self, key: str, now: float) -> StoredSession | None:
        """Return the user session `key`, None when there is none."""
        client = await self._open()
        found = await self._done(cast(Awaitable[Any], client.hgetall(self._prefix + key)))
        fields = cast(dict[bytes, bytes], found)
        if not fields:
            return None
        try:
            created, expires = float(fields[b"created"]), float(fields[b"expires"])
            values = {
                name[1:].decode(): value for name, value in fields.items() if name[:1] == b"."
            }
        except (KeyError, ValueError) as error:
            raise StoreError(f"Redis: {self._prefix}… is no user session: {error!r}") from error
        return StoredSession(values, created, expires) if expires > now else None

    async def create(self, key: str, session: StoredSession, now: float) -> None:
        """Keep a new user session."""
        arguments: list[str | bytes | int] = [_milliseconds(session.expires, now)]
        arguments += ["created", repr(session.created), "expires", repr(session.expires)]
        arguments += _fields(session.values)
        await self._run(_CREATE, [key], arguments)

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
        client = await self._open()
        await self._write(_awaited(client.delete(self._prefix + key)))

    async def close(self) -> None:
        """Close the connections. Used again, it opens them again."""
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
        arguments: list[str | bytes | int] = [repr(now), "", 0]
        if expires is not None:
            arguments[1:] = [repr(expires), _milliseconds(expires, now)]
        arguments += [len(removed), *(f".{name}" for name in removed)]
        arguments += _fields(changed)
        return bool(await self._run(_CHANGE, [key, new_key], arguments))

    # The connections

    async def _run(
        self, script: str, keys: list[str], arguments: list[str | bytes | int]
    ) -> object:
        client = await self._open()
        run = client.register_script(script)
        return await self._write(
            _awaited(run(keys=[self._prefix + key for key in keys], args=arguments))
        )

    async def _write(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do what changes something to its end, also when the request is cancelled meanwhile."""
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await self._done(asyncio.shield(task))

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; perhaps nobody does any more

    async def _done(self, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except (RedisError, OSError) as error:
            raise StoreError(f"Redis: {str(error) or type(error).__name__}") from error

    def _pool(self) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(
            self._url,
            max_connections=self._max_connections,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            # Once and at once: for a connection that has been dead since Redis was restarted. To
            # wait for Redis is the client's part, which is told when to come back.
            retry=Retry(NoBackoff(), 1),
            decode_responses=False,
        )

    async def _open(self) -> Redis:
        """Return the client of this process and loop."""
        owner = (os.getpid(), asyncio.get_running_loop())
        if self._client is None or self._owner != owner:
            if self._owner is not None and self._owner[0] != owner[0]:
                # The parent process goes on with its own: nothing of it may be closed here.
                self._inherited += [self._client, self._life]
            client = self._client = Redis(connection_pool=self._pool())
            self._owner = owner

            async def disconnect() -> None:
                if self._client is client:
                    self._client = None
                await client.aclose(close_connection_pool=True)

            self._life = await until_loop_ends(disconnect)
        return self._client


async def _awaited(work: Any) -> Any:
    return await work


def _fields(values: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for name, value in values.items() for part in (f".{name}", value)]


def _milliseconds(expires: float, now: float) -> int:
    return max(1, math.ceil((expires - now) * 1000))
