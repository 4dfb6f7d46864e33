"""An application: its routes, their methods, and what is answered where there is none."""

from __future__ import annotations

import inspect
import re
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from h2log.app.application import App
from h2log.app.patterns import RouteError
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import UsageError
from tests.unit.app.application_asking import ask, request

ID = "0193fdea-4b1c-7d00-8a2e-0123456789ab"
HERE = Path(__file__).name


def here(request: Request) -> Response:
    """Answer with what was matched."""
    return Response.text(f"{request.method} {request.route} {request.params}")


def line() -> int:
    """Return the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


async def test_functions_plain_and_async_answer() -> None:
    """By their method, with the values of the path."""
    app = App()

    @app.get("/hello/{name}")
    def hello(request: Request) -> Response:
        return Response.text(f"hello {request.params['name']}")

    @app.post("/hello/{name}")
    async def slow(request: Request) -> Response:
        return Response.text(f"slow {request.params['name']}")

    assert (await ask(app, "/hello/a%2Fb?x"))[:2] == (200, b"hello a/b")
    assert (await ask(app, "/hello/x", "POST"))[:2] == (200, b"slow x")
    assert (await ask(app, "/hello/x", "HEAD"))[:2] == (200, b"hello x")


def test_a_plain_function_needs_no_await() -> None:
    """Its response is there at once, on a fixed route and on one with values."""
    app = App()
    app.get("/a")(here)
    app.get("/a/{b:int}")(here)
    assert isinstance(app.answer(request("/a"), 0.0), Response)
    assert isinstance(app.answer(request("/a/1"), 0.0), Response)


async def test_values_have_their_type() -> None:
    """int, float, UUID, the application's own; a value that is none is another route's, or 404."""
    app = App()
    app.converter("date", date.fromisoformat)
    seen: list[Any] = []

    def note(request: Request) -> Response:
        seen.append(request.params["v"])
        return Response(b"", 204)

    for kind in ("int", "float", "uuid", "date"):
        app.get(f"/{kind}/{{v:{kind}}}")(note)
    for path in ("/int/7", "/float/7", f"/uuid/{ID}", "/date/2026-11-20"):
        assert (await ask(app, path)).status == 204
    assert seen == [7, 7.0, UUID(ID), date(2026, 11, 20)]
    assert [type(value) for value in seen] == [int, float, UUID, date]
    for path in ("/int/7.0", "/float/x", "/uuid/7", "/date/2026-13-01", "/int/", "/int/%2F"):
        assert (await ask(app, path)).status == 404


async def test_every_method_has_its_decorator() -> None:
    """And a function can have several."""
    app = App()

    def handler(request: Request) -> Response:
        return Response.text(request.method)

    own = {
        "GET": app.get, "HEAD": app.head, "POST": app.post, "PUT": app.put, "PATCH": app.patch,
        "DELETE": app.delete, "OPTIONS": app.options, "QUERY": app.query,
    }  # fmt: skip
    for decorator in own.values():
        assert decorator("/a")(handler) is handler
    for method in own:
        assert (await ask(app, "/a", method)).body == method.encode()
    app.route("/b", ("purge", "LINK"))(handler)
    app.route("/b", "lock")(handler)
    for method in ("PURGE", "LINK", "LOCK"):
        assert (await ask(app, "/b", method)).body == method.encode()


# What is not answered by a function


async def test_another_method_is_not_allowed() -> None:
    """405 with Allow; OPTIONS tells the same with 204; HEAD goes with GET alone."""
    app = App()
    app.get("/a/{x}")(here)
    app.post("/a/{y}")(here)
    app.post("/post")(here)
    allow = {"allow": "GET, HEAD, OPTIONS, POST"}
    assert (await ask(app, "/a/x", "PUT"))[::2] == (405, allow)
    assert await ask(app, "/a/x", "OPTIONS") == (204, b"", allow)
    for method in ("GET", "HEAD", "TRACE", "QUERY"):
        assert (await ask(app, "/post", method))[::2] == (405, {"allow": "OPTIONS, POST"})
    app.options("/post")(here)
    assert (await ask(app, "/post", "OPTIONS")).body == b"OPTIONS /post {}"


async def test_allow_has_the_methods_of_every_pattern_that_fits() -> None:
    """A fixed one, one of a type, and the rest."""
    app = App()
    app.get("/a/1")(here)
    app.put("/a/{n:int}")(here)
    app.delete("/a/{n}")(here)
    app.post("/a/{p:path}")(here)
    allow = {"allow": "DELETE, GET, HEAD, OPTIONS, POST, PUT"}
    assert (await ask(app, "/a/1", "PATCH"))[::2] == (405, allow)
    assert (await ask(app, "/a/x", "OPTIONS")).headers == {"allow": "DELETE, OPTIONS, POST"}
    assert (await ask(app, "/a/1", "DELETE")).body == b"DELETE /a/{n} {'n': '1'}"


@pytest.mark.parametrize("path", ["/a", "/nothing", "/a/"])
async def test_an_unknown_method_is_not_implemented(path: str) -> None:
    """501, whatever the path (RFC 9110 section 9.1); what any route has, is known everywhere."""
    app = App()
    app.get("/a")(here)
    for method in ("BREW", "get", "Get", "PROPFIND", "PRI"):
        assert (await ask(app, path, method)).status == 501
    app.route("/b", ("BREW",))(here)
    assert (await ask(app, "/a", "BREW"))[::2] == (405, {"allow": "GET, HEAD, OPTIONS"})
    assert (await ask(app, "/nothing", "BREW")).status == 404


async def test_the_whole_server_has_options() -> None:
    """`OPTIONS *` tells the methods of all routes (RFC 9110 section 9.3.7); no other method can."""
    app = App()
    assert await ask(app, "*", "OPTIONS") == (204, b"", {"allow": "OPTIONS"})
    app.put("/a/{b}")(here)
    app.route("/c", ("CONNECT",))(here)
    assert (await ask(app, "*", "OPTIONS")).headers == {"allow": "CONNECT, OPTIONS, PUT"}
    assert (await ask(app, "*", "PUT")).status == 400


@pytest.mark.parametrize("target", ["", "a", "http://h/a", "?a", "\\a", "%2Fa"])
async def test_a_target_that_is_no_path_is_a_bad_request(target: str) -> None:
    """Also where a pattern takes everything."""
    app = App()
    app.get("/{p:path}")(here)
    app.get("/a")(here)
    assert (await ask(app, target)).status == 400


async def test_no_connect_reaches_a_handler_but_the_extended() -> None:
    """A proxy's CONNECT is 501, whatever its target; with a protocol it is a method like others."""
    app = App()
    app.route("/tunnel", ("CONNECT",))(here)
    app.route("/tunnel/{n:int}", ("CONNECT",))(here)
    app.get("/get")(here)
    for target in ("example.org:443", "", "/tunnel", "/tunnel/1", "/get"):
        assert (await ask(app, target, "CONNECT")).status == 501
    told = await ask(app, "/tunnel", "CONNECT", protocol="websocket")
    assert told.body == b"CONNECT /tunnel {}"
    told = await ask(app, "/tunnel/1", "CONNECT", protocol="websocket")
    assert told.body == b"CONNECT /tunnel/{n:int} {'n': 1}"
    assert (await ask(app, "/tunnel"))[::2] == (405, {"allow": "CONNECT, OPTIONS"})
    told = await ask(app, "/get", "CONNECT", protocol="websocket")
    assert told[::2] == (405, {"allow": "GET, HEAD, OPTIONS"})
    assert (await ask(app, "/get/", "CONNECT", protocol="websocket")).status == 404


