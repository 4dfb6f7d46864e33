"""morgan's formats and tokens print what the real morgan prints for the same requests."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any, Final, NamedTuple

import pytest

from h2log.access import compile
from h2log.access.record import AccessRecord, Outcome
from h2log.access.redaction import NOTHING
from tests.access.records import Answer, Facts, basic, record

FORMATS: Final = (
    *("combined", "common", "dev", "dev-plain", "short", "tiny"),
    "[:date[clf]] :date[iso] :date[web] :date",
    ":http-version",
    ":method",
    ":referrer",
    ":remote-addr",
    ":remote-user",
    ":req[X-Two] :req[cookie] :req[user-agent] :req[host] :req[none] :req[content-length]",
    ":res[Content-Length] :res[x-b] :res[set-cookie] :res[none]",
    ":response-time",
    ":response-time[0] :response-time[1] :response-time[3] :response-time[5]",
    ":total-time :total-time[0] :total-time[2]",
    ":status",
    ":url",
    ":user-agent",
    ":method :url :status :res[content-length] - :response-time[3] ms",
    '100% "quoted" [:status] {:method} a:b :res[x-b]:url%s',
)


class Case(NamedTuple):
    """A request, and how it shall be answered."""

    name: str
    method: str = "GET"
    target: str = "/"
    fields: tuple[tuple[str, str], ...] = ()
    status: int = 200
    headers: dict[str, str | list[str]] = {}  # noqa: RUF012 - never changed
    body: str = ""
    version: str = "1.1"
    answer: dict[str, Any] = {}  # noqa: RUF012 - never changed


def _auth(value: bytes) -> tuple[tuple[str, str], ...]:
    return (("Authorization", value.decode()),)


def _encoded(raw: bytes) -> bytes:
    return base64.b64encode(raw)


CURL: Final = ("User-Agent", "curl/8.5.0")
CASES: Final = (
    Case("plain", headers={"Content-Length": "5"}, body="hello", fields=(CURL,)),
    Case("nothing known", body="hello"),
    Case("length 0", headers={"Content-Length": "0"}),
    Case("HEAD", "HEAD", "/a?b=c&d=%20", headers={"content-length": "6213"}, fields=(CURL,)),
    Case("POST", "POST", "/form", (("Content-Length", "0"), CURL), 201, {"x-b": "made"}),
    Case("OPTIONS", "OPTIONS", "*", status=204),
    Case("PUT", "PUT", "/%22quoted%22", (("Content-Length", "0"),), 202),
    Case("DELETE", "DELETE", "/a", status=204),
    Case("PATCH", "PATCH", "/a", (("Content-Length", "0"),), 422),
    *(Case(f"status {n}", status=n) for n in (206, 226, 299, 301, 304, 399, 400, 401, 404, 418)),
    *(Case(f"status {n}", status=n) for n in (429, 499, 500, 503, 504, 599)),
    Case("HTTP/1.0", version="1.0", headers={"Content-Length": "2"}, body="ok"),
    Case("referer", fields=(("Referer", "https://example.org/a b?c=d"), CURL)),
    Case("referrer", fields=(("Referrer", "https://example.org/"),)),
    Case("both", fields=(("Referrer", "https://one/"), ("Referer", "https://two/"))),
    Case("empty referer", fields=(("Referer", ""), ("Referrer", "https://one/"))),
    Case("two of them", fields=(("X-Two", "a"), ("X-Two", "b"), CURL, ("User-Agent", "second"))),
    Case("cookies", fields=(("Cookie", "a=b"), ("Cookie", "c=d"))),
    Case("a dash", fields=(("User-Agent", "-"), ("Referer", "-"))),
    Case("two values", headers={"set-cookie": ["a=b", "c=d"], "x-b": "one, two"}),
    Case("user", fields=(*_auth(basic(b"tj")), CURL)),
    Case("user with spaces", fields=_auth(basic(b"John R. Doe"))),
    Case("no password", fields=_auth(basic(b"tj", b""))),
    Case("a password with colons", fields=_auth(basic(b"tj", b"a:b:c"))),
    Case("no user", fields=_auth(basic(b""))),
    Case("no colon", fields=_auth(b"Basic " + _encoded(b"tj"))),
    Case("line break in the password", fields=_auth(basic(b"tj", b"a\nb"))),
    Case("not base64", fields=_auth(b"Basic %%%")),
    Case("one digit too many", fields=_auth(b"Basic " + _encoded(b"tj:abc").rstrip(b"=") + b"A")),
    Case("no padding", fields=_auth(b"Basic " + _encoded(b"tj:a").rstrip(b"="))),
    Case("too much padding", fields=_auth(b"Basic " + _encoded(b"tj:ab") + b"====")),
    Case("URL-safe", fields=_auth(b"Basic " + base64.urlsafe_b64encode(b"tj>?:>>>???"))),
    Case("dots and tildes", fields=_auth(b"Basic d.Gp~6YQ==")),
    Case("lower case", fields=_auth(b"bAsIc   " + _encoded(b"tj:a") + b"  ")),
    Case("Bearer", fields=_auth(b"Bearer dGo6YQ==")),
    Case("two words", fields=_auth(b"Basic dGo6YQ== x")),
    Case("gone before the response", answer={"hang": True}, fields=(CURL,)),
    Case("gone within the response", answer={"stall": True}, headers={"Content-Length": "99"}),
    Case("gone within an error", status=500, answer={"stall": True}),
)


class Morgan:
    """A Node process in which morgan logs what `ask` asks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        watchdog = Timer(20, self._process.kill)
        watchdog.start()
        try:
            return self._process.stdout.readline()
        finally:
            watchdog.cancel()

    def ask(self, case: Case) -> list[str]:
        """Send the request of `case`; return morgan's lines, in the order of `FORMATS`.

        They stand twice: once for the request's end, once for its arrival (`immediate`).
        """
        told = {"status": case.status, "headers": case.headers, "body": case.body, **case.answer}
        fields = [("Host", "localhost"), *case.fields, ("X-Answer", json.dumps(told))]
        head = [f"{case.method} {case.target} HTTP/{case.version}"]
        head += [f"{name}: {value}" for name, value in fields]
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            client.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1"))
            if not case.answer:
                while client.recv(65536):
                    pass
            elif "stall" in case.answer:
                assert client.recv(65536)
        lines: list[str] = json.loads(self._line())
        return lines


