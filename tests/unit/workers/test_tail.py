"""What a new owner of the log knows of what the one before it has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.access.notes import json_note
from h2log.config import build
from h2log.server.logs import redaction_of
from h2log.workers.outputs import Place, _last_lines, _place

FIELDS = {
    "worker": 2,
    "lines": 10,
    "first": 11,
    "last": 20,
    "since": "2026-11-20T13:31:59+00:00",
    "reason": "the owner of the log takes nothing",
}
NOTES = {
    "text": '#dropped worker=2 lines=10 seq=11-20 since=2026-11-20T13:31:59+00:00 reason="x"\n',
    "json": json_note("dropped", FIELDS),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an output, its file with two lines of another process, a note and half a line."""
    settings = build({"log": {"access": [{"path": str(tmp_path / "access.log")}]}}, "a test").log
    return _place(0, settings.outputs[0], settings, redaction_of(settings))


@pytest.mark.parametrize("kind", NOTES)
async def test_what_was_written_is_not_written_again(
    place: Place, tmp_path: Path, kind: str
) -> None:
    """Lines and notes are known; what was begun of a line is cut off, and comes again."""
    log = tmp_path / "access.log"
    log.write_bytes(b"one\ntwo\n" + NOTES[kind].encode() + b"thr")
    place.tail = _last_lines(str(log))
    assert log.read_bytes().endswith(NOTES[kind].encode())
    assert place.unwritten(b"two\nthree\none\n") == b"three\n"
    assert place.told(2, 11, 20) and place.told(2, 12, 15)
    assert not place.told(1, 11, 20) and not place.told(2, 11, 21)
    assert not place.told(2, 0, 0)  # numbers that nobody knows
    place.forget()
    assert place.unwritten(b"two\n") == b"two\n"
    assert not place.told(2, 11, 20)


async def test_a_file_that_is_not_there(place: Place, tmp_path: Path) -> None:
    """Nothing was written then."""
    place.tail = _last_lines(str(tmp_path / "nowhere" / "access.log"))
    assert place.unwritten(b"one\n") == b"one\n"
    assert not place.told(1, 1, 2)
