"""The middleware of user sessions: cookies, expiry, new ids, requests at once, failing stores."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.app.user_session import UserSession
from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_secret import Signer, new_token
from h2log.app.user_session_store import StoredSession, StoreError
from h2log.app.user_sessions import COOKIE, UserSessions
from h2log.errors import HTTPError
from tests.unit.app.browser import SECRET, Browser, Clock, cookie_of, make_request, session_of


class Failing(MemoryStore):
    """A store that can be switched off, and that counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: Collection[str] = ()
        self.asked: list[str] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.broken:
            raise StoreError("the disk is on fire")

    async def load(self, key: str, now: float) -> StoredSession | None:
        self._ask("load")
        return await super().load(key, now)

    async def create(self, key: str, session: StoredSession, now: float) -> None:
        self._ask("create")
        await super().create(key, session, now)

    async def update(
        self,
        key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float | None,
        now: float,
    ) -> bool:
        self._ask("update")
        return await super().update(key, changed, removed, expires, now)

    async def replace(
        self,
        key: str,
        new_key: str,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        expires: float,
        now: float,
    ) -> bool:
        self._ask("replace")
        return await super().replace(key, new_key, changed, removed, expires, now)

    async def delete(self, key: str) -> None:
        self._ask("delete")
        await super().delete(key)


class Setting:
    """Sessions with a store and a clock of the test's own, and a browser."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.store = Failing()
        options.setdefault("max_age", 300)
        options.setdefault("secret", SECRET)
        self.sessions = UserSessions(store=self.store, clock=self.clock, **options)
        self.browser = self.another()

    def another(self) -> Browser:
        """Return one more browser."""
        return Browser(self.sessions)


def put(name: str, value: object) -> Any:
    """Return a handler's part that puts a value in."""
    return lambda session: session.__setitem__(name, value)


async def values(browser: Browser) -> dict[str, object]:
    """Return what a browser's next request finds."""
    found: dict[str, object] = {}
    await browser.ask(lambda session: found.update(session))
    return found


def header(response: Response | HTTPError, name: str) -> list[str]:
    """Return every value of a field."""
    return [value for key, value in response.headers if key == name]


# The cookie


async def test_who_only_reads_gets_no_cookie() -> None:
    """Nothing is stored either."""
    setting = Setting()
    for look in (lambda s: None, lambda s: s.get("a"), dict, lambda s: s.id, lambda s: s.clear()):
        response = await setting.browser.ask(look)
        assert cookie_of(response.headers) is None
    assert setting.store.asked == []


async def test_putting_in_sets_the_cookie() -> None:
    """With everything that keeps it from others."""
    setting = Setting()
    response = await setting.browser.ask(put("a", 1))
    cookie = cookie_of(response.headers)
    assert cookie is not None
    pair, *attributes = cookie.split("; ")
    assert pair == f"{COOKIE}={setting.browser.cookie}"
    assert sorted(attributes) == ["HttpOnly", "Max-Age=300", "Path=/", "SameSite=Lax", "Secure"]
    assert Signer(SECRET, COOKIE).verify(setting.browser.cookie or "") is not None
    assert await values(setting.browser) == {"a": 1}
    assert await values(setting.another()) == {}


async def test_a_response_that_sets_it_is_not_cached() -> None:
    """One that looked at the user session is the user's own; any other is as it was."""
    setting = Setting()
    untouched = await setting.browser.ask(lambda s: None)
    assert untouched.headers == [("content-type", "text/plain; charset=utf-8")]
    made = await setting.browser.ask(put("a", 1))
    assert (header(made, "cache-control"), header(made, "vary")) == (["no-store"], ["cookie"])
    read = await setting.browser.ask(lambda s: s["a"])
    assert header(read, "cache-control") == ["private, no-cache"]
    assert header(read, "vary") == ["cookie"]
    assert (await setting.browser.ask(lambda s: None)).headers == untouched.headers


