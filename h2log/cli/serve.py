"""`h2log serve` and `h2log run`: start a server, say where it is, stop it well."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from h2log.app.application import App
from h2log.config import LogSettings, ServerSettings, Settings, TlsSettings, build
from h2log.errors import UsageError
from h2log.logfile.applog import LEVELS, configure
from h2log.logfile.writer import STDOUT
from h2log.server.process import serve_process

__all__ = ["run", "serve"]

SAMPLE_SITE = Path(__file__).parent.parent / "examples" / "articles"

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SERVER, _TLS, _LOG = ServerSettings(), TlsSettings(), LogSettings()


def _options(command: _Command) -> _Command:
    """Give a command the options of every server."""
    for option in reversed(
        (
            click.option(
                "--host", default=_SERVER.host, show_default=True, help="Address to bind."
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                default=_SERVER.port,
                show_default=True,
                help="Port to bind; 0 for a free one.",
            ),
            click.option(
                "--cert", default=_TLS.cert, show_default=True, help="Certificate chain, PEM."
            ),
            click.option("--key", default=_TLS.key, show_default=True, help="Its key, PEM."),
            click.option(
                "--insecure", is_flag=True, help="Cleartext: HTTP/2 by prior knowledge, HTTP/1.1."
            ),
            click.option(
                "--access-log",
                default=_LOG.access,
                show_default=True,
                metavar="PATH",
                help="File for the access log; - for standard output.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(LEVELS),
                default="warning",
                show_default=True,
                help="Of the server's own log, on standard error.",
            ),
            click.option(
                "--drain-timeout",
                type=click.FloatRange(min=0),
                default=_SERVER.drain_timeout,
                show_default=True,
                metavar="SECONDS",
                help="How long open requests may go on after a stop.",
            ),
        )
    ):
        command = option(command)
    return command


def _settings(
    *,
    host: str,
    port: int,
    cert: str,
    key: str,
    insecure: bool,
    access_log: str,
    log_level: str,
    drain_timeout: float,
) -> Settings:
    return build(
        {
            "server": {
                "host": host,
                "port": port,
                "insecure": insecure,
                "drain_timeout": float(drain_timeout),
            },
            "tls": {"cert": cert, "key": key},
            "log": {"access": access_log, "level": log_level},
        },
        "command line",
    )


@click.command()
@click.argument("root", required=False, type=click.Path())
@_options
def serve(root: str | None, **options: Any) -> None:
    """Serve the files of the folder ROOT; without it, the sample articles."""
    app = App()
    try:
        app.static(root if root is not None else SAMPLE_SITE)
    except FileNotFoundError:
        raise UsageError(f"no folder {root}; name an existing one") from None
    except NotADirectoryError:
        raise UsageError(f"{root} is not a folder; name the folder to serve") from None
    except OSError as error:
        raise UsageError(f"cannot use the folder {root}: {error.strerror}") from None
    _start(app, _settings(**options))


@click.command()
@click.argument("target", metavar="MODULE:ATTR")
@_options
def run(target: str, **options: Any) -> None:
    """Serve the application MODULE:ATTR, an `h2log.App`."""
    _start(load(target), _settings(**options))


def load(target: str) -> App:
    """Import the application that `module:attribute` names, also from the working directory.

    Raises UsageError that names what is missing, or where the module's own code failed.
    """
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"{target!r} must be MODULE:ATTR, such as myapp:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"no module {error.name!r} here; run it from the folder that has it"
            ) from None
        raise UsageError(f"cannot import {module_name}: {_own_error(error)}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {module_name}: {_own_error(error)}") from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{module_name} has no attribute {attribute!r}")
        found = getattr(found, name)
    if not isinstance(found, App):
        raise UsageError(f"{target} is {type(found).__name__}, expected an h2log.App")
    return found


def _own_error(error: BaseException) -> str:
    """Return an exception of the application's code as one line with its place."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    inner = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    return f"{text} ({inner[-1].filename}, line {inner[-1].lineno})" if inner else text


def _start(app: App, settings: Settings) -> None:
    configure(settings.log.level)
    serve_process(app, settings, lambda url: _announce(url, settings))


def _announce(url: str, settings: Settings) -> None:
    """Say where the server is: the address on standard output, then what helps a person.

    When the access log itself is on standard output, only the address stands there.
    """
    click.echo(click.style(url, bold=True))
    sys.stdout.flush()
    log = settings.log.access
    ca = Path(settings.tls.cert).parent / "ca.pem"
    if settings.server.insecure:
        curl = f"curl -i --http2-prior-knowledge {url}/"
    elif ca.is_file():
        curl = f"curl -i --cacert {shlex.quote(str(ca))} {url}/"
    else:
        curl = f"curl -i -k {url}/"
    beside = log == STDOUT
    where = "standard output" if beside else os.path.abspath(log)
    click.echo(f"{click.style('access log', dim=True)}  {where}", err=beside)
    click.echo(f"{click.style('try       ', dim=True)}  {curl}", err=beside)
    sys.stdout.flush()
