"""Routes: which one answers, with which values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.request import Request
from h2log.app.response import Response
from h2log.app.router import Router

Handler = Callable[[Request], Response]


def answers(text: str) -> Handler:
    """Return a handler that answers with `text`."""
    return lambda request: Response.text(text)


def routes(*paths: str) -> Router:
    """Return a router with GET on each path."""
    router = Router()
    for path in paths:
        router.add(path, ["GET"], answers(path))
    return router


def found(router: Router, path: str) -> tuple[str, dict[str, str]] | None:
    """Return the pattern that a path leads to, and its values."""
    result = router.find(path)
    return None if result is None else (result[0].path, result[1])


@pytest.mark.parametrize(
    ("path", "pattern", "values"),
    [
        ("/", "/", {}),
        ("/a", "/a", {}),
        ("/a/", "/a/", {}),
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
        ("/users/{id}", "/users/{id}", {"id": "{id}"}),
        ("/users/me/posts", "/users/{id}/posts", {"id": "me"}),
        ("/users/me/likes", "/users/me/likes", {}),
        ("/x/1/y/2", "/x/{a}/y/{b}", {"a": "1", "b": "2"}),
        ("/caf%C3%A9", "/café", {}),
    ],
)
def test_a_path_finds_its_route(path: str, pattern: str, values: dict[str, str]) -> None:
    """Fixed before parameter, decoded once, back when the preferred way leads nowhere."""
    router = routes(
        *("/", "/a", "/a/", "/users/{id}", "/users/me", "/users/{id}/posts", "/users/me/likes"),
        *("/x/{a}/y/{b}", "/café"),
    )
    assert found(router, path) == (pattern, values)


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
    assert found(routes("/a", "/a/", "/users/{id}", "/users/{id}/posts", "/x/{a}/y/{b}"), path) is (
        None
    )


def test_a_router_without_routes_finds_none() -> None:
    """Not even the root."""
    assert Router().find("/") is None


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


def test_methods_of_a_path_have_their_handlers() -> None:
    """One path, several functions; HEAD is GET's unless it has its own."""
    router = Router()
    get, post, head = answers("get"), answers("post"), answers("head")
    router.add("/a", ["GET"], get)
    router.add("/a", ["POST", "PUT"], post)
    result = router.find("/a")
    assert result is not None
    route = result[0]
    assert route.handler("GET") is get
    assert route.handler("HEAD") is get
    assert route.handler("POST") is route.handler("PUT") is post
    assert route.handler("DELETE") is None
    assert route.handler("get") is None
    router.add("/a", ["HEAD"], head)
    assert route.handler("HEAD") is head


@pytest.mark.parametrize(
    ("methods", "allow"),
    [
        (["GET"], "GET, HEAD, OPTIONS"),
        (["POST"], "OPTIONS, POST"),
        (["PUT", "GET", "DELETE"], "DELETE, GET, HEAD, OPTIONS, PUT"),
        (["OPTIONS"], "OPTIONS"),
    ],
)
def test_allow_has_what_would_be_answered(methods: list[str], allow: str) -> None:
    """HEAD with GET, OPTIONS always (RFC 9110 section 10.2.1)."""
    router = Router()
    router.add("/a", methods, answers("x"))
    result = router.find("/a")
    assert result is not None
    assert result[0].allow() == allow


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "{a}",
        "*",
        "/{",
        "/}",
        "/{}",
        "/{1a}",
        "/{a-b}",
        "/a{b}",
        "/{a}b",
        "/{a}{b}",
        "/{a:int}",
        "/{ a}",
        "/{é}",
        "/{a}/{a}",
        "/{a\n}",
        "/x/{a}/y/{b}/z/{a}",
    ],
)
def test_a_bad_pattern_is_a_value_error(path: str) -> None:
    """The message has the pattern, and nothing is registered."""
    router = Router()
    with pytest.raises(ValueError, match="route ") as caught:
        router.add(path, ["GET"], answers("x"))
    assert repr(path) in str(caught.value)
    assert router.find("/1") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/", "/"), ("/{a}", "/{a}"), ("/{a}/b", "/{a}/b")],
)
def test_a_route_twice_is_a_value_error(first: str, second: str) -> None:
    """The same method on the same pattern is a mistake."""
    router = routes(first)
    with pytest.raises(ValueError, match="is there already"):
        router.add(second, ["GET"], answers("second"))


@pytest.mark.parametrize("methods", [["GET"], ["POST"]])
def test_one_place_has_one_set_of_names(methods: list[str]) -> None:
    """`/{a}` and `/{b}` are the same paths: two names for a value are a mistake."""
    router = routes("/{a}")
    with pytest.raises(ValueError, match=r"/\{a\}"):
        router.add("/{b}", methods, answers("second"))


def test_longer_paths_may_have_other_names() -> None:
    """`/{a}` and `/{b}/x` are different paths."""
    router = routes("/{a}", "/{b}/x")
    assert found(router, "/1") == ("/{a}", {"a": "1"})
    assert found(router, "/1/x") == ("/{b}/x", {"b": "1"})


def test_a_refused_route_leaves_no_part_of_itself() -> None:
    """A ValueError for one of several methods registers none of them."""
    router = routes("/a")
    with pytest.raises(ValueError, match="is there already"):
        router.add("/a", ["POST", "GET"], answers("second"))
    result = router.find("/a")
    assert result is not None
    assert result[0].allow() == "GET, HEAD, OPTIONS"


def test_a_long_path_is_answered_at_once() -> None:
    """Ten thousand segments need no recursion deeper than the routes are."""
    router = routes("/{a}/{b}", "/a/a")
    assert router.find("/a" * 10_000) is None


# Against a matcher that is too simple to be wrong

segments = st.sampled_from(["a", "b", "a b", "é", ""])
patterns = st.lists(st.one_of(segments, st.just("{}")), min_size=1, max_size=4).map(tuple)
paths = st.lists(
    st.sampled_from(["a", "b", "", "%61", "a%20b", "a b", "%C3%A9", "a%2Fb", "c", "%", "{}"]),
    min_size=1,
    max_size=4,
).map(tuple)


def spelled(pattern: Iterable[str]) -> str:
    """Write a pattern with its parameters named by their place."""
    return "/" + "/".join(f"{{p{n}}}" if p == "{}" else p for n, p in enumerate(pattern))


def expected(
    table: Iterable[tuple[str, ...]], path: tuple[str, ...]
) -> tuple[str, dict[str, str]] | None:
    """Return the best of all patterns that fit: leftmost fixed segments win."""
    fitting = [
        pattern
        for pattern in table
        if len(pattern) == len(path)
        and all(p == unquote(s) or (p == "{}" and s) for p, s in zip(pattern, path, strict=True))
    ]
    if not fitting:
        return None
    best = min(fitting, key=lambda pattern: [part == "{}" for part in pattern])
    values = {
        f"p{n}": unquote(s) for n, (p, s) in enumerate(zip(best, path, strict=True)) if p == "{}"
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
