"""The table of users, asked by a client."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, ROOT, Process, client_context, poll

APP = "h2log.examples.users:app"
_numbers = count(1)


@pytest.fixture(scope="module")
def server(certs: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for all tests that need none of their own."""
    folder = tmp_path_factory.mktemp("users")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USERS_DB", str(folder / "users.db"))
        with Process("run", APP, certs=certs, log=folder / "access.log") as process:
            yield process


def client_of(server: Process) -> httpx.Client:
    """Return a client over HTTP/2."""
    assert server.certs is not None
    context = client_context(server.certs)
    return httpx.Client(verify=context, http1=False, http2=True, base_url=server.url)


@pytest.fixture
def client(server: Process) -> Iterator[httpx.Client]:
    """Return a client of that server."""
    with client_of(server) as made:
        yield made


def somebody() -> dict[str, str]:
    """Return a user that there was not yet."""
    number = next(_numbers)
    return {"name": f"User {number}", "email": f"user{number}@example.org"}


def added(client: httpx.Client) -> dict[str, Any]:
    """Add somebody; return what the table has."""
    answer = client.post("/users", json=somebody())
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


def problem(answer: httpx.Response, status: int, field: str | None = None) -> str:
    """See that an answer is problem details of a status, about a field; return the detail."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert told["status"] == status
    assert told["title"]
    assert told["request"] == answer.headers["x-request-id"]
    assert told.get("field") == field
    detail: str = told["detail"]
    return detail


def test_the_life_of_a_user(client: httpx.Client, server: Process) -> None:
    """201 with its address, 200, 200 changed, 204, then 404; each is a line of the log."""
    user = somebody()
    mine = client.get("/users").headers["x-request-id"]
    poll(lambda: mine in [line.request for line in server.lines])
    begun = len(server.lines)
    answer = client.post("/users", json=user)
    row = answer.json()
    path = f"/users/{row['id']}"
    assert (answer.status_code, answer.headers["location"]) == (201, path)
    assert row == {"id": row["id"], **user, "version": 1}
    assert answer.headers["etag"] == '"1"'
    shown = client.get(path)
    assert (shown.status_code, shown.json(), shown.headers["etag"]) == (200, row, '"1"')
    assert shown.headers["content-type"] == "application/json"
    changed = client.put(path, json={**user, "name": "Another"})
    assert changed.status_code == 200
    assert changed.json() == {**row, "name": "Another", "version": 2}
    assert changed.headers["etag"] == '"2"'
    assert client.get(path).json() == changed.json()
    gone = client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert problem(client.request(method, path), 404) == f"no user {row['id']}"
    problem(client.put(path, json=user), 404)
    statuses = [201, 200, 200, 200, 204, 404, 404, 404]
    poll(lambda: len(server.lines) == begun + len(statuses))
    assert [line.status for line in server.lines[begun:]] == statuses
    assert len({line.session for line in server.lines[begun:]}) == 1


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ({"email": "a@example.org"}, 422, "name"),
        ({"name": "A"}, 422, "email"),
        ({"name": "", "email": "a@example.org"}, 422, "name"),
        ({"name": " \t", "email": "a@example.org"}, 422, "name"),
        ({"name": "A" * 101, "email": "a@example.org"}, 422, "name"),
        ({"name": 7, "email": "a@example.org"}, 422, "name"),
        ({"name": None, "email": "a@example.org"}, 422, "name"),
        ({"name": "A", "email": "nowhere"}, 422, "email"),
        ({"name": "A", "email": "a@b@c"}, 422, "email"),
        ({"name": "A", "email": "a b@example.org"}, 422, "email"),
        ({"name": "A", "email": "a@example.org\n"}, 422, "email"),
        ({"name": "A", "email": f"{'a' * 250}@b.org"}, 422, "email"),
        ({"name": "A", "email": ["a@example.org"]}, 422, "email"),
        ({"name": "A", "email": "a@example.org", "id": 7}, 422, "id"),
        ([], 422, None),
        ("A", 422, None),
    ],
)
def test_a_wrong_value_is_named(
    client: httpx.Client, content: object, status: int, field: str | None
) -> None:
    """POST and PUT refuse it, say which field it is, and keep nothing."""
    row = added(client)
    path = f"/users/{row['id']}"
    for answer in (client.post("/users", json=content), client.put(path, json=content)):
        problem(answer, status, field)
    assert client.get(path).json() == row


@pytest.mark.parametrize(
    ("content", "fields", "status"),
    [
        (b"", {"content-type": "application/json"}, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b'{"name": "\xff"}', {"content-type": "application/json"}, 400),
        (b'{"name": "\\ud800", "email": "a@b"}', {"content-type": "application/json"}, 400),
        (b'{"name": "A", "email": "a@b"}', {"content-type": "text/plain"}, 415),
        (b'{"name": "A", "email": "a@b"}', {}, 415),
    ],
)
def test_what_is_no_json(
    client: httpx.Client, content: bytes, fields: dict[str, str], status: int
) -> None:
    """It is refused, as is what another site's page could send without asking."""
    problem(client.post("/users", content=content, headers=fields), status)


