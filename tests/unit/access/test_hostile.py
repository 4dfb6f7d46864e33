"""Whatever a peer sends: one line a record in every format, which reads back to the same values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h2log.access import NAMES, Line, compile, parse_line
from h2log.access.record import AccessRecord, Outcome, TlsFacts
from h2log.access.shown import DEFAULT_SHOWN
from h2log.access.values import remote_user
from tests.access.records import Answer, Facts, basic, record

FORMATS: Final = {name: compile(name) for name in NAMES}
FORMATS["dev colored"] = FORMATS["dev"].colored
TOKENS: Final = compile(
    ":url :method :authority :scheme :path :query :referrer :user-agent :remote-user :request-id "
    ":traceparent :sni :req[x-any] :res[x-any] :route :condition"
)
FIELDS: Final = ("method", "path", "scheme", "authority", "sni", "alpn")
BREAKS: Final = (b"\n", b"\r\n", b"\t", b"\x0b\x0c\x1c\x1d\x1e\x85", "\u2028\u2029\u202e".encode())
SAMPLES: Final = (
    *BREAKS,
    *(b"", b"-", b"\\", b"\\x0A", b'"', b'" 200 5 "', b" ", b"[", b"] ", b"#dropped lines=1", b":"),
    *(
        b"\x00",
        b"\x1b[31m",
        b"\x7f",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
    ),
    *(b"HTTP/1.1", b"{}", b"'", b"%s%n", b"?", b"a?b?c", b"/" + b"a" * 8192, b"\\u000a", b"ms"),
)
hostile = st.one_of(st.sampled_from(SAMPLES), st.binary(max_size=20)).flatmap(
    lambda first: st.one_of(st.sampled_from(SAMPLES), st.binary(max_size=20)).map(
        lambda second: first + second
    )
)


def made_of(parts: dict[str, bytes], protocol: str = "h2", status: int = 200) -> AccessRecord:
    """Return a record whose every field that a peer chooses is of `parts`."""
    text = {name: raw.decode("latin-1") for name, raw in parts.items()}
    names = (b"referer", b"user-agent", b"x-request-id", b"traceparent", b"x-any")
    fields = [(name, parts[name.decode()]) for name in names if name.decode() in parts]
    if "user" in parts:
        fields.append((b"authorization", basic(parts["user"])))
    return record(
        Facts(text["method"], text["path"], text["scheme"], text["authority"], tuple(fields)),
        status=status,
        answer=Answer([("content-type", text["path"]), ("x-any", text["path"])], 5),
        protocol=protocol,
        outcome=Outcome.COMPLETE if status else Outcome.MALFORMED,
        tls=TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", text["sni"], True),
        alpn=text["alpn"],
        sequence=7,
        sent=5,
        received=3,
        header_sent=2,
        header_received=1,
        detail={"route": text["path"], "reset_by": "client", "reset_code": 8},
    )


def bare(value: str | None) -> str | None:
    """Return what is left of a value where `-` stands for nothing, too."""
    return None if value in ("", "-") else value


def expected(name: str, made: AccessRecord) -> dict[str, Any]:
    """Return what of the record the format tells, as the fields of a `Line`.

    What chance makes a secret of (a user before an `@`) is masked.
    """
    shown = DEFAULT_SHOWN
    facts = made.facts
    whole: dict[str, Any] = {
        "target": shown.target(made),
        "status": made.status or None,
        "method": facts.method or None,
        "version": made.session.protocol,
        "authority": shown.authority(made) or None,
        "scheme": facts.scheme or None,
        "user_agent": shown.user_agent(made),
        "referrer": shown.referrer(made),
        "user": remote_user(made),
        "request_id": shown.client_request_id(made),
        "sni": made.session.tls.sni or None if made.session.tls else None,
        "alpn": made.session.alpn or None,
        "session": made.session.id,
        "request": made.id,
        "sent": 5,
        "received": 3,
        "outcome": made.outcome,
        "tls_version": "TLSv1.3",
        "tls_cipher": "TLS_AES_256_GCM_SHA384",
        "tls_resumed": True,
    }
    match name:
        case "h2log":
            told = ["target", "status", "version", "session", "request"]
        case "h2log-full" | "json":
            return {**whole, "reset_by": "client", "reset_code": 8, "sequence": 7}
        case "ecs":
            told = [key for key in whole if key != "alpn"]
        case "caddy":
            told = [key for key in whole if key not in ("scheme", "request_id")]
        case _:
            told = ["target", "status", "method"]
            told += ["version", "user"] if name in ("combined", "common", "short") else []
            told += ["referrer", "user_agent"] if name == "combined" else []
            for key in ("method", "user", "referrer", "user_agent"):
                whole[key] = bare(whole[key])
    return {key: whole[key] for key in told}


def check(name: str, line_of: Callable[[AccessRecord], str], made: AccessRecord) -> None:
    """Check that a record is one line in a format, and reads back."""
    line = line_of(made)
    assert line[-1] == "\n"
    line = line[:-1]
    assert line.splitlines() == [line]
    assert line.encode().splitlines() == [line.encode()]  # it is UTF-8, too
    assert not line.startswith("#")
    visible = line.replace("\t", "") if "\t" in line and name.startswith("h2log") else line
    if name != "dev colored":
        assert visible.isprintable()
    read = parse_line(name.removesuffix(" colored"), line)
    assert isinstance(read, Line)
    for key, value in expected(name.removesuffix(" colored"), made).items():
        assert getattr(read, key) == value, (key, line)


@settings(max_examples=200, deadline=None)
@example({**dict.fromkeys(FIELDS, b""), "referer": b"", "user-agent": b"", "user": b""}, "h2", 0)
@example({**dict.fromkeys(FIELDS, b"a@b"), "user-agent": b"https://a@b"}, "h2", 200)
@example({**dict.fromkeys(FIELDS, b"-"), "referer": b"-", "user-agent": b"-"}, "1.1", 200)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(FIELDS, hostile),
        optional=dict.fromkeys(
            ("referer", "user-agent", "x-request-id", "traceparent", "x-any", "user"), hostile
        ),
    ),
    st.sampled_from(["h2", "1.1", "1.0", "-"]),
    st.sampled_from([0, 200, 304, 404, 500]),
)
def test_every_format_is_one_line_that_reads_back(
    parts: dict[str, bytes], protocol: str, status: int
) -> None:
    """Bytes of any kind in every field that a peer chooses."""
    made = made_of(parts, protocol, status)
    for name, form in FORMATS.items():
        check(name, form, made)
    line = TOKENS(made)[:-1]
    assert line.isascii() and line.isprintable()


def test_thousands_of_hostile_requests() -> None:
    """5,000 of them in every format, in whole files: as many records come back."""
    dice = random.Random(11)
    optional = ("referer", "user-agent", "x-request-id", "traceparent", "x-any", "user")

    def raw() -> bytes:
        return dice.choice(SAMPLES) + dice.randbytes(dice.randrange(4)) + dice.choice(SAMPLES[:-3])

    batch = [
        made_of(
            {
                **{name: raw() for name in FIELDS},
                **{name: raw() for name in optional if dice.random() < 0.5},
            },
            status=dice.choice([0, 200, 431]),
        )
        for _ in range(5000)
    ]
    for name, form in FORMATS.items():
        if name == "dev colored":
            continue
        text = "".join([form(made) for made in batch])
        lines = text.splitlines()
        assert len(lines) == len(batch)
        for made, line in zip(batch, lines, strict=True):
            assert parse_line(name, line).target == DEFAULT_SHOWN.target(made)


@pytest.mark.parametrize("name", ["json", "ecs", "caddy"])
@given(hostile)
@example(b"caf\xc3\xa9 \xe9 \xe2\x80\xa8")
def test_json_is_what_any_reader_takes(name: str, raw: bytes) -> None:
    """Python's own parser, which is no relative, reads an object whose texts all print."""
    parts = dict.fromkeys((*FIELDS, "user"), raw)
    made = made_of({**parts, "referer": raw, "user-agent": raw})
    told = json.loads(FORMATS[name](made).encode())
    assert type(told) is dict

    def check_texts(value: object) -> None:
        if isinstance(value, str):
            assert value.isprintable()
        if isinstance(value, dict):
            for key, inner in value.items():
                check_texts(key)
                check_texts(inner)
        if isinstance(value, list):
            for inner in value:
                check_texts(inner)

    check_texts(told)


