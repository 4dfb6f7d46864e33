r"""Texts of the wire made safe for a line, and back: one rule for every format.

Values of a record are texts of latin-1, a character for each byte that the peer sent. In every
format `\xHH` (upper-case hex) is one such byte and nothing else, because the backslash itself is
always written so:

* Columns and quoted texts (`escape`, `quoted`, `word`) are printable ASCII; every other byte is
  escaped. That is nginx's way (`\x22` for a quote), and undone by `lines.unescape`.
* JSON (`json_text`) shows UTF-8 as what it means. Escaped are the backslash, bytes that are no
  UTF-8, and all that does not print: control characters, line separators (U+2028, U+2029, U+0085),
  directional marks. So a value is also harmless where a reader of the JSON prints it.
"""

from __future__ import annotations

import re

from h2log.access.lines import NOTE, escape

__all__ = ["from_json_text", "json_text", "one_line", "quoted", "to_wire", "word"]

_ESCAPE = re.compile(rb"\\(?:x([0-9A-F]{2}))?")
_BREAKS = re.compile("\x1b\\[[0-9;]*m|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def quoted(text: str) -> str:
    r"""Return `text` escaped so that it can also stand between double quotes: `"` is `\x22`."""
    if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text:
        return text
    return escape(text).replace('"', "\\x22")


def word(text: str) -> str:
    r"""Return `text` escaped as by `quoted`, and without spaces: a space is `\x20`."""
    if text.isascii() and text.isprintable():
        if "\\" not in text and '"' not in text and " " not in text:
            return text
    return escape(text).replace('"', "\\x22").replace(" ", "\\x20")


def to_wire(text: str) -> str:
    """Return the application's `text` as one of the wire: a character for each byte of UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def json_text(text: str) -> str:
    r"""Return what stands in JSON for `text` of the wire (before JSON's own quoting).

    `text` itself, the same object, when it is printable ASCII without a backslash.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:  # no text of the wire; what `escape` does
        raw = "".join(c if ord(c) < 256 else to_wire(c) for c in text).encode("latin-1")
    return "".join(
        [
            c
            if c.isprintable() and c != "\\"
            else "".join([f"\\x{byte:02X}" for byte in c.encode("utf-8", "surrogateescape")])
            for c in raw.decode("utf-8", "surrogateescape")
        ]
    )


def from_json_text(text: str) -> str:
    r"""Return the text that `json_text` made `text` of.

    Raises ValueError for a backslash that does not begin `\xHH`.
    """
    if text.isascii() and "\\" not in text:
        return text
    return _ESCAPE.sub(_byte, text.encode()).decode("latin-1")


def one_line(text: str) -> str:
    r"""Return `text`, which an application made, as one line: TAB and colours stay.

    Control characters, line separators and a `#` in front (the mark of the log's own lines) are
    escaped; the backslash is not, as the text is not ours to read back.
    """
    if text[:1] == NOTE:
        text = f"\\x23{text[1:]}"
    if text.isprintable():
        return text
    return _BREAKS.sub(lambda found: found[0] if found[0][1:] else escape(found[0]), text)


def _byte(found: re.Match[bytes]) -> bytes:
    digits: bytes | None = found[1]
    if digits is None:
        raise ValueError(f"a malformed escape: {found.string[found.start() :][:4]!r}")
    return bytes((int(digits, 16),))
