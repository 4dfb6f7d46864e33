"""How a log does: numbers that a program can look at while it is written."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Health"]


@dataclass(frozen=True, slots=True)
class Health:
    """One writer at one moment.

    With formats of one line a record, `taken == written + skipped + dropped + queued_lines`, but
    for what a thread is writing at this moment.
    """

    path: str
    """As it was configured."""
    file: str
    """What is written to now: the same, but behind a link."""
    taken: int
    """Records put."""
    written: int
    """Lines in files, or handed over; notes and headers are not counted."""
    skipped: int
    """Records that the predicate or the format left out."""
    dropped: int
    """Lines given up: there was no room, or their format failed."""
    cut: int
    """Lines written of which a datagram could only take the beginning."""
    bytes: int
    flushes: int
    """Turns of the thread that writes."""
    flush_max: float
    """Seconds of the longest of them."""
    flush_mean: float
    queued_lines: int
    """Lines and records that wait."""
    queued_bytes: int
    """Bytes of the lines among them."""
    failures: int
    """Attempts at writing, opening or rotating that failed."""
    failing: str
    """Why nothing can be written at present, or nothing."""
    rotations: int
    reopened: int
    """New files at the path after somebody else had moved the old one away; new connections."""
    overloaded: bool
