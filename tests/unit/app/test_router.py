"""Routes: which one answers, with which values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.patterns import CONVERTERS, OWN_RANK, Converter, parse_pattern
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.app.router import EXTENDED_CONNECT, Router, Target, allow

ID = "0193fdea-4b1c-7d00-8a2e-0123456789ab"


def answer(request: Request) -> Response:
    """Answer anything."""
    return Response.text("here")


def add(router: Router, path: str, *methods: str, converters: Iterable[Converter] = ()) -> Target:
    """Add a route; return what answers it."""
    pattern = parse_pattern(path, {**CONVERTERS, **{c.name: c for c in converters}})
    target = Target(answer, path, pattern.names, "")
    router.add(pattern, methods or ("GET",), target)
    return target


def routes(*paths: str) -> Router:
    """Return a router with GET on each path."""
    router = Router()
    for path in paths:
        add(router, path)
    return router


def found(router: Router, path: str, method: str = "GET") -> tuple[str, dict[str, Any]] | None:
    """Return the pattern that a path leads to, and its values."""
    result = router.find(path, method)
    return None if result is None else (result[0].pattern, result[1])


@pytest.mark.parametrize(
    ("path", "pattern", "values"),
    [
        ("/", "/", {}),
        ("/a", "/a", {}),
        ("/a/", "/a/", {}),
        ("/%61", "/a", {}),
        ("/users/7", "/users/{id}", {"id": "7"}),
        ("/users/me", "/users/me", {}),
        ("/users/%6De", "/users/me", {}),
        ("/users/ME", "/users/{id}", {"id": "ME"}),
        ("/users/a%2Fb", "/users/{id}", {"id": "a/b"}),
        ("/users/a%2fb/posts", "/users/{id}/posts", {"id": "a/b"}),
        ("/users/caf%C3%A9", "/users/{id}", {"id": "café"}),
        ("/users/caf\xc3\xa9", "/users/{id}", {"id": "café"}),
        ("/users/%FF", "/users/{id}", {"id": "�"}),
        ("/users/a+b%20c", "/users/{id}", {"id": "a+b c"}),
        ("/users/%", "/users/{id}", {"id": "%"}),
        ("/users/..", "/users/{id}", {"id": ".."}),
        ("/users/%2e%2e", "/users/{id}", {"id": ".."}),
        ("/users/{id}", "/users/{id}", {"id": "{id}"}),
        ("/users/me/posts", "/users/{id}/posts", {"id": "me"}),
        ("/users/%6de/posts", "/users/{id}/posts", {"id": "me"}),
        ("/users/me/likes", "/users/me/likes", {}),
        ("/x/1/y/2", "/x/{a}/y/{b}", {"a": "1", "b": "2"}),
        ("/%78/1/%79/2", "/x/{a}/y/{b}", {"a": "1", "b": "2"}),
        ("/caf%C3%A9", "/café", {}),
        ("/caf%c3%a9", "/café", {}),
        ("/caf\xc3\xa9", "/café", {}),
        ("/a%2Fb", "/a%2Fb", {}),
    ],
)
def test_a_path_finds_its_route(path: str, pattern: str, values: dict[str, str]) -> None:
    """Fixed before parameter, decoded once, back when the preferred way leads nowhere."""
    router = routes(
        *("/", "/a", "/a/", "/users/{id}", "/users/me", "/users/{id}/posts", "/users/me/likes"),
        *("/x/{a}/y/{b}", "/café", "/a%2Fb"),
    )
    assert found(router, path) == (pattern, values)
    assert router.allowed(path) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "*",
        "//",
        "/b",
        "/A",
        "/a//",
        "//a",
        "/users",
        "/users/",
        "/users/7/",
        "/users/7/x",
        "/users//posts",
        "/users%2F7",
        "/a%2F",
        "/a?",
        "/x/1/y",
        "/x/1/y/2/3",
        "http://h/a",
    ],
)
def test_any_other_path_finds_none(path: str) -> None:
    """An empty segment is no value, an encoded slash parts no segments, a case is a case."""
    router = routes("/a", "/a/", "/users/{id}", "/users/{id}/posts", "/x/{a}/y/{b}")
    assert found(router, path) is None
    assert router.allowed(path) == set()


def test_a_router_without_routes_finds_none() -> None:
    """Not even the root."""
    router = Router()
    assert router.find("/", "GET") is None
    assert not router


def test_the_search_steps_back_more_than_once() -> None:
    """Every fixed way may be a blind alley, and what it collected is forgotten."""
    router = routes("/a/b/c/d", "/a/{x}/c/e", "/{w}/b/{z}/f", "/{w}/{x}/{y}/{z}")
    assert found(router, "/a/b/c/d") == ("/a/b/c/d", {})
    assert found(router, "/a/b/c/e") == ("/a/{x}/c/e", {"x": "b"})
    assert found(router, "/a/b/c/f") == ("/{w}/b/{z}/f", {"w": "a", "z": "c"})
    assert found(router, "/a/b/c/g") == (
        "/{w}/{x}/{y}/{z}",
        {"w": "a", "x": "b", "y": "c", "z": "g"},
    )


# Values of a type


@pytest.mark.parametrize(
    ("path", "pattern", "value"),
    [
        ("/v/me", "/v/me", None),
        ("/v/7", "/v/{v:int}", 7),
        ("/v/%37", "/v/{v:int}", 7),
        ("/v/-7", "/v/{v:int}", -7),
        (f"/v/{ID}", "/v/{v:uuid}", UUID(ID)),
        ("/v/" + "1" * 31, "/v/{v:int}", int("1" * 31)),
        ("/v/" + "1" * 32, "/v/{v:uuid}", UUID("1" * 32)),
        ("/v/" + "1a" * 16, "/v/{v:uuid}", UUID("1a" * 16)),
        ("/v/7.5", "/v/{v:float}", 7.5),
        ("/v/2026-11-20", "/v/{v:date}", date(2026, 11, 20)),
        ("/v/2026-11-31", "/v/{v}", "2026-11-31"),
        ("/v/7%20", "/v/{v}", "7 "),
        ("/v/a%2Fb", "/v/{v}", "a/b"),
        ("/v/a/b", "/v/{v:path}", "a/b"),
        ("/v/7/8", "/v/{v:path}", "7/8"),
        ("/v/7/", "/v/{v:path}", "7/"),
        ("/v/a/%20/b%2Fc", "/v/{v:path}", "a/ /b/c"),
        ("/v/a/caf\xc3%A9", "/v/{v:path}", "a/café"),
    ],
)
def test_the_most_special_kind_is_preferred(path: str, pattern: str, value: object) -> None:
    """Plain, uuid, int, float, the application's own, str, path; in whatever order they came."""
    own = Converter("date", date.fromisoformat, OWN_RANK)
    kinds = ["{v:path}", "{v}", "{v:date}", "{v:float}", "{v:uuid}", "{v:int}", "me"]
    for order in (kinds, kinds[::-1]):
        router = Router()
        for kind in order:
            add(router, f"/v/{kind}", converters=[own])
        assert found(router, path) == (pattern, {} if value is None else {"v": value})


