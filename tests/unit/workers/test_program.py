"""The application that settings name: found, made by a factory, told apart, adapted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from h2log.app.application import App
from h2log.app.asgi import AsgiApp
from h2log.config import AppSettings
from h2log.errors import UsageError
from h2log.workers.program import load_application

SOURCE = """
import functools
from h2log import App

h2log_app = App()

async def asgi(scope, receive, send): ...
def double(scope): ...
def wsgi(environ, start_response): return []
def handler(request): ...
async def coroutine(request): ...
def open_ended(*arguments): ...

def make(): return asgi
def make_h2log(name="x"): return h2log_app
def make_wsgi(): return wsgi
def make_number(): return 7
def make_nothing(): return None
def make_for(settings): return asgi
async def make_async(): return asgi
def make_hidden_async(): return make_async()
def make_failing(): raise KeyError("DATABASE_URL")
def make_leaving(): raise SystemExit(3)

class Holder:
    class inner:
        app = asgi
    @property
    def broken(self): raise OSError("no file")

holder = Holder()
number = 7
partial = functools.partial(asgi)
_private = asgi
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module, and imports as they were at the end."""
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "kinds.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("kinds", "apps"):
            del sys.modules[name]


def load(target: str, **options: Any) -> App | AsgiApp:
    """Return the application of these settings."""
    return load_application(AppSettings(target=target, **{"dir": "apps", **options}))


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("kinds:asgi", {}),
        ("kinds:asgi", {"interface": "asgi3"}),
        ("kinds:partial", {}),
        ("kinds:holder.inner.app", {}),
        ("kinds:make", {"factory": True}),
        ("kinds:double", {}),
        ("kinds:handler", {"interface": "asgi2"}),
        ("kinds:open_ended", {"interface": "asgi3"}),
        ("kinds:wsgi", {}),
        ("kinds:handler", {"interface": "wsgi"}),
        ("kinds:make_wsgi", {"factory": True}),
        ("apps.kinds:asgi", {"dir": ""}),
    ],
)
def test_it_becomes_asgi_3(target: str, options: dict[str, Any]) -> None:
    """Whatever it is; what the settings say of it comes along."""
    app = load(target, root_path="/api", **options)
    assert isinstance(app, AsgiApp)
    assert app.name == (f"{target}()" if options.get("factory") else target)
    assert app.root_path == "/api"


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("kinds:h2log_app", {}),
        ("kinds:h2log_app", {"interface": "h2log"}),
        ("kinds:make_h2log", {"factory": True}),
    ],
)
def test_it_is_ours(target: str, options: dict[str, Any]) -> None:
    """An `h2log.App` stays what it is."""
    assert isinstance(load(target, **options), App)


EXPECTED = "expected an h2log.App, an ASGI or a WSGI application"


@pytest.mark.parametrize(
    ("target", "options", "text"),
    [
        ("kinds:number", {}, f"kinds:number is int, {EXPECTED}"),
        ("kinds:Holder", {}, f"kinds:Holder is a class without parameters, {EXPECTED}"),
        (
            "kinds:handler",
            {},
            f"kinds:handler is a function with the parameters (request), {EXPECTED}",
        ),
        (
            "kinds:coroutine",
            {},
            f"kinds:coroutine is an async function with the parameters (request), {EXPECTED}",
        ),
        (
            "kinds:make",
            {},
            f"kinds:make is a function without parameters, {EXPECTED}; "
            "if it makes the application, add --factory",
        ),
        (
            "kinds:make_async",
            {},
            f"kinds:make_async is an async function without parameters, {EXPECTED}; "
            "a factory is a plain function",
        ),
        (
            "kinds:open_ended",
            {},
            f"kinds:open_ended is a function with the parameters (*arguments), {EXPECTED}; "
            "say which with --interface",
        ),
        ("kinds:asgi", {"interface": "h2log"}, "(scope, receive, send), expected an h2log.App"),
        (
            "kinds:h2log_app",
            {"interface": "wsgi"},
            "kinds:h2log_app is an h2log.App, not a WSGI application; leave out --interface wsgi",
        ),
        ("kinds:number", {"interface": "asgi3"}, "is int, expected an ASGI 3 application"),
        ("kinds:number", {"factory": True}, "is int, expected a factory: leave out --factory"),
        (
            "kinds:asgi",
            {"factory": True},
            "kinds:asgi is an async function with the parameters (scope, receive, send); "
            "a factory is a plain function: leave out --factory",
        ),
        (
            "kinds:wsgi",
            {"factory": True},
            "(environ, start_response); a factory is called without arguments: leave out --factory",
        ),
        (
            "kinds:make_for",
            {"factory": True},
            "kinds:make_for is a function with the parameters (settings); "
            "a factory is called without arguments",
        ),
        (
            "kinds:make_async",
            {"factory": True},
            "a factory is a plain function: what has to be awaited belongs into the application's "
            "lifespan",
        ),
        (
            "kinds:make_hidden_async",
            {"factory": True},
            "kinds:make_hidden_async() is to be awaited",
        ),
        ("kinds:make_number", {"factory": True}, f"kinds:make_number() is int, {EXPECTED}"),
        ("kinds:make_nothing", {"factory": True}, "kinds:make_nothing() returned None"),
        (
            "kinds:make_failing",
            {"factory": True},
            "kinds:make_failing() failed: KeyError: 'DATABASE_URL' (",
        ),
        ("kinds:make_leaving", {"factory": True}, "kinds:make_leaving() failed: SystemExit: 3 ("),
        ("kinds:asgy", {}, "kinds has no attribute 'asgy'; did you mean 'asgi'?"),
        ("kinds:holder.iner", {}, "has no attribute 'holder.iner'; did you mean 'inner'?"),
        ("kinds:zzzzz", {}, "kinds has no attribute 'zzzzz'; there are App, "),
        ("kinds:number.app", {}, "has no attribute 'number.app'; there are "),
        ("kinds:holder.broken", {}, "cannot get kinds:holder.broken: OSError: no file (kinds.py"),
        ("kind:asgi", {}, "or name that with --app-dir"),
        (
            "apps/kinds.py:asgi",
            {"dir": ""},
            "a file is named without its ending, and with dots: apps.kinds:asgi",
        ),
        ("./apps/kinds.py:asgi", {"dir": ""}, "with dots: apps.kinds:asgi"),
        ("kinds.py:asgi", {}, "with dots: kinds:asgi"),
        ("kinds:asgi", {"dir": "nowhere"}, "no folder nowhere; name the one that has"),
    ],
)
def test_a_mistake_names_its_remedy(target: str, options: dict[str, Any], text: str) -> None:
    """What it is, what was expected, and what helps."""
    with pytest.raises(UsageError) as found:
        load(target, **options)
    message = str(found.value).replace(f"{Path.cwd()}/apps/", "")
    assert text in message
    assert "\n" not in message


def test_wsgi_needs_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the command that installs it is named."""
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(UsageError, match=r"pip install 'h2log\[wsgi\]'"):
        load("kinds:wsgi")


def test_the_folder_comes_first(folder: Path) -> None:
    """Before the working directory and what is installed."""
    (folder / "kinds.py").write_text("asgi = 7")
    assert isinstance(load("kinds:asgi"), AsgiApp)
