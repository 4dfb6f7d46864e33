"""How a process of ours begins: `python -m h2log.workers.begin MODULE DESCRIPTOR`."""

from __future__ import annotations

import gc
import signal
import sys
from importlib import import_module


def main() -> None:
    """Load the module, and call its `main` with the descriptor as the only argument."""
    # A terminal's Ctrl-C, and whoever signals the group, mean the supervisor: it says what is to be
    # done. Whoever ended of itself while it loads would look like one that failed.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU"):
        signal.signal(getattr(signal, name), lambda number, at: None)
    # What is loaded now stays: to look through it again and again would be a tenth of a start.
    gc.set_threshold(5_000, 20, 20)
    import_module(sys.argv.pop(1)).main()


if __name__ == "__main__":
    main()
