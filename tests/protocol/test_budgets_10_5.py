"""RFC 9113 section 10.5: floods of frames that are each allowed, and what a peer may spend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from h2log.http2.budget import BUDGETS, MAX_CONTROL_OUTPUT, Budget
from h2log.http2.settings import EngineLimits
from tests.protocol.frames import (
    data,
    headers,
    ping,
    plain,
    priority,
    raw,
    rst_stream,
    settings,
    window_update,
)
from tests.protocol.wire import GET, Peer, with_sibling

MALFORMED = plain([*GET, (b"te", b"gzip")])
URGENCY = raw(0x10, 0, 0, b"\0\0\0\x01u=1")

FLOODS: dict[str, list[Callable[[int], bytes]]] = {
    "rapid_reset": [
        lambda n: headers(3 + 2 * n, plain(GET)) + rst_stream(3 + 2 * n),
    ],
    "server_reset": [
        lambda n: headers(3 + 2 * n, MALFORMED),
        lambda n: headers(3 + 2 * n, plain(GET)) + window_update(3 + 2 * n, 0),
        lambda n: headers(3 + 2 * n, plain(GET)) + data(3 + 2 * n, b"x"),
    ],
    "ping": [lambda n: ping()],
    "settings": [lambda n: settings(), lambda n: settings((3, n))],
    "priority": [lambda n: priority(1), lambda n: priority(99), lambda n: URGENCY],
    "window_update": [lambda n: window_update(0, 1) * (8 if n == 0 else 1)],
    "empty_data": [lambda n: data(1, b""), lambda n: data(1, b"", pad=9)],
    "stray_frame": [
        lambda n: (headers(3, MALFORMED) if n == 0 else b"") + data(3, b""),
        lambda n: (headers(3, MALFORMED) if n == 0 else b"") + headers(3, plain(GET)),
    ],
    "unknown_frame": [lambda n: raw(0x1F, 0, 0), lambda n: raw(0xFF, 0xFF, 1, b"abc")],
}
CASES = [
    pytest.param(name, flood, id=f"{name} {n}")
    for name, floods in FLOODS.items()
    for n, flood in enumerate(floods)
]
ALLOWED = 8


def limited(name: str) -> EngineLimits:
    """Return limits with this one budget small: eight at once, and one each two seconds."""
    return EngineLimits(budgets={**BUDGETS, name: Budget(ALLOWED, 0.5)})


def test_rfc9113_10_5_every_budget_is_tried() -> None:
    """The tests below leave out no budget."""
    assert set(FLOODS) == set(BUDGETS)


@pytest.mark.parametrize(("name", "flood"), CASES)
def test_rfc9113_10_5_flood(name: str, flood: Callable[[int], bytes]) -> None:
    """A peer that spends a budget at once is told to calm down, and which budget it was."""
    peer = with_sibling(limits=limited(name))
    count = 0
    while not peer.conn.closing:
        out = peer.send(flood(count))
        count += 1
        assert count <= 2 * ALLOWED, "nothing stops it"
    peer.is_connection_error(out, ErrorCodes.ENHANCE_YOUR_CALM)
    assert peer.conn.error is not None and name in peer.conn.error.detail
    assert count > ALLOWED or name == "window_update"


@pytest.mark.parametrize(("name", "flood"), CASES)
def test_rfc9113_10_5_no_flood(name: str, flood: Callable[[int], bytes]) -> None:
    """The same frames over a longer time are what an honest peer may send."""
    peer = with_sibling(limits=limited(name))
    for n in range(4 * ALLOWED):
        peer.send(flood(n))
        peer.tick(2.5)
    assert peer.conn.error is None and not peer.conn.closing
    peer.goes_on()


@pytest.mark.parametrize(("name", "flood"), CASES)
def test_rfc9113_10_5_budget_does_not_grow(name: str, flood: Callable[[int], bytes]) -> None:
    """Being quiet for long saves no more than the burst."""
    peer = with_sibling(limits=limited(name))
    peer.send(flood(0))
    peer.tick(1000)
    for n in range(1, 2 * ALLOWED + 10):
        peer.send(flood(n))
    assert peer.conn.error is not None
    assert peer.conn.error.code == ErrorCodes.ENHANCE_YOUR_CALM


def test_rfc9113_10_5_window_updates_of_a_download() -> None:
    """WINDOW_UPDATE frames for what was sent are free."""
    peer = with_sibling(limits=limited("window_update"))
    peer.answer(1, bytes(4_000_000))
    while not (peer.got(1).complete or peer.conn.closing):
        peer.send(window_update(0, 16_384), window_update(1, 16_384))
    assert peer.conn.error is None and peer.got(1).complete


@pytest.mark.parametrize("flood", [ping(), settings()], ids=["ping", "settings"])
def test_rfc9113_10_5_answers_that_nobody_reads(flood: bytes) -> None:
    """Acknowledgements do not gather without end while the peer does not read them."""
    never = dict.fromkeys(BUDGETS, Budget(10**9, 1e9))
    peer = Peer("hold", limits=EngineLimits(budgets=never))
    peer.conn.blocked = True
    for _ in range(MAX_CONTROL_OUTPUT // 9 + 2):
        peer.conn.receive(flood, peer.now)
    assert peer.conn.closing and peer.conn.error is not None
    assert peer.conn.error.code == ErrorCodes.ENHANCE_YOUR_CALM
    assert peer.conn.out_size < MAX_CONTROL_OUTPUT + 1000