@pytest.mark.parametrize("path", ["/v/x", "/v/1.5", "/v/7/", "/v/", "/v/%37x", "/v/7%2F"])
def test_what_does_not_convert_does_not_match(path: str) -> None:
    """And where nothing else does, there is nothing."""
    assert found(routes("/v/{id:int}"), path) is None


@pytest.mark.parametrize(
    ("path", "pattern", "values"),
    [
        ("/f/a", "/f/{p:path}", {"p": "a"}),
        ("/f/a/b/edit", "/f/{p:path}/edit", {"p": "a/b"}),
        ("/f/edit", "/f/{p:path}", {"p": "edit"}),
        ("/f/edit/edit", "/f/{p:path}/edit", {"p": "edit"}),
        ("/f/a/b/lines/3", "/f/{p:path}/lines/{n:int}", {"p": "a/b", "n": 3}),
        ("/f/a/b/lines/x", "/f/{p:path}", {"p": "a/b/lines/x"}),
        ("/f/lines/3", "/f/{p:path}", {"p": "lines/3"}),
        ("/f/info", "/f/info", {}),
        ("/f/info/edit", "/f/{p:path}/edit", {"p": "info"}),
        ("/g/a/b/c", "/{p:path}/b/c", {"p": "g/a"}),
    ],
)
def test_a_path_may_be_followed(path: str, pattern: str, values: dict[str, Any]) -> None:
    """It takes all but what comes after it; the pattern with the most after it is preferred."""
    router = routes(
        *("/f/{p:path}", "/f/{p:path}/edit", "/f/{p:path}/lines/{n:int}", "/f/info"),
        "/{p:path}/b/c",
    )
    assert found(router, path) == (pattern, values)