def test_an_address_belongs_to_one(client: httpx.Client) -> None:
    """An e-mail address that another user has is a conflict, in whatever case it is written."""
    one, two = added(client), added(client)
    taken = {"name": "Other", "email": one["email"].upper()}
    assert taken["email"] in problem(client.post("/users", json=taken), 409, "email")
    problem(client.put(f"/users/{two['id']}", json=taken), 409, "email")
    assert client.get(f"/users/{two['id']}").json() == two
    own = client.put(f"/users/{one['id']}", json=taken)
    assert own.json() == {"id": one["id"], **taken, "version": 2}


def test_put_is_idempotent(client: httpx.Client) -> None:
    """The same again is the same: nothing changes, not the version either."""
    row = added(client)
    path = f"/users/{row['id']}"
    user = {"name": "Once", "email": row["email"]}
    answers = [client.put(path, json=user) for _ in range(3)]
    assert [(a.status_code, a.headers["etag"]) for a in answers] == [(200, '"2"')] * 3
    assert client.put(path, json={**user, "name": "once"}).headers["etag"] == '"3"'


def test_conditions(client: httpx.Client) -> None:
    """Who has a version is told so, and who has an old one changes nothing (RFC 9110, 13.1)."""
    row = added(client)
    path = f"/users/{row['id']}"
    user = {"name": "Changed", "email": row["email"]}
    for method in ("GET", "HEAD"):
        for tags in ('"1"', 'W/"1"', '"7", "1"', "*"):
            answer = client.request(method, path, headers={"if-none-match": tags})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == '"1"'
        assert client.request(method, path, headers={"if-none-match": '"2"'}).status_code == 200
    for fields in ({"if-match": '"2"'}, {"if-match": 'W/"1"'}, {"if-none-match": "*"}):
        problem(client.put(path, json=user, headers=fields), 412)
        problem(client.delete(path, headers=fields), 412)
    assert client.get(path).json() == row
    for tags, version in (('"1"', 2), ('"7", "2"', 3), ("*", 4)):
        user["name"] += "!"
        answer = client.put(path, json=user, headers={"if-match": tags})
        assert (answer.status_code, answer.json()["version"]) == (200, version)
    problem(client.delete(path, headers={"if-match": '"1"'}), 412)
    assert client.delete(path, headers={"if-match": '"4"'}).status_code == 204
    problem(client.delete(path, headers={"if-match": '"4"'}), 404)


@pytest.mark.parametrize("id", ["0", "-1", str(2**63 - 1), str(2**63), "9" * 40, "-" + "9" * 40])
def test_numbers_that_nobody_has(client: httpx.Client, id: str) -> None:
    """Any number is one that a user could have had, and none is too large to say so."""
    path = f"/users/{id}"
    for answer in (client.get(path), client.delete(path), client.put(path, json=somebody())):
        assert problem(answer, 404) == f"no user {id}"


def test_other_methods(client: httpx.Client) -> None:
    """405 with what is allowed, OPTIONS with the same, HEAD as GET."""
    row = added(client)
    for path, allowed in (
        ("/users", {"GET", "HEAD", "OPTIONS", "POST"}),
        (f"/users/{row['id']}", {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}),
    ):
        refused = client.patch(path, json={})
        problem(refused, 405)
        options = client.options(path)
        for answer in (refused, options):
            assert set(answer.headers["allow"].split(", ")) == allowed
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))


def test_pages_of_the_table(client: httpx.Client) -> None:
    """A list has a hundred users at most, in the order of their numbers; `Link` leads on."""
    for _ in range(101):
        added(client)
    path, seen = "/users", []
    while True:
        answer = client.get(path)
        rows = answer.json()
        assert len(rows) <= 100
        seen += [row["id"] for row in rows]
        if "next" not in answer.links:
            break
        assert len(rows) == 100
        path = answer.links["next"]["url"]
    assert seen == sorted(set(seen))
    assert len(seen) > 101
    assert client.get("/users?after=999999999999999999").json() == []
    for wrong in ("x", "-1", "", "9" * 19, "1.5"):
        assert "after" in problem(client.get("/users", params={"after": wrong}), 400)


