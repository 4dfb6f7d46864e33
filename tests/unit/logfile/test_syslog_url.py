"""URLs of syslog collectors: what they mean, and what is told of those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.errors import UsageError
from h2log.logfile.destination import is_syslog
from h2log.logfile.syslog_url import SyslogUrl


@pytest.mark.parametrize(
    ("url", "transport", "path", "host", "port"),
    [
        ("syslog:", "unix", "/dev/log", "", 0),
        ("syslog://", "unix", "/dev/log", "", 0),
        ("syslog:///dev/log", "unix", "/dev/log", "", 0),
        ("syslog:/run/log", "unix", "/run/log", "", 0),
        ("syslog:///run/a%20b%3F", "unix", "/run/a b?", "", 0),
        ("syslog://logs", "udp", "", "logs", 514),
        ("syslog://logs/", "udp", "", "logs", 514),
        ("syslog://logs:5140", "udp", "", "logs", 5140),
        ("syslog://[2001:db8::1]:5140", "udp", "", "2001:db8::1", 5140),
        ("syslog+tcp://192.0.2.1", "tcp", "", "192.0.2.1", 601),
        ("syslog+tcp://logs.example:1", "tcp", "", "logs.example", 1),
        ("syslog+tls://logs.example", "tls", "", "logs.example", 6514),
        ("syslog+tls://[::1]:65535", "tls", "", "::1", 65535),
    ],
)
def test_places(url: str, transport: str, path: str, host: str, port: int) -> None:
    """A socket or a host; ports are those that IANA has for each transport."""
    found = SyslogUrl.parse(url)
    assert (found.transport, found.path, found.host, found.port) == (transport, path, host, port)
    assert (found.priority, found.app) == (16 * 8 + 6, "h2log")
    assert is_syslog(url)


@pytest.mark.parametrize(
    ("options", "facility", "severity", "app"),
    [
        ("facility=local7", 23, 6, "h2log"),
        ("facility=daemon&severity=err", 3, 3, "h2log"),
        ("severity=emerg&app=shop", 16, 0, "shop"),
        ("app=%21~&facility=kern&severity=debug", 0, 7, "!~"),
        ("severity=warning", 16, 4, "h2log"),
    ],
)
def test_options(options: str, facility: int, severity: int, app: str) -> None:
    """By the names of syslog(3), with the numbers of RFC 5424 section 6.2.1."""
    for base in ("syslog:", "syslog://logs", "syslog+tcp://logs", "syslog+tls://logs"):
        found = SyslogUrl.parse(f"{base}?{options}")
        assert (found.facility, found.severity, found.app) == (facility, severity, app)
        assert found.priority == facility * 8 + severity


def test_options_of_tls() -> None:
    """Who is trusted, and who we are."""
    found = SyslogUrl.parse("syslog+tls://logs?ca=a/ca.pem&cert=/b.pem&key=c%26.pem")
    assert (found.ca, found.cert, found.key) == ("a/ca.pem", "/b.pem", "c&.pem")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("syslog:dev/log", "the socket's path must begin with /"),
        ("syslog:logs:514", "the socket's path must begin with /"),
        ("syslog+udp://logs", "there is no transport 'udp'"),
        ("syslog+://logs", "there is no transport ''"),
        ("syslog:///a%00b", "the socket's path has a NUL character"),
        ("syslog://a..b", "'a..b' is no name of a host"),
        ("syslog+tls://.a", "'.a' is no name of a host"),
        (f"syslog+tcp://{'a' * 64}", "is no name of a host"),
        ("syslog+tcp:", "the host is missing"),
        ("syslog+tcp://", "the host is missing"),
        ("syslog+tls://:6514", "the host is missing"),
        ("syslog+tcp:///dev/log", "the host is missing"),
        ("syslog://logs:0", "the port must be from 1 to 65535"),
        ("syslog://logs:65536", "Port out of range 0-65535"),
        ("syslog://logs:x", "Port could not be cast to integer value as 'x'"),
        ("syslog://[::1", "Invalid IPv6 URL"),
        ("syslog://logs/dev/log", "nothing but options may follow the host"),
        ("syslog://me@logs", "syslog knows no users"),
        ("syslog://logs#1", "it has a #"),
        ("syslog://lo gs", "it has a space or a control character"),
        ("syslog://logs\n", "it has a space or a control character"),
        ("syslog:?facility=local8", "facility must be one of"),
        ("syslog:?facility=LOCAL0", "facility must be one of"),
        ("syslog:?severity=6", "severity must be one of"),
        ("syslog:?app=", "app is empty"),
        ("syslog:?app=a%20b", "app must be 1 to 48 printable ASCII characters"),
        (f"syslog:?app={'a' * 49}", "app must be 1 to 48 printable ASCII characters"),
        ("syslog:?app=caf%C3%A9", "app must be 1 to 48 printable ASCII characters"),
        ("syslog:?app=a&app=b", "app is there twice"),
        ("syslog:?tag=a", "there is no option 'tag'; there are facility, severity, app"),
        ("syslog:?app", "options must be name=value"),
        ("syslog://logs?ca=x", "there is no option 'ca'"),
        ("syslog+tls://logs?key=x", "key is of no use without cert"),
    ],
)
def test_what_names_no_collector(url: str, reason: str) -> None:
    """The message has the url, what is wrong with it, and what would be right; in one line."""
    with pytest.raises(UsageError) as caught:
        SyslogUrl.parse(url)
    text = str(caught.value)
    assert text.startswith(url.replace("\n", "\\n") + ": "), text
    assert reason in text
    assert text.endswith(
        "; expected syslog:, syslog:///SOCKET, syslog://HOST[:PORT], syslog+tcp://HOST[:PORT] or "
        "syslog+tls://HOST[:PORT]"
    )
    assert text.isprintable()


@pytest.mark.parametrize(
    "path", ["", "-", "&2", "syslog", "syslog.log", "./syslog:", "logs/syslog:x", "logger:syslog:"]
)
def test_what_is_meant_as_none(path: str) -> None:
    """Files that have a similar name."""
    assert not is_syslog(path)


@given(st.text(max_size=40), st.sampled_from(["syslog:", "syslog://", "syslog+tls://a?", ""]))
def test_any_text_is_a_collector_or_a_mistake(text: str, begin: str) -> None:
    """And nothing else is raised."""
    told = ""
    try:
        found = SyslogUrl.parse(begin + text)
    except UsageError as error:
        told = str(error)
    assert told.isprintable()
    if not told:
        assert found.path.startswith("/") or (found.host and 1 <= found.port <= 65535)
