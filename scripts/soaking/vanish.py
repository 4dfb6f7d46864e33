"""Clients that vanish at random points of requests to an ASGI application that awaits."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path

from h2log.server.certificates import Certificates
from tests.server.vanishing import TARGET, State, settled, state, unlogged, vanish
from tests.support import Process
from tests.workers.fleet import settings

__all__ = ["vanishing"]

CLIENTS = 5_000
"""Of each kind, with TLS and without."""
WARM = CLIENTS
"""First as many more: a process takes its memory once, and keeps it."""
MOST_WARM, MOST = 2_000, CLIENTS // 5
"""Objects more than before: what is imported and remembered, then what is bounded but not full."""
MOST_MEMORY = 4
"""MiB that an allocator may keep of five thousand clients; 1 KiB left of each would be more."""


def vanishing(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """Ten thousand clients vanish: tasks, descriptors and memory are as before, each has a line."""
    return [
        *_vanishing(folder / "cleartext", None),
        *_vanishing(folder / "tls", certs),
    ]


def _vanishing(folder: Path, certs: Certificates | None) -> list[str]:
    folder.mkdir()
    calls, access = folder / "calls", folder / "access.log"
    os.environ["VANISH_CALLS"] = str(calls)
    faults = []
    try:
        with Process(
            "run", TARGET, "--config", str(settings(folder)), certs=certs, log=access
        ) as server:
            began = time.monotonic()
            before, after, growth = asyncio.run(_measure(server))
            took = time.monotonic() - began
            if server.stop() != 0:
                faults.append("the exit code is not 0")
    finally:
        del os.environ["VANISH_CALLS"]
    lines, ends, wrong = unlogged(access, folder / "session.log", calls)
    faults += wrong
    print(f"  {folder.name}: {CLIENTS} clients in {took:.0f} s, {lines} lines: {dict(ends)}")
    print(f"  before {before}, after {after}, memory {growth:+.1f} MiB")
    for name in ("tasks", "descriptors"):
        if after[name] != before[name]:
            faults.append(f"{folder.name}: {after[name]} {name}, {before[name]} before")
    if after["objects"] - before["objects"] > MOST:
        faults.append(f"{folder.name}: {after['objects'] - before['objects']} objects are left")
    if growth > MOST_MEMORY:
        faults.append(f"{folder.name}: {growth:.1f} MiB of memory are left")
    return faults


async def _measure(server: Process) -> tuple[State, State, float]:
    """Return what there is before and after, and the MiB of memory that are left."""
    first = await state(server)
    await vanish(server, WARM, seed=1)
    before = await settled(server, first, MOST_WARM)
    memory = server.resident()
    await vanish(server, CLIENTS, seed=2)
    after = await settled(server, before, MOST)
    return before, after, (server.resident() - memory) / (1 << 20)
