"""A server process from its start to its end: the log, the listener, the signals."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable

from h2log.access.formats import h2log_format
from h2log.app.application import App
from h2log.config import Settings
from h2log.errors import UsageError
from h2log.logfile.writer import LogWriter
from h2log.server.server import Server
from h2log.server.tls import server_context

__all__ = ["serve_process"]

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
    stops the start: the certificate, the log, the address.
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
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if runner.run(_serve(app, settings, context, announce)).stuck:
            # Leaving in the ordinary way would wait for the thread that is stuck in its write.
            sys.stderr.flush()
            os._exit(1)


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
) -> LogWriter:
    log = settings.log
    writer = LogWriter(log.access, h2log_format(), log.flush_interval, log.max_buffer)
    await writer.open()
    try:
        server = Server(app, settings, writer.put, context)
        asked = _stop_signals()
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
    finally:
        await writer.close()
    return writer


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
