"""Responses: what they are made of, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import FileIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.response import FileContent, Response, error_response
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