@pytest.mark.parametrize(
    ("said", "reading", "setting_it"),
    [
        ("public, max-age=60", "private, max-age=60", "no-store"),
        ("PUBLIC", "private", "no-store"),
        ("max-age=60, s-maxage=9, public", "private, max-age=60", "no-store"),
        ("max-age=60", "private, max-age=60", "no-store"),
        ("max-age=31536000, immutable", "private, max-age=31536000, immutable", "no-store"),
        ("no-cache", "private, no-cache", "no-store"),
        ('x="a, public", ,public', 'private, x="a, public"', "no-store"),
        ("Private, max-age=60", "Private, max-age=60", "Private, max-age=60"),
        ("no-store", "no-store", "no-store"),
        ("public, no-store", "no-store", "public, no-store"),
        ('private="x-a, x-b"', "private", "no-store"),
    ],
)
async def test_what_the_handler_says_of_caches(said: str, reading: str, setting_it: str) -> None:
    """Stands for the client's own cache; no shared one may keep what is somebody's, nor a cookie
    (RFC 9111 section 7.3)."""
    setting = Setting()

    async def handler(request: Request) -> Response:
        session = session_of(request)
        if "a" not in session:
            session["a"] = 1
        return Response(b"", headers=[("cache-control", said), ("vary", "Accept")])

    first = await setting.browser.send(handler)
    second = await setting.browser.send(handler)
    assert header(first, "cache-control") == [setting_it]
    assert header(second, "cache-control") == [reading]
    assert header(first, "vary") == header(second, "vary") == ["Accept", "cookie"]


@pytest.mark.parametrize("vary", ["*", "Cookie", "accept, COOKIE"])
async def test_a_vary_that_says_it_already(vary: str) -> None:
    """Is not said twice."""
    setting = Setting()

    async def handler(request: Request) -> Response:
        session_of(request)["a"] = 1
        return Response(b"", headers=[("vary", vary)])

    assert header(await setting.browser.send(handler), "vary") == [vary]


async def test_a_response_that_is_used_again_gets_no_cookie() -> None:
    """The object may answer somebody else: its fields and its bytes are left alone."""
    setting = Setting()
    constant = Response.text("the same for all")
    constant.wire = b"as bytes"
    before = list(constant.headers)

    async def handler(request: Request) -> Response:
        session_of(request)["a"] = 1
        return constant

    response = await setting.browser.send(handler)
    assert cookie_of(response.headers) is not None
    assert response is not constant
    assert response.wire is None
    assert (constant.headers, constant.wire) == (before, b"as bytes")


async def test_another_name_and_other_attributes() -> None:
    """Each option has its place in the cookie."""
    clock = Clock()
    sessions = UserSessions(
        SECRET, cookie="sid", persistent=False, same_site="Strict", insecure=True, clock=clock
    )
    browser = Browser(sessions, "sid")
    cookie = cookie_of((await browser.ask(put("a", 1))).headers)
    assert cookie == f"sid={browser.cookie}; Path=/; HttpOnly; SameSite=Strict"
    insecure = Browser(UserSessions(SECRET, insecure=True), "session")
    cookie = cookie_of((await insecure.ask(put("a", 1))).headers)
    assert cookie is not None
    assert "Secure" not in cookie


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"secret": "short"}, "at least 32 are needed"),
        ({"secret": []}, "need a secret"),
        ({"max_age": 0}, "max_age of user sessions must be positive"),
        ({"max_age": float("nan")}, "max_age of user sessions must be positive"),
        ({"max_age": float("inf")}, "max_age of user sessions must be positive"),
        ({"lifetime": -1}, "lifetime of user sessions must be positive"),
        ({"renew_after": 1800}, "renew_after .* below max_age"),
        ({"renew_after": -1}, "renew_after"),
        ({"cookie": "a b"}, "a b"),
        ({"cookie": ""}, "name"),
        ({"cookie": "__Host-session", "insecure": True}, "without TLS .*__Host-session"),
        ({"cookie": "__secure-x", "insecure": True}, "without TLS"),
        ({"same_site": "None", "insecure": True}, "without TLS"),
        ({"same_site": "lax"}, "same_site"),
    ],
)
def test_a_wrong_option_is_a_value_error(options: dict[str, Any], words: str) -> None:
    """When the middleware is made, with what is wrong."""
    with pytest.raises(ValueError, match=words):
        UserSessions(**{"secret": SECRET, **options})


