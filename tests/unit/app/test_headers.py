"""Fields and parameters: by name, ordered, repeatable."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.headers import Headers, Query

FIELDS = (
    (b"accept", b"text/html"),
    (b"cookie", b"a=1"),
    (b"x-name", b"caf\xe9"),
    (b"accept", b"*/*;q=0.1"),
    (b"empty", b""),
)


def test_a_name_is_found_in_any_case() -> None:
    """Field names are case-insensitive (RFC 9110 section 5.1)."""
    headers = Headers(FIELDS)
    assert headers["accept"] == headers["Accept"] == headers["ACCEPT"] == "text/html"
    assert "COOKIE" in headers
    assert headers.get("Empty") == ""


def test_of_several_values_the_first_is_looked_up() -> None:
    """`getall` has all of them in order, `joined` makes them one list (RFC 9110 section 5.3)."""
    headers = Headers(FIELDS)
    assert headers["accept"] == "text/html"
    assert headers.getall("Accept") == ["text/html", "*/*;q=0.1"]
    assert headers.joined("ACCEPT") == "text/html, */*;q=0.1"
    assert headers.joined("cookie") == "a=1"


def test_what_is_not_there_is_not_there() -> None:
    """KeyError, None, an empty list: as each kind of question has it."""
    headers = Headers(FIELDS)
    with pytest.raises(KeyError, match="host"):
        headers["host"]
    assert headers.get("host") is None
    assert headers.get("host", "x") == "x"
    assert headers.getall("host") == []
    assert headers.joined("host") is None
    assert "host" not in headers
    assert "é€" not in headers


def test_values_are_latin_1() -> None:
    """A byte is a character, so that no value is lost (RFC 9110 section 5.5)."""
    assert Headers(FIELDS)["x-name"] == "café"


def test_headers_are_a_mapping_of_distinct_names() -> None:
    """Iteration gives each name once, in order; `raw` keeps the fields as they were."""
    headers = Headers(iter(FIELDS))
    assert list(headers) == ["accept", "cookie", "x-name", "empty"]
    assert len(headers) == 4
    assert dict(headers)["accept"] == "text/html"
    assert headers.raw == FIELDS
    assert headers == {"accept": "text/html", "cookie": "a=1", "x-name": "café", "empty": ""}
    assert repr(Headers([(b"a", b"b")])) == "Headers([(b'a', b'b')])"


def test_no_fields_are_an_empty_mapping() -> None:
    """Nothing is found in nothing."""
    assert len(Headers(())) == 0
    assert list(Headers(())) == []


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("a=1&b=2", (("a", "1"), ("b", "2"))),
        ("a=1&a=2", (("a", "1"), ("a", "2"))),
        ("a", (("a", ""),)),
        ("a=&=b", (("a", ""), ("", "b"))),
        ("a=b=c", (("a", "b=c"),)),
        ("a+b=c+d", (("a b", "c d"),)),
        ("a=%2B%26%3D", (("a", "+&="),)),
        ("q=caf%C3%A9", (("q", "café"),)),
        ("q=caf\xc3\xa9", (("q", "café"),)),
        ("q=%E9", (("q", "�"),)),
        ("q=\xe9", (("q", "�"),)),
        ("q=%zz", (("q", "%zz"),)),
        ("a;b=1", (("a;b", "1"),)),
        ("&&a=1&", (("a", "1"),)),
        ("a=%00%0D%0A", (("a", "\0\r\n"),)),
        ("a=?", (("a", "?"),)),
    ],
)
def test_a_query_is_its_pairs(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Percent coding is undone as UTF-8, a plus is a space, empty values stay."""
    assert Query(text).pairs == pairs


def test_a_query_is_looked_up_by_exact_name() -> None:
    """The first value; `getall` has all; another case is another name."""
    query = Query("tag=a&Tag=b&tag=c")
    assert query["tag"] == "a"
    assert query.getall("tag") == ["a", "c"]
    assert query["Tag"] == "b"
    assert query.get("TAG") is None
    assert query.getall("TAG") == []
    assert list(query) == ["tag", "Tag"]
    assert len(query) == 2
    with pytest.raises(KeyError, match="x"):
        query["x"]
    assert repr(Query("a=1")) == "Query([('a', '1')])"


@given(st.lists(st.tuples(st.text(), st.text())))
def test_any_form_comes_back(pairs: list[tuple[str, str]]) -> None:
    """What a browser encodes, in whatever script, is what a handler reads."""
    encodable = [
        (k.encode("utf-8", "replace").decode(), v.encode("utf-8", "replace").decode())
        for k, v in pairs
    ]
    assert Query(urlencode(encodable)).pairs == tuple(encodable)


@given(st.binary())
def test_no_query_is_an_error(raw: bytes) -> None:
    """Whatever bytes come, they are some pairs of text that UTF-8 can write."""
    for key, value in Query(raw.decode("latin-1")).pairs:
        f"{key}={value}".encode()
