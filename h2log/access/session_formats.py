"""The session log: a line when a connection's protocol is known, a line when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from h2log.access.lines import escape
from h2log.access.notes import NoteFunction, json_note
from h2log.access.record import Session
from h2log.clock import iso_second

__all__ = ["SESSION_FORMATS", "SessionEvent", "session_format"]

SessionEvent = tuple[str, Session]
"""`opened` or `closed`, and the session."""

COLUMNS: Final = (
    "timestamp",
    "event",
    "session",
    "client",
    "port",
    "version",
    "tls",
    "cipher",
    "sni",
    "resumed",
    "reason",
    "milliseconds",
    "requests",
    "outcomes",
    "received",
    "sent",
    "peak",
    "last_stream",
    "goaway",
)
"""The columns of the `h2log` session format, tab separated; `-` is what there is not (yet)."""


def _stamp(event: str, session: Session) -> str:
    when = session.wall + (session.duration if event == "closed" else 0.0)
    second = int(when)
    return f"{iso_second(second)}.{int((when - second) * 1000):03d}+00:00"


def _tab_separated(item: SessionEvent) -> str:
    event, session = item
    tls = session.tls
    closed = event == "closed"
    outcomes = ",".join(f"{way.value}={count}" for way, count in session.outcomes().items())
    columns: tuple[object, ...] = (
        _stamp(event, session),
        event,
        session.id,
        escape(session.client) or "-",
        session.port,
        session.protocol,
        tls.version if tls else "-",
        tls.cipher if tls else "-",
        (escape(tls.sni) or "-") if tls else "-",
        ("yes" if tls.resumed else "no") if tls else "-",
        session.reason if closed else "-",
        f"{session.duration * 1000:.3f}" if closed else "-",
        session.requests if closed else "-",
        (outcomes or "-") if closed else "-",
        session.received if closed else "-",
        session.sent if closed else "-",
        session.peak if closed else "-",
        session.last_stream_id if closed else "-",
        session.goaway if closed and session.goaway is not None else "-",
    )
    return "\t".join(map(str, columns)) + "\n"


def _json(item: SessionEvent) -> str:
    event, session = item
    tls = session.tls
    line: dict[str, Any] = {
        "timestamp": _stamp(event, session),
        "h2log.event": f"session.{event}",
        "h2log.session.id": session.id,
        "client.address": session.client,
        "client.port": session.port,
        "network.protocol.version": {"h2": "2"}.get(session.protocol, session.protocol),
    }
    if tls is not None:
        line |= {
            "tls.protocol.version": tls.version.removeprefix("TLSv"),
            "tls.cipher": tls.cipher,
            "tls.client.server_name": tls.sni,
            "tls.next_protocol": session.alpn,
            "tls.resumed": tls.resumed,
        }
    if event == "closed":
        line |= {
            "error.type": session.reason,
            "h2log.session.duration": round(session.duration, 6),
            "h2log.session.requests": session.requests,
            "h2log.session.outcomes": {w.value: n for w, n in session.outcomes().items()},
            "h2log.session.received": session.received,
            "h2log.session.sent": session.sent,
            "h2log.session.peak": session.peak,
            "h2log.session.last_stream_id": session.last_stream_id,
        }
        if session.goaway is not None:
            line["h2log.session.goaway"] = session.goaway
    # Escaped to ASCII: no reader can take U+2028 in a server name for the end of a line.
    text = msgspec.json.encode(line).decode()
    return "".join(c if c < "\x7f" else _escaped(c) for c in text) + "\n"


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"


class _SessionFormat:
    """A format of the session log, as the writer uses one."""

    def __init__(
        self,
        name: str,
        line: Callable[[SessionEvent], str],
        header: str = "",
        note: NoteFunction | None = None,
    ) -> None:
        self.name = name
        self.header = header
        self.note = note
        self._line = line

    def __call__(self, item: SessionEvent) -> str:
        return self._line(item)


SESSION_FORMATS: Final = {
    "h2log": _SessionFormat("h2log", _tab_separated, f"#Fields: {' '.join(COLUMNS)}\n"),
    "json": _SessionFormat("json", _json, note=json_note),
}


def session_format(name: str) -> Callable[[SessionEvent], str]:
    """Return the session format `name`: `h2log` (tab separated) or `json`. Raises KeyError."""
    return SESSION_FORMATS[name]
