"""RFC 9218: what a client says of urgency, and the order in which responses are sent for it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from h2log import App
from h2log.http2.head import RequestHead
from h2log.http2.priority import DEFAULT_URGENCY, Turns, parse_priority
from h2log.http2.settings import EngineLimits
from h2log.http2.stream import Stream
from h2log.server.certificates import Certificates
from tests.protocol.frames import (
    DEFAULT_FRAME_SIZE,
    INITIAL_WINDOW_SIZE,
    DataFrame,
    Frame,
    SettingsFrame,
    headers,
    plain,
    raw,
    settings,
    window_update,
)
from tests.protocol.wire import GET, Peer, with_sibling
from tests.server.wire import RawClient
from tests.support import PATIENCE, Running

NO_RFC7540_PRIORITIES = 0x9
WIDE = 2**24


def update(target: int, value: bytes, *, on: int = 0) -> bytes:
    """Return a PRIORITY_UPDATE frame."""
    return raw(0x10, 0, on, struct.pack(">I", target) + value)


# Section 4: the parameters

VALUES: dict[bytes, tuple[int, bool]] = {
    b"": (3, False),
    b"u=0": (0, False),
    b"u=7": (7, False),
    b"i": (3, True),
    b"i=?1": (3, True),
    b"i=?0": (3, False),
    b"u=5, i": (5, True),
    b"u=5,i": (5, True),
    b"i, u=5": (5, True),
    b"i  ,\t u=1": (1, True),
    b"u=1, u=6": (6, False),  # the last of several (RFC 8941 section 3.2)
    b"i, i=?0": (3, False),
    b"i=?0, i": (3, True),
    b"u=1;a=b;c": (1, False),  # parameters of a member are ignored
    b"i;a, u=2": (2, True),
    b"u=1;i": (1, False),
    b"u=4, x, y=1.5, z=(a b), w=tok": (4, False),  # unknown members
    b"x=:aGk=:, u=2": (2, False),
    b"u=8": (3, False),  # out of range
    b"u=-1": (3, False),
    b"u=999999999999999": (3, False),
    b"u=1.0": (3, False),  # not an Integer
    b'u="1"': (3, False),
    b"u": (3, False),
    b"u=?1": (3, False),
    b"i=1": (3, False),  # not a Boolean
    b"i=?2": (3, False),
    b"U=1": (3, False),  # no key is in upper case
    b"u=01": (1, False),  # digits, leading ones may be 0 (RFC 8941 section 4.2.4)
    b"u=0005": (5, False),
    b"uu=1, ii": (3, False),
    b"u=1x": (3, False),
    b"\xff\x00": (3, False),
}


@pytest.mark.parametrize(("value", "meaning"), VALUES.items(), ids=[repr(v) for v in VALUES])
def test_rfc9218_4_parameters(value: bytes, meaning: tuple[int, bool]) -> None:
    """Urgency and incremental; what is unknown, of a wrong type or out of range is ignored."""
    assert parse_priority(value) == meaning


@given(st.binary(max_size=80))
def test_rfc9218_4_any_bytes(value: bytes) -> None:
    """Whatever a peer says has a meaning that is in range."""
    urgency, _ = parse_priority(value)
    assert 0 <= urgency <= 7


# Section 2.1


def test_rfc9218_2_1_setting() -> None:
    """The first SETTINGS frame says that the priorities of RFC 7540 have no effect."""
    [first, *_] = Peer(shake=False).greeting
    assert isinstance(first, SettingsFrame)
    assert (NO_RFC7540_PRIORITIES, 1) in first.values


@pytest.mark.parametrize("value", [2, 2**32 - 1])
def test_rfc9218_2_1_setting_out_of_range(value: int) -> None:
    """A value but 0 and 1 is the connection's PROTOCOL_ERROR."""
    peer = with_sibling()
    frames = peer.send(settings((NO_RFC7540_PRIORITIES, value)))
    peer.is_connection_error(frames, ErrorCodes.PROTOCOL_ERROR)


@pytest.mark.parametrize("value", [0, 1])
def test_rfc9218_2_1_setting_of_a_client(value: int) -> None:
    """A client may say either."""
    peer = Peer(shake=False)
    peer.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings((NO_RFC7540_PRIORITIES, value)))
    assert peer.conn.error is None


# Sections 5 and 7.1: where a stream's priority is from


def priority(peer: Peer, stream_id: int) -> tuple[int, bool]:
    """Return what a stream's priority is taken for."""
    stream = peer.app.streams[stream_id]
    return stream.urgency, stream.incremental


def ask(peer: Peer, stream_id: int, *values: bytes) -> None:
    """Send a request with these `priority` fields."""
    peer.ask(stream_id, [*GET, *((b"priority", value) for value in values)])


