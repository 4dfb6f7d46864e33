"""Process 1 of a container waits for those that nobody else waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from h2log.workers.children import Orphans
from tests.support import poll


def ended(pid: int) -> bool:
    """Say whether a process has ended and is still to be waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_orphans_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second look; those of our own are left to who has started them."""
    orphan, own = (subprocess.Popen(["true"]) for _ in range(2))
    poll(lambda: ended(orphan.pid) and ended(own.pid))
    orphans = Orphans()
    orphans.look({own.pid})
    orphans.look({own.pid})
    assert ended(orphan.pid)  # we are no process 1
    monkeypatch.setattr(os, "getpid", lambda: 1)
    orphans.look({own.pid})
    assert ended(orphan.pid)
    orphans.look({own.pid})
    assert not Path(f"/proc/{orphan.pid}").exists()
    assert own.wait() == 0
    assert orphan.wait() == 0  # nobody knows any more
