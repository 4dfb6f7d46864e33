"""The package's public names, and what its processes load for what they do."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module

import pytest

import h2log


def test_every_public_name_is_there() -> None:
    """Each comes from where type checkers see it, and `dir` tells of all."""
    told: dict[str, str] = {}
    for node in ast.walk(ast.parse(inspect.getsource(h2log))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("h2log."):
            told |= {alias.name: str(node.module) for alias in node.names}
    assert told == {name: f"h2log.{place}" for name, place in h2log._PLACES.items()}
    assert sorted(told) == sorted(h2log.__all__)
    for name, module in told.items():
        assert getattr(h2log, name) is getattr(import_module(module), name)
    assert set(told) <= set(dir(h2log))


def test_no_other_name_is_there() -> None:
    """What is asked for wrongly is told as of any module."""
    with pytest.raises(AttributeError, match=r"^module 'h2log' has no attribute 'Application'$"):
        h2log.Application  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Application'"):
        from h2log import Application  # noqa: F401


def test_who_serves_nobody_loads_nothing_that_serves() -> None:
    """The supervisor and the owner of the log do without the application and the protocols."""
    program = (
        "import sys, h2log.workers.supervisor, h2log.workers.owner, h2log.cli.run\n"
        "print(*sorted(name for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "h2log.workers.owner" in loaded
    others = {"cryptography", "email.utils", "h11", "rich", "uuid6", "wsproto"}
    ours = {"h2log.app.application", "h2log.http2.connection", "h2log.server.server"}
    assert not loaded & (others | ours)
