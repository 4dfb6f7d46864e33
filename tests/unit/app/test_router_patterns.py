"""Patterns and converters: what they take, and the one spelling of paths."""

from __future__ import annotations

import math
from datetime import date
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.patterns import (
    CONVERTERS,
    OWN_RANK,
    Converter,
    RouteError,
    canonical,
    covers,
    decoded,
    parse_pattern,
    parse_prefix,
)
from h2log.errors import UsageError

ID = "0193fdea-4b1c-7d00-8a2e-0123456789ab"

# The one spelling


@pytest.mark.parametrize(
    ("sent", "spelled"),
    [
        ("/", "/"),
        ("", ""),
        ("/a/b.html", "/a/b.html"),
        ("/%61%2D%7e", "/a-~"),
        ("/a%2fb", "/a%2Fb"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%FF\xff", "/%FF%FF"),
        ("/100%", "/100%25"),
        ("/%zz%4", "/%25zz%254"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
        ("//a//", "//a//"),
        ("/%2e%2E/./x", "/.././x"),
        ("/%00", "/%00"),
    ],
)
def test_equivalent_paths_are_spelled_alike(sent: str, spelled: str) -> None:
    """Coded where it must be, and nowhere else; segments stay apart (RFC 3986 section 6.2.2)."""
    assert canonical(sent) == spelled


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4), st.data())
def test_the_spelling_depends_on_the_bytes_alone(parts: list[bytes], data: st.DataObject) -> None:
    """However each byte of a segment is written, its path is spelled the same, and only its."""
    written = []
    for part in parts:
        text = ""
        for byte in part:
            coded = data.draw(st.booleans()) or byte in b"%/"
            text += f"%{byte:02x}" if coded else chr(byte)
        written.append(text)
    spelled = canonical("/".join(written))
    assert canonical(spelled) == spelled
    assert spelled.isascii()
    assert [unquote_to_bytes(part) for part in spelled.split("/")] == parts


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("a", "a"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%C3%A9\xc3\xa9", "éé"),
        ("%FF", "�"),
        ("%", "%"),
        ("%2F", "/"),
        ("%00", "\0"),
    ],
)
def test_a_part_as_text(part: str, text: str) -> None:
    """Decoded once, as UTF-8; what is none becomes U+FFFD."""
    assert decoded(part) == text


@pytest.mark.parametrize(
    ("prefix", "path", "does"),
    [
        ("", "/", True),
        ("", "/a", True),
        ("/a", "/a", True),
        ("/a", "/a/", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a", "/", False),
        ("/a/b", "/a", False),
        ("/a", "*", False),
    ],
)
def test_a_prefix_covers_whole_segments(prefix: str, path: str, does: bool) -> None:
    """`/a` does not cover `/ab`."""
    assert covers(prefix, path) is does


# Converters


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "0", 0),
        ("int", "007", 7),
        ("int", "-12", -12),
        ("int", "9" * 30, int("9" * 30)),
        ("float", "1", 1.0),
        ("float", "-2.50", -2.5),
        ("uuid", ID, UUID(ID)),
        ("uuid", ID.upper(), UUID(ID)),
        ("uuid", ID.replace("-", ""), UUID(ID)),
        ("str", "..", ".."),
        ("str", "7", "7"),
        ("path", "a", "a"),
        ("path", "a/b/c.txt", "a/b/c.txt"),
        ("path", "a/", "a/"),
        ("path", "a//b", "a//b"),
        ("path", ".a/b./..c/...", ".a/b./..c/..."),
        ("path", "C:/x", "C:/x"),
    ],
)
def test_a_text_of_its_kind_is_converted(kind: str, text: str, value: object) -> None:
    """To the type of the converter's name."""
    made = CONVERTERS[kind].convert(text)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *[("int", text) for text in ("", "a", "+1", " 1", "1 ", "1_0", "1.0", "--1", "٣", "1\n")],
        ("int", "9" * 5000),
        *[("float", text) for text in ("", ".", "1.", ".5", "1e5", "nan", "inf", "1_0", "1.5\n")],
        ("float", "9" * 400),
        *[("uuid", text) for text in ("", ID[:-1], ID + "0", "{" + ID + "}", f"urn:uuid:{ID}")],
        ("uuid", ID.replace("-", "", 1)),
        *[("path", text) for text in ("/a", "\\a", ".", "..", "../a", "a/..", "a/../b", "a/./b")],
        *[("path", text) for text in ("a\\..\\b", "..\\a", "a/..\\b", "a\0b", "./a", "//host/a")],
    ],
)
def test_a_text_of_another_kind_is_a_value_error(kind: str, text: str) -> None:
    """Python's own constructors take more; what leads out of a folder is no path."""
    with pytest.raises(ValueError):  # noqa: PT011 (nobody reads the message)
        CONVERTERS[kind].convert(text)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_a_number_in_plain_writing_is_a_float(number: float) -> None:
    """As it is written without an exponent."""
    text = f"{number:.6f}"
    assert math.isclose(CONVERTERS["float"].convert(text), float(text))


