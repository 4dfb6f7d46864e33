"""Responses: what they are made of, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from io import FileIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.events import Event, EventStream
from h2log.app.response import NO_TRAILERS, FileContent, Response, error_response
from h2log.errors import HTTPError

NAME_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


def test_bytes_have_no_type_of_their_own() -> None:
    """What h2log is not told, it does not guess."""
    made = Response(b"abc")
    assert (made.status, made.body, made.headers) == (200, b"abc", [])
    assert made.content_length() == 3


def test_text_is_utf_8() -> None:
    """A text is encoded, and says so; a type of one's own is kept."""
    made = Response("é€")
    assert made.body == "é€".encode()
    assert made.headers == [("content-type", "text/plain; charset=utf-8")]
    assert made.content_length() == 5
    assert Response("x", content_type="text/css").headers == [("content-type", "text/css")]


def test_the_short_ways() -> None:
    """Each has its type and its status."""
    assert Response.text("a").headers == [("content-type", "text/plain; charset=utf-8")]
    assert Response.html("<p>", 404).headers == [("content-type", "text/html; charset=utf-8")]
    assert Response.html("<p>", 404).status == 404
    made = Response.json({"a": [1, "é"]})
    assert made.body == '{"a":[1,"é"]}'.encode()
    assert made.headers == [("content-type", "application/json")]
    made = Response.redirect("/b")
    assert (made.status, made.body, made.headers) == (307, b"", [("location", "/b")])
    assert Response.redirect("/b", 308).status == 308
    more = [("X-A", "1")]
    for made in (
        Response.text("a", headers=more),
        Response.html("a", headers=more),
        Response.json(1, headers=more),
        Response.redirect("/", headers=more),
        Response.stream(pieces(), headers=more),
        Response.events(pieces(), headers=more),  # type: ignore[arg-type]  # not iterated here
    ):
        assert ("x-a", "1") in made.headers


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306, 309, 400])
def test_a_redirect_redirects(status: int) -> None:
    """A status that leads nowhere is a ValueError that lists those that do."""
    with pytest.raises(ValueError, match=f"301, 302, 303, 307, 308, not {status}"):
        Response.redirect("/", status)


def test_a_stream_has_a_type() -> None:
    """Bytes of no particular kind, unless it is said."""
    assert Response.stream(pieces()).headers == [("content-type", "application/octet-stream")]
    assert Response.stream(pieces(), "text/csv").headers == [("content-type", "text/csv")]


async def ticks() -> AsyncIterator[Event | str]:
    """Yield two events."""
    yield "a"
    yield Event("b", id="2")


async def test_events_are_a_stream() -> None:
    """Of their own type, kept by no cache and gathered by no proxy."""
    made = Response.events(ticks(), keep_alive=5)
    assert made.headers == [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ]
    assert isinstance(made.body, EventStream)
    assert made.body.keep_alive == 5
    assert [piece async for piece in made.body] == [b"data: a\n\n", b"id: 2\ndata: b\n\n"]
    made = Response.events(ticks(), headers={"Cache-Control": "no-cache"})
    assert [value for name, value in made.headers if name == "cache-control"] == ["no-cache"]


def test_what_is_no_json_is_a_type_error() -> None:
    """The handler hears of it, not the client."""
    with pytest.raises(TypeError):
        Response.json(object())


async def pieces() -> AsyncIterator[bytes]:
    """Yield nothing."""
    nothing: list[bytes] = []
    for piece in nothing:
        yield piece


def test_a_length_is_known_or_not() -> None:
    """Of bytes and files it is, of a stream it is not."""
    assert Response(pieces()).content_length() is None

    with FileIO(__file__) as file:
        assert Response(FileContent(file, 10, 7)).content_length() == 7


def test_headers_are_pairs_or_a_mapping() -> None:
    """Names become lower case, pairs keep their order and may repeat."""
    assert Response(headers={"X-A": "1", "ETag": '"v"'}).headers == [("x-a", "1"), ("etag", '"v"')]
    pairs = [("Set-Cookie", "a=1"), ("set-cookie", "b=2")]
    assert Response(headers=pairs).headers == [("set-cookie", "a=1"), ("set-cookie", "b=2")]


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 199, 600, 1000])
def test_a_status_is_a_final_one(status: int) -> None:
    """Informational and unknown ones are a ValueError that names them."""
    with pytest.raises(ValueError, match=f"from 200 to 599, got {status}"):
        Response(b"", status)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a:", ":status", "a\n", "a\r\nb", "é", "a\0", "a\t", "(a)", 'a"b', "a/b", "€"],
)
def test_a_name_is_a_token(name: str) -> None:
    """What is no token (RFC 9110 section 5.6.2) is refused by name."""
    with pytest.raises(ValueError, match="invalid header name"):
        Response(headers=[(name, "1")])