# What is no cookie of ours


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "garbage",
        "=",
        ".",
        "%00",
        "a" * 4000,
        "é\xff",
        f"{new_token()}.{new_token()}",
        f"{new_token()}.",
        Signer("another secret of more than 32 bytes", COOKIE).sign(new_token()),
        Signer(SECRET, "session").sign(new_token()),
        Signer(SECRET, COOKIE).sign(new_token()) + "x",
        '"' + Signer(SECRET, COOKIE).sign(new_token()) + "x" * 60_000 + '"',
    ],
)
async def test_a_cookie_that_is_none_of_ours_is_as_none(cookie: str) -> None:
    """The store is not asked, nothing fails, and what is put in has an id of its own."""
    setting = Setting()
    setting.browser.cookie = cookie
    assert await values(setting.browser) == {}
    assert setting.store.asked == []
    await setting.browser.ask(put("a", 1))
    assert setting.browser.cookie != cookie
    assert await values(setting.browser) == {"a": 1}


async def test_an_id_that_the_store_does_not_have_is_never_taken_over() -> None:
    """Whoever plants a well signed cookie has another one afterwards (session fixation)."""
    setting = Setting()
    planted = Signer(SECRET, COOKIE).sign(new_token())
    setting.browser.cookie = planted
    response = await setting.browser.ask(dict)
    assert cookie_of(response.headers) is None  # another response may just have set a good one
    await setting.browser.ask(put("a", 1))
    assert setting.browser.cookie not in (None, planted)
    victim = setting.another()
    victim.cookie = planted
    assert await values(victim) == {}


async def test_an_older_secret_still_opens_and_is_replaced() -> None:
    """The same user session, under the new signature from the next response on."""
    old = "the old secret, of more than 32 bytes"
    setting = Setting(secret=old)
    await setting.browser.ask(put("a", 1))
    before = setting.browser.cookie
    rotated = UserSessions([SECRET, old], store=setting.store, clock=setting.clock, max_age=300)
    setting.browser.sessions = rotated
    await setting.browser.ask(lambda s: None)
    assert setting.browser.cookie == before
    setting.clock.now += 10
    cookie = cookie_of((await setting.browser.ask(lambda s: s["a"])).headers)
    assert cookie is not None
    assert "Max-Age=290" in cookie
    assert setting.browser.cookie == Signer(SECRET, COOKIE).sign(setting.browser.id)
    assert cookie_of((await setting.browser.ask(lambda s: s["a"])).headers) is None
    setting.browser.sessions = UserSessions(SECRET, store=setting.store, clock=setting.clock)
    assert await values(setting.browser) == {"a": 1}
    setting.browser.cookie = before
    assert await values(setting.browser) == {}


# Expiry


async def test_unused_it_ends() -> None:
    """When `max_age` has passed, to the second."""
    setting = Setting(renew_after=100)
    await setting.browser.ask(put("a", 1))
    setting.clock.now += 299.9
    # Without a look it is not used: this does not renew it.
    await setting.browser.ask(lambda s: None)
    setting.clock.now += 0.1
    assert await values(setting.browser) == {}


async def test_use_renews_it_but_not_with_each_request() -> None:
    """The store and the cookie are renewed once `renew_after` has passed, and only then."""
    setting = Setting(renew_after=30)
    await setting.browser.ask(put("a", 1))
    setting.store.asked.clear()
    for _ in range(29):
        setting.clock.now += 1
        response = await setting.browser.ask(lambda s: s["a"])
        assert cookie_of(response.headers) is None
    assert set(setting.store.asked) == {"load"}
    setting.clock.now += 1
    cookie = cookie_of((await setting.browser.ask(lambda s: s["a"])).headers)
    assert cookie is not None
    assert "Max-Age=300" in cookie
    assert setting.store.asked.count("update") == 1
    for _ in range(20):
        setting.clock.now += 290
        assert await values(setting.browser) == {"a": 1}
    setting.clock.now += 301
    assert await values(setting.browser) == {}


async def test_a_change_between_renewals_leaves_the_end_alone() -> None:
    """So that store and cookie agree on it, and renewal comes in its time."""
    setting = Setting(renew_after=30)
    await setting.browser.ask(put("a", 0))
    for step in range(1, 30):
        setting.clock.now += 1
        response = await setting.browser.ask(put("a", step))
        assert cookie_of(response.headers) is None
    setting.clock.now += 1
    assert cookie_of((await setting.browser.ask(put("a", 30))).headers) is not None
    setting.clock.now += 299
    assert await values(setting.browser) == {"a": 30}


