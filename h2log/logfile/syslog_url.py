"""Where a syslog collector is: the URLs that a log's `path` may be.

    syslog:                            the system's own collector, the Unix socket /dev/log
    syslog:///run/collector.sock       another Unix socket, of datagrams or a stream: as it is
    syslog://host:514                  UDP (RFC 5426)
    syslog+tcp://host:601              TCP, octets counted (RFC 6587 section 3.4.1)
    syslog+tls://host:6514             TLS (RFC 5425)

Ports may be left out. Options follow, as `?facility=local3&app=shop`: `facility` (local0) and
`severity` (info) by their names in syslog(3), and `app`, the APP-NAME (h2log). Of TLS also `ca`, a
file of authorities instead of the system's, and `cert` with `key`, what we are known by (RFC 5425
section 4.2.1). A file with such a name is written `./syslog:`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from logging.handlers import SysLogHandler
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from h2log.errors import UsageError

__all__ = ["SyslogUrl"]

_SYSTEM: Final = "/dev/log"
_PORTS: Final = {"udp": 514, "tcp": 601, "tls": 6514}
_FORMS: Final = (
    "expected syslog:, syslog:///SOCKET, syslog://HOST[:PORT], syslog+tcp://HOST[:PORT] or "
    "syslog+tls://HOST[:PORT]"
)
_FACILITIES: Final = SysLogHandler.facility_names
_SEVERITIES: Final = SysLogHandler.priority_names
_APP: Final = re.compile(r"[!-~]{1,48}")
"""RFC 5424 section 6: APP-NAME is 1*48PRINTUSASCII."""


@dataclass(frozen=True, slots=True)
class SyslogUrl:
    """A collector, and what its messages say of where they come from."""

    transport: Literal["unix", "udp", "tcp", "tls"]
    path: str = ""
    """Of a Unix socket."""
    host: str = ""
    port: int = 0
    facility: int = SysLogHandler.LOG_LOCAL0
    severity: int = SysLogHandler.LOG_INFO
    app: str = "h2log"
    """APP-NAME of RFC 5424 section 6.2.5."""
    ca: str = ""
    """A PEM file of authorities; without it, the system's."""
    cert: str = ""
    """A PEM file of our own certificate chain, for a collector that asks for one."""
    key: str = ""
    """Its key; without it, in the same file."""

    @property
    def priority(self) -> int:
        """PRI of RFC 5424 section 6.2.1."""
        return self.facility * 8 + self.severity

    @classmethod
    def parse(cls, url: str) -> SyslogUrl:
        """Return what `url` names. Raises UsageError with the url, what is wrong, and the forms."""
        if not url.isprintable() or " " in url:
            raise _wrong(url, "it has a space or a control character")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _wrong(url, str(error)) from None
        if parts.fragment or url.endswith("#"):
            raise _wrong(url, "it has a # (%23 in a value)")
        if "@" in parts.netloc:
            raise _wrong(url, "syslog knows no users")
        transport = _transport(url, parts)
        options = _options(url, parts.query, transport)
        app = options.get("app", "h2log")
        if not _APP.fullmatch(app):
            raise _wrong(url, "app must be 1 to 48 printable ASCII characters without spaces")
        if "key" in options and "cert" not in options:
            raise _wrong(url, "key is of no use without cert")
        if port == 0:
            raise _wrong(url, "the port must be from 1 to 65535")
        local = transport == "unix"
        return cls(
            transport,
            path=(unquote(parts.path) or _SYSTEM) if local else "",
            host=parts.hostname or "",
            port=0 if local else port or _PORTS[transport],
            facility=_FACILITIES[options.get("facility", "local0")],
            severity=_SEVERITIES[options.get("severity", "info")],
            app=app,
            ca=options.get("ca", ""),
            cert=options.get("cert", ""),
            key=options.get("key", ""),
        )


def _wrong(url: str, reason: str) -> UsageError:
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in url)
    return UsageError(f"{shown}: {reason}; {_FORMS}")


def _transport(url: str, parts: SplitResult) -> Literal["unix", "udp", "tcp", "tls"]:
    """Return how messages travel, by the scheme and whether there is a host."""
    _, plus, kind = parts.scheme.partition("+")
    if plus and kind not in ("tcp", "tls"):
        raise _wrong(url, f"there is no transport {kind!r}")
    if not (kind or parts.netloc):
        if parts.path and not parts.path.startswith("/"):
            raise _wrong(url, "the socket's path must begin with /, and a host with //")
        if "%00" in parts.path:
            raise _wrong(url, "the socket's path has a NUL character")
        return "unix"
    if not parts.hostname:
        raise _wrong(url, "the host is missing")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise _wrong(url, f"{parts.hostname!r} is no name of a host") from None
    if parts.path not in ("", "/"):
        raise _wrong(url, "nothing but options may follow the host")
    return "tcp" if kind == "tcp" else "tls" if kind == "tls" else "udp"


def _options(url: str, query: str, transport: str) -> dict[str, str]:
    known: dict[str, dict[str, int] | None] = {
        "facility": _FACILITIES,
        "severity": _SEVERITIES,
        "app": None,
    }
    if transport == "tls":
        known |= {"ca": None, "cert": None, "key": None}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise _wrong(url, "options must be name=value, with & between them") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise _wrong(url, f"there is no option {name!r}; there are {', '.join(known)}")
        if name in found:
            raise _wrong(url, f"{name} is there twice")
        codes = known[name]
        if codes is not None and value not in codes:
            raise _wrong(url, f"{name} must be one of {', '.join(codes)}, not {value!r}")
        if not value:
            raise _wrong(url, f"{name} is empty")
        found[name] = value
    return found
