"""Whom the server believes: networks by their addresses, and who comes by a Unix socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from h2log.errors import UsageError

__all__ = ["UNIX", "Networks", "check_network", "plain_address"]

UNIX: Final = "unix:"
"""The address of a client that came by a Unix socket, as nginx writes it."""

_MOST_KNOWN: Final = 4096
"""Addresses whose answer is remembered."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plain_address(text: str) -> str | None:
    """Return an IP address in its usual form, None for what is none.

    An IPv4 address within IPv6 (RFC 4291 section 2.5.5.2) is the IPv4 address: it is the same
    client, and a proxy writes it so when it has both kinds. Scopes (`%eth0`) are no address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
    return str(address)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            f'{text!r} is no network; give one such as "10.0.0.0/8", an address, "unix" or "*"'
        ) from None
    raise UsageError(f'{text!r} has bits beyond its prefix; did you mean "{wider}"?')


def check_network(text: str) -> None:
    """Raise UsageError unless `text` is a network, an address, `unix` or `*`."""
    if text not in ("*", "unix"):
        _network(text)


class Networks:
    """A set of addresses: `"10.0.0.0/8"`, `"192.0.2.1"`, `"unix"` for Unix sockets, `"*"` for all.

    `address in networks` asks. Raises UsageError for what is no network.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        given = set(texts)
        self._all = "*" in given
        self._unix = "unix" in given
        self._networks = [_network(text) for text in sorted(given - {"*", "unix"})]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self._all or self._unix or bool(self._networks)

    def __contains__(self, address: object) -> bool:
        found = self._known.get(address) if isinstance(address, str) else False
        if found is None:
            assert isinstance(address, str)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[address] = self._look(address)
        return found

    def _look(self, address: str) -> bool:
        if self._all:
            return True
        if address == UNIX:
            return self._unix
        plain = plain_address(address.partition("%")[0])
        if plain is None:
            return False
        parsed = ipaddress.ip_address(plain)
        return any(parsed in network for network in self._networks)
