"""What a line of the access log is: the exchange it tells of, its formats, and parsing it back."""

from __future__ import annotations

from h2log.access.formats import NAMES, Format, FormatFunction, compile
from h2log.access.lines import escape
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
    "Redaction",
    "TokenFunction",
    "compile",
    "escape",
    "parse_line",
    "redacted_target",
    "token",
    "token_names",
]
