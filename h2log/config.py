"""Every setting, typed, with its default and unit: one validated tree.

Flags, and later files and the environment, fill this tree; everything else in the package is
handed the part of it that it needs. A wrong value raises `UsageError` naming the key.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import msgspec

from h2log.errors import UsageError

__all__ = ["Limits", "LogSettings", "ServerSettings", "Settings", "TlsSettings", "build"]

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of settings: unknown keys are errors, values do not change once validated."""


class ServerSettings(_Section, frozen=True):
    """`[server]`: where to listen, and how to stop."""

    host: str = "127.0.0.1"
    port: Port = 8443
    insecure: bool = False
    """Serve cleartext: HTTP/2 with prior knowledge, and HTTP/1.1."""
    backlog: Count = 1024
    """Connections the kernel holds until they are accepted (nginx 511, Go 4096, asyncio 100)."""
    drain_timeout: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """Seconds that open requests may go on after a stop was asked for."""


class TlsSettings(_Section, frozen=True):
    """`[tls]`: the certificate chain and its key, PEM files."""

    cert: str = "certs/localhost.pem"
    key: str = "certs/localhost-key.pem"


class BudgetSettings(_Section, frozen=True):
    """One budget of `[limits.budgets]`: a token bucket."""

    burst: Count
    """Frames at once."""
    rate: Annotated[float, msgspec.Meta(ge=0)]
    """Frames a second after that."""


class Limits(_Section, frozen=True):
    """`[limits]`: everything that a peer can make grow, or can make us wait for.

    Times are in seconds, sizes in bytes.
    """

    max_streams: Count = 100
    """Concurrent requests of one connection; RFC 9113 section 6.5.2 advises no less than 100."""
    max_connections: Count = 10_000
    """Open connections; further ones are closed at once, and counted."""
    max_connections_per_address: Count = 5_000
    """The same for one client address; half of all, so that no address has them all."""
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 32_768
    """A request's fields, name + value + 32 each (RFC 9113 section 10.5.1); nginx 32 KiB."""
    max_header_fields: Count = 100
    """A request's fields, counted (Apache 100)."""
    max_body_bytes: Bytes = 16 * 1024 * 1024
    """A request's content; more is answered with 413."""
    stream_window: Annotated[int, msgspec.Meta(ge=1024, le=2**31 - 1)] = 256 * 1024
    """Bytes of content a peer may send on one stream before a handler has read any."""
    connection_window: Annotated[int, msgspec.Meta(ge=65_535, le=2**31 - 1)] = 1024 * 1024
    """The same for a whole connection: the most memory that unread uploads of one peer take."""
    send_buffer: Annotated[int, msgspec.Meta(ge=512 * 1024)] = 1024 * 1024
    """Bytes held for a connection whose peer does not read."""
    handshake_timeout: Seconds = 10.0
    """From accept to the end of the TLS handshake (nginx 60, Go 10 by custom)."""
    preface_timeout: Seconds = 10.0
    """From there to the whole preface and the peer's first SETTINGS frame."""
    settings_timeout: Seconds = 10.0
    """From our SETTINGS to their acknowledgement; then SETTINGS_TIMEOUT (RFC 9113, 6.5.3)."""
    header_timeout: Seconds = 10.0
    """From a request's first byte of header to its last (Apache RequestReadTimeout 10 to 20)."""
    body_timeout: Seconds = 30.0
    """Between two pieces of a request's content while a handler waits for it."""
    idle_timeout: Seconds = 75.0
    """Of a connection without an open request (nginx keepalive_timeout 75)."""
    stall_timeout: Seconds = 60.0
    """Of a connection with output that its peer does not take (nginx send_timeout 60)."""
    min_rate: Bytes = 100
    """Bytes a second, over `stall_timeout`, that a peer must take of what waits for it, and over
    `body_timeout` send of what a handler waits for (Apache MinRate 500; 2G networks have 1,000)."""
    extended_connect: bool = False
    """Accept CONNECT with `:protocol` (RFC 8441), as WebSocket over HTTP/2 needs."""
    budgets: dict[str, BudgetSettings] = {}
    """What a connection may spend on frames that cost us more than it; see `http2/budget.py`."""
    static_cache: Bytes = 64 * 1024 * 1024
    """Memory for the content of small static files."""


class LogSettings(_Section, frozen=True):
    """`[log]`: where the access log goes and how much is held while it cannot be written."""

    access: str = "logs/access.log"
    """A path, `-` for standard output."""
    level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error|critical)$")] = "info"
    """Of h2log's own log, on standard error: debug, info, warning, error or critical."""
    flush_interval: Seconds = 0.1
    """Seconds that a finished line may wait for company before it is written."""
    max_buffer: Annotated[int, msgspec.Meta(ge=65_536)] = 64 * 1024 * 1024
    """Bytes of lines held while the file cannot be written; then lines are counted as dropped."""


class Settings(_Section, frozen=True):
    """The whole tree."""

    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    limits: Limits = Limits()
    log: LogSettings = LogSettings()


def build(values: dict[str, Any], source: str = "settings") -> Settings:
    """Return the validated tree for nested `values`; what is absent has its default.

    `source` names where the values come from. Raises UsageError with the key's full name, what
    was expected and what was found.
    """
    try:
        return msgspec.convert(values, Settings, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{source}: {_complaint(str(error), values)}") from None


def _complaint(text: str, values: Any) -> str:
    """Return msgspec's complaint as `key: what was expected, got what was found`."""
    text, _, where = text.partition(" - at `$.")
    key = where.rstrip("`")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown is not None:
        return f"{key}.{unknown[1]}: unknown key" if key else f"{unknown[1]}: unknown key"
    text = text.partition(", got ")[0].replace("`", "")
    text = re.sub(r"str matching regex '\^\((.*)\)\$'", lambda m: _one_of(m[1]), text)
    text = text.replace("Expected object", "expected a table").replace("Expected", "expected", 1)
    if not key:
        return text
    found = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return f"{key}: {text}, got {_shown(found)}"


def _one_of(alternatives: str) -> str:
    return f"one of {alternatives.replace('|', ', ')}"


def _shown(value: Any) -> str:
    """Return a value as its person wrote it, or nearly."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
