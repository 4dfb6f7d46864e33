"""The end of the owner of the log, while it reads nothing from the workers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import h2log.workers.owner as owner_module
from h2log.config import build
from h2log.workers.channel import Channel, frame, pair
from h2log.workers.journal import Journal, new_journal
from h2log.workers.messages import (
    Close,
    Configure,
    Connect,
    Dead,
    Hello,
    Hold,
    Span,
    Turn,
    encode,
    from_owner,
)
from h2log.workers.owner import Owner


async def test_what_was_not_read_is_read_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has sent is written, and what it had not sent is counted."""
    monkeypatch.setattr(owner_module, "_LAST_LOOK", 0.05)
    log = tmp_path / "access.log"
    settings = build(
        {"log": {"access": [{"path": str(log)}], "app": {"path": str(tmp_path / "app.log")}}},
        "a test",
    )
    ours, theirs = pair()
    to_worker, of_worker = pair()
    page = new_journal()
    Journal(page).finished(5)
    control = Channel(ours, from_owner, lambda message, _: None, lambda: None)
    orders = (Configure(1, settings.log, False), Hold(), Dead(3, "killed"), Close())
    control.send(frame(encode(orders[0])))
    control.send(frame(encode(Connect(3, 1)), 2), [to_worker.fileno(), page])
    for order in orders[1:]:
        control.send(frame(encode(order)))
    of_worker.send(frame(encode(Hello(0, [], [], 0))))
    of_worker.send(frame(encode(Turn(1, 2, [Span(0, 2, 1, 2, b"a\nb\n")], [], [], [], [], []))))
    assert not await asyncio.wait_for(Owner(theirs).run(), 10.0)
    control.close()
    for end in (to_worker, of_worker):
        end.close()
    os.close(page)
    [*lines, note] = log.read_text().splitlines()
    assert lines == ["a", "b"]
    assert note.startswith("#lost worker=3 lines=3 seq=3-5 ")
