"""h2log's access log for people who start Hypercorn themselves.

    hypercorn -c python:h2log.integrations.hypercorn myapp:app

That is all. Who has a configuration file in Python (`-c file:conf.py`) adds a line to it:

    from h2log.integrations.hypercorn import logger_class

and who starts Hypercorn by code says `await serve(app, traced(Config()))`. The log is what
`h2log.toml` of the working directory, or the file of `H2LOG_CONFIG`, and the environment say in
`[[log.access]]`, `[log.session]` and `[log.redact]`.

Every connection has a session, every request its line, also those that no application sees; see
`hypercorn_trace` for what Hypercorn cannot tell. The ids are in `scope["extensions"]["h2log"]`,
in the variables of `h2log.ids`, and in the response's `x-request-id`. With several workers one of
them rotates the files, the others follow (see `rotation_lock`). Only the worker classes `asyncio`
and `uvloop` are traced; with `trio`, use `h2log.asgi.AccessLogMiddleware`.
"""

from __future__ import annotations

from h2log.integrations.hypercorn_worker import (
    WorkerLogger as logger_class,  # noqa: N813 - the name of the setting
)
from h2log.integrations.hypercorn_worker import traced

__all__ = ["logger_class", "traced"]
