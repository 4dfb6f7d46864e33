"""Numbers that another server keeps to itself, in every format."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from h2log.access.exchange import Exchange
from h2log.access.formats import NAMES, compile
from h2log.access.readback import parse_line
from h2log.access.record import UNKNOWN, Outcome, Session


@dataclass
class Asked:
    """The facts of a request."""

    method: str = "GET"
    path: str = "/unknown"
    scheme: str = "https"
    authority: str = "example.org"
    fields: tuple[tuple[bytes, bytes], ...] = ()


def exchange(stream_id: int) -> Exchange:
    """Return a request of which a server tells little."""
    session = Session("0" * 32, "", 0, 1_700_000_000.0, lambda record: None)
    session.protocol = "h3"
    made = Exchange(session, Asked(), "1" * 32, stream_id, 1_700_000_000.0, 10.0)
    made.header_received = made.header_sent = UNKNOWN
    detail = made.details()
    detail.stalled = detail.blocked = UNKNOWN
    made.finish(Outcome.PEER_LOST, 10.25)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_no_line_has_minus_one(name: str) -> None:
    """They are `-`, or left out."""
    line = compile(name)(exchange(UNKNOWN))
    assert "-1" not in line.replace("2023-11-1", ""), line
    assert "1000.000" not in line


def test_tokens() -> None:
    """So in a format of one's own."""
    line = compile(":stream :header-bytes-received :header-bytes-sent :stall :blocked :remote-addr")
    assert line(exchange(UNKNOWN)) == "- - - - - -\n"


@pytest.mark.parametrize("name", ["h2log-full", "json", "ecs"])
def test_the_first_stream_of_http3_is_known(name: str) -> None:
    """It is 0, and not the one that is not known."""
    line = compile(name)
    assert parse_line(name, line(exchange(0)).rstrip()).stream == 0
    assert parse_line(name, line(exchange(UNKNOWN)).rstrip()).stream is None
