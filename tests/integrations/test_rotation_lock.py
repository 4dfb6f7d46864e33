"""One process of several rotates a log's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from h2log.config import LogSettings, build
from h2log.integrations.rotation_lock import RotationLock
from tests.support import ROOT


def settings(*paths: Path | str) -> LogSettings:
    """Return settings with a rotating output for each path."""
    outputs = [{"path": str(path), "rotate": {"every": "daily"}} for path in paths]
    return build({"log": {"access": outputs}}).log


def rotates(log: LogSettings) -> list[bool]:
    """Say which outputs rotate."""
    return [output.rotate.rules() is not None for output in log.outputs]


def test_the_first_rotates(tmp_path: Path) -> None:
    """And another when the first has gone; each file has a lock of its own."""
    log = settings(tmp_path / "a.log", tmp_path / "b.log")
    first, second = RotationLock(), RotationLock()
    assert rotates(first.settle(log)) == [True, True]
    assert rotates(second.settle(log)) == [False, False]
    first.release()
    assert rotates(second.settle(log)) == [True, True]
    second.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.log.lock", ".b.log.lock"]


def test_a_process_that_was_killed(tmp_path: Path) -> None:
    """It leaves its lock to the next, however it ended."""
    log = settings(tmp_path / "a.log")
    program = (
        "import os, signal, sys\n"
        "from h2log.integrations.rotation_lock import RotationLock\n"
        "from tests.integrations.test_rotation_lock import rotates, settings\n"
        "lock = RotationLock()\n"
        "print(rotates(lock.settle(settings(sys.argv[1]))), flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a.log")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"[True]\n"
        lock = RotationLock()
        assert rotates(lock.settle(log)) == [False]
        other.kill()
        other.wait()
    assert rotates(lock.settle(log)) == [True]
    lock.release()


def test_what_needs_no_lock(tmp_path: Path) -> None:
    """Files that do not rotate have none, and a folder that cannot be made is the log's to tell."""
    lock = RotationLock()
    plain = build({"log": {"access": [{"path": str(tmp_path / "a.log")}]}}).log
    assert lock.settle(plain) == plain
    assert rotates(lock.settle(settings("/dev/null/x.log"))) == [True]
    assert not list(tmp_path.iterdir())
