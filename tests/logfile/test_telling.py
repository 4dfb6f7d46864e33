"""What the server's own log says of a log that loses lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line, put_many
from tests.support import eventually


async def test_the_first_lost_line_is_told_and_the_end_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message each, however many lines and however often: on a healthy disk too."""
    monkeypatch.setattr("h2log.logfile.writer._CALM", 0.0)
    monkeypatch.setattr("h2log.logfile.intake._BURST", 0)
    writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, 1000)
    await writer.open()
    for _ in range(300):
        writer.put(Record())  # in one turn of the loop: nothing is written meanwhile
    assert writer.dropped > 0
    begun = [text for text in caplog.messages if "lines are dropped from now on" in text]
    assert len(begun) == 1
    assert "the buffer is full" in begun[0]
    await eventually(lambda: writer.health().queued_lines == 0)
    await put_many(writer, 1)
    await eventually(lambda: "no line is dropped any more" in caplog.text)
    await writer.close()
    assert writer.written + writer.dropped == writer.sequence
