"""Forms of both kinds, piece by piece: what they are, their limits, and files that are closed."""

from __future__ import annotations

import logging
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import QuerystringParser

from h2log.app.forms import FormLimits
from h2log.app.uploads import UploadFile
from tests.unit.app.multipart import (
    END,
    MULTIPART,
    URLENCODED,
    cut,
    field,
    file,
    parse,
    part,
    refused,
)

# URL-encoded


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a=1", [("a", "1")]),
        ("a=1&b=2", [("a", "1"), ("b", "2")]),
        ("a=1&a=2", [("a", "1"), ("a", "2")]),
        ("a=", [("a", "")]),
        ("a", [("a", "")]),
        ("=1", [("", "1")]),
        ("&&a=1&&b=2&", [("a", "1"), ("b", "2")]),
        ("a=b=c", [("a", "b=c")]),
        ("a+b=c+d", [("a b", "c d")]),
        ("a%20b=%C3%A9%26%3D%2B", [("a b", "é&=+")]),
        ("a=%zz%", [("a", "%zz%")]),
        ("a=%E9", [("a", "�")]),
        ("a=é", [("a", "é")]),
        ("a=1;b=2", [("a", "1;b=2")]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_an_urlencoded_form(text: str, pairs: list[tuple[str, str]], size: int) -> None:
    """Pairs in order, coding undone, however the content was cut."""
    form = await parse(URLENCODED, cut(text.encode(), size))
    assert list(form.pairs) == pairs


@given(st.lists(st.tuples(st.text(), st.text())), st.integers(1, 9))
async def test_what_urlencode_writes_is_read(pairs: list[tuple[str, str]], size: int) -> None:
    """Any names and values, cut anywhere."""
    pairs = [
        (a.encode("utf-8", "replace").decode(), b.encode("utf-8", "replace").decode())
        for a, b in pairs
    ]
    form = await parse(URLENCODED, cut(urlencode(pairs).encode(), size))
    assert list(form.pairs) == pairs


@given(st.text("ab=&+%20C3é", max_size=40), st.integers(1, 9))
async def test_the_standard_library_agrees(text: str, size: int) -> None:
    """`parse_qsl` finds the same in any text."""
    wanted = parse_qsl(text, keep_blank_values=True, errors="replace")
    form = await parse(URLENCODED, cut(text.encode(), size))
    assert list(form.pairs) == wanted


async def test_a_form_is_looked_up_by_name() -> None:
    """The first value of several, or all of them; a text in particular, or a file."""
    form = await parse(MULTIPART, field("a", b"1") + field("a", b"2") + file("f", "x", b"3") + END)
    assert form["a"] == "1"
    assert form.getall("a") == ["1", "2"]
    assert form.getall("b") == []
    assert (list(form), len(form), "a" in form, "b" in form) == (["a", "f"], 2, True, False)
    assert (form.text("a"), form.text("b"), form.text("b", "-"), form.text("f")) == (
        "1",
        "",
        "-",
        "",
    )
    found = form.file("f")
    assert found is form["f"]
    assert found is form.files[0]
    assert form.file("a") is None
    with pytest.raises(KeyError):
        form["b"]
    form.close_soon()


# Multipart


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
async def test_a_multipart_form(size: int) -> None:
    """Fields and files in order, however the content was cut."""
    data = (
        field("a", b"1")
        + field("é", "ü\r\n--X\r\n--X--".encode())
        + file("f", "ä b.txt", b"\r\n\r\n--XY\r\n\0\xff", "Content-Type: text/plain; charset=utf-8")
        + field("a", b"")
        + file("g", "", b"")
        + END
        + b"an epilogue that nobody reads"
    )
    form = await parse(MULTIPART, cut(data, size))
    assert [name for name, _ in form.pairs] == ["a", "é", "f", "a", "g"]
    assert form.getall("a") == ["1", ""]
    assert form["é"] == "ü\r\n--X\r\n--X--"
    found = form.file("f")
    assert found is not None
    assert (found.name, found.filename, found.size) == ("f", "ä b.txt", 12)
    assert found.content_type == "text/plain; charset=utf-8"
    assert found.headers["Content-Disposition"].startswith("form-data")
    assert await found.read() == b"\r\n\r\n--XY\r\n\0\xff"
    assert await found.read() == b""
    assert form.file("g") is None  # nothing was chosen
    assert isinstance(form["g"], UploadFile)
    form.close_soon()


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.binary()), max_size=5),
    st.integers(1, 99),
)
async def test_what_httpx_writes_is_read(files: list[tuple[str, bytes]], size: int) -> None:
    """Names and contents of any kind, as a real client codes them, cut anywhere."""
    sent = [("file", (name, content)) for name, content in files]
    request = httpx.Request("POST", "http://x/", files=sent, data={"a": "é", "b": ["1", "2"]})
    if not files:
        return
    form = await parse(request.headers["content-type"], cut(request.read(), size))
    assert (form["a"], form.getall("b")) == ("é", ["1", "2"])
    assert [await found.read() for found in form.files] == [content for _, content in files]
    # Browsers and httpx code quotes and controls of names, and nobody undoes it (HTML, 4.10.21.8).
    plain = [(n, f.filename) for (n, _), f in zip(files, form.files, strict=True)]
    for name, read in plain:
        if name.isprintable() and not set(name) & set('"\\%'):
            assert read == name
    form.close_soon()


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="a"; filename="b.txt"', "a", "b.txt"),
        ("form-data; name=a; filename=b.txt", "a", "b.txt"),
        ('FORM-DATA; NAME="a"; FILENAME="b.txt"', "a", "b.txt"),
        ('form-data; name="a"; filename="b;c=\\"d\\".txt"', "a", 'b;c="d".txt'),
        ('form-data; name="a"; filename="C:\\\\dir\\\\b.txt"', "a", "b.txt"),
        ('form-data; name="a"; filename="../../etc/passwd"', "a", "../../etc/passwd"),
        ('form-data; name="a"; filename="b"; filename*=UTF-8\'\'evil', "a", "b"),
        ('form-data; name="a"; filename="é€"', "a", "é€"),
    ],
)
async def test_a_name_is_read_as_clients_write_it(
    disposition: str, name: str, filename: str
) -> None:
    """Quoted or not; the extended form, which RFC 7578 forbids, is passed over."""
    form = await parse(MULTIPART, part(disposition, b"x") + END)
    [found] = form.files
    assert (found.name, found.filename) == (name, filename)
    form.close_soon()


