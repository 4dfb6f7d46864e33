"""Networks: which addresses are in them, and what is none."""

from __future__ import annotations

import pytest

from h2log.errors import UsageError
from h2log.server.networks import Networks, check_network, plain_address


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        (["10.0.0.0/8"], ["10.1.2.3", "::ffff:10.0.0.1"], ["11.0.0.1", "::1", "unix:", ""]),
        (["192.0.2.1"], ["192.0.2.1"], ["192.0.2.2"]),
        (["2001:db8::/32"], ["2001:db8::1", "2001:DB8:0::1"], ["2001:db9::1", "10.0.0.1"]),
        (["fe80::/10"], ["fe80::1%eth0"], ["fe80"]),
        (["unix"], ["unix:"], ["127.0.0.1"]),
        (["*"], ["unix:", "127.0.0.1", "::1", "anything"], []),
        (["10.0.0.0/8", "unix", "::1"], ["10.0.0.1", "unix:", "::1"], ["127.0.0.1"]),
        ([], [], ["127.0.0.1", "unix:"]),
    ],
)
def test_what_is_inside(networks: list[str], inside: list[str], outside: list[str]) -> None:
    """Addresses in any form; a second look says the same as the first."""
    found = Networks(networks)
    assert bool(found) is bool(networks)
    for _ in range(2):
        assert [address for address in inside if address not in found] == []
        assert [address for address in outside if address in found] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.1/8", 'has bits beyond its prefix; did you mean "10.0.0.0/8"?'),
        ("localhost", 'is no network; give one such as "10.0.0.0/8", an address, "unix" or "*"'),
        ("10.0.0.0/33", "is no network"),
        ("", "is no network"),
        ("10.0.0.0/8,unix", "is no network"),
    ],
)
def test_what_is_none(text: str, complaint: str) -> None:
    """The text and the remedy are told."""
    for make in (check_network, lambda one: Networks([one])):
        with pytest.raises(UsageError) as caught:
            make(text)
        assert complaint in str(caught.value)
        assert repr(text) in str(caught.value)


def test_the_memory_of_answers_is_bounded() -> None:
    """However many addresses ask, and the answers stay right."""
    found = Networks(["10.0.0.0/16"])
    for n in range(70_000):
        assert (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" in found) is (n < 65_536)
    assert len(found._known) <= 4096


def test_the_usual_form_of_an_address() -> None:
    """Short, lower case, an IPv4 address as itself; no scope, no port."""
    assert plain_address("2001:DB8:0:0::1") == "2001:db8::1"
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    for text in ("fe80::1%eth0", "192.0.2.1:80", "[::1]", "1", "", "01.2.3.4"):
        assert plain_address(text) is None
