"""Conditional and range requests, as tables (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from h2log.app.conditional import http_time, precondition, select_ranges
from h2log.app.headers import Headers

MODIFIED: Final = 784111777
SAME: Final = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE: Final = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER: Final = "Sun, 06 Nov 1994 08:49:38 GMT"
ETAG: Final = '"v1"'


def headers(*fields: tuple[str, str]) -> Headers:
    """Return header fields."""
    return Headers([(name.encode(), value.encode("latin-1")) for name, value in fields])


@pytest.mark.parametrize(
    "text", [SAME, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_each_form_of_a_date_is_read(text: str) -> None:
    """The fixdate and the two obsolete forms (RFC 9110 section 5.6.7)."""
    assert http_time(text) == MODIFIED


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "-1",
        "never",
        "784111777",
        "1994-11-06T08:49:37Z",
        "Sun, 31 Feb 1994 08:49:37",
        "Sun, 06 Nov 1994 25:00:00 GMT",
        "Sun, 06 Nov",
        "GMT",
        ",",
        '"v1"',
        "Sun, 06 Foo 1994",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "\x00",
        "ÿ",
        "9" * 5000,
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    """And never an exception."""
    assert http_time(text) is None


@given(st.text(st.characters(max_codepoint=255)))
def test_no_text_breaks_the_reader_of_dates(text: str) -> None:
    """Whatever a client sends is a time or none."""
    assert isinstance(http_time(text), int | None)


@given(
    st.lists(
        st.sampled_from(
            [
                "Sun",
                ",",
                "06",
                "Nov",
                "1994",
                "08:49:37",
                "GMT",
                "+2500",
                "-9999",
                "0",
                ":",
                "-",
                "08.49.37",
                "99",
                "Z",
                "(",
                "a:b:c",
                "06-Nov-94",
                "EST",
                " ",
                "8:4",
            ]
        ),
        max_size=8,
    ).map(" ".join)
)
@example("Sun, 06 Nov 1994 08:49:37 -9999")
@example("Sun, 06 Nov 1994 08.49.37.1 GMT")
def test_no_shuffled_date_breaks_the_reader_of_dates(text: str) -> None:
    """Nor do the parts of dates in any order."""
    assert isinstance(http_time(text), int | None)


M, N, S, U = "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"

PRECEDENCE: Final[list[tuple[list[tuple[str, str]], int | None]]] = [
    # nothing asked
    ([], None),
    ([("range", "bytes=0-0")], None),
    # If-Match: 13.1.1, strong comparison
    ([(M, ETAG)], None),
    ([(M, "*")], None),
    ([(M, " * ")], None),
    ([(M, '"v2"')], 412),
    ([(M, 'W/"v1"')], 412),
    ([(M, '"v2", "v1"')], None),
    ([(M, '"v2","v1"')], None),
    ([(M, '"v2", "v3"')], 412),
    ([(M, ',, "v1" ,')], None),
    ([(M, "v1")], 412),
    ([(M, "")], 412),
    ([(M, '"V1"')], 412),
    ([(M, '"v1')], 412),
    ([(M, '"x,"'), (M, ETAG)], None),
    ([(M, '"a,b", "v1"')], None),
    ([(M, '"v2"'), (M, ETAG)], None),
    # If-Unmodified-Since: 13.1.4
    ([(U, SAME)], None),
    ([(U, AFTER)], None),
    ([(U, BEFORE)], 412),
    ([(U, "never")], None),
    ([(U, "")], None),
    ([(U, "Sunday, 06-Nov-94 08:49:36 GMT")], 412),
    ([(U, "Sun Nov  6 08:49:36 1994")], 412),
    ([(U, f"{BEFORE}, {BEFORE}")], None),
    ([(U, BEFORE), (U, BEFORE)], None),
    # If-Match decides over If-Unmodified-Since: 13.2.2 step 1 before 2
    ([(M, ETAG), (U, BEFORE)], None),
    ([(M, '"v2"'), (U, AFTER)], 412),
    ([(U, BEFORE), (M, "*")], None),
    # If-None-Match: 13.1.2, weak comparison
    ([(N, ETAG)], 304),
    ([(N, 'W/"v1"')], 304),
    ([(N, "*")], 304),
    ([(N, '"v2"')], None),
    ([(N, 'W/"v2"')], None),
    ([(N, '"v2", W/"v1"')], 304),
    ([(N, '"v2",\t"v3"')], None),
    ([(N, '"v2"'), (N, ETAG)], 304),
    ([(N, "v1")], None),
    ([(N, "")], None),
    ([(N, 'w/"v1"')], None),
    ([(N, '"v1"x')], None),
    ([(N, '""')], None),
    ([(N, '"\xe9", "v1"')], 304),
    ([(N, '"*"')], None),
    # If-Modified-Since: 13.1.3
    ([(S, SAME)], 304),
    ([(S, AFTER)], 304),
    ([(S, BEFORE)], None),
    ([(S, "never")], None),
    ([(S, "")], None),
    ([(S, "Sunday, 06-Nov-94 08:49:37 GMT")], 304),
    ([(S, "Sun Nov  6 08:49:37 1994")], 304),
    ([(S, f"{SAME}, {SAME}")], None),
    ([(S, SAME), (S, SAME)], None),
    ([(S, SAME), (S, BEFORE)], None),
    # If-None-Match decides over If-Modified-Since: 13.2.2 step 3 before 4
    ([(N, '"v2"'), (S, AFTER)], None),
    ([(N, ETAG), (S, BEFORE)], 304),
    ([(S, AFTER), (N, "garbage")], None),
    # the first pair before the second
    ([(M, '"v2"'), (N, ETAG)], 412),
    ([(M, ETAG), (N, ETAG)], 304),
    ([(M, ETAG), (N, '"v2"')], None),
    ([(M, "*"), (S, SAME)], 304),
    ([(U, BEFORE), (N, ETAG)], 412),
    ([(U, AFTER), (N, ETAG)], 304),
    ([(U, BEFORE), (S, AFTER)], 412),
    ([(U, SAME), (S, SAME)], 304),
    ([(U, SAME), (S, BEFORE)], None),
    ([(U, "never"), (N, ETAG)], 304),
    ([(M, ETAG), (U, BEFORE), (N, '"v2"'), (S, AFTER)], None),
    ([(M, ETAG), (U, BEFORE), (N, ETAG), (S, BEFORE)], 304),
    ([(M, '"v2"'), (U, AFTER), (N, ETAG), (S, AFTER)], 412),
]


@pytest.mark.parametrize(("fields", "status"), PRECEDENCE)
def test_rfc9110_13_2_2(fields: list[tuple[str, str]], status: int | None) -> None:
    """Conditions are evaluated in their order, each by its own comparison."""
    assert precondition(headers(*fields), ETAG, MODIFIED) == status


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        (M, 'W/"v1"', 412),
        (M, ETAG, 412),
        (M, "*", None),
        (N, 'W/"v1"', 304),
        (N, ETAG, 304),
        (N, 'W/"v2"', None),
    ],
)
def test_rfc9110_8_8_3_2_of_a_weak_tag(field: str, value: str, status: int | None) -> None:
    """A weak tag of our own matches nothing strongly, and its like weakly."""
    assert precondition(headers((field, value)), 'W/"v1"', MODIFIED) == status


@given(st.lists(st.sampled_from(['"v1"', 'W/"v1"', '"v2"', '"a,b"', '""']), min_size=1))
def test_a_list_has_a_tag_or_not(tags: list[str]) -> None:
    """In one field or in several, with whatever blanks."""
    weak = 304 if '"v1"' in tags or 'W/"v1"' in tags else None
    strong = None if '"v1"' in tags else 412
    for fields in ([", ".join(tags)], [" ,\t".join(tags)], tags):
        assert precondition(headers(*((N, f) for f in fields)), ETAG, MODIFIED) == weak
        assert precondition(headers(*((M, f) for f in fields)), ETAG, MODIFIED) == strong


UNSATISFIABLE: Final = (-1, -1)
RANGES: Final[list[tuple[str, int, tuple[int, int] | None]]] = [
    ("bytes=0-0", 10, (0, 0)),
    ("bytes=0-9", 10, (0, 9)),
    ("bytes=0-10", 10, (0, 9)),
    ("bytes=0-999999999999", 10, (0, 9)),
    ("bytes=9-9", 10, (9, 9)),
    ("bytes=9-", 10, (9, 9)),
    ("bytes=0-", 10, (0, 9)),
    ("bytes=3-5", 10, (3, 5)),
    ("bytes=-1", 10, (9, 9)),
    ("bytes=-10", 10, (0, 9)),
    ("bytes=-11", 10, (0, 9)),
    ("bytes=-9999999999999999999", 10, (0, 9)),
    ("bytes=00-01", 10, (0, 1)),
    ("Bytes=0-0", 10, (0, 0)),
    ("BYTES=-1", 10, (9, 9)),
    ("bytes=10-", 10, UNSATISFIABLE),
    ("bytes=10-10", 10, UNSATISFIABLE),
    ("bytes=9999999999999999999-", 10, UNSATISFIABLE),
    ("bytes=-0", 10, UNSATISFIABLE),
    # Of nothing, nothing is a part: all of it is sent.
    ("bytes=0-", 0, None),
    ("bytes=0-0", 0, None),
    ("bytes=-5", 0, None),
    ("bytes=-0", 0, None),
    ("bytes=5-4", 10, None),
    ("bytes=20-10", 10, None),
    ("bytes=-", 10, None),
    ("bytes=", 10, None),
    ("bytes", 10, None),
    ("", 10, None),
    ("0-5", 10, None),
    ("lines=0-5", 10, None),
    ("bytes=a-b", 10, None),
    ("bytes=0x1-2", 10, None),
    ("bytes=1-2x", 10, None),
    ("bytes=--1", 10, None),
    ("bytes=+1-2", 10, None),
    ("bytes=1--2", 10, None),
    ("bytes=\xb2-\xb3", 10, None),
    ("bytes=0-1,3-4", 10, (0, 4)),
    ("bytes=0-1, 20-30", 10, (0, 1)),
    ("bytes=10-, -0", 10, UNSATISFIABLE),
    (f"bytes=0-{'9' * 5000}", 10, None),
]


@pytest.mark.parametrize(("value", "length", "expected"), RANGES)
def test_rfc9110_14_1_2(value: str, length: int, expected: tuple[int, int] | None) -> None:
    """Byte ranges are taken, or cannot be; whatever else is ignored (section 14.2)."""
    found = select_ranges(headers(("range", value)), ETAG, MODIFIED, length)
    if expected == UNSATISFIABLE:
        assert found == []
    else:
        assert found == (None if expected is None else [expected])


def test_no_range_is_all() -> None:
    """An If-Range without a Range means nothing (RFC 9110 section 13.1.5)."""
    assert select_ranges(headers(), ETAG, MODIFIED, 10) is None
    assert select_ranges(headers(("if-range", ETAG)), ETAG, MODIFIED, 10) is None


def test_two_range_fields_are_no_set_of_ranges() -> None:
    """All of the content is always a right answer."""
    fields = headers(("range", "bytes=0-1"), ("range", "bytes=3-4"))
    assert select_ranges(fields, ETAG, MODIFIED, 10) is None


@pytest.mark.parametrize(
    ("etag", "condition", "taken"),
    [
        (ETAG, ETAG, True),
        (ETAG, f" {ETAG} ", True),
        (ETAG, '"v2"', False),
        (ETAG, 'W/"v1"', False),
        ('W/"v1"', 'W/"v1"', False),
        ('W/"v1"', ETAG, False),
        (ETAG, '"v1", "v2"', False),
        (ETAG, "*", False),
        (ETAG, "v1", False),
        (ETAG, "", False),
        (ETAG, SAME, True),
        (ETAG, "Sunday, 06-Nov-94 08:49:37 GMT", True),
        (ETAG, BEFORE, False),
        (ETAG, AFTER, False),
    ],
)
def test_rfc9110_13_1_5(etag: str, condition: str, taken: bool) -> None:
    """The range is of the representation that If-Range names exactly, else all is sent."""
    fields = headers(("range", "bytes=2-3"), ("if-range", condition))
    assert select_ranges(fields, etag, MODIFIED, 10) == ([(2, 3)] if taken else None)


def test_without_a_date_conditions_on_dates_are_ignored() -> None:
    """RFC 9110 sections 13.1.3, 13.1.4 and 13.1.5: what has no date has not been modified since."""
    for name, when in ((S, AFTER), (U, BEFORE)):
        assert precondition(headers((name, when)), ETAG, None) is None
    fields = headers(("range", "bytes=2-3"), ("if-range", SAME))
    assert select_ranges(fields, ETAG, None, 10) is None


@given(st.integers(0, 30), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 40)))
def test_a_range_lies_in_the_content(length: int, first: int, last: int | None) -> None:
    """It is what slicing would give: never empty, never past the end."""
    value = f"bytes={first}-{'' if last is None else last}"
    content = bytes(range(length))
    found = select_ranges(headers(("range", value)), ETAG, MODIFIED, length)
    piece = content[first:] if last is None else content[first : last + 1]
    if not length or (last is not None and last < first):
        assert found is None
    elif not piece:
        assert found == []
    else:
        assert found is not None
        [(start, end)] = found
        assert content[start : end + 1] == piece
