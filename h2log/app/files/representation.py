"""Which representation of a file a request gets, and how it is made (RFC 9110 section 12.5.3).

Of the codings that a client takes, the best first: a compressed neighbour on the disk, else what
is compressed here, once a version and coding, and kept; a file that is not in memory is not
compressed, for the result could not stay there either. Where none is to be had the content goes as
it is: also to a client that excludes that, as section 12.4.1 allows, rather than nothing.

Each coding has an entity tag of its own (section 8.8.3.3), and what may differ says so in Vary.
"""

from __future__ import annotations

from functools import partial

from h2log.app.conditional import lists
from h2log.app.files.compression import LEAST, MOST, compress, makeable
from h2log.app.files.disk import Opened
from h2log.app.files.entry import Entry
from h2log.app.files.lookup import SMALL, Found, Lookup
from h2log.app.files.media import compressible
from h2log.app.files.memory import OUT, Memory
from h2log.app.files.negotiation import IDENTITY, codings_of, is_https, with_codings
from h2log.app.files.options import Choices
from h2log.app.files.partial import Whole
from h2log.app.files.rules import Security
from h2log.app.files.threads import PACKING_THREADS, Flights, in_thread
from h2log.app.request import Request
from h2log.clock import http_date

__all__ = ["Representations", "narrowed_wish"]


def narrowed_wish(wished: str, request: Request, entry: Entry) -> str:
    """Return what to choose from of a file for a request: of ranges, if it has any, or as wished.

    They are of the representation that was selected, codings and all (section 14.2): a client that
    asks for a part means the file's own bytes, unless its If-Range has the tag of an encoded one,
    or its If-Match only such tags. What If-Match excludes is not selected for If-Range.
    """
    headers = request.headers
    if request.method != "GET" or "range" not in headers:  # a Range is defined for GET alone
        return wished
    match = headers.joined("if-match")
    matching = [
        coding
        for coding in codings_of(wished)
        if coding != IDENTITY and (match is None or lists(match, entry.etag(coding)))
    ]
    tag = headers.get("if-range", "").strip().removesuffix('"')
    for coding in matching:
        if tag.endswith(f"-{coding}"):
            return with_codings(wished, (coding, IDENTITY))
    if matching and match is not None and not lists(match, entry.etag()):
        return with_codings(wished, (matching[0], IDENTITY))
    return with_codings(wished, (IDENTITY,))


