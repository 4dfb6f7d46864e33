"""Cookies (RFC 6265bis): a tolerant reader, a strict writer, and the one reads the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.cookies import parse_cookies, set_cookie

# Reading


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], {}),
        ([""], {}),
        ([";; ;"], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (["a=1;b=2"], {"a": "1", "b": "2"}),
        (["a=1;\tb=2 ;"], {"a": "1", "b": "2"}),
        (["a = 1"], {"a": "1"}),
        (["a="], {"a": ""}),
        (["a=b=c"], {"a": "b=c"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=1; a=2"], {"a": "1"}),
        (["a=1", "a=2"], {"a": "1"}),
        (["A=1; a=2"], {"A": "1", "a": "2"}),
        (['a="1"'], {"a": "1"}),
        (['a="1'], {"a": '"1'}),
        (['a="'], {"a": '"'}),
        (['a=""'], {"a": ""}),
        (["a; b=2"], {"b": "2"}),
        (["=1; b=2"], {"b": "2"}),
        (["a=%C3%A9%20%3B"], {"a": "é ;"}),
        (["a=100%"], {"a": "100%"}),
        (["a=%zz%4"], {"a": "%zz%4"}),
        (["a=%E9"], {"a": "�"}),
        (["a=\xc3\xa9"], {"a": "é"}),
        (["a=\xe9"], {"a": "�"}),
        (["a=a b"], {"a": "a b"}),
        (["a+b=1+2"], {"a+b": "1+2"}),
        (["$Version=1; a=1; $Path=/"], {"$Version": "1", "a": "1", "$Path": "/"}),
    ],
)
def test_what_clients_send_is_read(values: list[str], found: dict[str, str]) -> None:
    """Pairs in order, the first of a name; what is no pair is passed over."""
    assert parse_cookies(values) == found


@pytest.mark.parametrize(
    "sent",
    [
        "__%48ost-id=evil",  # a coded name
        "=__Host-id=evil",  # no name: some clients send its value as it is
        "\xa0__Host-id=evil",  # blanks that a server might take off
        "\x0b__Host-id=evil",
        "__Host-id\xa0=evil",
        "__host-id=evil",
    ],
)
def test_nothing_passes_for_a_prefixed_name(sent: str) -> None:
    """What a page without TLS, or of another host, can set is never read as `__Host-id`."""
    assert "__Host-id" not in parse_cookies([sent])


@given(st.lists(st.text(st.characters(max_codepoint=255))))
def test_whatever_is_sent_is_read(values: list[str]) -> None:
    """No field value is an error, and no name is empty or has a separator in it."""
    for name in parse_cookies(values):
        assert name
        assert not set(name) & set(";=")


# Writing


def test_by_default_a_cookie_is_a_careful_one() -> None:
    """Of the whole site, over TLS alone, hidden from scripts and from other sites."""
    assert set_cookie("a", "1") == "a=1; Path=/; Secure; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({"path": None, "secure": False, "http_only": False, "same_site": None}, ""),
        ({"max_age": 0}, "; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"max_age": 86400}, "; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"expires": 0},
            "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        (
            {"expires": datetime(2030, 2, 3, 4, 5, 6, tzinfo=UTC)},
            "; Expires=Sun, 03 Feb 2030 04:05:06 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        (
            {"expires": datetime(2030, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))},
            "; Expires=Sun, 03 Feb 2030 02:05:06 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        (
            {"domain": "Example.org", "path": "/a b/c"},
            "; Domain=example.org; Path=/a b/c; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"same_site": "None"}, "; Path=/; Secure; HttpOnly; SameSite=None"),
        (
            {"same_site": "Strict", "secure": False},
            "; Path=/; HttpOnly; SameSite=Strict",
        ),
        ({"partitioned": True}, "; Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned"),
    ],
)
def test_each_attribute_is_written(options: dict[str, Any], end: str) -> None:
    """In the words and the form of section 4.1.1."""
    assert set_cookie("a", "1", **options) == f"a=1{end}"


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a=b", "a;b", "a,b", "é", "a\r\nb", "a\0", "\t", '"a"', "a/b", "[a]", "{a}"],
)
def test_a_name_is_a_token(name: str) -> None:
    """What is none would end up as another cookie, or as none."""
    with pytest.raises(ValueError, match="invalid cookie name"):
        set_cookie(name, "1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_age": -1}, "max_age of cookie a must be whole seconds, got -1"),
        ({"max_age": 1.5}, "max_age of cookie a"),
        ({"max_age": True}, "max_age of cookie a"),
        ({"max_age": "10"}, "max_age of cookie a"),
        ({"expires": datetime(2030, 1, 1)}, "no time zone"),
        ({"expires": 1e18}, "from 1970 to 9999"),
        ({"expires": -1}, "from 1970 to 9999"),
        ({"expires": float("nan")}, "from 1970 to 9999"),
        ({"domain": ".example.org"}, "without a leading dot"),
        ({"domain": ""}, "invalid domain"),
        ({"domain": "exämple.org"}, "in ASCII"),
        ({"domain": "a;b"}, "invalid domain"),
        ({"domain": "-a.org"}, "invalid domain"),
        ({"domain": "a." * 127 + "org"}, "invalid domain"),
        ({"domain": "example.org:8443"}, "invalid domain"),
        ({"path": "a"}, "must begin with /"),
        ({"path": ""}, "must begin with /"),
        ({"path": "/a;b"}, "without semicolons"),
        ({"path": "/a\r\nX: y"}, "invalid path"),
        ({"path": "/é"}, "invalid path"),
        ({"path": "/a "}, "invalid path"),
        ({"path": "/" * 1025}, "invalid path"),
        ({"same_site": "lax"}, "must be Strict, Lax or None, got 'lax'"),
        ({"same_site": "None", "secure": False}, "same_site None must be secure"),
        ({"partitioned": True, "secure": False}, "partitioned must be secure"),
    ],
)
def test_what_a_client_would_misread_is_refused(options: dict[str, Any], said: str) -> None:
    """Each is a ValueError that says which and why."""
    with pytest.raises(ValueError, match=said):
        set_cookie("a", "1", **options)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("__Secure-a", {"secure": False}, "must be secure, by its prefix"),
        ("__Host-a", {"secure": False}, "must be secure"),
        ("__Host-a", {"domain": "example.org"}, "no domain and the path /"),
        ("__Host-a", {"path": "/a"}, "no domain and the path /"),
        ("__Host-a", {"path": None}, "no domain and the path /"),
        ("__HOST-a", {"path": "/a"}, "no domain and the path /"),
        ("__secure-a", {"secure": False}, "must be secure"),
        ("__Http-a", {"http_only": False}, "must be http_only"),
        ("__Http-a", {"secure": False}, "must be secure"),
        ("__Host-Http-a", {"http_only": False}, "must be http_only"),
        ("__Host-Http-a", {"path": "/a"}, "no domain and the path /"),
        ("__HostHttp-a", {"http_only": False}, "must be http_only"),
        ("__HostHttp-a", {"domain": "a.org"}, "no domain and the path /"),
    ],
)
def test_a_prefix_is_a_promise(name: str, options: dict[str, Any], said: str) -> None:
    """Clients drop a cookie whose attributes do not keep what its name promises (4.1.3)."""
    with pytest.raises(ValueError, match=said):
        set_cookie(name, "1", **options)


@pytest.mark.parametrize(
    "name", ["__Host-a", "__Secure-a", "__Http-a", "__Host-Http-a", "__HostHttp-a", "__other"]
)
def test_a_kept_promise_is_no_error(name: str) -> None:
    """The defaults keep every one."""
    assert set_cookie(name, "1").startswith(f"{name}=1; ")


def test_a_cookie_has_a_size() -> None:
    """4,096 bytes of name and value are kept by a client, one more is not."""
    assert set_cookie("a", "x" * 4095)
    with pytest.raises(ValueError, match="4097 bytes"):
        set_cookie("a", "x" * 4096)
    with pytest.raises(ValueError, match="keep the data on the server"):
        set_cookie("a", "é" * 1000)


def test_a_value_is_a_text() -> None:
    """Anything else is a TypeError, not its repr in a cookie."""
    value: Any = 1
    with pytest.raises(TypeError, match="the value of cookie a is int, expected str"):
        set_cookie("a", value)


def test_other_values_are_coded() -> None:
    """Separators, quotes, blanks, controls, percent signs and what is no ASCII."""
    assert set_cookie("a", 'a;b,c"d\\e f%g\r\né').startswith(
        "a=a%3Bb%2Cc%22d%5Ce%20f%25g%0D%0A%C3%A9; "
    )
    assert set_cookie("a", "!#$&'()*+-./:<=>?@[]^_`{|}~09azAZ").startswith(
        "a=!#$&'()*+-./:<=>?@[]^_`{|}~09azAZ; "
    )


@given(st.text(max_size=300))
def test_what_is_written_is_read_again(value: str) -> None:
    """Every text comes back as it was, and the field is one line of ASCII."""
    try:
        field = set_cookie("a", value)
    except UnicodeEncodeError:  # a lone surrogate is no text
        assert not value.isprintable()
        return
    assert field.isascii()
    assert field.isprintable()
    pair = field.split("; ")[0]
    assert parse_cookies([f"b=1; {pair}"]) == {"b": "1", "a": value}


def test_pythons_own_reader_agrees() -> None:
    """`http.cookies` finds the same value and attributes."""
    field = set_cookie("theme", "dark", max_age=60, domain="example.org", path="/a")
    [morsel] = SimpleCookie(field).values()
    assert (morsel.key, morsel.value) == ("theme", "dark")
    assert (morsel["max-age"], morsel["domain"], morsel["path"]) == ("60", "example.org", "/a")
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Lax")
