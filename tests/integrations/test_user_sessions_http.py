"""User sessions and basic authentication over real connections, with clients that keep cookies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from h2log import App, Request, Response
from h2log.access.record import Outcome
from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_store import SessionStore
from h2log.app.user_sessions import COOKIE, UserSessions
from h2log.integrations.redis_sessions import RedisStore
from h2log.integrations.sqlite_sessions import SqliteStore
from h2log.server.certificates import Certificates
from tests.integrations.redis_server import RedisServer
from tests.integrations.session_app import SECRET, make_app
from tests.server.h2_client import H2Client
from tests.support import Running, client_context, run


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Each kind of store."""
    made: SessionStore
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "sessions.db")
    else:
        server: RedisServer = request.getfixturevalue("redis")
        made = RedisStore(server.url, timeout=5)
    yield made
    await made.close()


def browser(server: Running) -> httpx.AsyncClient:
    """Return a client with a cookie jar that speaks HTTP/2."""
    assert server.certs is not None
    return httpx.AsyncClient(
        verify=client_context(server.certs),
        http1=False,
        http2=True,
        base_url=server.url,
        follow_redirects=True,
    )


async def test_a_life(certs: Certificates, store: SessionStore) -> None:
    """Nothing for who only looks; then a basket, a login with a new id, a logout."""
    async with (
        Running(make_app(UserSessions(SECRET, store=store)), certs) as server,
        browser(server) as user,
    ):
        for path in ("/", "/show"):
            assert "set-cookie" not in (await user.get(path)).headers
        counted = await user.post("/count")
        assert (counted.text, counted.headers["cache-control"]) == ("1", "no-store")
        before = user.cookies[COOKIE]
        shown = await user.get("/show")
        assert shown.json() == {"count": 1}
        assert shown.headers["vary"] == "cookie"
        assert "set-cookie" not in shown.headers
        plain = await user.get("/")
        assert not {"vary", "cache-control", "set-cookie"} & set(plain.headers)
        assert (await user.post("/login?name=ada")).json() == {"count": 1, "user": "ada"}
        login = user.cookies[COOKIE]
        assert login != before
        user.cookies.set(COOKIE, before, domain="127.0.0.1", path="/")
        assert (await user.get("/show")).json() == {}
        user.cookies.clear()
        user.cookies.set(COOKIE, login, domain="127.0.0.1", path="/")
        refused = await user.post("/refused")
        assert (refused.status_code, refused.headers["cache-control"]) == (403, "private, no-cache")
        failed = await user.post("/fail")
        assert failed.status_code == 500
        expected = {"count": 1, "user": "ada", "tries": 1}
        assert (await user.get("/show")).json() == expected
        user.cookies.clear()
        assert (await user.get("/show")).json() == {}
        user.cookies.set(COOKIE, login, domain="127.0.0.1", path="/")
        await user.post("/logout")
        user.cookies.set(COOKIE, login, domain="127.0.0.1", path="/")
        assert (await user.get("/show")).json() == {}
    assert server.outcomes["HANDLER_ERROR"] == 1
    assert set(server.outcomes) == {"COMPLETE", "HANDLER_ERROR"}


async def test_a_begun_one_comes_with_an_error_too(certs: Certificates) -> None:
    """The cookie is on the error's response, so that its next request is the same one's."""
    async with (
        Running(make_app(UserSessions(SECRET)), certs) as server,
        browser(server) as user,
    ):
        for count in (1, 2, 3):
            response = await user.post("/refused")
            assert (response.status_code, f"try {count}" in response.text) == (403, True)


async def test_requests_at_once_on_one_connection(certs: Certificates, store: SessionStore) -> None:
    """All of them wait in their handlers together; nothing that one wrote is lost."""
    app = App()
    app.use(UserSessions(SECRET, store=store))
    together = asyncio.Barrier(20)

    @app.post("/set/{name}")
    async def put(request: Request) -> Response:
        await together.wait()
        request.user_session[request.params["name"]] = request.id
        request.user_session["last"] = request.id
        return Response.text(request.id)

    @app.get("/show")
    def show(request: Request) -> Response:
        return Response.json(dict(request.user_session))

    @app.post("/begin")
    def begin(request: Request) -> Response:
        request.user_session["begun"] = True
        return Response.text("begun")

    async with Running(app, certs) as server, browser(server) as user:
        await user.post("/begin")
        done = await asyncio.gather(*(user.post(f"/set/name{n}") for n in range(20)))
        ids = {f"name{n}": response.text for n, response in enumerate(done)}
        found = (await user.get("/show")).json()
    assert found.pop("last") in ids.values()
    assert found == {"begun": True, **ids}
    assert len(server.sessions) == 1


@pytest.mark.parametrize("how", ["--http2", "--http1.1"])
async def test_curl_keeps_it(certs: Certificates, tmp_path: Path, how: str) -> None:
    """Another client's cookie jar, which checks the prefix of the name."""
    jar = tmp_path / "jar"
    arguments = ["-sS", how, "--cacert", str(certs.ca), "-b", str(jar), "-c", str(jar)]
    async with Running(make_app(UserSessions(SECRET)), certs) as server:
        url = server.url.replace("127.0.0.1", "localhost")

        async def curl(path: str, *more: str) -> str:
            done = await run("curl", *arguments, *more, f"{url}{path}")
            assert done.code == 0, done.stderr
            return done.text

        assert await curl("/show") == "{}"
        assert COOKIE not in jar.read_text()
        assert await curl("/count", "-d", "") == "1"
        [line] = [line for line in jar.read_text().splitlines() if COOKIE in line]
        host, below, path, secure, expires, name, _ = line.removeprefix("#HttpOnly_").split("\t")
        assert line.startswith("#HttpOnly_")
        assert (host, below, path, secure, name) == ("localhost", "FALSE", "/", "TRUE", COOKIE)
        assert int(expires) > 0
        assert json.loads(await curl("/login?name=ada", "-d", "", "-L")) == {
            "count": 1,
            "user": "ada",
        }
        assert json.loads(await curl("/show")) == {"count": 1, "user": "ada"}
        assert await curl("/logout", "-d", "") == "bye"
        assert COOKIE not in jar.read_text()
        assert await curl("/show") == "{}"