class Representations:
    """Makes and keeps the representations of a folder's files."""

    def __init__(
        self,
        lookup: Lookup,
        memory: Memory[Entry],
        flights: Flights,
        choices: Choices,
        security: Security,
        route: str,
    ) -> None:
        self._route = route
        self._lookup = lookup
        self._memory = memory
        self._flights = flights
        self._makeable = frozenset(makeable()) if choices.compress else frozenset()
        self._security = security

    def ready(self, entry: Entry, wished: str) -> Whole | None:
        """Return the representation of a kept file for a wish, None when there is work to do."""
        shown = entry.shown.get(wished)
        if shown is not None:
            return shown
        for coding in codings_of(wished):
            if coding == IDENTITY:
                break
            if coding in entry.encoded:
                encoded = entry.encoded[coding]
                if encoded is not None:
                    return self._kept(entry, wished, coding, *encoded)
            elif coding in entry.usable or self._is_to_be_made(entry, coding):
                return None
        if entry.content is None:
            return None
        return self._kept(entry, wished, "", entry.content, entry.tag)

    async def choose(self, found: Found, wished: str) -> tuple[Whole, Opened | None]:
        """Return the representation of a file for a wish, and its open file if it is a large one.

        `found` is the caller's own (see `Found.own`). Raises HTTPError 503.
        """
        entry = found.entry
        ready = self.ready(entry, wished)
        if ready is not None:
            return ready, None
        for coding in codings_of(wished):
            if coding == IDENTITY:
                break
            neighbour = entry.usable.get(coding)
            if neighbour is not None and neighbour.identity[3] > SMALL:
                opened = await in_thread(partial(self._lookup.open_neighbour, neighbour))
                if opened is not None:
                    tag = f"{entry.tag}-{neighbour.tag}-{coding}"
                    return self._whole(entry, wished, coding, opened.version.size, tag), opened
                entry.usable.pop(coding, None)
            encoded = await self._encoded(entry, coding)
            if encoded is not None:
                return self._kept(entry, wished, coding, *encoded), None
        if entry.content is not None:
            return self._kept(entry, wished, "", entry.content, entry.tag), None
        return self._whole(entry, wished, "", entry.size, entry.tag), found.opened

    def large(self, entry: Entry, wished: str) -> Whole | None:
        """Return the representation of a file that is not in memory, sent as it is.

        None when a wish means another one, or may.
        """
        for coding in codings_of(wished):
            if coding == IDENTITY:
                break
            made = entry.encoded.get(coding, coding)
            if coding in entry.usable or (made is not None and self._is_to_be_made(entry, coding)):
                return None
        face = "large" if is_https(wished) or not self._security.varies else "large http"
        whole = entry.wholes.get(face)
        if whole is None:
            whole = entry.wholes[face] = self._whole(entry, wished, "", entry.size, entry.tag)
        return whole

    def plain(self, entry: Entry | None, wished: str) -> Whole | None:
        """Return a file's content without coding, None where there is no such file in memory."""
        if entry is None or entry.content is None:
            return None
        return self._kept(entry, wished, "", entry.content, entry.tag)

    async def _encoded(self, entry: Entry, coding: str) -> tuple[bytes, str] | None:
        """Return encoded content and the text of its tag, None when there is none to be had."""
        if coding in entry.encoded:
            return entry.encoded[coding]
        encoded: tuple[bytes, str] | None = None
        key = (entry.key, entry.tag, coding)
        neighbour = entry.usable.get(coding)
        if neighbour is not None:
            work = partial(self._lookup.read_neighbour, neighbour)
            read = await self._flights.run(key, work)
            if read is None:
                entry.usable.pop(coding, None)
            else:
                encoded = read[1], f"{entry.tag}-{read[0].tag}-{coding}"
        if encoded is None:
            if not self._is_to_be_made(entry, coding):
                return None
            made = await self._flights.run(
                (*key, "made"), partial(self._make, entry, coding), PACKING_THREADS
            )
            if made is not None:
                encoded = made, f"{entry.tag}-{coding}"
        entry.encoded.setdefault(coding, encoded)
        self._memory.grown(entry, entry.weigh())
        return encoded

    def _is_to_be_made(self, entry: Entry, coding: str) -> bool:
        return (
            coding in self._makeable
            and LEAST <= entry.size <= MOST
            and compressible(entry.media)
            and entry.part != OUT
            # Whatever it comes to, it can stay.
            and entry.cost + entry.size <= self._memory.limit
        )

    def _make(self, entry: Entry, coding: str) -> bytes | None:
        """Compress a file's content; in a thread."""
        content = entry.content
        if content is None:
            content = self._lookup.read_again(entry)
        return None if content is None else compress(content, coding)

    def _kept(self, entry: Entry, wished: str, coding: str, content: bytes, tag: str) -> Whole:
        """Return the prepared response with a content, made when it is first wished for."""
        face = coding if is_https(wished) or not self._security.varies else f"{coding} http"
        whole = entry.wholes.get(face)
        if whole is None:
            whole = self._whole(entry, wished, coding, len(content), tag, content)
            whole.route = self._route
            entry.wholes[face] = whole
            self._memory.grown(entry, entry.weigh())
        entry.show(wished, whole)
        return whole

    def _whole(
        self, entry: Entry, wished: str, coding: str, size: int, tag: str, content: bytes = b""
    ) -> Whole:
        version = entry.version
        etag = f'"{tag}"'
        headers = [("content-type", entry.media)]
        if coding:
            headers.append(("content-encoding", coding))
        headers.append(("last-modified", http_date(version.modified)))
        headers.append(("etag", etag))
        headers.append(("accept-ranges", "bytes"))
        if entry.cache:
            headers.append(("cache-control", entry.cache))
        varies = [entry.vary] if entry.vary else []
        if entry.negotiable:
            varies.append("accept-encoding")
        if varies:
            headers.append(("vary", ", ".join(varies)))
        headers += [("link", link) for link in entry.links]
        headers += self._security.fields(is_https(wished))
        return Whole(content, headers, etag=etag, modified=version.modified, size=size)
