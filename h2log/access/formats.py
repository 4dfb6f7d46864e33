"""Formats: a record in, its line out. Each is compiled once to one function.

    compile("combined")(record)
    compile(":method :url :status :res[content-length] - :response-time[3] ms")(record)
    compile(lambda record: f"{record.status}" if record.status >= 400 else None)(record)

| name | |
|---|---|
| `h2log` | seven columns, tab separated (see `lines`) |
| `h2log-full` | every column, tab separated (see `full`), with a header for each file |
| `combined`, `common` | Apache's, as morgan prints them |
| `dev`, `short`, `tiny` | morgan's; `dev` has colours in its `colored` form |
| `json`, `ecs`, `caddy` | an object a line (see `jsonlines`) |

Each is one line a record, whatever a client sent, and `readback.parse_line` reads it back. In each,
what is secret is masked: passwords, tokens and their like in URLs and header fields (see
`redaction`). Of the record of an open request (`AccessRecord.opening`) each makes a line that tells
it has arrived, with nothing of its end.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Final, Literal

from h2log.access.full import HEADER, full_line
from h2log.access.jsonlines import caddy_line, ecs_line, json_line
from h2log.access.lines import escape
from h2log.access.notes import NoteFunction, caddy_note, ecs_note, json_note
from h2log.access.own import FAILED, failed, takes
from h2log.access.record import AccessRecord
from h2log.access.redaction import DEFAULT, Redaction
from h2log.access.shown import DEFAULT_SHOWN, Shown
from h2log.access.template import has_token, template
from h2log.access.text import one_line
from h2log.access.tokens import suggestion
from h2log.clock import iso_second
from h2log.errors import UsageError

__all__ = ["NAMES", "Format", "FormatFunction", "compile", "h2log_format"]

_Line = Callable[[AccessRecord], str]

FormatFunction = Callable[[AccessRecord], str | None]
"""An application's format: returns a line, with or without its newline, or None to skip.

It is given the record as it is: what it shows of a secret, it shows.
"""

Kind = Literal["tsv", "text", "json"]

_MAX_STAMPS = 64
_MAX_TARGETS = 4096
_MAX_TIMES = 4096
_MAX_TARGET_LENGTH = 256


_COMMON: Final = (
    ':remote-addr - :remote-user [:date[clf]] ":method :url HTTP/:http-version" :status '
    ":res[content-length]"
)
_MORGAN: Final = {
    "combined": f'{_COMMON} ":referrer" ":user-agent"',
    "common": _COMMON,
    "dev": ":method :url :status :response-time ms - :res[content-length]",
    "short": ":remote-addr :remote-user :method :url HTTP/:http-version :status "
    ":res[content-length] - :response-time ms",
    "tiny": ":method :url :status :res[content-length] - :response-time ms",
}


class Format:
    """A compiled format: called with a record, it returns its line with the newline.

    A format that skips the record returns nothing (""). `line` is the function itself, for who
    calls it often; `name` says what was compiled; `kind` what a line is: `tsv`, `text` or `json`;
    `header` is what each file begins with, a whole line or nothing; `colored` the form for a
    terminal, itself when there is no other; `readable` whether `parse_line(name, …)` reads it;
    `note`, of a format whose lines are objects, makes the log's own lines (see `notes`).
    """

    __slots__ = ("_colored", "header", "kind", "line", "name", "note")

    def __init__(
        self,
        name: str,
        line: _Line,
        kind: Kind,
        header: str = "",
        colored: Format | None = None,
        note: NoteFunction | None = None,
    ) -> None:
        self.name = name
        self.line = line
        self.kind = kind
        self.header = header
        self.note = note
        self._colored = colored

    def __call__(self, record: AccessRecord) -> str:
        """Return the record's line."""
        return self.line(record)

    def __repr__(self) -> str:
        return f"<Format {self.name}>"

    @property
    def colored(self) -> Format:
        """The form for a terminal."""
        return self if self._colored is None else self._colored

    @property
    def readable(self) -> bool:
        """Whether lines of it can be parsed back."""
        return self.name in NAMES


