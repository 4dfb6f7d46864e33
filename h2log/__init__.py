"""A fast asyncio HTTP/2 server whose access log traces every connection and every request."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from h2log.app.application import App
    from h2log.app.basic_auth import accounts, basic_auth
    from h2log.app.events import Event
    from h2log.app.forms import Form
    from h2log.app.headers import Headers, Query
    from h2log.app.middleware import CallNext, Middleware
    from h2log.app.patterns import RouteError
    from h2log.app.request import Request
    from h2log.app.response import Response
    from h2log.app.uploads import UploadFile
    from h2log.app.user_session_memory import MemoryStore
    from h2log.app.user_session_secret import secrets_from_env, secrets_from_file
    from h2log.app.user_sessions import UserSessions
    from h2log.errors import H2logError, HTTPError

__all__ = [
    "App",
    "CallNext",
    "Event",
    "Form",
    "H2logError",
    "HTTPError",
    "Headers",
    "MemoryStore",
    "Middleware",
    "Query",
    "Request",
    "Response",
    "RouteError",
    "UploadFile",
    "UserSessions",
    "accounts",
    "basic_auth",
    "secrets_from_env",
    "secrets_from_file",
]

__version__ = "0.1.0"

# Where each name is, loaded when it is first asked for (PEP 562): of our own processes many need
# none of them, and most applications a few.
_PLACES = {
    "App": "app.application",
    "CallNext": "app.middleware",
    "Event": "app.events",
    "Form": "app.forms",
    "H2logError": "errors",
    "HTTPError": "errors",
    "Headers": "app.headers",
    "MemoryStore": "app.user_session_memory",
    "Middleware": "app.middleware",
    "Query": "app.headers",
    "Request": "app.request",
    "Response": "app.response",
    "RouteError": "app.patterns",
    "UploadFile": "app.uploads",
    "UserSessions": "app.user_sessions",
    "accounts": "app.basic_auth",
    "basic_auth": "app.basic_auth",
    "secrets_from_env": "app.user_session_secret",
    "secrets_from_file": "app.user_session_secret",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
