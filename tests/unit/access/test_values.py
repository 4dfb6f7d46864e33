"""What is made of header fields: validated ids, user names, lengths."""

from __future__ import annotations

import base64

import pytest

from h2log.access.values import (
    client_request_id,
    host_and_port,
    remote_user,
    request_field,
    response_field,
    traceparent,
)
from tests.access.records import REQUEST, Answer, Facts, basic, record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def with_field(name: bytes, *values: bytes) -> Facts:
    return Facts(fields=tuple((name, value) for value in values))


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (f"00-{TRACE}-01", f"00-{TRACE}-01"),
        (f"00-{TRACE}-ff", f"00-{TRACE}-ff"),
        (f"01-{TRACE}-01", f"01-{TRACE}-01"),
        (f"cc-{TRACE}-01-what\n", f"cc-{TRACE}-01"),
        (f"cc-{TRACE}-01.what", None),
        (f"00-{TRACE}-01-what", None),
        (f"ff-{TRACE}-01", None),
        (f"00-{TRACE.upper()}-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{'1' * 32}-{'0' * 16}-01", None),
        (f"00-{TRACE}-1", None),
        (f"00-{TRACE}-01\n", None),
        (f" 00-{TRACE}-01", None),
        ("", None),
        ("-", None),
    ],
)
def test_a_traceparent_is_valid_or_none(value: str, known: str | None) -> None:
    """W3C Trace Context, section 3.2."""
    assert traceparent(record(with_field(b"traceparent", value.encode()))) == known


def test_two_traceparents_are_none() -> None:
    """Nobody can tell which of them is meant."""
    value = f"00-{TRACE}-01".encode()
    assert traceparent(record(with_field(b"traceparent", value, value))) is None


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (b"abc-123", "abc-123"),
        (b"!~", "!~"),
        (b"a" * 200, "a" * 200),
        (b"a" * 201, None),
        (b"a b", None),
        (b"a\n", None),
        (b"\xe9", None),
        (b"", None),
    ],
)
def test_a_client_s_request_id_is_visible_ascii(value: bytes, known: str | None) -> None:
    """Up to 200 characters of it; anything else is no id."""
    assert client_request_id(record(with_field(b"x-request-id", value))) == known


@pytest.mark.parametrize(
    ("value", "user"),
    [
        (basic(b"jo"), "jo"),
        (basic(b"jo", b""), "jo"),
        (basic(b"J\xc3\xb6"), "J\xc3\xb6"),
        (basic(b"a\nb"), "a\nb"),
        (basic(b"a\xff"), "a\xff"),
        (basic(b""), None),
        (basic(b"jo", b"a\nb"), None),
        (b"Basic " + base64.b64encode(b"no colon"), None),
        (b"Basic " + base64.b64encode(b"tj:abc") + b"A", "tj"),  # half a byte too many
        (b"basic  " + base64.b64encode(b"tj:a").rstrip(b"=") + b" ", "tj"),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Basic A", None),
        (b"Basic \xff\xff", None),
        (b"Digest username=jo", None),
        (b"", None),
    ],
)
def test_a_user_is_decoded_safely(value: bytes, user: str | None) -> None:
    """Whatever the credentials are, they are a name or nothing, and never an error."""
    assert remote_user(record(with_field(b"authorization", value))) == user


def test_a_later_request_is_not_told_of_by_an_earlier_s_fields() -> None:
    """Fields are remembered for one line at a time."""
    one, two = record(with_field(b"x-any", b"1")), record(with_field(b"x-any", b"2"))
    assert [request_field(made, b"x-any") for made in (one, two, one, two)] == ["1", "2", "1", "2"]


@pytest.mark.parametrize("status", [204, 304])
def test_no_content_has_no_length(status: int) -> None:
    """204 and 304 have a content-length only where the handler says so."""
    assert response_field(record(status=status, answer=Answer([], 0)), "content-length") is None
    said = Answer([("content-length", "7")], 0)
    assert response_field(record(status=status, answer=said), "content-length") == "7"


def test_a_response_s_fields() -> None:
    """The handler's, all of a name, the length, and the id that was sent."""
    made = record(answer=Answer([("set-cookie", "a"), ("set-cookie", "b")], 6213))
    assert response_field(made, "set-cookie") == "a, b"
    assert response_field(made, "content-length") == "6213"
    assert response_field(made, "x-request-id") == REQUEST
    assert response_field(made, "server") is None
    assert response_field(record(status=0), "x-request-id") is None


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("example.org", "example.org", None),
        ("example.org:443", "example.org", 443),
        ("[::1]:8443", "[::1]", 8443),
        ("[::1]", "[::1]", None),
        (":80", "", 80),
        ("a:080", "a:080", None),
        ("a:", "a:", None),
        ("a:٤", "a:٤", None),
        ("", "", None),
    ],
)
def test_an_authority_is_a_host_and_a_port(authority: str, host: str, port: int | None) -> None:
    """Split only where the two joined are the same text again."""
    assert host_and_port(authority) == (host, port)
