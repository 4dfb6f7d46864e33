"""User sessions: data that a server keeps for a browser, behind a signed id in a cookie.

    sessions = UserSessions(secrets_from_env("SESSION_SECRET"), store=MemoryStore(), max_age=1800)
    app.use(sessions, static=False)

    @app.post("/login")
    async def login(request: Request) -> Response:
        ...
        request.user_session.regenerate()
        request.user_session["user"] = name

A user session begins when something is put in: who only reads gets no cookie. A cookie that is
forged, expired, too long or no cookie of ours at all is as none, and its id is never taken over.

Requests of one user session may run at once, above all over HTTP/2. Each sees the values as they
were when it came, and writes only what it changed: of two that write the same value the later
response wins, and neither loses what the other wrote elsewhere. What a request does not get in is
a read and a write as one step: two that count upwards may count once. When one destroys the user
session, or gives it another id, then what the others change in it afterwards is not kept.

An HTTPError that leaves the middleware has what its response needs for all this in its `headers`:
an error handler that answers it with a response of its own takes them over.

A response that was made with a look at the user session has `vary: cookie` and is `private`,
whatever else it says of caches, for not all of them heed `vary`: `public` and `s-maxage` are taken
out. One that says nothing of caches is `private, no-cache`; one that sets the cookie is `no-store`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from h2log.app.cookies import SameSite, set_cookie
from h2log.app.middleware import CallNext
from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.app.user_session import Changes, UserSession
from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_secret import Signer
from h2log.app.user_session_store import SessionStore, StoredSession, StoreError
from h2log.clock import wall
from h2log.errors import HTTPError

__all__ = ["COOKIE", "UserSessions"]

_logger = logging.getLogger("h2log.app")

COOKIE: Final = "__Host-session"
"""The cookie's name. With this prefix a browser takes it only from the host itself, over TLS, for
all paths: a neighbouring host cannot plant one (RFC 6265bis section 4.1.3.2)."""

MAX_AGE: Final = 1800.0
"""Seconds that a user session lasts unused (OWASP: 15 to 30 minutes for what matters little)."""

_MOST_RENEWALS: Final = 60.0
"""Seconds between two renewals, unless told otherwise, at most: for a browser that asks all the
time one write a minute."""

_OF_SHARED_CACHES: Final = frozenset(("public", "s-maxage"))
"""What tells shared caches to keep something; some heed it before `private`."""

_TELL_EVERY: Final = 10.0
"""Seconds between two lines of the log about a store that goes on failing."""

# An element of Cache-Control: a value in quotes may have commas.
_DIRECTIVE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")+').findall

_Fields = list[tuple[str, str]]


class _Opened(NamedTuple):
    """A request's user session, and how it came."""

    session: UserSession
    signed_today: bool  # with the first secret
    stored: StoredSession | None


