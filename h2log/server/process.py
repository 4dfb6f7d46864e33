"""A server process from its start to its end: the log, the listener, the signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from h2log.app.application import App
from h2log.app.asgi import AsgiApp
from h2log.config import Settings
from h2log.config.imports import own_error
from h2log.errors import StartupError, UsageError
from h2log.logfile.faults import install
from h2log.server.logs import Logs
from h2log.server.loop import loop_factory
from h2log.server.memory import give_back_memory, tune_allocator
from h2log.server.renewal import LOOK_EVERY, PairWatch, hung_up, renewed
from h2log.server.server import Server
from h2log.server.sockets import given_sockets, listening
from h2log.server.tls import tls_context

__all__ = [
    "leave_soon",
    "serve_process",
    "start_application",
    "stop_application",
    "tune",
]

_logger = logging.getLogger("h2log.server")

_Result = TypeVar("_Result")

_LAST_WORDS = 2.0
"""Seconds for the process to end by itself once the server has stopped."""


class Serves(Protocol):
    """What a `Server` is to its process; another may take its place."""

    on_rest: Callable[[], None] | None

    @property
    def url(self) -> str:
        """The address to give to a client."""

    def wait_for(self, log: Logs) -> None:
        """Read no further requests while `log` is overloaded."""

    async def start(self, sockets: list[socket.socket]) -> None:
        """Accept on `sockets`; return when it listens."""

    async def stop(self, timeout: float | None = None) -> None:
        """Let open requests finish, and close."""

    def hurry(self) -> None:
        """Let `stop` wait no longer."""

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another certificate from the next handshake on."""


def serve_process(
    app: App | AsgiApp,
    settings: Settings,
    announce: Callable[[str], None],
    make: Callable[..., Serves] = Server,
) -> None:
    """Serve `app` until SIGTERM or SIGINT, then drain; a second signal cuts the draining short.

    SIGHUP reads the certificate anew, SIGUSR1 looks whether the logs' paths name the open files.

    `announce` is called with the URL as soon as the server listens; `make` makes the server, of the
    arguments that `Server` has. Raises UsageError for what
    stops the start: the certificate, the log, the address; StartupError when the application's
    own start fails.
    """
    context = watch = None
    if not settings.server.insecure:
        watch = PairWatch(settings.tls.files)  # before they are read: no change is missed
        context = tls_context(settings.tls)
    given = given_sockets()
    tune()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        serving = threading.Event()
        main = _serve(app, settings, context, watch, announce, serving, given, make)
        stuck = run_on(runner.get_loop(), main, serving.is_set).stuck
        leave_soon(stuck)


def run_on(
    loop: asyncio.AbstractEventLoop,
    main: Coroutine[Any, Any, _Result],
    serving: Callable[[], bool],
) -> _Result:
    """Run `main` to its end; while `serving`, what ends a loop is logged, and the loop goes on.

    That is `sys.exit` in a task or a callback of the application: asyncio takes it for the end of
    the program, but others are being served. Who wants the server to end sends it a signal.
    """
    task = loop.create_task(main)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or not serving():
                raise
            _logger.critical(
                "%r in a task or callback does not end the server", error, exc_info=error
            )


def tune() -> None:
    """Set up the process for a server: memory, the collector, descriptors. What is alive stays."""
    tune_allocator()
    # What is alive now lives as long as the server: the collector need not look at it again, nor
    # at the few objects of each request as often as its default of 700 would have it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    _raise_descriptor_limit()


def leave_soon(stuck: bool) -> None:
    """End the process whatever still runs; at once, with exit code 1, when a log is `stuck`.

    To be called when the log is closed and everybody was told: what runs then, a handler that
    ignores its cancellation or a thread of its own, must not keep the process.
    """
    leave = threading.Timer(0 if stuck else _LAST_WORDS, _leave, (1 if stuck else 0,))
    leave.daemon = True
    leave.start()


def _leave(code: int) -> None:
    if code == 0:
        _logger.warning("leaving, although handlers or their threads are still at work")
    sys.stderr.flush()
    os._exit(code)


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS has a lower bound of its own
            pass


