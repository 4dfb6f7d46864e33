"""The requests of an HTTP/1.1 connection as the log and the handlers know them."""

from __future__ import annotations

from h2log.access.exchange import Exchange
from h2log.access.record import Session
from h2log.app.conditional import CONDITIONS
from h2log.app.files.negotiation import wish
from h2log.app.request import Request
from h2log.clock import monotonic, wall
from h2log.id_source import new_id
from h2log.server.content import ContentBuffer
from h2log.server.http1_head import FieldFacts, Http1Head
from h2log.server.http1_output import Http1Output, response_lines
from h2log.server.reply import Reply
from h2log.server.session import Shared

__all__ = ["begun_exchange", "handler_request", "open_exchange", "send_kept"]


def open_exchange(head: Http1Head, session: Session, shared: Shared) -> Exchange:
    """Open the exchange of a request whose header is complete."""
    stamp = wall()
    exchange = Exchange(session, head, new_id(stamp), session.requests + 1, stamp, monotonic())
    exchange.header_received = head.size
    session.peak = 1
    proxies = shared.proxies
    if proxies is not None:
        exchange.origin = proxies.of(session, head.fields, head.scheme)
    if session.opening is not None:
        exchange.announce()
    return exchange


def begun_exchange(first_line: bytes, session: Session, scheme: str) -> Exchange:
    """Open the exchange of a request whose header never came to be, but for its first line."""
    parts = first_line.split(b"\n", 1)[0].rstrip(b"\r").split(b" ")
    method, target = (parts[0], parts[1]) if len(parts) > 1 else (b"", b"")
    session.protocol = "1.0" if parts[2:] == [b"HTTP/1.0"] else "1.1"
    head = Http1Head(method.decode("latin-1"), target.decode("latin-1"), scheme, "", FieldFacts(()))
    exchange = Exchange(session, head, new_id(), session.requests + 1, wall(), monotonic())
    exchange.announce()
    session.peak = 1
    return exchange


def handler_request(
    head: Http1Head, exchange: Exchange, reply: Reply, content: ContentBuffer | None
) -> Request:
    """Return a request as handlers of an `App` are given it."""
    origin = exchange.origin
    return Request(
        method=head.method,
        target=head.path,
        scheme=head.scheme if origin is None else origin.scheme,
        authority=head.authority if origin is None else origin.host or head.authority,
        fields=head.fields,
        client=exchange.client,
        session_id=exchange.session.id,
        request_id=exchange.id,
        content=content,
        interim=reply.interim,
    )


def send_kept(head: Http1Head, exchange: Exchange, shared: Shared, output: Http1Output) -> bool:
    """Answer a GET with a file that is kept in memory, if that is all that is asked for."""
    facts = head.facts
    wished: str | None = facts.memo
    if wished is None:
        wished = facts.memo = _plain_wish(facts, head.scheme)
    if exchange.origin is not None:
        wished = _plain_wish(facts, exchange.origin.scheme)
    if not wished:
        return False
    path: str | None = head.memo
    if path is None:
        path = head.memo = head.path.partition("?")[0]
    response = shared.dispatcher.kept(path, exchange.start, wished)
    if response is None:
        return False
    body = response.body
    assert isinstance(body, bytes)
    lines: bytes | None = response.wire1
    if lines is None:
        lines, declared = response_lines(response, trailing=False)
        if declared is None:
            lines += b"content-length: %d\r\n" % len(body)
        response.wire1 = lines
    section = b"%b%b\r\n\r\n" % (lines, output.tail(exchange))
    exchange.status = response.status
    exchange.sent = len(body)
    exchange.header_sent = len(section)
    exchange.response = response
    exchange.cache = "hit"
    output.add(section, body)
    output.complete(exchange)
    return True


def _plain_wish(facts: FieldFacts, scheme: str) -> str:
    """Return the wish of a GET whose fields ask for a whole file, nothing for any other."""
    if facts.length or any(name in CONDITIONS for name, _ in facts.fields):
        return ""
    return wish(scheme, facts.fields)
