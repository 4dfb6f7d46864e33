"""How a process of ours begins: `python -m h2log.workers.begin MODULE DESCRIPTOR`."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def main() -> None:
    """Load the module, and call its `main` with the descriptor as the only argument."""
    # What is loaded now stays: to look through it again and again would be a tenth of a start.
    gc.set_threshold(5_000, 20, 20)
    import_module(sys.argv.pop(1)).main()


if __name__ == "__main__":
    main()
