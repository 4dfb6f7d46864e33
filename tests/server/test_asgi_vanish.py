"""A thousand clients vanish from an ASGI application that awaits: nothing of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.server.vanishing import TARGET, settled, state, unlogged, vanish
from tests.support import Process
from tests.workers.fleet import settings

CLIENTS = 500
WARM = 150
"""Clients before it is looked at what there is: what is remembered for good is so by then."""
MOST_WARM, MOST = 1_000, CLIENTS // 5
"""How many objects more may be there, first of what is imported and remembered, then of what is
bounded but not full. Whatever a client leaves behind is one for each of them.
"""


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
async def test_nothing_is_left(
    tls: bool, certs: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks, descriptors and objects return to where they were; every request has its line."""
    calls = tmp_path / "calls"
    monkeypatch.setenv("VANISH_CALLS", str(calls))
    config = str(settings(tmp_path))
    access = tmp_path / "access.log"
    with Process(
        "run", TARGET, "--config", config, certs=certs if tls else None, log=access
    ) as server:
        first = await state(server)
        await vanish(server, WARM, seed=1)
        before = await settled(server, first, MOST_WARM)
        await vanish(server, CLIENTS, seed=2)
        after = await settled(server, before, MOST)
        assert server.stop() == 0
    lines, ends, faults = unlogged(access, tmp_path / "session.log", calls)
    assert not faults
    assert lines > CLIENTS // 2
    assert {"CLIENT_RESET", "PEER_LOST", "COMPLETE"} <= set(ends)
    assert "HANDLER_ERROR" not in ends
    assert after["tasks"] == before["tasks"] == first["tasks"]
    assert after["descriptors"] == before["descriptors"] == first["descriptors"]
    assert after["objects"] - before["objects"] <= MOST
