"""The application's log beside the console: what matters is seen, whatever its file does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from h2log.logfile.applog import AppLog
from tests.support import eventually

logger = logging.getLogger("test.applog.console")
Console = Callable[[], AbstractContextManager[Path]]


@contextmanager
def standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the file that is standard error meanwhile; all that is logged comes to our handlers."""
    path = tmp_path / "stderr"
    root = logging.getLogger()
    with path.open("w") as stream, monkeypatch.context() as context:
        context.setattr("sys.stderr", stream)
        context.setattr(root, "handlers", [])
        context.setattr(root, "level", logging.DEBUG)
        yield path


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    """Return what sets it up, in the test itself: pytest has a standard error for each phase."""
    return lambda: standard_error(tmp_path, monkeypatch)


def told(path: Path) -> list[str]:
    """Return the messages of this module's logger."""
    return [
        text.rpartition(") ")[2]
        for text in path.read_text().splitlines()
        if " test.applog.console " in text
    ]


@pytest.mark.parametrize(
    ("threshold", "seen"),
    [("off", []), ("error", ["three"]), ("warning", ["two", "three"]), ("info", [*"1", "two"])],
)
async def test_console_and_file(
    tmp_path: Path, console: Console, threshold: str, seen: list[str]
) -> None:
    """The file has everything, standard error what is of its level or above."""
    with console() as stderr:
        log = AppLog(str(tmp_path / "app.log"), "debug", console=threshold)
        await log.open()
        logger.info("1")
        logger.warning("two")
        if "three" in seen or threshold == "off":
            logger.error("three")
        await log.close()
        assert told(tmp_path / "app.log")[:2] == ["1", "two"]
        assert told(stderr) == seen


async def test_a_full_disk_is_told_on_the_console(console: Console) -> None:
    """While nothing can be written to the file, warnings are on standard error, and at the end."""
    with console() as stderr:
        log = AppLog("/dev/full", "info", console="off")
        await log.open()
        logger.warning("before")
        await eventually(lambda: log.writer.failing)
        logger.info("no matter")
        logger.error("meanwhile")
        await eventually(lambda: "meanwhile" in told(stderr))
        await log.close()
        assert set(told(stderr)) == {"before", "meanwhile"}
        assert "lines could not be written to /dev/full" in stderr.read_text()


async def test_entries_of_another_process(tmp_path: Path, console: Console) -> None:
    """Those that matter go to standard error with what stands below them."""
    with console() as stderr:
        log = AppLog(str(tmp_path / "app.log"), "info", console="warning")
        await log.open()
        entries = (
            "[13:31:59.123 INFO] [- -] test.applog.console f (a.py:1) quiet\n"
            "[13:31:59.123 ERROR] [- -] test.applog.console f (a.py:1) loud\n    Traceback\n"
            "[13:31:59.123 INFO] [- -] test.applog.console f (a.py:1) again\n"
        )
        log.take(entries, hurry=True)
        await log.close()
        assert (tmp_path / "app.log").read_text() == entries
        assert stderr.read_text() == "".join(entries.splitlines(True)[1:3])


async def test_a_record_that_cannot_be_formatted(tmp_path: Path, console: Console) -> None:
    """One line names it and the reason; nothing is printed past the writer."""
    with console() as stderr:

        class Exits:
            def __str__(self) -> str:
                raise SystemExit(3)

        log = AppLog(str(tmp_path / "app.log"), "debug")
        await log.open()
        logger.info("%d of", "five", extra={"request_id": "r1"})
        await asyncio.to_thread(logger.info, "%s", Exits())
        logger.info("after")
        await log.close()
        first, second, third = told(tmp_path / "app.log")
        assert first.startswith("a record that cannot be formatted: TypeError: ")
        assert first.endswith("msg='%d of'")
        assert second == "a record that cannot be formatted: SystemExit: '3': msg='%s'"
        assert third == "after"
        assert "[- r1]" in (tmp_path / "app.log").read_text()
        assert stderr.read_text() == ""
