"""Every setting, typed, with its default and unit: one tree.

The annotations are the schema, also for `check`: `Meta` has msgspec's constraints, and its `extra`
what else is known of a value (`unit`, `expected` for errors, `check` for what a room further up
compiles).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from h2log.config.secret_names import HEADERS, QUERY

__all__ = [
    "AccessOutput",
    "AdminSettings",
    "AppOutput",
    "AppRotation",
    "AppSettings",
    "BudgetSettings",
    "Limits",
    "LogSettings",
    "Output",
    "RedactSettings",
    "Rotation",
    "ServerSettings",
    "SessionOutput",
    "Settings",
    "StaticSettings",
    "TlsSettings",
    "WebSocketSettings",
    "is_file_path",
]

SIZE: Final[dict[str, Any]] = {"unit": "size"}
DURATION: Final[dict[str, Any]] = {"unit": "duration"}

Seconds = Annotated[float, msgspec.Meta(gt=0, extra=DURATION)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Bytes = Annotated[int, msgspec.Meta(ge=0, extra=SIZE)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Destination = Annotated[str, msgspec.Meta(extra={"expected": "a path", "check": "log path"})]
FilePath = Annotated[
    str, msgspec.Meta(min_length=1, extra={"expected": "a path", "check": "log path"})
]
Level = Literal["debug", "info", "warning", "error", "critical"]
Every = Annotated[
    Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    | Annotated[float, msgspec.Meta(ge=0.1, lt=2**31)]
    | str,
    msgspec.Meta(
        extra={
            "check": "rotate.every",
            "expected": '"daily" or the like, seconds from 0.1 on, a span "6h" or a time "03:30"',
        }
    ),
]
Keep = Annotated[
    Annotated[int, msgspec.Meta(ge=0)] | str,
    msgspec.Meta(
        extra={
            "check": "rotate.keep",
            "expected": 'a count, an age such as "30d" or a total such as "5GB"',
        }
    ),
]
Fsync = Annotated[
    Literal["never", "rotation"] | Annotated[int, msgspec.Meta(ge=1)],
    msgspec.Meta(extra={"expected": '"never", "rotation" or milliseconds'}),
]
Workers = Annotated[
    Literal["auto"] | Annotated[int, msgspec.Meta(ge=1, le=1024)],
    msgspec.Meta(extra={"expected": 'a number from 1 to 1024, or "auto"'}),
]
Names = Annotated[
    # With a letter or a digit: nothing else of a name is compared.
    tuple[Annotated[str, msgspec.Meta(pattern=r"[^\W_]")], ...],
    msgspec.Meta(extra={"expected": "a list of names with a letter or a digit each"}),
]
Networks = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)], ...],
    msgspec.Meta(
        extra={
            "check": "network",
            "expected": 'a list of networks such as "10.0.0.0/8", addresses, "unix" or "*"',
        }
    ),
]
CleanUrls = Annotated[
    bool | Literal["redirect"], msgspec.Meta(extra={"expected": 'true, false or "redirect"'})
]
FileMode = Annotated[
    str,
    msgspec.Meta(pattern="^([0-7]{3,4})?$", extra={"expected": 'an octal mode such as "640"'}),
]


def is_file_path(path: str) -> bool:
    """Return whether a log's `path` names a file: no stream, syslog or logger, and not nothing."""
    return path not in ("", "-", "&2") and not path.startswith(
        ("syslog:", "syslog+tcp:", "syslog+tls:", "logger:")
    )


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of settings: unknown keys are errors, values do not change once validated."""


class ServerSettings(_Section, frozen=True):
    """`[server]`: where to listen, and how to stop."""

    host: str = "127.0.0.1"
    port: Port = 8443
    unix: str = ""
    """The path of a Unix socket, in place of `host` and `port`."""
    unix_mode: Annotated[
        str, msgspec.Meta(pattern="^[0-7]{3,4}$", extra={"expected": 'an octal mode such as "660"'})
    ] = "666"
    """Permissions of its file, when it is made. Whoever reaches a port of this machine may connect,
    and with 666 whoever reaches the file, as with nginx and uvicorn (gunicorn 777): a proxy has a
    user of its own. To shut others out, use a folder that only the two can enter."""
    fd: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """The descriptor of a listening socket that was handed over, before all these; -1 is none."""
    proxy_protocol: Networks = ()
    """Who begins every connection with a PROXY header, version 1 or 2, which tells the client."""
    proxy_headers: Networks = ()
    """Whose word on a request's client, scheme and host is taken: Forwarded or X-Forwarded-*. They
    have to set or to remove each of these fields: one that they pass on is their client's word."""
    forwarded_header: Literal["auto", "forwarded", "x-forwarded"] = "auto"
    """Which of the two they write. With `auto`, whichever is there; with both, neither is believed
    unless they say the same: one of them may be the client's own, and nobody knows which."""
    backend: Literal["h2log", "hypercorn"] = "h2log"
    """Who does the protocol of an ASGI application."""
    http3: bool = False
    """Serve HTTP/3, too, on the UDP port of the same number; with Hypercorn, and the extra h3."""
    insecure: bool = False
    """Serve cleartext: HTTP/2 with prior knowledge, and HTTP/1.1."""
    backlog: Count = 1024
    """Connections the kernel holds until they are accepted (nginx 511, Go 4096, asyncio 100)."""
    drain_timeout: Annotated[float, msgspec.Meta(ge=0, extra=DURATION)] = 10.0
    """Seconds that open requests may go on after a stop was asked for."""
    workers: Workers = 1
    """Processes that serve; `auto` is one a processor. With one, everything is in one process."""
    max_requests: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Requests after which a worker is replaced, a tenth more or less; 0 is never."""
    max_rss: Bytes = 0
    """Memory with which a worker is replaced; 0 is any."""
    worker_timeout: Seconds = 10.0
    """Without a sign of life, after which a worker is killed and replaced."""
    control: str = "auto"
    """The control socket of several workers, for `h2log status`; `auto` is beside the access log,
    nothing is off."""


class AppSettings(_Section, frozen=True):
    """`[app]`: the application that `h2log run` serves."""

    target: str = ""
    """`module:attribute`; the command's argument wins."""
    factory: bool = False
    """Call what `target` names, without arguments: it returns the application."""
    dir: Annotated[str, msgspec.Meta(extra={"expected": "a folder", "check": "app dir"})] = ""
    """Where its modules are imported from, before any other place; nothing is here."""
    interface: Literal["auto", "asgi3", "asgi2", "wsgi", "h2log"] = "auto"
    """What kind of application it is; `auto` finds out."""
    root_path: Annotated[
        str,
        msgspec.Meta(
            pattern="^(/.*[^/])?$",
            extra={"expected": 'a path such as "/api", without a slash at its end'},
        ),
    ] = ""
    """The path below which a proxy has the application: `root_path`, `SCRIPT_NAME`."""
    lifespan: Literal["auto", "on", "off"] = "auto"
    """Whether an ASGI application is told of start and stop; with `on` it has to take part."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40
    """Of a WSGI application: requests that it answers at once (anyio 40)."""


class AdminSettings(_Section, frozen=True):
    """`[admin]`: a listener of its own, plain HTTP, for health checks and counters."""

    host: str = "127.0.0.1"
    port: Port = 0
    """0 is off."""


class TlsSettings(_Section, frozen=True):
    """`[tls]`: the certificate chain and its key, and whom clients' certificates are from; PEM."""

    cert: str = "certs/localhost.pem"
    key: str = "certs/localhost-key.pem"
    client_ca: str = ""
    """The authorities that clients' certificates may be from; nothing without `client_cert`."""
    client_cert: Literal["none", "optional", "required"] = "none"
    """Whether clients are asked for a certificate. One that is not valid is refused either way."""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what is read."""
        return (self.cert, self.key, *((self.client_ca,) if self.client_ca else ()))


class BudgetSettings(_Section, frozen=True):
    """One budget of `[limits.budgets]`: a token bucket."""

    burst: Count
    """Frames at once."""
    rate: Annotated[float, msgspec.Meta(ge=0)]
    """Frames a second after that."""


class Limits(_Section, frozen=True):
    """`[limits]`: everything that a peer can make grow, or can make us wait for.

    Times are in seconds, sizes in bytes; both may be texts with a unit, `"10s"`, `"64KB"`.
    """

    max_streams: Count = 100
    """Concurrent requests of one connection; RFC 9113 section 6.5.2 advises no less than 100."""
    max_connections: Count = 10_000
    """Open connections; further ones are closed at once, and counted."""
    max_connections_per_address: Count = 5_000
    """The same for one client address; half of all, so that no address has them all."""
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024, extra=SIZE)] = 32_768
    """A request's fields, name + value + 32 each (RFC 9113 section 10.5.1); nginx 32 KiB."""
    max_header_fields: Count = 100
    """A request's fields, counted (Apache 100)."""
    max_body_bytes: Bytes = 16 * 1024 * 1024
    """A request's content; more is answered with 413."""
    stream_window: Annotated[int, msgspec.Meta(ge=1024, le=2**31 - 1, extra=SIZE)] = 256 * 1024
    """Bytes of content a peer may send on one stream before a handler has read any."""
    connection_window: Annotated[int, msgspec.Meta(ge=65_535, le=2**31 - 1, extra=SIZE)] = (
        1024 * 1024
    )
    """The same for a whole connection: the most memory that unread uploads of one peer take."""
    send_buffer: Annotated[int, msgspec.Meta(ge=512 * 1024, extra=SIZE)] = 1024 * 1024
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
    """Accept CONNECT with `:protocol` (RFC 8441), which an ASGI application's WebSockets over
    HTTP/2 need: for those it is always on."""
    budgets: dict[str, BudgetSettings] = {}
    """What a connection may spend on frames that cost us more than it; see `http2/budget.py`."""
    static_cache: Bytes = 64 * 1024 * 1024
    """Memory for the content of small static files."""


