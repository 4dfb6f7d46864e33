"""What an object is, told by how it may be called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from h2log.app.interfaces import described, interface_of, single


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...
async def asgi_open(*arguments: Any) -> None: ...
async def asgi_more(scope: Any, receive: Any, send: Any, more: int = 0) -> None: ...
async def asgi_bound(own: int, scope: Any, receive: Any, send: Any) -> None: ...
async def handler(request: Any) -> None: ...
async def async_factory() -> None: ...
async def named(scope: Any, receive: Any, *, send: Any) -> None: ...


def plain_asgi(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


def double(scope: Any) -> Any: ...
def wsgi(environ: Any, start_response: Any) -> Any: ...
def wsgi_more(environ: Any, start_response: Any, more: int = 0) -> Any: ...
def function(request: Any) -> None: ...
def factory() -> None: ...
def factory_with_default(name: str = "") -> None: ...
def whatever(*arguments: Any) -> None: ...
def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


def decorated(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap as decorators do."""

    @functools.wraps(call)
    def wrapper(*arguments: Any, **more: Any) -> Any:
        return call(*arguments, **more)

    return wrapper


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None: ...

    @classmethod
    async def of_class(cls, scope: Any, receive: Any, send: Any) -> None: ...


class Endpoint:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Iterator[None]:
        yield


class Double:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class DoubleInstance:
    def __call__(self, scope: Any) -> Any: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        yield b""


class Configured:
    def __init__(self, path: str) -> None: ...


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (asgi, "asgi3"),
        (asgi_open, "asgi3"),
        (asgi_more, "asgi3"),
        (plain_asgi, "asgi3"),
        (functools.partial(asgi_bound, 1), "asgi3"),
        (functools.partial(functools.partial(asgi_bound), 1), "asgi3"),
        (decorated(asgi), "asgi3"),
        (decorated(decorated(asgi)), "asgi3"),
        (Asgi(), "asgi3"),
        (Asgi().method, "asgi3"),
        (Asgi.static, "asgi3"),
        (Asgi.of_class, "asgi3"),
        (functools.partial(Asgi()), "asgi3"),
        (Endpoint, "asgi3"),
        (double, "asgi2"),
        (decorated(double), "asgi2"),
        (Double, "asgi2"),
        (DoubleInstance(), "asgi2"),
        (wsgi, "wsgi"),
        (wsgi_more, "wsgi"),
        (decorated(wsgi), "wsgi"),
        (Wsgi(), "wsgi"),
        (WsgiClass, "wsgi"),
        (functools.partial(wsgi), "wsgi"),
        (handler, None),
        (async_factory, None),
        (named, None),
        (function, None),
        (factory, None),
        (factory_with_default, None),
        (whatever, None),
        (four, None),
        (Asgi, None),
        (Wsgi, None),
        (Configured, None),
        (type, None),
        (print, None),
        (dict.fromkeys, None),
        (7, None),
        (None, None),
        ("app", None),
        (inspect, None),
    ],
)
def test_the_interface(found: Any, kind: str | None) -> None:
    """Functions, methods, classes, instances, partials and what is decorated."""
    assert interface_of(found) == kind


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (7, "int"),
        (inspect, "a module"),
        (factory, "a function without parameters"),
        (async_factory, "an async function without parameters"),
        (handler, "an async function with the parameters (request)"),
        (whatever, "a function with the parameters (*arguments)"),
        (Asgi, "a class without parameters"),
        (Configured, "a class with the parameters (path)"),
        (Wsgi(), "Wsgi with the parameters (environ, start_response)"),
        (factory_with_default, "a function with the parameters (name)"),
        (dict, "a class that does not tell its parameters"),
    ],
)
def test_it_is_described(found: Any, text: str) -> None:
    """In words for who has given a wrong one."""
    assert described(found) == text


async def test_a_double_callable_is_called_twice() -> None:
    """First with its scope, whose version is its own; then with the two others."""
    calls: list[Any] = []

    class App:
        def __init__(self, scope: Any) -> None:
            calls.append(scope)

        async def __call__(self, receive: Any, send: Any) -> None:
            calls.append((receive, send))

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}}
    await single(App)(scope, "receive", "send")
    asgi = {"version": "2.0", "spec_version": "2.5"}
    assert calls == [{"type": "http", "asgi": asgi}, ("receive", "send")]
    assert scope["asgi"]["version"] == "3.0"  # type: ignore[index]
