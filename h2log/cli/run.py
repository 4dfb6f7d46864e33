"""`h2log run`: serve an application, of whatever interface, and load it anew when it changes."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from h2log.cli.serve import load_ahead, load_settings, server_options, start
from h2log.config import Settings
from h2log.config.imports import make_importable
from h2log.errors import UsageError
from h2log.workers.program import Program

__all__ = ["run"]

_APP: Final = Settings().app
_SERVER: Final = Settings().server

_GROUPS: Final = {
    "Application": ("factory", "app_dir", "interface", "root_path", "lifespan"),
    "Server": ("backend", "http3"),
    "Development": ("reload", "reload_dir", "reload_include", "reload_exclude"),
    "Listening": ("host", "port", "unix", "fd", "insecure", "proxy_protocol", "proxy_headers"),
    "Certificate": ("cert", "key", "client_ca", "client_cert"),
    "Log": ("access_log", "access_format", "log_level"),
    "Process": (),
}
"""Options by what they are about, as help shows them; those of no group are the last one's."""


class _Grouped(click.Command):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each of `_GROUPS`."""
        last = list(_GROUPS)[-1]
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in _GROUPS}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                known = (group for group, names in _GROUPS.items() if parameter.name in names)
                rows[next(known, last)].append(row)
        for group, records in rows.items():
            with formatter.section(group):
                formatter.write_dl(records)


@click.command(cls=_Grouped, short_help="Serve an application.")
@click.argument("target", metavar="[MODULE:ATTR]", required=False)
@click.option(
    "--factory/--no-factory",
    default=_APP.factory,
    help="Call ATTR, without arguments: it returns the application.",
)
@click.option(
    "--app-dir",
    metavar="DIR",
    default=_APP.dir,
    show_default="here",
    help="Import the application's modules from DIR.",
)
@click.option(
    "--interface",
    type=click.Choice(["auto", "asgi3", "asgi2", "wsgi", "h2log"]),
    default=_APP.interface,
    show_default=True,
    help="What the application is.",
)
@click.option(
    "--root-path",
    metavar="PATH",
    default=_APP.root_path,
    help="Where a proxy has it, such as /api: the ASGI root_path.",
)
@click.option(
    "--lifespan",
    type=click.Choice(["auto", "on", "off"]),
    default=_APP.lifespan,
    show_default=True,
    help="Tell an ASGI application of start and stop.",
)
@click.option(
    "--server",
    "backend",
    type=click.Choice(["h2log", "hypercorn"]),
    default=_SERVER.backend,
    show_default=True,
    help="Who does the protocol of an ASGI application.",
)
@click.option(
    "--http3", is_flag=True, help="HTTP/3, too, over UDP; with --server hypercorn and the extra h3."
)
@click.option(
    "--reload",
    is_flag=True,
    help="Load the application anew when its files change; for development.",
)
@click.option(
    "--reload-dir",
    metavar="DIR",
    multiple=True,
    show_default="--app-dir",
    help="Folder that is watched. Repeatable.",
)
@click.option(
    "--reload-include",
    metavar="GLOB",
    multiple=True,
    help="Files that count besides *.py. Repeatable.",
)
@click.option(
    "--reload-exclude",
    metavar="GLOB",
    multiple=True,
    help="Files and folders that do not count. Repeatable.",
)
@server_options
def run(
    file: str | None,
    reload: bool,
    reload_dir: tuple[str, ...],
    reload_include: tuple[str, ...],
    reload_exclude: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve the application MODULE:ATTR: ASGI, WSGI or an `h2log.App`.

    Without MODULE:ATTR it is the one of the settings, `app.target`.
    """
    load_ahead(file, options, watched=reload)
    if options["app_dir"]:
        # What settings name, such as a log's format, may be there, too.
        make_importable(options["app_dir"])
    settings = load_settings(file, options).settings
    if not settings.app.target:
        raise UsageError(
            "nothing to run: the application must be MODULE:ATTR, such as myapp:app, or app.target "
            "of the settings"
        )
    sources = None
    if reload:
        from h2log.workers.sources import Sources

        folders = reload_dir or (settings.app.dir or ".",)
        sources = Sources(folders, reload_include, reload_exclude, settings.log)
        # A file that is written twice in a second may look unchanged to what Python keeps.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
    elif reload_dir or reload_include or reload_exclude:
        raise UsageError("--reload-dir, --reload-include and --reload-exclude go with --reload")
    if settings.server.backend == "hypercorn":
        from h2log.cli.backend import start_hypercorn

        start_hypercorn(Program(), settings, reload=reload)
        return
    start(Program(), settings, file, options, sources)