class UserSessions:
    """Middleware that gives each request its `user_session`; see `UserSession` for what that is.

    `secret` signs the cookies: one, or several of which the first signs and all verify. `store`
    keeps the data (a `MemoryStore` of its own by default). Unused for `max_age` seconds a user
    session ends; use renews it, at most every `renew_after` seconds (by default a tenth of
    `max_age`, no more than a minute), so that it may end that much earlier. `lifetime` is when it
    ends however much it is used, in seconds from its beginning. `cookie` is the name; `persistent`
    whether the browser keeps it when it is closed; `same_site` is `Lax`, `Strict` or `None` (RFC
    6265bis section 5.7). `insecure` is for development without TLS: the cookie is not `Secure` and
    has no `__Host-`. `clock` tells the time in epoch seconds.

    Raises ValueError for a secret that is too short, times that are not positive, and for a name
    that browsers would refuse.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        store: SessionStore | None = None,
        max_age: float = MAX_AGE,
        renew_after: float | None = None,
        lifetime: float | None = None,
        cookie: str | None = None,
        persistent: bool = True,
        same_site: SameSite = "Lax",
        insecure: bool = False,
        clock: Callable[[], float] = wall,
    ) -> None:
        if renew_after is None:
            renew_after = min(_MOST_RENEWALS, max_age / 10)
        for name, seconds in (("max_age", max_age), ("lifetime", lifetime)):
            if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
                raise ValueError(f"{name} of user sessions must be positive, not {seconds}")
        if not 0 <= renew_after < max_age:
            raise ValueError(
                f"renew_after of user sessions must be from 0 to below max_age, not {renew_after}"
            )
        if cookie is None:
            cookie = COOKIE.removeprefix("__Host-") if insecure else COOKIE
        if insecure and cookie.lower().startswith(("__host-", "__secure-", "__http-")):
            raise ValueError(f"without TLS browsers refuse the cookie {cookie}: name it otherwise")
        if insecure and same_site == "None":
            raise ValueError("without TLS browsers refuse same_site='None': use 'Lax'")
        self.store: SessionStore = MemoryStore() if store is None else store
        self._signer = Signer(secret, cookie)
        self._max_age = max_age
        self._renew_after = renew_after
        self._lifetime = lifetime
        self._cookie = cookie
        self._persistent = persistent
        self._same_site: SameSite = same_site
        self._secure = not insecure
        self._clock = clock
        self._reading = _Trouble("read")
        self._writing = _Trouble("written")
        self._set_cookie("", 0)  # raises ValueError for a name that is none

    @property
    def shared(self) -> bool:
        """Whether several processes may serve: their store is one. A store says so, or is."""
        return bool(getattr(self.store, "shared", True))

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Answer a request with its user session at hand, and keep what was changed in it.

        Changes are kept when the handler returns and when it raises HTTPError, which then has the
        cookie in its `headers`. Any other exception drops them, only `destroy` stands. Raises
        `StoreError` when they cannot be kept.
        """
        opened = await self._open(request)
        outer, request.user_session = request.user_session, opened.session
        try:
            response = await call_next(request)
        except HTTPError as error:
            try:
                fields = await self._finish(opened)
            except StoreError as failure:
                raise failure from error
            if not fields:
                raise
            raise _with_fields(error, fields) from error.__cause__
        except GeneratorExit:  # nothing can be awaited any more
            raise
        except BaseException:
            await self._abandon(opened.session)
            raise
        finally:
            opened.session.seal()
            if outer is not None:
                request.user_session = outer
        try:
            fields = await self._finish(opened)
        except BaseException:
            if isinstance(response.body, FileContent):  # nobody else will
                response.body.file.close()
            raise
        if not fields:
            return response
        # A copy: the same object may answer other requests, which have no business with our cookie.
        response = response.copy()
        response.headers = _guarded(response.headers, fields)
        return response

    async def _open(self, request: Request) -> _Opened:
        value = request.cookies.get(self._cookie)
        if value is None:
            return _Opened(UserSession(), True, None)
        found = self._signer.verify(value)
        if found is None:
            return _Opened(UserSession(), True, None)
        key, signed_today = found
        now = self._clock()
        try:
            stored = await self.store.load(key, now)
        except StoreError as error:
            self._reading.failed(error, now)
            return _Opened(UserSession(failure=error), signed_today, None)
        self._reading.works()
        if stored is None or self._end(stored.created, now) <= now:
            return _Opened(UserSession(), signed_today, None)
        return _Opened(UserSession(key, stored), signed_today, stored)

    def _end(self, created: float, now: float) -> float:
        """Return when what is used now ends, in epoch seconds."""
        end = now + self._max_age
        return end if self._lifetime is None else min(end, created + self._lifetime)

    async def _finish(self, opened: _Opened) -> _Fields:
        """Keep what was changed; return the header fields that the response needs for it."""
        session = opened.session
        session.seal()
        if not session.accessed:
            return []
        if session.available:  # a handler may have gone on without it
            cookie = await self._keep(opened, session.changes())
            if cookie is not None:
                return [("set-cookie", cookie), ("cache-control", "no-store"), ("vary", "cookie")]
        return [("vary", "cookie")]

    async def _keep(self, opened: _Opened, changes: Changes) -> str | None:
        """Bring the store up to date; return the cookie to set, if one is to be set."""
        now = self._clock()
        try:
            cookie = await self._write(opened, changes, now)
        except StoreError as error:
            self._writing.failed(error, now)
            raise
        return cookie

    async def _write(self, opened: _Opened, changes: Changes, now: float) -> str | None:
        if changes.origin is not None and not changes.destroyed:
            return await self._keep_old(opened, changes, changes.origin, now)
        if changes.origin is not None:
            await self.store.delete(changes.origin)
            self._writing.works()
        if changes.values and changes.key is not None:
            return await self._begin(changes.key, changes.values, now)
        return self._set_cookie("", 0) if changes.destroyed else None

    async def _begin(self, key: str, values: dict[str, bytes], now: float) -> str:
        end = self._end(now, now)
        await self.store.create(key, StoredSession(values, now, end), now)
        self._writing.works()
        return self._set_cookie(self._signer.sign(key), end - now)

    async def _keep_old(
        self, opened: _Opened, changes: Changes, origin: str, now: float
    ) -> str | None:
        """Keep a user session that the store had when the request came."""
        stored = opened.stored
        assert stored is not None and changes.key is not None
        end = self._end(stored.created, now)
        if changes.key != origin:
            kept = await self.store.replace(
                origin, changes.key, changes.changed, changes.removed, end, now
            )
            self._writing.works()
            if kept:
                return self._set_cookie(self._signer.sign(changes.key), end - now)
            if changes.changed:
                # Another request destroyed it or gave it a new id: what it had does not come back,
                # but a login that this request made is one.
                return await self._begin(changes.key, changes.changed, now)
            self._lost()
            return None
        # The difference is negative where `max_age` is shorter now, or a clock was set back.
        renewed = abs(end - stored.expires) >= self._renew_after
        if changes.changed or changes.removed or renewed:
            try:
                kept = await self.store.update(
                    origin, changes.changed, changes.removed, end if renewed else None, now
                )
            except StoreError as error:
                if changes.changed or changes.removed:
                    raise
                self._writing.failed(error, now)  # nothing is lost: the next one renews
                return None
            self._writing.works()
            if not kept:
                self._lost()
                return None
        if opened.signed_today and not (renewed and self._persistent):
            return None  # the client has it, as it would get it
        until = end if renewed else stored.expires
        return self._set_cookie(self._signer.sign(origin), until - now)

    async def _abandon(self, session: UserSession) -> None:
        """Keep nothing of what a failed handler changed, unless it destroyed the user session."""
        origin = session.destroyed
        if origin is not None:
            try:
                await self.store.delete(origin)
            except StoreError as error:
                self._writing.failed(error, self._clock())

    def _set_cookie(self, value: str, age: float) -> str:
        kept = self._persistent or not value
        return set_cookie(
            self._cookie,
            value,
            max_age=max(0, math.ceil(age)) if kept else None,
            path="/",
            secure=self._secure,
            http_only=True,
            same_site=self._same_site,
        )

    def _lost(self) -> None:
        _logger.info(
            "another request ended this user session meanwhile: what this one changed is not kept"
        )