async def test_the_usual_interval_of_renewal() -> None:
    """A tenth of the age, a minute at most."""
    for age, interval in ((300, 30), (86_400, 60)):
        setting = Setting(max_age=age)
        await setting.browser.ask(put("a", 1))
        setting.clock.now += interval - 1
        assert cookie_of((await setting.browser.ask(dict)).headers) is None
        setting.clock.now += 1
        assert cookie_of((await setting.browser.ask(dict)).headers) is not None


async def test_a_cookie_without_an_end_is_not_sent_again() -> None:
    """The store alone is renewed: the browser has what it needs."""
    setting = Setting(persistent=False, renew_after=30)
    await setting.browser.ask(put("a", 1))
    for _ in range(10):
        setting.clock.now += 290
        response = await setting.browser.ask(lambda s: s["a"])
        assert cookie_of(response.headers) is None


async def test_a_lifetime_ends_it_however_much_it_is_used() -> None:
    """Renewal stops at it, a new id does not prolong it, and the cookie says so."""
    setting = Setting(lifetime=1000, renew_after=10)
    await setting.browser.ask(put("a", 1))
    for _ in range(4):
        setting.clock.now += 200
        assert await values(setting.browser) == {"a": 1}
    cookie = cookie_of((await setting.browser.ask(lambda s: s.regenerate())).headers)
    assert cookie is not None
    assert "Max-Age=200" in cookie
    setting.clock.now += 199
    assert await values(setting.browser) == {"a": 1}
    setting.clock.now += 1
    assert await values(setting.browser) == {}
    await setting.browser.ask(put("a", 2))
    setting.clock.now += 200
    assert await values(setting.browser) == {"a": 2}


async def test_shorter_times_hold_for_what_is_there() -> None:
    """A server that was started again with them does not keep what it promised before."""
    setting = Setting(max_age=10_000)
    await setting.browser.ask(put("a", 1))
    setting.browser.sessions = UserSessions(
        SECRET, store=setting.store, clock=setting.clock, max_age=300, renew_after=100
    )
    await setting.browser.ask(dict)
    setting.clock.now += 300
    assert await values(setting.browser) == {}
    await setting.browser.ask(put("a", 1))
    setting.clock.now += 200
    setting.browser.sessions = UserSessions(
        SECRET, store=setting.store, clock=setting.clock, max_age=300, lifetime=200
    )
    assert await values(setting.browser) == {}


@pytest.mark.parametrize("part", [lambda s: s["a"], put("b", 2), lambda s: s.regenerate()])
@pytest.mark.parametrize("options", [{}, {"lifetime": 250}, {"secret": [SECRET * 2, SECRET]}])
async def test_one_that_ends_while_a_request_uses_it(part: Any, options: dict[str, Any]) -> None:
    """Is at its end: nothing fails, and nothing of it comes back."""
    setting = Setting(renew_after=200)
    await setting.browser.ask(put("a", 1))
    setting.browser.sessions = UserSessions(
        **{
            "secret": SECRET,
            "store": setting.store,
            "clock": setting.clock,
            "max_age": 300,
            "renew_after": 200,
            **options,
        }
    )
    setting.clock.now += 249

    def slow(session: UserSession) -> None:
        part(session)
        setting.clock.now += 100

    response = await setting.browser.ask(slow)
    assert response.status == 200
    assert await values(setting.browser) == {}


# New ids and the end


async def test_regenerate_moves_it_to_a_new_id() -> None:
    """The old cookie opens nothing any more: a planted one does not see the login."""
    setting = Setting()
    await setting.browser.ask(put("basket", ["apple"]))
    attacker = setting.another()
    attacker.cookie = setting.browser.cookie

    def login(session: UserSession) -> None:
        session.regenerate()
        session["user"] = "ada"

    cookie = cookie_of((await setting.browser.ask(login)).headers)
    assert cookie is not None
    assert setting.browser.cookie != attacker.cookie
    assert await values(setting.browser) == {"basket": ["apple"], "user": "ada"}
    assert await values(attacker) == {}
    assert len(setting.store) == 1