async def test_curl_keeps_it_without_tls(tmp_path: Path) -> None:
    """For development: the cookie has neither prefix nor Secure then."""
    jar = tmp_path / "jar"
    async with Running(make_app(UserSessions(SECRET, insecure=True)), None) as server:
        for count in ("1", "2"):
            done = await run(
                "curl", "-sS", "--http2-prior-knowledge", "-b", str(jar), "-c", str(jar),
                "-d", "", f"{server.url}/count",
            )  # fmt: skip
            assert (done.code, done.text) == (0, count)


@pytest.mark.parametrize(
    "cookie",
    [
        f"{COOKIE}={'A' * 43}.{'A' * 43}",
        f"{COOKIE}={'A' * 8000}",
        f"{COOKIE}",
        f"{COOKIE}=",
        f"{COOKIE}=\xff\xfe",
        f'{COOKIE}="{"%00" * 20}"',
        f"a=b; {COOKIE}=x; {COOKIE}=y",
        ";;;=;==",
    ],
)
async def test_a_cookie_that_is_none_of_ours(certs: Certificates, cookie: str) -> None:
    """Is as none, whatever it is."""
    async with (
        Running(make_app(UserSessions(SECRET)), certs) as server,
        browser(server) as user,
    ):
        headers = [(b"cookie", cookie.encode("latin-1"))]
        response = await user.get("/show", headers=headers)
        assert (response.status_code, response.json()) == (200, {})
        response = await user.post("/count", headers=headers)
        assert (response.status_code, response.text) == (200, "1")


async def test_files_stay_as_they_are(certs: Certificates, tmp_path: Path) -> None:
    """With `static=False` they come from memory, with and without a cookie; otherwise too."""
    (tmp_path / "a.txt").write_text("content")
    for static in (False, True):
        app = make_app(UserSessions(SECRET))
        inner = App()
        inner.use(UserSessions(SECRET, cookie="inner"), static=static)
        inner.static(tmp_path)
        app.mount("/files", inner)
        async with Running(app, certs) as server, browser(server) as user:
            await user.post("/count")
            responses = [await user.get("/files/a.txt") for _ in range(3)]
            for response in responses:
                assert (response.text, "set-cookie" in response.headers) == ("content", False)
                assert "cookie" not in response.headers.get("vary", "")
            assert [record.cache for record in server.records[1:]] == ["miss", "hit", "hit"]


async def test_what_is_put_in_while_content_is_streamed_is_an_error(certs: Certificates) -> None:
    """It would be lost; reading goes on."""
    app = App()
    app.use(UserSessions(SECRET))

    @app.post("/stream")
    async def stream(request: Request) -> Response:
        request.user_session["a"] = "begun"

        async def pieces() -> AsyncIterator[bytes]:
            yield request.user_session["a"].encode()
            request.user_session["b"] = 2

        return Response(pieces())

    @app.get("/show")
    def show(request: Request) -> Response:
        return Response.json(dict(request.user_session))

    async with Running(app, certs) as server, browser(server) as user:
        with pytest.raises(httpx.RemoteProtocolError):
            await user.post("/stream")
        [record] = await server.logged(1)
        assert record.outcome == Outcome.HANDLER_ERROR


async def test_a_client_that_goes_away_changes_nothing(
    certs: Certificates, store: SessionStore
) -> None:
    """A handler that is cancelled at its `await` has put nothing in, and the store goes on."""
    app = make_app(UserSessions(SECRET, store=store))
    entered = asyncio.Event()

    @app.post("/wait")
    async def wait(request: Request) -> Response:
        request.user_session["waited"] = True
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with Running(app, certs) as server:
        async with browser(server) as user:
            await user.post("/count")
            async with H2Client.connect(server) as other:
                cookie = ("cookie", f"{COOKIE}={user.cookies[COOKIE]}")
                stream = other.send("POST", "/wait", (cookie,))
                await entered.wait()
                other.reset(stream)
                await server.logged(2)
            assert (await user.get("/show")).json() == {"count": 1}
        assert server.outcomes == {"COMPLETE": 2, "CLIENT_RESET": 1}


# Basic authentication


async def test_basic_authentication(certs: Certificates) -> None:
    """httpx and curl answer the challenge; below the prefix alone it is asked for."""
    async with (
        Running(make_app(UserSessions(SECRET)), certs) as server,
        browser(server) as user,
    ):
        refused = await user.get("/inner/name")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Basic realm="inner", charset="UTF-8"'
        assert (await user.get("/inner/name", auth=("ada", "wrong"))).status_code == 401
        assert (await user.get("/inner/name", auth=("ada", "secret"))).text == "ada"
        assert (await user.get("/inner/nothing")).status_code == 401
        assert (await user.get("/inner/nothing", auth=("ada", "secret"))).status_code == 404
        assert (await user.get("/")).status_code == 200
        url = server.url.replace("127.0.0.1", "localhost")
        arguments = ["-sS", "--cacert", str(certs.ca), "-u", "ada:secret"]
        for how in (["--http2"], ["--http1.1"], ["--http2", "--anyauth"]):
            done = await run("curl", *arguments, *how, f"{url}/inner/name")
            assert (done.code, done.text) == (0, "ada")
