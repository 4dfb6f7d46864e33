"""A line at a request's arrival: what is known then, marked as such, and nothing of an end."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2log.access import NAMES, compile, parse_line
from h2log.access.exchange import Exchange
from h2log.access.full import FULL_COLUMNS
from h2log.access.parsed import OF_AN_END
from h2log.access.record import AccessRecord, Outcome, Session
from h2log.access.skip import compile_skip
from tests.access.records import REQUEST, SESSION, Answer, Facts, basic, record, varied

TOLD = ("h2log", "h2log-full", "json", "ecs", "caddy")
"""Formats that tell a request's arrival from its end."""


def finished() -> AccessRecord:
    """Return a record of which everything is known."""
    made = record(
        Facts(
            "POST", "/a?b=c", fields=((b"authorization", basic(b"jo")), (b"user-agent", b"curl"))
        ),
        answer=Answer([("content-type", "text/html")], 6213),
        outcome=Outcome.CLIENT_RESET,
        took=0.5,
        sent=100,
        received=10,
        header_sent=50,
        header_received=40,
        active=3,
        sequence=9,
        stream_id=5,
        cache="hit",
        condition="etag",
        verdict=Outcome.HANDLER_ERROR,
        detail={"stalled": 0.25, "route": "/a", "reset_by": "client", "reset_code": 8},
    )
    made.nth = 2
    return made


def test_an_opening_has_what_was_known_then() -> None:
    """The request, its ids and its place in the session; no response, no outcome, no time."""
    made = finished()
    opened = made.opening()
    assert (opened.session, opened.facts, opened.id) == (made.session, made.facts, REQUEST)
    assert (opened.stream_id, opened.nth, opened.active) == (5, 2, 3)
    assert (opened.wall, opened.start, opened.end) == (made.wall, made.start, made.start)
    assert opened.header_received == 40
    assert (opened.status, opened.received, opened.sent, opened.header_sent) == (0, 0, 0, 0)
    assert (opened.response, opened.detail, opened.outcome) == (None, None, None)
    assert (opened.cache, opened.condition, opened.sequence) == ("", "", 0)
    assert opened.verdict is Outcome.COMPLETE
    assert opened.milliseconds == 0.0
    assert opened.headers_milliseconds is None
    assert opened.first_byte_milliseconds is None


def test_an_opening_has_every_field_of_a_record() -> None:
    """None was forgotten, whatever is added to a record."""
    opened = finished().opening()
    for name in AccessRecord.__slots__:
        getattr(opened, name)


def test_an_opening_stays_as_it_is() -> None:
    """The request goes on and ends; the session counts it once, and the log is given it once."""
    ended: list[AccessRecord] = []
    session = Session(SESSION, "192.0.2.1", 40000, 1e9, ended.append)
    exchange = Exchange(session, Facts(), REQUEST, 1, 1e9, 10.0)
    opened = exchange.opening()
    assert type(opened) is AccessRecord
    exchange.details().route = "/a"
    exchange.status, exchange.sent, exchange.response = 200, 5, Answer()
    exchange.sequence = 7
    assert exchange.finish(Outcome.COMPLETE, 11.0)
    assert (opened.outcome, opened.status, opened.sent, opened.end) == (None, 0, 0, 10.0)
    assert (opened.detail, opened.response, opened.sequence) == (None, None, 0)
    opened.sequence = 1
    assert (exchange.sequence, session.requests, session.finished) == (7, 1, 1)
    assert ended == [exchange]


def test_the_default_line_has_no_milliseconds() -> None:
    """A request that has ended always has: the dash is the mark."""
    line = compile("h2log")(finished().opening())
    assert line == f"2026-11-20T13:31:59.125+00:00\t-\t-\t{SESSION}\t{REQUEST}\th2\t/a?b=c\n"
    read = parse_line("h2log", line[:-1])
    assert (read.event, read.status, read.milliseconds) == ("open", None, None)
    lost = record(status=0, outcome=Outcome.PEER_LOST)
    assert parse_line("h2log", compile("h2log")(lost)[:-1]).event == "done"


def test_the_full_line_has_a_dash_for_all_of_an_end() -> None:
    """And for nothing else that is known."""
    opened = finished().opening()
    opened.sequence = 4
    line = compile("h2log-full")(opened)[:-1]
    columns = dict(zip(FULL_COLUMNS, line.split("\t"), strict=True))
    ends = {
        *("status", "milliseconds", "outcome", "headers-ms", "first-byte-ms", "stalled-ms"),
        *("blocked-ms", "bytes-received", "bytes-sent", "header-bytes-sent", "route", "cache"),
        *("condition", "reset-by", "reset-code"),
    }
    assert {columns[name] for name in ends} == {"-"}
    assert (columns["sequence"], columns["stream"], columns["active"]) == ("4", "5", "3")
    assert (columns["header-bytes-received"], columns["user"]) == ("40", "jo")


def test_objects_leave_an_end_out() -> None:
    """`json` and `ecs` mark it by a member, `caddy` by its message."""
    opened = finished().opening()
    told = json.loads(compile("json")(opened))
    assert told["h2log.immediate"] is True
    assert not {key for key in told if "response" in key or "milliseconds" in key}
    assert "h2log.outcome" not in told and "error.type" not in told
    told = json.loads(compile("ecs")(opened))
    assert told["event.type"] == ["start"]
    assert told["message"] == "POST /a?b=c -"
    assert not {"event.duration", "event.outcome", "h2log.outcome", "h2log.route"} & told.keys()
    assert not {key for key in told if "response" in key}
    told = json.loads(compile("caddy")(opened))
    assert told["msg"] == "received request"
    assert not {"status", "duration", "size", "bytes_read", "outcome", "resp_headers"} & told.keys()
    done = [json.loads(compile(name)(finished())) for name in ("json", "ecs", "caddy")]
    assert "h2log.immediate" not in done[0]
    assert done[1]["event.type"] == ["access"]
    assert done[2]["msg"] == "handled request"


