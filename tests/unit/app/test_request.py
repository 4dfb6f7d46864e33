"""A request as a handler meets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.request import Request
from h2log.errors import HTTPError


class Pieces:
    """Content that comes in pieces; an exception among them is raised, each time again."""

    def __init__(self, *pieces: bytes | Exception, gate: asyncio.Event | None = None) -> None:
        self._pieces = list(pieces)
        self._gate = gate

    async def read(self) -> bytes:
        if self._gate is not None:
            await self._gate.wait()
        if not self._pieces:
            return b""
        piece = self._pieces[0]
        if isinstance(piece, Exception):
            raise piece
        del self._pieces[0]
        return piece


def request(
    target: str = "/",
    content: Pieces | None = None,
    fields: Iterable[tuple[bytes, bytes]] = (),
) -> Request:
    """Return a GET for `target`, with further fields."""
    return Request(
        method="GET",
        target=target,
        scheme="https",
        authority="localhost",
        fields=((b"host", b"localhost"), (b"x-a", b"1"), *fields),
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=content,
    )


@pytest.mark.parametrize(
    ("target", "raw_path", "path"),
    [
        ("/a?b=c", "/a", "/a"),
        ("/a?b?c", "/a", "/a"),
        ("/?", "/", "/"),
        ("/a%20b", "/a%20b", "/a b"),
        ("/a%2Fb", "/a%2Fb", "/a/b"),
        ("/caf%C3%A9", "/caf%C3%A9", "/café"),
        ("/caf\xc3\xa9", "/caf\xc3\xa9", "/café"),
        ("/%E9", "/%E9", "/�"),
        ("/%zz%", "/%zz%", "/%zz%"),
        ("/a%3Fb?c", "/a%3Fb", "/a?b"),
        ("/a#b", "/a#b", "/a#b"),
        ("*", "*", "*"),
    ],
)
def test_a_target_is_a_path_and_a_query(target: str, raw_path: str, path: str) -> None:
    """The first question mark parts them; the path is decoded once, as UTF-8."""
    made = request(target)
    assert (made.target, made.raw_path, made.path) == (target, raw_path, path)


def test_fields_and_parameters_are_parsed_once() -> None:
    """Headers and query are made when they are asked for, and kept."""
    made = request("/a?b=c%26d")
    assert made.headers["Host"] == "localhost"
    assert made.headers is made.headers
    assert made.query["b"] == "c&d"
    assert made.query is made.query
    assert made.params == {}


def test_a_request_says_which_it_is() -> None:
    """Its ids are the log's, its repr names what was asked."""
    made = request("/a?b")
    assert (made.id, made.session_id, made.client) == ("r", "s", ("192.0.2.1", 40000))
    assert repr(made) == "<Request GET '/a?b' r>"


async def test_no_content_is_empty() -> None:
    """A request without content has an empty body and an empty stream."""
    assert await request().body() == b""
    assert [piece async for piece in request().stream()] == []


async def test_a_body_is_whole_and_stays() -> None:
    """The pieces are joined; asked again, they are the same bytes."""
    made = request(content=Pieces(b"a", b"bc", b"d"))
    assert await made.body() == b"abcd"
    assert await made.body() == b"abcd"


async def test_a_stream_gives_pieces_as_they_come() -> None:
    """Each piece is one of the content's, none is empty."""
    made = request(content=Pieces(b"a", b"bc", b"d"))
    assert [piece async for piece in made.stream()] == [b"a", b"bc", b"d"]


async def test_a_content_that_fails_fails_the_body() -> None:
    """413 and 408 come through to the handler."""
    made = request(content=Pieces(b"a", HTTPError(413)))
    with pytest.raises(HTTPError) as caught:
        await made.body()
    assert caught.value.status == 413


async def test_a_body_that_failed_does_not_become_an_empty_one() -> None:
    """Asked again after a 413, it is still too large, and not suddenly nothing."""
    made = request(content=Pieces(b"a", HTTPError(413)))
    with pytest.raises(HTTPError):
        await made.body()
    with pytest.raises(HTTPError):
        await made.body()


async def test_a_body_that_was_given_up_can_be_asked_for_again() -> None:
    """A handler that stops waiting for a body, and asks again, does not get an empty one."""
    gate = asyncio.Event()
    made = request(content=Pieces(b"ab", b"c", gate=gate))
    waiting = asyncio.create_task(made.body())
    await asyncio.sleep(0)  # a turn of the loop: it waits now
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await made.body() == b"abc"


