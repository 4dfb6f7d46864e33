r"""The access log's default line, read back: seven tab-separated columns.

    timestamp  status  milliseconds  session id  request id  version  path

Two rules make a file of such lines safe to cut at newlines and at tabs, whatever a client sent:

1. Only the path carries bytes that a client chose. Every one of them that is a control character,
   a backslash or 0x7f and above stands as `\xHH`, upper-case hex; so a line is printable ASCII and
   its six tabs are the only ones.
2. The backslash is escaped too, so `\x0A` in a file always means the byte 0x0A and never the four
   characters that somebody put into a URL: `unescape` is an exact inverse.

A line without milliseconds, `-`, was written when its request arrived: it has no status either. A
line that begins with `#` is a note of the log itself (say, how many lines were dropped), and no
request: `parse` refuses it, `is_note` tells it apart (see `notes`).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, NamedTuple

__all__ = ["COLUMNS", "NOTE", "AccessLine", "escape", "is_note", "parse", "unescape"]

NOTE: Final = "#"
"""What a note begins with; no request line does, for a timestamp begins with a digit."""

_NOTE_KEY: Final = '"h2log.note":'
"""The same in the formats whose lines are objects."""

_NOT_PLAIN = re.compile(r"[^\x20-\x5b\x5d-\x7e]")
_ESCAPE = re.compile(r"\\(?:x([0-9A-F]{2}))?")
_BYTES: Final = tuple(f"\\x{byte:02X}" for byte in range(256))

# What a column looks like, and the same in words for the person who has to mend a file. `[0-9]`
# and not `\d`, which takes the digits of every script.
_SHAPES: Final = {
    "timestamp": (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}\+00:00",
        "a time like 2026-11-20T13:31:59.123+00:00",
    ),
    "status": (r"[1-9][0-9]{2}|-", "three digits or -"),
    # Twelve digits are thirty years: more is damage, and could overflow a float to infinity.
    "milliseconds": (r"(?:0|[1-9][0-9]{0,11})\.[0-9]{3}|-", "a number with three decimals or -"),
    "session": (r"[0-9a-f]{32}", "32 lower-case hex digits"),
    "request": (r"[0-9a-f]{32}", "32 lower-case hex digits"),
    "version": (r"h3|h2|1\.1|1\.0|-", "h3, h2, 1.1, 1.0 or -"),
    "path": (r"[\x20-\x7e]*", "printable ASCII, all else escaped"),
}

COLUMNS: Final = tuple(_SHAPES)
"""The names of the columns, in order; errors of `parse` begin with one of them."""

_LINE = re.compile("\t".join(f"({shape})" for shape, _ in _SHAPES.values()))


class AccessLine(NamedTuple):
    """One request's line, its columns typed.

    `status` is None where the log has `-`: no response was begun. So is `milliseconds`: the line
    was written when the request arrived. `version` is `h3`, `h2`, `1.1`, `1.0` or `-`. `path` is
    unescaped: each character is one byte that the client sent (latin-1).
    """

    timestamp: str
    status: int | None
    milliseconds: float | None
    session: str
    request: str
    version: str
    path: str

    @property
    def when(self) -> datetime:
        """The timestamp as an aware datetime."""
        return datetime.fromisoformat(self.timestamp)


def escape(text: str) -> str:
    r"""Return `text` with control characters, backslashes and bytes from 0x7f on as `\xHH`.

    Each character up to U+00FF is one byte; one above stands for its bytes in UTF-8 (a lone
    surrogate too: a log must be able to say what it was given). The result is printable ASCII,
    and `text` itself, the same object, when there is nothing to escape.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return _NOT_PLAIN.sub(_escaped, text)


def unescape(text: str) -> str:
    r"""Return the text that `escape` made `text` of, one character for each byte.

    Raises ValueError, naming the place, for a backslash that does not begin `\xHH`.
    """
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text)


def is_note(line: str) -> bool:
    """Return whether `line` is a note of the log itself and not a request, in any named format."""
    # In a text among an object's values the quotes are escaped: only a key looks like this.
    return line.startswith(NOTE) or (line.startswith("{") and _NOTE_KEY in line)


def parse(line: str) -> AccessLine:
    """Return the columns of `line`, which comes without its newline.

    Raises ValueError naming the column and what is wrong with it.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(_complaint(line))
    timestamp, status, milliseconds, session, request, version, path = found.groups()
    try:
        datetime.fromisoformat(timestamp)  # the shape alone lets the 30th of February through
    except ValueError as error:
        raise ValueError(f"timestamp: {error}, got {timestamp!r}") from None
    if milliseconds == "-" and status != "-":
        raise ValueError(f"milliseconds: missing, although there is the status {status}")
    try:
        path = unescape(path)
    except ValueError as error:
        raise ValueError(f"path: {error}") from None
    return AccessLine(
        timestamp,
        None if status == "-" else int(status),
        None if milliseconds == "-" else float(milliseconds),
        session,
        request,
        version,
        path,
    )


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 256:
        return _BYTES[code]
    return "".join(_BYTES[byte] for byte in found[0].encode("utf-8", "surrogatepass"))


def _unescaped(found: re.Match[str]) -> str:
    digits: str | None = found[1]
    if digits is None:
        start = found.start()
        raise ValueError(
            f"a malformed escape at character {start}: {found.string[start : start + 4]!r} "
            f"is not \\xHH with two upper-case hex digits"
        )
    return chr(int(digits, 16))


def _complaint(line: str) -> str:
    """Return what keeps `line` from being seven well-formed columns."""
    if is_note(line):
        return "line: a note of the log, not a request"
    columns = line.split("\t")
    # A wrong column is named before a wrong count: of a damaged line it says more.
    for (name, (shape, words)), column in zip(_SHAPES.items(), columns, strict=False):
        if re.fullmatch(shape, column) is None:
            return f"{name}: expected {words}, got {_short(column)}"
    if len(columns) < len(COLUMNS):
        return f"{COLUMNS[len(columns)]}: missing, the line has {len(columns)} of 7 columns"
    return f"line: expected 7 columns, got {len(columns)}"


def _short(column: str) -> str:
    """Return `column` as it may stand in a message: quoted, and short enough for a line."""
    return repr(column if len(column) <= 60 else f"{column[:57]}...")
