"""The command line itself: help, version, and mistakes before any command runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def h2log(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m h2log` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "h2log", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands(flag: str) -> None:
    """On standard output, with exit code 0."""
    done = h2log(flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: h2log [OPTIONS] COMMAND")
    for command in ("serve", "run", "certs", "tail"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("serve", ["[ROOT]", "--host", "--port", "--cert", "--key", "--insecure", "--access-log"]),
        ("run", ["MODULE:ATTR", "--log-level", "--drain-timeout", "127.0.0.1", "8443"]),
        ("certs", ["--dir"]),
        ("tail", ["-n", "--follow"]),
    ],
)
def test_every_command_has_its_help(command: str, words: list[str]) -> None:
    """It names its arguments and options, with their defaults."""
    done = h2log(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: h2log {command} ")
    assert [word for word in words if word not in done.stdout] == []


def test_it_says_its_version() -> None:
    """Its name and a number."""
    done = h2log("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("h2log 0.")


def test_without_a_command_it_helps_and_fails() -> None:
    """The help goes to standard error, since nothing was done."""
    done = h2log()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: h2log" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "fly"),
        (["--fly"], "--fly"),
        (["serve", "--fly"], "--fly"),
        (["serve", "one", "two"], "two"),
        (["serve", "--port"], "--port"),
        (["serve", "--port", "99999"], "99999"),
        (["serve", "--port", "-1"], "-1"),
        (["serve", "--port", "https"], "https"),
        (["serve", "--log-level", "loud"], "loud"),
        (["serve", "--drain-timeout", "-1"], "-1"),
        (["serve", "--drain-timeout", "soon"], "soon"),
        (["serve", "--drain-timeout", "nan"], "nan"),
        (["run"], "MODULE:ATTR"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], word: str) -> None:
    """It begins with the program's name and has the word that is wrong; the exit code is 2."""
    done = h2log(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("h2log: ")
    assert word in line
