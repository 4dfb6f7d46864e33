"""`h2log status`, `h2log reload`, `h2log stop`: ask a running server of several workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from h2log.cli.serve import CHECKS
from h2log.config import FILE_VARIABLE, load
from h2log.config.units import size_text
from h2log.errors import UsageError
from h2log.workers.control import ask, control_path

__all__ = ["reload", "status", "stop"]

_PIPE_WIDTH: Final = 10_000
_ANSWER: Final = 10.0
_RELOAD: Final = 600.0
"""Seconds that the workers of a large server may take to start, one after the other."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def control_options(command: _Command) -> _Command:
    """Give a command the options that name a running server."""
    command = click.option(
        "--control", metavar="PATH", default="", help="The server's control socket."
    )(command)
    return click.option(
        "--config",
        "file",
        envvar=FILE_VARIABLE,
        metavar="FILE",
        help="Settings that the server has; without it, h2log.toml if it is here.",
    )(command)


def _socket(control: str, file: str | None) -> str:
    path = control or control_path(load(file, os.environ, checks=CHECKS).settings)
    if not path:
        raise UsageError("these settings have no control socket; name one with --control")
    return path


@click.command(short_help="Show how a running server does.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@control_options
def status(as_json: bool, control: str, file: str | None) -> None:
    """Show workers, connections, open requests with their age, and the health of the logs."""
    found = ask(_socket(control, file), {"do": "status"}, _ANSWER)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    total = found["total"]
    console.print(
        Text.assemble(
            (found["url"], "bold"),
            f"  up {_age(found['age'])}, {total['connections']} connections, "
            f"{total['active']} open requests, {total['rate']:.0f} requests/s, "
            f"{total['requests']} since the start of these workers",
        )
    )
    for table in (_workers(found), _requests(found), _logs(found)):
        if table.row_count:
            console.print()
            console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in ("path", "file"), overflow="fold")
    return table


def _workers(found: dict[str, Any]) -> Table:
    table = _table(
        "worker", "process", "state", "up", "connections", "open", "requests", "a second",
        "sent", "memory", "lines waiting", "dropped",
    )  # fmt: skip
    for worker in found["workers"]:
        heard = worker["heard"]
        silent = heard is not None and heard > 3
        state = f"silent {_age(heard)}" if silent else worker["state"]
        color = "red" if silent else "green" if state == "serving" else "yellow"
        table.add_row(
            str(worker["number"]), str(worker["pid"]), Text(state, color), _age(worker["age"]),
            str(worker["connections"]), str(worker["active"]), str(worker["requests"]),
            f"{worker['rate']:.0f}", size_text(worker["sent"]), size_text(worker["resident"]),
            size_text(worker["waiting"]), str(worker["dropped"]),
        )  # fmt: skip
    return table


def _requests(found: dict[str, Any]) -> Table:
    table = _table("open for", "worker", "client", "session", "request", "method", "path")
    for request in found["requests"]:
        table.add_row(
            _age(request["age"]), str(request["worker"]), request["client"], request["session"],
            request["id"], request["method"], Text(request["path"]),
        )  # fmt: skip
    return table


def _logs(found: dict[str, Any]) -> Table:
    table = _table("log", "written", "queued", "dropped", "skipped", "trouble")
    for log in found["owner"]["logs"]:
        trouble = Text(log["failing"] or "-", "red" if log["failing"] else "")
        table.add_row(
            Text(log["file"] or log["path"]), str(log["written"]), str(log["queued_lines"]),
            str(log["dropped"]), str(log["skipped"]), trouble,
        )  # fmt: skip
    return table


def _age(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


@click.command(short_help="Have a running server read code, settings and certificate anew.")
@control_options
def reload(control: str, file: str | None) -> None:
    """Replace every worker by a new one, as SIGHUP does; say what came of it."""
    click.echo(ask(_socket(control, file), {"do": "reload"}, _RELOAD)["done"])


@click.command(short_help="Have a running server finish and end.")
@control_options
def stop(control: str, file: str | None) -> None:
    """Drain and end, as SIGTERM does; returns when the server has ended."""
    path = _socket(control, file)
    pid = ask(path, {"do": "stop"}, _ANSWER)["pid"]
    while _runs(pid):
        time.sleep(0.05)
    click.echo("stopped")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # gone meanwhile, or no Linux
        return not os.path.isdir("/proc/self")
    except PermissionError:
        return True
