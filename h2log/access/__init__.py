"""What a line of the access log is: the exchange it tells of, its formats, and parsing it back."""

from __future__ import annotations

from h2log.access.formats import NAMES, Format, FormatFunction, compile
from h2log.access.lines import escape, is_note
from h2log.access.notes import Note, read_note
from h2log.access.parsed import Line
from h2log.access.readback import parse_line
from h2log.access.redaction import MASK, Redaction, redacted_target
from h2log.access.tokens import TokenFunction, token, token_names

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