async def test_destroy_deletes_it_and_its_cookie() -> None:
    """The client forgets it, and the store too."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    before = setting.browser.cookie
    cookie = cookie_of((await setting.browser.ask(lambda s: s.destroy())).headers)
    assert cookie is not None
    assert cookie.startswith(f"{COOKIE}=; Max-Age=0; Path=/; Secure")
    assert (setting.browser.cookie, len(setting.store)) == (None, 0)
    setting.browser.cookie = before
    assert await values(setting.browser) == {}


async def test_what_is_put_in_after_destroy_is_a_new_one() -> None:
    """With another id and nothing of the old one."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    before = setting.browser.cookie

    def again(session: UserSession) -> None:
        session.destroy()
        session["b"] = 2

    await setting.browser.ask(again)
    assert setting.browser.cookie not in (None, before)
    assert await values(setting.browser) == {"b": 2}
    assert len(setting.store) == 1


async def test_destroying_nothing_does_nothing() -> None:
    """Nobody is told to forget what is not there."""
    setting = Setting()
    response = await setting.browser.ask(lambda s: s.destroy())
    assert cookie_of(response.headers) is None
    assert setting.store.asked == []


# Requests at once


async def overlapping(browser: Browser, *parts: Any) -> list[Response]:
    """Have requests of one user session answered at once; their handlers end in order."""
    entered = asyncio.Barrier(len(parts))
    done = [asyncio.Event() for _ in parts]

    async def one(index: int, part: Any) -> Response:
        async def handler(request: Request) -> Response:
            await entered.wait()
            if index:
                await done[index - 1].wait()
            part(session_of(request))
            return Response.text("done")

        fields = [("cookie", f"{browser.name}={browser.cookie}")]
        response = await browser.sessions(make_request(*fields), handler)
        done[index].set()
        return response

    return await asyncio.gather(*(one(i, part) for i, part in enumerate(parts)))


async def test_requests_at_once_lose_nothing_of_each_other() -> None:
    """Each writes only what it changed; of two that write one value the later wins."""
    setting = Setting()
    await setting.browser.ask(lambda s: s.update(gone=1, both=0, list=[]))
    await overlapping(
        setting.browser,
        put("first", 1),
        put("both", "earlier"),
        lambda s: s.pop("gone"),
        lambda s: s["list"].append("in place"),
        put("both", "later"),
        put("last", 1),
    )
    assert await values(setting.browser) == {
        "first": 1,
        "both": "later",
        "list": ["in place"],
        "last": 1,
    }


async def test_what_was_destroyed_meanwhile_does_not_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither by a change of another request, nor by its renewal."""
    caplog.set_level(logging.INFO)
    setting = Setting(renew_after=0)
    await setting.browser.ask(put("a", 1))
    logout, changing, looking = await overlapping(
        setting.browser, lambda s: s.destroy(), put("b", 2), lambda s: s["a"]
    )
    assert "Max-Age=0" in (cookie_of(logout.headers) or "")
    assert cookie_of(changing.headers) is None
    assert cookie_of(looking.headers) is None
    assert len(setting.store) == 0
    assert "another request ended this user session" in caplog.text


async def test_a_new_id_wins_over_changes_under_the_old_one() -> None:
    """What was written before it moves along, what comes after it is not kept."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    before, login, after = await overlapping(
        setting.browser, put("before", 1), lambda s: s.regenerate(), put("after", 1)
    )
    assert cookie_of(before.headers) is None
    assert cookie_of(after.headers) is None
    setting.browser.keep(cookie_of(login.headers))
    assert await values(setting.browser) == {"a": 1, "before": 1}


async def test_a_login_while_another_request_logs_out_is_a_login() -> None:
    """With what it put in itself, and nothing of what was destroyed."""
    setting = Setting()
    await setting.browser.ask(lambda s: s.update(user="ada", basket=[1]))

    def login(session: UserSession) -> None:
        session.regenerate()
        session["user"] = "bob"

    _, second, third = await overlapping(
        setting.browser, lambda s: s.destroy(), login, lambda s: s.regenerate()
    )
    setting.browser.keep(cookie_of(second.headers))
    assert await values(setting.browser) == {"user": "bob"}
    assert cookie_of(third.headers) is None
    assert len(setting.store) == 1


# Errors


