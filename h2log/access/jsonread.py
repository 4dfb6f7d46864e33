"""Lines of `json`, `ecs` and `caddy`, read back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from h2log.access.jsonshapes import (
    CIPHERS,
    TLS_NUMBERS,
    CaddyArrival,
    CaddyLine,
    EcsLine,
    JsonLine,
)
from h2log.access.lines import is_note
from h2log.access.parsed import OF_AN_END, Line
from h2log.access.record import Outcome
from h2log.access.text import from_json_text

__all__ = ["read_caddy", "read_ecs", "read_json"]

_VERSIONS: Final = {
    "3.0": "h3",
    "3": "h3",
    "2.0": "h2",
    "2": "h2",
    "1.1": "1.1",
    "1.0": "1.0",
    None: "-",
}
_ID = re.compile("[0-9a-f]{32}").fullmatch
_PORT = re.compile("0|[1-9][0-9]{0,4}").fullmatch
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}(?:\+00:00|Z)"
).fullmatch


def _json(decode: Callable[[str], Any], fill: Callable[[Any], Line]) -> Callable[[str], Line]:
    def read(line: str) -> Line:
        if "\n" in line or "\r" in line:
            raise ValueError("line: a line break in it")
        if is_note(line):
            raise ValueError("line: a note of the log, not a request")
        try:
            return fill(decode(line))
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
        raise ValueError(f"version: expected 3, 2, 1.1 or 1.0, got {text!a}")
    return _VERSIONS[text]


def _only(texts: list[str] | None) -> str | None:
    return _wire(texts[0]) if texts else None


def _event(made: Line, opened: bool) -> Line:
    """Return `made` with its event; of a request that had only arrived, without any end."""
    done = (made.milliseconds is not None, made.outcome is not None)
    if opened:
        if any(done) or made.status is not None:
            raise ValueError("line: the request has only arrived, and has an end")
        for name in OF_AN_END:
            setattr(made, name, None)
    elif not all(done):
        raise ValueError("line: a request that has ended has an outcome and its time")
    made.event = "open" if opened else "done"
    return made


def _of_json(read: JsonLine) -> Line:
    authority = _authority(read.host, read.port)
    made = Line(
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
        header_received=read.header_received or None,  # none has nothing
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
    return _event(made, read.immediate)


def _of_ecs(read: EcsLine) -> Line:
    authority = _authority(read.host, read.port)
    if read.type not in (["access"], ["start"]):
        raise ValueError(f"event.type: expected access or start, got {str(read.type)[:60]!a}")
    made = Line(
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
    return _event(made, read.type == ["start"])


_CIPHER_NAMES: Final = {number: name for name, number in CIPHERS.items()}
_TLS_NAMES: Final = {number: name for name, number in TLS_NUMBERS.items()}


class _Message(msgspec.Struct):
    msg: str


_message: Final = msgspec.json.Decoder(_Message).decode
_handled: Final = msgspec.json.Decoder(CaddyLine).decode
_received: Final = msgspec.json.Decoder(CaddyArrival).decode


def _caddy(line: str) -> CaddyLine | CaddyArrival:
    return _received(line) if _message(line).msg == "received request" else _handled(line)


def _of_caddy(read: CaddyLine | CaddyArrival) -> Line:
    asked = read.request
    tls = asked.tls
    made = Line(
        when=datetime.fromtimestamp(read.ts, UTC),
        session=_id(read.session_id),
        request=_id(read.request_id),
        version=_version(None if asked.proto is None else asked.proto.removeprefix("HTTP/")),
        target=from_json_text(asked.uri),
        method=_wire(asked.method) or None,
        authority=_wire(asked.host) or None,
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
    if isinstance(read, CaddyLine):
        made.status = read.status
        made.milliseconds = read.duration * 1000
        made.outcome = None if read.outcome is None else Outcome(read.outcome)
        made.received = read.bytes_read
        made.sent = read.size
    return _event(made, isinstance(read, CaddyArrival))


read_json: Final = _json(msgspec.json.Decoder(JsonLine).decode, _of_json)
read_ecs: Final = _json(msgspec.json.Decoder(EcsLine).decode, _of_ecs)
read_caddy: Final = _json(_caddy, _of_caddy)
