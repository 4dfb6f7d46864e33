"""What can be chosen of a folder that is served, and what is meant when nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypedDict

from h2log.errors import UsageError

__all__ = ["Choices", "StaticOptions", "choices"]


class StaticOptions(TypedDict, total=False):
    """The options of a folder: `App.static(folder, at, cache_bytes, **options)`."""

    precompressed: bool
    """Serve `name.br`, `name.zst` and `name.gz` beside `name` to clients that take them, unless
    they are older than it. On by default."""

    compress: bool
    """Compress text and what is like it from 1 KiB up to 2 MiB when it is asked for, once a
    version; gzip always, br and zstd where `brotli` and `zstandard` are installed (extra
    `compression`). On by default."""

    clean_urls: bool | Literal["redirect"]
    """`/guide` is `guide.html` where there is no `guide`. On by default; with `redirect`,
    `/guide.html` and `/index.html` lead to `/guide` and `/` (308), so that each page has one
    address."""

    pages: bool
    """Send the folder's own `404.html`, `503.html` or `50x.html` with errors. On by default."""

    spa: str
    """A file, such as `index.html`, that answers what is not there when a browser goes to a page:
    for applications that route in the client. It has to be there when the server starts. None by
    default."""

    listing: bool
    """Answer a folder without `index.html` with what is in it: a page, or JSON for a client that
    prefers `application/json`. Off by default: it tells names that nobody linked to."""

    cache_control: Mapping[str, str]
    """Values of Cache-Control by pattern, before the usual rules; the first that matches counts,
    and an empty value is no field. A pattern without a slash is for names (`*.css`), one with a
    slash for paths below the folder (`assets/*`; `*` also stands for slashes)."""

    markdown: bool
    """Render `*.md` as a page for clients that name text/html, and for `/guide` where there is
    no `guide` or `guide.html`; `index.md` and `README.md` are a folder's index after `index.html`.
    HTML in it is shown, not obeyed. Off by default; needs `markdown-it-py` (extra `markdown`)."""

    early_hints: bool
    """Tell a client a page's style sheets before the page (103, RFC 8297), and with it. Off by
    default: a page from memory is as fast as its hints, and goes another, slower way with them."""

    security: bool | Mapping[str, str]
    """Send the header fields that tell a browser to be strict: see `rules.SECURITY`. A mapping adds
    fields to them, or replaces them; an empty value leaves one out. Off by default: they can break
    pages that are framed by others, or open windows of others."""

    watch: bool
    """Have open pages load anew when a file changes (for authors): puts a script into HTML, and
    looks at the disk for each request. Off by default; needs `watchfiles` (extra `watch`) and a
    `server.watch.Watcher`."""


class Choices(NamedTuple):
    """`StaticOptions`, complete."""

    precompressed: bool = True
    compress: bool = True
    clean_urls: bool | Literal["redirect"] = True
    pages: bool = True
    spa: str = ""
    listing: bool = False
    cache_control: Mapping[str, str] = {}
    markdown: bool = False
    early_hints: bool = False
    security: bool | Mapping[str, str] = False
    watch: bool = False


_SWITCHES: Final = frozenset(
    ("precompressed", "compress", "pages", "listing", "markdown", "early_hints", "watch")
)


def choices(options: Mapping[str, Any]) -> Choices:
    """Return the options with their defaults. Raises UsageError that names a wrong one."""
    for name, value in options.items():
        if name not in Choices._fields:
            known = ", ".join(Choices._fields)
            raise UsageError(f"a static folder has no option {name!r}; there are {known}")
        fault = _fault(name, value)
        if fault:
            raise UsageError(f"the static folder's option {name} must be {fault}, got {value!r}")
    return Choices(**options)


def _fault(name: str, value: object) -> str:
    """Return what a value should have been, nothing when it is."""
    if name in _SWITCHES:
        return "" if isinstance(value, bool) else "True or False"
    if name == "clean_urls":
        return "" if isinstance(value, bool) or value == "redirect" else "True, False or 'redirect'"
    if name == "spa":
        return "" if isinstance(value, str) else "the name of a file, such as 'index.html'"
    if name == "security" and isinstance(value, bool):
        return ""
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    ):
        return ""
    if name == "security":
        return "True, False, or header fields as a mapping of texts"
    return "a mapping of patterns to texts"