class WebSocketSettings(_Section, frozen=True):
    """`[websocket]`: WebSockets of ASGI applications."""

    max_message: Annotated[int, msgspec.Meta(ge=1, le=2**40, extra=SIZE)] = 16 * 1024 * 1024
    """A message from a client, decompressed; more closes its WebSocket with 1009 (uvicorn 16 MiB).
    As many bytes of messages wait for the application before no more are read."""
    max_queue: Count = 32
    """The same, messages (uvicorn 32)."""
    ping_interval: Annotated[float, msgspec.Meta(ge=0, extra=DURATION)] = 20.0
    """Between two pings, which keep the way open and find out who is lost (uvicorn, websockets 20);
    0 sends none."""
    ping_timeout: Annotated[float, msgspec.Meta(ge=0, extra=DURATION)] = 20.0
    """From a ping to a sign of life; then the client is given up (uvicorn, websockets 20); 0 waits
    for ever."""
    close_timeout: Seconds = 10.0
    """From our Close frame to the client's (websockets 10)."""
    compression: bool = True
    """Agree to permessage-deflate (RFC 7692) when a client offers it."""
    compression_threshold: Bytes = 1024
    """Messages below it are sent as they are (ws for Node 1024)."""


class StaticSettings(_Section, frozen=True):
    """`[static]`: how `h2log serve` serves its folder; the options of `App.static`."""

    precompressed: bool = True
    """Serve `name.br`, `name.zst` and `name.gz` beside `name`, unless they are older than it."""
    compress: bool = True
    """Compress text when it is asked for: gzip, and br and zstd where they are installed."""
    clean_urls: CleanUrls = True
    """`/guide` is `guide.html`; with `redirect`, `/guide.html` leads there."""
    pages: bool = True
    """Send the folder's own `404.html` and `50x.html` with errors."""
    spa: str = ""
    """A file that answers what is not there when a browser goes to a page."""
    listing: bool = False
    """Answer a folder without `index.html` with what is in it."""
    markdown: bool = False
    """Render `*.md` as pages."""
    early_hints: bool = False
    """Tell a client a page's style sheets before the page (103)."""
    security: bool = False
    """Send the header fields that tell a browser to be strict."""
    watch: bool = False
    """Have open pages load anew when a file changes; for authors."""
    cache_control: dict[str, str] = {}
    """Values of Cache-Control by pattern, before the usual rules."""

    def options(self) -> dict[str, Any]:
        """Return them as `App.static` takes them."""
        return msgspec.structs.asdict(self)


