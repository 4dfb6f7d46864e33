"""The process that owns the log files; `python -m h2log.workers.begin` starts it.

It serves nobody and runs no application: it takes the lines of the workers, and writes them as a
single process would. When it is killed, the supervisor starts another, and the workers go on with
that one from what was acknowledged. It ends when the supervisor says so, or has gone itself and the
last worker with it.

While it lives it alone writes to standard output and error, where several may have one pipe: what
the others have to say they have it say (`Say`, `Told`), or it pauses for them (`Hold`). But what an
application prints, it prints itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from typing import Any, Final

import msgspec

from h2log.errors import UsageError
from h2log.logfile.applog import configure
from h2log.logfile.faults import install
from h2log.server.loop import loop_factory
from h2log.server.memory import give_back_memory
from h2log.workers.blocks import AHEAD
from h2log.workers.channel import Channel, frame
from h2log.workers.ledger import Ledger
from h2log.workers.marks import Marks
from h2log.workers.messages import (
    Ack,
    Bye,
    Close,
    Configure,
    Configured,
    Connect,
    Dead,
    Dismiss,
    Forget,
    GoOn,
    Held,
    Hello,
    Hold,
    Pulse,
    Refused,
    Reopen,
    Say,
    Turn,
    encode,
    to_owner,
    with_owner,
)
from h2log.workers.outputs import Outputs

__all__ = ["main"]

_logger = logging.getLogger("h2log.log")

_LOOK: Final = 0.05
"""Seconds between two looks at what was written, while something is to be acknowledged."""
_SOON: Final = 0.005
"""The same while nothing is read, because an output is behind."""
_PACE: Final = 0.01
"""Seconds between two looks at what a worker has sent: some 60 KB at full speed, which its socket
holds, also when the worker is killed meanwhile."""
_PULSE: Final = 0.5
_REST: Final = 5
"""Pulses without a line after which memory is given back: what bursts of lines have left free in
pieces would be kept for good, more of it after each that is larger than those before."""
_STRAGGLE: Final = 1.0
"""Seconds for the socket of a worker that has ended to end as well: its children may have it."""
_LAST_LOOK: Final = 5.0
"""Seconds at the end for what workers have sent: as much as the outputs have then for writing."""
_ORPHANED: Final = "the supervisor is gone"


class _Client:
    """A worker, its socket and its account."""

    def __init__(self, ledger: Ledger, journal: int) -> None:
        self.ledger = ledger
        self.journal = journal
        self.channel: Channel | None = None
        self.ended = False
        self.settled = False
        """Its account is closed; the last lines may still be on their way."""
        self.reason: str | None = None


class Owner:
    """Takes messages from the supervisor over `control`, and lines from the workers."""

    def __init__(self, control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._outputs = Outputs()
        self._clients: dict[int, _Client] = {}
        self._orders: asyncio.Queue[tuple[Any, list[int]] | None] = asyncio.Queue()
        self._idle = asyncio.Event()  # no worker is left
        self._idle.set()
        self._look_due: asyncio.TimerHandle | None = None
        self._obeyed = 0  # messages of the supervisor
        self._taken = 0  # bytes of lines since the last look
        self._worked = False  # a turn has come since the last pulse
        self._full = False  # an output takes no more
        self._holding = False  # somebody else writes to standard output
        self._paused = False
        self._orphan = False
        self._control = Channel(
            control, to_owner, lambda *order: self._orders.put_nowait(order), self._abandoned
        )

    async def run(self) -> bool:
        """Serve until the end; return whether a log is stuck."""
        pulse = asyncio.create_task(self._beat())
        try:
            while True:
                order = await self._orders.get()
                if order is None or isinstance(order[0], Close):
                    break
                await self._obey(*order)
                self._obeyed += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), None if order is None else _LAST_LOOK)
            self._settle_all()
        finally:
            pulse.cancel()
            await self._outputs.close()
            self._control.close()
        return self._outputs.stuck

    def _abandoned(self) -> None:
        self._orphan = True
        self._holding = False  # for whom?
        self._pause_or_resume()
        self._orders.put_nowait(None)
        for number in list(self._clients):
            self._settle(number)

    async def _beat(self) -> None:
        quiet = _REST  # pulses
        while True:
            quiet, self._worked = (0, False) if self._worked else (quiet + 1, False)
            if quiet == _REST:
                give_back_memory()
            health = [msgspec.to_builtins(health) for health in self._outputs.health()]
            pulse = Pulse(health, len(asyncio.all_tasks()), self._obeyed, list(self._clients))
            self._control.send(frame(encode(pulse)))
            await asyncio.sleep(_PULSE)

    async def _obey(self, order: Any, descriptors: list[int]) -> None:
        match order:
            case Configure():
                await self._configure(order, descriptors)
            case Connect():
                self._connect(order, descriptors)
            case Dead():
                self._dead(order)
            case Dismiss():
                self._outputs.dismiss(order.worker)
            case Forget():
                await self._outputs.forget(order.generation)
            case Reopen():
                self._outputs.reopen()
            case Say():
                if (app := self._outputs.app) is not None:
                    if order.shown:
                        app.writer.put(order.text)
                        app.writer.flush_soon()
                    else:
                        app.take(order.text, hurry=True)
            case Hold():
                await self._hold()
            case GoOn():
                self._holding = False
                self._pause_or_resume()

    async def _configure(self, order: Configure, descriptors: list[int]) -> None:
        answer: Configured | Refused
        if descriptors and self._outputs.marks is None:
            self._outputs.marks = Marks(descriptors[0])
        else:
            for number in descriptors:
                os.close(number)
        try:
            await self._outputs.configure(order.generation, order.log, again=order.again)
        except UsageError as error:
            answer = Refused(order.generation, str(error))
        else:
            answer = Configured(order.generation)
        self._control.send(frame(encode(answer)))

    # Workers

    def _connect(self, order: Connect, descriptors: list[int]) -> None:
        sock, journal = descriptors
        number = order.worker
        client = _Client(Ledger(number, order.generation, self._outputs, journal), journal)
        before = self._clients.get(number)
        if before is not None:  # the other end of that one has not come to the worker
            if not before.settled:
                os.close(before.journal)
            if before.channel is not None:
                before.channel.close()
        self._clients[number] = client
        if self._outputs.marks is not None:
            self._outputs.marks.workers.add(number)
        self._idle.clear()
        client.channel = Channel(
            socket.socket(fileno=sock),
            with_owner,
            lambda message, _: self._received(client, message),
            lambda: self._lost(client),
            _PACE,
        )
        if self._paused:
            client.channel.pause()

    def _received(self, client: _Client, message: Any) -> None:
        ledger = client.ledger
        match message:
            case Turn():
                ledger.take(message)
                self._worked = True
                self._taken += sum(len(span.text) for span in message.spans)
                if self._taken > AHEAD or (not self._paused and self._outputs.full):
                    self._look()
                else:
                    self._look_soon()
            case Hello():
                ledger.greet(message)
            case Bye():
                ledger.clean = True
                for writer in self._outputs.all:
                    writer.flush_soon()

    def _lost(self, client: _Client) -> None:
        client.ended = True
        number = client.ledger.number
        if self._clients.get(number) is client:
            self._settle(number)

    def _dead(self, order: Dead) -> None:
        client = self._clients.get(order.worker)
        if client is None:
            return
        client.reason = order.reason
        if client.ended:
            self._settle(order.worker)
        else:
            self._loop.call_later(_STRAGGLE, self._cut, order.worker)

    def _cut(self, number: int) -> None:
        client = self._clients.get(number)
        if client is None or client.channel is None:
            return
        if self._paused:  # what it has sent is to be read, when there is room for it
            self._loop.call_later(_STRAGGLE, self._cut, number)
            return
        # What it has sent may be here, and not looked at: we may not have run for a while.
        client.channel.finish()
        self._lost(client)

    def _settle(self, number: int) -> None:
        """Close a worker's account, once it is known how it ended."""
        client = self._clients.get(number)
        if client is None:
            return
        reason = client.reason or (_ORPHANED if self._orphan else None)
        if client.settled or not client.ended or not (client.ledger.clean or reason):
            return
        client.settled = True
        if client.ledger.clean:
            client.ledger.left()
        else:
            assert reason is not None
            client.ledger.lost(reason)
            for writer in self._outputs.all:
                writer.flush_soon()
        os.close(client.journal)
        self._look()
        if all(other.settled for other in self._clients.values()):
            self._idle.set()

    def _settle_all(self) -> None:
        """Close the accounts that are open at the end: nobody else would count what is missing."""
        for number, client in list(self._clients.items()):
            if client.reason is not None and client.channel is not None and not client.settled:
                client.channel.finish()
                client.ended = True
                self._settle(number)

    # What was written

    def _look_soon(self, seconds: float = _LOOK) -> None:
        if self._look_due is None:
            self._look_due = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Acknowledge what is written; read no more while that is behind."""
        if self._look_due is not None:
            self._look_due.cancel()
            self._look_due = None
        again = False
        self._taken = 0
        for number, client in list(self._clients.items()):
            turn = client.ledger.acknowledge()
            if turn and client.channel is not None:
                client.channel.send(frame(encode(Ack(turn))))
            if client.ledger.pending:
                again = True
            elif client.settled:
                del self._clients[number]
        full = self._full = self._outputs.full
        self._pause_or_resume()
        if full:
            self._look_soon(_SOON)
        elif again:
            self._look_soon()

    def _pause_or_resume(self) -> None:
        """Read from the workers, or read nothing, whatever is to be now."""
        paused = self._full or self._holding
        if paused != self._paused:
            self._paused = paused
            for client in self._clients.values():
                if client.channel is not None:
                    (client.channel.pause if paused else client.channel.resume)()

    async def _hold(self) -> None:
        """Have nothing to write to standard output or error, and say so."""
        self._holding = True
        self._pause_or_resume()
        while self._outputs.flush_standard():
            await asyncio.sleep(_PACE)
        self._control.send(frame(encode(Held())))


async def _own(descriptor: int) -> bool:
    loop = asyncio.get_running_loop()
    uninstall = install(loop)
    try:
        return await Owner(socket.socket(fileno=descriptor)).run()
    finally:
        uninstall()


def main() -> None:
    """Own the logs until the supervisor says otherwise; exit code 1 when one could not be ended."""
    # The end is the supervisor's to tell: a terminal's Ctrl-C, and whoever signals the group, mean
    # all of us, and lines are still to come.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    configure("warning")
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        stuck = runner.run(_own(int(sys.argv[1])))
    sys.stderr.flush()
    if stuck:
        os._exit(1)