async def test_two_that_want_the_body_get_the_same() -> None:
    """Tasks of one handler that ask at the same time both get the whole body."""
    gate = asyncio.Event()
    made = request(content=Pieces(b"ab", b"c", gate=gate))
    both = [asyncio.create_task(made.body()) for _ in range(2)]
    await asyncio.sleep(0)  # a turn of the loop: both have asked
    gate.set()
    assert await asyncio.gather(*both) == [b"abc", b"abc"]


async def test_a_request_is_iterated() -> None:
    """`async for piece in request` is its stream."""
    made = request(content=Pieces(b"a", b"bc"))
    assert [piece async for piece in made] == [b"a", b"bc"]
    with pytest.raises(RuntimeError, match="in pieces"):
        await made.body()


def test_what_others_write_on_it() -> None:
    """Nothing at first; `state` is each request's own."""
    one, two = request(), request()
    assert (one.mounted, one.failure, one.user, one.user_session) == ("", None, None, None)
    one.state["a"] = 1
    assert (one.state, two.state) == ({"a": 1}, {})


def test_cookies_of_every_field() -> None:
    """HTTP/2 spreads them over fields; they are parsed once."""
    made = request(fields=[(b"cookie", b"a=1; b=%C3%A9"), (b"cookie", b"c=\xc3\xbc; a=2")])
    assert made.cookies == {"a": "1", "b": "é", "c": "ü"}
    assert made.cookies is made.cookies
    assert request().cookies == {}


def test_the_last_event_id_is_utf_8() -> None:
    """As the client was given it, or nothing."""
    assert request(fields=[(b"last-event-id", "é7".encode())]).last_event_id == "é7"
    assert request().last_event_id == ""


# JSON


class Address(msgspec.Struct):
    city: str
    code: int = 0


class User(msgspec.Struct):
    name: str
    age: int
    addresses: list[Address] = []


@dataclass
class Point:
    x: int
    y: float


def posted(content: bytes, content_type: bytes | None = b"application/json") -> Request:
    """Return a request with that content."""
    fields = [] if content_type is None else [(b"content-type", content_type)]
    return request(content=Pieces(*([content] if content else [])), fields=fields)


async def test_json_is_what_was_sent() -> None:
    """Without a type, as Python has it; the same again when it is asked for again."""
    made = posted(b'{"a": [1, 2.5, null, "\xc3\xa9", true]}')
    assert await made.json() == {"a": [1, 2.5, None, "é", True]}
    assert await made.json() == {"a": [1, 2.5, None, "é", True]}


async def test_json_is_a_type() -> None:
    """A class of msgspec, a dataclass, a built-in with its parts, a union."""
    content = b'{"name": "A", "age": 3, "addresses": [{"city": "B"}]}'
    user = await posted(content).json(User)
    assert_type(user, User)
    assert user == User("A", 3, [Address("B")])
    assert await posted(b'{"x": 1, "y": 2}').json(Point) == Point(1, 2.0)
    assert await posted(b'{"a": 1}').json(dict[str, int]) == {"a": 1}
    either: Any = int | str
    assert await posted(b'"a"').json(either) == "a"


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        (b'{"name": "A", "age": "3"}', User, "$.age: expected int, got str"),
        (b'{"name": "A"}', User, "$: object missing required field age"),
        (
            b'{"name": "A", "age": 3, "addresses": [{"city": "B"}, {"city": 4}]}',
            User,
            "$.addresses[1].city: expected str, got int",
        ),
        (b"[1]", User, "$: expected object, got array"),
        (b'{"a": "x"}', dict[str, int], "$[...]: expected int, got str"),
        (b'{"a": 1}', dict[int, int], "$ (a key): expected int, got str"),
        (b"[1, null]", list[int], "$[1]: expected int, got null"),
        (b"1.5", int, "$: expected int, got float"),
    ],
)
async def test_another_type_is_422(content: bytes, kind: Any, detail: str) -> None:
    """The detail names the place, and what is there instead of what."""
    with pytest.raises(HTTPError) as caught:
        await posted(content).json(kind)
    assert (caught.value.status, caught.value.detail) == (422, detail)


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "expected JSON, got no content"),
        (b"{", "malformed JSON: Input data was truncated"),
        (b"{'a': 1}", "malformed JSON: JSON is malformed"),
        (b'{"a": 1} x', "malformed JSON: JSON is malformed"),
        (b'"\xff"', "malformed JSON: 'utf-8' codec"),
        (b"[" * 100_000, "malformed JSON: too deeply nested"),
        (b"a=1", "malformed JSON"),
        (b"NaN", "malformed JSON"),
    ],
)
async def test_no_json_is_400(content: bytes, detail: str) -> None:
    """With what is wrong, and never a traceback."""
    with pytest.raises(HTTPError) as caught:
        await posted(content).json()
    assert caught.value.status == 400
    assert caught.value.detail.startswith(detail)


