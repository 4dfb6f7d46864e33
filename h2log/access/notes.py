"""Notes of the log, between its requests' lines: how many lines it lacks, which, and why.

    #dropped lines=12 seq=501-512 since=2026-11-20T13:31:59+00:00 reason="No space left on device"
    {"h2log.note":"dropped","lines":12,"first":501,"last":512,"since":"…","reason":"…"}

The formats of objects have objects: the second form in `json`, with the keys that their readers
ask for in `ecs` and `caddy`. A key `h2log.note` is in no line of a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from h2log.access.lines import is_note

__all__ = ["Note", "NoteFunction", "caddy_note", "ecs_note", "json_note", "read_note"]

NoteFunction = Callable[[str, Mapping[str, Any]], str]
"""Makes the line of a note of its kind and its fields."""

_NOTE: Final = re.compile(
    r"#(?P<kind>[a-z]+)(?: worker=(?P<worker>[0-9]+))? lines=(?P<lines>[0-9]+)"
    r"(?: seq=(?P<first>[0-9]+)-(?P<last>[0-9]+))? since=(?P<since>[-0-9T:]+\+00:00)"
    r' reason="(?P<reason>.*)"'
)
_KEY: Final = "h2log.note"


class Note(msgspec.Struct, frozen=True):
    """What a note tells. `first` and `last` are 0 where lines have no numbers."""

    kind: str
    """What became of the lines: `dropped` for want of room, `lost` with a process."""
    lines: int
    first: int
    last: int
    since: datetime
    reason: str
    worker: int = 0
    """The process whose numbers they are, where there are several."""


def _line(*parts: Mapping[str, Any]) -> str:
    # In ASCII: whatever a reason has in it, no reader takes it for the end of a line.
    made: dict[str, Any] = {}
    for part in parts:
        made |= part
    return json.dumps(made, separators=(",", ":")) + "\n"


def _told(kind: str, fields: Mapping[str, Any]) -> str:
    return f"{kind} {fields['lines']} lines: {fields['reason']}"


def json_note(kind: str, fields: Mapping[str, Any]) -> str:
    """Return the line of a note in `json`."""
    return _line({_KEY: kind}, fields)


def ecs_note(kind: str, fields: Mapping[str, Any]) -> str:
    """Return the line of a note in `ecs`: a message of the log's own, and our fields."""
    return _line(
        {
            "@timestamp": str(fields["since"]).replace("+00:00", ".000Z"),
            "log.level": "warn",
            "message": _told(kind, fields),
            "ecs.version": "8.11.0",
            "event.kind": "event",
            "event.dataset": "h2log.access",
            _KEY: kind,
        },
        {f"{_KEY}.{name}": value for name, value in fields.items()},
    )


def caddy_note(kind: str, fields: Mapping[str, Any]) -> str:
    """Return the line of a note in `caddy`: a message of another logger than the requests'."""
    return _line(
        {
            "level": "warn",
            "ts": datetime.fromisoformat(fields["since"]).timestamp(),
            "logger": "h2log.log",
            "msg": _told(kind, fields),
            _KEY: kind,
        },
        fields,
    )


def read_note(line: str) -> Note:
    """Return what a note, without its newline, tells. Raises ValueError for what is none."""
    if not is_note(line):
        raise ValueError(f"line: no note of the log: {line[:60]!a}")
    if line.startswith("{"):
        values = json.loads(line)
        values = {
            "kind": values.get(_KEY),
            **{key.removeprefix(f"{_KEY}."): value for key, value in values.items()},
        }
        return msgspec.convert(values, Note)
    found = _NOTE.fullmatch(line)
    if found is None:
        raise ValueError(f"line: a note of another kind: {line[:60]!a}")
    return msgspec.convert(
        {
            **{name: text for name, text in found.groupdict().items() if text is not None},
            "first": found["first"] or 0,
            "last": found["last"] or 0,
            "reason": re.sub(r'\\([\\"])', r"\1", found["reason"]),
        },
        Note,
        strict=False,
    )
