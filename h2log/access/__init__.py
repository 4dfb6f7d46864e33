"""What a line of the access log is: the exchange it tells of, its formats, and parsing it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h2log.access.formats import NAMES, Format, FormatFunction, compile
from h2log.access.lines import escape, is_note
from h2log.access.notes import Note, read_note
from h2log.access.redaction import MASK, Redaction, redacted_target
from h2log.access.tokens import TokenFunction, token, token_names

if TYPE_CHECKING:
    from h2log.access.parsed import Line
    from h2log.access.readback import parse_line

__all__ = [
    "MASK",
    "NAMES",
    "Format",
    "FormatFunction",
    "Line",
    "Note",
    "Redaction",
    "TokenFunction",
    "compile",
    "escape",
    "is_note",
    "parse_line",
    "read_note",
    "redacted_target",
    "token",
    "token_names",
]


def __getattr__(name: str) -> Any:
    # Who writes lines does without what reads them back (PEP 562).
    if name == "Line":
        from h2log.access.parsed import Line

        return Line
    if name == "parse_line":
        from h2log.access.readback import parse_line

        return parse_line
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