BAD_VALUES = [
    "a\r\nx-evil: 1",
    "a\nb",
    "a\rb",
    "\n",
    "\r\n",
    "a\0b",
    "\x1b[31m",
    "\x7f",
    " a",
    "a ",
    "\ta",
    "a\t",
    "€",
    "a\u2028b",
    "a\x0bb",
]


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_value_is_one_line(value: str) -> None:
    """Line breaks, control characters, outer blanks, text beyond latin-1: ValueError."""
    with pytest.raises(ValueError, match="invalid value of header x-a"):
        Response(headers={"X-A": value})


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_content_type_is_one_line(value: str) -> None:
    """The content type is a header as any other: it cannot smuggle a second one in."""
    with pytest.raises(ValueError, match="content-type"):
        Response(b"", content_type=value)


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_location_is_one_line(value: str) -> None:
    """So is the target of a redirect."""
    with pytest.raises(ValueError, match="invalid value of header location"):
        Response.redirect(value)


@pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", "caf\xe9", "\x80\xff", '"*"', "~!"])
def test_a_good_value_is_kept_as_it_is(value: str) -> None:
    """Blanks inside and bytes above ASCII are allowed (RFC 9110 section 5.5)."""
    assert Response(headers={"a": value}).headers == [("a", value)]


@given(st.text(), st.text())
def test_no_header_ever_breaks_its_line(name: str, value: str) -> None:
    """Whatever a handler gives: a ValueError, or one field that latin-1 can write on one line."""
    try:
        [(made_name, made_value)] = Response(headers=[(name, value)]).headers
    except ValueError:
        return
    assert made_name == name.lower()
    assert set(name) <= NAME_CHARACTERS
    line = f"{made_name}: {made_value}".encode("latin-1")
    assert not any(byte < 32 and byte != 9 for byte in line)
    assert 127 not in line


def test_an_error_is_told_as_text() -> None:
    """The status, its phrase, and what there is to say."""
    made = error_response(HTTPError(404), "r1")
    assert (made.status, made.body) == (404, b"404 Not Found\n")
    assert made.headers == [("content-type", "text/plain; charset=utf-8")]
    made = error_response(HTTPError(405, "only GET", (("Allow", "GET"),)), "r1")
    assert made.body == b"405 Method Not Allowed\nonly GET\n"
    assert ("allow", "GET") in made.headers


def test_an_error_of_the_server_names_the_request() -> None:
    """So that who reports it can say which line of the log it was."""
    made = error_response(HTTPError(500), "0193a0b1")
    assert isinstance(made.body, bytes)
    assert b"request id: 0193a0b1\n" in made.body
    assert b"0193a0b1" not in bytes(error_response(HTTPError(404), "0193a0b1").body)  # type: ignore[arg-type]  # of an error it is bytes


def test_a_response_says_which_it_is() -> None:
    """Its repr has the status."""
    assert repr(Response(b"", 206)) == "<Response 206>"


def test_buffers_are_bytes() -> None:
    """What is like bytes is copied, so that it does not change any more."""
    buffer = bytearray(b"abc")
    assert Response(buffer).body == b"abc"
    assert Response(memoryview(buffer)).body == b"abc"


def test_a_status_is_a_number() -> None:
    """Python's own names of them are, a text is not."""
    assert type(Response(b"", HTTPStatus.NOT_FOUND).status) is int
    wrong: Any = "200"
    with pytest.raises(TypeError, match="status is str, expected int"):
        Response(b"", wrong)


@pytest.mark.parametrize("body", [None, 1, ["a"], {"a": 1}, iter([b"a"]), (b"a",), object()])
def test_a_body_is_of_a_kind(body: Any) -> None:
    """Anything else is a TypeError that says what there is."""
    with pytest.raises(TypeError, match=f"not {type(body).__name__}; for JSON there is"):
        Response(body)


@pytest.mark.parametrize(
    "headers",
    [
        [("a", 1)],
        [("a", None)],
        [("a", b"1")],
        [(b"a", "1")],
        [(1, "a")],
        [("a",)],
        [("a", "b", "c")],
        ["ab", "c"],
        {"a": 1},
        7,
        None,
    ],
)
def test_headers_are_texts(headers: Any) -> None:
    """What is no pair of texts is a TypeError that shows it."""
    with pytest.raises(TypeError, match="texts"):
        Response(headers=headers)


# Trailers


def test_trailers_are_announced() -> None:
    """Pairs or a mapping: names become lower case, and a Trailer field lists them, once."""
    made = Response(b"a", trailers={"Server-Timing": "a;dur=1", "X-Sum": "7"})
    assert made.trailer_fields() == [("server-timing", "a;dur=1"), ("x-sum", "7")]
    assert made.headers == [("trailer", "server-timing, x-sum")]
    made = Response(b"a", 200, [("Trailer", "x-sum")], trailers=[("x-sum", "1"), ("x-sum", "2")])
    assert made.headers == [("trailer", "x-sum")]
    assert made.trailer_fields() == [("x-sum", "1"), ("x-sum", "2")]
    assert Response(b"a", trailers=[]).headers == []
    assert Response(b"a").trailer_fields() == []


