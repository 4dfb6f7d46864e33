"""What a client would take: codings and media types by weight (RFC 9110 section 12)."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.files.negotiation import (
    CODINGS,
    IDENTITY,
    accepted_codings,
    choose_media,
    codings_of,
    is_https,
    wish,
    with_codings,
)

ALL: Final = ("br", "zstd", "gzip", "identity")

ACCEPTED: Final[list[tuple[str | None, tuple[str, ...]]]] = [
    # without the field, and with an empty one: section 12.5.3
    (None, ("identity",)),
    ("", ("identity",)),
    (" ", ("identity",)),
    (",,", ("identity",)),
    # what browsers and tools send
    ("gzip, deflate, br, zstd", ALL),
    ("gzip, deflate, br", ("br", "gzip", "identity")),
    ("deflate, gzip, br, zstd", ALL),
    ("gzip", ("gzip", "identity")),
    ("x-gzip", ("gzip", "identity")),
    ("compress, gzip", ("gzip", "identity")),
    ("identity;q=1, *;q=0", ("identity",)),
    ("identity", ("identity",)),
    ("deflate", ("identity",)),
    ("aes128gcm, dcb, dcz", ("identity",)),
    # names are case-insensitive, blanks are optional
    ("GZIP", ("gzip", "identity")),
    ("\tBr ;\tQ=0.5 ,gzip ; q=0.6", ("gzip", "br", "identity")),
    # the client's order before ours
    ("gzip;q=1.0, br;q=0.5", ("gzip", "br", "identity")),
    ("br;q=0.001, zstd;q=0.002", ("zstd", "br", "identity")),
    ("gzip;q=0.5, identity;q=0.8", ("identity", "gzip")),
    ("gzip;q=0.5, identity;q=0.5", ("gzip", "identity")),
    # zero excludes
    ("br;q=0, gzip", ("gzip", "identity")),
    ("gzip;q=0", ("identity",)),
    ("gzip;q=0.0", ("identity",)),
    ("gzip;q=0.000", ("identity",)),
    ("gzip, identity;q=0", ("gzip",)),
    ("identity;q=0", ()),
    ("*;q=0", ()),
    ("gzip, *;q=0", ("gzip",)),
    ("gzip;q=0, *", ("br", "zstd", "identity")),
    # the star stands for what is not named
    ("*", ALL),
    ("*;q=0.5", ALL),
    ("*;q=0.5, gzip", ("gzip", "br", "zstd", "identity")),
    ("identity, *;q=0.1", ("identity", "br", "zstd", "gzip")),
    # what is no weight makes an element nothing; the first of two counts
    ("gzip;q=2", ("identity",)),
    ("gzip;q=-1", ("identity",)),
    ("gzip;q=abc", ("identity",)),
    ("gzip;q=0.1234", ("identity",)),
    ("gzip;q=1.001", ("identity",)),
    ("gzip;q=", ("identity",)),
    ("gzip;q", ("identity",)),
    ("gzip;q=0.5, gzip;q=0", ("gzip", "identity")),
    ("gzip;level=9", ("identity",)),
    ("gz ip", ("identity",)),
    ('"gzip"', ("identity",)),
    ("gzip\xff", ("identity",)),
]


@pytest.mark.parametrize(("value", "codings"), ACCEPTED)
def test_rfc9110_12_5_3(value: str | None, codings: tuple[str, ...]) -> None:
    """The codings of an Accept-Encoding, the best first; identity unless it is excluded."""
    assert accepted_codings(value) == codings


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_text_breaks_the_reader_of_codings(value: str) -> None:
    """Whatever a client sends is a list of what there is, each once."""
    found = accepted_codings(value)
    assert set(found) <= {*CODINGS, IDENTITY}
    assert len(set(found)) == len(found)


def test_a_wish_is_the_codings_and_the_scheme() -> None:
    """Requests that mean the same have the same wish, and it can be read again."""
    browser = [(b"accept-encoding", b"gzip, deflate, br, zstd")]
    assert wish("https", []) == wish("https", [(b"accept-encoding", b"")]) == IDENTITY
    assert wish("https", browser) == wish("https", [(b"accept-encoding", b"*")])
    several = [(b"accept-encoding", b"br;q=0.1"), (b"x", b"y"), (b"accept-encoding", b"gzip")]
    assert codings_of(wish("https", several)) == ("gzip", "br", "identity")
    for scheme in ("https", "http", "", "ftp"):
        wished = wish(scheme, browser)
        assert codings_of(wished) == ALL
        assert is_https(wished) is (scheme == "https")
        assert codings_of(with_codings(wished, ("gzip",))) == ("gzip",)
        assert is_https(with_codings(wished, ())) is (scheme == "https")
    assert codings_of(wish("http", [(b"accept-encoding", b"*;q=0")])) == ()


def test_what_is_remembered_of_wishes_is_bounded() -> None:
    """Neither many values nor long ones stay for ever."""
    from h2log.app.files import negotiation

    for n in range(1000):
        assert wish("https", [(b"accept-encoding", b"gzip;q=0.%03d" % n)])
    wish("https", [(b"accept-encoding", b"gzip," * 1000)])
    assert len(negotiation._wishes) <= 256
    assert max(map(len, negotiation._wishes)) <= 256


HTML_JSON: Final = ("text/html", "application/json")


@pytest.mark.parametrize(
    ("accept", "offers", "chosen"),
    [
        (None, HTML_JSON, ("text/html", False)),
        ("*/*", HTML_JSON, ("text/html", False)),
        ("application/json", HTML_JSON, ("application/json", True)),
        ("application/json, */*", HTML_JSON, ("application/json", True)),
        ("application/json;q=0.5, text/html", HTML_JSON, ("text/html", True)),
        ("application/json, text/html;q=0.9", HTML_JSON, ("application/json", True)),
        ("application/*", HTML_JSON, ("application/json", False)),
        ("text/*;q=0.5, application/*", HTML_JSON, ("application/json", False)),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML_JSON,
         ("text/html", True)),
        ("APPLICATION/JSON", HTML_JSON, ("application/json", True)),
        ("text/html;q=0, */*", HTML_JSON, ("application/json", False)),
        ("image/png", HTML_JSON, (None, False)),
        ("", HTML_JSON, (None, False)),
        ("text/html;level=1", HTML_JSON, (None, False)),
        ("*/*;q=0", HTML_JSON, (None, False)),
    ],
)  # fmt: skip
def test_rfc9110_12_5_1(
    accept: str | None, offers: tuple[str, ...], chosen: tuple[str | None, bool]
) -> None:
    """The most specific range decides on a type, then the weight, then our order."""
    assert choose_media(accept, offers) == chosen
