"""`json`, `ecs` and `caddy`: one JSON object a line. What is not known is left out.

Texts are as of `text.json_text`: UTF-8 that prints stands as it is, any other byte as `\\xHH`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from h2log.access.jsonshapes import (
    CIPHERS,
    TLS_NUMBERS,
    CaddyArrival,
    CaddyHeaders,
    CaddyLine,
    CaddyRequest,
    CaddyTls,
    EcsLine,
    JsonLine,
)
from h2log.access.record import UNKNOWN, AccessRecord
from h2log.access.redaction import MASK
from h2log.access.shown import DEFAULT_SHOWN, Shown
from h2log.access.stamps import iso, iso_z
from h2log.access.text import json_text
from h2log.access.values import host_and_port, remote_user, route, split_target

__all__ = ["caddy_line", "ecs_line", "json_line"]

_encode: Final = msgspec.json.Encoder().encode
_VERSIONS: Final = {"h3": "3", "h2": "2", "1.1": "1.1", "1.0": "1.0"}
"""`network.protocol.version` of a session's protocol."""
_PROTOS: Final = {"h3": "HTTP/3.0", "h2": "HTTP/2.0", "1.1": "HTTP/1.1", "1.0": "HTTP/1.0"}


def _text(text: str | None) -> str | None:
    return json_text(text) if text else text


def _given(text: str) -> str | None:
    return json_text(text) if text else None