class _Trouble:
    """Tells the log when a store fails and when it works again, not at each request between."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told_at = -math.inf
        self._told = False  # that it fails, and not yet that it works again

    def failed(self, error: StoreError, now: float) -> None:
        """Tell of a failure, at most once in `_TELL_EVERY` seconds."""
        if abs(now - self._told_at) >= _TELL_EVERY:
            self._told_at, self._told = now, True
            _logger.error("user sessions cannot be %s: %s", self._what, error.reason)

    def works(self) -> None:
        """Tell that the trouble is over, if there was any."""
        if self._told:
            self._told = False
            _logger.warning("user sessions can be %s again", self._what)


def _with_fields(error: HTTPError, fields: _Fields) -> HTTPError:
    """Return the same error with header fields: an object of its own, `error` may be a constant."""
    own = type(error).__new__(type(error))
    own.__dict__.update(error.__dict__)
    own.args = error.args
    own.headers = tuple(_guarded(error.headers, fields))
    return own.with_traceback(error.__traceback__)


def _private(caching: str) -> str:
    """Return a Cache-Control as one that no shared cache may keep (RFC 9111 section 5.2.2.7)."""
    kept = [
        part
        for part in (text.strip(" \t") for text in _DIRECTIVE(caching))
        if part and part.lower().partition("=")[0].rstrip() not in _OF_SHARED_CACHES
    ]
    if not {"private", "no-store"} & {part.lower() for part in kept}:
        # What `private` says of some fields it says of all now.
        kept = ["private", *(part for part in kept if not part.lower().startswith("private="))]
    return ", ".join(kept)


def _guarded(headers: Iterable[tuple[str, str]], fields: _Fields) -> _Fields:
    """Return a response's header fields with ours, so that no cache gives it to somebody else."""
    ours = dict(fields)
    found = list(headers)
    caching = [value for name, value in found if name.lower() == "cache-control"]
    directives = {part.strip().lower() for value in caching for part in value.split(",")}
    own = ours.get("cache-control")
    if own is None or not directives & {"no-store", "private"}:
        found = [pair for pair in found if pair[0].lower() != "cache-control"]
        found.append(("cache-control", own or _private(", ".join(caching) or "no-cache")))
    varying = {
        part.strip().lower()
        for name, value in found
        if name.lower() == "vary"
        for part in value.split(",")
    }
    if not varying & {"*", "cookie"}:
        found.append(("vary", "cookie"))
    if "set-cookie" in ours:
        found.append(("set-cookie", ours["set-cookie"]))
    return found
