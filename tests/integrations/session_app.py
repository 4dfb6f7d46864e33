"""An application with user sessions, for servers in processes of their own.

`run tests.integrations.session_app:app`; the environment variable `TEST_SESSIONS` names the store:
`memory`, a `redis://` address, or the path of an SQLite file.
"""

from __future__ import annotations

import os

from h2log import App, HTTPError, Request, Response
from h2log.app.basic_auth import accounts, basic_auth
from h2log.app.user_session_memory import MemoryStore
from h2log.app.user_session_store import SessionStore
from h2log.app.user_sessions import UserSessions

__all__ = ["SECRET", "make_app"]

SECRET = "a secret of more than thirty-two bytes"


def make_app(sessions: UserSessions) -> App:
    """Return an application that counts, logs in and logs out."""
    app = App()
    app.use(sessions, static=False)
    app.use(basic_auth(accounts({"ada": "secret"}), realm="inner"), prefix="/inner")

    @app.get("/")
    def plain(request: Request) -> Response:
        return Response.text("nothing to do with user sessions")

    @app.get("/show")
    def show(request: Request) -> Response:
        return Response.json(dict(request.user_session))

    @app.post("/count")
    async def count(request: Request) -> Response:
        request.user_session["count"] = request.user_session.get("count", 0) + 1
        return Response.text(str(request.user_session["count"]))

    @app.post("/login")
    async def login(request: Request) -> Response:
        request.user_session.regenerate()
        request.user_session["user"] = request.query["name"]
        return Response.redirect("/show", 303)

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        request.user_session.destroy()
        return Response.text("bye")

    @app.post("/refused")
    async def refused(request: Request) -> Response:
        request.user_session["tries"] = request.user_session.get("tries", 0) + 1
        raise HTTPError(403, f"try {request.user_session['tries']}")

    @app.post("/fail")
    async def fail(request: Request) -> Response:
        request.user_session["never"] = 1
        raise RuntimeError("a bug")

    @app.get("/inner/name")
    def name(request: Request) -> Response:
        return Response.text(str(request.user))

    return app


def _store(named: str) -> SessionStore:
    if named == "memory":
        return MemoryStore()
    if named.startswith("redis://"):
        from h2log.integrations.redis_sessions import RedisStore

        return RedisStore(named, timeout=5)  # seconds, on a busy machine
    from h2log.integrations.sqlite_sessions import SqliteStore

    return SqliteStore(named)


def __getattr__(name: str) -> App:
    if name != "app":
        raise AttributeError(name)
    return make_app(UserSessions(SECRET, store=_store(os.environ["TEST_SESSIONS"])))