async def test_an_http_error_keeps_what_was_changed() -> None:
    """It carries the cookie, on an object of its own: the raised one may be a constant."""
    setting = Setting()

    class RefusedError(HTTPError):
        """An error of the application's own."""

        def __init__(self) -> None:
            super().__init__(403, "no", (("x-why", "because"),))
            self.extra = "kept"

    constant = RefusedError()

    async def handler(request: Request) -> Response:
        session_of(request)["tries"] = session_of(request).get("tries", 0) + 1
        raise constant

    with pytest.raises(RefusedError) as caught:
        await setting.browser.send(handler)
    error = caught.value
    assert (error.status, error.detail, error.extra, str(error)) == (403, "no", "kept", "403 no")
    assert header(error, "x-why") == ["because"]
    assert header(error, "cache-control") == ["no-store"]
    setting.browser.keep(cookie_of(error.headers))
    assert constant.headers == (("x-why", "because"),)
    with pytest.raises(RefusedError):
        await setting.browser.send(handler)
    assert await values(setting.browser) == {"tries": 2}


async def test_an_http_error_without_a_look_is_the_same_object() -> None:
    """Nothing is added to what has nothing to do with it."""
    setting = Setting()
    raised = HTTPError(404)

    async def handler(request: Request) -> Response:
        raise raised

    with pytest.raises(HTTPError) as caught:
        await setting.browser.send(handler)
    assert caught.value is raised


@pytest.mark.parametrize("error", [ValueError("a bug"), asyncio.CancelledError()])
async def test_any_other_exception_drops_what_was_changed(error: BaseException) -> None:
    """A handler that failed half way has changed nothing; but what it destroyed is gone."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))

    async def changing(request: Request) -> Response:
        session_of(request)["a"] = 2
        raise error

    async def destroying(request: Request) -> Response:
        session_of(request).destroy()
        raise error

    with pytest.raises(type(error)) as caught:
        await setting.browser.send(changing)
    assert caught.value is error
    assert await values(setting.browser) == {"a": 1}
    with pytest.raises(type(error)):
        await setting.browser.send(destroying)
    assert len(setting.store) == 0


async def test_a_handler_that_is_closed_is_left_alone() -> None:
    """A coroutine that is thrown away cannot wait for a store."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))

    async def waiting(request: Request) -> Response:
        session_of(request).destroy()
        await asyncio.Event().wait()
        raise AssertionError

    fields = [("cookie", f"{COOKIE}={setting.browser.cookie}")]
    running = setting.sessions(make_request(*fields), waiting)
    iterator = running.__await__()
    next(iterator)
    iterator.close()
    assert await values(setting.browser) == {"a": 1}


async def test_after_the_handler_nothing_can_be_changed() -> None:
    """Neither while the content is streamed nor in background work: it would be lost silently."""
    setting = Setting()
    kept: list[UserSession] = []

    def keep(session: UserSession) -> None:
        kept.append(session)
        session["a"] = 1

    await setting.browser.ask(keep)
    assert kept[0]["a"] == 1
    with pytest.raises(RuntimeError, match="the response has begun"):
        kept[0]["a"] = 2


async def test_a_value_spoilt_in_place_fails_the_request() -> None:
    """With the TypeError that names it."""
    setting = Setting()
    await setting.browser.ask(put("list", []))
    with pytest.raises(TypeError, match="cannot keep 'list'"):
        await setting.browser.ask(lambda s: s["list"].append(object()))
    assert await values(setting.browser) == {"list": []}


async def test_two_kinds_around_one_handler() -> None:
    """The inner one is the handler's; the outer middleware has its own again afterwards."""
    outer, inner = UserSessions(SECRET, cookie="outer"), UserSessions(SECRET, cookie="inner")
    seen: list[UserSession] = []

    async def handler(request: Request) -> Response:
        seen.append(session_of(request))
        session_of(request)["a"] = 1
        return Response.text("done")

    async def between(request: Request) -> Response:
        mine = session_of(request)
        response = await inner(request, handler)
        assert session_of(request) is mine
        return response

    response = await outer(make_request(), between)
    assert (cookie_of(response.headers) or "").startswith("inner=")
    assert len(seen) == 1


# Stores that fail


