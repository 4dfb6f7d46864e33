"""The style sheets of a page, found in its head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.files.hints import style_links


def link(target: str, more: str = "") -> str:
    """Return the value of a Link."""
    return f"<{target}>; rel=preload; as=style{more}"


@pytest.mark.parametrize(
    ("page", "links"),
    [
        ('<head><link rel="stylesheet" href="/a.css"></head>', [link("/a.css")]),
        ("<LINK REL=StyleSheet HREF=a.css>", [link("a.css")]),
        ('<link rel="preload stylesheet" href="a.css" as=style />', [link("a.css")]),
        ("<link rel=stylesheet href=a.css><link rel=stylesheet href=b.css>",
         [link("a.css"), link("b.css")]),
        ("<link rel=stylesheet href=a.css><link rel=stylesheet href=a.css>", [link("a.css")]),
        ("<link rel=stylesheet href=https://cdn.example/a.css crossorigin>",
         [link("https://cdn.example/a.css", "; crossorigin")]),
        ("<link rel=stylesheet href=a.css crossorigin=use-credentials>",
         [link("a.css", "; crossorigin=use-credentials")]),
        ("<link rel=stylesheet href='a.css?v=1&amp;w=2'>", [link("a.css?v=1&w=2")]),
        ("<link rel=stylesheet href='/ä b>.css'>", [link("/%C3%A4%20b%3E.css")]),
        ("<link rel=stylesheet href='/a\";\r\nx.css'>", [link("/a%22;x.css")]),
        ("<base href=/sub/><link rel=stylesheet href=a.css>", [link("/sub/a.css")]),
        ("<link rel=stylesheet media=screen href=a.css>", [link("a.css")]),
        # not shown, not there, not a style sheet, not in the head
        ("<link rel=stylesheet media=print href=a.css>", []),
        ("<link rel='alternate stylesheet' href=a.css>", []),
        ("<link rel=stylesheet disabled href=a.css>", []),
        ("<link rel=icon href=a.css>", []),
        ("<link rel=stylesheet>", []),
        ("<link rel=stylesheet href=''>", []),
        ("<link rel=stylesheet href='data:text/css,a{}'>", []),
        ("<link rel=stylesheet href='javascript:alert(1)'>", []),
        ("<link rel=stylesheet href='http://[bad/a.css'>", []),
        ("<!-- <link rel=stylesheet href=a.css> -->", []),
        ("<script>'<link rel=stylesheet href=a.css>'</script>", []),
        ("<head></head><link rel=stylesheet href=a.css>", []),
        ("<body><link rel=stylesheet href=a.css>", []),
        ("<link rel=stylesheet href=/" + "a" * 2000 + ">", []),
        (" " * 70_000 + "<link rel=stylesheet href=a.css>", []),
        ("no page", []),
        ("", []),
    ],
)  # fmt: skip
def test_the_style_sheets_of_a_head(page: str, links: list[str]) -> None:
    """Those that a browser would load for a screen, as preloads."""
    assert list(style_links(page.encode())) == links


def test_a_page_tells_eight_at_most() -> None:
    """More would not come sooner."""
    page = "".join(f"<link rel=stylesheet href={n}.css>" for n in range(20))
    assert len(style_links(page.encode())) == 8


@given(st.binary(max_size=300))
def test_no_bytes_break_it(page: bytes) -> None:
    """Whatever the file is, its links can stand in a field."""
    for found in style_links(b"<link rel=stylesheet href='" + page):
        assert found.isascii()
        assert found.isprintable()


@given(st.lists(st.sampled_from(["<", "!", "[", "]", ">", "if", "<![", "--", "?", "a", "<!", "&"])))
def test_no_markup_breaks_it(parts: list[str]) -> None:
    """Nor do declarations that are none."""
    style_links("".join(parts).encode())
