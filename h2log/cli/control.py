"""`h2log status`, `h2log reload`, `h2log stop`: ask a running server of several workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from h2log.cli.checks import CHECKS
from h2log.config import FILE_VARIABLE, load
from h2log.errors import UsageError
from h2log.workers.control import ask, control_path

__all__ = ["reload", "status", "stop"]

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
    from h2log.cli.tables import print_status

    print_status(found)


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
