"""An application's functions in a log's formats: what they take, and what happens when they fail.

A request has its line whatever they do. The first failure of each is told with its traceback in
h2log's own log, all are counted in `failures`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from h2log.errors import UsageError

__all__ = ["FAILED", "failed", "failures", "takes"]

_logger = logging.getLogger("h2log.log")

FAILED: Final = (Exception, SystemExit)
"""What a function of the application may raise without ending the server."""

failures: Final[dict[str, int]] = {}
"""How often each function has failed, by what it is for: `token :tenant`, `format shop.line`."""


def failed(what: str, error: BaseException) -> None:
    """Count a failure, and tell of the first."""
    count = failures[what] = failures.get(what, 0) + 1
    if count == 1:
        _logger.error("the %s failed: %r; lines say so in its place", what, error, exc_info=error)


def takes(function: Callable[..., Any], what: str, *shapes: tuple[str, ...]) -> int:
    """Return with how many arguments `function` can be called: the length of one of `shapes`.

    The first of them that fits is it, and the first of all where nothing is known. Raises
    UsageError that names `what` when none does.
    """
    if not callable(function):
        raise UsageError(f"{what}: expected a function, got {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in
        return len(shapes[0])
    for shape in shapes:
        try:
            signature.bind(*shape)
        except TypeError:
            continue
        return len(shape)
    wanted = " or ".join(f"({', '.join(shape)})" for shape in shapes)
    name = getattr(function, "__qualname__", repr(function))
    raise UsageError(f"{what}: expected a function of {wanted}, got {name}{signature}")
