"""What an application under test can tell: where its code runs, and what it has noted."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import sniffio

from h2log.ids import request_id, session_id

__all__ = [
    "CHUNKS",
    "STARTED",
    "STOPPED",
    "Released",
    "chunks",
    "digest",
    "ids",
    "in_thread",
    "note",
    "noted",
    "place",
    "ticks",
]

CHUNKS = 20
STARTED = "its lifespan has begun"
STOPPED = "its lifespan has ended"

_notes: dict[str, dict[str, Any]] = {}


def ids() -> dict[str, str]:
    """Return the ids that the code's context carries."""
    return {"session": session_id.get(), "request": request_id.get()}


def note(key: str, what: str) -> None:
    """Remember that `what` has happened, and in which context."""
    _notes[key] = {"what": what, **ids()}


def noted(key: str) -> dict[str, Any]:
    """Return what was noted, `what` being empty where nothing was."""
    return _notes.get(key, {"what": ""})


def place(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what asynchronous code sees around it."""
    return {
        "sniffio": sniffio.current_async_library(),
        "anyio": anyio.get_current_task().id,
        "task": id(asyncio.current_task()),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "extension": scope["extensions"]["h2log"],
        "http_version": scope["http_version"],
        "spec_version": scope["asgi"]["spec_version"],
        **ids(),
    }


def in_thread() -> dict[str, Any]:
    """Return what code sees that was given to a thread."""
    return {"main_thread": threading.current_thread() is threading.main_thread(), **ids()}


def digest(content: bytes) -> str:
    """Return what shows that content has come as it was sent."""
    return hashlib.sha256(content).hexdigest()


async def chunks() -> AsyncIterator[bytes]:
    """Yield pieces of a response, the loop going on between."""
    for number in range(CHUNKS):
        yield b"chunk %d\n" % number
        await asyncio.sleep(0)


async def ticks(key: str) -> AsyncIterator[bytes]:
    """Yield for ever, and note how it was ended."""
    try:
        while True:
            yield b"tick\n"
            await asyncio.sleep(0.002)
    except BaseException as error:
        note(key, type(error).__name__)
        raise


class Released:
    """Events by key: work that goes on when somebody else says so."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def _event(self, key: str) -> asyncio.Event:
        return self._events.setdefault(key, asyncio.Event())

    async def wait(self, key: str) -> None:
        """Wait until `release`, then note it."""
        await self._event(key).wait()
        note(key, "background")

    def release(self, key: str) -> None:
        """Let the work of `key` go on."""
        self._event(key).set()
