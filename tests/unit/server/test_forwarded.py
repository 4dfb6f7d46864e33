"""Forwarded and X-Forwarded-*: whom they name, and whom they cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.access.record import Origin, Session
from h2log.server.forwarded import UNKNOWN, Forwarded, Origins, Style, forwarded
from h2log.server.networks import Networks

TRUSTED = Networks(["10.0.0.0/8", "unix", "2001:db8::/64"])


def fields(text: str) -> list[tuple[bytes, bytes]]:
    """Return header fields of lines."""
    pairs = (line.strip().partition(": ") for line in text.strip().splitlines())
    return [(name.lower().encode(), value.encode("latin-1")) for name, _, value in pairs]


def client_of(text: str) -> str:
    """Return the client that the fields name, with its port; nothing when they name none."""
    found = forwarded(fields(text), TRUSTED)
    if found is None or found.client in (None, UNKNOWN):
        return ""
    assert found.client is not None
    return f"{found.client[0]} {found.client[1]}"


@pytest.mark.parametrize(
    ("text", "client"),
    [
        # RFC 7239 section 4 and 6.
        ('Forwarded: for="_gazonk"', ""),
        ('Forwarded: For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17 4711"),
        ("Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60 0"),
        ("Forwarded: for=192.0.2.43, for=198.51.100.17", "198.51.100.17 0"),
        ("Forwarded: for=192.0.2.43, for=10.0.0.1", "192.0.2.43 0"),
        ('Forwarded: for=192.0.2.43, for="[2001:db8::17]"', "192.0.2.43 0"),
        ("Forwarded: for=192.0.2.43\nForwarded: for=10.0.0.9", "192.0.2.43 0"),
        ("Forwarded: for=unknown", ""),
        ("Forwarded: for=unknown, for=10.0.0.1", "10.0.0.1 0"),
        ("Forwarded: for=_hidden, for=10.0.0.1", "10.0.0.1 0"),
        ('Forwarded: for="192.0.2.1:_port"', "192.0.2.1 0"),
        ('Forwarded: for="192.0.2\\.1:80"', "192.0.2.1 80"),
        ("Forwarded: ; for=192.0.2.1 ;, ,", "192.0.2.1 0"),
        ("Forwarded: for=10.0.0.1, for=10.0.0.2", "10.0.0.1 0"),
        # Malformed.
        ("Forwarded: for=192.0.2.1:80", ""),
        ("Forwarded: for=[2001:db8::1]", ""),
        ('Forwarded: for="192.0.2.1', ""),
        ("Forwarded: for=192.0.2.1;for=192.0.2.2", ""),
        ("Forwarded: for = 192.0.2.1", ""),
        ("Forwarded: 192.0.2.1", ""),
        ("Forwarded: ", ""),
        ('Forwarded: for="192.0.2.1:65536"', ""),
        ('Forwarded: for="192.0.2.1:"', ""),
        # What proxies write.
        ("X-Forwarded-For: 192.0.2.1", "192.0.2.1 0"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1", "192.0.2.1 0"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1,10.0.0.2", "192.0.2.1 0"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1\nX-Forwarded-For: 10.2.3.4", "192.0.2.1 0"),
        ("X-Forwarded-For: 10.0.0.2, 10.0.0.1", "10.0.0.2 0"),
        ("X-Forwarded-For: 192.0.2.1, unix:", "192.0.2.1 0"),
        ("X-Forwarded-For: nonsense, 10.0.0.1", "10.0.0.1 0"),
        ("X-Forwarded-For: 192.0.2.1, nonsense", ""),
        ("X-Forwarded-For: 192.0.2.1,", ""),
        ("X-Forwarded-For: 192.0.2.1:5678", "192.0.2.1 5678"),
        ("X-Forwarded-For: [2001:db8:9::1]:5678", "2001:db8:9::1 5678"),
        ("X-Forwarded-For: [2001:db8:9::1]", "2001:db8:9::1 0"),
        ("X-Forwarded-For: 2001:db8:9::1", "2001:db8:9::1 0"),
        ("X-Forwarded-For: ::ffff:192.0.2.1", "192.0.2.1 0"),
        ("X-Forwarded-For: ", ""),
        ("X-Real-IP: 192.0.2.1", ""),
    ],
)
def test_the_client_is_the_last_that_is_not_trusted(text: str, client: str) -> None:
    """Lists are walked from their end; what nobody trusted has written means nothing."""
    assert client_of(text) == client


@pytest.mark.parametrize(
    ("text", "scheme", "host"),
    [
        ("Forwarded: for=1.1.1.1;proto=HTTPS;host=example.org", "https", "example.org"),
        ('Forwarded: for=1.1.1.1;host="example.org:8443"', None, "example.org:8443"),
        ('Forwarded: proto=https;host="[::1]:80"', "https", "[::1]:80"),
        # Of the element that names the client, not of another's.
        (
            "Forwarded: for=6.6.6.6;host=evil, for=1.1.1.1;proto=https;host=a, "
            "for=10.0.0.1;proto=http;host=b",
            "https",
            "a",
        ),
        ("Forwarded: for=1.1.1.1;proto=gopher", None, None),
        ('Forwarded: for=1.1.1.1;host="a b"', None, None),
        ('Forwarded: for=1.1.1.1;host="user@a"', None, None),
        ("X-Forwarded-Proto: https", "https", None),
        ("X-Forwarded-Proto: wss\nX-Forwarded-Host: a.example:1", "https", "a.example:1"),
        ("X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: http, https", "https", None),
        (
            "X-Forwarded-For: 1.1.1.1, 10.0.0.1\nX-Forwarded-Proto: https, http\n"
            "X-Forwarded-Host: a, b",
            "https",
            "a",
        ),
        (
            "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.1\nX-Forwarded-Proto: http, https, http",
            "https",
            None,
        ),
        ("X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https;", None, None),
        ("X-Forwarded-For: 1.1.1.1\nX-Forwarded-Host: a/b", None, None),
    ],
)
def test_scheme_and_host_are_the_client_s(text: str, scheme: str | None, host: str | None) -> None:
    """They stand beside the client; where the lists differ in length, the last one counts."""
    found = forwarded(fields(text), TRUSTED) or Forwarded()
    assert (found.scheme, found.host) == (scheme, host)


BOTH = "Forwarded: for=6.6.6.6;host=evil\nX-Forwarded-For: 192.0.2.1"


@pytest.mark.parametrize(
    ("style", "client"),
    [("auto", UNKNOWN), ("forwarded", ("6.6.6.6", 0)), ("x-forwarded", ("192.0.2.1", 0))],
)
def test_the_client_s_own_forwarded_is_not_believed(
    style: Style, client: tuple[str, int] | None
) -> None:
    """A proxy writes one and passes the other on: unless it is named, neither counts."""
    told: list[bool] = []
    found = forwarded(fields(BOTH), TRUSTED, style, lambda: told.append(True))
    assert (found and found.client) == client
    assert told == ([True] if style == "auto" else [])


def test_both_may_say_the_same() -> None:
    """Some proxies write both."""
    text = "Forwarded: for=192.0.2.1;proto=https\nX-Forwarded-For: 192.0.2.1\n"
    assert forwarded(fields(text + "X-Forwarded-Proto: https"), TRUSTED) == Forwarded(
        ("192.0.2.1", 0), "https"
    )
    assert forwarded(fields(text), TRUSTED) == Forwarded(UNKNOWN), "the scheme is one's alone"


@pytest.mark.parametrize(
    "text",
    [
        'Forwarded: for="6.6.6.6, for=192.0.2.1',
        'Forwarded: "\nForwarded: for=192.0.2.1',
        "Forwarded: for=6.6.6.6;for=6.6.6.6, for=192.0.2.1",
        "X-Forwarded-For: 192.0.2.1\nForwarded: x",
        "X-Forwarded-For: 192.0.2.1\nForwarded: for=6.6.6.6",
        "Forwarded: for=_hidden",
        "X-Forwarded-For: 192.0.2.1, unknown",
    ],
)
def test_nobody_becomes_the_proxy(text: str) -> None:
    """A client that makes its proxy's word unreadable is unknown: the proxy's address is not its.

    Only a proxy that tells nothing of clients at all leaves its own.
    """
    origins = Origins(TRUSTED)
    proxy = Session("s", "10.0.0.1", 4711, 0.0, lambda record: None)
    assert origins.of(proxy, fields(text), "http") == Origin(UNKNOWN, "http", "")
    told = origins.of(proxy, fields("Forwarded: proto=https"), "http")
    assert told == Origin(("10.0.0.1", 4711), "https", "")


def test_only_a_trusted_peer_is_asked() -> None:
    """Anybody else's fields mean nothing; what is not told stays as it is."""
    origins = Origins(TRUSTED)
    asked = fields("X-Forwarded-For: 192.0.2.1")
    ours = Session("s", "10.0.0.1", 4711, 0.0, lambda record: None)
    theirs = Session("s", "192.0.2.7", 4711, 0.0, lambda record: None)
    assert origins.of(ours, asked, "http") == Origin(("192.0.2.1", 0), "http", "")
    assert origins.of(theirs, asked, "http") is None
    assert origins.of(ours, [], "http") is None
    told = origins.of(ours, fields("X-Forwarded-Proto: https\nX-Forwarded-Host: a"), "http")
    assert told == Origin(("10.0.0.1", 4711), "https", "a")


