"""Middleware: what it is around, what it sees, and what it costs those it is not around."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from h2log.app.application import App
from h2log.app.middleware import CallNext, Middleware
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError
from tests.unit.app.application_asking import ask, request


def marking(mark: str, seen: list[str]) -> Middleware:
    """Return a middleware that notes what it sees on the way in and out."""

    async def middleware(request: Request, call_next: CallNext) -> Response:
        seen.append(f"{mark}({request.mounted}{'' if not request.mounted else ' '}{request.route}")
        try:
            response = await call_next(request)
        except Exception as error:
            seen.append(f"{mark}!{error}")
            raise
        seen.append(f"{mark}){response.status}")
        assert request.mounted in ("", "/in")
        return response

    return middleware


def text(body: str) -> Callable[[Request], Response]:
    """Return a handler that answers with `body`."""
    return lambda request: Response.text(body)


async def test_the_first_is_the_outermost() -> None:
    """In on the way to the handler, out on the way back; the route and its values are known."""
    app = App()
    seen: list[str] = []

    @app.middleware
    async def first(request: Request, call_next: CallNext) -> Response:
        seen.append(f"first {request.route} {request.params}")
        response = await call_next(request)
        seen.append("first out")
        return response

    app.use(marking("second", seen))

    @app.get("/{n:int}")
    async def handler(request: Request) -> Response:
        seen.append("handler")
        return Response.text("answer")

    assert (await ask(app, "/7")).body == b"answer"
    assert seen == [
        "first /{n:int} {'n': 7}", "second(/{n:int}", "handler", "second)200", "first out",
    ]  # fmt: skip
    assert callable(first)


async def test_it_may_answer_itself_or_another_response() -> None:
    """Then the handler is not called, or its response is not what is sent."""
    app = App()
    called = False

    @app.middleware
    async def gate(request: Request, call_next: CallNext) -> Response:
        if "key" not in request.query:
            raise HTTPError(401, "a key, please")
        response = await call_next(request)
        return Response(response.body, 201, [*response.headers, ("x-gate", "passed")])

    @app.get("/")
    def handler(request: Request) -> Response:
        nonlocal called
        called = True
        return Response.text("inside")

    assert (await ask(app, "/"))[:2] == (401, b"a key, please")
    assert not called
    told = await ask(app, "/?key")
    assert (told.status, told.body, told.headers["x-gate"]) == (201, b"inside", "passed")


async def test_it_may_call_again() -> None:
    """As one does that tries again after a failure."""
    app = App()
    tries = 0

    @app.middleware
    async def again(request: Request, call_next: CallNext) -> Response:
        try:
            return await call_next(request)
        except HTTPError:
            return await call_next(request)

    @app.get("/")
    async def handler(request: Request) -> Response:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise HTTPError(503)
        return Response.text(f"try {tries}")

    assert (await ask(app, "/")).body == b"try 2"


@pytest.mark.parametrize(
    ("target", "method", "out"),
    [
        ("/route", "GET", ")200"),
        ("/route", "POST", "!405 Method Not Allowed"),
        ("/route", "OPTIONS", ")204"),
        ("/route/", "GET", ")308"),
        ("/files/a", "GET", ")200"),
        ("/files", "GET", ")308"),
        ("/files/%61", "OPTIONS", ")204"),
        ("/files/b", "GET", "!404 Not Found"),
        ("/files/a", "PUT", "!405 Method Not Allowed"),
        ("/nothing", "GET", "!404 Not Found"),
        ("/nothing", "BREW", "!501 this server has no such method"),
        ("*", "OPTIONS", ")204"),
        ("x:443", "CONNECT", "!501 this server is no proxy"),
        ("/gone", "GET", "!410 it was here"),
    ],
)
async def test_it_is_around_everything_that_is_answered(
    tmp_path: Path, target: str, method: str, out: str
) -> None:
    """Routes, folders, redirects and errors; an error is an exception for it."""
    app = App()
    seen: list[str] = []
    (tmp_path / "a").write_text("a")
    app.use(marking("m", seen))
    app.static(tmp_path, at="/files")
    app.get("/route")(text("route"))

    @app.get("/gone")
    async def gone(request: Request) -> Response:
        raise HTTPError(410, "it was here")

    told = await ask(app, target, method)
    assert str(told.status) in out or told.body.decode() in out
    assert seen[0].startswith("m(")
    assert seen[1:] == [f"m{out}"]


async def test_a_mounted_applications_own_is_inside() -> None:
    """The outer application's first; each sees the prefix of its own application."""
    app, inner = App(), App()
    seen: list[str] = []
    inner.use(marking("inner", seen))
    inner.get("/a")(text("inner"))
    app.get("/a")(text("outer"))
    app.mount("/in", inner)
    app.use(marking("outer", seen))
    assert (await ask(app, "/in/a")).body == b"inner"
    assert seen == ["outer(/in/a", "inner(/in /in/a", "inner)200", "outer)200"]
    seen.clear()
    assert (await ask(app, "/a")).body == b"outer"
    assert seen == ["outer(/a", "outer)200"]
    for target in ("/in/nothing", "/in"):
        seen.clear()
        assert (await ask(app, target)).status == 404
        assert seen == ["outer(", "inner(/in ", "inner!404 Not Found", "outer!404 Not Found"]


