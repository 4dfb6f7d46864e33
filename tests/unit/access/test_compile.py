"""Formats are compiled once: names, format strings and functions, and what is wrong with one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta, timezone
from typing import Any

import pytest

from h2log.access import NAMES, Format, compile, parse_line, token, token_names
from h2log.access import tokens as tokens_module
from h2log.access.full import FULL_COLUMNS
from h2log.access.record import AccessRecord, Outcome, TlsFacts
from h2log.errors import UsageError
from tests.access.records import REQUEST, SESSION, WALL, Answer, Facts, basic, record

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def own_tokens() -> Iterator[None]:
    """The tokens are afterwards what they were before."""
    before = dict(tokens_module._binders)
    yield
    tokens_module._binders.clear()
    tokens_module._binders.update(before)


def full_record() -> AccessRecord:
    """Return a record in which everything is known."""
    made = record(
        Facts(
            "POST",
            "/articles/7?page=2&q=a",
            "https",
            "example.org:8443",
            (
                (b"user-agent", b"curl/8.5.0"),
                (b"referer", b"https://example.org/"),
                (b"authorization", basic(b"jo")),
                (b"traceparent", PARENT),
                (b"x-request-id", b"abc-123"),
                (b"x-two", b"a"),
                (b"x-two", b"b"),
            ),
        ),
        status=404,
        answer=Answer([("content-type", "text/html"), ("etag", '"1"')], 6213),
        tls=TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", "example.org", True),
        alpn="h2",
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
        detail={
            "headers_at": 100.125,
            "first_byte_at": 100.25,
            "stalled": 0.0625,
            "blocked": 0.03125,
            "route": "/articles/{id}",
            "reset_by": "client",
            "reset_code": 8,
        },
    )
    made.nth = 2
    return made


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (":session", SESSION),
        (":id", REQUEST),
        (":stream", "5"),
        (":nth", "2"),
        (":sequence", "9"),
        (":active", "3"),
        (":outcome :event", "CLIENT_RESET done"),
        (":bytes-sent :bytes-received", "100 10"),
        (":header-bytes-sent :header-bytes-received", "50 40"),
        (":response-time", "125.000"),
        (":ttfb[1]", "250.0"),
        (":total-time[0]", "500"),
        (":duration", "500.000"),
        (":stall :blocked", "62.500 31.250"),
        (":route", "/articles/{id}"),
        (":traceparent", PARENT.decode()),
        (":trace-id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        (":request-id", "abc-123"),
        (":scheme :authority", "https example.org:8443"),
        (":path :query", "/articles/7 page=2&q=a"),
        (":url", "/articles/7?page=2&q=a"),
        (":protocol :http-version", "h2 2.0"),
        (":reset-by :reset-code", "client 8"),
        (":cache :condition", "hit etag"),
        (":tls-version :tls-cipher", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        (":tls-resumed :sni :alpn", "true example.org h2"),
        (":remote-addr :client-port :remote-user", "192.0.2.1 40000 jo"),
        (":referrer :user-agent", "https://example.org/ curl/8.5.0"),
        (":req[X-Two] :req[host]", "a, b example.org:8443"),
        (":res[content-length] :res[ETag] :res[x-request-id]", f"6213 \\x221\\x22 {REQUEST}"),
        (":date", "Fri, 20 Nov 2026 13:31:59 GMT"),
        (":date[web]", "Fri, 20 Nov 2026 13:31:59 GMT"),
        (":date[clf]", "20/Nov/2026:13:31:59 +0000"),
        (":date[iso] :start[iso]", "2026-11-20T13:31:59.625Z 2026-11-20T13:31:59.125Z"),
        (":date[locale]", "11/20/2026, 1:31:59 PM"),
        (":date[%Y-%m-%d %H:%M:%S.%f]", "2026-11-20 13:31:59.625000"),
        (":date[%d/%b %%]", "20/Nov %"),
        (":pid", str(os.getpid())),
        (
            "a :x % %s {} [:status] \x1b[31m:method\x1b[0m é",
            "a :x % %s {} [404] \x1b[31mPOST\x1b[0m é",
        ),
    ],
)
def test_a_token_stands_for_its_field(source: str, line: str) -> None:
    """Each field of a record has a token, and other text stands for itself."""
    assert compile(source)(full_record()) == f"{line}\n"


def test_what_is_missing_is_a_dash() -> None:
    """A request of which nothing is known has a dash for each token that could be without."""
    made = record(Facts("", "", "", ""), status=0, outcome=None, protocol="-", took=0.0)
    made.session.client, made.session.port = "", 0
    never = {"active", "date", "event", "header-bytes-received", "id", "nth", "pid", "session"}
    never |= {"start", "stream"}
    for name in token_names():
        source = f":{name}[x-any]" if name in ("req", "res") else f":{name}"
        assert (compile(source)(made) == "-\n") is (name not in never), name


def test_there_is_no_time_of_a_response_that_never_began() -> None:
    """As in morgan: neither response time nor total time; the duration is known all the same."""
    made = record(status=0, outcome=Outcome.PEER_LOST, took=0.25)
    assert compile(":response-time :total-time :duration :status")(made) == "- - 250.000 -\n"


@pytest.mark.parametrize(
    ("hour", "shown"), [(0, "12"), (1, "1"), (11, "11"), (12, "12"), (13, "1"), (23, "11")]
)
def test_a_locale_s_hours_are_twelve(hour: int, shown: str) -> None:
    """`4/21/2021, 1:31:59 PM`, in the zone that was asked for."""
    zone = timezone(timedelta(hours=hour - 13))
    half = "AM" if hour < 12 else "PM"
    line = compile(":date[locale]", zone=zone)(record(took=0.0))
    assert line == f"11/20/2026, {shown}:31:59 {half}\n"


def test_a_date_of_the_year_2021() -> None:
    """No number is padded that toLocaleString does not pad."""
    made = record(wall=1619011919.0, took=0.0)
    assert compile(":date[locale]")(made) == "4/21/2021, 1:31:59 PM\n"
    zone = timezone(timedelta(hours=2))
    assert compile(":date[%H:%M %z]", zone=zone)(made) == "15:31 +0200\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (":methd :url", "unknown token :methd at column 1, did you mean :method?"),
        ("a :methd", "unknown token :methd at column 3, did you mean :method?"),
        (":url :8443", "unknown token :8443 at column 6"),
        (":res", "bad argument of :res at column 1: it needs the name of a header field"),
        (":res[]", "bad argument of :res at column 1: the brackets are empty"),
        (":req[a b]", r"bad argument of :req\[a b\] at column 6: expected the name of a header"),
        (":url :res[content-length", r"unbalanced \[ of :res at column 10"),
        (":url[x]", r"bad argument of :url\[x\] at column 6: it takes no argument"),
        ("[:date[clf] :url", r"unbalanced \[ at column 1"),
        (":url]", r"unbalanced \] at column 5"),
        (":date[rfc]", r"bad argument of :date\[rfc\] at column 7: expected clf, iso, locale, web"),
        (":date[%Q]", r"bad argument of :date\[%Q\] at column 7: unknown directive '%Q'"),
        (":date[%Y%]", r"unknown directive '%'"),
        (":date[%n]", r"unknown directive '%n'"),
        (":response-time[x]", r"bad argument of :response-time\[x\] at column 16: expected a numb"),
        (":ttfb[10]", "expected a number of digits, from 0 to 9"),
        (":ttfb[²]", "expected a number of digits"),
        (":url\n:method", "line break in a format at column 5"),
        (":url\x00", r"character '\\x00' in a format at column 5"),
        ("\x1b:url", r"character '\\x1b' in a format at column 1"),
        (":url \u2028", r"character '\\u2028' in a format at column 6"),
        ("#:url", "cannot begin with #"),
        ("combind", "unknown format 'combind', did you mean combined"),
        ("", "unknown format ''"),
        ("no token", "unknown format 'no token'"),
    ],
)
def test_a_mistake_is_told_with_its_place(source: str, message: str) -> None:
    """A format that is none is an error when it is compiled, in one line that points at it."""
    with pytest.raises(UsageError, match=message) as caught:
        compile(source)
    assert str(caught.value).isprintable()


def test_a_token_of_one_s_own(own_tokens: None) -> None:
    """Defined, used with and without an argument, replaced; what it returns is escaped."""
    token("tenant", lambda made, argument: f"{argument} of {made.facts.authority}")
    assert compile(":tenant[a]")(record()) == "a of localhost:8443\n"
    compiled = compile(":tenant")
    token("tenant", lambda made, argument: '"\n\t\u2028')
    assert compiled(record()) == "None of localhost:8443\n"
    assert compile(":tenant")(record()) == "\\x22\\x0A\\x09\\xE2\\x80\\xA8\n"
    token("status", lambda made, argument: made.status + 1)
    assert compile("tiny")(record()) == "GET /a 201 - - 7.812 ms\n"
    token("method", lambda made, argument: None)
    assert compile(":method :url")(record()) == "- /a\n"


def test_a_token_that_raises_costs_no_line(own_tokens: None) -> None:
    """The exception's name stands in its place."""
    nobody: dict[str, str] = {}
    token("tenant", lambda made, argument: nobody["a"])
    assert compile(":url :tenant")(record()) == "/a !KeyError\n"


