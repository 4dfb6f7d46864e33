"""An ASGI application as a server holds it (asgi.readthedocs.io, version 3.0)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, Literal

from h2log.app.lifespan import Lifespan
from h2log.app.middleware import Middleware
from h2log.app.response import Response
from h2log.app.static import StaticFolder

__all__ = ["Asgi", "AsgiApp", "LifespanMode", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""What a connection or request is."""
Message = MutableMapping[str, Any]
"""An event; its `type` says which."""
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""
LifespanMode = Literal["auto", "on", "off"]


class AsgiApp:
    """An ASGI 3 application, and what its server needs to know of it.

    `call` is the application, `name` what messages call it, `root_path` the path below which a
    proxy has it (`SCRIPT_NAME`), `lifespan` whether it is told of start and stop: `auto` finds out.
    """

    def __init__(
        self, call: Asgi, name: str, *, root_path: str = "", lifespan: LifespanMode = "auto"
    ) -> None:
        self.call = call
        self.name = name
        self.root_path = root_path.rstrip("/")
        self.about = ""
        """What it is, and how it is served, in a line for the log; nothing when it is not known."""
        self.state: dict[str, Any] = {}
        """What the application keeps between its start and its stop; each request has a copy."""
        self.log_health: Callable[[], Sequence[Any]] = tuple
        """See `App.log_health`."""
        self._lifespan = None if lifespan == "off" else Lifespan(call, self.state, lifespan, name)

    async def start(self) -> None:
        """Tell the application to get ready. Raises StartupError when it says that it cannot."""
        if self._lifespan is not None:
            await self._lifespan.start()

    async def stop(self, timeout: float = 10.0) -> None:
        """Tell it that the last request has ended, and wait for it up to `timeout` seconds."""
        if self._lifespan is not None:
            await self._lifespan.stop(timeout)

    # What an `App` is asked by the server, and an ASGI application has none of

    def kept(self, path: str, now: float, wished: str = "") -> Response | None:
        """Return None: nothing is answered from memory."""
        return None

    def folders(self) -> Iterator[StaticFolder]:
        """Yield nothing: its files are its own."""
        return iter(())

    def middlewares(self) -> Iterator[Middleware]:
        """Yield nothing: what surrounds it is its own."""
        return iter(())
