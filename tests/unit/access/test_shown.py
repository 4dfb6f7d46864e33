"""No format and no token shows a secret, and what is masked reads back as the mask."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2log.access import MASK, NAMES, Redaction, compile, parse_line, token, token_names
from h2log.access import tokens as tokens_module
from h2log.access.record import AccessRecord, Outcome
from h2log.access.redaction import DEFAULT, NOTHING
from h2log.access.skip import compile_skip
from h2log.config.secret_names import HEADERS, QUERY
from tests.access.records import Answer, Facts, basic, record

SECRET: Final = "s3cr3t"
PARENT: Final = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALL_TOKENS: Final = " ".join(
    [f":{name}" for name in token_names() if name not in ("req", "res", "pid")]
    + [f":req[{name}] :res[{name}]" for name in (*HEADERS, "referer", "location", "host", "link")]
)


def careless(path: str = f"/login?user=jo&token={SECRET}&b=c") -> AccessRecord:
    """Return a record of a request and a response that are full of secrets."""
    return record(
        Facts(
            path=path,
            authority=f"jo:{SECRET}@example.org:8443",
            fields=(
                (b"referer", f"https://jo:{SECRET}@example.org/a?sig={SECRET}&q=1".encode()),
                (b"user-agent", b"curl/8.5.0"),
                (b"authorization", basic(b"jo", SECRET.encode())),
                (b"x-request-id", b"abc-123"),
                (b"traceparent", PARENT),
                (b"link", f"</a?token={SECRET}>".encode()),
                *((name.encode(), SECRET.encode()) for name in HEADERS if name != "authorization"),
            ),
        ),
        answer=Answer(
            [
                ("content-type", "text/html"),
                ("location", f"/cb?state=1&code={SECRET}#access_token={SECRET}"),
                ("set-cookie", f"session={SECRET}"),
                ("set-cookie", f"other={SECRET}"),
                *((name, SECRET) for name in HEADERS if name != "set-cookie"),
            ],
            5,
        ),
    )


@pytest.mark.parametrize("name", [*NAMES, "dev colored", ALL_TOKENS])
@pytest.mark.parametrize("open_", [False, True])
def test_no_format_shows_a_secret(name: str, open_: bool) -> None:
    """Neither at a request's end nor at its arrival."""
    form = compile(name.removesuffix(" colored"))
    made = careless().opening() if open_ else careless()
    line = (form.colored if name == "dev colored" else form)(made)
    assert SECRET not in line
    assert MASK in line


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_reads_back_as_the_mask(name: str) -> None:
    """A line is as strict as any other: the target, the referrer and the host have the mask."""
    read = parse_line(name, compile(name)(careless())[:-1])
    assert read.target == "/login?user=jo&token=REDACTED&b=c"
    referrer = "https://REDACTED:REDACTED@example.org/a?sig=REDACTED&q=1"
    told = {"combined": ["referrer"], "caddy": ["referrer", "authority"]}
    told |= {key: ["referrer", "authority"] for key in ("h2log-full", "json", "ecs")}
    for key in told.get(name, []):
        expected = {"referrer": referrer, "authority": "REDACTED:REDACTED@example.org:8443"}[key]
        assert getattr(read, key) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_user_stays(name: str) -> None:
    """Who asked is no secret, though the field that says so is."""
    line = compile(name)(careless("/"))
    read = parse_line(name, line[:-1])
    if name not in ("h2log", "dev", "tiny"):
        assert read.user == "jo"
    assert compile(":remote-user :req[authorization]")(careless()) == "jo REDACTED\n"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (":url", "/login?user=jo&token=REDACTED&b=c"),
        (":query", "user=jo&token=REDACTED&b=c"),
        (":path", "/login"),
        (":referrer", "https://REDACTED:REDACTED@example.org/a?sig=REDACTED&q=1"),
        (":req[referer]", "https://REDACTED:REDACTED@example.org/a?sig=REDACTED&q=1"),
        (":authority :req[host]", " ".join(["REDACTED:REDACTED@example.org:8443"] * 2)),
        (":req[Cookie] :req[X-API-Key] :req[none]", "REDACTED REDACTED -"),
        (":res[Set-Cookie] :res[location]", "REDACTED /cb?state=1&code=REDACTED"),
        (":req[user-agent] :user-agent", "curl/8.5.0 curl/8.5.0"),
        (":request-id :traceparent", f"abc-123 {PARENT.decode()}"),
    ],
)
def test_each_token_masks_what_it_shows(source: str, line: str) -> None:
    """A field as a whole, a URL where a secret is in it."""
    assert compile(source)(careless()) == f"{line}\n"


def test_parameters_of_a_path_are_masked_where_the_path_stands_alone() -> None:
    """A session id of `;jsessionid=` is no part of the query."""
    made = careless(f"/a;jsessionid={SECRET}/b?c=d")
    assert compile(":path :query")(made) == "/a;jsessionid=REDACTED/b c=d\n"
    told = json.loads(compile("json")(made))
    assert (told["url.path"], told["url.query"]) == ("/a;jsessionid=REDACTED/b", "c=d")


