"""What a server costs: CPU time and memory of its processes, lines of its log.

CPU time is that of every thread of every process of a server, user and system together. It is
read from each process's CPU clock (clock_getcpuclockid(3)), which is what /proc/PID/stat rounds to
ticks of 10 ms; children that have ended are in their parent's stat line.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["LogTail", "busy_seconds", "cpu_seconds", "memory_kib", "processes"]

TICK = os.sysconf("SC_CLK_TCK")
# Offsets in /proc/PID/stat behind the closing parenthesis of the command's name, see proc(5).
PARENT, GROUP, CHILD_USER, CHILD_SYSTEM = 1, 2, 13, 14


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the name, None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes(leader: int) -> list[int]:
    """Return the leader, its descendants and the rest of its process group."""
    stats = {
        int(entry): fields
        for entry in os.listdir("/proc")
        if entry.isdigit() and (fields := _stat(int(entry))) is not None
    }
    found = {pid for pid, fields in stats.items() if pid == leader or int(fields[GROUP]) == leader}
    grown = True
    while grown:
        more = {pid for pid, fields in stats.items() if int(fields[PARENT]) in found} - found
        found |= more
        grown = bool(more)
    return sorted(found)


def _clock(pid: int) -> float:
    """Return the CPU seconds of a process, all threads, ended ones as well."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a whole process
    except OSError:
        return 0.0


def cpu_seconds(leader: int) -> float:
    """Return the CPU seconds that a server has used since it started."""
    total = 0.0
    for pid in processes(leader):
        fields = _stat(pid)
        if fields is not None:
            total += _clock(pid) + (int(fields[CHILD_USER]) + int(fields[CHILD_SYSTEM])) / TICK
    return total


def busy_seconds(cpu: int) -> float:
    """Return the seconds that a CPU has been busy (with anything) since the machine started."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICK
    return 0.0


def memory_kib(leader: int) -> tuple[int, int]:
    """Return (PSS, RSS) of a server's processes together, in KiB."""
    pss = rss = 0
    for pid in processes(leader):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in rollup.splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
            elif line.startswith("Rss:"):
                rss += int(line.split()[1])
    return pss, rss


class LogTail:
    """Counts the lines that a server appends to its log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0

    def lines(self) -> int:
        """Return how many lines were appended since the last call."""
        count = 0
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
                    self.position += len(block)
        except FileNotFoundError:
            pass
        return count

    def settle(self, expected: int, patience: float = 3.0) -> int:
        """Count lines until `expected` have come, or none came for `patience` seconds."""
        count = self.lines()
        last = time.monotonic()
        while count < expected and time.monotonic() - last < patience:
            time.sleep(0.02)
            if more := self.lines():
                count += more
                last = time.monotonic()
        return count + self.lines()
