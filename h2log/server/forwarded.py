"""Who asked, and how, by the word of the proxies in front: `Forwarded` and `X-Forwarded-*`.

A request that comes from a trusted proxy may say for whom. Each proxy adds its client at the end of
the list, so the list is walked from there: what a trusted address has added is believed, and the
first address that is not trusted is the client (nginx real_ip_recursive). What stands before it was
written by the client itself, and means nothing.

Nearly every proxy writes X-Forwarded-For and passes on a Forwarded that a client made up, or the
other way round. So where a request has both and they differ, neither is believed; the setting
`forwarded_header` names the one that the proxies write, and the other is not looked at.

A request whose fields cannot be believed, or hide the client, is from nobody that is known. It is
not taken for the proxy's own: else whoever writes nonsense into a field would have the address of
the proxy, which is 127.0.0.1 often, and may do what others may not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from h2log.access.record import Origin, Session
from h2log.http2.head import BAD_IN_AUTHORITY
from h2log.server.networks import UNIX, Networks, plain_address

__all__ = ["UNKNOWN", "Forwarded", "Origins", "Style", "forwarded"]

_logger = logging.getLogger("h2log.server")

Style = Literal["auto", "forwarded", "x-forwarded"]

UNKNOWN: Final = ("", 0)
"""A client that nobody knows: in the log it is `-`, and a scope has none."""

_Fields = Iterable[tuple[bytes, bytes]]

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 7239 section 4, with blanks around its separators, as some write it.
_PAIR: Final = re.compile(
    rf'[ \t]*(?:({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|\Z)', re.DOTALL
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_NAMES: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")


class Forwarded(NamedTuple):
    """What proxies say of a request; what they do not say is None."""

    client: tuple[str, int] | None = None
    """Address and port, 0 where it is not told; `UNKNOWN` when it is hidden or not to be believed.
    """
    scheme: str | None = None
    """`https` or `http`."""
    host: str | None = None
    """The host that was asked for, with its port if it was given."""


class _Hop(NamedTuple):
    """What one proxy has added."""

    node: str
    scheme: str
    host: str


class Origins:
    """Finds the origin of each request that comes from one of the `trusted`."""

    def __init__(self, trusted: Networks, style: Style = "auto") -> None:
        self._trusted = trusted
        self._style = style
        self._warned = False

    def of(self, session: Session, fields: _Fields, scheme: str) -> Origin | None:
        """Return the origin of a request of `session`, None when nobody told of another.

        `scheme` is what the connection is.
        """
        if session.client not in self._trusted:
            return None
        found = forwarded(fields, self._trusted, self._style, self._differ)
        if found is None:
            return None
        return Origin(
            found.client or (session.client, session.port),
            found.scheme or scheme,
            found.host or "",
        )

    def _differ(self) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "a request has both Forwarded and X-Forwarded-*, and they differ: neither is "
                "believed; name the one that your proxy writes with server.forwarded_header"
            )


def forwarded(
    fields: _Fields,
    trusted: Networks,
    style: Style = "auto",
    differ: Callable[[], None] = lambda: None,
) -> Forwarded | None:
    """Return what the `fields` of a request from a trusted peer tell, None when it is nothing.

    A malformed field tells that its client is not known. `differ` is called when both kinds are
    there and tell different things: then neither is believed.
    """
    modern: list[bytes] = []
    plain: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name == b"forwarded":
            modern.append(value)
        elif name in _NAMES:
            plain.setdefault(name, []).append(value)
    told = _modern(modern, trusted) if modern and style != "x-forwarded" else None
    if style == "forwarded" or not plain:
        return told
    also = _plain(plain, trusted)
    if modern and style == "auto":
        if told != also:
            differ()
            return Forwarded(UNKNOWN)
        return told
    return also


def _modern(values: list[bytes], trusted: Networks) -> Forwarded | None:
    """Read Forwarded (RFC 7239)."""
    hops = _hops(b",".join(values).decode("latin-1"))
    if hops is None:
        return Forwarded(UNKNOWN)
    if not hops:
        return None
    nodes = [hop.node for hop in hops]
    at, client = _walk(nodes, trusted)
    hop = hops[at]
    return _told(client if any(nodes) else None, hop.scheme, hop.host)


def _hops(text: str) -> list[_Hop] | None:
    """Return the elements of a Forwarded, None when it is malformed."""
    hops: list[_Hop] = []
    element: dict[str, str] = {}
    at = 0
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        if pair[1] is not None:
            name = pair[1].lower()
            if name in element:  # section 4: not more than once in an element
                return None
            element[name] = pair[2] if pair[3] is None else _ESCAPED.sub(r"\1", pair[3])
        at = pair.end()
        if pair[4] != ";":
            if element:
                get = element.get
                hops.append(_Hop(get("for", ""), get("proto", ""), get("host", "")))
                element = {}
            if not pair[4]:
                return hops


def _plain(values: dict[bytes, list[bytes]], trusted: Networks) -> Forwarded | None:
    """Read X-Forwarded-For, -Proto and -Host."""
    nodes, schemes, hosts = (_list(values.get(name, [])) for name in _NAMES)
    at, client = _walk(nodes, trusted)
    count = len(nodes)
    told = client if any(nodes) else None
    return _told(told, _beside(schemes, at, count), _beside(hosts, at, count))


def _list(values: list[bytes]) -> list[str]:
    text = b",".join(values).decode("latin-1")
    return [item.strip(" \t") for item in text.split(",")] if text else []


def _beside(items: list[str], at: int, count: int) -> str:
    """Return what belongs to the client at place `at` of `count`, else what was added last."""
    if not items:
        return ""
    return items[at] if len(items) == count else items[-1]


def _told(client: tuple[str, int] | None, scheme: str, host: str) -> Forwarded | None:
    found = Forwarded(
        client,
        _SCHEMES.get(scheme.lower()),
        host if host and not BAD_IN_AUTHORITY(host.encode("latin-1")) else None,
    )
    return None if found == Forwarded() else found


def _walk(nodes: list[str], trusted: Networks) -> tuple[int, tuple[str, int]]:
    """Return the place of the client in a list, and its address and port.

    That is the last one when it tells no address: nobody knows then who was before it.
    """
    place, client = len(nodes) - 1, UNKNOWN
    for at in range(len(nodes) - 1, -1, -1):
        found = _node(nodes[at])
        if found is None:  # hidden (`_gazonk`, `unknown`), or nonsense
            break
        place, client = at, found
        if found[0] not in trusted:
            break
    return place, client


def _node(text: str) -> tuple[str, int] | None:
    """Return address and port of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`."""
    if text == UNIX:
        return UNIX, 0
    port = ""
    if text.startswith("["):
        host, mark, rest = text[1:].partition("]")
        if not mark or ":" not in host or (rest and not rest.startswith(":")):
            return None
        text, port = host, rest
    elif text.count(":") == 1:
        text, mark, rest = text.partition(":")
        port = mark + rest
    address = plain_address(text)
    if address is None:
        return None
    if not port:
        return address, 0
    number = port[1:]
    if number.startswith("_"):  # an obfuscated port (RFC 7239 section 6)
        return address, 0
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and int(number) <= 65535):
        return None
    return address, int(number)