@pytest.mark.parametrize(
    "path",
    [
        "/f",
        "/f/",
        "/f//",
        "/f//etc/passwd",
        "/f/%2Fetc/passwd",
        "/f/..",
        "/f/../x",
        "/f/a/../../x",
        "/f/a/%2e%2E/x",
        "/f/a%2F..%2Fx",
        "/f/..%5Cx",
        "/f/a%5c..",
        "/f/.",
        "/f/a/./b",
        "/f/a%00",
    ],
)
def test_a_path_leads_nowhere_else(path: str) -> None:
    """However it is coded: neither up, nor to the root."""
    assert found(routes("/f/{p:path}"), path) is None


def test_what_else_a_converter_raises_comes_through() -> None:
    """A converter with a bug is not a path that does not match."""

    def broken(text: str) -> object:
        raise ZeroDivisionError

    router = Router()
    add(router, "/{v:broken}", converters=[Converter("broken", broken, OWN_RANK)])
    with pytest.raises(ZeroDivisionError):
        router.find("/x", "GET")


# Methods


def test_methods_of_a_path_have_their_handlers() -> None:
    """One path, several functions; HEAD is GET's unless it has its own, whichever came first."""
    for path in ("/a", "/{a}"):
        for first in (True, False):
            router = Router()
            head = add(router, path, "HEAD") if first else None
            get, post = add(router, path, "GET"), add(router, path, "POST", "PUT")

            def target(method: str, router: Router = router) -> Target | None:
                result = router.find("/a", method)
                return None if result is None else result[0]

            assert target("GET") is get
            assert target("HEAD") is (head or get)
            assert target("POST") is target("PUT") is post
            assert target("DELETE") is None
            assert target("get") is None
            if head is None:
                head = add(router, path, "HEAD")
            assert target("HEAD") is head


def test_a_pattern_that_has_not_the_method_is_passed_over() -> None:
    """Then the next one that fits answers, with its own names; methods of all are allowed."""
    router = Router()
    add(router, "/users/me", "GET")
    add(router, "/users/{id:int}", "PUT")
    add(router, "/users/{name}", "DELETE", "PUT")
    add(router, "/{rest:path}", "POST")
    assert found(router, "/users/me", "DELETE") == ("/users/{name}", {"name": "me"})
    assert found(router, "/users/me", "HEAD") == ("/users/me", {})
    assert found(router, "/users/7", "PUT") == ("/users/{id:int}", {"id": 7})
    assert found(router, "/users/7", "DELETE") == ("/users/{name}", {"name": "7"})
    assert found(router, "/users/7", "POST") == ("/{rest:path}", {"rest": "users/7"})
    assert found(router, "/users/me", "PATCH") is None
    assert router.allowed("/users/me") == {"GET", "HEAD", "DELETE", "PUT", "POST"}
    assert router.allowed("/users/7") == {"PUT", "DELETE", "POST"}
    assert router.methods == {"GET", "HEAD", "DELETE", "PUT", "POST"}


def test_methods_of_one_place_may_have_other_names() -> None:
    """`GET /{a}` and `POST /{b}` are two routes."""
    router = Router()
    add(router, "/{a}", "GET")
    add(router, "/{b}", "POST")
    assert found(router, "/1") == ("/{a}", {"a": "1"})
    assert found(router, "/1", "POST") == ("/{b}", {"b": "1"})


@pytest.mark.parametrize(
    ("methods", "value"),
    [
        (["GET", "HEAD"], "GET, HEAD, OPTIONS"),
        (["POST"], "OPTIONS, POST"),
        (["PUT", "HEAD", "GET", "DELETE"], "DELETE, GET, HEAD, OPTIONS, PUT"),
        (["OPTIONS"], "OPTIONS"),
        ([EXTENDED_CONNECT], "CONNECT, OPTIONS"),
    ],
)
def test_allow_has_what_would_be_answered(methods: list[str], value: str) -> None:
    """OPTIONS always (RFC 9110 section 10.2.1)."""
    assert allow(methods) == value