def test_rfc9218_5_field() -> None:
    """The field's value counts, several are one list, and none means turns for all."""
    peer = Peer("hold")
    ask(peer, 1, b"u=1, i")
    ask(peer, 3, b"u=5")
    ask(peer, 5, b"u=5", b"i")
    ask(peer, 7, b"nonsense=")
    ask(peer, 9)
    assert [priority(peer, n) for n in (1, 3, 5, 7)] == [
        (1, True), (5, False), (5, True), (3, False),
    ]  # fmt: skip
    assert priority(peer, 9) == (DEFAULT_URGENCY, True)


def test_rfc9218_5_field_of_a_remembered_head() -> None:
    """A request that repeats an earlier one, but for its path, has the same priority."""
    peer = Peer("hold")
    for n, path in enumerate((b"/a", b"/b", b"/c")):
        fields = [*GET[:3], (b":path", path), (b"priority", b"u=6, i")]
        block = b"\x04" + bytes((len(path),)) + path
        fields_block = plain(GET[:3]) + block + plain(fields[4:])
        peer.send(headers(1 + 2 * n, fields_block))
    assert [priority(peer, n) for n in (1, 3, 5)] == [(6, True)] * 3


def test_rfc9218_7_1_before_the_request() -> None:
    """PRIORITY_UPDATE on an idle stream is kept for it, the last one, and beats the field."""
    peer = Peer("hold")
    peer.send(update(3, b"u=1"), update(3, b"u=2, i"), update(5, b""))
    ask(peer, 1, b"u=6")
    ask(peer, 3, b"u=6")
    ask(peer, 5, b"u=6")
    assert [priority(peer, n) for n in (1, 3, 5)] == [(6, False), (2, True), (3, False)]


def test_rfc9218_7_1_after_the_request() -> None:
    """PRIORITY_UPDATE on an open stream replaces what the field said; what it omits is default."""
    peer = Peer("hold")
    ask(peer, 1, b"u=6, i")
    peer.send(update(1, b"u=0"))
    assert priority(peer, 1) == (0, False)
    peer.send(update(1, b"i"))
    assert priority(peer, 1) == (3, True)


def test_rfc9218_7_1_closed_stream() -> None:
    """On a stream that is over it is ignored."""
    peer = with_sibling()
    peer.ask(3)
    peer.answer(3)
    peer.is_ignored(peer.send(update(3, b"u=0")))


def test_rfc9218_7_1_long_value() -> None:
    """A value longer than any that has a meaning is read as far as it may have one."""
    peer = with_sibling()
    peer.is_ignored(peer.send(update(1, b"u=1, " + b"x" * 10_000)))
    peer.is_ignored(peer.send(update(99, b"u=1, " + b"x" * 10_000)))


