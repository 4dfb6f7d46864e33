"""The short way around h11 and h11 itself tell the same of every request, good or bad."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from h2log.app.application import App
from h2log.app.asgi import AsgiApp
from h2log.config import build
from h2log.server import http1_reader
from h2log.server.http1_reader import RequestReader
from tests.server.http1_conversation import Told, answering, asgi_answering, converse

Made = Callable[[], App | AsgiApp]

LIMITS = {"max_header_bytes": 1024, "max_header_fields": 12, "max_body_bytes": 64}

# Request lines, with everything that only h11 may judge.
LINES = (
    *(b"GET /now HTTP/1.1", b"GET /later?x=1 HTTP/1.1", b"GET /pieces HTTP/1.1"),
    *(b"HEAD /now HTTP/1.1", b"HEAD /pieces HTTP/1.1", b"GET /none HTTP/1.1"),
    *(b"POST /echo HTTP/1.1", b"GET / HTTP/1.1"),
    *(b"PUT //now/../%2e HTTP/1.1", b"M-SEARCH /now HTTP/1.1", b"get /now HTTP/1.1"),
    *(b"GET /now HTTP/1.0", b"GET /now HTTP/2.0", b"GET /now HTTP/1.2", b"GET /now HTTP/1.10"),
    *(b"GET /now http/1.1", b"GET /now", b"GET  /now HTTP/1.1", b"GET /now  HTTP/1.1"),
    *(b"GET /now HTTP/1.1 ", b" GET /now HTTP/1.1", b"GET\t/now HTTP/1.1", b"GET /n\tw HTTP/1.1"),
    *(b"GET /n\x00w HTTP/1.1", b"GET /n\xffw HTTP/1.1", b"GET /n\x7fw HTTP/1.1"),
    *(b"GET /#x HTTP/1.1", b"GET /% HTTP/1.1"),
    *(b"GET now HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET http://a/now HTTP/1.1"),
    *(b"CONNECT a:1 HTTP/1.1", b"CONNECT /now HTTP/1.1", b"CONNECTED /now HTTP/1.1"),
    *(b"G(T /now HTTP/1.1", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"GET /now HTTP/1.1\rX: y"),
    *(b"GET /now HTTP/1.1\n", b"GET /" + b"x" * 900 + b" HTTP/1.1", b"GET /" + b"x" * 2000),
)  # fmt: skip
FIELDS = (
    *(b"Host: a", b"hOST: a", b"Host: b", b"Host:", b"Host: a b", b"Host: a@b", b"Host: a\t"),
    *(b"X: y", b"X:y", b"X:  y \t", b"X:", b"X : y", b" X: y", b"\tfolded", b": y", b"X\xff: y"),
    *(b"X: \xff\xfe", b"X: a\x00b", b"X: a\x01b", b"X: a\rb", b"X: a\rY: b", b"X"),
    *(b"Cookie: a=b; c=d", b"Cookie: e=f"),
    *(b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: close", b"Connection:"),
    *(b"Connection: keep-alive, close", b"Connection: x", b"Keep-Alive: timeout=5"),
    *(b"Content-Length: 0", b"Content-Length: 3", b"Content-Length: 3, 3", b"Content-Length: 99"),
    *(b"Content-Length: +3", b"Content-Length: 3 ", b"Content-Length: 4", b"Content-Length: 0x3"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding: Chunked"),
    *(b"Expect: 100-continue", b"Expect: x", b"Upgrade: websocket", b"Upgrade: h2c"),
    *(b"TE: trailers", b"X: " + b"y" * 999),
    *(b"Connection: upgrade", b"Trailer: x", b"Range: bytes=0-1", b"If-None-Match: *"),
)  # fmt: skip
CONTENT = (
    *(b"", b"abc", b"a", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"),
    *(b"3;x=y\r\nabc\r\n0\r\n\r\n", b"zz\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"\r\n", b"\n"),
)  # fmt: skip
USUAL = b"\r\nHost: a\r\nAccept: */*\r\n\r\n"


def head(line: bytes, fields: list[bytes], end: bytes = b"\r\n") -> bytes:
    """Return a head, as wrong as its parts."""
    return end.join([line, *fields]) + end + end


async def same(made: Made, pieces: list[bytes]) -> Told:
    """Return what a conversation comes to; it must be the same without memory and with it."""
    long = await converse(made(), pieces, short=False, **LIMITS)
    for _ in range(2):  # the second finds what the first has left
        assert await converse(made(), pieces, short=True, **LIMITS) == long
    return long


@pytest.mark.parametrize("made", [answering, asgi_answering])
@pytest.mark.parametrize("line", LINES)
async def test_every_request_line(made: Made, line: bytes) -> None:
    """With fields that are known by heart; alone, and between two good requests."""
    good = b"GET /now HTTP/1.1" + USUAL
    await same(made, [line + USUAL])
    await same(made, [good, line + USUAL, good])
    await same(made, [good + line + USUAL + good])


@pytest.mark.parametrize("made", [answering, asgi_answering])
@pytest.mark.parametrize("field", FIELDS)
async def test_every_field(made: Made, field: bytes) -> None:
    """Behind the usual ones, in front of them, alone; with LF for CRLF, and content behind."""
    good = b"GET /now HTTP/1.1" + USUAL
    for fields in ([b"Host: a", field], [field, b"Host: a"], [field]):
        for line in (b"GET /now HTTP/1.1", b"POST /echo HTTP/1.1"):
            await same(made, [head(line, fields) * 3 + good])
            await same(made, [head(line, fields) + b"abc" + good] * 2)
            await same(made, [head(line, fields, b"\n") + good])


CUT = (
    b"GET /now HTTP/1.1" + USUAL,
    b"\r\n\r\nGET /pieces HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
    b"GET /now HTTP/1.1\nHost: a\n\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\n\nGET /later HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\n\r\nGET /later HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
    b"GET /no w HTTP/1.1\r\nHost: a\r\n\r\n",
)


@pytest.mark.parametrize("text", CUT)
async def test_cut_at_every_byte(text: bytes) -> None:
    """What comes in two pieces is what comes in one."""
    whole = await same(answering, [text * 2])
    for at in range(1, len(text)):
        cut = await same(answering, [text[:at], text[at:] + text[:at], text[at:]])
        assert cut.text == whole.text
        assert cut.lines == whole.lines


@pytest.mark.parametrize("line", [b"GET /now HTTP/1.0", b"GET /now HTTP/1.0\r\nno field"])
async def test_each_line_has_its_own_version(line: bytes) -> None:
    """A request of HTTP/1.0, be it a bad one, changes nothing of those before it."""
    told = await same(answering, [b"GET /now HTTP/1.1" + USUAL + line + USUAL])
    assert [line[0] for line in told.lines] == ["1.1", "1.0"]


@pytest.mark.parametrize("cut", [100, 1500, 5000])
async def test_a_target_that_is_too_long_is_431(cut: int) -> None:
    """It counts against the bound of a header, and no matter in how many pieces it comes."""
    text = b"GET /" + b"x" * 3000 + b" HTTP/1.1" + USUAL
    told = await same(answering, [text[:cut], text[cut:]])
    assert told.text.startswith(b"HTTP/1.1 431 ")
    assert len(told.lines) == 1


REQUESTS = st.builds(
    lambda line, fields, end, content: head(line, fields, end) + content,
    st.one_of(st.sampled_from(LINES[:10]), st.sampled_from(LINES)),
    st.one_of(
        st.just([b"Host: a"]),
        st.lists(st.sampled_from(FIELDS), max_size=5).map(lambda some: [b"Host: a", *some]),
        st.lists(st.sampled_from(FIELDS), max_size=14),
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n\n"]),
    st.sampled_from(CONTENT),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    made=st.sampled_from([answering, asgi_answering]),
)
def test_any_conversation(requests: list[bytes], cuts: list[int], made: Made) -> None:
    """Of any requests, pipelined and cut anywhere."""
    text = b"".join(requests)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges) if a < b]
    asyncio.run(same(made, pieces))


# What goes which way


def reader(**limits: float) -> RequestReader:
    """Return a reader."""
    return RequestReader(build({"limits": limits}, "the test's limits").limits, "http")


def went_short(data: bytes, **limits: float) -> bool:
    """Say whether the first head of `data` did not go through h11."""
    one = reader(**limits)
    one.receive(data)
    found = one.head()
    assert found is not None
    return found.sound


def test_what_is_plain_goes_the_short_way() -> None:
    """Whatever its path, its method and its fields are, and with content of a known length."""
    fields = b"\r\nHost: a.example\r\nX-Kind:short\r\nX-Latin:  \xe9\t\r\nX-None:\r\n\r\n"
    for line in (b"GET /one", b"GET /two?x=y", b"POST /", b"PROPFIND /#"):
        assert went_short(line + b" HTTP/1.1" + fields)
    one = reader()
    one.receive(b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET")
    found = one.head()
    assert found is not None and found.sound and found.facts.length == 3
    assert [one.content(), one.content()] == [b"abc", b""]
    assert one.ahead == 3


def test_what_was_used_is_not_kept() -> None:
    """An idle connection has nothing of its last request's content."""
    one = reader()
    one.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert one.head() is not None
    assert [one.content(), one.content()] == [b"abc", b""]
    assert (one.ahead, one._data, one.first_line) == (0, b"", b"")


