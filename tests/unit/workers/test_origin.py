"""The client that a proxy told is told on, from the process that serves to the one that logs."""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from h2log.access.record import AccessRecord, Origin, Session
from h2log.id_source import new_id
from h2log.workers.facts import (
    lost_record,
    open_request,
    open_session,
    request_of_entry,
    session_of,
    session_of_entry,
)
from h2log.workers.journal import Journal, left_behind, new_journal
from h2log.workers.messages import OpenRequest, OpenSession

TOLD = Origin(("192.0.2.1", 4711), "https", "a.example")


class Facts(NamedTuple):
    """What was asked."""

    method: str = "GET"
    path: str = "/"
    scheme: str = "http"
    authority: str = "localhost"
    fields: tuple[tuple[bytes, bytes], ...] = ()


def record(origin: Origin | None) -> AccessRecord:
    """Return the record of a request that was opened."""
    session = Session(new_id(), "10.0.0.1", 1234, 0.0, lambda record: None)
    made = AccessRecord(session, Facts(), new_id(), 1, 0.0, 0.0)
    made.origin = origin
    return made


def test_a_request_that_was_told_of() -> None:
    """Its line has the client, and the session's has the proxy; without an origin, the peer."""
    for origin in (TOLD, None):
        opened = record(origin)
        request = msgspec.msgpack.decode(
            msgspec.msgpack.encode(open_request(opened)), type=OpenRequest
        )
        session = session_of(
            msgspec.msgpack.decode(
                msgspec.msgpack.encode(open_session(opened.session)), type=OpenSession
            )
        )
        lost = lost_record(request, session, 1.0)
        assert lost.client == (("10.0.0.1", 1234) if origin is None else ("192.0.2.1", 4711))
        assert session.client == "10.0.0.1"
        assert opened.opening().client == opened.client


def test_a_request_that_was_only_in_the_journal() -> None:
    """Its line has the client, whether anybody has told of its session or not."""
    page = new_journal()
    try:
        journal = Journal(page)
        told, plain = record(TOLD), record(None)
        assert journal.open(told) and journal.open(plain)
        first, second = left_behind(page).entries
        unknown = session_of_entry(first, 0.0, 0.0)
        assert lost_record(request_of_entry(first, 0.0, 0.0), unknown, 1.0).client[0] == "192.0.2.1"
        known = lost_record(request_of_entry(first, 0.0, 0.0), told.session, 1.0)
        assert known.client == ("192.0.2.1", 0)
        usual = lost_record(request_of_entry(second, 0.0, 0.0), plain.session, 1.0)
        assert usual.client == ("10.0.0.1", 1234)
    finally:
        os.close(page)
