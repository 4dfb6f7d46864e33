"""Signing in: a form, a cookie, and a user session that ends when it was not used for five minutes.

`h2log run h2log.examples.login:app`. It needs TLS, since browsers take a `__Host-` cookie over
nothing else; the certificates of `h2log certs` will do. The accounts are for trying it out, and so
is where user sessions are: in the memory of one process, under a secret of this start. Several
processes need one secret (`secrets_from_env`) and a store that they share.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from h2log import App, HTTPError, Request, Response
from h2log.app.user_sessions import UserSessions
from h2log.errors import reason_phrase
from h2log.examples.login.origin import same_origin
from h2log.examples.login.passwords import check

__all__ = ["ACCOUNTS", "app", "sessions"]

HERE = Path(__file__).parent
SECONDS = 300

# Demo accounts. Their passwords are no secrets: engine-1843 and eniac-1946.
ACCOUNTS = {
    "ada": "scrypt$16384$8$5$Hp+8zC/lXm2muKcERS8b0A==$PEnnV/p4AWF0kuRL5jCT5fBkKyMzJ6Fmj5gxasVJVYA=",
    "kay": "scrypt$16384$8$5$M7T2OL4/N2dcKN/tlrMyaQ==$8S0htle33RMpvW5UypvlJRBmxkpRnuHpxbZA+ujqEjE=",
}

app = App()
app.static(HERE / "site")
app.static(HERE.parent / "look", at="/look/")

sessions = UserSessions(secrets.token_bytes(32), max_age=SECONDS, renew_after=0)
app.use(same_origin)
app.use(sessions, static=False)
app.on_stop(sessions.close)


@app.get("/")
def home(request: Request) -> Response:
    """Return the page for who is signed in; the others are shown the form."""
    session = request.user_session
    if "user" not in session:
        return Response.redirect("/login", 303)
    request.user = session["user"]  # for the log
    return page(
        "home",
        user=session["user"],
        since=f"{session['since']:%Y-%m-%d %H:%M:%S} UTC",
        seconds=SECONDS,
        cookie=session.id,
        session=request.session_id,
        request=request.id,
    )


@app.get("/login")
def form(request: Request) -> Response:
    """Return the form; who is signed in needs none."""
    if "user" in request.user_session:
        return Response.redirect("/", 303)
    notice = "Five minutes have passed unused: you are signed out." if request.query else ""
    if request.scheme != "https":
        notice = "Browsers keep this cookie over https alone: start without --insecure."
    return page("login", notice=notice, name="", fault="")


@app.post("/login")
async def login(request: Request) -> Response:
    """Sign in, under a new id: one that somebody planted before leads nowhere."""
    given = await request.form(max_files=0, max_field_bytes=1000)
    name = given.text("name").strip()
    if not await asyncio.to_thread(check, ACCOUNTS, name, given.text("password")):
        fault = "Name and password do not belong together."
        return page("login", 403, notice="", name=name, fault=fault)
    request.user = name
    request.user_session.regenerate()
    request.user_session["user"] = name
    request.user_session["since"] = datetime.now(UTC)
    return Response.redirect("/", 303)


@app.post("/logout")
def logout(request: Request) -> Response:
    """Sign out: nothing is left of the user session, here or in the browser."""
    request.user_session.destroy()
    return Response.redirect("/login", 303)


@app.error(HTTPError)
def wrong(request: Request, error: HTTPError) -> Response:
    """Return an error as a page, with the id to look for in the log."""
    title = f"{error.status} {reason_phrase(error.status)}"
    response = page("error", error.status, title=title, detail=error.detail, request=request.id)
    response.headers += error.headers
    return response


PAGES = {path.stem: Template(path.read_text("utf-8")) for path in (HERE / "pages").glob("*.html")}
STRICT = (
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
)


def page(name: str, status: int = 200, /, **values: object) -> Response:
    """Return a page of `pages/` with values put in as text."""
    texts = {key: escape(str(value)) for key, value in values.items()}
    return Response.html(PAGES[name].substitute(texts), status, STRICT)
