"""A server in one process: it listens, answers, and stops without losing a request or a line."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from h2log.access.record import AccessRecord, SessionSink, Sink
from h2log.app.application import App
from h2log.app.asgi import AsgiApp
from h2log.clock import monotonic
from h2log.config import Settings
from h2log.server.dispatch import Dispatcher
from h2log.server.forwarded import Origins
from h2log.server.http2_limits import engine_limits
from h2log.server.listener import Listener
from h2log.server.logs import redaction_of
from h2log.server.networks import UNIX, Networks
from h2log.server.session import Leg, Overloadable, Shared
from h2log.server.sockets import listening, place_of

if TYPE_CHECKING:
    from h2log.server.watch import Watcher

__all__ = ["Server"]

_logger = logging.getLogger("h2log.server")

_TICK = 0.5
"""Seconds between two looks at what takes too long; time limits are that precise."""
_REST = 2.0
_HANDSHAKE_GRACE = 1.0
"""Seconds that a TLS handshake may go on after a stop was asked for."""
_LAST_WORDS = 1.0
"""Seconds for the GOAWAY of connections that are closed with requests open."""


class Server:
    """Serves `app` with `settings`, records to `sink`; `opening` has them when they are opened.

    `context` is the TLS side, None for cleartext. `await start()` returns when it listens;
    `addresses` are then the bound ones, `await stop()` drains and closes.
    """

    def __init__(
        self,
        app: App | AsgiApp,
        settings: Settings,
        sink: Sink,
        context: ssl.SSLContext | None,
        session_sink: SessionSink | None = None,
        opening: Sink | None = None,
    ) -> None:
        self._settings = settings
        self._context = context
        masked = redaction_of(settings.log).url
        if _logger.isEnabledFor(logging.DEBUG):
            sink = _telling(sink, masked)
        self._app = app
        self._watcher: Watcher | None = None
        asgi = None
        if isinstance(app, AsgiApp):
            from h2log.server.asgi import AsgiHost  # an App does without, and without WebSockets

            limits = settings.limits
            cache, most = limits.static_cache, limits.max_streams
            asgi = AsgiHost(app, masked, cache, settings.websocket, most)
        # What is refused before an application sees it is still a dispatcher's.
        dispatcher = Dispatcher(App() if isinstance(app, AsgiApp) else app, masked)
        self._shared = Shared(dispatcher, settings.limits, sink, session_sink, asgi, opening)
        self._shared.dispatcher.background.settled = self._shared.changed.set
        server = settings.server
        self._proxies = Networks(server.proxy_protocol) or None
        if proxies := Networks(server.proxy_headers):
            self._shared.proxies = Origins(proxies, server.forwarded_header)
        self._listener: Listener | None = None
        self.on_rest: Callable[[], None] | None = None
        """Called when the last connection has gone, at most every `_REST` seconds."""
        self.fair: Callable[[int], bool] | None = None
        """See `Listener.fair`; to be set before the start."""
        self._rested = 0  # how many connections there had been when it was called last
        self._rested_at = 0.0
        self._deadline = 0.0  # of draining
        self._stopping: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self.addresses: list[tuple[str, int]] = []
        """Host and port of each listening socket; `unix:PATH` and 0 of a Unix socket."""

    def wait_for(self, log: Overloadable) -> None:
        """Read no further requests while `log` is overloaded."""
        self._shared.log = log

    @property
    def url(self) -> str:
        """The address to give to a client, of a Unix socket as nginx's proxy_pass takes it."""
        host, port = self.addresses[0]
        scheme = "http" if self._context is None else "https"
        if host.startswith(UNIX):
            return f"{scheme}://{host}"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on `sockets`, or on those of the settings. Raises UsageError when there are none.

        The sockets are closed at the stop.
        """
        server = self._settings.server
        limits = engine_limits(self._shared)  # may refuse what was configured
        if sockets is None:
            sockets = listening(server, [])
        self.addresses = [place_of(sock) for sock in sockets]
        watched = [folder for folder in self._app.folders() if folder.watched]
        if watched:
            from h2log.server.watch import Watcher

            self._watcher = Watcher(watched)
            await self._watcher.start()
        self._listener = Listener(sockets, self._context, self._shared, limits, self._proxies)
        self._listener.fair = self.fair
        self._listener.start()
        self._tick()
        _logger.info("listening on %s", self.url)

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(_TICK, self._tick)
        now = monotonic()
        self._each(lambda leg: leg.tick(now))
        if self._shared.asgi is not None:
            self._shared.asgi.tick()
        for folder in self._app.folders():
            folder.rest()
        shared = self._shared
        if shared.connections == 0 and shared.ever != self._rested and self.on_rest is not None:
            if now - self._rested_at > _REST:
                self._rested, self._rested_at = shared.ever, now
                self.on_rest()

    def _each(self, action: Callable[[Leg], None]) -> None:
        """Do something to every connection; a fault of one does not keep it from the others."""
        for leg in list(self._shared.legs):
            try:
                action(leg)
            except Exception:
                _logger.exception("a connection failed and is closed")
                self._shared.legs.discard(leg)
                leg.abort()

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another certificate from the next handshake on."""
        self._context = context
        if self._listener is not None:
            self._listener.renew(context)

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._shared.connections

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return self._shared.ever

    async def stop(self, timeout: float | None = None, *, last: bool = True) -> None:
        """Take no more connections, let open requests finish for `timeout` seconds, and close.

        The default is `server.drain_timeout`. What is open after that ends as SHUTDOWN. Called
        again, it changes the time that is left. Not `last` leaves connections that are not accepted
        yet to other processes with the same sockets.
        """
        if timeout is None:
            timeout = self._settings.server.drain_timeout
        self._deadline = monotonic() + timeout
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain(last))
        else:
            self._shared.changed.set()
        await asyncio.shield(self._stopping)

    async def _drain(self, last: bool) -> None:
        if self._listener is None:
            return
        shared = self._shared
        shared.draining = True
        self._listener.stop(last=last)
        if self._watcher is not None:
            await self._watcher.stop()
        legs = len(shared.legs)
        left = max(0.0, self._deadline - monotonic())
        _logger.info("draining %d connections for up to %.3g s", legs, left)
        self._each(lambda leg: leg.drain())
        shared.dispatcher.end_events()
        if shared.asgi is not None:
            shared.asgi.websockets.end()
        began = monotonic()
        while (shared.legs or self._listener.pending) and monotonic() < self._deadline:
            late = monotonic() - began > _HANDSHAKE_GRACE
            if late:
                for task in list(self._listener.pending):
                    task.cancel()
            most = self._deadline if late else min(self._deadline, began + _HANDSHAKE_GRACE + 0.1)
            await self._pass_time(most)
        for task in list(self._listener.pending):
            task.cancel()
        if shared.legs:
            _logger.warning("%d connections did not end in time: closing them", len(shared.legs))
            self._each(lambda leg: leg.shut())
            end = monotonic() + _LAST_WORDS
            while shared.legs and monotonic() < end:
                await self._pass_time(end)
            # A peer that answers nothing keeps no session open, and its line is not lost.
            self._each(lambda leg: leg.abort())
        end = monotonic() + _LAST_WORDS
        while shared.connections and monotonic() < end:
            await self._pass_time(end)
        tasks = list(shared.dispatcher.tasks)
        if shared.asgi is not None:
            # What an application does once its client has the response, in the same call.
            shared.asgi.settled = shared.changed.set
            while shared.asgi.tasks and monotonic() < self._deadline:
                await self._pass_time(self._deadline)
            tasks += shared.asgi.tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        background = shared.dispatcher.background
        while background.tasks and monotonic() < self._deadline:
            await self._pass_time(self._deadline)
        background.stop()
        if background.tasks:
            await asyncio.wait(background.tasks, timeout=_LAST_WORDS)
        for folder in self._app.folders():
            folder.close()
        if self._ticker is not None:
            self._ticker.cancel()
        self._listener = None

    def hurry(self) -> None:
        """Let `stop` wait no longer for open requests."""
        self._deadline = 0.0
        self._shared.changed.set()

    async def _pass_time(self, deadline: float) -> None:
        """Wait until a connection may have ended."""
        changed = self._shared.changed
        changed.clear()
        try:
            await asyncio.wait_for(changed.wait(), max(0.0, deadline - monotonic()))
        except TimeoutError:
            pass


def _telling(sink: Sink, masked: Callable[[str], str]) -> Sink:
    """Return a sink that tells of each finished request at debug level too."""

    def tell(record: AccessRecord) -> None:
        outcome = record.outcome.value if record.outcome is not None else "-"
        _logger.debug(
            "stream %d %s %s: %s %s, %d bytes in, %d bytes out, %.3f ms",
            record.stream_id,
            record.facts.method or "-",
            masked(record.facts.path) or "-",
            record.status or "-",
            outcome,
            record.received,
            record.sent,
            record.milliseconds,
            extra={"session_id": record.session.id, "request_id": record.id},
        )
        sink(record)

    return tell
