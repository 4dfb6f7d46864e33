"""User sessions in Redis: restarts, several servers, and whatever may be wrong with a Redis.

What all stores do is in `test_session_stores`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from h2log.app.user_session_secret import new_token
from h2log.app.user_session_store import StoredSession, StoreError
from h2log.errors import UsageError
from h2log.integrations.redis_sessions import RedisStore
from h2log.server.certificates import Certificates
from tests.integrations.redis_server import RedisServer
from tests.support import PATIENCE, ROOT, Process, client_context, eventually, poll

NOW = time.time()
APP = "tests.integrations.session_app:app"


def session(**values: bytes) -> StoredSession:
    """Return a user session that ends in 100 seconds."""
    return StoredSession(values, NOW, NOW + 100)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed."""
    with RedisServer(tmp_path) as server:
        yield server


@asynccontextmanager
async def opened(server: RedisServer, **options: float) -> AsyncIterator[RedisStore]:
    """A store with keys of its own."""
    store = RedisStore(server.url, prefix=f"{new_token()}:", **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


def browser(certs: Certificates, base: str) -> httpx.Client:
    """Return a client with a cookie jar that speaks HTTP/2."""
    return httpx.Client(
        verify=client_context(certs), http2=True, base_url=base, follow_redirects=True
    )


# A server of ours in front


def test_redis_is_killed_and_started_again(
    mortal: RedisServer, certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who needs it meanwhile gets 503 with the id that is in the log; all others are served.

    When it is back, the next request is answered, with what was there before.
    """
    monkeypatch.setenv("TEST_SESSIONS", mortal.url)
    log = tmp_path / "access.log"
    with Process("run", APP, certs=certs, log=log) as server:
        with browser(certs, server.url) as user, browser(certs, server.url) as stranger:
            assert user.post("/login?name=ada").json() == {"user": "ada"}
            assert user.post("/count").text == "1"
            cookie = dict(user.cookies)
            mortal.kill()
            failed = [
                user.get("/show"),
                user.post("/count"),
                user.post("/logout"),
                stranger.post("/count"),
            ]
            served = [user.get("/"), stranger.get("/"), stranger.get("/show")]
            for response in failed:
                assert response.status_code == 503
                assert response.http_version == "HTTP/2"
                assert response.headers["retry-after"] == "5"
                assert f"request id: {response.headers['x-request-id']}\n" in response.text
                assert str(mortal.port) not in response.text
                assert "set-cookie" not in response.headers
            assert [response.status_code for response in served] == [200, 200, 200]
            assert (dict(user.cookies), dict(stranger.cookies)) == (cookie, {})
            mortal.start()
            assert user.post("/count").text == "2"
            assert user.get("/show").json() == {"user": "ada", "count": 2}
            assert stranger.post("/count").text == "1"
        assert server.stop() == 0
        # With a traceback it would have been a bug of ours.
        told = [line for line in server.stderr.end() if "user sessions can" in line]
    lines = {line.request: line for line in server.lines}
    for response in failed:
        line = lines[response.headers["x-request-id"]]
        assert line.status == 503
        assert response.request.url.path == line.path
    assert [line.status for line in server.lines].count(503) == len(failed)
    read, written, *again = told
    assert "cannot be read: Redis: " in read and failed[0].headers["x-request-id"] in read
    assert "cannot be written: Redis: " in written
    assert failed[-1].headers["x-request-id"] in written
    assert ["again" in line for line in again] == [True, True]


def test_redis_is_killed_again_and_again(
    mortal: RedisServer, certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time with many connections in use: none of the dead ones answers a later request."""
    monkeypatch.setenv("TEST_SESSIONS", mortal.url)
    with Process("run", APP, certs=certs, log=tmp_path / "access.log") as server:

        async def rounds() -> None:
            async with httpx.AsyncClient(
                verify=client_context(certs), http2=True, base_url=server.url
            ) as client:
                await client.post("/count")

                async def all_at_once() -> set[int]:
                    found = await asyncio.gather(*(client.get("/show") for _ in range(30)))
                    return {response.status_code for response in found}

                for _ in range(3):
                    assert await all_at_once() == {200}
                    mortal.kill()
                    assert await all_at_once() == {503}
                    mortal.start()

                assert await all_at_once() == {200}
                assert (await client.get("/show")).json() == {"count": 1}

        asyncio.run(rounds())


def test_several_servers_share_it(
    redis: RedisServer, certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user session, whichever of them a request comes to; each sees what the other did."""
    monkeypatch.setenv("TEST_SESSIONS", redis.url)
    with (
        Process("run", APP, certs=certs, log=tmp_path / "one.log") as one,
        Process("run", APP, certs=certs, log=tmp_path / "two.log") as two,
        browser(certs, "") as user,  # cookies know no ports (RFC 6265bis section 8.5)
    ):
        assert user.post(f"{one.url}/login?name=ada").json() == {"user": "ada"}
        assert user.post(f"{two.url}/count").text == "1"
        assert user.post(f"{one.url}/count").text == "2"
        assert user.get(f"{two.url}/show").json() == {"user": "ada", "count": 2}
        stolen = dict(user.cookies)
        assert user.post(f"{two.url}/logout").text == "bye"
        assert user.get(f"{one.url}/show").json() == {}
        user.cookies.update(stolen)
        assert user.get(f"{one.url}/show").json() == {}


# What stands in Redis


async def test_redis_forgets_what_has_expired(redis: RedisServer) -> None:
    """Each user session has the time to live that it has, and renewal moves it."""
    async with opened(redis) as store:
        with Redis(port=redis.port) as client:
            await store.create("one", StoredSession({"a": b"1"}, NOW, NOW + 100), NOW)
            [key] = client.keys(f"{store._prefix}*")
            assert 50_000 < client.pttl(key) <= 100_000
            await store.update("one", {}, (), NOW + 200, NOW)
            assert 150_000 < client.pttl(key) <= 200_000
            await store.update("one", {"b": b"2"}, ("a",), None, NOW)
            assert 150_000 < client.pttl(key) <= 200_000
            await store.replace("one", "two", {}, (), NOW + 300, NOW)
            [key] = client.keys(f"{store._prefix}*")
            assert key == f"{store._prefix}two".encode()
            assert 250_000 < client.pttl(key) <= 300_000
            assert client.hgetall(key) == {
                b"created": repr(NOW).encode(),
                b"expires": repr(NOW + 300).encode(),
                b".b": b"2",
            }
            await store.create("brief", StoredSession({}, NOW, NOW + 0.02), NOW)
            poll(lambda: not client.exists(f"{store._prefix}brief"))


async def test_prefixes_are_strangers(redis: RedisServer) -> None:
    """Two applications in one Redis do not meet."""
    async with opened(redis) as one, opened(redis) as two:
        await one.create("key", session(a=b"1"), NOW)
        assert await two.load("key", NOW) is None


async def test_a_key_that_is_something_else_is_a_store_error(redis: RedisServer) -> None:
    """Whoever else writes below our prefix does not make us fail in another way."""
    async with opened(redis) as store:
        with Redis(port=redis.port) as client:
            client.set(f"{store._prefix}text", "text")
            client.hset(f"{store._prefix}hash", "expires", "soon")
            client.hset(f"{store._prefix}other", "name", "value")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.load("text", NOW)
        for key in ("hash", "other"):
            with pytest.raises(StoreError, match="is no user session"):
                await store.load(key, NOW)


async def test_scripts_that_redis_has_forgotten_are_sent_again(redis: RedisServer) -> None:
    """As after its restart."""
    async with opened(redis) as store:
        await store.create("one", session(), NOW)
        assert await store.update("one", {"a": b"1"}, (), None, NOW)
        with Redis(port=redis.port) as client:
            client.script_flush()
        assert await store.update("one", {"b": b"2"}, (), None, NOW)
        assert await store.load("one", NOW) == session(a=b"1", b=b"2")


async def test_a_move_whose_reply_was_lost_is_made_once(redis: RedisServer) -> None:
    """Sent again, it finds its work done and says so."""
    async with opened(redis) as store:
        await store.create("one", session(a=b"1"), NOW)
        for _ in range(2):
            assert await store.replace("one", "two", {"b": b"2"}, (), NOW + 100, NOW)
        assert await store.load("two", NOW) == session(a=b"1", b=b"2")


# What may be wrong


async def test_connections_are_bounded(redis: RedisServer) -> None:
    """Many requests at once wait for a few connections."""
    async with opened(redis, max_connections=3, timeout=PATIENCE) as store:
        with Redis(port=redis.port) as client:
            before = {one["id"] for one in client.client_list()}
            await asyncio.gather(*(store.load(str(key), NOW) for key in range(200)))
            ours = [one for one in client.client_list() if one["id"] not in before]
            assert len(ours) == 3
            await store.close()
            gone = {one["id"] for one in ours}
            poll(lambda: not gone & {one["id"] for one in client.client_list()})


async def test_a_redis_that_does_not_answer_is_a_store_error() -> None:
    """After `timeout`, whether it takes connections and is silent, or there is none."""
    taken = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = RedisStore(f"redis://127.0.0.1:{port}", timeout=0.05)
    with pytest.raises(StoreError, match="Redis: "):
        await store.load("one", NOW)
    with pytest.raises(StoreError, match="Redis: "):
        await store.create("one", session(), NOW)
    await eventually(lambda: taken)
    await store.close()
    server.close()
    await server.wait_closed()
    with pytest.raises(StoreError, match="Redis: "):
        await store.load("one", NOW)
    with pytest.raises(StoreError, match="Redis: "):
        await store.update("one", {}, (), None, NOW)
    await store.close()


async def test_a_redis_without_memory_is_a_store_error(mortal: RedisServer) -> None:
    """For what needs some; what is there can be read and deleted."""
    async with opened(mortal) as store:
        await store.create("one", session(a=b"1"), NOW)
        with Redis(port=mortal.port) as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreError, match="maxmemory") as created:
                await store.create("two", session(a=b"private"), NOW)
            with pytest.raises(StoreError, match="maxmemory") as updated:
                await store.update("one", {"b": b"private"}, (), None, NOW)
            for caught in (created, updated):  # it goes to the log
                assert "private" not in str(caught.value)
                assert store._prefix not in str(caught.value)
            assert await store.load("one", NOW) == session(a=b"1")
            await store.delete("one")
            client.config_set("maxmemory", 0)
        await store.create("two", session(), NOW)


async def test_a_password(tmp_path: Path) -> None:
    """It stands in the address, and nowhere in what we say."""
    with RedisServer(tmp_path, "--requirepass", "open-sesame") as server:
        right = RedisStore(f"redis://:open-sesame@127.0.0.1:{server.port}/0")
        await right.create("one", session(a=b"1"), NOW)
        assert await right.load("one", NOW) == session(a=b"1")
        await right.close()
        for url in (f"redis://:wrong-one@127.0.0.1:{server.port}/0", server.url):
            store = RedisStore(url)
            with pytest.raises(StoreError) as caught:
                await store.load("one", NOW)
            assert "wrong-one" not in f"{caught.value!r} {caught.value} {store!r} {right!r}"
            await store.close()
        assert "open-sesame" not in repr(right)


@pytest.mark.parametrize(
    "url", ["http://h:pass@localhost", "localhost:6379", "", "redis://h:pass@localhost:port/0"]
)
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    """It says what is expected, without the password."""
    with pytest.raises(UsageError, match="expected redis://HOST:PORT/NUMBER") as caught:
        RedisStore(url)
    assert "pass" not in str(caught.value)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a process of its own; a warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_without_the_package_it_says_what_to_install() -> None:
    """When it is imported."""
    done = python(
        "import sys; sys.modules['redis'] = None\n"
        "from h2log.errors import UsageError\n"
        "try: import h2log.integrations.redis_sessions\n"
        "except UsageError as error: print(error)"
    )
    assert done.stdout == "a RedisStore needs redis: pip install 'h2log[redis]'\n", done.stderr


def test_nobody_has_to_close_it(redis: RedisServer) -> None:
    """Loops end without a warning about its connections, one after the other, also in a child."""
    done = python(
        "import asyncio, os, sys\n"
        "from h2log.integrations.redis_sessions import RedisStore\n"
        "store = RedisStore(sys.argv[1], prefix='child:')\n"
        "async def use(): assert await store.load('one', 0.0) is None\n"
        "async def fork():\n"
        "    await use()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        code = 1\n"
        "        try: asyncio.Runner().run(use()); code = 0\n"
        "        finally: os._exit(code)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    await use()\n"
        "asyncio.run(use()); asyncio.run(use()); asyncio.run(fork())\n",
        redis.url,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
