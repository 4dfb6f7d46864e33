"""Hypercorn in our process, with our settings, signals, lifespan and logs: `--server hypercorn`.

`HypercornServer` stands where `server.server.Server` does. What its settings have in Hypercorn:

| ours | Hypercorn's |
|---|---|
| `server.backlog` | `backlog` |
| `server.drain_timeout` | `graceful_timeout` |
| `limits.max_streams` | `h2_max_concurrent_streams` |
| `limits.max_header_bytes` | `h2_max_header_list_size`, `h11_max_incomplete_size` |
| `limits.handshake_timeout` | `ssl_handshake_timeout` |
| `limits.idle_timeout` | `keep_alive_timeout` |
| `websocket.max_message` | `websocket_max_message_size` |
| `websocket.ping_interval` | `websocket_ping_interval` |
| `app.root_path` | `root_path` |

The other limits have no counterpart: a warning names those that were changed. What would be unsafe
to leave out is refused: several workers, the admin listener, PROXY protocol, proxies' headers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, Final

import msgspec
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets

from h2log.access.record import SessionSink, Sink
from h2log.app.application import App
from h2log.app.asgi import AsgiApp, Message
from h2log.config import Settings
from h2log.errors import UsageError
from h2log.integrations.hypercorn_trace import install
from h2log.integrations.hypercorn_tracer import Overloadable, TracedLogger, Tracer
from h2log.server.networks import UNIX
from h2log.server.sockets import place_of

__all__ = ["HypercornServer", "unknown_limits"]

_logger = logging.getLogger("h2log.server")

_LAST_WORDS: Final = 1.0
"""Seconds that connections have to end after they were cancelled."""
_NEVER: Final = 2**31
"""Requests after which Hypercorn would close a connection."""

_COUNTERPARTS: Final = {
    "limits": {"max_streams", "max_header_bytes", "handshake_timeout", "idle_timeout"},
    "websocket": {"max_message", "ping_interval"},
}


class HypercornServer:
    """Serves `app` as `Server` does, with Hypercorn; the arguments are the same.

    Raises UsageError for an application or settings that it cannot serve.
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
        if not isinstance(app, AsgiApp):
            raise UsageError(
                "Hypercorn serves ASGI applications, and this is an h2log.App: "
                "leave out --server hypercorn"
            )
        _check(settings)
        install()
        self._http3 = settings.server.http3
        if self._http3:
            _install_http3()
        self._app = app
        self._settings = settings
        self._context = context
        self._tracer = Tracer(sink, session_sink, opening)
        self._config = _config(settings, context, self._tracer)
        self._stopping = asyncio.Event()
        self._listens = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self.on_rest: Callable[[], None] | None = None
        """Never called: Hypercorn does not tell when the last connection has gone."""
        self.url = ""

    def wait_for(self, log: Overloadable) -> None:
        """Read nothing further while `log` is overloaded."""
        self._tracer.log = log

    async def start(self, sockets: list[socket.socket]) -> None:
        """Accept on `sockets`; return when it listens. Raises UsageError for HTTP/3's port."""
        self.url = _url(sockets[0], secure=self._context is not None)
        datagrams = _datagram_sockets(sockets) if self._http3 else []
        if datagrams:
            port = datagrams[0].getsockname()[1]
            self._config.alt_svc_headers = [f'h3=":{port}"; ma=3600']
        given = Sockets([], sockets, [])
        if self._context is not None:
            given = Sockets(sockets, [], datagrams)
        for name in unknown_limits(self._settings):
            _logger.warning("%s means nothing to Hypercorn, and is not used", name)
        application: Any = self._serve
        serving = worker_serve(
            application, self._config, sockets=given, shutdown_trigger=self._until_stopped
        )
        self._task = asyncio.create_task(serving, name="h2log-hypercorn")
        self._task.add_done_callback(self._ended)
        listens = asyncio.create_task(self._listens.wait())
        await asyncio.wait((self._task, listens), return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        if self._task.done():
            await self._task

    async def _until_stopped(self) -> None:
        """Be what Hypercorn waits for while it serves: it listens when it calls this."""
        self._listens.set()
        await self._stopping.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._stopping.is_set() or not self._listens.is_set():
            return
        error = None if task.cancelled() else task.exception()
        _logger.critical("Hypercorn has ended, and so do we", exc_info=error)
        signal.raise_signal(signal.SIGTERM)

    async def stop(self, timeout: float | None = None, *, last: bool = True) -> None:
        """Take no more connections, let open requests finish for `timeout` seconds, and close."""
        if timeout is not None:
            self._config.graceful_timeout = timeout
        self._stopping.set()
        if self._task is None:
            return
        tasks = self._tracer.tasks
        await asyncio.wait((self._task,))
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            _logger.error("Hypercorn did not end well", exc_info=error)

    def hurry(self) -> None:
        """Let `stop` wait no longer for open requests."""
        self._tracer.hurry()

    def renew(self, context: ssl.SSLContext) -> None:
        """Use the certificate as it is now from the next handshake on.

        `context` is proof that it can be used; Hypercorn keeps the one that it has.
        """
        assert self._context is not None
        tls = self._settings.tls
        try:
            self._context.load_cert_chain(tls.cert, tls.key)
            for server in self._tracer.datagrams:
                server.protocol.quic_config.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:  # changed once more
            _logger.error("the certificate is not renewed, the old one stays: %s", error)

    # The application, as Hypercorn calls it

    async def _serve(
        self, scope: MutableMapping[str, Any], receive: Any, send: Any, *rest: Any
    ) -> None:
        if scope["type"] == "lifespan":
            await _no_lifespan(receive, send)
            return
        scope["state"] = dict(self._app.state)
        await self._app.call(scope, receive, send)


async def _no_lifespan(receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
    """Take part in Hypercorn's lifespan: the application is started and stopped by us."""
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


def _config(settings: Settings, context: ssl.SSLContext | None, tracer: Tracer) -> Config:
    """Return Hypercorn's configuration."""
    server, limits, websocket = settings.server, settings.limits, settings.websocket
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")  # ours, or the application's
    config.logger_class = partial(TracedLogger, tracer)  # type: ignore[assignment]
    config.include_server_header = False
    config.keep_alive_max_requests = _NEVER
    config.backlog = server.backlog
    config.graceful_timeout = server.drain_timeout
    config.root_path = settings.app.root_path
    config.h2_max_concurrent_streams = limits.max_streams
    config.h2_max_header_list_size = limits.max_header_bytes
    config.h11_max_incomplete_size = limits.max_header_bytes
    config.ssl_handshake_timeout = limits.handshake_timeout
    config.keep_alive_timeout = limits.idle_timeout
    config.websocket_max_message_size = websocket.max_message
    config.websocket_ping_interval = websocket.ping_interval or None
    if context is not None:
        config.certfile, config.keyfile = settings.tls.cert, settings.tls.key
        config.create_ssl_context = lambda: context  # type: ignore[method-assign]
    return config


def _check(settings: Settings) -> None:
    """Raise UsageError for what Hypercorn cannot do and nobody would want to miss."""
    server = settings.server
    refused = {
        "several workers (--workers)": server.workers not in (1, "auto"),
        "replacing workers (--max-requests, --max-rss)": server.max_requests or server.max_rss,
        "the admin listener (admin.port)": settings.admin.port,
        "the PROXY protocol (--proxy-protocol)": server.proxy_protocol,
        "the word of proxies (--proxy-headers)": server.proxy_headers,
    }
    for what, wanted in refused.items():
        if wanted:
            raise UsageError(
                f"--server hypercorn is one process without {what}: leave that out, or use "
                "h2log's own server"
            )
    if server.http3 and server.insecure:
        raise UsageError("HTTP/3 is always over TLS: leave out --insecure, or --http3")
    if server.http3 and settings.tls.client_cert == "required":
        raise UsageError(
            "Hypercorn cannot ask for client certificates over HTTP/3 (tls.client_cert): leave out "
            "--http3"
        )


def unknown_limits(settings: Settings) -> Iterator[str]:
    """Yield the names of the limits that were changed and mean nothing to Hypercorn."""
    for section, counterparts in _COUNTERPARTS.items():
        given = getattr(settings, section)
        default = type(given)()
        for field in msgspec.structs.fields(given):
            if field.name not in counterparts and field.name != "static_cache":
                if getattr(given, field.name) != getattr(default, field.name):
                    yield f"{section}.{field.encode_name}"


def _install_http3() -> None:
    try:
        from h2log.integrations.hypercorn_quic import install_quic
    except ImportError:
        raise UsageError("HTTP/3 needs aioquic: pip install 'h2log[h3]'") from None
    install_quic()


def _datagram_sockets(sockets: list[socket.socket]) -> list[socket.socket]:
    """Return sockets of UDP with the same addresses. Raises UsageError."""
    found: list[socket.socket] = []
    for listener in sockets:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            raise UsageError("HTTP/3 is over UDP, and there is none on a Unix socket: use a port")
        address = listener.getsockname()
        datagrams = socket.socket(listener.family, socket.SOCK_DGRAM)
        try:
            if listener.family == socket.AF_INET6:
                datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            datagrams.setblocking(False)
            datagrams.bind(address)
        except OSError as error:
            for sock in (datagrams, *found):
                sock.close()
            raise UsageError(
                f"cannot have UDP port {address[1]} for HTTP/3: {error.strerror}; choose another "
                "with --port, or leave out --http3"
            ) from None
        found.append(datagrams)
    return found


def _url(listener: socket.socket, *, secure: bool) -> str:
    scheme = "https" if secure else "http"
    host, port = place_of(listener)
    if host.startswith(UNIX):
        return f"{scheme}://{host}"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
