"""The layering of the package, read from the syntax trees: see `FLOORS`."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "h2log"

# A module imports only from floors below its own, or from its own room without a circle.
FLOORS: dict[str, int] = {
    "errors": 0,
    "ids": 0,
    "id_source": 0,
    "clock": 0,
    "config": 1,
    "http2": 2,
    "access": 2,
    "app": 2,
    "logfile": 3,
    "server": 4,
    "workers": 5,
    "reader": 5,
    "integrations": 5,
    "asgi": 6,  # public names, as the package itself has them
    "cli": 6,
    "__main__": 7,  # nothing but a call of the command line
    "__init__": 6,
}
MAY_IMPORT_ASYNCIO = {"server", "workers", "logfile", "reader", "integrations"}
MAY_IMPORT_ASYNCIO_FILES = {"h2log.app.asgi", "h2log.app.lifespan"}
# Each is optional at run time: whoever uses one imports it when it is used.
BARRED = {"http2": {"socket", "ssl", "time", "asyncio"}, "access": {"socket", "ssl", "asyncio"}}


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name (examples are programs, not rooms)."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "examples" in parts:
            continue
        found[".".join(parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """Return the room of a module: the folder or file right below the package."""
    return module.split(".")[1]


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports, also inside functions.

    Imports under `if TYPE_CHECKING` count too: a type is knowledge of another floor.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return frozenset(names)


def own_module(name: str) -> str | None:
    """Return the module of this package that an imported name means, if any."""
    if name in MODULES:
        return name
    if f"{name}.__init__" in MODULES:
        return f"{name}.__init__"
    return None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_from_below(module: str) -> None:
    """A module imports from lower floors and its own room; rooms of one floor are strangers."""
    mine = room(module)
    assert mine in FLOORS, f"{module}: this room is not on the plan"
    for name in imports(MODULES[module]):
        if not name.startswith("h2log"):
            continue
        target = own_module(name)
        assert target is not None, f"{module} imports {name}, which is not there"
        theirs = room(target)
        if theirs != mine:
            assert FLOORS[theirs] < FLOORS[mine], f"{module} reaches up or across to {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_input_output_stays_upstairs(module: str) -> None:
    """Only the rooms that do I/O import asyncio; the engine has no clock and no sockets."""
    names = {name.split(".")[0] for name in imports(MODULES[module])}
    if room(module) not in MAY_IMPORT_ASYNCIO and module not in MAY_IMPORT_ASYNCIO_FILES:
        assert not names & {"asyncio", "uvloop"}, f"{module} must not import asyncio"
    assert not names & BARRED.get(room(module), set())


def test_no_circles() -> None:
    """No chain of imports leads back to where it began."""
    graph = {
        module: {t for name in imports(path) if (t := own_module(name)) is not None}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