def _micro(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _counted(number: int) -> int:
    """Return a number; 0, which is left out, for one that is not known."""
    return 0 if number == UNKNOWN else number


def _stream(number: int) -> int | None:
    """Return a stream, which HTTP/3 counts from 0; None for one that is not known."""
    return None if number == UNKNOWN else number


def _waited(seconds: float) -> float:
    return 0.0 if seconds == UNKNOWN else round(seconds * 1000, 3)


def json_line(shown: Shown = DEFAULT_SHOWN) -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `json`."""
    stamp = iso()
    target, authority = shown.path, shown.authority
    referrer, user_agent = shown.referrer, shown.user_agent
    client_request_id, traceparent, trace_id = (
        shown.client_request_id,
        shown.traceparent,
        shown.trace_id,
    )

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        path, query = split_target(target(record))
        host, port = host_and_port(authority(record))
        client, client_port = record.client
        tls = session.tls
        made = JsonLine(
            stamp(record.wall),
            _given(facts.method),
            _given(facts.scheme),
            _given(path) if query is None else json_text(path),
            _text(query),
            None,
            None,
            _VERSIONS.get(record.protocol),
            _given(host) if port is None else json_text(host),
            port,
            client or None,
            client_port or None,
            _text(user_agent(record)),
            _text(remote_user(record)),
        )
        made.session = session.id
        made.request = record.id
        made.sequence = record.sequence
        made.stream = _stream(record.stream_id)
        made.nth = record.nth
        made.active = record.active
        made.header_received = _counted(record.header_received)
        made.alpn = _given(session.alpn)
        outcome = record.outcome
        if outcome is None:
            made.immediate = True
        else:
            made.status = record.status or None
            made.route = _text(route(record))
            made.received = record.received
            made.sent = record.sent
            made.outcome = outcome.value
            if outcome.value != "COMPLETE":
                made.error = outcome.value.lower()
            made.milliseconds = round(record.milliseconds, 3)
            made.headers_ms = _micro(record.headers_milliseconds)
            made.first_byte_ms = _micro(record.first_byte_milliseconds)
            made.header_sent = _counted(record.header_sent)
            made.cache = _given(record.cache)
            made.condition = _given(record.condition)
            if (detail := record.detail) is not None:
                made.stalled_ms = _waited(detail.stalled)
                made.blocked_ms = _waited(detail.blocked)
                made.reset_by = detail.reset_by or None
                made.reset_code = None if detail.reset_code is None else int(detail.reset_code)
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


def ecs_line(shown: Shown = DEFAULT_SHOWN) -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `ecs`."""
    stamp = iso_z()
    category, access, start = ["web"], ["access"], ["start"]
    path_of, authority_of = shown.path, shown.authority
    referrer, user_agent = shown.referrer, shown.user_agent
    client_request_id, traceparent, trace_id = (
        shown.client_request_id,
        shown.traceparent,
        shown.trace_id,
    )

    def line(record: AccessRecord) -> str:
        session = record.session
        facts = record.facts
        target, authority = path_of(record), authority_of(record)
        path, query = split_target(target)
        host, port = host_and_port(authority)
        original = json_text(target or authority or "-")
        outcome = record.outcome
        status = None if outcome is None else record.status or None
        method = _given(facts.method)
        tls = session.tls
        made = EcsLine(
            stamp(record.wall),
            "info",
            f"{method or '-'} {original} {status or '-'}",
            "8.11.0",
            "event",
            category,
            start if outcome is None else access,
            "h2log.access",
        )
        made.sequence = record.sequence
        made.request = record.id
        made.method = method
        made.referrer = _text(referrer(record))
        made.version = _VERSIONS.get(record.protocol)
        made.target = None if original == "-" else original
        made.path = _given(path) if query is None else json_text(path)
        made.query = _text(query)
        made.scheme = _given(facts.scheme)
        made.host = _given(host) if port is None else json_text(host)
        made.port = port
        client, client_port = record.client
        made.client = client or None
        made.client_port = client_port or None
        made.user_agent = _text(user_agent(record))
        made.user = _text(remote_user(record))
        made.session = session.id
        made.stream = _stream(record.stream_id)
        made.nth = record.nth
        made.active = record.active
        made.request_id = _text(client_request_id(record))
        if outcome is not None:
            made.status = status
            made.route = _text(route(record))
            made.received = record.received
            made.sent = record.sent
            made.duration = round((record.end - record.start) * 1e9)
            made.outcome = outcome.value
            made.result = (
                "success" if outcome.value == "COMPLETE" and record.status < 400 else "failure"
            )
            first = record.first_byte_milliseconds
            if first is not None:
                made.first_byte_ns = round(first * 1e6)
            if (detail := record.detail) is not None:
                made.reset_by = detail.reset_by or None
                made.reset_code = None if detail.reset_code is None else int(detail.reset_code)
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


def caddy_line(shown: Shown = DEFAULT_SHOWN) -> Callable[[AccessRecord], str]:
    """Return the function that makes the line of a record in `caddy`."""
    target, authority = shown.target, shown.authority
    referrer, user_agent = shown.referrer, shown.user_agent
    hides_type = shown.redaction.hides_header("content-type")

    def line(record: AccessRecord) -> str:
        session = record.session
        tls = session.tls
        agent, came_from = user_agent(record), referrer(record)
        request = CaddyRequest(
            session.client,
            str(session.port),
            record.client[0],
            json_text(record.facts.method),
            json_text(authority(record)),
            json_text(target(record)),
            CaddyHeaders(
                None if agent is None else [json_text(agent)],
                None if came_from is None else [json_text(came_from)],
            ),
            _PROTOS.get(record.protocol),
            None
            if tls is None
            else CaddyTls(
                tls.resumed,
                TLS_NUMBERS.get(tls.version),
                CIPHERS.get(tls.cipher),
                json_text(session.alpn),
                json_text(tls.sni),
            ),
        )
        user = json_text(remote_user(record) or "")
        made: CaddyLine | CaddyArrival
        outcome = record.outcome
        if outcome is None:
            made = CaddyArrival(
                "info",
                record.wall,
                "http.log.access",
                "received request",
                request,
                user,
                session.id,
                record.id,
            )
            return f"{_encode(made).decode()}\n"
        content_type: dict[str, list[str]] = {}
        if (response := record.response) is not None:
            for name, value in response.headers:
                if name == "content-type":
                    content_type = {"Content-Type": [MASK if hides_type else json_text(value)]}
                    break
        made = CaddyLine(
            "info",
            record.wall,
            "http.log.access",
            "handled request",
            request,
            record.received,
            user,
            record.end - record.start,
            record.sent,
            content_type,
            session.id,
            record.id,
            record.status or None,
            outcome.value,
        )
        return f"{_encode(made).decode()}\n"

    return line
