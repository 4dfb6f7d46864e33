"""What the processes of a server take: memory, descriptors, over time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Sample", "Watch", "slope"]

PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 1.0
HOUR = 3600.0
MIB = 1024 * 1024


class Sample(NamedTuple):
    """One process at one moment."""

    at: float
    resident: int
    descriptors: int


def sample(pid: int) -> Sample:
    """Return what a process takes now."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return Sample(time.monotonic(), resident, len(os.listdir(f"/proc/{pid}/fd")))


def slope(samples: list[Sample]) -> float:
    """Return the growth of the memory in MiB an hour: least squares over the later three parts."""
    later = samples[len(samples) // 4 :]
    if len(later) < 3:
        return 0.0
    mean_at = sum(s.at for s in later) / len(later)
    mean = sum(s.resident for s in later) / len(later)
    spread = sum((s.at - mean_at) ** 2 for s in later)
    return sum((s.at - mean_at) * (s.resident - mean) for s in later) / spread * HOUR / MIB


class Watch:
    """Samples processes every second in a thread, while its block runs."""

    def __init__(self, pids: list[int]) -> None:
        self.samples: dict[int, list[Sample]] = {pid: [] for pid in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            for pid, samples in self.samples.items():
                try:
                    samples.append(sample(pid))
                except (FileNotFoundError, ProcessLookupError):
                    continue
