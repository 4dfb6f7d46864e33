"""Objects of the application's code that a text names: `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from typing import Any, Final

from h2log.errors import UsageError

__all__ = ["PREFIX", "import_object", "make_importable", "named_function", "own_error"]

PREFIX: Final = "python:"
"""What a setting begins with that names a function and is no text of its own (as Hypercorn's)."""

_MOST_NAMES: Final = 6
"""Names that are told in place of one that is not there."""


def make_importable(folder: str) -> None:
    """Have modules imported from `folder` before any other place; nothing is the working directory.

    Raises UsageError when there is no such folder.
    """
    path = os.path.abspath(folder)
    if not os.path.isdir(path):
        raise UsageError(f"no folder {folder}; name the one that has the application's modules")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if path != os.getcwd():
        sys.path[:] = [path, *(place for place in sys.path if place != path)]


def import_object(target: str, remedy: str = "run it from the folder that has it") -> Any:
    """Import what `module:attribute` names, also from the working directory.

    Raises UsageError that names what is missing, with `remedy` for a module, or where the module's
    own code failed.
    """
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"{target!r} must be MODULE:ATTR, such as myapp:app")
    make_importable("")
    spelled = _spelled(module_name, attribute)
    if module_name.startswith("."):
        raise UsageError(f"no module {module_name!r} here; {spelled or remedy}")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(f"no module {error.name!r} here; {spelled or remedy}") from None
        raise UsageError(f"cannot import {module_name}: {own_error(error)}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {module_name}: {own_error(error)}") from None
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            instead = _shadowed(module_name) or _instead(name, found)
            raise UsageError(f"{module_name} has no attribute {attribute!r}; {instead}") from None
        except (Exception, SystemExit) as error:  # of a property, or the module's __getattr__
            raise UsageError(f"cannot get {target}: {own_error(error)}") from None
    return found


def _spelled(module: str, attribute: str) -> str:
    """Return how a file's path is written as a module, nothing for what is no path."""
    plain = re.sub(r"\.py$", "", module).replace("\\", "/").removeprefix("./").replace("/", ".")
    if plain == module or not all(part.isidentifier() for part in plain.split(".")):
        return ""
    return f"a file is named without its ending, and with dots: {plain}:{attribute}"


def _shadowed(module: str) -> str:
    """Return what to do about a file of the same name as a module that Python had loaded before,
    nothing where there is none."""
    first = module.partition(".")[0]
    used = getattr(sys.modules.get(first), "__file__", None)
    for file in (os.path.join(first, "__init__.py"), f"{first}.py"):
        path = os.path.join(sys.path[0] or os.getcwd(), file)
        if os.path.isfile(path) and not (used and os.path.samefile(path, used)):
            return f"it is another module ({used or 'built in'}) than {path}: rename that"
    return ""


def _instead(name: str, found: Any) -> str:
    """Return the advice for an attribute that is not there."""
    names = [known for known in dir(found) if not known.startswith("_")]
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "it has none"
    more = ", …" if len(names) > _MOST_NAMES else ""
    return f"there are {', '.join(names[:_MOST_NAMES])}{more}"


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
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:  # its text has the file's last name alone
        return f"{kind}: {error.msg} ({error.filename}, line {error.lineno})"
    text = f"{kind}: {error}".splitlines()[0].rstrip(": ")
    frames = traceback.extract_tb(error.__traceback__)
    # Its own code: neither ours, nor the library's of Python.
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = os.path.dirname(os.__file__)
    inner = [
        f for f in frames if os.path.isabs(f.filename) and not f.filename.startswith((ours, python))
    ]
    return f"{text} ({inner[-1].filename}, line {inner[-1].lineno})" if inner else text
