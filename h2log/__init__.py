"""A fast asyncio HTTP/2 server whose access log traces every connection and every request."""

from h2log.app.application import App
from h2log.app.headers import Headers, Query
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import H2logError, HTTPError

__all__ = ["App", "H2logError", "HTTPError", "Headers", "Query", "Request", "Response"]

__version__ = "0.1.0"
