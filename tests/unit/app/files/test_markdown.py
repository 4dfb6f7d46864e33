"""Markdown as a page."""

from __future__ import annotations

import pytest

from h2log.app.files.markdown import Page

pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")


def page(text: str, name: str = "note.md") -> str:
    """Return the page of a text."""
    return Page(f"/srv/{name}")(text.encode()).decode()


def test_a_text_becomes_a_page() -> None:
    """CommonMark, with tables and strikethrough; the first heading is the title."""
    made = page("# Hello *you*\n\n- a\n- b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n~~gone~~\n")
    assert made.startswith("<!doctype html>")
    assert "<title>Hello you</title>" in made
    assert "<h1>Hello <em>you</em></h1>" in made
    for part in ("<li>a</li>", "<td>1</td>", "<s>gone</s>", "<meta charset=utf-8>"):
        assert part in made


def test_without_a_heading_the_name_is_the_title() -> None:
    """Escaped, as everything is; a name that is no UTF-8 is shown all the same."""
    assert "<title>note</title>" in page("text")
    assert "<title>&lt;b&gt;</title>" in page("text", "<b>.md")
    assert "<title>caf\ufffd</title>" in page("text", "caf\udce9.md")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)>",
        "# <script>alert(1)</script>",
        "[a](javascript:alert(1))",
        "![a](vbscript:x)",
        '[a](/b "<script>alert(1)</script>")',
        "```<script>alert(1)</script>\n<script>alert(1)</script>\n```",
        "| <script>alert(1)</script> |\n|---|\n| <b> |",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
    ],
)
def test_a_text_runs_nothing(text: str) -> None:
    """HTML in it is shown as text, and no link is a script."""
    made = page(text)
    for bad in ("<script", "<img src=x", 'href="javascript', 'src="vbscript'):
        assert bad not in made


def test_what_is_no_utf_8_is_shown_as_such() -> None:
    """And a byte order mark is none of the text."""
    assert "caf\ufffd" in Page("/srv/a.md")(b"caf\xe9").decode()
    assert "<h1>a</h1>" in Page("/srv/a.md")(b"\xef\xbb\xbf# a").decode()


def test_nesting_without_end_has_one() -> None:
    """What is nested deeper than anybody writes is no recursion for ever."""
    assert page(">" * 5000 + " deep")
    assert page("[" * 5000)
    assert page("*" * 5000 + "a" + "*" * 5000)