BAD: dict[str, tuple[bytes, ErrorCodes]] = {
    "on a stream": (update(1, b"u=1", on=1), ErrorCodes.PROTOCOL_ERROR),
    "on an idle stream": (update(1, b"u=1", on=99), ErrorCodes.PROTOCOL_ERROR),
    "of stream 0": (update(0, b"u=1"), ErrorCodes.PROTOCOL_ERROR),
    "of a push": (update(2, b"u=1"), ErrorCodes.PROTOCOL_ERROR),
    "without a target": (raw(0x10, 0, 0), ErrorCodes.FRAME_SIZE_ERROR),
    "of half a target": (raw(0x10, 0, 0, b"\0\0\0"), ErrorCodes.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize(("frame", "code"), BAD.values(), ids=BAD)
def test_rfc9218_7_1_malformed(frame: bytes, code: ErrorCodes) -> None:
    """A PRIORITY_UPDATE frame that cannot be is the connection's error."""
    peer = with_sibling()
    peer.is_connection_error(peer.send(frame), code)


def test_rfc9218_7_1_reserved_bit() -> None:
    """The bit before the target's identifier is ignored."""
    peer = with_sibling()
    peer.send(update(1 | 1 << 31, b"u=0"))
    assert priority(peer, 1) == (0, False)


def test_rfc9218_7_1_too_many_idle_streams() -> None:
    """Idle streams that are prioritized, and those that are open, are no more than may be open."""
    peer = with_sibling(limits=EngineLimits(max_streams=4))
    peer.is_ignored(peer.send(*(update(101 + 2 * n, b"u=1") for n in range(2))))
    peer = with_sibling(limits=EngineLimits(max_streams=4))
    peer.send(*(update(101 + 2 * n, b"u=1") for n in range(3)))
    assert peer.conn.error is None
    frames = peer.send(update(201, b"u=1"))
    peer.is_connection_error(frames, ErrorCodes.PROTOCOL_ERROR)


def test_rfc9218_7_1_the_same_idle_stream_again() -> None:
    """A stream that is prioritized already counts once."""
    peer = Peer("hold", limits=EngineLimits(max_streams=4))
    for n in range(40):
        assert peer.send(update(101 + 2 * (n % 4), b"u=%d" % (n % 8))) == []
        assert peer.conn.error is None, f"after {n} times: {peer.conn.error}"


FATES: dict[str, Callable[[Peer, int], object]] = {
    "prepared": lambda peer, n: peer.ask(n),
    "malformed": lambda peer, n: peer.send(headers(n, plain([*GET, (b"te", b"gzip")]))),
    "skipped": lambda peer, n: peer.ask(n + 2),
}


@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_rfc9218_7_1_what_was_prioritized_is_forgotten(
    fate: Callable[[Peer, int], object],
) -> None:
    """A client may prioritize each of its requests, however each is answered."""
    peer = Peer("prepared", limits=EngineLimits(max_streams=10))
    peer.send(settings((INITIAL_WINDOW_SIZE, WIDE)), window_update(0, WIDE))
    for n in range(1, 161, 4):
        peer.send(update(n, b"u=1"))
        assert peer.conn.error is None, f"after {n // 4} requests: {peer.conn.error}"
        fate(peer, n)
    peer.goes_on()


# Section 10: the order of what is sent


def queued(asked: dict[int, bytes | None], size: int = 10 * DEFAULT_FRAME_SIZE) -> Peer:
    """Return a peer whose streams all wait with `size` bytes, the windows wide open."""
    peer = Peer("hold")
    peer.send(settings((INITIAL_WINDOW_SIZE, WIDE)), window_update(0, WIDE))
    peer.conn.blocked = True
    for stream_id, value in asked.items():
        ask(peer, stream_id, *(() if value is None else (value,)))
    for stream_id in asked:
        peer.answer(stream_id, bytes(size))
    return peer


def sent(peer: Peer) -> list[int]:
    """Let everything go out; return the stream of each DATA frame in order."""
    peer.conn.blocked = False
    peer.conn.pump()
    return order(peer.flush())


def order(frames: list[Frame]) -> list[int]:
    """Return the stream of each DATA frame."""
    return [f.stream_id for f in frames if isinstance(f, DataFrame)]


def test_rfc9218_10_urgency_comes_first() -> None:
    """All of a more urgent response goes before any of a less urgent one."""
    levels = {1: 7, 3: 0, 5: 3, 7: 1, 9: 6, 11: 2, 13: 5, 15: 4}
    peer = queued({n: b"u=%d, i" % u for n, u in levels.items()})
    wanted = sorted(levels, key=lambda n: levels[n])
    assert sent(peer) == [n for n in wanted for _ in range(10)]


def test_rfc9218_10_wholes_one_after_the_other() -> None:
    """Of one urgency, what is of use only as a whole goes in the order of the requests."""
    peer = queued(dict.fromkeys((1, 3, 5, 7), b"u=3"))
    assert sent(peer) == [n for n in (1, 3, 5, 7) for _ in range(10)]


def test_rfc9218_10_parts_in_turn() -> None:
    """Of one urgency, what is of use in parts goes a frame each in turn."""
    peer = queued(dict.fromkeys((1, 3, 5, 7), b"u=5, i"))
    assert sent(peer) == [1, 3, 5, 7] * 10


def test_rfc9218_10_wholes_before_parts() -> None:
    """Of one urgency, wholes go before parts, whichever was asked for first."""
    peer = queued({1: b"u=2, i", 3: b"u=2", 5: b"u=2, i", 7: b"u=2"}, 3 * DEFAULT_FRAME_SIZE)
    assert sent(peer) == [3] * 3 + [7] * 3 + [1, 5] * 3


def test_rfc9218_10_clients_that_say_nothing_share() -> None:
    """Eight streams of much content: none is ever more than a frame ahead of another."""
    peer = queued(dict.fromkeys(range(1, 17, 2), None), 100_000)
    counts = dict.fromkeys(range(1, 17, 2), 0)
    for stream_id in sent(peer):
        counts[stream_id] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts.values()) == {7}


@pytest.mark.parametrize("how", ["open", "window"])
def test_rfc9218_10_change_while_queued(how: str) -> None:
    """PRIORITY_UPDATE reorders what waits, for the transport or for its own window."""
    peer = queued(dict.fromkeys((1, 3, 5), b"u=3"), 2 * DEFAULT_FRAME_SIZE)
    if how == "window":
        peer.send(settings((INITIAL_WINDOW_SIZE, 0)))
    peer.send(update(5, b"u=0"), update(1, b"u=7, i"))
    if how == "window":
        peer.send(settings((INITIAL_WINDOW_SIZE, WIDE)))
    assert sent(peer) == [5, 5, 3, 3, 1, 1]


def test_rfc9218_10_change_in_the_middle() -> None:
    """What has become urgent goes on at once, what is not waits for the rest."""
    peer = Peer("hold")
    peer.send(settings((INITIAL_WINDOW_SIZE, WIDE)))
    for n in (1, 3, 5):
        ask(peer, n, b"u=3, i")
    for n in (1, 3, 5):
        peer.answer(n, bytes(10 * DEFAULT_FRAME_SIZE))
    assert peer.conn.window == 0 and peer.conn.queued > 0
    peer.send(update(5, b"u=1"))
    left = 10 * DEFAULT_FRAME_SIZE - len(peer.got(5).content)
    frames = order(peer.send(window_update(0, WIDE)))
    count = -(-left // DEFAULT_FRAME_SIZE)
    assert frames[:count] == [5] * count
    assert set(frames[count:]) == {1, 3}
    assert all(peer.got(n).complete for n in (1, 3, 5))


def test_rfc9218_10_closed_windows_let_others_go() -> None:
    """The most urgent stream whose window is spent holds nobody up."""
    peer = Peer("hold")
    peer.send(window_update(0, WIDE))
    for n, value in ((1, b"u=0"), (3, b"u=7")):
        ask(peer, n, value)
    assert order(peer.answer(1, bytes(6 * DEFAULT_FRAME_SIZE))) == [1] * 4
    assert peer.app.streams[1].queued > 0
    assert order(peer.answer(3, bytes(2 * DEFAULT_FRAME_SIZE))) == [3] * 2
    assert order(peer.send(window_update(1, WIDE))) == [1] * 3
    assert peer.got(1).complete


# `Turns` against a model that is a list


def naive(waiting: list[Stream]) -> Stream:
    """Return whose turn it is: by urgency; then wholes by identifier, then parts by arrival."""
    urgency = min(s.urgency for s in waiting)
    level = [s for s in waiting if s.urgency == urgency]
    wholes = [s for s in level if not s.incremental]
    return min(wholes, key=lambda s: s.id) if wholes else level[0]


@hypothesis(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 7), st.booleans()),
            st.tuples(st.just("take"), st.integers(0, 2), st.booleans()),
            st.tuples(st.just("remove"), st.integers(0, 50), st.booleans()),
            st.tuples(st.just("clear"), st.just(0), st.just(False)),
        ),
        max_size=80,
    ),
    st.randoms(use_true_random=False),
)
def test_rfc9218_10_turns_are_those_of_a_model(
    steps: list[tuple[str, int, bool]], random: Random
) -> None:
    """Adding, taking, putting back, removing and clearing in any order."""
    turns, waiting = Turns(), []
    ids = list(range(1, 201, 2))
    random.shuffle(ids)
    for what, number, flag in steps:
        if what == "add":
            stream = Stream(ids.pop(), RequestHead(), 65_535, 65_535, 0.0)
            stream.urgency, stream.incremental = number, flag
            turns.add(stream)
            waiting.append(stream)
        elif what == "clear":
            turns.clear()
            waiting.clear()
        elif waiting and what == "take":
            wanted = naive(waiting)
            assert turns.take() is wanted
            waiting.remove(wanted)
            if number:  # it has more to send
                turns.add(wanted)
                waiting.append(wanted)
        elif waiting and what == "remove":
            turns.remove(waiting.pop(number % len(waiting)))
        assert bool(turns) is bool(waiting)
    while waiting:
        wanted = naive(waiting)
        assert turns.take() is wanted
        waiting.remove(wanted)
    assert not turns


