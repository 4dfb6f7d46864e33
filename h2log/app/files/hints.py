"""The style sheets of a page, as links to be told before it (RFC 8297, RFC 8288)."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

__all__ = ["style_links"]

_HEAD_BYTES: Final = 64 * 1024
"""Bytes of a page in which its head is looked for."""
_MOST_LINKS: Final = 8
"""Links of one page that are told: more would not come sooner for being told together."""
_LONGEST: Final = 1024
_DROPPED: Final = dict.fromkeys(map(ord, "\t\n\r"))  # as browsers do (WHATWG URL, section 4.4)
_SHOWN: Final = frozenset(("", "all", "screen"))
_AS_THEY_ARE: Final = "!#$%&'()*+,/:;=?@[]~"
"""Characters of a reference that stay; all but the unreserved ones are otherwise coded."""


class _Head(HTMLParser):
    """Gathers the style sheets of a page's head."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.over = False
        self._base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.over:
            return
        values = {name: value or "" for name, value in reversed(attrs)}  # the first counts
        if tag == "base" and not self._base:
            self._base = values.get("href", "")
        elif tag == "link":
            self._link(values)
        elif tag == "body":
            self.over = True

    def handle_endtag(self, tag: str) -> None:
        self.over = self.over or tag == "head"

    def _link(self, values: dict[str, str]) -> None:
        kinds = values.get("rel", "").lower().split()
        if "stylesheet" not in kinds or "alternate" in kinds or "disabled" in values:
            return
        if values.get("media", "").strip().lower() not in _SHOWN:
            return
        try:
            href = values.get("href", "").strip().translate(_DROPPED)
            target = urljoin(self._base, href)
            scheme = urlsplit(target).scheme
        except ValueError:
            return
        target = quote(target, safe=_AS_THEY_ARE)
        if not target or len(target) > _LONGEST or scheme not in ("", "http", "https"):
            return
        link = f"<{target}>; rel=preload; as=style"
        if "crossorigin" in values:
            # A request with other credentials would not be the one that the page makes.
            given = values["crossorigin"].strip().lower()
            link += "; crossorigin" + ("=use-credentials" if given == "use-credentials" else "")
        if link not in self.links and len(self.links) < _MOST_LINKS:
            self.links.append(link)


def style_links(page: bytes) -> tuple[str, ...]:
    """Return the values of Link that preload the style sheets in a page's head.

    Those that are shown on screens, in their order; relative ones stay so, for a Link is relative
    to the page's own address.
    """
    head = _Head()
    try:
        head.feed(page[:_HEAD_BYTES].decode("utf-8", "replace"))
    except AssertionError:  # how the parser says that a declaration is none
        pass
    return tuple(head.links)
