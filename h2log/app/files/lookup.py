"""What a path means in a folder: a file, another address, a folder, or nothing.

The order in which names are tried is that of `try_files $uri $uri.html $uri/`, as most static sites
are served: the name itself, with clean URLs the page of that name, then the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from h2log.app.files import hints, markdown, reload
from h2log.app.files.compression import MOST
from h2log.app.files.disk import Folder, Opened, Root, Version
from h2log.app.files.entry import Entry, Neighbour, neighbours
from h2log.app.files.media import HTML, MARKDOWN, media_type
from h2log.app.files.options import Choices
from h2log.app.files.paths import coded, segments
from h2log.app.files.rules import CacheRules

__all__ = ["SMALL", "Found", "Listed", "Lookup", "Redirect"]

SMALL: Final = 256 * 1024
"""Bytes of the largest file that is kept in memory (nginx's and Caddy's caches keep none; h2o's
first write is 64 KiB; a page's images and fonts are below this)."""


class Redirect(NamedTuple):
    """Another address, below the folder's prefix, percent-coded."""

    path: str


class Listed(NamedTuple):
    """A folder to be listed, and the names that lead to it."""

    folder: Folder
    names: tuple[str, ...]


class Found:
    """A file: `entry`, the path `file` at which it was found, and, of a large one, `opened`."""

    __slots__ = ("entry", "file", "opened")

    def __init__(self, entry: Entry, file: str, opened: Opened | None) -> None:
        self.entry = entry
        self.file = file
        self.opened = opened

    def own(self) -> Found | None:
        """Return this for one request, with the open file or a share; None when there is none."""
        if self.opened is None:
            return self
        opened = self.opened.move()
        return None if opened is None else Found(self.entry, self.file, opened)


class Lookup:
    """Finds what paths mean. Everything but making it blocks, and runs in a thread."""

    def __init__(
        self,
        root: Root,
        prefix: str,
        choices: Choices,
        known: Callable[[str], Entry | None],
    ) -> None:
        self._root = root
        self._prefix = prefix
        self._choices = choices
        self._well_known = prefix == "/"
        self._rules = CacheRules(choices.cache_control)
        self._known = known
        self._pages = (".html", ".md") if choices.markdown else (".html",)
        self._indexes: tuple[str, ...] = ("index.html",)
        if choices.markdown:
            markdown.check()
            self._indexes += ("index.md", "README.md")

    def find(self, path: str, page: bool) -> Found | Redirect | Listed | None:
        """Find what a raw URL path behind the prefix means.

        `page` says that the client wants Markdown as a page. Raises HTTPError 503.
        """
        names = segments(path, well_known=self._well_known)
        if names is None:
            return None
        *parents, name = names
        base = os.path.join(self._root.path, *parents)
        if not name:
            return self._index(base, parents)
        file = os.path.join(base, name)
        found = self._root.open(file)
        if isinstance(found, Opened):
            clean = self._clean(parents, name, file)
            if clean is not None:
                return Redirect(clean)
            return self._found(found, file, page, asked=True)
        if self._choices.clean_urls:
            for suffix in self._pages:
                near = self._root.open(file + suffix)
                if isinstance(near, Opened):
                    if name + suffix == "index.html" and self._choices.clean_urls == "redirect":
                        return Redirect(_folder(parents))
                    return self._found(near, file + suffix, page=True)
        return None if found is None else Redirect(_folder(names))

    def file(self, name: str) -> Found | None:
        """Find a file of the folder by the path below it, as a page. Raises HTTPError 503."""
        file = os.path.join(self._root.path, name)
        found = self._root.open(file)
        return self._found(found, file, page=True) if isinstance(found, Opened) else None

    def _index(self, base: str, parents: list[str]) -> Found | Listed | None:
        for name in self._indexes:
            file = os.path.join(base, name)
            found = self._root.open(file)
            if isinstance(found, Opened):
                return self._found(found, file, page=True)
        if self._choices.listing:
            folder = self._root.open(base)
            if isinstance(folder, Folder):
                return Listed(folder, tuple(parents))
        return None

    def _clean(self, parents: list[str], name: str, file: str) -> str | None:
        """Return the one address of a page, where that is another than its file's name."""
        if self._choices.clean_urls != "redirect":
            return None
        stem, suffix = os.path.splitext(name)
        if suffix != ".html":  # Markdown has an address of its own, for its source
            return None
        if stem == "index":
            return _folder(parents)
        bare = file.removesuffix(suffix)
        if os.path.lexists(bare) and not os.path.isdir(bare):
            return None  # the clean address is another file's
        return coded([*parents, stem])

    def _found(self, opened: Opened, file: str, page: bool, *, asked: bool = False) -> Found:
        """Return a file, with its content where that is small; from memory if it is there.

        `asked`: by the very name of the file, where `page` is the client's wish.
        """
        root, resolved, version = self._root, opened.resolved, opened.version
        media = media_type(file)
        vary, suffix = "", ""
        content: bytes | None = None
        most = SMALL
        render: Callable[[bytes], bytes] | None = None
        if self._choices.markdown and media == MARKDOWN and version.size <= MOST:
            vary = "accept" if asked else ""
            if page:
                media, suffix, most, render = HTML, "-page", MOST, markdown.Page(file)
        if self._choices.watch and media == HTML and version.size <= MOST:
            most, suffix = MOST, f"{suffix}-watched"
            render = reload.Watched(self._prefix, render)
        cache = self._rules.value(root.relative(file), media)
        key = "\0".join((resolved, media, cache, suffix, vary))
        # What is rendered has no compressed neighbour: that would be of its source.
        beside = neighbours(resolved) if self._choices.precompressed and render is None else ()
        known = self._known(key)
        if known is not None and known.current(version, beside):
            return Found(known, file, opened if known.content is None else None)
        if version.size <= most:
            version, content = opened.read(most)
            if render is not None:
                content = render(content)
        links: tuple[str, ...] = ()
        if self._choices.early_hints and media == HTML and content is not None:
            links = hints.style_links(content)
        entry = Entry(
            key, resolved, version, media, content,
            cache=cache, vary=vary, tag=suffix, beside=beside, links=links,
        )  # fmt: skip
        return Found(entry, file, opened if content is None else None)

    def read_neighbour(self, neighbour: Neighbour) -> tuple[Version, bytes] | None:
        """Return the content of a small compressed neighbour, None when it is none any more."""
        opened = self.open_neighbour(neighbour)
        if opened is None:
            return None
        version, content = opened.read(SMALL)
        return (version, content) if version.identity == neighbour.identity else None

    def open_neighbour(self, neighbour: Neighbour) -> Opened | None:
        """Open a compressed neighbour, None when it is none any more, or leads outside."""
        opened = self._root.open(neighbour.file)
        if isinstance(opened, Opened) and opened.version.identity == neighbour.identity:
            return opened
        return None

    def read_again(self, entry: Entry) -> bytes | None:
        """Return the content of a file too large to be kept, None when it is another by now."""
        opened = self._root.open(entry.resolved)
        if not isinstance(opened, Opened):
            return None
        version, content = opened.read(MOST)
        return content if version.identity == entry.version.identity else None


def _folder(names: list[str]) -> str:
    return coded([*names, ""])
