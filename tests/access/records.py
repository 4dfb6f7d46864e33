"""Records as a server would make them, for tests of what is told of them."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from h2log.access.record import AccessRecord, Detail, Outcome, Session, TlsFacts

SESSION: Final = "0193a0b1c2d37e4f8a9b0c1d2e3f4a5b"
REQUEST: Final = "0193a0b1c2d47e4f8a9b0c1d2e3f4a5c"
WALL: Final = datetime(2026, 11, 20, 13, 31, 59, 125000, UTC).timestamp()


@dataclass(frozen=True)
class Facts:
    """What was asked."""

    method: str = "GET"
    path: str = "/a"
    scheme: str = "https"
    authority: str = "localhost:8443"
    fields: tuple[tuple[bytes, bytes], ...] = ()


@dataclass
class Answer:
    """What was answered."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    length: int | None = None
    route: str = ""

    def content_length(self) -> int | None:
        return self.length


def record(
    facts: Facts | None = None,
    *,
    status: int = 200,
    answer: Answer | None = None,
    protocol: str = "h2",
    wall: float = WALL,
    took: float = 0.0078125,
    outcome: Outcome | None = Outcome.COMPLETE,
    tls: TlsFacts | None = None,
    detail: dict[str, Any] | None = None,
    alpn: str = "",
    **fields: Any,
) -> AccessRecord:
    """Return a record that took `took` seconds; `fields` and `detail` are set on it as they are."""
    session = Session(SESSION, "192.0.2.1", 40000, wall, lambda _: None)
    session.protocol, session.tls, session.alpn = protocol, tls, alpn
    made = AccessRecord(session, facts or Facts(), REQUEST, 1, wall, 100.0)
    made.status, made.end, made.outcome = status, 100.0 + took, outcome
    made.response = answer or (Answer() if status else None)
    if detail is not None:
        made.detail = Detail()
        made.detail.headers_at = made.detail.first_byte_at = made.end
        for name, value in detail.items():
            setattr(made.detail, name, value)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def basic(user: bytes, password: bytes = b"secret") -> bytes:
    """Return credentials of Basic authentication."""
    return b"Basic " + base64.b64encode(user + b":" + password)


def varied(dice: random.Random) -> AccessRecord:
    """Return a record as ordinary traffic has them."""
    fields = []
    if dice.random() < 0.9:
        fields.append((b"user-agent", dice.choice(AGENTS)))
    if dice.random() < 0.5:
        fields.append((b"referer", dice.choice([b"https://example.org/a?b=c", b"-", b"a b", b""])))
    if dice.random() < 0.3:
        fields.append(
            (b"authorization", basic(dice.choice([b"jo", b"J\xc3\xb6 D", b"a[b]", b'"'])))
        )
    status = dice.choice([200, 200, 204, 206, 301, 304, 400, 404, 429, 500, 503])
    made = record(
        Facts(
            dice.choice(["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
            dice.choice(PATHS) + str(dice.randrange(1000)),
            "https",
            dice.choice(["localhost:8443", "example.org", "[::1]:8443"]),
            tuple(fields),
        ),
        status=status,
        answer=Answer(
            [("content-type", dice.choice(["text/html; charset=utf-8", "image/png"]))],
            dice.choice([None, 0, 6213]),
        ),
        protocol=dice.choice(["h2", "h2", "1.1", "1.0"]),
        wall=WALL + dice.random() * 100_000,
        took=dice.choice([0.0, 0.00005, 0.007, 1.5, 61.0]),
        outcome=dice.choice([Outcome.COMPLETE, Outcome.CLIENT_RESET, Outcome.HANDLER_ERROR]),
        tls=dice.choice([None, TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost", False)]),
        sent=dice.choice([0, 6213, 10**10]),
    )
    made.session.client = dice.choice(["192.0.2.1", "2001:db8::1"])
    return made


AGENTS: Final = (
    b"curl/8.5.0",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    b'say "cheese" \\ and \t smile',
    b"caf\xc3\xa9 \xe2\x80\xa8 caf\xe9",
    b"-",
    b"",
)
PATHS: Final = (
    "/",
    "/a?b=c&d=",
    "/a%20b/",
    "/caf\xc3\xa9/",
    "/\xff\\x22",
    '/"quoted"/',
    "/a b/",
    "/[/",
)
