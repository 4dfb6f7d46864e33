"""A connection of HTTP/2 whose reads take long has turns with the others."""

from __future__ import annotations

import asyncio

import pytest

from h2log.access.record import AccessRecord, Session
from h2log.clock import monotonic
from h2log.http2.settings import EngineLimits
from h2log.server import http2_wire
from h2log.server.dispatch import Dispatcher
from h2log.server.http2_leg import Http2Leg
from h2log.server.session import READ_SIZE, Shared
from tests.protocol.frames import PREFACE, settings
from tests.server.http1_conversation import Line, answering, limits_of


@pytest.mark.parametrize(("long", "size"), [(0.0, READ_SIZE), (0.0, 1000), (60.0, READ_SIZE)])
async def test_nothing_more_is_read_in_a_turn_that_was_long(
    monkeypatch: pytest.MonkeyPatch, long: float, size: int
) -> None:
    """After a full read that took long; in the next turn of the loop reading goes on."""
    monkeypatch.setattr(http2_wire, "_LONG", long)
    records: list[AccessRecord] = []
    shared = Shared(Dispatcher(answering()), limits_of(), records.append)
    session = Session("0" * 32, "192.0.2.1", 1, 0.0, records.append, monotonic())
    shared.accepted(session)
    line = Line()
    leg = Http2Leg(session, shared, EngineLimits())
    leg.connection_made(line)
    data = PREFACE + settings() + settings() * 20
    shared.buffer[:size] = (data + bytes(READ_SIZE))[:size]
    leg.buffer_updated(size)
    assert line.paused == (size == READ_SIZE and not long)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not line.paused
    leg.connection_lost(None)
