"""How a process of ours begins: `python -m h2log.workers.begin MODULE DESCRIPTOR`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from typing import Any

_PACKAGES = ("site-packages", "dist-packages")


def _load(name: str) -> Any:
    """Load a module of ours, and whatever it needs, from where Python and packages are.

    The application's folders, which come first in the path, may have an `email.py` of their own.
    """
    python = os.path.dirname(os.__file__)

    def is_theirs(place: str) -> bool:
        return not place.startswith(python) and os.path.basename(place) not in _PACKAGES

    before = sys.path[:]
    sys.path.sort(key=is_theirs)
    module = import_module(name)
    sys.path[:] = before
    return module


def main() -> None:
    """Load the module, and call its `main` with the descriptor as the only argument."""
    # A terminal's Ctrl-C, and whoever signals the group, mean the supervisor: it says what is to be
    # done. Whoever ended of itself while it loads would look like one that failed.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU"):
        signal.signal(getattr(signal, name), lambda number, at: None)
    # What is loaded now stays: to look through it again and again would be a tenth of a start.
    gc.set_threshold(5_000, 20, 20)
    _load(sys.argv.pop(1)).main()


if __name__ == "__main__":
    main()