async def test_a_handler_sees_the_prefix_of_its_own_application() -> None:
    """Whatever is around it."""
    outer, middle, inner = App(), App(), App()
    seen: list[str] = []
    outer.mount("/a", middle)
    middle.mount("/b", inner)
    outer.use(marking("m", seen))
    for app in (outer, middle, inner):
        app.get("/x")(lambda request: Response.text(f"at {request.mounted}"))
    for target, body in (("/x", b"at "), ("/a/x", b"at /a"), ("/a/b/x", b"at /a/b")):
        assert (await ask(outer, target)).body == body


async def test_it_may_begin_below_a_prefix() -> None:
    """Of its application; by whole segments, however they are coded."""
    app, inner = App(), App()
    seen: list[str] = []
    inner.use(marking("m", seen), prefix="/api")
    inner.get("/api")(text("api"))
    inner.get("/api/{x}")(text("api"))
    inner.get("/{a}/{b}")(text("other"))
    app.mount("/in", inner)
    for target, around in (
        ("/in/api", True),
        ("/in/api/1", True),
        ("/in/%61pi/1", True),
        ("/%69n/ap%69/1", True),
        ("/in/api/", True),
        ("/in/api/1/2/3", True),
        ("/in/apis/1", False),
        ("/in/a/b", False),
        ("/in/api%2F1", False),
        ("/api/1", False),
        ("/in", False),
    ):
        seen.clear()
        await ask(app, target)
        assert bool(seen) is around, target


def test_plain_handlers_need_no_await_where_there_is_none() -> None:
    """Neither beside a middleware's prefix, nor without any: the response is there at once."""
    app, inner = App(), App()
    app.use(marking("m", []), prefix="/api")
    app.get("/a")(text("a"))
    app.get("/api/a")(text("a"))
    inner.get("/a")(text("a"))
    app.mount("/in", inner)
    for target in ("/a", "/in/a"):
        assert isinstance(app.answer(request(target), 0.0), Response)
    answer = app.answer(request("/api/a"), 0.0)
    assert isinstance(answer, Coroutine)
    answer.close()


# Files in memory


async def keeps(app: App, target: str) -> bool:
    """Say whether a file is answered without the application once it was asked for."""
    assert (await ask(app, target)).status == 200
    return app.kept(target, 0.0) is not None


