"""`h2log run --server hypercorn`: the same application, options and log, Hypercorn's protocol."""

from __future__ import annotations

import os

from h2log.cli.serve import announce
from h2log.config import Settings
from h2log.errors import UsageError
from h2log.logfile.applog import configure
from h2log.server.process import serve_process
from h2log.workers.notify import Notifier
from h2log.workers.program import Program

__all__ = ["start_hypercorn"]


def start_hypercorn(program: Program, settings: Settings, *, reload: bool = False) -> None:
    """Serve `program` with Hypercorn until a signal ends it, in this process.

    Raises UsageError for what Hypercorn cannot do, StartupError for an application that fails.
    """
    configure(settings.log.level)
    if reload:
        raise UsageError("--reload is of h2log's own server: leave out --server hypercorn")
    if os.environ.get("WATCHDOG_USEC"):
        raise UsageError(
            "systemd's watchdog is answered by h2log's own server: leave out WatchdogSec, or "
            "--server hypercorn"
        )
    from h2log.integrations.hypercorn_server import HypercornServer  # a start without it is quicker

    notifier = Notifier()

    def listening(url: str) -> None:
        announce(url, settings)
        notifier.ready(f"Hypercorn serves on {url}")

    serve_process(program.build(settings), settings, listening, HypercornServer)
