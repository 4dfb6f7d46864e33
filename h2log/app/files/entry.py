"""A file as it is served: its version, and the representations that were made of it so far."""

from __future__ import annotations

import os
from typing import Final

from h2log.app.files.disk import Identity, Version, identity
from h2log.app.files.media import compressible
from h2log.app.files.memory import OUT
from h2log.app.files.negotiation import CODINGS
from h2log.app.files.partial import Whole
from h2log.app.files.paths import is_normal

__all__ = ["ENTRY_OVERHEAD", "Address", "Entry", "Neighbour", "neighbours"]

ENTRY_OVERHEAD: Final = 2048
"""Bytes that an entry takes besides its content, so that many tiny files are bounded too."""
_WHOLE_OVERHEAD: Final = 1024
"""Bytes that each further representation takes besides its content."""
_USUAL_PATH: Final = 512
"""Characters of a URL path that `ENTRY_OVERHEAD` covers."""
_MOST_SHOWN: Final = 16
"""Wishes whose answer is prepared: clients have a handful, and could make up a hundred."""
_MOST_ADDRESSES: Final = 8
"""Paths under which one file is remembered: the same file can be spelled in very many ways."""

_SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
_COMPRESSED: Final = tuple(_SUFFIXES.values())
assert tuple(_SUFFIXES) == CODINGS


class Neighbour:
    """A compressed file beside a file: `name.br` beside `name`."""

    __slots__ = ("file", "identity", "tag")

    def __init__(self, file: str, found: Identity) -> None:
        self.file = file
        self.identity = found
        self.tag = f"{found[2]:x}-{found[3]:x}"


def neighbours(resolved: str) -> tuple[Identity | None, ...]:
    """Return what identifies the compressed files beside a file, in the order of `CODINGS`."""
    if resolved.endswith(_COMPRESSED):
        return ()
    return tuple(identity(resolved + suffix) for suffix in _COMPRESSED)


class Address:
    """A URL path under which a file is in memory.

    `file` is where it was found, links and all; `until` the monotonic time up to which it is
    believed; `shown` the prepared responses of the short way, by wish.
    """

    __slots__ = ("entry", "file", "shown", "until")

    def __init__(self, entry: Entry, file: str, until: float, shown: dict[str, Whole]) -> None:
        self.entry = entry
        self.file = file
        self.until = until
        self.shown = shown


class Entry:
    """One version of a file, or of what is made of it.

    `key` names it in memory; `resolved` is its path without links; `content` is None for a large
    file; `beside` is what identifies its compressed neighbours, `usable` those that are not older
    than it. `encoded` are its encoded contents in memory by coding, each with the text of its tag
    (None: not worth having), `wholes` the responses made of them and of `content`, `shown` what a
    wish is answered with. `cache` is its Cache-Control, `vary` what its choice depends on
    besides codings; `links` are the style sheets of a page.
    """

    __slots__ = (
        "addresses",
        "beside",
        "cache",
        "content",
        "cost",
        "encoded",
        "key",
        "links",
        "media",
        "part",
        "resolved",
        "shown",
        "tag",
        "usable",
        "vary",
        "version",
        "wholes",
    )

    def __init__(
        self,
        key: str,
        resolved: str,
        version: Version,
        media: str,
        content: bytes | None,
        *,
        cache: str = "",
        vary: str = "",
        tag: str = "",
        beside: tuple[Identity | None, ...] = (),
        links: tuple[str, ...] = (),
    ) -> None:
        self.key = key
        self.resolved = resolved
        self.version = version
        self.media = media
        self.content = content
        self.cache = cache
        self.vary = vary
        self.tag = version.tag + tag
        self.beside = beside
        self.usable = {
            coding: Neighbour(resolved + suffix, found)
            for (coding, suffix), found in zip(_SUFFIXES.items(), beside, strict=bool(beside))
            # One that was made before the last change is of another content; an empty one is none,
            # and of a file that is being written nothing is known.
            if found is not None
            and version.settled
            and found[2] >= version.identity[2]
            and found[3]
        }
        self.links = links
        self.encoded: dict[str, tuple[bytes, str] | None] = {}
        self.wholes: dict[str, Whole] = {}
        self.shown: dict[str, Whole] = {}
        self.addresses: dict[str, Address] = {}
        self.part = OUT
        self.cost = self.weigh()

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.version.size if self.content is None else len(self.content)

    def etag(self, coding: str = "") -> str:
        """Return the entity tag of the representation with a coding (RFC 9110 section 8.8.3.3)."""
        if not coding:
            return f'"{self.tag}"'
        neighbour = self.usable.get(coding)
        made_of = self.tag if neighbour is None else f"{self.tag}-{neighbour.tag}"
        return f'"{made_of}-{coding}"'

    @property
    def negotiable(self) -> bool:
        """Whether what is sent depends on the codings that a client takes."""
        return bool(self.usable) or compressible(self.media)

    def weigh(self) -> int:
        """Return the bytes that this takes now."""
        cost = ENTRY_OVERHEAD + len(self.content or b"")
        cost += sum(len(encoded[0]) for encoded in self.encoded.values() if encoded is not None)
        cost += _WHOLE_OVERHEAD * max(0, len(self.wholes) - 1)
        return cost + sum(max(0, len(path) - _USUAL_PATH) for path in self.addresses)

    def show(self, wished: str, whole: Whole) -> None:
        """Prepare the answer to a wish."""
        if len(self.shown) >= _MOST_SHOWN and wished not in self.shown:
            del self.shown[next(iter(self.shown))]
        self.shown[wished] = whole

    def surplus_address(self, path: str) -> str | None:
        """Return which path has to be forgotten when `path` is added, itself maybe; None for none.

        Odd spellings go first: a client that invents them does not push out the usual one.
        """
        if path in self.addresses or len(self.addresses) < _MOST_ADDRESSES:
            return None
        odd = next((known for known in self.addresses if not is_normal(known)), None)
        if odd is not None or not is_normal(path):
            return odd or path
        return next(iter(self.addresses))

    def current(self, version: Version, beside: tuple[Identity | None, ...]) -> bool:
        """Say whether this is of a version of the file, and of its neighbours."""
        return self.version.identity == version.identity and self.beside == beside

    def still(self, file: str) -> bool:
        """Say whether the disk has this, and nothing newer, at `file`."""
        found = identity(file)
        if found is None or found != self.version.identity:
            return False
        return not self.beside or neighbours(self.resolved) == self.beside

    def __repr__(self) -> str:
        return (
            f"<Entry {os.path.basename(self.resolved)} {self.tag} {list(self.wholes)} {self.cost}>"
        )