@given(st.binary(max_size=30), st.sampled_from([Any, User, list[int], str]))
async def test_whatever_is_sent_is_json_or_an_error(content: bytes, kind: Any) -> None:
    """200, 400 or 422."""
    status = 200
    try:
        await posted(content).json(kind)
    except HTTPError as error:
        status = error.status
    assert status in (200, 400, 422)


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        (b"application/json", True),
        (b"Application/JSON", True),
        (b"application/json; charset=utf-8", True),
        (b'application/json;charset="UTF-8"', True),
        (b"application/json; version=1", True),
        (b"application/problem+json", True),
        (b"application/vnd.api+json; charset=utf-8", True),
        (None, False),
        (b"", False),
        (b"text/plain", False),
        (b"text/json", False),
        (b"application/x-www-form-urlencoded", False),
        (b"multipart/form-data; boundary=X", False),
        (b"application/json; charset=latin-1", False),
        (b"application/json, application/json", False),
        (b"application/jsonp", False),
        (b"application/xml+jsonx", False),
        (b"json", False),
    ],
)
async def test_only_json_is_taken_for_json(content_type: bytes | None, taken: bool) -> None:
    """Its own type, or one that ends in +json, in UTF-8; anything else is 415 with what is taken.

    Also no type at all: a page of another site could send that without asking.
    """
    made = posted(b"{}", content_type)
    if taken:
        assert await made.json() == {}
        return
    with pytest.raises(HTTPError) as caught:
        await made.json()
    assert (caught.value.status, caught.value.headers) == (415, (("accept", "application/json"),))
    assert "expected application/json in UTF-8, got " in caught.value.detail


async def test_a_type_that_is_none_is_the_applications_mistake() -> None:
    """A TypeError, not the client's 4xx: two of its parts are the same in JSON."""
    with pytest.raises(TypeError, match="more than one array-like"):
        await posted(b"{}").json(list[int] | set[str])


# Forms: see also test_forms


FORM = b"application/x-www-form-urlencoded"


async def test_a_form_is_parsed_once() -> None:
    """The same one each time; the content is used up then."""
    made = posted(b"a=1&b=2", FORM)
    form = await made.form()
    assert (form.text("a"), form.text("b")) == ("1", "2")
    assert await made.form() is form
    with pytest.raises(RuntimeError, match="in pieces"):
        await made.body()


async def test_a_body_can_be_a_form_afterwards() -> None:
    """What was read whole is still there."""
    made = posted(b"a=1", FORM)
    assert await made.body() == b"a=1"
    assert (await made.form()).text("a") == "1"
    assert await made.body() == b"a=1"


async def test_a_form_has_the_limits_that_are_given() -> None:
    """Each is an argument."""
    with pytest.raises(HTTPError, match="more than 1 fields"):
        await posted(b"a=1&b=2", FORM).form(max_fields=1)
    with pytest.raises(HTTPError, match="larger than 2 bytes"):
        await posted(b"a=12", FORM).form(max_field_bytes=2)


async def test_a_request_that_has_ended_has_closed_its_files() -> None:
    """`release` closes what the form has opened; without a form it does nothing."""
    request().release()
    content = b'--X\r\ncontent-disposition: form-data; name="a"; filename="b"\r\n\r\n1\r\n--X--\r\n'
    made = posted(content, b"multipart/form-data; boundary=X")
    [upload] = (await made.form()).files
    assert await upload.read() == b"1"
    made.release()
    with pytest.raises(ValueError, match="closed"):
        await upload.read()
    made.release()
