"""What a client sends ahead over HTTP/1.1 waits with the client, and not in memory."""

from __future__ import annotations

import asyncio

import pytest

from h2log.access.record import AccessRecord, Outcome, Session
from h2log.clock import monotonic
from h2log.server.dispatch import Dispatcher
from h2log.server.http1_leg import Http1Leg
from h2log.server.session import READ_SIZE, Shared
from tests.server.http1_conversation import Line, answering, limits_of

NOW = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = b"GET /later?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 2000)
CHUNKED = (
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7d0\r\n%b\r\n0\r\n\r\n" % (b"x" * 2000)
)


def connected() -> tuple[Http1Leg, Line, list[AccessRecord]]:
    """Return the leg of a new connection, its transport, and the records that it makes."""
    records: list[AccessRecord] = []
    shared = Shared(Dispatcher(answering()), limits_of(), records.append)
    session = Session("0" * 32, "192.0.2.1", 1, 0.0, records.append, monotonic())
    shared.accepted(session)
    line = Line()
    leg = Http1Leg(session, shared, secure=False)
    leg.connection_made(line)
    return leg, line, records


@pytest.mark.parametrize(
    "request_",
    [PLAIN, PLAIN.replace(b"\r\n", b"\n"), CHUNKED],
    ids=["plain", "by h11", "with content"],
)
async def test_requests_sent_ahead_are_not_read_without_end(request_: bytes) -> None:
    """Where each takes a task's turn, no more is read than two reads; all are answered."""
    leg, line, records = connected()
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


async def test_many_requests_at_once_take_turns_with_other_connections() -> None:
    """A part of one read is answered at once, the rest in later turns, and nothing read before."""
    leg, line, records = connected()
    leg.data_received(NOW * 1000)
    taken = len(records)
    assert 0 < taken < 300
    leg.data_received(b"x" * READ_SIZE)
    assert len(records) == taken and line.paused
    seen = [taken]
    while len(records) < 1000:
        await asyncio.sleep(0)
        seen.append(len(records))
        assert seen[-1] - seen[-2] < 300
    assert b"".join(line.writes).count(b"HTTP/1.1 200 OK") == 1000
    leg.connection_lost(None)


async def test_what_came_before_the_end_of_a_stream_is_answered() -> None:
    """As far as it can be at once: a client that says no more may still read."""
    leg, _, records = connected()
    leg.data_received(NOW * 1000)
    assert not leg.eof_received()
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * 1000
    leg.connection_lost(None)


async def test_a_peer_that_leaves_before_its_turn_has_one_line_more() -> None:
    """Of requests that were not taken up yet, the next one is told of."""
    leg, _, records = connected()
    leg.data_received(NOW * 1000)
    taken = len(records)
    leg.connection_lost(None)
    await asyncio.sleep(0)
    assert [record.outcome for record in records[taken:]] == [Outcome.PEER_LOST]
