"""Signing in and out, asked by a client."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from h2log.app.user_session_store import StoredSession
from h2log.app.user_sessions import COOKIE
from h2log.clock import wall
from h2log.examples.login import ACCOUNTS, app, sessions
from h2log.examples.login.passwords import check, hashed
from h2log.server.certificates import Certificates
from tests.support import Running, client_context

ADA = {"name": "ada", "password": "engine-1843"}
KAY = {"name": "kay", "password": "eniac-1946"}


@pytest.fixture
async def server(certs: Certificates) -> AsyncIterator[Running]:
    """Return a server of the application, in this process."""
    async with Running(app, certs) as running:
        yield running


def browser(server: Running) -> httpx.AsyncClient:
    """Return a client with a cookie jar, over HTTP/2."""
    assert server.certs is not None
    return httpx.AsyncClient(
        verify=client_context(server.certs), http1=False, http2=True, base_url=server.url
    )


async def stored(user: httpx.AsyncClient) -> StoredSession | None:
    """Return what the server has of a client's user session."""
    return await sessions.store.load(user.cookies[COOKIE].partition(".")[0], wall())


async def test_five_minutes(server: Running) -> None:
    """A cookie for five minutes, renewed with each use, and worth nothing after them."""
    async with browser(server) as user:
        answer = await user.post("/login", data=ADA)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        [cookie] = answer.headers.get_list("set-cookie")
        assert cookie.startswith(f"{COOKIE}=")
        attributes = "; Max-Age=300; Path=/; Secure; HttpOnly; SameSite=Lax"
        assert cookie.endswith(attributes)
        assert answer.headers["cache-control"] == "no-store"
        first = await stored(user)
        assert first is not None
        assert first.expires - first.created == 300
        again = await user.get("/")
        assert again.status_code == 200
        assert again.headers["set-cookie"] == cookie
        assert again.headers["cache-control"] == "no-store"
        renewed = await stored(user)
        assert renewed is not None
        assert renewed.expires > first.expires
        assert renewed.created == first.created
        # Its time is over: the next request is nobody's.
        key = user.cookies[COOKIE].partition(".")[0]
        await sessions.store.update(key, {}, frozenset(), wall() - 1, wall())
        over = await user.get("/")
        assert (over.status_code, over.headers["location"]) == (303, "/login")
        form = await user.get("/login?over=1")
        assert "Five minutes have passed unused" in form.text


async def test_a_new_id_with_each_login(server: Running) -> None:
    """An id from before the sign-in leads nowhere after it; nor does one from before the end."""
    async with browser(server) as user, browser(server) as thief:
        await user.post("/login", data=ADA)
        thief.cookies.set(COOKIE, user.cookies[COOKIE], domain="127.0.0.1", path="/")
        assert "Hello, ada" in (await thief.get("/")).text
        before = user.cookies[COOKIE]
        await user.post("/login", data=KAY)
        assert user.cookies[COOKIE] != before
        assert "Hello, kay" in (await user.get("/")).text
        assert (await thief.get("/")).headers["location"] == "/login"
        held = user.cookies[COOKIE]
        out = await user.post("/logout")
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert COOKIE not in user.cookies
        thief.cookies.clear()
        thief.cookies.set(COOKIE, held, domain="127.0.0.1", path="/")
        assert (await thief.get("/")).headers["location"] == "/login"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"name": "ada", "password": "eniac-1946"}, 403),
        ({"name": "ada", "password": ""}, 403),
        ({"name": "Ada", "password": "engine-1843"}, 403),
        ({"name": "", "password": ""}, 403),
        ({"name": "nobody", "password": "engine-1843"}, 403),
        ({"name": "ada"}, 403),
        ({"password": "engine-1843"}, 403),
        ({"name": "\x00\ud7ff", "password": "é\x00"}, 403),
        ({"name": "ada", "password": "b" * 1001}, 413),
        ({}, 415),
    ],
)
async def test_who_does_not_come_in(server: Running, given: dict[str, str], status: int) -> None:
    """A page says what is wrong, and there is no cookie."""
    async with browser(server) as user:
        answer = await user.post("/login", data=given)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 303),
        ({"origin": "{own}"}, 303),
        ({"origin": "null"}, 403),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "{own}1"}, 403),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "{own}"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, 303),
    ],
)
async def test_another_site_cannot(server: Running, fields: dict[str, str], status: int) -> None:
    """What another site's page has its visitor send is refused; pages may be looked at."""
    sent = {name: value.replace("{own}", server.url) for name, value in fields.items()}
    async with browser(server) as user:
        answer = await user.post("/login", data=ADA, headers=sent)
        assert answer.status_code == status
        assert ("set-cookie" in answer.headers) is (status == 303)
        assert (await user.post("/logout", headers=sent)).status_code == status
        assert (await user.get("/login", headers=sent)).status_code == 200


async def test_who_only_looks_gets_no_cookie(server: Running) -> None:
    """Nothing is kept of who is not signed in; pages are strict, and nobody else's to keep."""
    async with browser(server) as user:
        assert (await user.get("/")).headers["location"] == "/login"
        form = await user.get("/login")
        assert "set-cookie" not in form.headers
        assert form.headers["cache-control"] == "private, no-cache"
        assert form.headers["vary"] == "cookie"
        policy = form.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        shown = re.findall(r"<code>(\w+)</code></td><td><code>(\S+)</code>", form.text)
        assert [name for name, _ in shown] == list(ACCOUNTS)
        assert all(check(ACCOUNTS, name, password) for name, password in shown)
        for path in ("/logout", "/login"):
            assert (await user.put(path)).status_code == 405
        missing = await user.get("/nothing")
        assert missing.status_code == 404
        assert missing.headers["x-request-id"] in missing.text


async def test_the_user_is_in_the_log(server: Running) -> None:
    """The record of a request has the name of who was signed in."""
    async with browser(server) as user:
        await user.post("/login", data=ADA)
        await user.get("/")
        await user.get("/login")
    records = await server.logged(3)
    users = [record.detail.user if record.detail else None for record in records]
    assert users == ["ada", "ada", None]


async def test_without_tls_it_says_so() -> None:
    """Over http the form says that the cookie would be refused."""
    async with (
        Running(app, None) as server,
        httpx.AsyncClient(http1=False, http2=True, base_url=server.url) as user,
    ):
        assert "over https alone" in (await user.get("/login")).text


def test_a_password_is_kept_as_a_hash() -> None:
    """Each hash has a salt of its own; the same password, composed otherwise, is the same."""
    one, two = hashed("caf\u00e9"), hashed("caf\u00e9")
    assert one != two
    assert "caf" not in one
    for kept in (one, two):
        assert check({"x": kept}, "x", "cafe\u0301")
        assert not check({"x": kept}, "x", "cafe")
        assert not check({"x": kept}, "y", "caf\u00e9")