@pytest.fixture(scope="module")
def morgan(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Morgan]:
    """The real one, installed once and kept in pytest's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = tmp_path_factory.mktemp("morgan") if cache is None else cache.mkdir("morgan")
    if not (folder / "node_modules" / "morgan" / "index.js").exists():
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder)]
        # A connection to the registry that is stuck is tried again soon, not after five minutes.
        command += ["--fetch-timeout=15000", "--fetch-retries=5", "--fetch-retry-mintimeout=500"]
        try:
            subprocess.run([*command, "morgan@^1.10"], check=True, capture_output=True, timeout=90)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("needs morgan (npm install morgan failed)")
    script = Path(__file__).with_name("morgan_server.cjs")
    with subprocess.Popen(
        [node, str(script), str(folder), json.dumps(FORMATS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "NO_COLOR"},
    ) as process:
        yield Morgan(process)
        process.communicate(timeout=10)


# Half a millisecond on, a float's error is no other millisecond.
NOW: Final = datetime(2026, 11, 20, 13, 31, 59, 123500, UTC).timestamp()
SECRET: Final = {"cookies", "two values"}
"""Cases in which h2log masks something that morgan does not."""


def ours(case: Case) -> AccessRecord:
    """Return the record of `case`, at the time and with the durations that the script sets."""
    told = {"status": case.status, "headers": case.headers, "body": case.body, **case.answer}
    fields = [("Host", "localhost"), *case.fields, ("X-Answer", json.dumps(told))]
    facts = Facts(
        case.method,
        case.target,
        "http",
        "localhost",
        tuple((name.lower().encode(), value.strip().encode("latin-1")) for name, value in fields),
    )
    headers = [
        (name.lower(), value)
        for name, given in case.headers.items()
        for value in ([given] if isinstance(given, str) else given)
    ]
    hung = "hang" in case.answer
    took = 0.012345678
    made = record(
        facts,
        status=0 if hung else case.status,
        answer=Answer(headers),
        protocol=case.version,
        wall=NOW - took,
        took=took,
        outcome=Outcome.PEER_LOST if case.answer else Outcome.COMPLETE,
        detail={"headers_at": 0.0 if hung else 100.007412346},
    )
    made.session.client = "127.0.0.1"
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_line_is_morgan_s_own(morgan: Morgan, case: Case) -> None:
    """Each format and each token gives the line that morgan gives, to the character."""
    made = ours(case)
    arrived = made.opening()
    arrived.wall = NOW
    theirs = morgan.ask(case)
    for name, line, first in zip(FORMATS, *split(theirs), strict=True):
        source = name.removesuffix("-plain")
        forms = [compile(source, redact=NOTHING)]
        if case.name not in SECRET:
            forms.append(compile(source))
        for form in forms:
            shown = form.colored if name == "dev" else form
            assert shown(made) == line, name
            assert shown(arrived) == first, name


def split(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines of ends and those of arrivals."""
    return lines[: len(FORMATS)], lines[len(FORMATS) :]


def test_a_line_of_an_arrival_is_morgan_s(morgan: Morgan) -> None:
    """With `immediate`, whatever is not known yet is a dash."""
    _, lines = split(morgan.ask(Case("arrival", target="/x", headers={"Content-Length": "5"})))
    assert lines[FORMATS.index("tiny")] == "GET /x - - - - ms\n"
    assert lines[FORMATS.index("dev-plain")] == "GET /x - - ms - -\n"


@pytest.mark.parametrize("name", sorted(SECRET))
def test_a_cookie_is_masked_where_morgan_shows_it(name: str) -> None:
    """And the other fields of the same formats are morgan's."""
    made = ours(next(case for case in CASES if case.name == name))
    shown = [compile(source)(made) for source in FORMATS if "cookie" in source]
    assert all("a=b" not in line and "c=d" not in line for line in shown)
    assert sum("REDACTED" in line for line in shown) == 1


def test_the_process_id_is_a_number() -> None:
    """`:pid` is who wrote the line."""
    assert compile(":pid")(ours(CASES[0])) == f"{os.getpid()}\n"
