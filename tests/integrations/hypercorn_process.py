"""`h2log run --server hypercorn`, in a process of its own, with the lines of its log."""

from __future__ import annotations

from pathlib import Path

from h2log.server.certificates import Certificates
from tests.integrations.lines import Lines
from tests.support import Process

__all__ = ["Hypercorn"]


class Hypercorn(Process):
    """Serves `app`; `full` are the lines of its log."""

    def __init__(
        self,
        log: Path,
        certs: Certificates | None,
        *options: str,
        noisy: bool = True,
        app: str = "tests.integrations.asgi_app:app",
    ) -> None:
        given = ("run", app, "--server", "hypercorn", "--access-format", "h2log-full", *options)
        super().__init__(*given, certs=certs, log=log, noisy=noisy)
        self.full = Lines(log)
