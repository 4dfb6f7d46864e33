"""A browser with a user session, without a network: its requests go through the middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from h2log.app.request import Request
from h2log.app.response import Response
from h2log.app.user_session import UserSession
from h2log.app.user_sessions import UserSessions

__all__ = ["SECRET", "Browser", "Clock", "Handler", "cookie_of", "make_request", "session_of"]

SECRET = "a secret of more than thirty-two bytes"

Handler = Callable[[Request], Awaitable[Response]]


class Clock:
    """The time, in epoch seconds, as the test sets it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_request(*fields: tuple[str, str], method: str = "GET") -> Request:
    """Return a request for / with header fields."""
    return Request(
        method=method,
        target="/",
        scheme="https",
        authority="localhost",
        fields=tuple((name.encode(), value.encode("latin-1")) for name, value in fields),
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=None,
    )


def session_of(request: Request) -> UserSession:
    """Return the user session of a request."""
    found = request.user_session
    assert isinstance(found, UserSession)
    return found


def cookie_of(headers: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str | None:
    """Return the value of the one Set-Cookie field, None when there is none."""
    found = [value for name, value in headers if name == "set-cookie"]
    assert len(found) < 2
    return found[0] if found else None


class Browser:
    """Keeps one cookie, as a browser would, but for expiry."""

    def __init__(self, sessions: UserSessions, name: str = "__Host-session") -> None:
        self.sessions = sessions
        self.name = name
        self.cookie: str | None = None

    async def ask(self, handler: Callable[[UserSession], object]) -> Response:
        """Have a request answered by a handler that does something with its user session."""

        async def answered(request: Request) -> Response:
            handler(session_of(request))
            return Response.text("done")

        return await self.send(answered)

    async def send(self, handler: Handler) -> Response:
        """Have a request answered, and keep the cookie of its response."""
        fields = [] if self.cookie is None else [("cookie", f"{self.name}={self.cookie}")]
        response = await self.sessions(make_request(*fields), handler)
        self.keep(cookie_of(response.headers))
        return response

    def keep(self, field: str | None) -> None:
        """Take a Set-Cookie field over."""
        if field is not None:
            name, _, value = field.partition(";")[0].partition("=")
            assert name == self.name
            self.cookie = value or None

    @property
    def id(self) -> str:
        """The id in its cookie."""
        assert self.cookie is not None
        return self.cookie.partition(".")[0]
