"""A folder's files as responses.

What is never served, always as 404: a name that begins with a dot, `..`, NUL, an encoded slash or
backslash, anything that is no regular file, and whatever a symbolic link leads to outside of the
folder or at such a name in it. The one name with a dot that is served is `.well-known`, directly
below `/` (RFC 8615).

Files up to `SMALL` are kept in memory, whole and ready; a kept file is compared with the disk at
most once a second. Larger ones are read as they are sent.

The parts are in `files/`: what a path means (`lookup`), which representation is sent
(`representation`), what stays in memory (`memory`), what conditions and ranges leave of a response
(`partial`). This is what puts them together for a request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Unpack

from h2log.app.files import listing
from h2log.app.files.compression import LEAST, compress, makeable
from h2log.app.files.descriptors import OpenFiles
from h2log.app.files.disk import Opened, Root, tell_trouble
from h2log.app.files.entry import Address, Entry
from h2log.app.files.lookup import SMALL, Found, Listed, Lookup, Redirect
from h2log.app.files.memory import OUT, Memory
from h2log.app.files.negotiation import (
    IDENTITY,
    choose_media,
    codings_of,
    is_https,
    part_wish,
    wish,
)
from h2log.app.files.options import StaticOptions, choices
from h2log.app.files.partial import OpenWhole, Whole, all_of, narrowed
from h2log.app.files.paths import segments
from h2log.app.files.reload import CHANGES
from h2log.app.files.representation import Representations, narrowed_wish
from h2log.app.files.rules import Security
from h2log.app.files.threads import FILE_THREADS, LISTING_THREADS, Flights, in_thread
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError, UsageError

__all__ = ["CHECK_INTERVAL", "FILE_THREADS", "SMALL", "StaticFolder", "StaticOptions"]

CHECK_INTERVAL: Final = 1.0
"""Seconds for which a kept file is believed (nginx's open_file_cache_valid: 60)."""

_PAGES_IN_NEED: Final = ("500.html", "502.html", "503.html", "504.html", "50x.html")
"""Pages that are read when the server starts: when they are needed, perhaps nothing can be read."""
# What a page that stands for an error does not have: it is not the file that was asked for.
_OF_THE_FILE: Final = frozenset(("accept-ranges", "cache-control", "etag", "last-modified", "link"))
_ALLOWED: Final = "GET, HEAD, OPTIONS"
_SPA_VARIES: Final = "accept, sec-fetch-dest"
"""What tells a browser that goes to a page from other clients."""
_NAVIGATIONS: Final = frozenset(("document", "embed", "fencedframe", "frame", "iframe", "object"))


class StaticFolder:
    """Answers GET and HEAD with the files of `root`; a folder's file is its `index.html`.

    `prefix` is the part of the URL path that stands for the folder; `cache_bytes` bounds the
    memory for small files; the options are those of `StaticOptions`. Raises FileNotFoundError or
    NotADirectoryError for a wrong root, UsageError for a wrong option.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        prefix: str,
        cache_bytes: int,
        **options: Unpack[StaticOptions],
    ) -> None:
        self._choices = chosen = choices(options)
        if chosen.spa and not all(segments(chosen.spa) or [""]):
            raise UsageError(f"the static folder's option spa: {chosen.spa!r} is no file inside it")
        self._root = Root(root, well_known=prefix == "/")
        self.root = self._root.path
        self.prefix = prefix
        self._security = Security(chosen.security)
        self._addresses: dict[str, Address] = {}
        self.memory = Memory[Entry](cache_bytes, self._forget)
        self._flights = Flights()
        self._open = OpenFiles()
        self._lookup = Lookup(self._root, prefix, chosen, self.memory.entries.get)
        self._representations = Representations(
            self._lookup, self.memory, self._flights, chosen, self._security, f"{prefix}*"
        )
        if chosen.spa and self._lookup.file(chosen.spa) is None:
            raise UsageError(
                f"the static folder's option spa: there is no file {chosen.spa!r} in {self.root}; "
                "build it before the server starts, or name the one that is there"
            )
        self._missing = [("cache-control", "no-cache")]
        if chosen.spa:
            self._missing.append(("vary", _SPA_VARIES))
        self._codings = makeable() if chosen.compress else ()
        self._interval = -1.0 if chosen.watch else CHECK_INTERVAL
        self._in_need: dict[str, Entry] = {}
        if chosen.pages:
            for name in _PAGES_IN_NEED:
                found = self._lookup.file(name)
                if found is not None and found.entry.content is not None:
                    self._in_need[name] = found.entry
        self.changes: Callable[[], Response] | None = None
        """Set by who watches the disk (`server/watch.py`): answers a page that wants to be told."""

    @property
    def watched(self) -> bool:
        """Whether open pages are to load anew when a file changes."""
        return self._choices.watch

    # From memory

    def kept(self, path: str, now: float, wished: str = IDENTITY) -> Response | None:
        """Return the whole response for a plain GET or HEAD of a raw URL path, if it is in memory.

        `now` is the monotonic time; once a second the file on the disk is looked at. `wished` is
        the request's wish (see `files.negotiation`). For a part of a large file that is open it
        is an `OpenWhole`, which has no content.
        """
        address = self._addresses.get(path)
        if address is None or (now > address.until and not self._still(path, address, now)):
            return None
        return address.shown.get(wished)

    def _still(self, path: str, address: Address, now: float) -> bool:
        """Look at the disk: believe an address for another while, or forget it."""
        entry = address.entry
        if entry.still(address.file):
            address.until = now + self._interval
            self.memory.used(entry)
            return True
        self._addresses.pop(path, None)
        entry.addresses.pop(path, None)
        if not entry.addresses:
            self.memory.drop(entry)
        return False

    def _forget(self, entry: Entry) -> None:
        for path in entry.addresses:
            self._addresses.pop(path, None)
        entry.addresses.clear()
        self._open.drop(entry)

    def _known(self, path: str, now: float) -> Entry | None:
        address = self._addresses.get(path)
        if address is None or (now > address.until and not self._still(path, address, now)):
            return None
        return address.entry

    def _remember(self, found: Found, path: str, now: float) -> None:
        """Keep what was found in memory, if it is worth it, and where."""
        entry = found.entry
        known = self.memory.entries.get(entry.key)
        if known is entry:
            self.memory.used(entry)
        elif known is not None and known.current(entry.version, entry.beside):
            found.entry = entry = known  # two spellings were looked up at once
        else:
            self.memory.put(entry)
        if entry.part == OUT:
            return
        surplus = entry.surplus_address(path)
        if surplus == path:
            return
        if surplus is not None:
            self._addresses.pop(surplus, None)
            entry.addresses.pop(surplus)
        # The short way knows neither Accept nor hints.
        shown = _NOTHING if entry.vary or entry.links else entry.shown
        address = Address(entry, found.file, now + self._interval, shown)
        entry.addresses[path] = self._addresses[path] = address
        self.memory.grown(entry, entry.weigh())

    # Answering

    def answer(self, request: Request, now: float) -> Response | Awaitable[Response]:
        """Answer a request for something below the prefix; awaits only for what is not in memory.

        Raises HTTPError 404, 405, 412, 416 and 503, with the folder's security fields.
        """
        if request.method not in ("GET", "HEAD"):
            if request.method == "OPTIONS":
                return self.options(request)
            raise self._strict(request, HTTPError(405, headers=(("allow", _ALLOWED),)))
        path = request.raw_path
        if self.changes is not None and path == self.prefix + CHANGES:
            return self.changes()
        page = self._choices.markdown and _wants_page(request)
        wished = wish(request.scheme, request.fields)
        entry = self._known(f"\0{path}", now) if page else None
        if entry is None:
            entry = self._known(path, now)
            if page and entry is not None and entry.vary:  # what others get, who want no page
                entry = None
        whole = None
        if entry is not None:
            chosen = narrowed_wish(wished, request, entry)
            whole = self._representations.ready(entry, chosen)
        if entry is None or whole is None:
            request.cache = "miss"
            if entry is not None and entry.content is None:
                whole = self._representations.large(entry, chosen)
                kept = None if whole is None else self._open.open(entry)
                opened = None if kept is None else kept.again()
                if whole is not None and kept is not None and opened is not None:
                    _hint(request, entry)
                    if "range" in request.headers:
                        self._show_open(entry, part_wish(request.scheme), whole, kept)
                    return self._narrowed(request, whole, opened)
            return self._load(request, path, page, wished, now)
        request.cache = "hit"
        _hint(request, entry)
        return self._narrowed(request, whole)

    def _show_open(self, entry: Entry, wished: str, whole: Whole, opened: Opened) -> None:
        """Have the parts of a large file that is open sent the short way (see `kept`)."""
        shown = entry.shown.get(wished)
        if not isinstance(shown, OpenWhole) or shown.opened is not opened:
            entry.show(wished, OpenWhole(whole, opened, f"{self.prefix}*"))

    def _narrowed(self, request: Request, whole: Whole, opened: Opened | None = None) -> Response:
        try:
            return narrowed(request, whole, opened)
        except HTTPError as error:
            raise self._strict(request, error) from None

    def rest(self) -> None:
        """Let go of open files that nobody asks for; to be called every now and then."""
        self._open.rest()

    def close(self) -> None:
        """Let go of all open files."""
        self._open.close()

    def options(self, request: Request) -> Response:
        """Answer OPTIONS on whatever is below the prefix (RFC 9110 section 9.3.7)."""
        return Response(b"", 204, [("allow", _ALLOWED), *self._security_of(request)])

    async def _load(
        self, request: Request, path: str, page: bool, wished: str, now: float
    ) -> Response:
        below = path[len(self.prefix) :]
        try:
            found = await self._find((below, page), lambda: self._lookup.find(below, page))
            if isinstance(found, Found):
                self._remember(found, f"\0{path}" if page and found.entry.vary else path, now)
                _hint(request, found.entry)
                wished = narrowed_wish(wished, request, found.entry)
                whole, opened = await self._representations.choose(found, wished)
                if opened is not None and opened is found.opened and found.entry.part != OUT:
                    self._open.keep(found.entry, opened)
                return narrowed(request, whole, opened)
            if isinstance(found, Redirect):
                return self._redirect(request, found)
            if isinstance(found, Listed):
                return await self._list(request, found, wished)
            # What no file can be called is no page of an application either, nor is what is
            # well known: that it is not there has to be told (RFC 8615).
            spa = self._choices.spa and segments(below) is not None
            if spa and _is_navigation(request):
                fallback = await self._file(
                    self._choices.spa, lambda entry: narrowed_wish(wished, request, entry), now
                )
                if fallback is not None:
                    return _varying(narrowed(request, *fallback))
            raise HTTPError(404)
        except HTTPError as error:
            response = None
            if error.status == 404 or error.status >= 500:
                response = await self.error_page(request, error.status, now)
            if response is None:
                raise self._strict(request, error) from None
            return _varying(response) if self._choices.spa else response

    def _security_of(self, request: Request) -> list[tuple[str, str]]:
        """Return the security fields of what is no file's content, where they are asked for."""
        if self._choices.security is False:
            return []
        return self._security.fields(request.scheme == "https")

    def _strict(self, request: Request, error: HTTPError) -> HTTPError:
        """Return an error with the fields that the folder's responses have.

        Another one: of work that several wait for each is given the same.
        """
        fields = self._missing if error.status == 404 else []
        return HTTPError(
            error.status, error.detail, (*error.headers, *fields, *self._security_of(request))
        )

    async def _find(
        self, key: Hashable, work: Callable[[], Found | Redirect | Listed | None]
    ) -> Found | Redirect | Listed | None:
        """Look for something on the disk, once for all that ask for it now."""
        found = await self._flights.run(key, work)
        if isinstance(found, Found):
            # A large file is opened again when the one that another request took is closed by now.
            return found.own() or await in_thread(work)
        return found

    async def _file(
        self, name: str, wished: Callable[[Entry], str], now: float
    ) -> tuple[Whole, Opened | None] | None:
        """Return a file of the folder by its name, None when there is none.

        `wished` tells from which of its representations to choose; the open file is a large one's.
        """
        where = f"\0{name}"
        entry = self._known(where, now)
        whole = None if entry is None else self._representations.ready(entry, wished(entry))
        if whole is not None:
            return whole, None
        found = await self._find(("file", name), lambda: self._lookup.file(name))
        if not isinstance(found, Found):
            return None
        self._remember(found, where, now)
        return await self._representations.choose(found, wished(found.entry))

    async def error_page(self, request: Request, status: int, now: float) -> Response | None:
        """Return the folder's own page for an error, None when it has none.

        That is `404.html` for a 404, and so on, else `40x.html` or `50x.html`. A page for a 5xx
        that cannot be read now is sent as it was when the server started.
        """
        if not self._choices.pages:
            return None
        wished = wish(request.scheme, request.fields)
        for name in (f"{status}.html", f"{status // 10}x.html"):
            try:
                found = await self._file(name, lambda entry: wished, now)
            except HTTPError:
                whole = self._representations.plain(self._in_need.get(name), wished)
                found = None if whole is None else (whole, None)
            if found is not None:
                page = all_of(*found)
                fields = [pair for pair in page.headers if pair[0] not in _OF_THE_FILE]
                return Response(page.body, status, [*fields, ("cache-control", "no-cache")])
        return None

    def _redirect(self, request: Request, found: Redirect) -> Response:
        _, mark, query = request.target.partition("?")
        # A client may send "#" as it is, where a browser would take it for a fragment's.
        location = f"{self.prefix}{found.path}{mark}{query.replace('#', '%23')}"
        response = Response.redirect(location, 308)
        response.headers += self._security_of(request)
        return response

    async def _list(self, request: Request, listed: Listed, wished: str) -> Response:
        """Return what is in a folder: made anew each time, for it depends on all that is there.

        But once for all that ask for the same now, and apart from what reads files.
        """
        order = listing.order_of(request.query.get("sort"), request.query.get("order"))
        media, _ = choose_media(request.headers.joined("accept"), ("text/html", "application/json"))
        json = media == "application/json"
        prefix = self.prefix
        coding = next((c for c in codings_of(wished) if c in self._codings), IDENTITY)

        def make() -> tuple[bytes, str]:
            try:
                items, more = listing.scan(self._root, listed.folder, order)
            except OSError as error:
                tell_trouble(error)
                raise HTTPError(404) from None
            if json:
                content = listing.as_json(items)
            else:
                content = listing.as_page(prefix, listed.names, items, more, order)
            smaller = None
            if coding != IDENTITY and len(content) >= LEAST:
                smaller = compress(content, coding, quick=True)
            return (content, "") if smaller is None else (smaller, coding)

        key = ("list", listed, order, json, coding)
        content, applied = await self._flights.run(key, make, LISTING_THREADS)
        fields = dict(self._security.fields(is_https(wished)))
        fields["content-security-policy"] = listing.POLICY
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = [
            ("content-type", "application/json" if json else "text/html; charset=utf-8"),
            *([("content-encoding", applied)] if applied else []),
            ("etag", etag),
            ("cache-control", "no-cache"),
            ("vary", "accept, accept-encoding"),
            *fields.items(),
        ]
        whole = Whole(content, headers, etag=etag, modified=None, size=len(content))
        return narrowed(request, whole)


_NOTHING: Final[dict[str, Whole]] = {}


def _wants_page(request: Request) -> bool:
    """Say whether a client wants Markdown as a page: browsers name text/html."""
    media, named = choose_media(
        request.headers.joined("accept"), ("text/html", "text/markdown", "text/plain")
    )
    return named and media == "text/html"


def _is_navigation(request: Request) -> bool:
    """Say whether a browser goes to a page, and does not fetch something for one.

    By Sec-Fetch-Dest where it is said; else by an Accept that names text/html; else, of clients
    that take anything, by a last name without a dot.
    """
    target = request.headers.get("sec-fetch-dest")
    if target is not None:
        return target.strip().lower() in _NAVIGATIONS
    media, named = choose_media(request.headers.joined("accept"), ("text/html",))
    if named:
        return True
    return media is not None and "." not in request.raw_path.rpartition("/")[2]


def _hint(request: Request, entry: Entry) -> None:
    """Tell a page's style sheets before the page, to a client that may not have them yet.

    To clients that are known to take a 103 (RFC 8297 section 3): those that speak HTTP/2, whose
    requests have no Host, and browsers that go to a page.
    """
    if not entry.links or request.method != "GET" or "if-none-match" in request.headers:
        return
    if "host" not in request.headers or request.headers.get("sec-fetch-mode") == "navigate":
        request.early_hints(*entry.links)


def _varying(response: Response) -> Response:
    """Return a response that depends on whether a browser goes to a page."""
    varies = _SPA_VARIES
    headers = []
    for name, value in response.headers:
        if name == "vary":
            varies = f"{value}, {varies}"
        else:
            headers.append((name, value))
    return Response(response.body, response.status, [*headers, ("vary", varies)])
