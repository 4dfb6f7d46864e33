"""The seven columns of an access line: escaped so that they stay seven, and read back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from h2log.access.lines import COLUMNS, AccessLine, escape, is_note, parse, unescape

SESSION = "0193a0b1c2d37e4f8a9b0c1d2e3f4a5b"
REQUEST = "0193a0b1c2d47e4f8a9b0c1d2e3f4a5c"
GOOD = {
    "timestamp": "2026-11-20T13:31:59.123+00:00",
    "status": "200",
    "milliseconds": "7.412",
    "session": SESSION,
    "request": REQUEST,
    "version": "h2",
    "path": "/article/06-request.html?q=a%20b",
}

latin_1 = st.binary().map(lambda raw: raw.decode("latin-1"))


def line(**changes: str) -> str:
    """Return a good line with some columns replaced."""
    assert changes.keys() <= GOOD.keys()
    return "\t".join((GOOD | changes).values())


def test_a_line_reads_back_as_it_was_meant() -> None:
    """Every column of a line comes back with its type."""
    read = parse(line())
    assert read == AccessLine(
        "2026-11-20T13:31:59.123+00:00",
        200,
        7.412,
        SESSION,
        REQUEST,
        "h2",
        "/article/06-request.html?q=a%20b",
    )
    assert read.when == datetime(2026, 11, 20, 13, 31, 59, 123000, tzinfo=UTC)
    assert read.when.tzinfo is not None
    assert tuple(GOOD) == COLUMNS == AccessLine._fields


@pytest.mark.parametrize(("text", "status"), [("-", None), ("100", 100), ("599", 599)])
def test_a_status_is_a_number_or_absent(text: str, status: int | None) -> None:
    """A dash is no status; three digits are theirs."""
    assert parse(line(status=text)).status == status


def test_a_line_without_milliseconds_is_of_a_request_that_arrived() -> None:
    """It has neither a status nor a time; a status without a time is damage."""
    read = parse(line(status="-", milliseconds="-"))
    assert (read.status, read.milliseconds) == (None, None)
    assert parse(line(status="-", milliseconds="0.000")).milliseconds == 0.0
    with pytest.raises(ValueError, match=r"^milliseconds: missing, although .* status 200"):
        parse(line(milliseconds="-"))


@pytest.mark.parametrize("version", ["h2", "1.1", "1.0", "-"])
def test_every_version_is_read(version: str) -> None:
    """The four ways to write a version are accepted."""
    assert parse(line(version=version)).version == version


@given(latin_1)
@example("\x85")
@example("\x1c\x1d\x1e")
@example("\t\n\r\v\f")
@example("\\x0A")
@example("")
def test_any_bytes_in_a_path_stay_one_line_of_seven_columns(path: str) -> None:
    """Whatever bytes a client puts into a path: one line, seven columns, and the path back."""
    written = line(path=escape(path))
    assert written.splitlines() == [written]
    assert written.isascii()
    assert written.replace("\t", "").isprintable()
    assert len(written.split("\t")) == 7
    assert parse(written).path == path


@given(latin_1)
def test_unescape_is_the_inverse_of_escape(text: str) -> None:
    """Every latin-1 text survives escaping, and no two texts look alike escaped."""
    assert unescape(escape(text)) == text


@given(st.text(st.characters()))
@example("\u2028\u2029")
@example("\udc80 and \ud800")
@example("𝔥2")
def test_text_above_latin_1_is_escaped_as_its_utf_8(text: str) -> None:
    """A character above U+00FF stands as its UTF-8 bytes; the line never breaks in two."""
    escaped = escape(text)
    assert escaped.splitlines() in ([escaped], [])
    assert escaped == "" or (escaped.isascii() and escaped.isprintable())
    expected = b"".join(
        character.encode("latin-1")
        if ord(character) < 256
        else character.encode("utf-8", "surrogatepass")
        for character in text
    )
    assert unescape(escaped).encode("latin-1") == expected


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\tb", "a\\x09b"),
        ("\\", "\\x5C"),
        ("\x00\x1f\x7f\x80\xff", "\\x00\\x1F\\x7F\\x80\\xFF"),
        ("é", "\\xE9"),
        ("€", "\\xE2\\x82\\xAC"),
        ("\x1b[31m", "\\x1B[31m"),
        (" ~!#", " ~!#"),
    ],
)
def test_escapes_look_like_this(text: str, escaped: str) -> None:
    """The form in the file is upper-case hex after a backslash and an x."""
    assert escape(text) == escaped


def test_plain_text_is_not_copied() -> None:
    """Text without anything to escape comes back as the same object: the common case is free."""
    text = "/article/" + "a" * 50
    assert escape(text) is text
    assert unescape(text) is text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("abc\\", 3),
        ("\\x4", 0),
        ("\\xg0", 0),
        ("ok\\x0a", 2),  # lower case is not what `escape` writes
        ("\\x41\\n", 4),
        ("\\\\x41", 0),
        ("\\x٤٤", 0),
    ],
)
def test_a_malformed_escape_is_refused_where_it_stands(text: str, place: int) -> None:
    """A backslash that begins no escape is an error that names its place."""
    with pytest.raises(ValueError, match=f"malformed escape at character {place}:"):
        unescape(text)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("timestamp", "2026-11-20T13:31:59+00:00"),
        ("timestamp", "2026-11-20 13:31:59.123+00:00"),
        ("timestamp", "2026-11-20T13:31:59.123"),
        ("timestamp", "2026-11-20T13:31:59.123Z"),
        ("timestamp", "2026-11-20T13:31:59.123+01:00"),
        ("timestamp", "2026-02-30T13:31:59.123+00:00"),
        ("timestamp", "2026-11-20T24:31:59.123+00:00"),
        ("timestamp", "٢026-11-20T13:31:59.123+00:00"),
        ("timestamp", ""),
        ("status", ""),
        ("status", "20"),
        ("status", "2000"),
        ("status", "099"),
        ("status", "+20"),
        ("status", "None"),
        ("milliseconds", "7"),
        ("milliseconds", "7.41"),
        ("milliseconds", "7.4123"),
        ("milliseconds", "-7.412"),
        ("milliseconds", "07.412"),
        ("milliseconds", "nan"),
        ("milliseconds", "9" * 400 + ".000"),
        ("session", SESSION[:-1]),
        ("session", SESSION + "0"),
        ("session", SESSION.upper()),
        ("session", "-"),
        ("request", "g" * 32),
        ("request", " " + REQUEST[1:]),
        ("version", "h4"),
        ("version", "1x1"),
        ("version", "2"),
        ("version", ""),
        ("path", "/a\n"),
        ("path", "/\x85"),
        ("path", "/é"),
        ("path", "/\x7f"),
        ("path", "/\\x4"),
        ("path", "/\\"),
    ],
)
def test_a_wrong_column_is_named(column: str, value: str) -> None:
    """An error of `parse` begins with the name of the column that is wrong."""
    with pytest.raises(ValueError, match=f"^{column}: "):
        parse(line(**{column: value}))


@pytest.mark.parametrize("count", range(1, 7))
def test_a_line_cut_at_a_tab_names_what_is_missing(count: int) -> None:
    """Fewer than seven columns: the first one that is missing is named."""
    cut = "\t".join(line().split("\t")[:count])
    with pytest.raises(ValueError, match=f"^{COLUMNS[count]}: missing, the line has {count} of 7"):
        parse(cut)


def test_an_eighth_column_is_refused() -> None:
    """A line of eight columns is not an access line."""
    with pytest.raises(ValueError, match=r"^line: expected 7 columns, got 8"):
        parse(line() + "\textra")


def test_a_note_is_not_a_request() -> None:
    """A line that begins with # is told apart, and refused with the reason."""
    note = "# 2026-11-20T13:31:59.123+00:00 12 lines dropped"
    assert is_note(note)
    assert not is_note(line(path="/#"))
    with pytest.raises(ValueError, match=r"^line: a note of the log"):
        parse(note)


@given(st.text())
@example("")
@example("\t\t\t\t\t\t")
def test_any_other_text_is_refused_with_a_reason(text: str) -> None:
    """Whatever is not an access line raises ValueError with a printable reason of one line."""
    with pytest.raises(ValueError, match=r"^[a-z]+: ") as caught:
        parse(text)
    assert len(str(caught.value).splitlines()) == 1


@given(st.integers(0, len(line()) - 1), st.sampled_from("\t\n\x00\x7f\\\u2028"))
def test_one_foreign_character_anywhere_is_noticed(place: int, character: str) -> None:
    """One damaged character anywhere in a line never goes unseen."""
    good = line(path="/plain")
    place = min(place, len(good) - 1)
    damaged = good[:place] + character + good[place + 1 :]
    if damaged != good:
        with pytest.raises(ValueError, match=": "):
            parse(damaged)
