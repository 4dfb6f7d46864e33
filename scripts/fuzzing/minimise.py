"""Delta debugging: the smallest case, within a little time, that still breaks in the same way."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import case as cases
from case import Case, Step

__all__ = ["minimise"]

_T = TypeVar("_T", bytes, list[Step])


def _shrunk(whole: _T, breaks: Callable[[_T], bool], until: float) -> _T:
    """Leave out ever smaller runs of `whole` as long as it breaks."""
    size = max(1, len(whole) // 2)
    while True:
        pos = 0
        while pos < len(whole) and monotonic() < until:
            less = whole[:pos] + whole[pos + size :]
            if breaks(less):
                whole = less
            else:
                pos += size
        if size == 1 or monotonic() >= until:
            return whole
        size //= 2


def _frames(data: bytes) -> list[bytes]:
    """Return the frames that `data` is, as far as it is any."""
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        found.append(data[:end])
        data = data[end:]
    return found


def minimise(case: Case, breaks: Callable[[Case], bool], seconds: float = 5.0) -> Case:
    """Return a case that is not larger than `case` and of which `breaks` is true as well."""
    until = monotonic() + seconds
    joined: list[Step] = []
    runs: list[Step] = []
    for step in case.steps:
        if step[0] == cases.RECEIVE and runs and runs[-1][0] == cases.RECEIVE:
            step = (cases.RECEIVE, 0, runs.pop()[2] + step[2])
        runs.append(step)
    for kind, number, data in runs:
        if kind == cases.RECEIVE:
            joined += [(kind, 0, part) for part in _frames(data)]
        else:
            joined.append((kind, number, b""))
    if breaks(case._replace(steps=joined)):
        case = case._replace(steps=joined)
    steps = _shrunk(case.steps, lambda less: breaks(case._replace(steps=less)), until)
    for place, (kind, number, data) in enumerate(steps):
        if kind == cases.RECEIVE and len(data) > 9:
            head = data[3:9]
            before, after = steps[:place], steps[place + 1 :]

            def still(
                less: bytes,
                head: bytes = head,
                before: list[Step] = before,
                after: list[Step] = after,
            ) -> bool:
                whole = len(less).to_bytes(3, "big") + head + less
                return breaks(case._replace(steps=[*before, (cases.RECEIVE, 0, whole), *after]))

            if int.from_bytes(data[:3], "big") == len(data) - 9:
                less = _shrunk(data[9:], still, until)
                whole = len(less).to_bytes(3, "big") + head + less
                steps = [*before, (kind, number, whole), *after]
    return case._replace(steps=steps)