@pytest.mark.parametrize("name", ["", "a", ":url", "a b", "é" * 3])
def test_a_token_s_name_is_one(name: str) -> None:
    """A name that no format string could use is refused."""
    with pytest.raises(UsageError, match="bad token name"):
        token(name, lambda made, argument: None)


def test_a_function_is_a_format() -> None:
    """It returns a line, with or without its newline, or None to skip the record."""

    def errors(made: AccessRecord) -> str | None:
        return f"{made.status}\t{made.facts.path}" if made.status >= 400 else None

    compiled = compile(errors)
    assert compiled.name.endswith("errors")
    assert compiled(record()) == ""
    assert compiled(record(status=404)) == "404\t/a\n"
    assert compile(lambda made: "line\n")(record()) == "line\n"


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        ("a\nb", "a\\x0Ab"),
        ("a\r\n", "a\\x0D"),
        ("\x1b[31mred\x1b[0m \x1b[2J\u2028", "\x1b[31mred\x1b[0m \\x1B[2J\\xE2\\x80\\xA8"),
        ("# a note", "\\x23 a note"),
        ("\ud800", "\\xED\\xA0\\x80"),
        ("é\\", "é\\"),
    ],
)
def test_a_function_s_line_is_one(returned: str, line: str) -> None:
    """What would tear it, or pass for a note, is escaped; colours and tabs may stay."""
    assert compile(lambda made: returned)(record()) == f"{line}\n"


