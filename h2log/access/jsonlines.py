"""`json`, `ecs` and `caddy`: one JSON object a line. What is not known is left out.

The Structs are both the order and the names of what is written and what `parse_line` accepts.
Texts are as of `text.json_text`: UTF-8 that prints stands as it is, any other byte as `\\xHH`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import field

from h2log.access.record import AccessRecord, Detail
from h2log.access.stamps import iso, iso_z
from h2log.access.text import json_text
from h2log.access.values import (
    client_request_id,
    host_and_port,
    referrer,
    remote_user,
    route,
    split_target,
    target,
    trace_id,
    traceparent,
    user_agent,
)

__all__ = [
    "CIPHERS",
    "TLS_NUMBERS",
    "CaddyHeaders",
    "CaddyLine",
    "CaddyRequest",
    "CaddyTls",
    "EcsLine",
    "JsonLine",
    "caddy_line",
    "ecs_line",
    "json_line",
]

_encode: Final = msgspec.json.Encoder().encode
_NO_DETAIL: Final = Detail()
_VERSIONS: Final = {"h2": "2", "1.1": "1.1", "1.0": "1.0"}
"""`network.protocol.version` of a session's protocol."""
_PROTOS: Final = {"h2": "HTTP/2.0", "1.1": "HTTP/1.1", "1.0": "HTTP/1.0"}

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
    stream: int = field(default=0, name="h2log.stream")
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


class EcsLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A line of `ecs`: the names of the Elastic Common Schema, with dots as its loggers write."""

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
    stream: int = field(default=0, name="h2log.stream")
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
    msg: str
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


def _text(text: str | None) -> str | None:
    return json_text(text) if text else text


def _given(text: str) -> str | None:
    return json_text(text) if text else None


def _micro(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def json_line() -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `json`."""
    stamp = iso()

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        path, query = split_target(facts.path)
        host, port = host_and_port(facts.authority)
        detail = record.detail or _NO_DETAIL
        tls = session.tls
        made = JsonLine(
            stamp(record.wall),
            _given(facts.method),
            _given(facts.scheme),
            _given(path) if query is None else json_text(path),
            _text(query),
            record.status or None,
            _text(route(record)),
            _VERSIONS.get(session.protocol),
            _given(host) if port is None else json_text(host),
            port,
            session.client or None,
            session.port or None,
            _text(user_agent(record)),
            _text(remote_user(record)),
        )
        made.received = record.received
        made.sent = record.sent
        made.session = session.id
        made.request = record.id
        made.sequence = record.sequence
        made.stream = record.stream_id
        made.nth = record.nth
        made.active = record.active
        made.headers_ms = _micro(record.headers_milliseconds)
        made.first_byte_ms = _micro(record.first_byte_milliseconds)
        made.header_received = record.header_received
        made.header_sent = record.header_sent
        made.alpn = _given(session.alpn)
        made.cache = _given(record.cache)
        made.condition = _given(record.condition)
        if detail is not _NO_DETAIL:
            made.stalled_ms = round(detail.stalled * 1000, 3)
            made.blocked_ms = round(detail.blocked * 1000, 3)
            made.reset_by = detail.reset_by or None
            made.reset_code = None if detail.reset_code is None else int(detail.reset_code)
        if (outcome := record.outcome) is not None:
            made.milliseconds = round(record.milliseconds, 3)
            made.outcome = outcome.value
            if outcome.value != "COMPLETE":
                made.error = outcome.value.lower()
        if (came_from := referrer(record)) is not None:
            made.referrer = [json_text(came_from)]
        if (theirs := client_request_id(record)) is not None:
            made.request_id = [json_text(theirs)]
        if (parent := traceparent(record)) is not None:
            made.traceparent = parent
            made.trace_id = trace_id(record)
        if tls is not None:
            made.tls_version = _given(tls.version.removeprefix("TLSv"))
            made.tls_cipher = _given(tls.cipher)
            made.tls_resumed = tls.resumed
            made.sni = _given(tls.sni)
        return f"{_encode(made).decode()}\n"

    return line


def ecs_line() -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `ecs`."""
    stamp = iso_z()
    category, access = ["web"], ["access"]

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        path, query = split_target(facts.path)
        host, port = host_and_port(facts.authority)
        original = json_text(target(record))
        method = _given(facts.method)
        tls = session.tls
        made = EcsLine(
            stamp(record.wall),
            "info",
            f"{method or '-'} {original} {record.status or '-'}",
            "8.11.0",
            "event",
            category,
            access,
            "h2log.access",
        )
        made.sequence = record.sequence
        made.request = record.id
        made.method = method
        made.referrer = _text(referrer(record))
        made.received = record.received
        made.status = record.status or None
        made.sent = record.sent
        made.version = _VERSIONS.get(session.protocol)
        made.target = None if original == "-" else original
        made.path = _given(path) if query is None else json_text(path)
        made.query = _text(query)
        made.scheme = _given(facts.scheme)
        made.host = _given(host) if port is None else json_text(host)
        made.port = port
        made.client = session.client or None
        made.client_port = session.port or None
        made.user_agent = _text(user_agent(record))
        made.user = _text(remote_user(record))
        made.session = session.id
        made.stream = record.stream_id
        made.nth = record.nth
        made.active = record.active
        made.route = _text(route(record))
        made.request_id = _text(client_request_id(record))
        first = record.first_byte_milliseconds
        if first is not None:
            made.first_byte_ns = round(first * 1e6)
        if (detail := record.detail) is not None:
            made.reset_by = detail.reset_by or None
            made.reset_code = None if detail.reset_code is None else int(detail.reset_code)
        if (outcome := record.outcome) is not None:
            made.duration = round((record.end - record.start) * 1e9)
            made.outcome = outcome.value
            made.result = (
                "success" if outcome.value == "COMPLETE" and record.status < 400 else "failure"
            )
        if (parent := traceparent(record)) is not None:
            made.traceparent = parent
            made.trace_id = trace_id(record)
        if tls is not None:
            made.tls_version = _given(tls.version.removeprefix("TLSv"))
            made.tls_protocol = "tls"
            made.tls_cipher = _given(tls.cipher)
            made.tls_resumed = tls.resumed
            made.sni = _given(tls.sni)
        return f"{_encode(made).decode()}\n"

    return line


def caddy_line() -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `caddy`."""

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        tls = session.tls
        agent, came_from = user_agent(record), referrer(record)
        response = record.response
        content_type: dict[str, list[str]] = {}
        if response is not None:
            for name, value in response.headers:
                if name == "content-type":
                    content_type = {"Content-Type": [json_text(value)]}
                    break
        made = CaddyLine(
            "info",
            record.wall,
            "http.log.access",
            "handled request",
            CaddyRequest(
                session.client,
                str(session.port),
                session.client,
                json_text(facts.method),
                json_text(facts.authority),
                json_text(target(record)),
                CaddyHeaders(
                    None if agent is None else [json_text(agent)],
                    None if came_from is None else [json_text(came_from)],
                ),
                _PROTOS.get(session.protocol),
                None
                if tls is None
                else CaddyTls(
                    tls.resumed,
                    TLS_NUMBERS.get(tls.version),
                    CIPHERS.get(tls.cipher),
                    json_text(session.alpn),
                    json_text(tls.sni),
                ),
            ),
            record.received,
            json_text(remote_user(record) or ""),
            record.end - record.start,
            record.sent,
            content_type,
            session.id,
            record.id,
            record.status or None,
            None if record.outcome is None else record.outcome.value,
        )
        return f"{_encode(made).decode()}\n"

    return line
