"""The log of a Hypercorn worker that somebody else has started; see `integrations.hypercorn`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from hypercorn.config import Config

from h2log.config import Settings
from h2log.errors import UsageError
from h2log.integrations.asgi_middleware import settings_of
from h2log.integrations.hypercorn_trace import install
from h2log.integrations.hypercorn_tracer import TracedLogger, Tracer
from h2log.integrations.log_thread import LogThread

__all__ = ["WorkerLogger", "traced"]

_Config = TypeVar("_Config", bound=Config)


class WorkerLogger(TracedLogger):
    """Hypercorn's logger with our access log beside it: `config.logger_class`.

    Hypercorn makes it when it begins to serve, in each worker. What is wrong with the settings or
    the files ends the worker with one line; `raises`, it is a UsageError.
    """

    def __init__(
        self,
        config: Config,
        settings: Settings | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        raises: bool = False,
    ) -> None:
        try:
            if config.worker_class == "trio":
                raise UsageError(
                    "Hypercorn's trio workers cannot be traced: use h2log.asgi.AccessLogMiddleware"
                )
            install()
            if config.quic_bind:
                _install_quic()
            log = LogThread(settings_of(settings).log)
            log.start()
        except UsageError as error:
            if raises:
                raise
            # Whatever Hypercorn has begun by now would end with tracebacks of its own.
            sys.stderr.write(f"h2log: {error}\n")
            sys.stderr.flush()
            os._exit(1)
        tell = log.tell if log.told else None
        tracer = Tracer(log.put, tell, log.opening, log if log.block else None)
        super().__init__(tracer, config)
        log.at_termination = tracer.shut


def traced(
    config: _Config,
    settings: Settings | Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> _Config:
    """Return `config`, which has h2log's access log from now on.

    `settings` are as those of `h2log.asgi.AccessLogMiddleware`. Raises UsageError when they are
    wrong; the server does, when a file cannot be opened.
    """
    settings_of(settings)
    made = partial(WorkerLogger, settings=settings, raises=True)
    config.logger_class = made  # type: ignore[assignment]
    return config


def _install_quic() -> None:
    try:
        from h2log.integrations.hypercorn_quic import install_quic
    except ImportError:
        raise UsageError("quic_bind needs aioquic: pip install 'h2log[h3]'") from None
    install_quic()
