"""Format strings, in morgan's syntax, compiled once to one function.

    :remote-addr - :remote-user [:date[clf]] ":method :url HTTP/:http-version" :status

`:name` or `:name[argument]` is a token; all else stands for itself. A mistake is an error when the
format is compiled, and its message points at the place: a name that is no token, an argument that
does not fit, a bracket without its other half (colours, `\\x1b[32m`, are no brackets), a line break
or another control character that would tear a line.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo

from h2log.access.lines import NOTE
from h2log.access.record import AccessRecord
from h2log.access.shown import DEFAULT_SHOWN, Shown
from h2log.access.tokens import Text, bind, suggestion, token_names
from h2log.errors import UsageError

__all__ = ["has_token", "template"]

_TOKEN = re.compile(r":([-\w]{2,})(?:\[([^\]]+)\])?", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BAD_LITERAL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def has_token(source: str) -> bool:
    """Return whether `source` is a format string at all, and not a name."""
    return _TOKEN.search(source) is not None


def template(source: str, zone: tzinfo = UTC, shown: Shown = DEFAULT_SHOWN) -> Text:
    """Return the function that makes the line of a record, with its newline.

    `zone` is what `:date[locale]` and `:date[%…]` are told in; `shown` has the values as they may
    be seen. Raises UsageError.
    """
    literals: list[str] = []
    values: list[Text] = []
    open_brackets: list[int] = []
    end = 0
    for found in _TOKEN.finditer(source):
        _check_literal(source, end, found.start(), open_brackets)
        literals.append(source[end : found.start()])
        values.append(_bound(source, found, zone, shown))
        end = found.end()
    _check_literal(source, end, len(source), open_brackets)
    if open_brackets:
        raise UsageError(_at(open_brackets[-1], "unbalanced ["))
    literals.append(source[end:] + "\n")
    if literals[0][:1] == NOTE:
        raise UsageError(_at(0, "a format cannot begin with #, which marks the log's own lines,"))
    if not literals[0] and values:
        values[0] = _no_note(values[0])
    form = "%s".join([literal.replace("%", "%%") for literal in literals])
    functions = tuple(values)

    def line(record: AccessRecord) -> str:
        return form % tuple([function(record) for function in functions])

    return line


def _no_note(text: Text) -> Text:
    """Return `text` so that no value can make its line look like one of the log's own."""

    def first(record: AccessRecord) -> str:
        made = text(record)
        return f"\\x23{made[1:]}" if made[0] == NOTE else made

    return first


def _bound(source: str, found: re.Match[str], zone: tzinfo, shown: Shown) -> Text:
    name, argument = found.groups()
    try:
        if argument is None and source[found.end() : found.end() + 1] == "[":
            if source[found.end() + 1 : found.end() + 2] == "]":
                raise ValueError("the brackets are empty")
            raise UsageError(_at(found.end(), f"unbalanced [ of :{name}"))
        return bind(name, argument, zone, shown)
    except KeyError:
        near = suggestion(name, token_names(), ":")
        raise UsageError(_at(found.start(), f"unknown token :{name}") + near) from None
    except ValueError as error:
        written = f":{name}" if argument is None else f":{name}[{_printable(argument)}]"
        place = found.start() if argument is None else found.start(2)
        raise UsageError(f"{_at(place, f'bad argument of {written}')}: {error}") from None


def _check_literal(source: str, start: int, end: int, open_brackets: list[int]) -> None:
    """Check what stands between two tokens; note the brackets that it opens."""
    place = start
    while place < end:
        character = source[place]
        colour = _COLOUR.match(source, place, end) if character == "\x1b" else None
        if colour is not None:
            place = colour.end()
            continue
        if character == "[":
            open_brackets.append(place)
        elif character == "]":
            if not open_brackets:
                raise UsageError(_at(place, "unbalanced ]"))
            open_brackets.pop()
        elif _BAD_LITERAL.match(character):
            shown = "line break" if character in "\r\n" else f"character {character!a}"
            raise UsageError(_at(place, f"{shown} in a format"))
        place += 1


def _at(place: int, what: str) -> str:
    return f"{what} at column {place + 1}"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