NAMES = st.sampled_from(
    ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "other"]
)
PIECES = st.sampled_from(
    ["for=", "proto=", "host=", "10.0.0.1", "192.0.2.1", '"', "\\", ";", ",", " ", "[", "]", ":",
     "::1", "unknown", "_x", "https", "unix:", "\x80", "=", "80"]
)  # fmt: skip


@given(st.lists(st.tuples(NAMES, st.lists(PIECES, max_size=30).map("".join)), max_size=5))
def test_any_fields_are_read_or_ignored(pairs: list[tuple[str, str]]) -> None:
    """Nothing raises; what comes out can be written to a line and to a scope."""
    found = forwarded([(n.encode(), v.encode("latin-1")) for n, v in pairs], TRUSTED)
    if found is not None:
        assert found != Forwarded()
        assert found.scheme in (None, "http", "https")
        assert found.host is None or (found.host and " " not in found.host)
        if found.client is not None:
            assert " " not in found.client[0] and 0 <= found.client[1] <= 65535


def test_a_long_list_takes_no_long_time() -> None:
    """A field as long as a header may be is read once from end to end."""
    long = b'for="' + b"\\a" * 16_000
    assert forwarded([(b"forwarded", long)], TRUSTED) == Forwarded(UNKNOWN)
    hops = b", ".join([b"10.0.0.1"] * 3_000)
    found = forwarded([(b"x-forwarded-for", b"192.0.2.1, " + hops)], TRUSTED)
    assert found is not None and found.client == ("192.0.2.1", 0)