# Patterns


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("//", "//"),
        ("/café", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/a%2fb", "/a%2Fb"),
        ("/.well-known/x", "/.well-known/x"),
    ],
)
def test_a_pattern_without_values_is_one_path(text: str, fixed: str) -> None:
    """In the one spelling; it may be written as text or percent-coded."""
    assert parse_pattern(text, CONVERTERS).fixed == fixed


def test_a_pattern_is_taken_apart() -> None:
    """Texts, converters and names."""
    pattern = parse_pattern("/a b/{id:int}/{name}/{rest:path}/e", CONVERTERS)
    kinds = [s if isinstance(s, str) else s.name for s in pattern.segments]
    assert kinds == ["a%20b", "int", "str", "path", "e"]
    assert pattern.names == ("id", "name", "rest")
    assert pattern.fixed is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *[(text, "must begin with /") for text in ("", "a", "{a}", "*", "http://h/a")],
        *[(f"/{part}", "not") for part in ("{", "}", "{}", "{1a}", "{a-b}", "a{b}", "{a}b")],
        *[(f"/{part}", "not") for part in ("{a}{b}", "{a:}", "{:int}", "{ a}", "{é}", "{a:int:b}")],
        ("/{a:nothing}", "no converter 'nothing'; there are float, int, path, str, uuid"),
        ("/{a:Int}", "no converter 'Int'"),
        ("/{a}/{a}", "'a' twice"),
        ("/x/{a}/y/{b}/z/{a:int}", "'a' twice"),
        ("/{a:path}/x/{b:path}", "two paths"),
        ("/a?b", "query"),
        ("/a#b", "fragment"),
        ("/{a\n}", "control"),
        ("/a\x00", "control"),
    ],
)
def test_a_bad_pattern_is_told(text: str, why: str) -> None:
    """The message has the pattern and the reason; it is a ValueError and a UsageError."""
    with pytest.raises(RouteError) as caught:
        parse_pattern(text, CONVERTERS)
    assert repr(text) in str(caught.value)
    assert why in str(caught.value)
    assert {ValueError, UsageError} <= set(type(caught.value).__mro__)


@pytest.mark.parametrize("value", [None, 7, b"/a"])
def test_a_pattern_is_text(value: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match=type(value).__name__):
        parse_pattern(value, CONVERTERS)


def test_own_converters_stand_between_forms_and_texts() -> None:
    """By their rank."""
    mine = Converter("date", date.fromisoformat, OWN_RANK)
    order = sorted([*CONVERTERS.values(), mine], key=lambda converter: converter.rank)
    assert [c.name for c in order] == ["uuid", "int", "float", "date", "str", "path"]


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b", "/a/b"), ("/é x/", "/%C3%A9%20x")],
)
def test_a_prefix_has_no_last_slash(text: str, prefix: str) -> None:
    """And the one spelling."""
    assert parse_prefix("a mount's path", text) == prefix


@pytest.mark.parametrize("text", ["", "a", "*", "//", "/a//b", "/a//", "//a", "/{a}", "/a?", "/a#"])
def test_a_bad_prefix_is_told(text: str) -> None:
    """With its use."""
    with pytest.raises(RouteError, match="a mount's path") as caught:
        parse_prefix("a mount's path", text)
    assert repr(text) in str(caught.value)


plain = st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="{}/%?#")


@given(st.text(plain, min_size=1))
def test_a_pattern_matches_the_path_that_it_is_quoted_to(text: str) -> None:
    """Whatever text a segment is, a client that quotes it finds it."""
    assert parse_pattern(f"/{text}", CONVERTERS).fixed == canonical(quote(f"/{text}", safe="/"))