class Rotation(_Section, frozen=True):
    """`rotate`: when a log file is closed for a new one, and what becomes of the closed ones.

    With both `every` and `size`, whichever comes first.
    """

    every: Every = "never"
    """`minutely` to `yearly` by the wall clock, seconds, a span such as `6h`, or at `03:30`."""
    size: Bytes = 0
    """Before the file grows beyond this; 0 is no limit."""
    name: Annotated[str, msgspec.Meta(extra={"check": "rotate.name"})] = ""
    """A strftime pattern that names closed files; without it, the log's name and the period."""
    keep: Keep = 0
    """Closed files kept: a count, an age ("30d"), a total size ("5GB"); 0 keeps all."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """Of closed files."""
    current: Literal["file", "symlink"] = "file"
    """Whether the log's path is the file written to, or a link to a file that has its own name."""
    timezone: Annotated[str, msgspec.Meta(min_length=1, extra={"check": "rotate.timezone"})] = (
        "local"
    )
    """Whose clock `every` and `name` mean: `local`, `utc` or a name such as `Europe/Berlin`."""

    def rules(self) -> dict[str, Any] | None:
        """Return what differs from no rotation, as the log's rules take it; None when it is off."""
        if self.every == "never" and not self.size:
            return None
        return {
            "every": None if self.every == "never" else self.every,
            "size": self.size or None,
            "name": self.name or None,
            "keep": self.keep or None,
            "compress": None if self.compress == "none" else self.compress,
            "current": self.current,
            "timezone": self.timezone,
        }


