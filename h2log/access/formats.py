"""Formats: a record in, its line out. Each is compiled once to one function."""

from __future__ import annotations

from collections.abc import Callable

from h2log.access.lines import escape
from h2log.access.record import AccessRecord
from h2log.clock import iso_second

__all__ = ["Format", "h2log_format"]

Format = Callable[[AccessRecord], str]
"""Returns the line of a record, with its newline."""

_MAX_SECONDS = 16


def h2log_format() -> Format:
    """Return the default format: seven columns, tab separated.

    Timestamp (UTC, milliseconds) of the complete request header, status or `-`, milliseconds to
    the last byte handed over, session id, request id, version, path with query (see `escape`).
    """
    # Records of a batch lie in one or two seconds; long requests reach back further.
    seconds: dict[int, str] = {}

    def line(record: AccessRecord) -> str:
        wall = record.wall
        second = int(wall)
        stamp = seconds.get(second)
        if stamp is None:
            if len(seconds) >= _MAX_SECONDS:
                seconds.clear()
            stamp = seconds[second] = iso_second(second)
        session = record.session
        facts = record.facts
        target = facts.path or facts.authority or "-"
        if not (target.isascii() and target.isprintable() and "\\" not in target):
            target = escape(target)
        return (
            f"{stamp}.{int((wall - second) * 1000):03d}+00:00\t{record.status or '-'}\t"
            f"{(record.end - record.start) * 1000:.3f}\t{session.id}\t{record.id}\t"
            f"{session.protocol}\t{target}\n"
        )

    return line
