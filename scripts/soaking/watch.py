"""What the processes of a server take, and whether it grows."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["HOUR", "MIB", "Sample", "Slope", "halves", "sample", "slope"]

HOUR: Final = 3600.0
MIB: Final = 1024 * 1024
_SURE: Final = 1.96
"""Standard deviations of an interval that has the truth in 95 of 100 cases."""


class Sample(NamedTuple):
    """One process at one moment; memory is in bytes."""

    at: float
    own: int
    """Memory that is its own: not the pages of files, which come and go with the page cache."""
    peak: int
    """The most that was resident since the sample before, files' pages as well."""
    descriptors: int


def sample(pid: int) -> Sample:
    """Return what a process takes now."""
    peak = _value(f"/proc/{pid}/status", "VmHWM:")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    own = _value(f"/proc/{pid}/smaps_rollup", "Anonymous:")
    return Sample(time.monotonic(), own, peak, len(os.listdir(f"/proc/{pid}/fd")))


def _value(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{path} has no {name}")


class Slope(NamedTuple):
    """Growth in MiB an hour: the likeliest, and between what the truth is in 95 of 100 cases."""

    likely: float
    least: float
    most: float


def slope(points: list[tuple[float, int]]) -> Slope:
    """Return the growth of bytes over seconds.

    The median of the slopes between all pairs of points, with its interval (P. K. Sen, 1968): a
    few points that are off, a page more or less, do not move it as they would move a mean.
    """
    pairs = itertools.combinations(points, 2)
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) * HOUR / MIB for a, b in pairs)
    count, all_of_them = len(points), len(slopes)
    if count < 3:
        return Slope(0.0, -math.inf, math.inf)
    wide = _SURE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    least = max(0, math.floor((all_of_them - wide) / 2))
    most = min(all_of_them - 1, math.ceil((all_of_them + wide) / 2))
    return Slope(statistics.median(slopes), slopes[least], slopes[most])


def halves(values: Iterable[int]) -> tuple[float, float]:
    """Return the medians of the first half and of the second, in MiB."""
    found = list(values)
    middle = len(found) // 2
    return statistics.median(found[:middle]) / MIB, statistics.median(found[middle:]) / MIB
