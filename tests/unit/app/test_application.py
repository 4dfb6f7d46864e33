"""An application: routes before folders, methods, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError


def request(target: str, method: str = "GET") -> Request:
    """Return a request."""
    return Request(
        method=method,
        target=target,
        scheme="https",
        authority="localhost",
        fields=(),
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=None,
    )


async def ask(app: App, target: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Return status, content and fields of an answer, an HTTPError's too."""
    try:
        answer = app.answer(request(target, method), 0.0)
        response = answer if isinstance(answer, Response) else await answer
    except HTTPError as error:
        return error.status, b"", dict(error.headers)
    assert isinstance(response.body, bytes)
    return response.status, response.body, dict(response.headers)


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Return an application with routes and two folders."""
    made = App()
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    made.static(tmp_path / "outer")
    made.static(tmp_path / "inner", at="/in")

    @made.get("/hello/{name}")
    def hello(request: Request) -> Response:
        return Response.text(f"hello {request.params['name']}")

    @made.post("/hello/{name}")
    async def slow(request: Request) -> Response:
        return Response.text(f"slow {request.params['name']}")

    return made


async def test_functions_plain_and_async_answer(app: App) -> None:
    """By their method, with the values of the path."""
    assert (await ask(app, "/hello/a%2Fb?x"))[:2] == (200, b"hello a/b")
    assert (await ask(app, "/hello/x", "POST"))[:2] == (200, b"slow x")
    assert (await ask(app, "/hello/x", "HEAD"))[:2] == (200, b"hello x")


async def test_another_method_is_not_allowed(app: App) -> None:
    """405 with Allow; OPTIONS tells the same with 204."""
    allow = {"allow": "GET, HEAD, OPTIONS, POST"}
    assert await ask(app, "/hello/x", "PUT") == (405, b"", allow)
    assert await ask(app, "/hello/x", "OPTIONS") == (204, b"", allow)
    allow = {"allow": "GET, HEAD, OPTIONS"}
    assert await ask(app, "/file", "POST") == (405, b"", allow)
    assert await ask(app, "/file", "OPTIONS") == (204, b"", allow)


async def test_the_folder_with_the_longest_prefix_answers(app: App) -> None:
    """And no other one, whatever it has."""
    assert (await ask(app, "/file"))[1] == b"outer"
    assert (await ask(app, "/in/file"))[1] == b"inner"
    assert (await ask(app, "/in/nothing"))[0] == 404
    assert (await ask(app, "/inner"))[0] == 404


async def test_a_route_is_preferred_to_a_folder(app: App, tmp_path: Path) -> None:
    """Also for a method that only the folder would answer."""
    app.route("/file", ["put"])(lambda request: Response(b"put"))
    assert (await ask(app, "/file", "PUT"))[1] == b"put"
    assert (await ask(app, "/file"))[0] == 405


async def test_nothing_is_not_found(tmp_path: Path) -> None:
    """An application without anything, and one whose folder is elsewhere."""
    app = App()
    assert (await ask(app, "/"))[0] == 404
    assert app.kept("/", 0.0) is None
    app.static(tmp_path, at="/files/")
    assert (await ask(app, "/"))[0] == 404
    assert (await ask(app, "*", "OPTIONS"))[0] in (204, 404)


async def test_what_is_kept_is_what_would_be_answered(app: App) -> None:
    """Only files that were answered are in memory, and never under a route's path."""
    assert app.kept("/file", 0.0) is None
    await ask(app, "/file")
    kept = app.kept("/file", 0.0)
    assert kept is not None
    assert kept.body == b"outer"
    await ask(app, "/hello/x")
    assert app.kept("/hello/x", 0.0) is None


async def test_every_method_has_its_decorator() -> None:
    """And a function can have several."""
    app = App()

    def handler(request: Request) -> Response:
        return Response.text(request.method)

    for decorator in (app.get, app.post, app.put, app.patch, app.delete):
        assert decorator("/a")(handler) is handler
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert (await ask(app, "/a", method))[1] == method.encode()


async def test_what_a_plain_handler_raises_comes_through() -> None:
    """The server, not the application, makes a response of it."""
    app = App()

    @app.get("/")
    def fails(request: Request) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.answer(request("/"), 0.0)


@pytest.mark.parametrize("at", ["files", "", "*"])
def test_a_folder_is_below_a_path(app: App, tmp_path: Path, at: str) -> None:
    """A path that does not begin with a slash is a ValueError."""
    with pytest.raises(ValueError, match="begins with /"):
        app.static(tmp_path, at=at)


@pytest.mark.parametrize("at", ["/", "/in", "/in/"])
def test_a_place_has_one_folder(app: App, tmp_path: Path, at: str) -> None:
    """A second one there is a ValueError."""
    with pytest.raises(ValueError, match="already"):
        app.static(tmp_path, at=at)


def test_a_wrong_folder_is_refused(app: App, tmp_path: Path) -> None:
    """When it is named, not when it is asked for."""
    with pytest.raises(FileNotFoundError):
        app.static(tmp_path / "nothing", at="/x")
    with pytest.raises(NotADirectoryError):
        app.static(tmp_path / "outer" / "file", at="/x")
