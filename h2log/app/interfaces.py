"""What kind of application an object is, told by how it may be called.

    ASGI 3    async, or returns something to await, with three arguments: scope, receive, send
    ASGI 2    with one, scope; what it returns is async, with two: receive, send
    WSGI      with two, environ and start_response (PEP 3333)

A class is called to make an instance, so the arguments are those of its `__init__`. What wraps
another function is what it wraps, as `inspect.signature` has it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any, Final, Literal

__all__ = ["Interface", "described", "interface_of", "is_async", "parameters_of", "single"]

Interface = Literal["asgi3", "asgi2", "wsgi"]

_BY_COUNT: Final[dict[int, Interface]] = {3: "asgi3", 2: "wsgi", 1: "asgi2"}
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def interface_of(found: object) -> Interface | None:
    """Return what an object is, None when it is no application or one cannot tell."""
    if not callable(found):
        return None
    parameters = parameters_of(found)
    if parameters is None or any(
        parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        for parameter in parameters
    ):
        return None
    asynchronous = is_async(found)
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    wanted = [parameter for parameter in positional if parameter.default is parameter.empty]
    open_ended = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    if asynchronous:
        fits = len(wanted) <= 3 and (len(positional) >= 3 or open_ended)
        return "asgi3" if fits else None
    kind = None if open_ended and len(wanted) < 3 else _BY_COUNT.get(len(wanted))
    if kind == "asgi2" and "scope" not in wanted[0].name:
        return None  # one argument is what anything may have
    return kind


def is_async(found: object) -> bool:
    """Say whether what a call returns is to be awaited, as far as one can see."""
    if isinstance(found, functools.partial):
        return is_async(found.func)
    if inspect.isclass(found) or inspect.isroutine(found):
        return inspect.iscoroutinefunction(found)
    return inspect.iscoroutinefunction(getattr(found, "__call__", None))  # noqa: B004 - the method


def parameters_of(found: Callable[..., object]) -> list[inspect.Parameter] | None:
    """Return the parameters of a call, None when nobody knows."""
    try:
        return list(inspect.signature(found).parameters.values())
    except (ValueError, TypeError):
        return None


def described(found: object) -> str:
    """Return what an object is, in words for a person, with a hint where one is at hand."""
    if isinstance(found, ModuleType):
        return "a module"
    if not callable(found):
        return type(found).__name__
    parameters = parameters_of(found)
    if isinstance(found, functools.partial) or inspect.isroutine(found):
        what = "an async function" if is_async(found) else "a function"
    else:
        what = "a class" if isinstance(found, type) else type(found).__name__
    if parameters is None:
        return f"{what} that does not tell its parameters"
    if not parameters:
        return f"{what} without parameters"
    return f"{what} with the parameters ({', '.join(str(p).partition(':')[0] for p in parameters)})"


def single(
    call: Callable[[MutableMapping[str, Any]], Callable[[Any, Any], Awaitable[None]]],
) -> Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]:
    """Return the ASGI 3 application that an ASGI 2 application is, called twice."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        asgi = {**scope["asgi"], "version": "2.0"}
        await call({**scope, "asgi": asgi})(receive, send)

    return app
