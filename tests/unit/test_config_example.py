"""The example file: true to the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import h2log
from h2log.config import Settings, all_keys, build, file_problems
from h2log.http2.budget import BUDGETS

EXAMPLE = Path(h2log.__file__).parent / "examples" / "h2log.toml"
TEXT = EXAMPLE.read_text()


def keys() -> dict[str, str]:
    """Return every key and table that the file has, with the comment above it."""
    found: dict[str, str] = {}
    table, comment = "", ""
    for line in TEXT.splitlines():
        if line.startswith("#"):
            comment = line
            continue
        if header := re.fullmatch(r"\[+([a-z._]+)\]+", line):
            table = header[1]
            found[table] = comment
        elif setting := re.match(r"([a-z0-9_]+) = ", line):
            found[f"{table}.{setting[1]}"] = comment
        comment = ""
    return found


def test_it_changes_nothing() -> None:
    """Every value in it is the default."""
    assert build(tomllib.loads(TEXT)) == Settings()
    assert file_problems(str(EXAMPLE)) == []


def test_it_has_every_key_with_a_comment() -> None:
    """And no other; tables that only hold tables need no header."""
    wanted = {key.replace("[]", "") for key in all_keys()} - {"log"}
    found = keys()
    assert set(found) == wanted
    assert [key for key, comment in found.items() if len(comment) < 10] == []


def test_it_tells_the_budgets() -> None:
    """By name, with their defaults."""
    rows = re.findall(r"^# (\w+) = \{ burst = (\d+), rate = (\d+) \}$", TEXT, re.MULTILINE)
    assert rows == [(name, str(b.burst), f"{b.rate:g}") for name, b in BUDGETS.items()]


def test_its_lines_are_short() -> None:
    """It is read in a terminal."""
    assert max(map(len, TEXT.splitlines())) <= 100