@pytest.mark.parametrize(
    "field",
    [
        *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: websocket"),
        *(b"Connection: close", b"Connection: upgrade", b"Connection: keep-alive, x"),
        *(b"X-Folded: a\r\n b", b"X-Lone: a\n b", b"Content-Length: 1\r\nContent-Length: 1"),
    ],
)
def test_what_is_not_plain_goes_through_h11(field: bytes) -> None:
    """What changes how a request is read."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"
    assert not went_short(data)


def test_limits_are_each_servers_own() -> None:
    """What one server has remembered is too much for another."""
    fields = b"\r\nHost: a\r\nX-Limit: y\r\nContent-Length: 40\r\n\r\n"
    assert went_short(b"GET / HTTP/1.1" + fields)
    assert not went_short(b"GET / HTTP/1.1" + fields, max_body_bytes=39)
    assert not went_short(b"GET / HTTP/1.1" + fields, max_header_fields=2)
    path = b"/" + b"x" * 1024
    assert not went_short(b"GET %b HTTP/1.1%b" % (path, fields), max_header_bytes=1024)


def test_what_is_remembered_is_bounded() -> None:
    """Thousands of different field lines and sections leave no more than the latest of them."""
    one = reader()
    for number in range(10_000):
        for _ in range(2):
            one.receive(b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Number: %d\r\n\r\n" % (_, number))
            assert one.head() is not None
            assert one.content() == b""
    assert 0 < len(one._sections) <= 512
    assert 0 < len(http1_reader._lines) <= 4096
    one.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\n\r\n" % (b"y" * 5000))
    assert one.head() is not None
    assert max(map(len, http1_reader._lines)) <= 512
