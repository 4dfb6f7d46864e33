"""Sessions and requests on their way from the process that serves them to the one that logs."""

from __future__ import annotations

from typing import NamedTuple

from h2log.access.record import AccessRecord, Origin, Outcome, Session, TlsFacts
from h2log.workers.journal import Ending, Entry
from h2log.workers.messages import OpenRequest, OpenSession, Progress

__all__ = [
    "advance",
    "lost_record",
    "open_request",
    "open_session",
    "progress",
    "request_of_entry",
    "session_of",
    "session_of_entry",
]


class _Facts(NamedTuple):
    """`RequestFacts`, as they arrived."""

    method: str
    path: str
    scheme: str
    authority: str
    fields: tuple[tuple[bytes, bytes], ...]


def open_session(session: Session) -> OpenSession:
    """Return what another process has to know of a session."""
    tls = session.tls
    return OpenSession(
        session.id,
        session.client,
        session.port,
        session.wall,
        session.opened,
        session.protocol,
        session.alpn,
        None if tls is None else (tls.version, tls.cipher, tls.sni, tls.resumed),
    )


def open_request(record: AccessRecord) -> OpenRequest:
    """Return what another process has to know of an open request."""
    facts = record.facts
    return OpenRequest(
        record.session.id,
        record.id,
        record.stream_id,
        record.wall,
        record.start,
        facts.method,
        facts.path,
        facts.scheme,
        facts.authority,
        facts.fields,
        record.header_received,
        record.nth,
        record.active,
        record.origin,
    )


def progress(session: Session) -> Progress:
    """Return what a session has come to."""
    return Progress(
        session.id,
        session.requests,
        session.finished,
        {outcome.value: count for outcome, count in session.failures.items()},
        session.peak,
        session.received,
        session.sent,
        session.last_stream_id,
    )


def _nobody(record: AccessRecord) -> None:
    """The sink of a session that has ended."""


def session_of(told: OpenSession) -> Session:
    """Return the session that was told of."""
    session = Session(told.id, told.client, told.port, told.wall, _nobody, told.opened)
    session.protocol = told.protocol
    session.alpn = told.alpn
    session.tls = None if told.tls is None else TlsFacts(*told.tls)
    return session


def advance(session: Session, told: Progress) -> None:
    """Bring a session to where it has come."""
    session.requests = told.requests
    session.finished = told.finished
    session.failures = {Outcome(name): count for name, count in told.failures.items()}
    session.peak = told.peak
    session.received = told.received
    session.sent = told.sent
    session.last_stream_id = told.last_stream


def session_of_entry(entry: Entry, wall: float, now: float) -> Session:
    """Return the session of a request in a journal, of which nobody has told."""
    session = Session(entry.session, entry.client, 0, _made(entry.session), _nobody)
    session.opened = now - max(0.0, wall - session.wall)
    session.protocol = entry.protocol
    return session


def request_of_entry(entry: Entry, wall: float, now: float) -> OpenRequest:
    """Return the request of a journal's entry; `wall` and `now` are the two clocks."""
    made = _made(entry.id)
    start = now - max(0.0, wall - made)
    path = entry.path
    return OpenRequest(
        entry.session, entry.id, entry.stream, made, start, entry.method, path, "", "", (), 0, 0, 1,
        ((entry.client, 0), "", ""),
    )  # fmt: skip


def _made(identifier: str) -> float:
    """Return the epoch time in an id (RFC 9562 section 5.7)."""
    return int(identifier[:12], 16) / 1000


def lost_record(
    told: OpenRequest, session: Session, now: float, ending: Ending | None = None
) -> AccessRecord:
    """Return the record of a request whose worker was lost at `now`.

    `ending` is how it had ended before that, if it had: then that is its outcome. Fields of the
    response and times within the request are not known.
    """
    requests = session.requests
    facts = _Facts(told.method, told.path, told.scheme, told.authority, told.fields)
    record = AccessRecord(session, facts, told.id, told.stream, told.wall, told.start)
    session.requests = max(requests, told.nth)
    session.finished += 1
    outcome = Outcome.WORKER_LOST if ending is None else ending.outcome
    if outcome is not Outcome.COMPLETE:
        session.failures[outcome] = session.failures.get(outcome, 0) + 1
    record.nth = told.nth or session.requests
    record.active = told.active
    record.header_received = told.header_received
    if told.origin is not None and told.origin[0][0] != session.client:
        record.origin = Origin(*told.origin)
    record.end = max(now, told.start)
    record.outcome = record.verdict = outcome
    if ending is not None:
        record.status, record.received, record.sent = ending.status, ending.received, ending.sent
        record.header_sent, record.end = ending.header_sent, max(ending.end, told.start)
    return record