async def test_what_middleware_is_around_is_never_kept(tmp_path: Path) -> None:
    """Unless it leaves out folders, or begins elsewhere; the outer application's counts too."""
    for name in ("a", "api/b", "x/api/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)

    def made(prefix: str = "/", static: bool = True, outer: bool = False) -> App:
        app, inner = App(), App()
        inner.static(tmp_path)
        (app if outer else inner).use(marking("m", []), prefix=prefix, static=static)
        app.mount("/in", inner)
        return app

    for app in (made(), made(outer=True), made("/in", outer=True)):
        assert not await keeps(app, "/in/a")
        assert not await keeps(app, "/in/api/b")
    for app in (made(static=False), made(static=False, outer=True), made("/api", outer=True)):
        assert await keeps(app, "/in/a")
        assert await keeps(app, "/in/api/b")
    for app in (made("/api"), made("/in/api", outer=True)):
        assert await keeps(app, "/in/a")
        assert await keeps(app, "/in/x/api/c")
        assert not await keeps(app, "/in/api/b")
        assert not await keeps(app, "/in/ap%69/b")


async def test_it_is_around_files_below_its_prefix_however_they_are_spelled(tmp_path: Path) -> None:
    """No spelling of a file's path gets past what guards its folder."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    app = App()
    app.static(tmp_path)

    async def guard(request: Request, call_next: CallNext) -> Response:
        raise HTTPError(403)

    app.use(guard, prefix="/private")
    for target in (
        "/private/key", "/%70rivate/key", "/privat%65/ke%79", "/private/key?x", "//private/key",
        "/./private/key", "/x/../private/key", "/private//key", "/private%2Fkey",
        "/%2e/private/key", "/private/./key", "/private/", "/private",
    ):  # fmt: skip
        told = await ask(app, target)
        assert told.status in (403, 404), target
        assert app.kept(target.partition("?")[0], 0.0) is None


async def test_a_response_from_memory_is_not_changed(tmp_path: Path) -> None:
    """What middleware adds to a file's response is in that one alone."""
    (tmp_path / "a").write_text("a")
    app, inner = App(), App()
    inner.static(tmp_path)
    inner.get("/route")(text("route"))
    app.mount("/in", inner)

    @app.middleware
    async def adds(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        response.headers.append(("x-mark", "1"))
        response.status = 203
        return response

    for _ in range(3):
        asked = request("/in/a")
        response = await app.answer(asked, 0.0)  # type: ignore[misc]
        assert [value for name, value in response.headers if name == "x-mark"] == ["1"]
    kept = inner.kept("/a", 0.0)
    assert kept is None
    assert (await ask(inner, "/a")).status == 200


async def test_a_response_that_a_module_has_made_is_not_changed() -> None:
    """Whoever made it: the handler, an error handler or another middleware."""
    app, inner = App(), App()
    shared = Response.text("shared", headers=[("x-own", "1")])
    refused = Response.text("refused", 403)
    paused = Response.text("paused", 503)
    work: list[str] = []

    def adding(mark: str) -> Middleware:
        async def adds(request: Request, call_next: CallNext) -> Response:
            response = await call_next(request)
            response.headers.append(("x-mark", mark))
            response.after(work.append, mark)
            response.status += 1
            return response

        return adds

    async def pauses(request: Request, call_next: CallNext) -> Response:
        return paused if "pause" in request.query else await call_next(request)

    app.use(adding("outer"))
    inner.use(adding("middle"))
    inner.use(pauses)
    inner.use(adding("deep"), prefix="/deep")
    inner.get("/plain")(lambda request: shared)
    inner.get("/deep/plain")(lambda request: shared)

    @inner.get("/async")
    async def handler(request: Request) -> Response:
        return shared

    @inner.get("/refused")
    async def refuses(request: Request) -> Response:
        raise HTTPError(403)

    inner.error(403)(lambda request, error: refused)
    app.mount("/in", inner)
    for _ in range(3):
        for target, status, marks in (
            ("/in/plain", 202, ["middle", "outer"]),
            ("/in/async", 202, ["middle", "outer"]),
            ("/in/deep/plain", 203, ["deep", "middle", "outer"]),
            ("/in/refused", 404, ["outer"]),
            ("/in/plain?pause", 505, ["middle", "outer"]),
        ):
            response = await app.answer(request(target), 0.0)  # type: ignore[misc]
            assert [v for name, v in response.headers if name == "x-mark"] == marks, target
            assert (response.status, len(response.background or ())) == (status, len(marks))
    for response, status in ((shared, 200), (refused, 403), (paused, 503)):
        assert (response.status, response.background) == (status, None)
        assert "x-mark" not in dict(response.headers)


async def test_static_false_is_around_all_but_folders(tmp_path: Path) -> None:
    """Routes, and what nothing answers."""
    (tmp_path / "a").write_text("a")
    app = App()
    seen: list[str] = []
    app.use(marking("m", seen), static=False)
    app.static(tmp_path, at="/files")
    app.get("/route")(text("route"))
    for target in ("/files/a", "/files/b", "/files"):
        await ask(app, target)
    assert seen == []
    await ask(app, "/route")
    await ask(app, "/nothing")
    assert seen == ["m(/route", "m)200", "m(", "m!404 Not Found"]


# What may be a middleware, and what it may not return


class Counting:
    """A middleware that is an object."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Count."""
        self.count += 1
        return await call_next(request)


async def test_anything_that_can_be_called_may_be_one() -> None:
    """Objects, partial functions, and a plain function that needs not await."""
    app = App()
    counting = Counting()

    async def two(mark: str, request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        response.headers.append(("x-mark", mark))
        return response

    def plain(request: Request, call_next: CallNext) -> Response | Awaitable[Response]:
        return Response.text("plain") if "plain" in request.query else call_next(request)

    app.use(counting)
    app.use(partial(two, "m"))
    app.use(plain)
    app.get("/")(text("answer"))
    told = await ask(app, "/")
    assert (told.body, told.headers["x-mark"], counting.count) == (b"answer", "m", 1)
    assert (await ask(app, "/?plain")).body == b"plain"


@pytest.mark.parametrize("wrong", [None, "text", {"a": 1}, b"x"])
async def test_what_is_no_response_is_told(wrong: Any) -> None:
    """By whom it was returned: the middleware, or the handler that it is around."""
    app = App()

    async def returns(request: Request, call_next: CallNext) -> Any:
        return wrong if "m" in request.query else await call_next(request)

    app.use(returns)
    app.get("/plain")(lambda request: wrong)

    @app.get("/async")
    async def later(request: Request) -> Any:
        return wrong

    for target, who in (("/plain?m", "middleware"), ("/plain", "handler"), ("/async", "handler")):
        with pytest.raises(
            TypeError, match=f"the {who} of GET /.* {type(wrong).__name__}, expected"
        ):
            await ask(app, target)


async def test_what_is_not_begun_leaves_nothing_behind() -> None:
    """A request whose client goes before its task began: no coroutine is left unawaited."""
    app = App()
    app.use(marking("m", []))

    @app.get("/")
    async def handler(request: Request) -> Response:
        return Response()

    answer = app.answer(request("/"), 0.0)
    assert isinstance(answer, Coroutine)
    answer.close()


async def test_middleware_may_come_while_it_serves(tmp_path: Path) -> None:
    """The next request meets it; what was kept is not any more."""
    (tmp_path / "a").write_text("a")
    app, inner = App(), App()
    inner.static(tmp_path)
    app.mount("/in", inner)
    assert await keeps(app, "/in/a")
    seen: list[str] = []
    inner.use(marking("m", seen))
    assert app.kept("/in/a", 0.0) is None
    await ask(app, "/in/a")
    assert len(seen) == 2
