"""Processes that the supervisor starts, and how soon one that has ended is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Final

from msgspec.msgpack import Decoder

from h2log.clock import monotonic
from h2log.workers.channel import Channel, frame, pair
from h2log.workers.messages import encode

__all__ = ["BackOff", "Child", "Orphans"]

_BEGIN: Final = "h2log.workers.begin"
_EARLY: Final = 5.0
"""Seconds within which an end is too early."""
_FIRST_DELAY: Final = 0.5
_LAST_DELAY: Final = 30.0
_STRAGGLE: Final = 1.0
"""Seconds for the last messages of a process that has ended; its own children may hold the end."""


class BackOff:
    """How long to wait before a process is started again."""

    def __init__(self) -> None:
        self._next = _FIRST_DELAY

    def delay(self, lived: float) -> float:
        """Return the seconds to wait after one that ended by itself and has `lived` so long."""
        if lived >= _EARLY:
            self._next = _FIRST_DELAY
            return 0.0
        delay, self._next = self._next, min(self._next * 2, _LAST_DELAY)
        return delay


class Child:
    """A process of ours, which runs `main` of a module, and the channel to it.

    Use: `await start(…)`; `gone` is set when it has ended and its last message was received.
    """

    def __init__(self) -> None:
        self.began = monotonic()
        self.gone = asyncio.Event()
        self.code: int | None = None
        self.killed_for = ""
        """Why we have killed it."""
        self.sent = 0
        """Messages that it was sent."""
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._hung_up = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def start(
        self, module: str, decoder: Decoder[Any], received: Callable[[Any, list[int]], None]
    ) -> None:
        """Start it. Raises OSError when the system has no room for it."""
        ours, theirs = pair()
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    _BEGIN,
                    module,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._channel = Channel(ours, decoder, received, self._hung_up.set)
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        assert self._process is not None and self._channel is not None
        self.code = await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hung_up.wait(), _STRAGGLE)
        self._channel.close()
        self.gone.set()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return monotonic() - self.began

    def send(self, message: Any, *descriptors: int) -> None:
        """Send it a message; the descriptors stay ours."""
        if self._channel is not None:
            self.sent += 1
            self._channel.send(frame(encode(message), len(descriptors)), descriptors)

    def kill(self, reason: str) -> None:
        """End it at once."""
        if self._process is not None and self.code is None:
            self.killed_for = self.killed_for or reason
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    @property
    def reason(self) -> str:
        """Why it has ended."""
        if self.killed_for:
            return self.killed_for
        if self.code is None or self.code >= 0:
            return f"exit code {self.code}"
        if self.code == -signal.SIGKILL:
            return "killed"
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    @property
    def by_others(self) -> bool:
        """Whether somebody else has killed it: no fault of its own."""
        return self.code == -signal.SIGKILL and not self.killed_for


class Orphans:
    """Processes that have ended and that nobody waits for: process 1 of a container inherits them.

    Those that we have started ourselves are waited for in another way, which may take a moment.
    """

    def __init__(self) -> None:
        self._before: set[int] = set()

    def look(self, own: Container[int]) -> None:
        """Let go of those that were there the last time already, and are not among our `own`."""
        if os.getpid() != 1:
            return
        found = {pid for pid in _ended_children() if pid not in own}
        for pid in found & self._before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._before = found


def _ended_children() -> list[int]:
    """Return the processes that have ended and are our children, where the system tells."""
    found = []
    for threads in Path("/proc/self/task").glob("*/children"):
        for pid in threads.read_text().split():
            with contextlib.suppress(OSError):  # gone meanwhile
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    found.append(int(pid))
    return found
