"""`h2log serve`, and what every command has that serves: options, settings, start, address."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from h2log.cli.checks import CHECKS
from h2log.config import FILE_VARIABLE, Check, Layer, Loaded, Settings, load
from h2log.config.settings import is_file_path
from h2log.errors import UsageError
from h2log.logfile.applog import LEVELS, configure
from h2log.logfile.writer import STDERR, STDOUT
from h2log.server.networks import UNIX, Networks
from h2log.workers.notify import is_asked
from h2log.workers.program import Program, count_of

if TYPE_CHECKING:
    from h2log.workers.sources import Sources

__all__ = ["STREAMS", "announce", "load_ahead", "load_settings", "serve", "server_options", "start"]

SAMPLE_SITE = Path(__file__).parent.parent / "examples" / "articles" / "site"

_Command = TypeVar("_Command", bound=Callable[..., Any])

STREAMS: Final = {STDOUT: "standard output", STDERR: "standard error"}

_DEFAULTS = Settings()
_SERVER, _TLS, _LOG = _DEFAULTS.server, _DEFAULTS.tls, _DEFAULTS.log

_STATIC: Final = {
    "watch": "Load open pages anew when a file changes.",
    "security": "Send the header fields that tell a browser to be strict.",
    "markdown": "Render *.md as pages.",
    "listing": "List folders that have no index.html.",
}
"""Options of `serve` that switch something of `[static]` on."""

# The key that each option sets. An option that is not given sets nothing: its default, which help
# shows, is the tree's.
_KEYS: Final = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "unix": ("server", "unix"),
    "fd": ("server", "fd"),
    "proxy_protocol": ("server", "proxy_protocol"),
    "proxy_headers": ("server", "proxy_headers"),
    "cert": ("tls", "cert"),
    "key": ("tls", "key"),
    "insecure": ("server", "insecure"),
    "log_level": ("log", "app", "level"),
    "drain_timeout": ("server", "drain_timeout"),
    "workers": ("server", "workers"),
    "max_requests": ("server", "max_requests"),
    "max_rss": ("server", "max_rss"),
    "access_format": ("log", "access", "format"),
    "spa": ("static", "spa"),
    **{name: ("static", name) for name in _STATIC},
    "target": ("app", "target"),
    "factory": ("app", "factory"),
    "app_dir": ("app", "dir"),
    "interface": ("app", "interface"),
    "root_path": ("app", "root_path"),
    "lifespan": ("app", "lifespan"),
    "backend": ("server", "backend"),
    "http3": ("server", "http3"),
}

_FLAGS: Final = {"backend": "server"}
"""Options that are not called as their parameter is."""


def _workers(text: str) -> int | str:
    """Return a number of workers; the tree's own check says what is wrong with it, as with auto."""
    return int(text) if text.isascii() and text.isdigit() else text


def server_options(command: _Command) -> _Command:
    """Give a command the options of every server."""
    for option in reversed(
        (
            click.option(
                "--config",
                "file",
                envvar=FILE_VARIABLE,
                metavar="FILE",
                help="Settings, TOML or JSON; without it, h2log.toml if it is here.",
            ),
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
                "--unix",
                metavar="PATH",
                default="",
                show_default="none",
                help="Listen at a Unix socket instead.",
            ),
            click.option(
                "--fd",
                type=click.IntRange(min=0),
                metavar="N",
                show_default="none",
                help="Accept from the listening socket that is open as descriptor N.",
            ),
            click.option(
                "--proxy-protocol",
                multiple=True,
                metavar="NETS",
                help="Who begins connections with a PROXY header: networks, unix, *. Repeatable.",
            ),
            click.option(
                "--proxy-headers",
                multiple=True,
                metavar="NETS",
                help="Whose Forwarded, X-Forwarded-* are believed: networks, unix, *. Repeatable.",
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
                multiple=True,
                default=[output.path for output in _LOG.outputs],
                show_default=True,
                metavar="PATH",
                help="File for the access log; - for standard output. Repeatable.",
            ),
            click.option(
                "--access-format",
                default=_LOG.outputs[0].format,
                show_default=True,
                metavar="FORMAT",
                help="Of every access log: a name or a format string.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(LEVELS),
                default=_LOG.level,
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
            click.option(
                "--workers",
                type=_workers,
                metavar="N|auto",
                default=str(_SERVER.workers),
                show_default=True,
                help="Processes that serve; auto is one for each processor.",
            ),
            click.option(
                "--max-requests",
                type=click.IntRange(min=0),
                default=_SERVER.max_requests,
                show_default="never",
                help="Replace a worker after about so many requests.",
            ),
            click.option(
                "--max-rss",
                metavar="SIZE",
                default="",
                show_default="any",
                help="Replace a worker that takes more memory, such as 512MB.",
            ),
        )
    ):
        command = option(command)
    return command


def static_options(command: _Command) -> _Command:
    """Give a command the options of a folder, each a key of `[static]`."""
    for name, text in _STATIC.items():
        command = click.option(f"--{name.replace('_', '-')}", name, is_flag=True, help=text)(
            command
        )
    return click.option(
        "--spa", metavar="FILE", default="", help="Answer pages that are not there with FILE."
    )(command)