def h2log_format(shown: Shown = DEFAULT_SHOWN) -> Format:
    """Return the default format: seven columns, tab separated.

    Timestamp (UTC, milliseconds) of the complete request header, status or `-`, milliseconds to
    the last byte handed over (`-` for a request that has only arrived), session id, request id,
    version, path with query (see `escape`).
    """
    # Under load many records share a millisecond, and paths and times come again.
    stamps: dict[int, str] = {}
    targets: dict[str, str] = {}
    times: dict[int, str] = {}  # milliseconds by microseconds
    url, authority = shown.redaction.url, shown.redaction.authority

    def line(record: AccessRecord) -> str:
        millisecond = int(record.wall * 1000)
        stamp = stamps.get(millisecond)
        if stamp is None:
            if len(stamps) >= _MAX_STAMPS:
                stamps.clear()
            second, rest = divmod(millisecond, 1000)
            stamp = stamps[millisecond] = f"{iso_second(second)}.{rest:03d}+00:00\t"
        facts = record.facts
        path = facts.path
        target = targets.get(path)
        if target is None:
            target = escape(url(path))
            if len(path) <= _MAX_TARGET_LENGTH:
                if len(targets) >= _MAX_TARGETS:
                    targets.clear()
                targets[path] = target
        session = record.session
        micros = round((record.end - record.start) * 1_000_000)
        took = times.get(micros)
        if took is None:
            took = f"{micros / 1000:.3f}"
            if len(times) < _MAX_TIMES:
                times[micros] = took
        if record.outcome is None:
            took = "-"
        return (
            f"{stamp}{record.status or '-'}\t{took}\t{session.id}\t{record.id}\t"
            f"{record.protocol}\t{target or escape(authority(facts.authority)) or '-'}\n"
        )

    return Format("h2log", line, "tsv")


def _colored_dev(shown: Shown) -> Format:
    """Return `dev` with the status in red, yellow, cyan or green."""

    def shade(color: int) -> _Line:
        return template(
            f"\x1b[0m:method :url \x1b[{color}m:status\x1b[0m "
            ":response-time ms - :res[content-length]\x1b[0m",
            shown=shown,
        )

    none, shades = shade(0), {2: shade(32), 3: shade(36), 4: shade(33)}
    red = shade(31)

    def line(record: AccessRecord) -> str:
        hundreds = record.status // 100
        return (red if hundreds >= 5 else shades.get(hundreds, none))(record)

    return Format("dev", line, "text")


def _morgan(name: str) -> Callable[[Shown], Format]:
    return lambda shown: Format(name, template(_MORGAN[name], shown=shown), "text")


_MAKERS: Final[dict[str, Callable[[Shown], Format]]] = {
    "h2log": h2log_format,
    "h2log-full": lambda shown: Format("h2log-full", full_line(shown), "tsv", HEADER),
    "combined": _morgan("combined"),
    "common": _morgan("common"),
    "dev": lambda shown: Format(
        "dev", template(_MORGAN["dev"], shown=shown), "text", colored=_colored_dev(shown)
    ),
    "short": _morgan("short"),
    "tiny": _morgan("tiny"),
    "json": lambda shown: Format("json", json_line(shown), "json", note=json_note),
    "ecs": lambda shown: Format("ecs", ecs_line(shown), "json", note=ecs_note),
    "caddy": lambda shown: Format("caddy", caddy_line(shown), "json", note=caddy_note),
}

NAMES: Final = tuple(_MAKERS)
"""The named formats."""


def compile(
    source: str | FormatFunction | Format, *, zone: tzinfo = UTC, redact: Redaction = DEFAULT
) -> Format:
    """Return the format that `source` means: a name, a format string, or a function of the record.

    `zone` is what `:date[locale]` and `:date[%…]` are told in, `redact` which names are secret
    (`redaction.NOTHING`: none); a Format that comes as `source` has its own. A function returns the
    line, or None to skip the record; what would tear the line is escaped; when it raises, a note
    says so in the line's place (`#failed request=… error=KeyError`; see `own`). Raises UsageError
    for anything that is no format, naming the place.
    """
    if isinstance(source, Format):
        return source
    if callable(source):
        name = getattr(source, "__qualname__", repr(source))
        return Format(name, _own(name, source), "text")
    maker = _MAKERS.get(source)
    if maker is not None:
        return maker(Shown(redact))
    if has_token(source):
        return Format(source, template(source, zone, Shown(redact)), "text")
    raise UsageError(
        f"unknown format {source!a}{suggestion(source, list(NAMES))}"
        f" (formats: {', '.join(NAMES)}, or a text with tokens such as :method)"
    )


def _own(name: str, function: FormatFunction) -> _Line:
    what = f"format {name}"
    takes(function, what, ("record",))

    def line(record: AccessRecord) -> str:
        try:
            made = function(record)
            return "" if made is None else one_line(made.removesuffix("\n")) + "\n"
        except FAILED as error:
            failed(what, error)
            return f"#failed request={record.id} error={type(error).__name__}\n"

    return line
