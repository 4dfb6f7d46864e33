"""Objects of the application's code that a text names: `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any, Final

from h2log.errors import UsageError

__all__ = ["PREFIX", "import_object", "named_function", "own_error"]

PREFIX: Final = "python:"
"""What a setting begins with that names a function and is no text of its own (as Hypercorn's)."""


def import_object(target: str) -> Any:
    """Import what `module:attribute` names, also from the working directory.

    Raises UsageError that names what is missing, or where the module's own code failed.
    """
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"{target!r} must be MODULE:ATTR, such as myapp:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"no module {error.name!r} here; run it from the folder that has it"
            ) from None
        raise UsageError(f"cannot import {module_name}: {own_error(error)}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {module_name}: {own_error(error)}") from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{module_name} has no attribute {attribute!r}")
        found = getattr(found, name)
    return found


def named_function(text: str) -> Any:
    """Return the function that `python:module:attribute` names, None for any other text.

    Raises UsageError as `import_object`, and for what cannot be called.
    """
    if not text.startswith(PREFIX):
        return None
    target = text.removeprefix(PREFIX)
    found = import_object(target)
    if not callable(found):
        raise UsageError(f"{target} is {type(found).__name__}, expected a function of a record")
    return found


def own_error(error: BaseException) -> str:
    """Return an exception of the application's code as one line with its place."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    # Its own code: neither ours, nor the library's of Python.
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = os.path.dirname(os.__file__)
    inner = [
        f for f in frames if os.path.isabs(f.filename) and not f.filename.startswith((ours, python))
    ]
    return f"{text} ({inner[-1].filename}, line {inner[-1].lineno})" if inner else text
