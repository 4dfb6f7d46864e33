"""What broke: told apart, written down so that it can be run again, and made small."""

from __future__ import annotations

import hashlib
import re
import traceback
from pathlib import Path
from typing import NamedTuple

import parsers
from case import Case, decode, encode, show
from client import Broken
from execute import execute
from floods import Scale
from minimise import minimise

__all__ = ["Finding", "finding_of", "replay", "write"]

_VARIABLE = re.compile(r"b?'[^']*'|[0-9a-f]{8,}|\d[\d.]*|\[[^]]*\]").sub


class Finding(NamedTuple):
    """An input and what it broke."""

    key: str
    """The same for inputs that break the same thing."""
    target: str
    """`case`, `flood`, or the name of a parser."""
    data: list[bytes]
    text: str


def _key(target: str, error: BaseException) -> str:
    where = ""
    if not isinstance(error, Broken):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" in {frames[-1].name}" if frames else ""
    return f"{target}: {type(error).__name__}{where}: {_VARIABLE('*', str(error))}"[:160]


def finding_of(target: str, case: Case | list[bytes], error: BaseException) -> Finding:
    """Return the finding that `error` is."""
    data = case if isinstance(case, list) else [encode(case)]
    text = "".join(traceback.format_exception(error, limit=-4))
    return Finding(_key(target, error), target, data, text)


def smaller(finding: Finding) -> Finding:
    """Return a finding of the same with a smaller case, if there is one soon."""
    if finding.target != "case":
        return finding

    def breaks(case: Case) -> bool:
        try:
            execute(case)
        except Exception as error:
            return _key("case", error) == finding.key
        return False

    case = decode(finding.data[0])
    return finding._replace(data=[encode(minimise(case, breaks))]) if breaks(case) else finding


def write(finding: Finding, directory: Path) -> Path:
    """Write a finding, made small; return the file."""
    finding = smaller(finding)
    lines = [finding.key, "", *finding.text.splitlines(), ""]
    if finding.target in ("case", "flood"):
        lines += show(decode(finding.data[0]))
    digest = hashlib.sha256(finding.key.encode()).hexdigest()[:10]
    path = directory / f"{finding.target}-{digest}.hex"
    body = [f"# {line}" for line in lines]
    body += [f"target: {finding.target}", *(data.hex() or "-" for data in finding.data), ""]
    path.write_text("\n".join(body))
    return path


def replay(path: Path) -> str:
    """Run what was written; return the outcome. What it broke is raised again."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    target = lines[0].removeprefix("target: ")
    data = [bytes.fromhex(line.strip("-")) for line in lines[1:]]
    if target not in ("case", "flood"):
        return parsers.check(target, data)
    case = decode(data[0])
    if target == "flood":
        cost = Scale().weigh(case)
        return f"a byte of the last step costs {cost:.1f} times a byte of PING"
    result = execute(case)
    return ", ".join(sorted(result.outcomes))
