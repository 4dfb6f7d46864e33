"""The first moments of the supervisor's processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import sys
print("importing", flush=True)
sys.stdin.readline()

def main():
    print(sys.argv[1:], sys.path[0], flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGTTIN"])
def test_what_is_meant_for_the_group_ends_nobody(tmp_path: Path, name: str) -> None:
    """A process that is about to begin leaves signals to the supervisor."""
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, "-m", "h2log.workers.begin", "slow", "17"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(getattr(signal, name))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == f"['17'] {tmp_path}\n"
        assert process.wait() == 0
