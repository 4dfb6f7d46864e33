"""A fast asyncio HTTP/2 server whose access log traces every connection and every request."""

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