def test_a_connect_has_no_user_in_its_target() -> None:
    """Its target is the authority."""
    made = record(Facts("CONNECT", "", authority=f"jo:{SECRET}@example.org:443"))
    for name in NAMES:
        line = compile(name)(made)
        assert SECRET not in line
        assert parse_line(name, line[:-1]).target == "REDACTED:REDACTED@example.org:443"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_masked_on_request(name: str) -> None:
    """With empty lists a line has what was sent."""
    made = careless()
    read = parse_line(name, compile(name, redact=NOTHING)(made)[:-1])
    assert read.target == made.facts.path
    assert compile(ALL_TOKENS, redact=NOTHING)(made).count(SECRET) > 2 * len(HEADERS)
    assert MASK not in compile(ALL_TOKENS, redact=NOTHING)(made)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_one_s_own_counts_in_every_format(name: str) -> None:
    """Of keys and of fields, those that formats show without being asked, too."""
    headers = ("user-agent", "referrer", "x-request-id", "traceparent", "content-type", "host")
    own = Redaction(query=["user"], headers=headers)
    line = compile(name, redact=own)(careless())
    read = parse_line(name, line[:-1])
    assert read.target == f"/login?user=REDACTED&token={SECRET}&b=c"
    for key in ("user_agent", "referrer", "request_id", "traceparent"):
        assert getattr(read, key) in (MASK, None)
    assert "curl" not in line
    assert "text/html" not in line
    source = ":user-agent :req[user-agent] :referrer :request-id :traceparent :trace-id"
    assert compile(source, redact=own)(careless()) == " ".join([MASK] * 6) + "\n"
    assert compile(":res[content-type] :req[host]", redact=own)(careless()) == f"{MASK} {MASK}\n"


def test_what_is_not_there_is_not_masked() -> None:
    """A dash is a dash: a mask tells that there was something."""
    made = record(Facts(fields=((b"cookie", b""),)))
    assert compile(":req[cookie] :req[authorization] :res[set-cookie]")(made) == "- - -\n"


def test_the_record_is_not_changed() -> None:
    """Formats mask what they write; what `skip` looks at is what was sent."""
    made = careless()
    for name in NAMES:
        compile(name)(made)
    assert made.facts.path == f"/login?user=jo&token={SECRET}&b=c"
    assert compile_skip(f'"token={SECRET}" in query and "sig={SECRET}" in referrer')(made)


def test_one_s_own_token_is_given_the_record_as_it_is() -> None:
    """What it shows of a secret is its author's decision, and so for a function."""
    before = dict(tokens_module._binders)
    try:
        token("raw", lambda made, argument: made.facts.path)
        assert SECRET in compile(":raw")(careless())
    finally:
        tokens_module._binders.clear()
        tokens_module._binders.update(before)
    assert SECRET in compile(lambda made: made.facts.path)(careless())


def test_a_compiled_format_has_its_own_redaction() -> None:
    """It stays what it was compiled with."""
    form = compile("tiny", redact=NOTHING)
    assert compile(form) is form
    assert SECRET in compile(form)(careless())


def test_dev_is_masked_on_a_terminal_as_in_a_file() -> None:
    """Its colored form has the same redaction."""
    assert SECRET in compile("dev", redact=NOTHING).colored(careless())
    assert SECRET not in compile("dev").colored(careless())


names = st.sampled_from(QUERY).flatmap(
    lambda name: st.sampled_from(
        [name, name.upper(), name.title(), "".join([f"%{ord(c):02x}" for c in name])]
    )
)
around = st.text("ab01=&;/?.%", max_size=8)


@settings(max_examples=100, deadline=None)
@given(names, around, st.sampled_from(["?", "?a=b&", "?a=b;", ";", "#"]))
def test_no_secret_of_a_query_is_ever_shown(name: str, before: str, mark: str) -> None:
    """Whatever stands before it, in the target, in the referrer and where to go next."""
    url = f"/{before}{mark}{name}={SECRET}"
    made = record(
        Facts(path=url, fields=((b"referer", f"https://example.org{url}".encode()),)),
        answer=Answer([("location", url)]),
    )
    for source in (*NAMES, ":url :query :path :referrer :req[referer] :res[location]"):
        line = compile(source)(made)
        assert SECRET not in unquote(line)
        if source in NAMES:
            assert parse_line(source, line[:-1]).target == DEFAULT.url(url)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=30).map(lambda raw: raw.decode("latin-1")), st.sampled_from(Outcome))
def test_a_masked_line_reads_back_whatever_else_was_sent(path: str, outcome: Outcome) -> None:
    """The mask stands among bytes of any kind."""
    made = record(Facts(path=f"/{path}&token=a{path}"), outcome=outcome)
    for name in NAMES:
        assert parse_line(name, compile(name)(made)[:-1]).target == DEFAULT.url(made.facts.path)
