"""Applications in applications: whose route answers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.app.application import App
from h2log.app.patterns import RouteError
from h2log.app.request import Request
from h2log.app.response import Response
from tests.unit.app.application_asking import ask

HERE = Path(__file__).name


def app_of(name: str, *paths: str) -> App:
    """Return an application whose routes tell its name and what was matched."""
    app = App()

    def tell(request: Request) -> Response:
        return Response.text(f"{name} {request.mounted} {request.route} {request.params}")

    for path in paths:
        app.get(path)(tell)
    return app


async def told(app: App, target: str) -> str | int:
    """Return the text of an answer, or its status when it is none."""
    status, body, _ = await ask(app, target)
    return body.decode() if status == 200 else status


async def test_a_mounted_application_answers_below_its_prefix() -> None:
    """Routing uses the rest of the path; the route for the log is the whole pattern."""
    app = app_of("outer", "/", "/a")
    app.mount("/in", app_of("inner", "/", "/a", "/{x:int}", "/{p:path}/end"))
    assert await told(app, "/") == "outer  / {}"
    assert await told(app, "/a") == "outer  /a {}"
    assert await told(app, "/in/") == "inner /in /in/ {}"
    assert await told(app, "/in/a") == "inner /in /in/a {}"
    assert await told(app, "/%69n/%61") == "inner /in /in/a {}"
    assert await told(app, "/in/7") == "inner /in /in/{x:int} {'x': 7}"
    assert await told(app, "/in/b/c/end") == "inner /in /in/{p:path}/end {'p': 'b/c'}"
    for target in ("/in/x", "/inn/a", "/in/a/b", "/in%2Fa", "/in//a", "/x/in/a", "//in/a"):
        assert await told(app, target) == 404
    assert (await ask(app, "/in")).headers == {"location": "/in/"}
    assert (await ask(app, "/in/a/?q")).headers == {"location": "/in/a?q"}


async def test_the_request_is_what_was_sent() -> None:
    """`path`, `raw_path` and `target` are whole; `mounted` says what was taken off."""
    app, inner = App(), App()

    @inner.get("/{x}")
    def tell(request: Request) -> Response:
        rest = request.raw_path.removeprefix(request.mounted)
        return Response.text(f"{request.target} {request.path} {request.mounted} {rest}")

    app.mount("/é b/", inner)
    assert await told(app, "/%C3%A9%20b/%61?q") == ("/%C3%A9%20b/%61?q /é b/a /%C3%A9%20b /%61")


async def test_mounts_nest() -> None:
    """Prefixes add up, in whatever order things are registered; one may be at `/`."""
    outer, middle, inner, beside = App(), App(), App(), app_of("beside", "/b", "/{x}/y")
    outer.mount("/m", middle)
    middle.mount("/i", inner)
    for app, name in ((outer, "outer"), (middle, "middle"), (inner, "inner")):

        def tell(request: Request, name: str = name) -> Response:
            return Response.text(f"{name} {request.mounted} {request.route}")

        app.get("/a")(tell)
    outer.mount("/", beside)
    assert await told(outer, "/a") == "outer  /a"
    assert await told(outer, "/m/a") == "middle /m /m/a"
    assert await told(outer, "/m/i/a") == "inner /m/i /m/i/a"
    assert await told(outer, "/b") == "beside  /b {}"
    assert await told(outer, "/m/y") == "beside  /{x}/y {'x': 'm'}"
    # Each is an application of its own, too.
    assert await told(middle, "/i/a") == "inner /i /i/a"
    assert await told(inner, "/a") == "inner  /a"


async def test_one_application_may_be_mounted_in_several_places() -> None:
    """Each place has its own prefix."""
    app, inner = App(), app_of("inner", "/{x:int}")
    app.mount("/one", inner)
    app.mount("/two", inner)
    assert await told(app, "/one/1") == "inner /one /one/{x:int} {'x': 1}"
    assert await told(app, "/two/2") == "inner /two /two/{x:int} {'x': 2}"


async def test_routes_added_later_are_there() -> None:
    """Also deep inside, while the outermost serves."""
    outer, middle, inner = App(), App(), App()
    middle.mount("/i", inner)
    outer.mount("/m", middle)
    assert await told(outer, "/m/i/x") == 404
    inner.get("/x")(lambda request: Response.text("there"))
    assert await told(outer, "/m/i/x") == "there"


async def test_a_route_is_preferred_wherever_it_is_from() -> None:
    """The outer application's routes may reach below a mount, by the same order as others."""
    app = app_of("outer", "/in/a", "/in/{x}", "/{p:path}")
    app.mount("/in", app_of("inner", "/{x:int}", "/b"))
    assert await told(app, "/in/a") == "outer  /in/a {}"
    assert await told(app, "/in/b") == "inner /in /in/b {}"
    assert await told(app, "/in/7") == "inner /in /in/{x:int} {'x': 7}"
    assert await told(app, "/in/c") == "outer  /in/{x} {'x': 'c'}"
    assert await told(app, "/in/c/d") == "outer  /{p:path} {'p': 'in/c/d'}"


