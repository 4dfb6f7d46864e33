"""What nobody caught: in the log, with the ids of the request it belongs to, and on goes the loop.

Sources: callbacks and tasks of the loop, other threads, destructors, the main thread, warnings.
None of them ends the server; an exception that leaves the main thread ends the process anyway and
is in the log before.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from h2log.ids import NO_ID, request_id, session_id

__all__ = ["install"]

_logger = logging.getLogger("h2log.fault")


def install(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Log what is raised and not caught from now on; return what puts everything back."""
    before = (
        loop.get_exception_handler(),
        sys.excepthook,
        threading.excepthook,
        sys.unraisablehook,
    )
    loop.set_exception_handler(_of_loop)
    sys.excepthook = _of_main(before[1])
    threading.excepthook = _of_thread
    sys.unraisablehook = _of_destructor
    logging.captureWarnings(True)

    def uninstall() -> None:
        if not loop.is_closed():
            loop.set_exception_handler(before[0])
        _, sys.excepthook, threading.excepthook, sys.unraisablehook = before
        logging.captureWarnings(False)

    return uninstall


def _of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio tells of: a task's exception that nobody awaited, a callback's …"""
    error = context.get("exception")
    session = request = NO_ID
    for name in ("task", "future", "handle"):
        found = _context_of(context.get(name))
        if found is not None:
            session = found.get(session_id, NO_ID)
            request = found.get(request_id, NO_ID)
            break
    else:
        session, request = session_id.get(), request_id.get()
    about = {
        name: repr(value)
        for name, value in context.items()
        if name not in ("message", "exception", "source_traceback", "handle_traceback")
    }
    _logger.error(
        "%s",
        context.get("message") or "an exception that nobody caught",
        exc_info=error if isinstance(error, BaseException) else None,
        extra={
            "session_id": session,
            "request_id": request,
            **({"asyncio": about} if about else {}),
        },
    )


def _context_of(thing: Any) -> contextvars.Context | None:
    """Return the context that a task or callback runs in.

    Python 3.12 tells it of a task; before, and of a callback, it is among what the object holds.
    """
    if thing is None:
        return None
    get = getattr(thing, "get_context", None)
    if get is not None:
        found = get()
        return found if isinstance(found, contextvars.Context) else None
    for held in gc.get_referents(thing):
        if isinstance(held, contextvars.Context):
            return held
    return None


def _of_main(
    before: Callable[[type[BaseException], BaseException, types.TracebackType | None], Any],
) -> Callable[[type[BaseException], BaseException, types.TracebackType | None], Any]:
    def hook(
        kind: type[BaseException], error: BaseException, tb: types.TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt) or not logging.getLogger().handlers:
            before(kind, error, tb)
        else:
            _logger.critical("the process ends by an exception", exc_info=(kind, error, tb))

    return hook


def _of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    error = args.exc_value or args.exc_type()
    _logger.error(
        "the thread %s ended by an exception",
        args.thread.name if args.thread is not None else "?",
        exc_info=(args.exc_type, error, args.exc_traceback),
    )


def _of_destructor(args: sys.UnraisableHookArgs) -> None:
    if args.exc_type is UnicodeDecodeError and type(args.object) is bytes:
        # What `ssl` says of a server name that no host has (RFC 6066 section 3: ASCII); it has
        # ended the handshake. Anybody can send one, as often as they like.
        _logger.debug("a server name that is not ASCII: %r", args.object[:256])
        return
    error = args.exc_value or args.exc_type()
    _logger.error(
        "%s: %s",
        args.err_msg or "an exception where none can be raised",
        _named(args.object),
        exc_info=(args.exc_type, error, args.exc_traceback),
    )


def _named(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # half of it may be gone already
        return type(thing).__name__
