"""A log that goes to a logger of the application."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from h2log.errors import UsageError
from h2log.logfile.applog import AppLog
from h2log.logfile.loggers import LoggerTarget
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import Record, line, numbers, put_many
from tests.support import eventually

NAME = "test.loggers.access"


class Heard(logging.Handler):
    """Keeps the records that come, and the thread they come in."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.fails = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.go.wait(10)
        if self.fails:
            self.fails -= 1
            raise ValueError("the handler's own mistake")
        self.records.append(record)
        self.threads.add(threading.current_thread().name)

    @property
    def texts(self) -> list[str]:
        """What they say."""
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to the logger; what was set up before is back afterwards."""
    logger = logging.getLogger(NAME)
    handler = Heard()
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    logger.propagate = False
    yield handler
    handler.go.set()
    logger.removeHandler(handler)
    logger.setLevel("NOTSET")
    logger.propagate = True


async def test_each_line_is_a_record(heard: Heard) -> None:
    """In order, made by the writer's thread, with the name of the log and nothing of its own."""
    writer = LogWriter(f"logger:{NAME}", line, 0.001)
    await writer.open()
    await put_many(writer, 1000)
    await writer.close()
    assert numbers("".join(f"{text}\n" for text in heard.texts).encode()) == list(range(1, 1001))
    assert len(heard.threads) == 1 and heard.threads.pop().startswith("h2log-log")
    assert {(r.name, r.levelname, r.args, r.h2log) for r in heard.records} == {  # type: ignore[attr-defined]
        (NAME, "INFO", (), "access")
    }
    assert (writer.written, writer.dropped, writer.health().failures) == (1000, 0, 0)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
async def test_the_level_is_a_choice(heard: Heard, level: str) -> None:
    """By its name; what a line has of formatting is text."""
    texts = ["100 %s %d {} \\n", "Grüße\taus 東京", "", "a\rb\x85c\u2028d"]
    writer = LogWriter(f"logger:{NAME}?level={level}", lambda text: f"{text}\n", what="session log")
    await writer.open()
    for text in texts:
        writer.put(text)
    await writer.close()
    assert heard.texts == texts
    assert {(r.levelname.lower(), r.h2log) for r in heard.records} == {(level, "session")}  # type: ignore[attr-defined]


async def test_a_slow_handler_holds_up_only_the_log(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on, lines wait; those beyond the bound are counted, and a note is a record."""
    monkeypatch.setattr("h2log.logfile.intake._BURST", 0)  # its time to be slow has passed
    heard.go.clear()
    writer = LogWriter(f"logger:{NAME}", line, 0.001, 65_536)
    await writer.open()
    writer.put(Record())
    writer.flush_soon()
    await asyncio.sleep(0)
    await put_many(writer, 10_000)
    await writer.flush()
    assert writer.dropped > 0
    heard.go.set()
    await eventually(lambda: not writer.health().queued_lines)
    await writer.close()
    notes = [text for text in heard.texts if text.startswith("#dropped ")]
    assert len(heard.texts) == writer.written + len(notes)
    assert sum(int(text.split()[1].removeprefix("lines=")) for text in notes) == writer.dropped
    assert writer.written + writer.dropped == 10_001


async def test_a_handler_that_raises(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """Costs its line only; it is counted, and told once."""
    writer = LogWriter(f"logger:{NAME}", line, 0.001)
    await writer.open()
    heard.fails = 3
    await put_many(writer, 10)
    await writer.close()
    assert numbers("".join(f"{text}\n" for text in heard.texts).encode()) == list(range(4, 11))
    assert (writer.written, writer.health().failures) == (10, 3)
    [told] = [record.getMessage() for record in caplog.records if record.name == "h2log.log"]
    assert told.startswith(f"a handler of logger:{NAME} failed: ValueError(")


async def test_nobody_listens(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """That is told at the start, and again when it happens later; not for each line."""
    logger = logging.getLogger(NAME)
    logger.setLevel("WARNING")
    writer = LogWriter(f"logger:{NAME}", line, 0.001)
    await writer.open()
    assert [record.getMessage() for record in caplog.records] == [
        f"lines go to logger:{NAME} in vain: the logger does not let that level through; set it up "
        "before the start, or choose another level"
    ]
    await put_many(writer, 10)
    await eventually(lambda: writer.written == 10)
    logger.setLevel("INFO")
    await put_many(writer, 10)
    await eventually(lambda: writer.written == 20)
    for handler in list(logger.handlers):  # pytest may listen, too
        logger.removeHandler(handler)
    await put_many(writer, 10)
    await writer.close()
    assert len(heard.records) == 10
    told = [record.getMessage() for record in caplog.records if record.name == "h2log.log"]
    assert len(told) == 2 and "the logger has no handler" in told[1]


async def test_the_applications_log_hears_it_too(tmp_path: Path) -> None:
    """As it hears every logger; what is only the mark of a log's line is no extra."""
    root = logging.getLogger()
    before = root.level
    root.setLevel("INFO")
    app = AppLog(str(tmp_path / "app.log"), "info")
    writer = LogWriter("logger:test.loggers.other", line, 0.001)
    try:
        await app.open()
        await writer.open()
        await put_many(writer, 3)
        await writer.close()
        await app.close()
    finally:
        root.setLevel(before)
    lines = (tmp_path / "app.log").read_text().splitlines()
    assert len(lines) == 3
    assert all(" INFO] [- -] test.loggers.other " in text for text in lines)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("logger:", "no logger has the name ''"),
        ("logger:?level=info", "no logger has the name ''"),
        ("logger:a..b", "no logger has the name 'a..b'"),
        ("logger:.a", "no logger has the name '.a'"),
        ("logger:a b", "no logger has the name 'a b'"),
        ("logger:a\n", "no logger has the name 'a\\n'"),
        ("logger:h2log", "h2log's own loggers tell of the trouble that this log has"),
        ("logger:h2log.log", "h2log's own loggers tell of the trouble that this log has"),
        ("logger:h2log.x.y?level=info", "h2log's own loggers tell"),
        ("logger:a?level=loud", "level must be one of debug, info, warning, error, critical"),
        ("logger:a?level=", "level must be one of"),
        ("logger:a?info", "'info' is no option"),
        ("logger:a?colour=red", "there is no option 'colour'"),
    ],
)
def test_what_names_no_logger(path: str, reason: str) -> None:
    """The message has the path, and why."""
    with pytest.raises(UsageError) as caught:
        LoggerTarget(path)
    text = str(caught.value)
    assert reason in text and text.isprintable()
    assert text.removeprefix("'").startswith(path.replace("\n", "\\n"))


def test_names_that_only_look_alike() -> None:
    """`h2logs` is nobody's."""
    for name in ("h2logs", "shop.h2log", "root"):
        LoggerTarget(f"logger:{name}")