async def test_methods_of_one_path_may_be_of_two_applications() -> None:
    """Each answers its own, and `Allow` has both."""
    app, inner = app_of("outer", "/in/a"), App()
    inner.post("/a")(lambda request: Response.text(f"inner {request.mounted}"))
    app.mount("/in", inner)
    assert (await ask(app, "/in/a", "POST")).body == b"inner /in"
    assert (await ask(app, "/in/a", "PUT")).headers == {"allow": "GET, HEAD, OPTIONS, POST"}
    assert await told(app, "/in/a") == "outer  /in/a {}"


async def test_converters_are_the_applications_that_has_the_route() -> None:
    """Two applications may mean two things by one name; the first registered is tried first."""
    app, inner = App(), App()
    app.converter("low", lambda text: text.lower())
    inner.converter("low", lambda text: -int(text))
    app.get("/in/{x:low}")(lambda request: Response.text(f"outer {request.params['x']}"))
    inner.get("/a/{x:low}")(lambda request: Response.text(f"inner {request.params['x']}"))
    app.mount("/in", inner)
    assert await told(app, "/in/A") == "outer a"
    assert await told(app, "/in/a/7") == "inner -7"
    assert await told(app, "/in/a/x") == 404


# What is refused


def places(error: pytest.ExceptionInfo[RouteError]) -> int:
    """Return how many places in this file a message names."""
    return str(error.value).count(f"{HERE}:")


def test_a_duplicate_is_refused_through_mounts() -> None:
    """Whichever comes last, the mount or either route; all places are named."""
    app = app_of("outer", "/in/{a:int}")
    with pytest.raises(RouteError, match=r"GET /in/\{b:int\} .* /in/\{a:int\}") as caught:
        app.mount("/in", app_of("inner", "/x", "/{b:int}"))
    assert places(caught) == 3
    assert len(list(app.routes())) == 1

    app, inner = App(), App()
    app.mount("/in", inner)
    app.get("/in/a")(lambda request: Response())
    with pytest.raises(RouteError, match="GET /in/a ") as caught:
        inner.get("/a")(lambda request: Response())
    assert places(caught) == 3
    assert list(inner.routes()) == []

    app, middle, inner = App(), App(), App()
    middle.mount("/i", inner)
    app.mount("/m", middle)
    inner.get("/a")(lambda request: Response())
    with pytest.raises(RouteError, match="GET /m/i/a ") as caught:
        app.get("/m/i/a")(lambda request: Response())
    assert places(caught) == 4
    assert str(caught.value).count("mounted at") == 2


def test_two_mounted_applications_may_not_have_the_same_route() -> None:
    """One at `/`, the other below."""
    app = App()
    app.mount("/", app_of("one", "/in/a"))
    with pytest.raises(RouteError, match="GET /in/a ") as caught:
        app.mount("/in", app_of("two", "/a"))
    assert places(caught) == 4


def test_one_route_may_not_come_by_two_ways() -> None:
    """An application that is mounted twice so that its paths are the same."""
    app, middle, inner = App(), App(), App()
    app.mount("/m", middle)
    middle.mount("/i", inner)
    app.mount("/m/i", inner)
    with pytest.raises(RouteError, match="GET /m/i/a "):
        inner.get("/a")(lambda request: Response())
    assert list(app.routes()) == []


def test_a_prefix_is_taken_once() -> None:
    """By the first application; the error names both places."""
    app = App()
    app.mount("/in", App())
    for path in ("/in", "/in/", "/%69n"):
        with pytest.raises(RouteError, match="mounted at") as caught:
            app.mount(path, App())
        assert places(caught) == 2


def test_no_application_is_inside_itself() -> None:
    """Neither directly nor through others."""
    outer, middle, inner = App(), App(), App()
    outer.mount("/m", middle)
    middle.mount("/i", inner)
    for app, other in ((outer, outer), (inner, inner), (inner, outer), (inner, middle)):
        with pytest.raises(RouteError, match="inside itself"):
            app.mount("/x", other)


@pytest.mark.parametrize("path", ["", "in", "/{x}", "//", "/in//", "/a?b"])
def test_a_prefix_is_a_plain_path(path: str) -> None:
    """It has no parameters and no empty parts."""
    with pytest.raises(RouteError, match="a mount's path"):
        App().mount(path, App())
