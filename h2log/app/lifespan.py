"""What an ASGI application does before it is served and after: the lifespan protocol, version 2.0.

    CALLED --lifespan.startup.complete--> SERVED --lifespan.shutdown--> ASKED --…complete--> OVER
    CALLED --lifespan.startup.failed----> OVER      SERVED, ASKED --it returns or raises--> OVER
    CALLED --it returns or raises-------> OVER      it has no lifespan; a failure where it must

One task calls the application for its whole life, so that what it enters it leaves in the same
task. What it sets in its context is its own; what requests are to see, it puts into
`scope["state"]`. See asgi.readthedocs.io/en/latest/specs/lifespan.html.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Literal

from h2log.clock import monotonic
from h2log.config.imports import own_error
from h2log.errors import StartupError

__all__ = ["Lifespan"]

_logger = logging.getLogger("h2log.app")

_Event = MutableMapping[str, Any]
_Call = Callable[
    [_Event, Callable[[], Awaitable[_Event]], Callable[[_Event], Awaitable[None]]],
    Awaitable[None],
]

_ASGI: Final = {"version": "3.0", "spec_version": "2.0"}

_CALLED: Final = "it was called"
_SERVED: Final = "its start is complete"
_ASKED: Final = "its shutdown was asked for"
_OVER: Final = "its lifespan is over"

_ANSWERS: Final = {
    _CALLED: ("lifespan.startup.complete", "lifespan.startup.failed"),
    _ASKED: ("lifespan.shutdown.complete", "lifespan.shutdown.failed"),
}
"""What may be sent in each state; nothing in the others."""

_LONG: Final = 10.0
"""Seconds of a start after which people are told what is waited for."""
_CLEANING_UP: Final = 5.0
"""Seconds for an application that failed at its start to close what it had opened."""
_CANCELLED: Final = 1.0
"""Seconds for a task that is cancelled to end."""


class Lifespan:
    """Tells the ASGI application `call` of start and stop; `state` is what its requests share.

    `mode` is `on` where it has to take part, `auto` where it may; `name` is what messages call it.
    """

    def __init__(
        self, call: _Call, state: dict[str, Any], mode: Literal["auto", "on"], name: str
    ) -> None:
        self._call = call
        self._shared = state
        self._mode = mode
        self._name = name
        self._state = _CALLED
        self._ready = False
        self._complaint: str | None = None  # the message with which it failed
        self._error: BaseException | None = None  # what came of the call
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the application is ready, or has no lifespan; to be called once.

        Raises StartupError when it says that it cannot start, and, with the mode `on`, when it has
        no lifespan.
        """
        self._asked = asyncio.Event()  # for its shutdown
        self._told = self._told_stop = False
        self._answered = asyncio.Event()
        self._idle = asyncio.Event()  # it waits for more than there is
        self._task = asyncio.create_task(self._run())
        text = "%s has not completed its start within %g s: still waiting for it"
        loop = asyncio.get_running_loop()
        late = loop.call_later(_LONG, _logger.warning, text, self._name, _LONG)
        try:
            await self._answered.wait()
        except asyncio.CancelledError:
            await self._leave(0.0)
            raise
        finally:
            late.cancel()
        if self._ready:
            _logger.info("%s has completed its start", self._name)
        elif self._has_failed():
            await self._leave(_CLEANING_UP)
            raise StartupError(f"the application failed at its start: {self._reason()}")
        else:
            _logger.info("%s has no lifespan: it is not told of start and stop", self._name)
            _logger.debug("it ended its lifespan before it was ready", exc_info=self._error)

    def _has_failed(self) -> bool:
        """Say whether it is not ready, and that is more than not to know of lifespans."""
        return (
            self._mode == "on" or self._complaint is not None or isinstance(self._error, SystemExit)
        )

    def _reason(self) -> str:
        """Return in a line why the application is not ready; log what is more than that."""
        if self._complaint is not None and not (self._error and "\n" in self._complaint):
            return _in_a_line(self._complaint)
        if self._error is None:
            return "it ended its lifespan without lifespan.startup.complete, which lifespan=on asks"
        # What it raised; frameworks send the traceback of that as their message.
        _logger.error("%s failed at its start", self._name, exc_info=self._error)
        return own_error(self._error)

    async def stop(self, timeout: float) -> None:
        """Tell the application that the last request has ended; wait for it `timeout` seconds.

        What is wrong is logged. Nothing is done where it has no lifespan, or none any more.
        """
        if self._task is None:
            return
        deadline = monotonic() + timeout
        if self._state == _SERVED:
            self._answered.clear()
            self._state = _ASKED
            self._asked.set()
            try:
                await asyncio.wait_for(self._answered.wait(), timeout)
            except TimeoutError:
                _logger.warning(
                    "%s has not completed its stop within %g s: it is cancelled",
                    self._name,
                    timeout,
                )
        await self._leave(max(0.0, deadline - monotonic()))
        if self._complaint is not None:
            _logger.error(
                "%s failed at its stop: %s",
                self._name,
                _in_a_line(self._complaint),
                exc_info=self._error,
            )

    async def _leave(self, patience: float) -> None:
        """End the task, which may have a few words of its own to end with."""
        task, self._task = self._task, None
        self._state = _OVER
        if task is None or task.done():
            return
        if patience:
            idle = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait((task, idle), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        task.cancel()
        await asyncio.wait((task,), timeout=_CANCELLED)

    # The task

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": dict(_ASGI),
            "state": self._shared,
            "extensions": {"h2log": {}},  # for `AccessLogMiddleware`: there is a log already
        }
        try:
            await self._call(scope, self._receive, self._send)
        except (Exception, SystemExit) as error:
            self._error = error
        finally:
            self._ended()

    def _ended(self) -> None:
        """The application has returned or raised."""
        before, self._state = self._state, _OVER
        if before == _SERVED and self._error is None:
            _logger.info(
                "%s has returned from its lifespan: it is not told of the stop", self._name
            )
        elif before == _SERVED:
            _logger.error(
                "%s failed in its lifespan and is not told of the stop; it is served as before",
                self._name,
                exc_info=self._error,
            )
        elif before == _ASKED or (self._ready and self._error and self._complaint is None):
            _logger.error("%s failed at its stop", self._name, exc_info=self._error)
        self._answered.set()

    # The application's side

    async def _receive(self) -> _Event:
        """Return `lifespan.startup`, and `lifespan.shutdown` when it is time for that."""
        if not self._told:
            self._told = True
            return {"type": "lifespan.startup"}
        if self._state == _OVER or self._told_stop:
            self._idle.set()
            await asyncio.Event().wait()
        await self._asked.wait()
        self._told_stop = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: _Event) -> None:
        """Take an answer. Raises RuntimeError for one that nobody has asked for."""
        kind = message["type"]
        wanted = _ANSWERS.get(self._state, ())
        if kind not in wanted:
            expected = " or ".join(map(repr, wanted)) or "nothing"
            raise RuntimeError(f"expected {expected} when {self._state}, got {kind!r}")
        text = str(message.get("message") or "").strip()
        if kind == "lifespan.startup.complete":
            self._ready = True
            self._state = _SERVED
        else:
            self._state = _OVER
        if kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._complaint = text
        self._answered.set()


def _in_a_line(text: str) -> str:
    """Return a message as one line: of a traceback its last one, which says most, else all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "it does not say why"
    return lines[-1] if lines[0].startswith("Traceback") else "; ".join(lines)
