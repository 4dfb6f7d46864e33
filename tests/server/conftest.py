"""On which loop the tests of the server run: uvloop, as the command does, unless a test asks.

`@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])` runs a test on both.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
FACTORIES: Mapping[str, LoopFactory] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Return the loops that `item` may name; all of them are used when it names none."""
    marker = item.get_closest_marker("asyncio")
    if marker is not None and marker.kwargs.get("loop_factories"):
        return FACTORIES
    return {"uvloop": FACTORIES["uvloop"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