async def test_one_of_many_at_once(server: Process) -> None:
    """Of many that add one address, one does; of many that change one version, one does."""
    assert server.certs is not None
    context = client_context(server.certs)
    async with httpx.AsyncClient(
        verify=context, http1=False, http2=True, base_url=server.url, timeout=PATIENCE
    ) as client:
        user = somebody()
        answers = await asyncio.gather(*[client.post("/users", json=user) for _ in range(20)])
        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
        [location] = [a.headers["location"] for a in answers if a.status_code == 201]
        names = [{**user, "name": f"Changed {number}"} for number in range(20)]
        answers = await asyncio.gather(
            *[client.put(location, json=name, headers={"if-match": '"1"'}) for name in names]
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 19}
        [changed] = [answer for answer in answers if answer.status_code == 200]
        assert (await client.get(location)).json() == changed.json()
        answers = await asyncio.gather(*[client.delete(location) for _ in range(20)])
        assert Counter(answer.status_code for answer in answers) == {204: 1, 404: 19}


def test_the_file_outlives_the_server(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server has the same users, also at the same time, and gives no number twice."""
    monkeypatch.setenv("USERS_DB", str(tmp_path / "users.db"))
    user, another = somebody(), somebody()
    with (
        Process("run", APP, certs=certs, log=tmp_path / "1.log") as server,
        client_of(server) as client,
    ):
        assert client.get("/users").json() == []
        assert client.post("/users", json=user).headers["location"] == "/users/1"
        with (
            Process("run", APP, certs=certs, log=tmp_path / "2.log") as second,
            client_of(second) as neighbour,
        ):
            assert neighbour.get("/users/1").json()["name"] == user["name"]
            assert neighbour.delete("/users/1").status_code == 204
            problem(client.get("/users/1"), 404)
        assert second.popen.returncode == 0
        client.close()
        assert server.stop() == 0
        assert server.stderr.end() == []
    with (
        Process("run", APP, certs=certs, log=tmp_path / "3.log") as server,
        client_of(server) as client,
    ):
        assert client.post("/users", json=another).headers["location"] == "/users/2"


@pytest.mark.parametrize("kind", ["folder", "nowhere", "text", "other table"])
def test_a_file_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The server does not start: one line names the file and the variable, exit code 2."""
    path = tmp_path / "nowhere" / "users.db" if kind == "nowhere" else tmp_path / "users.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no database, but text that is long enough to be looked at\n" * 100)
    elif kind == "other table":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE users (login TEXT)")
        connection.close()
    monkeypatch.setenv("USERS_DB", str(path))
    command = [sys.executable, "-m", "h2log", "run", APP, "--insecure", "--port", "0"]
    done = subprocess.run(
        [*command, "--access-log", str(tmp_path / "access.log")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"h2log: cannot keep users in {path}: ")
    assert "USERS_DB" in line


def test_a_table_that_is_gone(
    certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails unexpectedly is a 500 that tells nothing but the id, which is in both logs."""
    path = tmp_path / "users.db"
    monkeypatch.setenv("USERS_DB", str(path))
    with (
        Process("run", APP, certs=certs, log=tmp_path / "log", noisy=True) as server,
        client_of(server) as client,
    ):
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE users")
        connection.close()
        answer = client.get("/users")
        assert problem(answer, 500) == "Internal Server Error"
        id = answer.headers["x-request-id"]
        client.close()
        assert server.stop() == 0
        assert [line.status for line in server.lines if line.request == id] == [500]
        told = "\n".join(server.stderr.end())
        assert id in told
        assert "no such table: users" in told


def test_the_pages(client: httpx.Client) -> None:
    """`/` and `/about` are pages that let in nothing of others; programs are not served."""
    for path in ("/", "/about"):
        page = client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert "strict-transport-security" not in page.headers
    for path in ("/users.js", "/users.css", "/look/look.css", "/look/favicon.svg"):
        assert client.get(path).status_code == 200
    for path in ("/table.py", "/__init__.py", "/look/__init__.py", "/users.db", "/nothing"):
        assert client.get(path).status_code == 404