def test_trailers_can_be_asked_for_later() -> None:
    """A function is called when they are sent, each time."""
    count = []

    def trailers() -> list[tuple[str, str]]:
        count.append(1)
        return [("X-Count", str(len(count)))]

    made = Response(b"a", trailers=trailers)
    assert (made.headers, count) == ([], [])
    assert made.trailer_fields() == [("x-count", "1")]
    assert made.trailer_fields() == [("x-count", "2")]
    nothing: Any = lambda: None  # noqa: E731
    assert Response(b"a", trailers=nothing).trailer_fields() == []


@pytest.mark.parametrize("name", sorted(NO_TRAILERS))
def test_some_fields_are_no_trailers(name: str) -> None:
    """What frames, routes, controls, authenticates or describes comes first (RFC 9110, 6.5.1)."""
    with pytest.raises(ValueError, match=f"{name} must be a header, not a trailer"):
        Response(b"a", trailers=[(name.title(), "1")])
    with pytest.raises(ValueError, match="must be a header"):
        Response(b"a", trailers=lambda: {name: "1"}).trailer_fields()


@pytest.mark.parametrize(("name", "value"), [("a b", "1"), (":status", "200"), ("a", "1\r\nb: 2")])
def test_a_trailer_is_one_line(name: str, value: str) -> None:
    """As every field."""
    with pytest.raises(ValueError, match="invalid"):
        Response(b"a", trailers=[(name, value)])


# Background work


def test_work_is_added_in_order() -> None:
    """One function, several, and what `after` adds, with its arguments."""
    done: list[str] = []

    def one() -> None:
        done.append("one")

    async def two() -> None:
        done.append("two")

    assert Response(b"").background is None
    assert Response(b"", background=one).background == [one]
    made = Response(b"", background=[one, two])
    assert made.after(done.append, "three") is made
    made.after(one)
    assert made.background is not None
    assert made.background[:2] == [one, two]
    assert isinstance(made.background[2], partial)
    made.background[2]()
    assert done == ["three"]


@pytest.mark.parametrize("work", [None, 1, "a", [None], object()])
def test_work_is_a_function(work: Any) -> None:
    """Anything else is a TypeError at once, and not when the response has gone."""
    with pytest.raises(TypeError, match="background work is a function to call, not"):
        Response(b"", background=work)


def test_work_that_was_called_is_told() -> None:
    """Parentheses too many are an error with the remedy, and no warning of a lost coroutine."""

    async def work() -> None:
        raise AssertionError("never runs")

    called: Any = work()
    with pytest.raises(TypeError, match="not coroutine; leave out its parentheses"):
        Response(b"", background=called)
    with pytest.raises(TypeError, match="leave out its parentheses"):
        Response(b"").after(work())  # type: ignore[arg-type]  # that is the point


# Cookies: see also test_cookies


def test_a_cookie_is_set_once() -> None:
    """Of one name, domain and path the last counts; others stay, and so do other fields."""
    made = Response.text("")
    made.set_cookie("a", "1")
    made.set_cookie("b", "1", max_age=5)
    made.set_cookie("a", "2", path="/x")
    made.set_cookie("a", "3")
    assert made.headers == [
        ("content-type", "text/plain; charset=utf-8"),
        ("set-cookie", "b=1; Max-Age=5; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ("set-cookie", "a=2; Path=/x; Secure; HttpOnly; SameSite=Lax"),
        ("set-cookie", "a=3; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ]
    made.delete_cookie("b")
    assert made.headers[-1] == (
        "set-cookie",
        "b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; Secure; HttpOnly; "
        "SameSite=Lax",
    )
    assert len(made.headers) == 4
    with pytest.raises(ValueError, match="by its prefix"):
        made.delete_cookie("__Host-a", path="/x")
    with pytest.raises(ValueError, match="invalid cookie name"):
        made.set_cookie("a b", "1")


def test_a_copy_is_another_response() -> None:
    """What changes the one leaves the other as it was; the bytes of a sent one are not shared."""
    one = Response.text("a", headers={"x-a": "1"}).after(print)
    one.trailers = [("x-b", "2")]
    one.wire = object()
    two = one.copy()
    assert (two.status, two.body, two.headers, two.trailers, two.background, two.wire) == (
        one.status,
        one.body,
        one.headers,
        one.trailers,
        one.background,
        None,
    )
    two.set_cookie("a", "1")
    two.after(print)
    two.status = 404
    assert (len(one.headers), len(two.headers)) == (2, 3)
    assert (one.background, one.status) == ([print], 200)
