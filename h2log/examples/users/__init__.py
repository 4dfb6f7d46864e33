"""The classic table of a REST interface: users, in an SQLite file, and a page that uses it.

`h2log run h2log.examples.users:app`; the environment variable `USERS_DB` names the file,
`users.db` in the working directory unless it does.

| | | |
|---|---|---|
| `GET /users?after=ID` | 200 | up to 100 users past that id; `Link` has the next page (RFC 8288) |
| `POST /users` | 201 | `Location` is the new user's |
| `GET /users/ID` | 200, 304 | with an `ETag` |
| `PUT /users/ID` | 200 | with `If-Match` only if nobody changed the user meanwhile, else 412 |
| `DELETE /users/ID` | 204 | the same |

Errors are problem details (RFC 9457): 404, 409 for an e-mail address that another user has, 422
for a wrong value; `field` names it. The pages are `/` and `/about`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec.json import encode

from h2log import App, HTTPError, Request, Response
from h2log.app.conditional import precondition
from h2log.errors import reason_phrase
from h2log.examples.users.table import Row, User, Users

__all__ = ["app", "users"]

HERE = Path(__file__).parent
PAGE = 100
STRICT = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "strict-transport-security": "",  # localhost has other servers, without TLS
}

app = App()
app.static(HERE / "site", security=STRICT)
app.static(HERE.parent / "look", at="/look/")

users = Users(os.environ.get("USERS_DB", "users.db"))
app.on_start(users.open)
app.on_stop(users.close)


@app.get("/users")
async def index(request: Request) -> Response:
    """Return a page of users."""
    after = request.query.get("after", "0")
    if not re.fullmatch("[0-9]{1,18}", after):
        raise HTTPError(400, f"after: expected an id, got {after}")
    rows = await users.page(int(after), PAGE + 1)
    fields = [("cache-control", "no-cache")]
    if len(rows) > PAGE:
        fields.append(("link", f'</users?after={rows[PAGE - 1].id}>; rel="next"'))
    return Response.json(rows[:PAGE], headers=fields)


@app.post("/users")
async def add(request: Request) -> Response:
    """Add a user."""
    row = await users.add(await request.json(User))
    return shown(row, 201, ("location", f"/users/{row.id}"))


@app.get("/users/{id:int}")
async def show(request: Request) -> Response:
    """Return a user, unless the client has that version."""
    row = await users.find(request.params["id"])
    if precondition(request.headers, etag(row), None) == 304:
        return Response(b"", 304, [("etag", etag(row)), ("cache-control", "no-cache")])
    return shown(row)


@app.put("/users/{id:int}")
async def change(request: Request) -> Response:
    """Replace a user."""
    user = await request.json(User)
    return shown(await users.change(request.params["id"], user, await wanted(request)))


@app.delete("/users/{id:int}")
async def remove(request: Request) -> Response:
    """Remove a user."""
    await users.remove(request.params["id"], await wanted(request))
    return Response(status=204)


def etag(row: Row) -> str:
    """Return the tag of a user's version (RFC 9110 section 8.8.3)."""
    return f'"{row.version}"'


def shown(row: Row, status: int = 200, *fields: tuple[str, str]) -> Response:
    """Return a user as JSON."""
    return Response.json(row, status, [("etag", etag(row)), ("cache-control", "no-cache"), *fields])


async def wanted(request: Request) -> int | None:
    """Return the version that a request's conditions ask for, None when there are none.

    Raises HTTPError 404 and 412 (RFC 9110 section 13.2.2).
    """
    if "if-match" not in request.headers and "if-none-match" not in request.headers:
        return None
    row = await users.find(request.params["id"])
    if precondition(request.headers, etag(row), None) is not None:
        raise HTTPError(412, f"user {row.id} was changed meanwhile")
    return row.version


@app.error(HTTPError)
@app.error(500)
def problem(request: Request, error: Exception) -> Response:
    """Return an error as problem details (RFC 9457), with the request's id, to be found in the log.

    What is unexpected is logged, and no business of the client's.
    """
    known = error if isinstance(error, HTTPError) else HTTPError(500)
    told = {
        "title": reason_phrase(known.status),
        "status": known.status,
        "detail": known.detail,
        "request": request.id,
    }
    field = re.match(r"\$\.(\w+)|\$: object .* field (\w+)", known.detail)
    if field:
        told["field"] = field[1] or field[2]
    fields = [*known.headers, ("cache-control", "no-store")]
    return Response(encode(told), known.status, fields, "application/problem+json")