def load_settings(
    file: str | None, options: Mapping[str, Any], checks: Mapping[str, Check] = CHECKS
) -> Loaded:
    """Return the settings in force: the file's, the environment's and the options that were given.

    To be called by a command that has the `server_options`. Raises UsageError.
    """
    source_of = click.get_current_context().get_parameter_source
    layers = []
    for name, value in options.items():
        if source_of(name) is not ParameterSource.COMMANDLINE:
            continue
        values: Any = value
        if name == "access_log":
            # The first option is the first output's path, and so on: the rest of it stays.
            values = {"log": {"access": [{"path": path} for path in value]}}
        else:
            if name in ("proxy_protocol", "proxy_headers"):
                values = [net.strip() for text in value for net in text.split(",")]
            for part in reversed(_KEYS[name]):
                values = {part: values}
        source = f"flag --{_FLAGS.get(name) or name.replace('_', '-')}"
        if name == "target":
            source = "MODULE:ATTR"
        layers.append(Layer(source, values, by_place=True))
    # A format for every output comes after the outputs.
    layers.sort(key=lambda layer: layer.source == "flag --access-format")
    return load(file, os.environ, layers, checks)


def load_ahead(
    file: str | None, options: Mapping[str, Any], *, watched: bool = False, folder: bool = False
) -> None:
    """Load those of our modules that will be needed, before any of the application's.

    One of its modules may be called like one of Python's that ours use, and is found first as soon
    as its folder is looked into: an `email.py`, or what it has of `html`. Settings can name
    functions there, so that it is before them, too. `watched` is whether sources are, `folder`
    whether there is nothing but a folder to be served.
    """
    settings = None
    if file is None or os.path.isfile(file):  # a pipe can be read only once: it may want anything
        try:
            settings = load_settings(file, options, {}).settings
        except UsageError:
            return  # they are about to be loaded with their checks, which tell of it
    fleet = settings is not None and needs_fleet(settings, watched=watched)
    if settings is None or fleet:
        import h2log.workers.supervisor
    if not fleet:
        import h2log.server.process

        if not folder:
            import h2log.server.asgi  # noqa: F401


def needs_fleet(settings: Settings, *, watched: bool) -> bool:
    """Say whether processes of their own serve; `watched` is whether sources are."""
    server = settings.server
    apart = server.max_requests or server.max_rss or settings.admin.port or watched or is_asked()
    return bool(apart) or count_of(settings) > 1


@click.command(short_help="Serve the files of a folder.")
@click.argument("root", required=False, type=click.Path())
@static_options
@server_options
def serve(root: str | None, file: str | None, **options: Any) -> None:
    """Serve the files of the folder ROOT; without it, the sample articles."""
    load_ahead(file, options, folder=True)
    program = Program(root=root if root is not None else str(SAMPLE_SITE))
    start(program, load_settings(file, options).settings, file, options)


def start(
    program: Program,
    settings: Settings,
    file: str | None,
    options: Mapping[str, Any],
    sources: Sources | None = None,
) -> None:
    """Serve `program` until a signal ends it; `file` and `options` are what was given.

    With `sources` it is loaded anew when they change. Raises UsageError and StartupError.
    """
    configure(settings.log.level)
    server = settings.server
    if server.http3:
        raise UsageError(
            "HTTP/3 is Hypercorn's: add --server hypercorn, or leave out --http3 (server.http3)"
        )
    if not needs_fleet(settings, watched=sources is not None):
        from h2log.server.process import serve_process  # who starts workers does not serve

        app = program.build(settings)
        serve_process(app, settings, lambda url: announce(url, settings))
        return
    if os.name != "posix":
        raise UsageError(
            "several workers, their replacement, --reload and the admin listener need Unix"
        )
    if settings.app.dir:
        # The owner of the log, too, may need what the log's settings name.
        paths = [os.path.abspath(settings.app.dir), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    from h2log.workers.supervisor import supervise

    stuck = supervise(
        program,
        settings,
        lambda url: announce(url, settings, sources),
        lambda: load_settings(file, options).settings,
        sources,
    )
    if stuck:
        sys.exit(1)


def announce(url: str, settings: Settings, sources: Sources | None = None) -> None:
    """Say where the server is: the address on standard output, then what helps a person.

    When the access log itself is on standard output, only the address stands there.
    """
    click.echo(click.style(url, bold=True))
    sys.stdout.flush()
    logs = [output.path for output in settings.log.outputs]
    ca = Path(settings.tls.cert).parent / "ca.pem"
    # Nobody connects to "any address", and the certificate has no such name.
    near = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    scheme, mark, path = url.partition(f"://{UNIX}")
    if mark:
        option = "--abstract-unix-socket" if path.startswith("@") else "--unix-socket"
        near = f"{option} {shlex.quote(path.removeprefix('@'))} {scheme}://localhost"
    if settings.server.insecure:
        how = "--http2-prior-knowledge"
    else:
        how = f"--cacert {shlex.quote(str(ca))}" if ca.is_file() else "-k"
    if settings.tls.client_cert == "required":
        how = f"{how} --cert CLIENT.pem --key CLIENT-KEY.pem"
    source = UNIX if mark else urlsplit(near).hostname or ""  # from this machine
    if source in Networks(settings.server.proxy_protocol):
        how = f"{how} --haproxy-protocol"
    curl = f"curl -i {how} {near}/"
    beside = STDOUT in (*logs, settings.log.session.path)
    for path in logs or [""]:
        where = STREAMS.get(path) or (os.path.abspath(path) if is_file_path(path) else path)
        click.echo(f"{click.style('access log', dim=True)}  {where or 'off'}", err=beside)
    click.echo(f"{click.style('try       ', dim=True)}  {curl}", err=beside)
    if sources is not None:
        click.echo(f"{click.style('reloading ', dim=True)}  when {sources} changes", err=beside)
    sys.stdout.flush()
