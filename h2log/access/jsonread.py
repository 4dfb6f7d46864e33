"""Lines of `json`, `ecs` and `caddy`, read back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from h2log.access.jsonlines import CIPHERS, TLS_NUMBERS, CaddyLine, EcsLine, JsonLine
from h2log.access.parsed import Line
from h2log.access.record import Outcome
from h2log.access.text import from_json_text

__all__ = ["read_caddy", "read_ecs", "read_json"]

_VERSIONS: Final = {"2.0": "h2", "2": "h2", "1.1": "1.1", "1.0": "1.0", None: "-"}
_ID = re.compile("[0-9a-f]{32}").fullmatch
_PORT = re.compile("0|[1-9][0-9]{0,4}").fullmatch
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}(?:\+00:00|Z)"
).fullmatch


def _json(kind: type[Any], fill: Callable[[Any], Line]) -> Callable[[str], Line]:
    decoder = msgspec.json.Decoder(kind)

    def read(line: str) -> Line:
        if "\n" in line or "\r" in line:
            raise ValueError("line: a line break in it")
        try:
            return fill(decoder.decode(line))
        except msgspec.DecodeError as error:  # ValidationError too; both are ValueErrors
            raise ValueError(f"line: {error}") from None
        except (OverflowError, OSError):  # of a date
            raise ValueError("line: a time that is none") from None
        except UnicodeEncodeError:
            raise ValueError("line: a lone surrogate in it") from None

    return read


def _time(text: str) -> datetime:
    if _ISO(text) is None:
        raise ValueError(f"timestamp: not one of ours: {text[:60]!a}")
    return datetime.fromisoformat(text)


def _id(text: str) -> str:
    if _ID(text) is None:
        raise ValueError(f"expected an id of 32 lower-case hex digits, got {text[:60]!a}")
    return text


def _port(text: str) -> int | None:
    if _PORT(text) is None:
        raise ValueError(f"expected a port, got {text[:60]!a}")
    return int(text) or None


def _wire(text: str | None) -> str | None:
    return from_json_text(text) if text else text


def _authority(host: str | None, port: int | None) -> str | None:
    return _wire(host) if port is None else f"{from_json_text(host or '')}:{port}"


def _target(path: str | None, query: str | None, authority: str | None) -> str:
    whole = from_json_text(path or "")
    if query is not None:
        whole += f"?{from_json_text(query)}"
    return whole or authority or "-"


def _version(text: str | None) -> str:
    if text not in _VERSIONS:
        raise ValueError(f"version: expected 2, 1.1 or 1.0, got {text!a}")
    return _VERSIONS[text]


def _only(texts: list[str] | None) -> str | None:
    return _wire(texts[0]) if texts else None


def _of_json(read: JsonLine) -> Line:
    authority = _authority(read.host, read.port)
    return Line(
        when=_time(read.timestamp),
        status=read.status,
        milliseconds=read.milliseconds,
        session=_id(read.session),
        request=_id(read.request),
        version=_version(read.version),
        target=_target(read.path, read.query, authority),
        method=_wire(read.method),
        scheme=_wire(read.scheme),
        authority=authority,
        outcome=None if read.outcome is None else Outcome(read.outcome),
        sequence=read.sequence or None,
        stream=read.stream,
        nth=read.nth,
        active=read.active,
        headers_ms=read.headers_ms,
        first_byte_ms=read.first_byte_ms,
        stalled_ms=read.stalled_ms,
        blocked_ms=read.blocked_ms,
        received=read.received,
        sent=read.sent,
        header_received=read.header_received,
        header_sent=read.header_sent,
        client=read.client,
        port=read.client_port,
        alpn=_wire(read.alpn),
        tls_version=None if read.tls_version is None else _wire(f"TLSv{read.tls_version}"),
        tls_cipher=_wire(read.tls_cipher),
        tls_resumed=read.tls_resumed,
        sni=_wire(read.sni),
        route=_wire(read.route),
        cache=_wire(read.cache),
        condition=_wire(read.condition),
        reset_by=read.reset_by,
        reset_code=read.reset_code,
        referrer=_only(read.referrer),
        user_agent=_wire(read.user_agent),
        user=_wire(read.user),
        traceparent=_wire(read.traceparent),
        request_id=_only(read.request_id),
    )


def _of_ecs(read: EcsLine) -> Line:
    authority = _authority(read.host, read.port)
    return Line(
        when=_time(read.timestamp),
        status=read.status,
        milliseconds=None if read.duration is None else read.duration / 1e6,
        session=_id(read.session),
        request=_id(read.request),
        version=_version(read.version),
        target=_wire(read.target) or "-",
        method=_wire(read.method),
        scheme=_wire(read.scheme),
        authority=authority,
        outcome=None if read.outcome is None else Outcome(read.outcome),
        sequence=read.sequence or None,
        stream=read.stream,
        nth=read.nth,
        active=read.active,
        first_byte_ms=None if read.first_byte_ns is None else read.first_byte_ns / 1e6,
        received=read.received,
        sent=read.sent,
        client=read.client,
        port=read.client_port,
        tls_version=None if read.tls_version is None else _wire(f"TLSv{read.tls_version}"),
        tls_cipher=_wire(read.tls_cipher),
        tls_resumed=read.tls_resumed,
        sni=_wire(read.sni),
        route=_wire(read.route),
        reset_by=read.reset_by,
        reset_code=read.reset_code,
        referrer=_wire(read.referrer),
        user_agent=_wire(read.user_agent),
        user=_wire(read.user),
        traceparent=_wire(read.traceparent),
        request_id=_wire(read.request_id),
    )


_CIPHER_NAMES: Final = {number: name for name, number in CIPHERS.items()}
_TLS_NAMES: Final = {number: name for name, number in TLS_NUMBERS.items()}


def _of_caddy(read: CaddyLine) -> Line:
    asked = read.request
    tls = asked.tls
    made = Line(
        when=datetime.fromtimestamp(read.ts, UTC),
        status=read.status,
        milliseconds=read.duration * 1000,
        session=_id(read.session_id),
        request=_id(read.request_id),
        version=_version(None if asked.proto is None else asked.proto.removeprefix("HTTP/")),
        target=from_json_text(asked.uri),
        method=_wire(asked.method) or None,
        authority=_wire(asked.host) or None,
        outcome=None if read.outcome is None else Outcome(read.outcome),
        received=read.bytes_read,
        sent=read.size,
        client=asked.client_ip or None,
        port=_port(asked.remote_port),
        user=_wire(read.user_id) or None,
        referrer=_only(asked.headers.referer),
        user_agent=_only(asked.headers.user_agent),
    )
    if tls is not None:
        made.alpn = _wire(tls.proto) or None
        made.tls_version = None if tls.version is None else _TLS_NAMES.get(tls.version)
        made.tls_cipher = None if tls.cipher_suite is None else _CIPHER_NAMES.get(tls.cipher_suite)
        made.tls_resumed = tls.resumed
        made.sni = _wire(tls.server_name) or None
    return made


read_json: Final = _json(JsonLine, _of_json)
read_ecs: Final = _json(EcsLine, _of_ecs)
read_caddy: Final = _json(CaddyLine, _of_caddy)
