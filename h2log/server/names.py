"""The names that a development certificate is for."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from cryptography import x509

from h2log.errors import UsageError

__all__ = ["certificate_names", "general_names", "normal_name"]

LOCAL_NAMES = ("localhost", "*.localhost", "127.0.0.1", "::1")
# A label of letters, digits and inner hyphens (RFC 1034 section 3.5, RFC 1123 section 2.1).
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label of this shape makes clients parse the host as an IPv4 address (WHATWG URL, 3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Python's codec is IDNA 2003, which maps these away; browsers (UTS #46) keep them: another name.
_DEVIATIONS = frozenset("ßẞς\u200c\u200d")


def certificate_names(extra: Iterable[str] = (), hostname: str | None = None) -> tuple[str, ...]:
    """Return the names of a server certificate: the local ones, this machine's, and `extra`.

    `hostname` is the machine's name, by default asked of the system; one that cannot stand in a
    certificate is left out. An extra name is an IP address (RFC 5280 section 4.2.1.6), a DNS name
    of letters, digits and hyphens (RFC 1123 section 2.1), an internationalised one (stored as
    A-labels, RFC 5280 section 7.2), or a wildcard, `*.` before at least two labels (RFC 9525
    section 6.3). OpenSSL and curl want those two labels and ignore `*.localhost`: for them,
    name the host itself. Raises UsageError naming the first bad one.
    """
    names = list(LOCAL_NAMES)
    try:
        names.append(normal_name(socket.gethostname() if hostname is None else hostname))
    except UsageError:
        pass
    names.extend(normal_name(name) for name in extra)
    return tuple(dict.fromkeys(names))


def normal_name(name: str) -> str:
    """Return a name as the certificate spells it; UsageError names a bad one."""
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        if getattr(ip, "scope_id", None) is not None:
            raise UsageError(f"name {name!r}: a certificate cannot hold an address with a zone")
        return str(ip)
    labels = name.removesuffix(".").split(".")
    wildcard = labels[0] == "*"
    try:
        host = ".".join(_a_label(label) for label in labels[wildcard:])
    except UnicodeError as error:
        raise UsageError(f"name {name!r} is not a DNS name: {error}") from None
    # 253 characters are the 255 octets on the wire (RFC 1035 section 3.1).
    if len(host) + 2 * wildcard > 253:
        raise UsageError(f"name {name!r} is not a DNS name: longer than 253 characters")
    if not host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UsageError(f"name {name!r} is neither a DNS name nor an IP address")
    if wildcard and "." not in host and host != "localhost":
        raise UsageError(f"name {name!r}: clients accept no wildcard right below a top-level name")
    return f"*.{host}" if wildcard else host


def _a_label(label: str) -> str:
    """Return the A-label (RFC 5890 section 2.3.2.1) of one label; UnicodeError for a bad one."""
    if bad := _DEVIATIONS.intersection(label):
        raise UnicodeError(f"write the label with {min(bad)!r} in its xn-- form")
    ascii_label = label.lower() if label.isascii() else label.encode("idna").decode("ascii").lower()
    if not _LABEL.fullmatch(ascii_label):
        raise UnicodeError(f"{label!r} is not 1 to 63 letters, digits and inner hyphens")
    return ascii_label


def general_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    """Return `names` as a subjectAltName holds them (RFC 5280 section 4.2.1.6)."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