def test_tokens_have_a_dash_for_all_of_an_end() -> None:
    """And `:event` says which line this is."""
    opened = finished().opening()
    source = (
        ":status :response-time :total-time :duration :ttfb :stall :blocked :outcome :route :cache "
        ":condition :reset-by :reset-code :bytes-received :bytes-sent :header-bytes-sent "
        ":res[content-length] :res[content-type] :res[x-request-id]"
    )
    assert compile(source)(opened) == " ".join(["-"] * len(source.split())) + "\n"
    assert compile(":event :method :url :nth")(opened) == "open POST /a?b=c 2\n"
    assert compile(":event :method :url :nth")(finished()) == "done POST /a?b=c 2\n"
    assert (
        compile(":date[iso] :start[iso]")(opened)
        == " ".join(["2026-11-20T13:31:59.125Z"] * 2) + "\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_arrival_s_line_reads_back(name: str) -> None:
    """It has what the line of the end has, less the end."""
    made = finished()
    form = compile(name)
    opened, done = (parse_line(name, form(item)[:-1]) for item in (made.opening(), made))
    assert (opened.event, done.event) == (("open", "done") if name in TOLD else (None, None))
    for key in OF_AN_END:
        assert getattr(opened, key) is None, key
    for key in set(done.__struct_fields__) - {*OF_AN_END, "event", "sequence", "when"}:
        assert getattr(opened, key) == getattr(done, key), key


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_arrivals_are_a_line_each(name: str) -> None:
    """Of ordinary traffic, hostile texts among it."""
    dice = random.Random(5)
    form = compile(name)
    batch = [varied(dice) for _ in range(1000)]
    lines = "".join([form(made.opening()) for made in batch]).splitlines()
    assert len(lines) == len(batch)
    for made, line in zip(batch, lines, strict=True):
        read = parse_line(name, line)
        assert read.target == made.facts.path
        assert (read.status, read.outcome) == (None, None)


bytes_ = st.binary(max_size=20).map(lambda raw: raw.decode("latin-1"))


@settings(max_examples=100, deadline=None)
@given(bytes_, bytes_, bytes_, st.sampled_from(["h2", "1.1", "1.0", "-"]), st.sampled_from(Outcome))
def test_any_arrival_is_told_from_any_end(
    path: str, method: str, authority: str, protocol: str, outcome: Outcome
) -> None:
    """Whatever a client sent, and however the request ends, with and without a response."""
    facts = Facts(method, f"/{path}", "https", authority)
    for status in (0, 200):
        made = record(facts, status=status, outcome=outcome, protocol=protocol)
        for name in TOLD:
            form = compile(name)
            opened, done = (parse_line(name, form(item)[:-1]) for item in (made.opening(), made))
            assert (opened.event, opened.outcome, opened.milliseconds) == ("open", None, None)
            assert (done.event, done.status) == ("done", status or None)
            assert done.milliseconds is not None
            assert (opened.target, opened.request) == (done.target, done.request)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("json", {"h2log.outcome": "COMPLETE"}),
        ("json", {"h2log.milliseconds": 1.0}),
        ("json", {"http.response.status_code": 200}),
        ("json", {"h2log.immediate": False}),
        ("ecs", {"h2log.outcome": "COMPLETE"}),
        ("ecs", {"event.duration": 5}),
        ("ecs", {"event.type": ["access"]}),
        ("ecs", {"event.type": ["end"]}),
        ("ecs", {"event.type": []}),
        ("caddy", {"status": 200}),
        ("caddy", {"duration": 0.5}),
        ("caddy", {"msg": "handled request"}),
        ("caddy", {"msg": "request"}),
        ("caddy", {"msg": None}),
    ],
)
def test_an_arrival_with_an_end_is_refused(name: str, changes: dict[str, Any]) -> None:
    """No record makes such an object, nor one of an end without an outcome."""
    told = json.loads(compile(name)(finished().opening()))
    assert parse_line(name, json.dumps(told)).event == "open"
    with pytest.raises(ValueError, match=r"."):
        parse_line(name, json.dumps(told | changes))


@pytest.mark.parametrize(
    ("column", "value"),
    [("outcome", "COMPLETE"), ("milliseconds", "1.000"), ("bytes-sent", "5"), ("reset-by", "us")],
)
def test_a_full_line_is_of_an_arrival_or_of_an_end(column: str, value: str) -> None:
    """What has an outcome has milliseconds, and what has neither has no sizes."""
    columns = compile("h2log-full")(finished().opening())[:-1].split("\t")
    columns[FULL_COLUMNS.index(column)] = value
    with pytest.raises(ValueError, match=r"."):
        parse_line("h2log-full", "\t".join(columns))
    columns = compile("h2log-full")(finished())[:-1].split("\t")
    columns[FULL_COLUMNS.index("outcome")] = "-"
    with pytest.raises(ValueError, match=r"^outcome: "):
        parse_line("h2log-full", "\t".join(columns))


def test_a_skip_expression_takes_an_arrival() -> None:
    """By what was asked; of an end nothing holds."""
    opened = finished().opening()
    assert compile_skip('path == "/a"')(opened)
    assert not compile_skip("status < 400")(opened)
    assert not compile_skip("status >= 400")(opened)
    assert not compile_skip('outcome == "COMPLETE"')(opened)
