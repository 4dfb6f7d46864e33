"""The application of `proxies.telling`, for a server in a process of its own."""

from __future__ import annotations

from tests.server.proxies import telling

app = telling()
