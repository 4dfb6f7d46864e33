"""What a log says of itself, between the lines that it was given: how many it lacks, and which.

    #dropped lines=12 seq=501-512 since=2026-11-20T13:31:59+00:00 reason="No space left on device"
    #lost worker=3 lines=60 seq=1201-1260 since=2026-11-20T13:31:59+00:00 reason="killed"

A note stands where the missing lines would. No request can forge one, since a request's line
begins with its timestamp. A format whose lines are objects gives its own notes: an attribute
`note`, a function of the kind and the fields (`lines`, `first`, `last`, `since`, `reason`; `first`
and `last` are 0 where lines have no numbers; and `worker`, where several processes number theirs)
that returns a line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from h2log.clock import iso_second

__all__ = ["Gap", "LineFormat", "as_line", "note_line"]

_logger = logging.getLogger("h2log.log")

LineFormat = Callable[[Any], "str | None"]
"""A record in, its line out; nothing or None leaves the record out. May have `header`, a line for
the start of each file, and `note`."""


class Gap:
    """Lines that are missing, one after the other."""

    __slots__ = ("first", "kind", "last", "lines", "reason", "since", "upto", "worker")

    def __init__(
        self,
        lines: int,
        first: int,
        last: int,
        since: float,
        reason: str,
        kind: str = "dropped",
        worker: int = 0,
        upto: int = 0,
    ) -> None:
        self.lines = lines
        self.first = first
        self.last = last
        self.since = since
        self.reason = reason
        self.kind = kind
        """What became of them: `dropped` for want of room, `lost` with a process."""
        self.worker = worker
        """The process whose numbers they are, where there are several."""
        self.upto = upto
        """So many of its lines are accounted for when these are told."""

    @property
    def fields(self) -> dict[str, Any]:
        """What a note tells."""
        return {
            **({"worker": self.worker} if self.worker else {}),
            "lines": self.lines,
            "first": self.first,
            "last": self.last,
            "since": f"{iso_second(int(self.since))}+00:00",
            "reason": self.reason,
        }


def as_line(text: str | None) -> bytes:
    """Return a text with one newline at its end, encoded; nothing stays nothing."""
    if not text:
        return b""
    return (text if text.endswith("\n") else f"{text}\n").encode("utf-8", "backslashreplace")


def note_line(line_format: LineFormat, kind: str, fields: Mapping[str, Any]) -> bytes:
    """Return the line of a note, in the words of the format if it has any."""
    hook = getattr(line_format, "note", None)
    if callable(hook):
        try:
            return as_line(hook(kind, fields))
        except (Exception, SystemExit):
            _logger.exception("the format has no note for %r, the default is written", kind)
    parts = [f"#{kind}"]
    if fields.get("worker"):
        parts.append(f"worker={fields['worker']}")
    parts.append(f"lines={fields['lines']}")
    if fields["first"]:
        parts.append(f"seq={fields['first']}-{fields['last']}")
    reason = str(fields["reason"]).replace("\\", "\\\\").replace('"', '\\"')
    reason = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in reason)
    parts.append(f'since={fields["since"]} reason="{reason}"')
    return as_line(" ".join(parts))
