"""A server process from its start to its end: the log, the listener, the signals."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable

from h2log.app.application import App
from h2log.config import Settings
from h2log.config.imports import own_error
from h2log.errors import StartupError, UsageError
from h2log.logfile.faults import install
from h2log.server.logs import Logs
from h2log.server.server import Server
from h2log.server.tls import server_context

__all__ = ["serve_process"]

_logger = logging.getLogger("h2log.server")

_LAST_WORDS = 2.0
"""Seconds for the process to end by itself once the server has stopped."""

# mallopt(3)'s parameters and the values for them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 16 * 1024 * 1024
# uvloop's read buffer of each TLS connection is of this size: mapped, it takes only the pages that
# were ever used, a few of its 64. What we allocate again and again stays below (`FILE_CHUNK`).
_MAPPED_FROM = 256 * 1024


def serve_process(app: App, settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve `app` until SIGTERM or SIGINT, then drain; a second signal cuts the draining short.

    `announce` is called with the URL as soon as the server listens. Raises UsageError for what
    stops the start: the certificate, the log, the address; StartupError when the application's
    own start fails.
    """
    context = None
    if not settings.server.insecure:
        context = server_context(settings.tls.cert, settings.tls.key)
    _tune_allocator()
    # What is alive now lives as long as the server: the collector need not look at it again, nor
    # at the few objects of each request as often as its default of 700 would have it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        stuck = runner.run(_serve(app, settings, context, announce)).stuck
        # The log is closed and everybody was told: what still runs now, a handler that ignores
        # its cancellation or a thread of its own, must not keep the process.
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


def _tune_allocator() -> None:
    """Keep freed memory of a few responses' size, where the C library is glibc.

    Its defaults give blocks of 128 KiB and more, and the heap's end, back to the system at once:
    a large file's pieces would be paged in anew each time, a third of the cost of sending it.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def _give_back_memory() -> None:
    """Give what the last load left to the system again, where the C library is glibc."""
    gc.collect()
    if sys.platform.startswith("linux"):
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):  # musl
            pass


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


async def _serve(
    app: App,
    settings: Settings,
    context: ssl.SSLContext | None,
    announce: Callable[[str], None],
) -> Logs:
    logs = Logs(settings.log)
    await logs.open()
    loop = asyncio.get_running_loop()
    uninstall = install(loop)
    if hasattr(signal, "SIGUSR1"):
        loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
    try:
        server = Server(app, settings, logs.access.put, context, logs.tell, logs.opening)
        server.on_rest = _give_back_memory
        if logs.block:
            server.wait_for(logs.access)
        asked = _stop_signals()
        await _start(app)
        try:
            await _serve_until(asked, server, announce)
        finally:
            await app.stop()
    finally:
        uninstall()
        await logs.close()
    return logs


async def _start(app: App) -> None:
    """Let the application get ready. Raises StartupError with what it raised."""
    try:
        await app.start()
    except UsageError:
        raise
    except Exception as error:
        _logger.error("the application failed at its start", exc_info=error)
        raise StartupError(f"the application failed at its start: {own_error(error)}") from None


async def _serve_until(
    asked: asyncio.Queue[int], server: Server, announce: Callable[[str], None]
) -> None:
    """Serve until a signal asks for the end, then drain."""
    await server.start()
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
    """Return a queue that gets each SIGTERM, SIGINT and SIGHUP."""
    asked: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    for number in [getattr(signal, name) for name in names if hasattr(signal, name)]:
        try:
            loop.add_signal_handler(number, asked.put_nowait, int(number))
        except NotImplementedError:  # Windows
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(asked.put_nowait, n))
    return asked