def test_utf_8_stands_in_json_as_it_is() -> None:
    """A byte that is no UTF-8 is escaped, and the backslash, so that the two are told apart."""
    path = b"/caf\xc3\xa9 \xe9 \\xE9 \xe2\x80\xa8".decode("latin-1")
    told = json.loads(FORMATS["json"](record(Facts(path=path))))
    assert told["url.path"] == "/café \\xE9 \\x5CxE9 \\xE2\\x80\\xA8"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), st.one_of(st.text(), hostile.map(lambda raw: raw.decode("latin-1"))))
@example("json", "{}")
@example("json", '{"timestamp":"2026-11-20T13:31:59.125+00:00","url.path":"\\\\x4"}')
@example("json", '{"timestamp":"x"}')
@example("json", '{"timestamp":"2026-11-20T13:31:59.125+00:00","surprise":1}')
@example("json", '{"timestamp":"2026-11-20T13:31:59.125+00:00","h2log.outcome":"WON"}')
@example("json", "\ud800")
@example("caddy", "[]")
def test_any_other_text_is_refused(name: str, text: str) -> None:
    """What is no line of a format raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_line(name, text)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([name for name in NAMES if name not in ("json", "ecs", "caddy")]),
    st.integers(0, 400),
    st.sampled_from("\n\t\x00\x7f\\\u2028"),
)
def test_a_foreign_character_is_noticed(name: str, place: int, character: str) -> None:
    """One damaged character anywhere in a line of text never goes unseen."""
    line = FORMATS[name](record(Facts(path="/plain")))[:-1]
    place = min(place, len(line) - 1)
    if line[place] == character:
        return
    with pytest.raises(ValueError, match=r"."):
        parse_line(name, line[:place] + character + line[place + 1 :])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["json", "ecs", "caddy"]),
    st.integers(0, 60),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.lists(st.text(), max_size=2),
        st.dictionaries(st.text(), st.text(), max_size=2),
    ),
)
@example("caddy", 1, 1e308)
@example("caddy", 1, -1e308)
@example("json", 0, "2026-11-20")
def test_a_foreign_value_is_read_or_refused(name: str, place: int, value: object) -> None:
    """Any value in the place of one of an object's is refused with ValueError, or fits."""
    told = json.loads(FORMATS[name](made_of(dict.fromkeys(FIELDS, b"/a"))))
    key = list(told)[place % len(told)]
    told[key] = value
    try:
        parse_line(name, json.dumps(told))
    except ValueError:
        return
    if key in ("timestamp", "@timestamp", "h2log.session", "h2log.request", "session_id"):
        pytest.fail(f"{value!r} was taken for {key}")


@pytest.mark.parametrize("key", ["h2log.session", "h2log.request", "timestamp"])
def test_an_object_without_its_ids_is_refused(key: str) -> None:
    """Every line of ours has a time and both ids."""
    told = json.loads(FORMATS["json"](record()))
    del told[key]
    with pytest.raises(ValueError, match=r"."):
        parse_line("json", json.dumps(told))


@pytest.mark.parametrize("name", NAMES)
def test_a_line_that_is_cut_is_refused(name: str) -> None:
    """Half a line is no line, wherever it was cut in its first part."""
    line = FORMATS[name](record(Facts(path="/plain")))[:-1]
    for place in range(len(line) // 2):
        with pytest.raises(ValueError, match=r"."):
            parse_line(name, line[:place])


def test_a_format_is_known_by_its_name() -> None:
    """A name that is none is a KeyError; all named formats are readable."""
    with pytest.raises(KeyError):
        parse_line("combind", "")
    assert all(form.readable for form in FORMATS.values())
    assert not compile(":url").readable
