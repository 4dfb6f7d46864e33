"""What a line of the access log is: the exchange it tells of, its formats, and parsing it back."""

from __future__ import annotations

from h2log.access.formats import NAMES, Format, FormatFunction, compile
from h2log.access.lines import escape
from h2log.access.parsed import Line
from h2log.access.readback import parse_line
from h2log.access.tokens import TokenFunction, token, token_names

__all__ = [
    "NAMES",
    "Format",
    "FormatFunction",
    "Line",
    "TokenFunction",
    "compile",
    "escape",
    "parse_line",
    "token",
    "token_names",
]