# Cost


def test_a_long_path_is_answered_at_once() -> None:
    """Ten thousand segments need no recursion deeper than the routes are."""
    assert routes("/{a}/{b}", "/a/a").find("/a" * 10_000, "GET") is None
    router = routes("/{p:path}/x", "/{p:path}/{y:int}/x", "/a/{p:path}")
    assert found(router, "/a" * 10_000) == ("/a/{p:path}", {"p": "a/" * 9_998 + "a"})
    assert found(router, "/b" * 10_000) is None


def test_the_cost_does_not_grow_with_fixed_routes() -> None:
    """The same lines run for a path whether there are two routes or two thousand."""

    def lines(router: Router, path: str) -> int:
        count = 0
        router.find(path, "GET")  # what is made once, by us or the library, is made

        def trace(frame: object, event: str, arg: object) -> Any:
            nonlocal count
            count += event == "line"
            return trace

        sys.settrace(trace)
        try:
            router.find(path, "GET")
        finally:
            sys.settrace(None)
        return count

    few, many = routes("/a/1", "/b/{x}"), routes(*(f"/a/{n}" for n in range(2000)), "/b/{x}")
    for path in ("/a/1", "/a/%31", "/b/7", "/nothing/here"):
        assert lines(few, path) == lines(many, path)


def test_no_place_is_come_to_twice() -> None:
    """Ways that fork at each segment cost what the tree of patterns is, not what the ways are."""
    tries = 0

    def counted(text: str) -> str:
        nonlocal tries
        tries += 1
        return text

    kinds = [Converter(f"k{n}", counted, OWN_RANK) for n in range(2)]
    depth = 8
    router = Router()

    def patterns(left: int) -> Iterator[str]:
        if not left:
            yield "/end"
            return
        for kind in kinds:
            yield from (f"/{{p{left}:{kind.name}}}{rest}" for rest in patterns(left - 1))

    for pattern in patterns(depth):
        add(router, pattern, converters=kinds)
    assert router.find("/x" * depth + "/other", "GET") is None
    assert tries == 2 ** (depth + 1) - 2


# Against a matcher that is too simple to be wrong

segments = st.sampled_from(["a", "b", "a b", "é", "7", ""])
patterns = st.lists(
    st.one_of(segments, st.sampled_from(["{}", "{:int}"])), min_size=1, max_size=4
).map(tuple)
paths = st.lists(
    st.sampled_from(
        ["a", "b", "", "%61", "a%20b", "a b", "%C3%A9", "a%2Fb", "c", "%", "{}", "7", "%37", "-1"]
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def spelled(pattern: Iterable[str]) -> str:
    """Write a pattern with its parameters named by their place."""
    return "/" + "/".join(
        p.replace("{", f"{{p{n}") if "{" in p else p for n, p in enumerate(pattern)
    )


def fits(part: str, segment: str) -> bool:
    """Say whether a part of a pattern fits a segment."""
    if part == "{:int}":
        return unquote(segment).removeprefix("-").isdigit()
    return part == unquote(segment) or (part == "{}" and bool(segment))


def expected(
    table: Iterable[tuple[str, ...]], path: tuple[str, ...]
) -> tuple[str, dict[str, Any]] | None:
    """Return the best of all patterns that fit: leftmost fixed segments win, then integers."""
    fitting = [
        pattern for pattern in table if len(pattern) == len(path) and all(map(fits, pattern, path))
    ]
    if not fitting:
        return None
    best = min(
        fitting,
        key=lambda pattern: [("{:int}", "{}").index(p) if "{" in p else -1 for p in pattern],
    )
    values = {
        f"p{n}": int(unquote(s)) if p == "{:int}" else unquote(s)
        for n, (p, s) in enumerate(zip(best, path, strict=True))
        if "{" in p
    }
    return spelled(best), values


@given(st.lists(patterns, unique=True, max_size=12), st.lists(paths, min_size=1, max_size=8))
def test_the_router_finds_what_a_naive_search_finds(
    table: list[tuple[str, ...]], asked: list[tuple[str, ...]]
) -> None:
    """Whatever the routes and the path: the same route, the same values."""
    router = routes(*(spelled(pattern) for pattern in table))
    for path in asked:
        assert found(router, "/" + "/".join(path)) == expected(table, path)
