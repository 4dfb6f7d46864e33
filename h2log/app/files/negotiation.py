"""What a client would take: content codings and media types, by weight (RFC 9110 section 12).

A request's *wish* is a short text that says all that the choice of a representation depends on:
the codings that the client takes, the best first, and whether it asks over https. Requests with the
same wish get the same answer, so it is a key: of prepared responses, and of what a connection
remembers of a header section.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = [
    "CODINGS",
    "IDENTITY",
    "accepted_codings",
    "choose_media",
    "codings_of",
    "is_https",
    "part_wish",
    "wish",
    "with_codings",
]

CODINGS: Final = ("br", "zstd", "gzip")
"""The content codings that are served, the preferred first where a client has no preference: br
knows the words of the web, and makes the smallest text of the three."""
IDENTITY: Final = "identity"
_ALIASES: Final = {"x-gzip": "gzip"}  # RFC 9110 section 8.4.1.3

_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_CLEARTEXT: Final = "http "
_PART: Final = "part"
_REMEMBERED: Final = 256
"""Values of Accept-Encoding that are remembered, and the length up to which one is: browsers have
a handful."""


def _weighted(value: str) -> list[tuple[str, float]]:
    """Return the elements of a list and their weights; one whose weight is none is left out."""
    found = []
    for element in value.split(","):
        name, *parameters = element.split(";")
        name = name.strip(" \t").lower()
        if not name:
            continue
        weight: float | None = 1.0
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip(" \t").lower() == "q":
                text = text.strip(" \t")
                weight = float(text) if _WEIGHT(text) else None
            else:
                name = f"{name};{parameter.strip(' ')}"  # another thing than the bare name
        if weight is not None:
            found.append((name, weight))
    return found


def accepted_codings(value: str | None) -> tuple[str, ...]:
    """Return which codings to try for an Accept-Encoding, the best first (section 12.5.3).

    `identity` is among them unless it is excluded, at the end where nothing is said of it. Without
    the field a client takes any coding; not all that send none can, so it is `identity` alone.
    """
    if value is None:
        return (IDENTITY,)
    weights: dict[str, float] = {}
    for name, weight in _weighted(value):
        weights.setdefault(_ALIASES.get(name, name), weight)
    others = weights.get("*")
    ranked = []
    for place, coding in enumerate(CODINGS):
        weight = weights.get(coding, 0.0 if others is None else others)
        if weight > 0:
            ranked.append((-weight, place, coding))
    plain = weights.get(IDENTITY)
    if plain is None:
        # Acceptable unless excluded by "*;q=0", and the least of what was asked for.
        plain = 0.0 if others == 0 else 0.0001
    if plain > 0:
        ranked.append((-plain, len(CODINGS), IDENTITY))
    return tuple(coding for _, _, coding in sorted(ranked))


_wishes: dict[bytes, str] = {}


def wish(scheme: str, fields: Iterable[tuple[bytes, bytes]]) -> str:
    """Return what a request wishes for, from its scheme and its header fields."""
    values = [value for name, value in fields if name == b"accept-encoding"]
    if not values:
        codings = IDENTITY
    else:
        whole = values[0] if len(values) == 1 else b", ".join(values)
        known = _wishes.get(whole)
        if known is None:
            known = ",".join(accepted_codings(whole.decode("latin-1")))
            if len(whole) <= _REMEMBERED:
                if len(_wishes) >= _REMEMBERED:
                    _wishes.clear()
                _wishes[whole] = known
        codings = known
    return codings if scheme == "https" else _CLEARTEXT + codings


def codings_of(wished: str) -> tuple[str, ...]:
    """Return the codings of a wish, the best first; empty when it takes none that there is."""
    codings = wished.removeprefix(_CLEARTEXT)
    return tuple(codings.split(",")) if codings else ()


def is_https(wished: str) -> bool:
    """Say whether a wish came by https."""
    return not wished.startswith(_CLEARTEXT)


def part_wish(scheme: str) -> str:
    """Return what a request wishes for that asks for a part of a file, which is never encoded."""
    return _PART if scheme == "https" else _CLEARTEXT + _PART


def with_codings(wished: str, codings: Iterable[str]) -> str:
    """Return a wish that differs in its codings."""
    return ("" if is_https(wished) else _CLEARTEXT) + ",".join(codings)


def choose_media(accept: str | None, offers: tuple[str, ...]) -> tuple[str | None, bool]:
    """Return which of the media types `offers` an Accept prefers, and whether it names it.

    Of two that weigh the same, one that is named goes before one that `*/*` or `text/*` stands for,
    and the first offer before the others. None when it takes none of them (section 12.5.1).
    """
    if accept is None:
        return offers[0], False
    weights: dict[str, float] = {}
    for name, weight in _weighted(accept):
        weights.setdefault(name, weight)
    best: tuple[float, bool, int] | None = None
    for place, offer in enumerate(offers):
        for name in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
            if name in weights:  # the most specific decides
                rank = (weights[name], name == offer, -place)
                if weights[name] > 0 and (best is None or rank > best):
                    best = rank
                break
    return (None, False) if best is None else (offers[-best[2]], best[1])
