"""The application's log in a file, and what nobody caught in it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import uvloop

from h2log.errors import UsageError
from h2log.ids import request_id, session_id
from h2log.logfile.applog import DAILY, AppLog
from h2log.logfile.faults import install
from tests.support import ROOT

logger = logging.getLogger("test.applog.file")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Let every level pass; what was set before is back afterwards."""
    root = logging.getLogger()
    before = root.level
    root.setLevel("DEBUG")
    yield
    root.setLevel(before)


async def test_lines_of_all_threads(tmp_path: Path) -> None:
    """Each once, with its ids, those of one thread in order; after the end nobody is told."""
    log = AppLog(str(tmp_path / "logs" / "app.log"), "info")
    await log.open()

    def work(name: str) -> None:
        for n in range(200):
            logger.info("%s %d", name, n)
            logger.debug("not in the file")

    async def serve(name: str) -> None:
        session_id.set(f"s{name}")
        request_id.set(f"r{name}")
        work(f"loop-{name}")
        await asyncio.to_thread(work, f"thread-{name}")

    await asyncio.gather(*(serve(name) for name in "ab"))
    await log.close()
    logger.info("too late")
    text = (tmp_path / "logs" / "app.log").read_text()
    assert len(text.splitlines()) == 800
    for name in "ab":
        for kind in ("loop", "thread"):
            mine = [one for one in text.splitlines() if f" {kind}-{name} " in one]
            assert [one.rpartition(" ")[2] for one in mine] == [str(n) for n in range(200)]
            assert all(f"INFO] [s{name} r{name}] test.applog.file work (" in one for one in mine)


async def test_ten_days_are_kept(tmp_path: Path) -> None:
    """A file a day, and the eleventh goes."""
    now = datetime.now()
    for age in range(1, 15):
        day = now - timedelta(days=age)
        path = tmp_path / ("app.log" if age == 1 else f"app-{day:%Y-%m-%d}.log")
        path.write_text(f"{age}\n")
        os.utime(path, (day.timestamp(),) * 2)
    log = AppLog(str(tmp_path / "app.log"))
    await log.open()
    logger.info("today")
    kept = {f"app-{now - timedelta(days=age):%Y-%m-%d}.log" for age in range(1, 11)}
    async with asyncio.timeout(10):
        while {path.name for path in tmp_path.glob("app-*")} != kept:
            await asyncio.sleep(0.01)
    await log.close()
    assert {path.name for path in tmp_path.glob("app-*")} == kept
    assert (tmp_path / "app.log").read_text().endswith("today\n")
    assert DAILY.keep.count == 10


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """The message names the setting."""
    with pytest.raises(UsageError, match=r"cannot open the application's log .*log\.app\.path"):
        await AppLog(str(tmp_path)).open()


async def _faults(path: Path) -> None:
    """Raise everywhere; the loop goes on, and each is in the log."""
    log = AppLog(str(path))
    await log.open()
    uninstall = install(asyncio.get_running_loop())
    try:

        async def fails() -> None:
            session_id.set("s-task")
            request_id.set("r-task")
            await asyncio.sleep(0)
            raise ValueError("in a task")

        task = asyncio.create_task(fails())
        await asyncio.wait({task})
        del task
        gc.collect()

        def call() -> None:
            raise ValueError("in a callback")

        token = session_id.set("s-callback")
        asyncio.get_running_loop().call_soon(call)
        session_id.reset(token)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        def thread() -> None:
            request_id.set("r-thread")
            raise ValueError("in a thread")

        other = threading.Thread(target=thread, name="other\nname")
        other.start()
        await asyncio.to_thread(other.join)

        class Dying:
            def __del__(self) -> None:
                raise ValueError("in a destructor")

        Dying()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("take care", UserWarning, stacklevel=1)
    finally:
        uninstall()
        await log.close()
    text = path.read_text()
    for where in ("task", "callback", "thread", "destructor"):
        assert text.count(f"    ValueError: in a {where}\n") == 1, text
    assert "ERROR] [s-task r-task] h2log.fault " in text
    assert "ERROR] [s-callback -] h2log.fault " in text
    assert "ERROR] [- r-thread] h2log.fault " in text
    assert "the thread other\\nname ended" in text
    assert "WARNING] [- -] py.warnings " in text and "take care" in text


def test_what_nobody_caught_in_asyncio(tmp_path: Path) -> None:
    """Tasks, callbacks, threads, destructors and warnings, with the ids where there are some."""
    asyncio.run(_faults(tmp_path / "app.log"))


def test_what_nobody_caught_in_uvloop(tmp_path: Path) -> None:
    """The same there."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_faults(tmp_path / "app.log"))


MAIN = """
import asyncio, sys
from h2log.logfile.applog import configure
from h2log.logfile.faults import install

async def main():
    install(asyncio.get_running_loop())
    raise SystemError("at the end")

configure("info")
asyncio.run(main())
"""


def test_the_end_of_the_process_is_told() -> None:
    """What leaves the main thread is on the console, once, as a line of the log."""
    done = subprocess.run([sys.executable, "-c", MAIN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "CRITICAL] [- -] h2log.fault " in done.stderr.splitlines()[0]
    assert done.stderr.count("SystemError: at the end") == 1


def test_everything_is_put_back() -> None:
    """Hooks are those of before."""
    loop = asyncio.new_event_loop()
    before = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    uninstall = install(loop)
    assert sys.excepthook is not before[0]
    uninstall()
    assert before == (
        sys.excepthook,
        threading.excepthook,
        sys.unraisablehook,
        warnings.showwarning,
    )
    assert loop.get_exception_handler() is None
    loop.close()


async def test_an_error_does_not_wait_for_company(tmp_path: Path) -> None:
    """It is on its way at once, however long lines may wait."""
    path = tmp_path / "app.log"
    log = AppLog(str(path), flush_interval=3600)
    await log.open()
    before = time.monotonic()
    logger.error("now")
    async with asyncio.timeout(5):
        while not path.stat().st_size:
            await asyncio.sleep(0.001)
    assert time.monotonic() - before < 5
    await log.close()