async def _serve(
    app: App | AsgiApp,
    settings: Settings,
    context: ssl.SSLContext | None,
    watch: PairWatch | None,
    announce: Callable[[str], None],
    serving: threading.Event,
    given: list[socket.socket],
    make: Callable[..., Serves],
) -> Logs:
    logs = Logs(settings.log)
    await logs.open()
    loop = asyncio.get_running_loop()
    uninstall = install(loop)
    if hasattr(signal, "SIGUSR1"):
        loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
    try:
        server = make(app, settings, logs.access.put, context, logs.tell, logs.opening)
        server.on_rest = give_back_memory
        if logs.block:
            server.wait_for(logs)
        app.log_health = logs.health
        asked = _stop_signals()
        if await _started(app, asked):
            try:
                async with _renewing(server, settings, watch, asked):
                    serving.set()
                    sockets = listening(settings.server, given)
                    try:
                        await _serve_until(asked, server, announce, sockets)
                    finally:
                        for sock in sockets:
                            sock.close()
            finally:
                await stop_application(app, settings)
    finally:
        uninstall()
        await logs.close()
    return logs


@contextlib.asynccontextmanager
async def _renewing(
    server: Serves, settings: Settings, watch: PairWatch | None, asked: asyncio.Queue[int]
) -> AsyncIterator[None]:
    """Renew the certificate when its files change, which `watch` says, and on SIGHUP."""
    loop = asyncio.get_running_loop()
    closed = hung_up()
    tls = None if settings.server.insecure else settings.tls
    timer: asyncio.TimerHandle | None = None

    def renew() -> None:
        if tls is not None and (context := renewed(tls)) is not None:
            server.renew(context)

    def hang_up() -> None:
        if closed():
            asked.put_nowait(int(signal.SIGHUP))
        else:
            renew()
            if watch is not None:
                watch.noted()

    def look() -> None:
        nonlocal timer
        timer = loop.call_later(LOOK_EVERY, look)
        if watch is not None and watch.changed():
            renew()

    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    look()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


async def _started(app: App | AsgiApp, asked: asyncio.Queue[int]) -> bool:
    """Let the application get ready, unless a signal asks for the end before; say whether it is.

    What it sets in its context is there when requests come: it is started in this task.
    """
    task = asyncio.current_task()
    assert task is not None
    starting = True

    def interrupt(done: asyncio.Future[int]) -> None:
        if starting and not done.cancelled():
            task.cancel()

    early = asyncio.ensure_future(asked.get())
    early.add_done_callback(interrupt)
    try:
        await start_application(app)
    except asyncio.CancelledError:
        if not early.done():
            raise
        task.uncancel()
        _logger.warning("asked to stop before the application was ready")
        return False
    finally:
        starting = False
        early.cancel()
    if early.done():  # the application took no notice
        asked.put_nowait(early.result())
    return True


async def start_application(app: App | AsgiApp) -> None:
    """Let the application get ready. Raises StartupError with what it raised."""
    if isinstance(app, AsgiApp) and app.about:
        _logger.info("%s", app.about)
    try:
        await app.start()
    except (UsageError, StartupError):
        raise
    except Exception as error:
        _logger.error("the application failed at its start", exc_info=error)
        raise StartupError(f"the application failed at its start: {own_error(error)}") from None


async def stop_application(app: App | AsgiApp, settings: Settings) -> None:
    """Let the application close what it has opened; an ASGI one for `server.drain_timeout`."""
    if isinstance(app, AsgiApp):
        await app.stop(settings.server.drain_timeout)
    else:
        await app.stop()


async def _serve_until(
    asked: asyncio.Queue[int],
    server: Serves,
    announce: Callable[[str], None],
    sockets: list[socket.socket],
) -> None:
    """Serve until a signal asks for the end, then drain."""
    await server.start(sockets)
    try:
        announce(server.url)
    except OSError as error:
        await server.stop(0)
        raise UsageError(f"cannot write to standard output: {error.strerror}") from None
    await asked.get()
    stopping = asyncio.ensure_future(server.stop())
    again = asyncio.ensure_future(asked.get())
    await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not stopping.done():
        server.hurry()
    await stopping


def _stop_signals() -> asyncio.Queue[int]:
    """Return a queue that gets each SIGTERM and SIGINT."""
    asked: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, asked.put_nowait, int(number))
        except NotImplementedError:  # Windows
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(asked.put_nowait, n))
    return asked
