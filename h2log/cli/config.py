"""`h2log config`: is a file right, and what is in force."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from h2log.cli.checks import CHECKS
from h2log.cli.serve import STREAMS, load_settings, server_options
from h2log.config import DEFAULT, FILES, Loaded, Rotation, file_problems, find_file, load
from h2log.config.settings import is_file_path
from h2log.config.units import duration_text, size_text
from h2log.errors import UsageError

__all__ = ["config"]

LABEL = 13  # columns: the longest label and two spaces
PIPE_WIDTH = 10_000  # columns: nothing is wrapped for a program that reads it


@click.group()
def config() -> None:
    """Check settings, and show what is in force and where it comes from."""


@config.command("check")
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Say whether the settings in FILE (h2log.toml) are right, or everything that is not."""
    file = file if file is not None else find_file()
    if file is None:
        raise UsageError(f"no {FILES[0]} here; name the file to check")
    problems = file_problems(file, CHECKS)
    if problems:
        for problem in problems:
            click.echo(f"h2log: {problem}", err=True)
        sys.exit(2)
    click.echo(f"{file}: {click.style('ok', fg='green')}")
    for line in _summary(load(file, checks=CHECKS)):
        click.echo(line)


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, a member a key.")
@server_options
def show(as_json: bool, file: str | None, **options: Any) -> None:
    """Show every setting in force and where it comes from.

    That is a default, the file, the environment (H2LOG_...) or an option, as for `serve`.
    """
    loaded = load_settings(file, options)
    if as_json:
        found = {v.key: {"value": v.value, "source": v.source} for v in loaded.values()}
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", overflow="fold")
    for value in loaded.values():
        # Texts, not markup: a format string may have brackets.
        style = "dim" if value.source == DEFAULT else "cyan"
        table.add_row(Text(value.key), Text(value.text), Text(value.source, style))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(table)


def _summary(loaded: Loaded) -> list[str]:
    """Return lines that say what a file asks for."""
    settings = loaded.settings
    server, log = settings.server, settings.log
    scheme = "http" if server.insecure else "https"
    host = f"[{server.host}]" if ":" in server.host else server.host
    rows = [("listens on", f"{scheme}://{host}:{server.port}")]
    for output in log.outputs:
        notes = [output.format, *_rotation(output.rotate)]
        notes += [f"without {output.skip}"] if output.skip else []
        rows.append(("access log", f"{_place(output.path)} ({', '.join(notes)})"))
    if not log.outputs:
        rows.append(("access log", "off"))
    session = log.session
    notes = [session.format, *_rotation(session.rotate)]
    place = f"{_place(session.path)} ({', '.join(notes)})" if session.path else "off"
    rows.append(("session log", place))
    notes = [f"{log.app.level} and above"]
    if log.app.path in STREAMS:
        place = "standard error"
    else:
        place = log.app.path
        notes += _rotation(log.app.rotate) if is_file_path(place) else []
    rows.append(("own log", f"{place} ({', '.join(notes)})"))
    values = list(loaded.values())
    changed = sum(value.source != DEFAULT for value in values)
    rows.append(("sets", f"{changed} of {len(values)} settings"))
    return [f"{click.style(f'{label:<{LABEL}}', bold=True)}{_line(text)}" for label, text in rows]


def _place(path: str) -> str:
    return STREAMS.get(path, path)


def _rotation(rotate: Rotation) -> list[str]:
    every = rotate.every if isinstance(rotate.every, str) else duration_text(rotate.every)
    notes: list[str] = [every] if every != "never" else []
    notes += [size_text(rotate.size)] if rotate.size else []
    if notes and rotate.keep:
        notes.append(f"keeps {rotate.keep}")
    if notes and rotate.compress != "none":
        notes.append(rotate.compress)
    return notes


def _line(text: str) -> str:
    """Return a text with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
