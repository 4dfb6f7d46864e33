"""Which files ask for another start of the application."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from h2log.config import AccessOutput, LogSettings
from h2log.errors import UsageError
from h2log.workers.sources import Sources

pytest.importorskip("watchfiles")


def sources(
    folder: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), log: str = "-"
) -> Sources:
    """Return the sources in `folder`."""
    return Sources([str(folder)], include, exclude, LogSettings(outputs=(AccessOutput(path=log),)))


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("main.py", True),
        ("deep/er/part.py", True),
        ("main.pyc", False),
        ("page.html", True),
        ("templates/page.txt", True),
        ("page.txt", False),
        (".main.py", False),
        (".venv/lib/part.py", False),
        ("venv/lib/part.py", False),
        ("lib/site-packages/part.py", False),
        ("__pycache__/main.py", False),
        ("node_modules/a.py", False),
        ("migrations/0001.py", False),
        ("shop/migrations/0001.py", False),
        ("tests/unit/a.py", False),
        ("tests/a.py", True),
        ("a_generated.py", False),
        ("logs.py", True),
        ("../main.py", False),
    ],
)
def test_what_counts(tmp_path: Path, path: str, counts: bool) -> None:
    """Python's files, and what is included; not what is excluded, by name, path or folder."""
    watched = sources(
        tmp_path, ("*.html", "templates/*"), ("migrations/", "tests/unit", "*_generated.py")
    )
    assert watched.counts(os.path.normpath(tmp_path / path)) is counts


@pytest.mark.parametrize("name", ["access.log", "access.log.1", "access.log.2026-11-20.gz"])
def test_logs_do_not_count(tmp_path: Path, name: str) -> None:
    """A reload would write to them, and cause the next."""
    watched = sources(tmp_path, ("*",), log=str(tmp_path / "access.log"))
    assert not watched.counts(str(tmp_path / name))
    assert watched.counts(str(tmp_path / "access.txt"))


def test_a_log_s_name_may_begin_others(tmp_path: Path) -> None:
    """A log that is called `log` is not `logic.py`."""
    watched = sources(tmp_path, ("*",), log=str(tmp_path / "log"))
    assert not watched.counts(str(tmp_path / "log"))
    assert watched.counts(str(tmp_path / "logic.py"))


def test_it_says_what_is_watched(tmp_path: Path) -> None:
    """For who looks at the terminal."""
    assert str(sources(tmp_path, ("*.html",))) == f"*.py *.html in {tmp_path}"


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(UsageError, match=f"no folder {tmp_path}/away to watch"):
        sources(tmp_path / "away")


def test_it_needs_watchfiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the command that installs it is named."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"pip install 'h2log\[watch\]'"):
        sources(tmp_path)


async def test_changes_are_gathered(tmp_path: Path) -> None:
    """From the moment that it watches on; each is told once, as its path below the folder."""
    watched = sources(tmp_path)
    await watched.watch()
    try:
        (tmp_path / "b.py").write_text("")
        (tmp_path / "a.txt").write_text("")
        assert await watched.changed() == ["b.py"]
        (tmp_path / "part").mkdir()
        found: list[str] = []
        (tmp_path / "a.py").write_text("")
        while "a.py" not in found:
            found += await watched.changed()
        assert found == ["a.py"]
    finally:
        await watched.stop()


async def test_many_changes_are_one_line(tmp_path: Path) -> None:
    """A checkout changes thousands of files; some are named, and the others counted."""
    watched = sources(tmp_path)
    await watched.watch()
    try:
        (tmp_path / "fresh").mkdir()
        for number in range(500):
            (tmp_path / "fresh" / f"{number:03}.py").write_text("")
        (tmp_path / "fresh").rename(tmp_path / "made")
        told = await watched.changed()
    finally:
        await watched.stop()
    assert len(told) <= 11
    assert sum(len(name) for name in told) < 200


async def test_a_start_that_changes_files_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would start for ever: after some times the remedy is logged, once."""
    monkeypatch.setattr("h2log.workers.sources._AT_ONCE", math.inf)  # however slow this machine is
    watched = sources(tmp_path)
    await watched.watch()
    try:
        for number in range(7):
            (tmp_path / "made up.py").write_text(f"number = {number}")
            assert await watched.changed() == ["made up.py"]
        [record] = caplog.records
        assert record.message.endswith("leave it out with --reload-exclude 'made up.py'")
        (tmp_path / "other.py").write_text("")
        assert await watched.changed() == ["other.py"]
    finally:
        await watched.stop()