async def test_nothing_is_not_found() -> None:
    """An application without anything."""
    app = App()
    assert (await ask(app, "/")).status == 404
    assert (await ask(app, "/", "OPTIONS")).status == 404
    assert app.kept("/", 0.0) is None


# The last slash


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/users/", "/users"),
        ("/users/?a=1&b=%2F", "/users?a=1&b=%2F"),
        ("/users/?", "/users?"),
        ("/users/?x#y", "/users?x%23y"),
        ("/%75sers/", "/users"),
        ("/users/7/", "/users/7"),
        ("/users/%37/", "/users/7"),
        ("/dir", "/dir/"),
        ("/dir?q=//evil", "/dir/?q=//evil"),
        ("/of/a%2Fb", "/of/a%2Fb/"),
        ("/of/caf\xc3\xa9", "/of/caf%C3%A9/"),
        ("/of/a\\b", "/of/a%5Cb/"),
        ("/of/%2e%2e", "/of/../"),
        ("/a//b/", "/a//b"),
    ],
)
async def test_the_other_form_of_a_route_is_a_redirect(target: str, location: str) -> None:
    """308 with the query, to the one spelling of the path; any method."""
    app = App()
    for path in ("/users", "/users/{id:int}", "/dir/", "/of/{name}/", "/a//b"):
        app.route(path, ("GET", "POST"))(here)
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
        assert await ask(app, target, method) == (308, b"", {"location": location})


@pytest.mark.parametrize(
    "target",
    [
        "/users/x/",
        "/users//",
        "/users/7//",
        "//",
        "///",
        "//evil.example/",
        "//evil.example",
        "/%2Fevil.example/x/",
        "/%2F/",
        "/both/x",
        "/nothing/",
        "/users%2F",
    ],
)
async def test_nothing_else_is_redirected(target: str) -> None:
    """Only what then is a route; never to what a client takes for another host."""
    app = App()
    for path in ("/", "/users", "/users/{id:int}", "/both", "/both/", "//{host}", "//{host}/x/"):
        app.get(path)(here)
    told = await ask(app, target)
    assert told.status in (200, 404)
    assert told.status == 404 or target.startswith("//evil")


async def test_a_route_is_never_redirected() -> None:
    """Each form its own function."""
    app = App()
    app.get("/both")(here)
    app.get("/both/")(here)
    app.get("/{x}")(here)
    assert (await ask(app, "/both")).body == b"GET /both {}"
    assert (await ask(app, "/both/")).body == b"GET /both/ {}"
    assert (await ask(app, "/x/")).headers == {"location": "/x"}