async def test_a_latin_1_name_is_no_error() -> None:
    """What is no UTF-8 becomes U+FFFD."""
    data = b'--XX\r\ncontent-disposition: form-data; name="\xe9"\r\n\r\n\xe9\r\n' + END
    form = await parse(MULTIPART, data)
    assert form.pairs == (("�", "�"),)


async def test_an_empty_form_is_a_form() -> None:
    """As browsers send it: the last boundary alone."""
    assert (await parse(MULTIPART, END)).pairs == ()
    assert (await parse(URLENCODED, [])).pairs == ()


# What is refused


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/json", "multipart/mixed; boundary=XX", "multipart"],
)
async def test_what_is_no_form_is_415(content_type: str | None) -> None:
    """With what would be one."""
    error = await refused(content_type, b"a=1")
    assert error.status == 415
    assert error.detail.startswith("expected application/x-www-form-urlencoded or multipart/form-")
    assert error.headers == (("accept", "application/x-www-form-urlencoded, multipart/form-data"),)


@pytest.mark.parametrize(
    ("content_type", "data", "said"),
    [
        ("multipart/form-data", END, "no boundary"),
        ("multipart/form-data; boundary=", END, "no boundary"),
        (f"multipart/form-data; boundary={'x' * 300}", END, "malformed form: Boundary length"),
        (MULTIPART, b"", "ends before its last boundary"),
        (MULTIPART, b"--XX\r\n", "ends before its last boundary"),
        (MULTIPART, field("a", b"1"), "ends before its last boundary"),
        (MULTIPART, file("a", "b", b"1"), "ends before its last boundary"),
        (MULTIPART, field("a", b"1") + b"--XX-", "ends before its last boundary"),
        (MULTIPART, b"a=1", "malformed form"),
        (MULTIPART, b"--YY\r\n", "malformed form"),
        (MULTIPART, b"--XX\r\n\r\n1\r\n" + END, "has no name"),
        (MULTIPART, part("form-data", b"1") + END, "has no name"),
        (MULTIPART, part('attachment; name="a"', b"1") + END, "has no name"),
        (MULTIPART, b"--XX\r\n: a\r\n\r\n" + END, "malformed form"),
        (MULTIPART, b"--XX\r\na b: c\r\n\r\n" + END, "malformed form"),
        (
            MULTIPART,
            part('form-data; name="a"', b"MQ==", "Content-Transfer-Encoding: base64") + END,
            "content-transfer-encoding base64",
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_malformed_form_is_400(
    content_type: str, data: bytes, said: str, size: int
) -> None:
    """With what is wrong; a form that was cut off is never taken for a whole one."""
    error = await refused(content_type, cut(data, size))
    assert error.status == 400
    assert said in error.detail


LIMITS = FormLimits(max_fields=3, max_files=2, max_field_bytes=100)


@pytest.mark.parametrize(
    ("content_type", "data", "said"),
    [
        (URLENCODED, b"a=1&b=2&c=3&d=4", "more than 3 fields"),
        (URLENCODED, b"a&b&c&d", "more than 3 fields"),
        (URLENCODED, b"&&&&", "more than 3 fields"),
        (URLENCODED, b"&a&&b&", "more than 3 fields"),
        (URLENCODED, b"a=" + b"x" * 100, "a field of the form is larger than 100 bytes"),
        (URLENCODED, b"x" * 101, "a field of the form is larger than 100 bytes"),
        (MULTIPART, b"".join(field("a", b"1") for _ in range(4)) + END, "more than 3 fields"),
        (
            MULTIPART,
            b"".join(file("a", "b", b"1") for _ in range(3)) + END,
            "more than 2 files",
        ),
        (MULTIPART, field("a", b"x" * 100) + END, "a field of the form is larger than 100 bytes"),
        (MULTIPART, field("x" * 101, b"") + END, "a field of the form is larger than 100 bytes"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_too_much_is_413(content_type: str, data: bytes, said: str, size: int) -> None:
    """Fields, files and bytes of a field are counted; the detail names the limit."""
    error = await refused(content_type, cut(data, size), LIMITS)
    assert (error.status, said in error.detail) == (413, True), error.detail


async def test_what_is_just_not_too_much_is_taken() -> None:
    """Every limit is reached, none is passed."""
    parts = [field("a", b"x" * 99) for _ in range(3)] + [file("b", "c", b"y" * 500)] * 2
    form = await parse(MULTIPART, b"".join(parts) + END, LIMITS)
    assert len(form.pairs) == 5
    form.close_soon()
    for tail in (b"", b"&"):
        form = await parse(URLENCODED, b"a=" + b"x" * 99 + b"&b&c=1" + tail, LIMITS)
        assert len(form.pairs) == 3


async def test_separators_alone_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A form of nothing but `&` is looked at by the parser as far as a form of fields would be."""
    parsed: list[int] = []

    class Counting(QuerystringParser):
        def write(self, data: bytes) -> int:
            parsed.append(len(data))
            return super().write(data)

    monkeypatch.setattr("h2log.app.forms.QuerystringParser", Counting)
    error = await refused(URLENCODED, [b"&" * 500] * 1000)
    assert (error.status, error.detail) == (413, "the form has more than 1000 fields")
    assert sum(parsed) == 1000


async def test_all_fields_together_have_a_limit() -> None:
    """Many fields that are each small enough are too much at four times the one."""
    limits = FormLimits(max_fields=100, max_files=1, max_field_bytes=100)
    error = await refused(URLENCODED, b"&".join([b"a=" + b"x" * 90] * 5), limits)
    assert (error.status, "larger than 400 bytes together" in error.detail) == (413, True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([f"x-{n}: 1" for n in range(8)], "Maximum header count"),
        (["x-a: " + "b" * 5000], "Maximum header size"),
        (["x" * 5000 + ": 1"], "Maximum header size"),
    ],
)
async def test_a_part_has_a_small_header(fields: list[str], said: str) -> None:
    """Its number of fields and their sizes are bounded."""
    error = await refused(MULTIPART, part('form-data; name="a"', b"1", *fields) + END)
    assert (error.status, said in error.detail) == (400, True), error.detail


def test_the_parser_does_not_fill_the_log() -> None:
    """What is wrong with a client's form is no news for the application's log."""
    assert not logging.getLogger("python_multipart.multipart").isEnabledFor(logging.WARNING)
