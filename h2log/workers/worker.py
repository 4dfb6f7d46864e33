"""A process that serves; `python -m h2log.workers.begin` starts it.

It is told by the supervisor what to serve and on which sockets, says when it does, and serves until
it is told to drain, gets SIGTERM, or the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from h2log.access.lines import escape
from h2log.clock import monotonic
from h2log.config import Settings
from h2log.config.imports import make_importable
from h2log.errors import StartupError, UsageError
from h2log.logfile.applog import IdFilter, LineFormatter, WriterHandler, configure
from h2log.logfile.faults import install
from h2log.server.logs import redaction_of
from h2log.server.loop import loop_factory
from h2log.server.memory import give_back_memory
from h2log.server.process import (
    leave_soon,
    start_application,
    stop_application,
    tune,
)
from h2log.server.renewal import renewed
from h2log.server.server import Server
from h2log.server.tls import tls_context
from h2log.workers.board import Board
from h2log.workers.channel import Channel, frame
from h2log.workers.journal import Journal
from h2log.workers.lines import Lines
from h2log.workers.messages import (
    Beat,
    Doing,
    Drain,
    Failed,
    Hurry,
    Inspect,
    Link,
    Open,
    Ready,
    Renew,
    Start,
    Told,
    Unlinked,
    Wish,
    encode,
    to_worker,
)

__all__ = ["main"]

_logger = logging.getLogger("h2log.server")

_BEAT: Final = 0.5
"""Seconds between two signs of life."""
_LAST_WORDS: Final = 5.0
"""Seconds that the last lines may take at the end, as a single process gives them."""
_JITTER: Final = 0.1
"""Of `max_requests`, more or less: workers that began together do not end together."""


class _Teller(logging.Handler):
    """Has the supervisor pass our log on, while there is no link to the log's owner.

    What two processes write to one pipe may be torn: standard error is the owner's alone. Only
    when nobody is there any more, we write to it ourselves.
    """

    def __init__(self, control: Channel) -> None:
        super().__init__()
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.setFormatter(LineFormatter())
        self.addFilter(IdFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """Send at once, from whichever thread: the process may be about to end."""
        try:
            text = self.format(record)
            data = frame(encode(Told(text)))
            if self._control.closed:
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
            elif threading.get_ident() == self._thread and self._loop.is_running():
                self._control.send(data)
            else:
                self._control.send_now(data)
        except Exception:
            self.handleError(record)


class Worker:
    """Serves as the supervisor at the other end of `control` says."""

    def __init__(self, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[tuple[Start, list[int]]] = self._loop.create_future()
        self._asked: asyncio.Event = asyncio.Event()  # to drain
        self._drain = Drain(0.0, False)
        self._server: Server | None = None
        self._lines: Lines | None = None
        self._start: Start | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._orphan = False
        self._early: int | None = None  # a link that came before the log was set up
        self._control = Channel(control, to_worker, self._received, self._abandoned)
        self._teller = _Teller(self._control)
        logging.getLogger().addHandler(self._teller)

    async def run(self) -> bool:
        """Serve until the end; return whether the log could not be ended."""
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        try:
            self._start, descriptors = await self._started
        except ConnectionError:
            return False
        try:
            return await self._serve(self._start, *descriptors)
        except (UsageError, StartupError) as error:
            code = 3 if isinstance(error, StartupError) else 2
            self._control.send(frame(encode(Failed(code, str(error)))))
            return False

    async def _serve(self, start: Start, journal: int, board: int, *sockets: int) -> bool:
        settings = shared_out(start.settings, start.share)
        make_importable(settings.app.dir)  # what formats the lines may be there
        lines = self._lines = Lines(settings.log, Journal(journal))
        self._board = Board(board, start.place)
        os.close(journal)
        os.close(board)
        handler = WriterHandler(lines.app)
        handler.setLevel(settings.log.level.upper())
        logging.getLogger().addHandler(handler)
        logging.getLogger().removeHandler(self._teller)
        configure(settings.log.level, console=False)
        if self._early is not None:
            lines.link.connect(socket.socket(fileno=self._early))
        uninstall = install(self._loop)
        try:
            await lines.open()
            app = start.program.build(settings, start.share)
            context = None
            if not settings.server.insecure:
                context = tls_context(settings.tls)
            tune()
            server = Server(app, settings, lines.put, context, lines.tell, lines.opened)
            server.on_rest = give_back_memory
            server.fair = self._board.wait
            if lines.block:
                server.wait_for(lines)
            await start_application(app)
            try:
                await self._until_asked(server, [socket.socket(fileno=n) for n in sockets])
            finally:
                for task in self._tasks:
                    task.cancel()
                await stop_application(app, settings)
        finally:
            uninstall()
            logging.getLogger().addHandler(self._teller)
            logging.getLogger().removeHandler(handler)
            done = await lines.close(_LAST_WORDS)
        if not done:
            _logger.error("the owner of the log did not take all lines")
        return not done

    async def _until_asked(self, server: Server, sockets: list[socket.socket]) -> None:
        """Serve until asked to drain, then do."""
        await server.start(sockets)
        self._board.wait(0)
        self._server = server
        self._control.send(frame(encode(Ready(server.url))))
        self._tasks.append(asyncio.create_task(self._beat(server)))
        await self._asked.wait()
        self._board.leave()
        await server.stop(self._drain.timeout, last=self._drain.last)

    # What comes from outside

    def _received(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Start():
                self._started.set_result((message, descriptors))
            case Link() if not descriptors:
                self._control.send(frame(encode(Unlinked())))
            case Link():
                if self._lines is None:
                    if self._early is not None:
                        os.close(self._early)
                    self._early = descriptors[0]
                else:
                    self._lines.link.connect(socket.socket(fileno=descriptors[0]))
            case Drain():
                self._drain = message
                if self._asked.is_set() and self._server is not None:
                    self._tasks.append(
                        asyncio.create_task(self._server.stop(message.timeout, last=message.last))
                    )
                self._asked.set()
            case Hurry():
                if self._server is not None:
                    self._server.hurry()
            case Renew():
                self._renew()
            case Inspect():
                self._inspect(message)

    def _abandoned(self) -> None:
        """The supervisor is gone: nobody would replace us, or stop us."""
        self._orphan = True
        if not self._started.done():
            self._started.set_exception(ConnectionError())
        self._terminated()

    def _terminated(self) -> None:
        if self._start is None:
            if not self._started.done():
                self._started.set_exception(ConnectionError())
            return
        if not self._asked.is_set():
            self._drain = Drain(self._start.settings.server.drain_timeout, self._orphan)
            self._asked.set()

    def _renew(self) -> None:
        if self._start is None or self._server is None or self._start.settings.server.insecure:
            return
        context = renewed(self._start.settings.tls)
        if context is not None:
            self._server.renew(context)

    def _inspect(self, question: Inspect) -> None:
        if self._lines is None or self._start is None:
            return
        masked = redaction_of(self._start.settings.log).url
        now = monotonic()
        oldest = sorted(self._lines.requests.values(), key=lambda record: record.start)
        found = [
            Doing(
                record.session.id,
                record.id,
                record.client[0],
                record.facts.method,
                escape(masked(record.facts.path)),
                now - record.start,
            )
            for record in oldest[: question.most]
        ]
        self._control.send(frame(encode(Open(question.question, found, len(asyncio.all_tasks())))))

    # Signs of life

    async def _beat(self, server: Server) -> None:
        assert self._start is not None and self._lines is not None
        lines, limits = self._lines, self._start.settings.server
        most = limits.max_requests
        if most:
            most = max(1, round(most * random.uniform(1 - _JITTER, 1 + _JITTER)))  # noqa: S311
        wished = False
        while True:
            resident = _resident()
            self._control.send(
                frame(
                    encode(
                        Beat(
                            server.connections,
                            len(lines.requests),
                            lines.sequence,
                            server.accepted,
                            lines.sent,
                            resident,
                            lines.link.kept,
                            lines.dropped,
                        )
                    )
                )
            )
            reason = ""
            if most and lines.sequence >= most:
                reason = f"it has answered {lines.sequence} requests"
            elif limits.max_rss and resident > limits.max_rss:
                reason = f"it takes {resident} bytes of memory"
            if reason and not wished:
                wished = True
                self._control.send(frame(encode(Wish(reason))))
            await asyncio.sleep(_BEAT)


def shared_out(settings: Settings, share: int) -> Settings:
    """Return the settings of one of `share` workers: its part of what all may have together."""
    limits = settings.limits
    part = msgspec.structs.replace(
        limits,
        max_connections=-(-limits.max_connections // share),
        max_connections_per_address=-(-limits.max_connections_per_address // share),
    )
    return msgspec.structs.replace(settings, limits=part)


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):  # not on Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serve until the supervisor says otherwise."""
    # Ctrl-C and a closed terminal are for the supervisor, which tells us what they mean.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU"):
        if hasattr(signal, name):  # not SIG_IGN: the application's own children would inherit it
            signal.signal(getattr(signal, name), lambda number, at: None)
    configure("warning", console=False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        stuck = runner.run(_work(int(sys.argv[1])))
        leave_soon(stuck)


async def _work(descriptor: int) -> bool:
    return await Worker(socket.socket(fileno=descriptor)).run()