class AppRotation(Rotation, frozen=True):
    """`[log.app]`'s `rotate`: a file a day, ten of them."""

    every: Every = "daily"
    keep: Keep = 10


class Output(_Section, frozen=True):
    """What every output of records has."""

    path: Destination = ""
    format: str = "h2log"
    rotate: Rotation = Rotation()
    """When a new file begins."""
    flush_interval: Seconds = 0.1
    """How long a finished line may wait for company before it is written."""
    max_buffer: Annotated[int, msgspec.Meta(ge=65_536, extra=SIZE)] = 64 * 1024 * 1024
    """Bytes of lines held while the file cannot be written."""
    overload: Literal["drop", "block"] = "drop"
    """At that bound: count and drop lines, or let requests wait."""
    fsync: Fsync = "never"
    """When lines are forced to the disk: never, when a file is closed, or each N milliseconds."""
    mode: FileMode = ""
    """Permissions of new files, octal; without it, the umask's."""

    @property
    def file_mode(self) -> int | None:
        """The permissions as a number, if any were given."""
        return int(self.mode, 8) if self.mode else None


class AccessOutput(Output, frozen=True):
    """`[[log.access]]`: an output of the access log."""

    path: FilePath = "logs/access.log"
    """A file; `-` is standard output, `&2` standard error; or `syslog:…`, `logger:NAME`."""
    format: Annotated[str, msgspec.Meta(min_length=1, extra={"check": "format"})] = "h2log"
    """A named format, a format string, or a function of a record, `python:module:function`."""
    skip: Annotated[str, msgspec.Meta(extra={"check": "skip"})] = ""
    """Leave out the requests of which this holds: `status < 400`, or `python:module:function`."""
    immediate: bool = False
    """A line when a request arrives, in place of one when it has ended."""
    timezone: Annotated[str, msgspec.Meta(min_length=1, extra={"check": "timezone"})] = "utc"
    """Whose clock `:date[locale]` and `:date[%…]` are told by: `utc`, `local` or a name."""


class SessionOutput(Output, frozen=True):
    """`[log.session]`: a line when a connection opens and when it closes; off without a path."""

    path: Destination = ""
    """As an access log's; nothing is off."""
    format: Annotated[str, msgspec.Meta(min_length=1, extra={"check": "session format"})] = "h2log"
    """`h2log`, tab separated, or `json`."""


class AppOutput(_Section, frozen=True):
    """`[log.app]`: h2log's own log and the application's."""

    level: Level = "warning"
    """From this level on."""
    path: FilePath = "-"
    """A file; `-` is standard error."""
    console: Literal["off", "debug", "info", "warning", "error", "critical"] = "warning"
    """From which level on it goes to standard error, too, when `path` is something else."""
    rotate: AppRotation = AppRotation()
    """When a new file begins."""


class RedactSettings(_Section, frozen=True):
    """`[log.redact]`: names of what is secret; its values are masked in every line.

    A list replaces the default one, an empty one masks nothing. Case and punctuation do not count.
    """

    query: Names = QUERY
    """Keys of a URL's query, parameters and fragment."""
    headers: Names = HEADERS
    """Header fields, of requests and of responses."""


class LogSettings(_Section, frozen=True):
    """`[log]`: every log, where it goes and how."""

    outputs: tuple[AccessOutput, ...] = msgspec.field(default=(AccessOutput(),), name="access")
    """Of the access log, any number."""
    session: SessionOutput = SessionOutput()
    redact: RedactSettings = RedactSettings()
    app: AppOutput = AppOutput()

    @property
    def level(self) -> str:
        """Of h2log's own log."""
        return self.app.level


class Settings(_Section, frozen=True):
    """The whole tree."""

    server: ServerSettings = ServerSettings()
    app: AppSettings = AppSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()
    static: StaticSettings = StaticSettings()
    limits: Limits = Limits()
    websocket: WebSocketSettings = WebSocketSettings()
    log: LogSettings = LogSettings()
