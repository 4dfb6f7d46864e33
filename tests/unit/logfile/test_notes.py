"""Notes of the log: in the shape of the lines around them, and read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from h2log.access.formats import NAMES, compile
from h2log.access.lines import is_note
from h2log.access.notes import Note, read_note
from h2log.access.readback import parse_line
from h2log.access.session_formats import SESSION_FORMATS
from h2log.logfile.notes import Gap, note_line

SINCE = datetime(2026, 11, 20, 13, 31, 59, tzinfo=UTC)
GAPS = [
    Gap(12, 501, 512, SINCE.timestamp(), "No space left on device"),
    Gap(3, 0, 0, SINCE.timestamp(), 'a "reason"\\ with all'),
    Gap(60, 1201, 1260, SINCE.timestamp(), "killed", "lost", 3),
]
OBJECTS = ("json", "ecs", "caddy")


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.reason)
@pytest.mark.parametrize("name", [*NAMES, "session h2log", "session json"])
def test_a_note_is_told_apart_and_read(name: str, gap: Gap) -> None:
    """In every format it is one line that is no request, and says all that is known."""
    kind = name.removeprefix("session ")
    made: Any = SESSION_FORMATS[kind] if kind != name else compile(name)
    text = note_line(made, gap.kind, gap.fields).decode()
    assert text.endswith("\n")
    line = text.removesuffix("\n")
    assert "\n" not in line
    assert is_note(line)
    assert read_note(line) == Note(
        gap.kind, gap.lines, gap.first, gap.last, SINCE, gap.reason, gap.worker
    )
    assert (line[0] == "{") == (kind in OBJECTS)
    if kind == name:
        with pytest.raises(ValueError, match="line: "):
            parse_line(name, line)


def test_the_shapes_of_objects() -> None:
    """Readers of each format find the keys they know."""
    gap = GAPS[0]
    plain, ecs, caddy = (
        json.loads(note_line(compile(name), gap.kind, gap.fields)) for name in OBJECTS
    )
    assert plain == {
        "h2log.note": "dropped",
        "lines": 12,
        "first": 501,
        "last": 512,
        "since": "2026-11-20T13:31:59+00:00",
        "reason": "No space left on device",
    }
    assert ecs["@timestamp"] == "2026-11-20T13:31:59.000Z"
    assert ecs["log.level"] == caddy["level"] == "warn"
    assert ecs["message"] == caddy["msg"] == "dropped 12 lines: No space left on device"
    assert caddy["ts"] == SINCE.timestamp()


def test_a_request_forges_no_note() -> None:
    """The key in a text of a request is not the key."""
    assert not is_note(json.dumps({"url.path": '{"h2log.note":"dropped"}'}))
    assert not is_note('2026-11-20T13:31:59.123+00:00\t/{"h2log.note":1}')
    with pytest.raises(ValueError, match="no note"):
        read_note("GET / 200")