# Registering


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/", "/"),
        ("/café", "/caf%c3%a9"),
        ("/{a}", "/{a}"),
        ("/{a}", "/{b:str}"),
        ("/{a}/b", "/{c}/b"),
        ("/{a:int}", "/{b:int}"),
        ("/x/{a:path}", "/x/{b:path}"),
    ],
)
async def test_a_route_twice_is_refused(first: str, second: str) -> None:
    """The same method on the same paths, whatever the names: both places are named."""
    app = App()
    one = line() + 1
    app.get(first)(here)
    two = line() + 2
    with pytest.raises(RouteError) as caught:
        app.route(second, ("PUT", "GET"))(here)
    told = str(caught.value)
    assert re.search(rf"GET {re.escape(second)} \(\S*{HERE}:{two}\) is there already", told)
    assert re.search(rf"{re.escape(first)} \(\S*{HERE}:{one}\)", told)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UsageError)
    # Nothing of it was registered.
    assert (await ask(app, "/nothing/at/all", "PUT")).status == 404
    assert [route.methods for route in app.routes()] == [("GET",)]
    app.put(second)(here)


def test_like_is_not_the_same() -> None:
    """Another method, another kind of value, another last slash: all are routes."""
    app = App()
    for path in ("/a", "/a/", "/{a}", "/{a:int}", "/{a:float}", "/{a:uuid}", "/{a:path}", "/{a}/"):
        app.route(path, ("GET", "HEAD", "POST"))(here)
    assert len(list(app.routes())) == 8


@pytest.mark.parametrize("path", ["a", "/{a", "/{a:none}", "/{a}/{a}", "/a?b"])
def test_a_bad_pattern_is_a_value_error(path: str) -> None:
    """When it is registered; nothing is."""
    app = App()
    with pytest.raises(ValueError, match="route ") as caught:
        app.get(path)(here)
    assert repr(path) in str(caught.value)
    assert list(app.routes()) == []


@pytest.mark.parametrize("methods", [(), ("",), ("A B",), ("GET\n",), ("GÉT",)])
def test_a_bad_method_is_a_value_error(methods: tuple[str, ...]) -> None:
    """A method is a token (RFC 9110 section 9.1), and there is one at least."""
    with pytest.raises(ValueError, match="route '/a'"):
        App().route("/a", methods)(here)


def test_what_is_no_function_is_a_type_error() -> None:
    """When it is registered, not when it is asked for."""
    app = App()
    nothing: Any = None
    for register in (
        lambda: app.get("/a")(nothing),
        lambda: app.get("/a", errors={404: nothing})(here),
        lambda: app.converter("x", nothing),
        lambda: app.use(nothing),
        lambda: app.error(404)(nothing),
        lambda: app.mount("/x", nothing),
        lambda: app.route("/a", nothing)(here),
        lambda: app.get(nothing)(here),
    ):
        with pytest.raises(TypeError):
            register()
    assert list(app.routes()) == []


def test_a_converter_has_a_name_of_its_own() -> None:
    """Neither a built-in's, nor one that no pattern could have."""
    app = App()
    app.converter("date", date.fromisoformat)
    for name in ("date", "int", "path", "", "a-b", "1a"):
        with pytest.raises(RouteError, match=f"{name!r}"):
            app.converter(name, str)
    with pytest.raises(RouteError, match="no converter 'date'"):
        App().get("/{d:date}")(here)  # another application's


async def test_routes_may_come_while_it_serves() -> None:
    """The next request finds them."""
    app = App()
    assert (await ask(app, "/a")).status == 404
    app.get("/a")(here)
    assert (await ask(app, "/a")).status == 200
    app.prepare()
    app.delete("/a")(here)
    assert (await ask(app, "/a", "DELETE")).status == 200


def test_all_routes_can_be_told(tmp_path: Path) -> None:
    """Methods, the whole pattern, and the place."""
    app, inner = App(), App()
    app.route("/a/{b:int}", ("GET", "PUT"))(here)
    inner.post("/c")(here)
    inner.static(tmp_path, at="/files")
    app.mount("/in", inner)
    last = line()
    told = list(app.routes())
    assert [(route.methods, route.pattern) for route in told] == [
        (("GET", "PUT"), "/a/{b:int}"),
        (("POST",), "/in/c"),
        (("GET",), "/in/files/*"),
    ]
    assert [route.place.rpartition("/")[2] for route in told] == [
        f"{HERE}:{last - n}" for n in (4, 3, 2)
    ]


async def test_what_a_plain_handler_raises_comes_through() -> None:
    """The server, not the application, makes a response of it."""
    app = App()

    @app.get("/")
    def fails(request: Request) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.answer(request("/"), 0.0)


async def test_what_a_converter_raises_comes_through() -> None:
    """But for ValueError, which is a path that does not match."""
    app = App()
    app.converter("broken", lambda text: 1 / 0)
    app.get("/{x:broken}")(here)
    with pytest.raises(ZeroDivisionError):
        await ask(app, "/a")
