"""Markdown as a page (CommonMark, with tables and strikethrough), by `markdown-it-py`."""

from __future__ import annotations

import html
import importlib
import os
from functools import cache
from typing import Any, Final

from h2log.errors import UsageError

__all__ = ["Page", "check"]

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{max-width:42rem;margin:3rem auto;padding:0 1rem;font:1rem/1.6 system-ui,sans-serif}"
    "h1,h2,h3{line-height:1.25}a{color:#2563eb}img{max-width:100%}"
    "pre,code{font:.9em/1.5 ui-monospace,monospace;background:#8881;border-radius:.3em}"
    "code{padding:.1em .3em}pre{padding:.8em 1em;overflow:auto}pre code{padding:0;background:0}"
    "table{border-collapse:collapse}th,td{border:1px solid #8886;padding:.3em .7em}"
    "blockquote{margin-left:0;padding-left:1em;border-left:3px solid #8886}"
    "@media(prefers-color-scheme:dark){a{color:#7aa7ff}}"
)


@cache
def _parser() -> Any:
    """Return the parser; HTML in the text is shown as it is written."""
    markdown_it = importlib.import_module("markdown_it")
    return markdown_it.MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def check() -> None:
    """Raise UsageError where Markdown cannot be rendered."""
    try:
        _parser()
    except ImportError:
        raise UsageError(
            "the option markdown needs markdown-it-py; install it with: pip install "
            "'h2log[markdown]'"
        ) from None


def _title(tokens: list[Any], name: str) -> str:
    """Return the text of the first heading, the file's name without one."""
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            inline = tokens[place + 1]
            text = "".join(c.content for c in inline.children or () if not c.hidden)
            if text.strip():
                return text.strip()
    return name


class Page:
    """Turns the Markdown of `file` into a page."""

    def __init__(self, file: str) -> None:
        stem = os.path.splitext(os.path.basename(file))[0]
        self._name = stem.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def __call__(self, content: bytes) -> bytes:
        """Return the page; what is no UTF-8 becomes U+FFFD."""
        parser = _parser()
        tokens = parser.parse(content.decode("utf-8-sig", "replace"))
        title = html.escape(_title(tokens, self._name))
        body: str = parser.renderer.render(tokens, parser.options, {})
        return (
            f"<!doctype html>\n<html><head><meta charset=utf-8><title>{title}</title>\n"
            f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head>\n"
            f"<body>\n{body}</body></html>\n"
        ).encode()