def test_a_function_that_raises_leaves_a_note() -> None:
    """The request is accounted for, by its id."""
    wrong: Any = 7
    assert compile(lambda made: wrong)(record()).startswith(f"#failed request={REQUEST} error=Attr")


def test_no_request_passes_for_a_note() -> None:
    """A line that begins with a client's text never begins with #."""
    assert compile(":method")(record(Facts("#dropped"))) == "\\x23dropped\n"
    assert compile("tiny")(record(Facts("#dropped")))[0] == "\\"


def test_a_format_tells_what_it_is() -> None:
    """Its name, what its lines are, its header, its form for terminals."""
    compiled = {name: compile(name) for name in NAMES}
    assert [form.name for form in compiled.values()] == list(NAMES)
    assert {form.kind for form in compiled.values()} == {"tsv", "text", "json"}
    full = compiled["h2log-full"]
    assert full.header == f"#Fields: {' '.join(FULL_COLUMNS)}\n"
    assert {name for name, form in compiled.items() if form.header} == {"h2log-full"}
    assert full.colored is full
    assert compile(full) is full
    assert repr(full) == "<Format h2log-full>"
    assert isinstance(compiled["dev"].colored, Format)


@pytest.mark.parametrize(
    ("status", "color"), [(0, 0), (100, 0), (200, 32), (301, 36), (404, 33), (500, 31), (599, 31)]
)
def test_dev_is_coloured_by_status_on_a_terminal(status: int, color: int) -> None:
    """morgan's colours; none in a file."""
    made = record(status=status)
    shown = status or "-"
    time = "7.812" if status else "-"
    dev = compile("dev")
    assert dev(made) == f"GET /a {shown} {time} ms - -\n"
    colored = f"\x1b[0mGET /a \x1b[{color}m{shown}\x1b[0m {time} ms - -\x1b[0m\n"
    assert dev.colored(made) == colored