# Over TLS


async def test_eight_files_share_a_connection(certs: Certificates, tmp_path: Path) -> None:
    """Eight files of 2 MB come interleaved: when one is whole, much of each other has come."""
    content = bytes(range(256)) * 8192
    (tmp_path / "file.bin").write_bytes(content)
    app = App()
    app.static(tmp_path)
    streams = range(1, 17, 2)
    async with Running(app, certs) as server, RawClient.connect(server, {4: WIDE}) as client:
        for stream in streams:
            client.get(stream, b"/file.bin")
        began = 0  # the connection's window, 64 KiB, is for nobody alone until all are found
        came: list[tuple[int, int]] = []
        got = dict.fromkeys(streams, b"")
        ended: list[int] = []
        async with asyncio.timeout(PATIENCE):
            while len(ended) < 8:
                found = await client.read()
                if found.kind == 1:
                    began += 1
                    if began == len(streams):
                        client.send(8, 0, 0, struct.pack(">I", WIDE))
                if found.kind == 0:
                    came.append((found.stream, len(found.payload)))
                    got[found.stream] += found.payload
                    if found.flags & 1:
                        if not ended:
                            assert min(map(len, got.values())) > len(content) // 4
                        ended.append(found.stream)
    assert set(got.values()) == {content}
    switches = sum(a[0] != b[0] for a, b in pairwise(came))
    assert switches > len(came) // 10
    assert server.outcomes == {"COMPLETE": 8}
