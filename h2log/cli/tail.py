"""`h2log tail`: the end of the access log, and what is appended to it.

What goes into a pipe or a file is the log's own bytes, so that `cut`, `awk` and `sort` work on it.
On a terminal the same columns are aligned and coloured, and nothing that a client managed to get
into a log file reaches the terminal as a control character: an escape sequence in a log line could
otherwise rename the window, move the cursor or type an answer.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable
from typing import BinaryIO, Final

import click

from h2log.access.lines import escape, is_note, parse
from h2log.cli.checks import CHECKS
from h2log.config import FILE_VARIABLE, LogSettings, load
from h2log.config.settings import is_file_path
from h2log.errors import UsageError
from h2log.reader.follow import Follower, stored_lines

__all__ = ["tail"]

POLL: Final = 0.2
"""Seconds between two looks at a log that has nothing new; a person sees no delay."""

_STATUS: Final = {"1": "blue", "2": "green", "3": "cyan", "4": "yellow", "5": "red"}


@click.command(short_help="Show the end of the access log.")
@click.argument("file", required=False, type=click.Path())
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Show the last N lines.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, across rotations.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colour by status; auto: on a terminal, unless NO_COLOR is set.",
)
@click.option(
    "--config",
    envvar=FILE_VARIABLE,
    metavar="FILE",
    help="Settings that say where the log is; without it, h2log.toml if it is here.",
)
def tail(file: str | None, count: int, follow: bool, color: str, config: str | None) -> None:
    """Show the end of the access log FILE; without it, the first that the settings name.

    On a terminal the columns are aligned and coloured; elsewhere lines are as in the file.
    """
    if file is None:
        file = _first_file(load(config, os.environ, checks=CHECKS).settings.log)
    out = sys.stdout.buffer
    terminal = out.isatty()
    colored = color == "always" or (color == "auto" and terminal and _wants_color())
    writer = _Writer(out, readable=terminal or colored, colored=colored)
    try:
        if follow:
            with Follower(file, count) as follower:
                _go_on(follower, writer)
        else:
            for lines in stored_lines(file, count):
                writer.write(lines)
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # both are how a person says "enough", and no failure


def _first_file(log: LogSettings) -> str:
    """Return the file of the first access log that is written to one. Raises UsageError."""
    files = [output.path for output in log.outputs if is_file_path(output.path)]
    if not files:
        raise UsageError("the settings name no file for the access log; name the file to show")
    return files[0]


def _go_on(follower: Follower, writer: _Writer) -> None:
    """Write what the follower reads, until nobody reads the output."""
    while True:
        lines = follower.read()
        if lines:
            writer.write(lines)
        elif not writer.wait(POLL):
            return


class _Writer:
    """Standard output: raw lines, or readable ones.

    Bytes go to the descriptor without a buffer between. A batch is large already; nothing is left
    behind that would have to be flushed into a closed pipe at the end; and an interrupt is seen
    between two writes, which with `python -u` it is not: `writelines` then writes line by line
    without looking for signals, and may block after the only Ctrl-C has come.
    """

    def __init__(self, out: BinaryIO, *, readable: bool, colored: bool) -> None:
        self._out = out
        self._readable = readable
        self._colored = colored
        self._encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._closing = select.poll()
        try:
            self._fd: int | None = out.fileno()
        except OSError:  # io.UnsupportedOperation: a buffer in memory, as in click's test runner
            self._fd = None
        else:
            # Errors and hang-ups are reported without being asked for, and nothing else is.
            self._closing.register(self._fd, 0)

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines; they have left the process when this returns."""
        if self._readable:
            text = "".join(f"{_readable(line, self._colored)}\n" for line in lines)
            data = text.encode(self._encoding, "backslashreplace")
        else:
            data = b"".join(lines)
        if self._fd is None:
            self._out.write(data)
            return
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another program has set the terminal that it shares with us
                select.select([], [self._fd], [])

    def wait(self, seconds: float) -> bool:
        """Wait; return False, at once, when the output's reader is gone.

        Else `h2log tail -f | head -1` would stay until the next request comes.
        """
        return not self._closing.poll(seconds * 1000)


def _wants_color() -> bool:
    """Return whether the environment leaves colours on: see https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _readable(line: bytes, colored: bool) -> str:
    """Return `line` for a terminal: columns aligned, and no control characters but the colours'."""
    text = line.removesuffix(b"\n").decode("utf-8", "backslashreplace")

    def paint(value: str, **style: str | bool) -> str:
        return click.style(value, **style) if colored else value  # type: ignore[arg-type]  # names

    if is_note(text):
        return paint(_visible(text), bold=True)
    try:
        parse(text)
    except ValueError:
        return _visible(text)
    stamp, status, milliseconds, session, request, version, path = text.split("\t")
    # The path stays escaped, as it stands in the file and as a search for it must be typed.
    return "  ".join(
        (
            paint(stamp, dim=True),
            paint(f"{status:>3}", fg=_STATUS.get(status[0], "magenta"), bold=True),
            f"{milliseconds:>10}",
            paint(session, dim=True),
            paint(request, dim=True),
            paint(f"{version:<3}", dim=True),
            path,
        )
    )


def _visible(text: str) -> str:
    """Return `text` with tabs as spaces and every other unprintable character escaped."""
    text = text.expandtabs()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else escape(c) for c in text)
