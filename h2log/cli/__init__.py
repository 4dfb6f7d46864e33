"""The command line: `h2log serve`, `run`, `certs`, `config`, `tail`, `status`, `reload`, `stop`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from typing import Final

import click

from h2log.errors import StartupError, UsageError

__all__ = ["cli", "main"]

_PLACES: Final = {
    "serve": "serve",
    "run": "run",
    "certs": "certs",
    "config": "config",
    "tail": "tail",
    "status": "control",
    "reload": "control",
    "stop": "control",
}
"""Each command's module."""


class _Commands(click.Group):
    """Commands that are loaded when they are asked for: none waits for what another one needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all."""
        return sorted(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; for a name that is none, all are loaded, as it may be near one."""
        for name in [cmd_name] if cmd_name in _PLACES else _PLACES:
            if name not in self.commands:
                module = import_module(f"{__name__}.{_PLACES[name]}")
                self.add_command(getattr(module, name))
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="h2log", prog_name="h2log", message="%(prog)s %(version)s")
def cli() -> None:
    """A fast HTTP/2 server whose access log traces every connection and every request."""


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    _prepare()
    try:
        code = cli.main(prog_name="h2log", standalone_mode=False)
    except UsageError as error:
        _fail(str(error))
    except StartupError as error:
        _fail(str(error), 3)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _fail(f"{error.format_message()}{hint}")
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _prepare() -> None:
    """Make up for how we may have been started."""
    # What is loaded now stays: to look through it again and again would be a tenth of a start.
    gc.set_threshold(5_000, 20, 20)
    # With a standard stream closed, the next file that is opened would take its number.
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as long as we are
    # Until there is a log to reopen, a rotation has nothing to tell us; by default it would kill.
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _fail(message: str, code: int = 2) -> None:
    click.echo(f"h2log: {' '.join(message.split())}", err=True)
    sys.exit(code)