def test_the_full_line_is_every_column() -> None:
    """In the order of the header, and read back with its types."""
    line = compile("h2log-full")(full_record())[:-1]
    columns = dict(zip(FULL_COLUMNS, line.split("\t"), strict=True))
    assert columns["path"] == "/articles/7?page=2&q=a"
    assert columns["outcome"] == "CLIENT_RESET"
    assert columns["tls-resumed"] == "yes"
    read = parse_line("h2log-full", line)
    assert (read.route, read.stalled_ms, read.nth, read.reset_code) == (
        "/articles/{id}",
        62.5,
        2,
        8,
    )
    assert "-" not in columns.values()


@pytest.mark.parametrize("name", ["json", "ecs"])
def test_objects_tell_what_the_full_line_tells(name: str) -> None:
    """Whatever an object has, it has as the tab-separated line has it."""
    made = full_record()
    full = parse_line("h2log-full", compile("h2log-full")(made)[:-1])
    read = parse_line(name, compile(name)(made)[:-1])
    left_out = {"json": {"length"}, "ecs": {"length", "headers_ms", "stalled_ms", "blocked_ms"}}
    left_out["ecs"] |= {"header_received", "header_sent", "alpn", "cache", "condition"}
    for key in full.__struct_fields__:
        if key not in left_out[name]:
            assert getattr(read, key) == getattr(full, key), key


def test_an_elastic_document_has_its_names() -> None:
    """The fields that dashboards look for."""
    line = compile("ecs")(full_record())
    for part in (
        '"@timestamp":"2026-11-20T13:31:59.125Z"',
        '"http.request.method":"POST"',
        '"event.duration":500000000',
        '"trace.id":"4bf92f3577b34da6a3ce929d0e0e4736"',
        '"url.original":"/articles/7?page=2&q=a"',
        '"event.outcome":"failure"',
    ):
        assert part in line


def test_a_json_line_has_opentelemetry_s_names() -> None:
    """And ours below `h2log.`; what is not known is left out."""
    line = compile("json")(full_record())
    for part in (
        '"http.request.method":"POST"',
        '"url.path":"/articles/7","url.query":"page=2&q=a"',
        '"http.response.status_code":404',
        '"network.protocol.version":"2"',
        '"client.address":"192.0.2.1"',
        '"user_agent.original":"curl/8.5.0"',
        '"server.address":"example.org","server.port":8443',
        f'"h2log.session":"{SESSION}","h2log.request":"{REQUEST}"',
    ):
        assert part in line
    assert "null" not in compile("json")(record(status=0))


def test_stamps_of_one_format_serve_many_seconds() -> None:
    """A hundred seconds in any order: each line has its own."""
    compiled = compile(":start[clf] :start[%S] :start[iso]")
    for offset in [(n * 37) % 100 for n in range(100)] * 2:
        clf, zone, second, iso = compiled(record(wall=WALL + offset)).split()
        assert clf[-2:] == second == iso[17:19] == f"{(59 + offset) % 60:02d}"
        assert zone == "+0000"
