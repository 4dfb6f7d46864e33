"""The objects of `json`, `ecs` and `caddy`: the names, their order, and what is read back.

What is not known is left out.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import field

__all__ = [
    "CIPHERS",
    "TLS_NUMBERS",
    "CaddyArrival",
    "CaddyHeaders",
    "CaddyLine",
    "CaddyRequest",
    "CaddyTls",
    "EcsLine",
    "JsonLine",
]

CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
}
"""IANA's number of a cipher suite that HTTP/2 allows, by OpenSSL's name: Caddy writes numbers."""

TLS_NUMBERS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class JsonLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A line of `json`: the names of OpenTelemetry's conventions, ours under `h2log.`.

    Times are milliseconds, sizes bytes; header fields are lists, as the conventions have them.
    `immediate` says that the request had only arrived, and nothing of its end is there.
    """

    timestamp: str
    method: str | None = field(default=None, name="http.request.method")
    scheme: str | None = field(default=None, name="url.scheme")
    path: str | None = field(default=None, name="url.path")
    query: str | None = field(default=None, name="url.query")
    status: int | None = field(default=None, name="http.response.status_code")
    route: str | None = field(default=None, name="http.route")
    version: str | None = field(default=None, name="network.protocol.version")
    host: str | None = field(default=None, name="server.address")
    port: int | None = field(default=None, name="server.port")
    client: str | None = field(default=None, name="client.address")
    client_port: int | None = field(default=None, name="client.port")
    user_agent: str | None = field(default=None, name="user_agent.original")
    user: str | None = field(default=None, name="user.name")
    referrer: list[str] | None = field(default=None, name="http.request.header.referer")
    request_id: list[str] | None = field(default=None, name="http.request.header.x-request-id")
    received: int = field(default=0, name="http.request.body.size")
    sent: int = field(default=0, name="http.response.body.size")
    tls_version: str | None = field(default=None, name="tls.protocol.version")
    tls_cipher: str | None = field(default=None, name="tls.cipher")
    tls_resumed: bool | None = field(default=None, name="tls.resumed")
    sni: str | None = field(default=None, name="tls.client.server_name")
    trace_id: str | None = None
    error: str | None = field(default=None, name="error.type")
    session: str = field(default="", name="h2log.session")
    request: str = field(default="", name="h2log.request")
    outcome: str | None = field(default=None, name="h2log.outcome")
    sequence: int = field(default=0, name="h2log.sequence")
    stream: int | None = field(default=None, name="h2log.stream")
    nth: int = field(default=0, name="h2log.nth")
    active: int = field(default=0, name="h2log.active")
    milliseconds: float | None = field(default=None, name="h2log.milliseconds")
    headers_ms: float | None = field(default=None, name="h2log.headers_milliseconds")
    first_byte_ms: float | None = field(default=None, name="h2log.first_byte_milliseconds")
    stalled_ms: float = field(default=0.0, name="h2log.stalled_milliseconds")
    blocked_ms: float = field(default=0.0, name="h2log.blocked_milliseconds")
    header_received: int = field(default=0, name="h2log.request.header.size")
    header_sent: int = field(default=0, name="h2log.response.header.size")
    alpn: str | None = field(default=None, name="h2log.alpn")
    cache: str | None = field(default=None, name="h2log.cache")
    condition: str | None = field(default=None, name="h2log.condition")
    reset_by: str | None = field(default=None, name="h2log.reset.by")
    reset_code: int | None = field(default=None, name="h2log.reset.code")
    traceparent: str | None = field(default=None, name="h2log.traceparent")
    immediate: bool = field(default=False, name="h2log.immediate")


class EcsLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A line of `ecs`: the names of the Elastic Common Schema, with dots as its loggers write.

    `event.type` is `access`, or `start` where the request had only arrived.
    """

    timestamp: str = field(name="@timestamp")
    level: str = field(name="log.level")
    message: str
    ecs: str = field(name="ecs.version")
    kind: str = field(name="event.kind")
    category: list[str] = field(name="event.category")
    type: list[str] = field(name="event.type")
    dataset: str = field(name="event.dataset")
    duration: int | None = field(default=None, name="event.duration")
    result: str | None = field(default=None, name="event.outcome")
    sequence: int = field(default=0, name="event.sequence")
    request: str = field(default="", name="http.request.id")
    method: str | None = field(default=None, name="http.request.method")
    referrer: str | None = field(default=None, name="http.request.referrer")
    received: int = field(default=0, name="http.request.body.bytes")
    status: int | None = field(default=None, name="http.response.status_code")
    sent: int = field(default=0, name="http.response.body.bytes")
    version: str | None = field(default=None, name="http.version")
    target: str | None = field(default=None, name="url.original")
    path: str | None = field(default=None, name="url.path")
    query: str | None = field(default=None, name="url.query")
    scheme: str | None = field(default=None, name="url.scheme")
    host: str | None = field(default=None, name="url.domain")
    port: int | None = field(default=None, name="url.port")
    client: str | None = field(default=None, name="client.ip")
    client_port: int | None = field(default=None, name="client.port")
    user_agent: str | None = field(default=None, name="user_agent.original")
    user: str | None = field(default=None, name="user.name")
    trace_id: str | None = field(default=None, name="trace.id")
    tls_version: str | None = field(default=None, name="tls.version")
    tls_protocol: str | None = field(default=None, name="tls.version_protocol")
    tls_cipher: str | None = field(default=None, name="tls.cipher")
    tls_resumed: bool | None = field(default=None, name="tls.resumed")
    sni: str | None = field(default=None, name="tls.client.server_name")
    session: str = field(default="", name="h2log.session")
    outcome: str | None = field(default=None, name="h2log.outcome")
    stream: int | None = field(default=None, name="h2log.stream")
    nth: int = field(default=0, name="h2log.nth")
    active: int = field(default=0, name="h2log.active")
    route: str | None = field(default=None, name="h2log.route")
    first_byte_ns: int | None = field(default=None, name="h2log.first_byte")
    reset_by: str | None = field(default=None, name="h2log.reset.by")
    reset_code: int | None = field(default=None, name="h2log.reset.code")
    request_id: str | None = field(default=None, name="h2log.request_id")
    traceparent: str | None = field(default=None, name="h2log.traceparent")


class CaddyTls(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """`request.tls` of a Caddy line."""

    resumed: bool
    version: int | None = None
    cipher_suite: int | None = None
    proto: str = ""
    server_name: str = ""


class CaddyHeaders(
    msgspec.Struct,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"user_agent": "User-Agent", "referer": "Referer"},
):
    """`request.headers` of a Caddy line: those that are read from it."""

    user_agent: list[str] | None = None
    referer: list[str] | None = None


class CaddyRequest(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """`request` of a Caddy line."""

    remote_ip: str
    remote_port: str
    client_ip: str
    method: str
    host: str
    uri: str
    headers: CaddyHeaders
    proto: str | None = None
    tls: CaddyTls | None = None


class CaddyLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A line of `caddy`, with our ids and the outcome besides.

    Without a response there is no `status`: Caddy writes 0, which readers refuse.
    """

    level: str
    ts: float
    logger: str
    msg: Literal["handled request"]
    request: CaddyRequest
    bytes_read: int
    user_id: str
    duration: float
    size: int
    resp_headers: dict[str, list[str]]
    session_id: str
    request_id: str
    status: int | None = None
    outcome: str | None = None


class CaddyArrival(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A line of `caddy` for a request that has only arrived: nothing tells of its end."""

    level: str
    ts: float
    logger: str
    msg: Literal["received request"]
    request: CaddyRequest
    user_id: str
    session_id: str
    request_id: str
