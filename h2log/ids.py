"""Session and request ids, in the context that carries them through an application's code.

See `id_source` for what they are.
"""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["NO_ID", "request_id", "session_id"]

NO_ID = "-"
"""What stands in a log line where there is no session or no request."""

session_id: ContextVar[str] = ContextVar("h2log_session_id", default=NO_ID)
"""The id of the connection that the running code serves; `-` outside of one."""

request_id: ContextVar[str] = ContextVar("h2log_request_id", default=NO_ID)
"""The id of the request that the running code serves; `-` outside of one."""