async def test_only_who_needs_the_store_notices_that_it_fails() -> None:
    """No cookie, or no look: an answer as ever. A look: 503, with when to come back."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    setting.store.broken = ("load", "create", "update", "replace", "delete")
    assert (await setting.browser.ask(lambda s: None)).status == 200
    assert (await setting.another().ask(lambda s: s.get("a"))).status == 200
    for use in (lambda s: s["a"], lambda s: s.get("a"), put("a", 2), lambda s: s.destroy()):
        with pytest.raises(StoreError) as caught:
            await setting.browser.ask(use)
        assert caught.value.status == 503
        assert header(caught.value, "retry-after") == ["5"]
        assert "disk" not in caught.value.detail
        assert "the disk is on fire" in str(caught.value)
    with pytest.raises(StoreError):
        await setting.another().ask(put("a", 1))
    setting.store.broken = ()
    assert await values(setting.browser) == {"a": 1}


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("update", put("a", 2)),
        ("update", lambda s: s.pop("a")),
        ("replace", lambda s: s.regenerate()),
        ("delete", lambda s: s.destroy()),
    ],
)
async def test_a_change_that_cannot_be_kept_is_503(operation: str, part: Any) -> None:
    """The client keeps its cookie, and what was there before is there again later."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    setting.store.broken = (operation,)
    with pytest.raises(StoreError):
        await setting.browser.ask(part)
    setting.store.broken = ()
    assert await values(setting.browser) == {"a": 1}


async def test_a_renewal_that_fails_fails_nobody() -> None:
    """The request has what it asked for; the next one renews."""
    setting = Setting(renew_after=0)
    await setting.browser.ask(put("a", 1))
    setting.store.broken = ("update",)
    response = await setting.browser.ask(lambda s: s["a"])
    assert (response.status, cookie_of(response.headers)) == (200, None)


async def test_an_http_error_whose_change_cannot_be_kept_is_503() -> None:
    """And says which error it took the place of."""
    setting = Setting()
    setting.store.broken = ("create",)

    async def handler(request: Request) -> Response:
        session_of(request)["a"] = 1
        raise HTTPError(404)

    with pytest.raises(StoreError) as caught:
        await setting.browser.send(handler)
    assert isinstance(caught.value.__cause__, HTTPError)
    assert caught.value.__cause__.status == 404


async def test_a_destroy_that_fails_after_an_exception_leaves_the_exception() -> None:
    """The log has both."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    setting.store.broken = ("delete",)

    async def handler(request: Request) -> Response:
        session_of(request).destroy()
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await setting.browser.send(handler)


async def test_a_file_that_will_not_be_sent_is_closed(tmp_path: Path) -> None:
    """When the response is replaced by 503."""
    setting = Setting()
    setting.store.broken = ("create",)
    (tmp_path / "file").write_bytes(b"content")
    file = io.FileIO(tmp_path / "file")

    async def handler(request: Request) -> Response:
        session_of(request)["a"] = 1
        return Response(FileContent(file, 0, 7))

    with pytest.raises(StoreError):
        await setting.browser.send(handler)
    assert file.closed


async def test_a_handler_may_go_on_without_it() -> None:
    """It catches the failure, and its response is as it made it."""
    setting = Setting()
    await setting.browser.ask(put("a", 1))
    setting.store.broken = ("load",)

    async def handler(request: Request) -> Response:
        try:
            return Response.text(str(session_of(request)["a"]))
        except StoreError:
            return Response.text("as a guest")

    response = await setting.browser.send(handler)
    assert (response.body, header(response, "vary")) == (b"as a guest", ["cookie"])


async def test_the_log_tells_of_a_failing_store_once(caplog: pytest.LogCaptureFixture) -> None:
    """And again each ten seconds, and when it works again; reading and writing for themselves."""
    setting = Setting(renew_after=0)
    await setting.browser.ask(put("a", 1))
    setting.store.broken = ("load",)
    for _ in range(20):
        setting.clock.now += 1
        await setting.browser.ask(lambda s: None)
    failed = "user sessions cannot be read: the disk is on fire"
    assert caplog.messages == [failed, failed]
    setting.store.broken = ("update",)
    for _ in range(5):
        await setting.browser.ask(dict)
    setting.store.broken = ()
    await setting.browser.ask(dict)
    assert caplog.messages[2:] == [
        "user sessions can be read again",
        "user sessions cannot be written: the disk is on fire",
        "user sessions can be written again",
    ]
