"""h2log's access log for ASGI applications in any server: `AccessLogMiddleware`."""

from __future__ import annotations

from h2log.integrations.asgi_middleware import AccessLogMiddleware

__all__ = ["AccessLogMiddleware"]
