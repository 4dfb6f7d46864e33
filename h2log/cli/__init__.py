"""The command line: `h2log serve`, `run`, `certs`, `config`, `tail`, `status`, `reload`, `stop`."""

from __future__ import annotations

import os
import signal
import sys

import click

from h2log.cli.certs import certs
from h2log.cli.config import config
from h2log.cli.control import reload, status, stop
from h2log.cli.run import run
from h2log.cli.serve import serve
from h2log.cli.tail import tail
from h2log.errors import StartupError, UsageError

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="h2log", prog_name="h2log", message="%(prog)s %(version)s")
def cli() -> None:
    """A fast HTTP/2 server whose access log traces every connection and every request."""


for command in (serve, run, certs, config, tail, status, reload, stop):
    cli.add_command(command)


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
