"""What a client sends ahead over HTTP/1.1 waits with the client, and not in memory."""

from __future__ import annotations

import asyncio

import pytest

from h2log.access.record import AccessRecord, Session
from h2log.clock import monotonic
from h2log.server.dispatch import Dispatcher
from h2log.server.http1_leg import Http1Leg
from h2log.server.session import READ_SIZE, Shared
from tests.server.http1_conversation import Line, answering, limits_of

PLAIN = b"GET /later?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 2000)
CHUNKED = (
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7d0\r\n%b\r\n0\r\n\r\n" % (b"x" * 2000)
)


@pytest.mark.parametrize(
    "request_",
    [PLAIN, PLAIN.replace(b"\r\n", b"\n"), CHUNKED],
    ids=["plain", "by h11", "with content"],
)
async def test_requests_sent_ahead_are_not_read_without_end(request_: bytes) -> None:
    """Where each takes a task's turn, no more is read than two reads; all are answered."""
    records: list[AccessRecord] = []
    shared = Shared(Dispatcher(answering()), limits_of(), records.append)
    session = Session("0" * 32, "192.0.2.1", 1, 0.0, records.append, monotonic())
    shared.accepted(session)
    line = Line()
    leg = Http1Leg(session, shared, secure=False)
    leg.connection_made(line)
    count = 10 * READ_SIZE // len(request_)
    rest = request_ * count
    most = turns = 0
    while len(records) < count and turns < 20 * count:
        if rest and not line.paused:
            leg.data_received(rest[:READ_SIZE])
            rest = rest[READ_SIZE:]
        most = max(most, leg._reader.ahead)
        await asyncio.sleep(0)
        turns += 1
    assert len(records) == count and not rest
    assert most <= 2 * READ_SIZE
    leg.connection_lost(None)
