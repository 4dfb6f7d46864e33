"""The same frames through this engine and through the `h2` package as a server.

After each frame both have accepted it or both have refused it, be it with RST_STREAM or with
GOAWAY: `h2` makes most stream errors the connection's, so that the scope is not compared. A
sequence ends at the first refusal. Where the two differ on purpose, `DIFFERENCES` says so and why;
any other difference fails, and so does an entry that never comes up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from h2log.http2.head import RequestHead
from h2log.http2.settings import EngineLimits
from tests.protocol import sequences
from tests.protocol.frames import (
    END_HEADERS,
    HEADERS,
    MAX_31,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    GoAwayFrame,
    RstStreamFrame,
    SettingsFrame,
    data,
    headers,
    parse,
    ping,
    plain,
    priority,
    rst_stream,
    window_update,
)
from tests.protocol.frames import settings as settings_frame
from tests.protocol.ledger import Fields
from tests.protocol.wire import GET, OK, Peer

LIMITS = EngineLimits(
    stream_window=65_535, connection_window=65_535, max_header_bytes=65_536, max_header_fields=1000
)
"""What `h2` offers too."""


class Verdict(NamedTuple):
    """What became of a frame."""

    scope: Literal["accepted", "stream", "connection"]
    code: int = 0

    @property
    def refused(self) -> bool:
        """Whether it was an error of any scope."""
        return self.scope != "accepted"


ACCEPTED = Verdict("accepted")


@dataclass
class Pair:
    """One conversation, held with both."""

    ours: Peer = field(default_factory=lambda: Peer("hold", limits=LIMITS))
    theirs: H2Connection = field(
        default_factory=lambda: H2Connection(
            H2Configuration(client_side=False, header_encoding=None)
        )
    )

    requests: dict[int, Fields] = field(default_factory=dict)
    """What `h2` delivered: header sections by stream, and content."""
    received: dict[int, bytes] = field(default_factory=dict)
    early: set[int] = field(default_factory=set)
    """Streams that were answered before they had ended."""

    def __post_init__(self) -> None:
        self.ours.app.eat = False
        self.theirs.local_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: LIMITS.max_streams})
        self.theirs.initiate_connection()
        self.theirs.receive_data(PREFACE + settings_frame() + SETTINGS_ACK)
        self.theirs.data_to_send()

    def send(self, frame: bytes) -> tuple[Verdict, Verdict]:
        """Send a frame to both; return our verdict and theirs."""
        return self._ours(frame), self._theirs(frame)

    def _ours(self, frame: bytes) -> Verdict:
        for out in self.ours.send(frame):
            if isinstance(out, GoAwayFrame):
                return Verdict("connection", out.code)
            if isinstance(out, RstStreamFrame) and out.code != ErrorCodes.NO_ERROR:
                return Verdict("stream", out.code)
        return ACCEPTED

    def _theirs(self, frame: bytes) -> Verdict:
        try:
            for found in self.theirs.receive_data(frame):
                if isinstance(found, RequestReceived):
                    self.requests[found.stream_id] = [
                        (bytes(n), bytes(v)) for n, v in found.headers
                    ]
                elif isinstance(found, DataReceived) and found.data:
                    content = self.received.get(found.stream_id, b"")
                    self.received[found.stream_id] = content + found.data
        except ProtocolError as error:
            return Verdict("connection", error.error_code)
        for out in parse(self.theirs.data_to_send()):
            if isinstance(out, RstStreamFrame):
                return Verdict("stream", out.code)
        return ACCEPTED

    def answer(self, stream_id: int) -> None:
        """Have both answer a request that is open, without content."""
        stream = self.ours.conn.streams.get(stream_id)
        if stream is not None:
            if not stream.remote_ended:
                self.early.add(stream_id)
            self.ours.conn.send_headers(self.ours.app.streams[stream_id], OK, end=True)
            self.ours.flush()
            self.theirs.send_headers(stream_id, [(b":status", b"200")], end_stream=True)
            self.theirs.data_to_send()


# Known differences


class Case:
    """A frame, the verdicts on it, and what was known of its stream before it."""

    def __init__(self, pair: Pair, frame: bytes) -> None:
        conn, app = pair.ours.conn, pair.ours.app
        self.frame = frame
        self.kind = frame[3]
        self.stream_id = int.from_bytes(frame[5:9], "big") & MAX_31
        stream = conn.streams.get(self.stream_id)
        self.was_open = stream is not None
        self.was_closed = stream is None and self.stream_id <= conn.last_stream_id
        self.expected = stream.expected if stream is not None else None
        self.answered_early = self.stream_id in pair.early
        refused = len(app.refused)
        self.ours, self.theirs = pair.send(frame)
        self.request = app.requests.get(self.stream_id) if not self.was_open else None
        self.fault = (app.refused[-1][1].fault or "") if len(app.refused) > refused else ""
        self.detail = conn.error.detail if conn.error is not None else ""

    def __repr__(self) -> str:
        return (
            f"<type {self.kind} on {self.stream_id}: we {self.ours} {self.detail or self.fault}, "
            f"they {self.theirs}; open {self.was_open} closed {self.was_closed}>"
        )


class Difference(NamedTuple):
    """A difference that is meant: who refuses, when, and why that is right."""

    refuses: Literal["we", "they"]
    when: Callable[[Case], bool]
    why: str


def _values(case: Case) -> list[tuple[int, int]]:
    (frame,) = parse(case.frame)
    return frame.values if isinstance(frame, SettingsFrame) else []


# By name: who refuses, when, and why that is right. The first that fits counts.
DIFFERENCES: dict[str, Difference] = {
    "content-length without content": Difference(
        "we",
        lambda case: case.fault == "content-length without content",
        "8.1.1: a content-length that differs from the content's is malformed; h2 compares them "
        "only when DATA comes",
    ),
    "content-length and trailers": Difference(
        "we",
        lambda case: case.kind == HEADERS and case.was_open and case.expected is not None,
        "8.1.1: the same when trailers end the request, which h2 does not compare",
    ),
    "path": Difference(
        "we",
        lambda case: case.fault == ":path does not begin with /",
        "8.3.1: the path begins with a slash; h2 wants it not empty",
    ),
    "half a header block": Difference(
        "we",
        lambda case: case.kind in (HEADERS, PUSH_PROMISE) and not case.frame[4] & END_HEADERS,
        "5.1, 8.4: a block on a stream that can have none is refused at its first frame; h2 waits "
        "for the last",
    ),
    "reset of an idle stream": Difference(
        "we",
        lambda case: case.kind == RST_STREAM and "idle" in case.detail,
        "6.4: RST_STREAM on an idle stream is PROTOCOL_ERROR; h2 ignores it",
    ),
    "setting said twice": Difference(
        "we",
        lambda case: len(_values(case)) > 1 and " is " in case.detail,
        "6.5.3: values count in their order, so that a wrong one is an error also when another of "
        "the same setting follows; h2 sees the last alone",
    ),
    "answered early": Difference(
        "they",
        lambda case: case.answered_early,
        "5.1, 8.1: after our whole response and RST_STREAM(NO_ERROR) all that still comes is "
        "thrown away; h2 sends no RST_STREAM, and goes on judging",
    ),
    "no authority": Difference(
        "they",
        lambda case: case.request is not None and not case.request.authority,
        "8.3.1: a request may come without :authority and host; that is the application's matter",
    ),
    "no increment on a closed stream": Difference(
        "they",
        lambda case: case.kind == WINDOW_UPDATE and case.was_closed and case.stream_id % 2 == 1,
        "5.1: WINDOW_UPDATE may still come for a closed stream, where it means nothing; h2 looks "
        "at the increment first",
    ),
    "priority of a closed stream": Difference(
        "they",
        lambda case: case.kind == PRIORITY and case.was_closed,
        "6.3: PRIORITY may come in any state, and of a closed stream means nothing",
    ),
}


def named(case: Case) -> str | None:
    """Return the name of the known difference that this one is, "" if they agree."""
    if case.ours.refused == case.theirs.refused:
        return ""
    who = "we" if case.ours.refused else "they"
    for name, difference in DIFFERENCES.items():
        if difference.refuses == who and difference.when(case):
            return name
    return None


# Steps: most are right in whatever state there is, so that a conversation gets somewhere

Step = tuple[str, int, int, bool, bytes]
actions = st.sampled_from(
    [
        *["ask"] * 4,
        *["upload"] * 4,
        "trailers",
        "answer",
        "answer",
        "reset",
        "widen",
        "ping",
        "tune",
    ]
)
right = st.tuples(actions, st.integers(0, 9), st.integers(0, 9), st.booleans(), st.just(b""))
wild = st.tuples(st.just("wild"), st.just(0), st.just(0), st.just(False), sequences.frames)
steps = st.lists(st.integers(0, 9).flatmap(lambda n: wild if n == 0 else right), max_size=30)


def render(pair: Pair, step: Step) -> bytes | None:
    """Return the frame of a step, None when it makes none."""
    action, pick, choice, flag, frame = step
    conn = pair.ours.conn
    streams = sorted(conn.streams)
    sending = [n for n in streams if not conn.streams[n].remote_ended]
    if action == "wild":
        return frame
    if action == "ask":
        fields = sequences.HEADS[choice % len(sequences.HEADS)]
        return headers((conn.last_stream_id + 1 | 1) + pick // 8 * 2, plain(fields), end=flag)
    if action == "ping":
        return ping(ack=flag)
    if action == "tune":
        return settings_frame((1 + choice % 6, 1 if choice % 6 == 1 else 16_384 + choice))
    if action == "upload" and sending:
        size = (0, 1, 2, 5, 5, 5, 5, 100, 16_000, 16_384)[choice]
        pad = None if pick % 3 else 9
        return data(sending[pick % len(sending)], bytes(size)[:16_000], end=flag, pad=pad)
    if action == "trailers" and sending:
        return headers(sending[pick % len(sending)], plain([(b"x-sum", b"1")]))
    if action == "reset" and streams:
        return rst_stream(streams[pick % len(streams)])
    if action == "widen":
        return window_update([0, *streams][pick % (len(streams) + 1)], 1000)
    if action == "answer" and streams:
        pair.answer(streams[pick % len(streams)])
    return None


EXAMPLES: dict[str, list[bytes | int]] = {
    "content-length without content": [headers(1, plain(sequences.SIZED))],
    "content-length and trailers": [
        headers(1, plain(sequences.SIZED), end=False),
        headers(1, plain([(b"x-sum", b"1")])),
    ],
    "path": [headers(1, plain([*GET[:3], (b":path", b"index")]))],
    "half a header block": [headers(2, plain(GET), end_headers=False)],
    "reset of an idle stream": [headers(1, plain(GET)), rst_stream(5)],
    "setting said twice": [settings_frame((2, 7), (2, 1))],
    "answered early": [
        headers(1, plain(sequences.SIZED), end=False),
        1,
        data(1, b"more than five"),
    ],
    "no authority": [headers(1, plain([*GET[:2], GET[3]]))],
    "no increment on a closed stream": [headers(5, plain(GET)), window_update(3, 0)],
    "priority of a closed stream": [headers(5, plain(GET)), priority(3, 3)],
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_known_difference(name: str) -> None:
    """Each difference in the table is one: the frame before is fine for both, the last is not."""
    pair = Pair()
    *before, last = EXAMPLES[name]
    for step in before:
        if isinstance(step, int):
            pair.answer(step)
        else:
            assert pair.send(step) == (ACCEPTED, ACCEPTED)
    assert isinstance(last, bytes)
    case = Case(pair, last)
    assert named(case) == name, case


@settings(max_examples=1500, deadline=None)
@given(steps)
def test_same_verdict_as_h2(conversation: list[Step]) -> None:
    """Frame after frame, we and `h2` accept and refuse the same, but for the known differences."""
    pair = Pair()
    for step in conversation:
        frame = render(pair, step)
        if frame is None:
            continue
        case = Case(pair, frame)
        assert named(case) is not None, case
        if case.ours.refused or case.theirs.refused:
            break


def _fields(head: RequestHead) -> Fields:
    return [
        (b":method", head.method.encode()),
        (b":scheme", head.scheme.encode()),
        (b":authority", head.authority.encode()),
        (b":path", head.path.encode()),
        *head.fields,
    ]


@settings(max_examples=200, deadline=None)
@given(steps)
def test_same_requests_as_h2(conversation: list[Step]) -> None:
    """As long as both accept, both deliver the same requests with the same content."""
    pair = Pair()
    for step in conversation:
        frame = render(pair, step)
        if frame is None or pair.early:
            continue
        case = Case(pair, frame)
        if case.ours.refused or case.theirs.refused:
            break
    else:
        app = pair.ours.app
        assert pair.requests == {
            number: [field for field in _fields(head) if field[1] or field[0][:1] != b":"]
            for number, head in app.requests.items()
        }
        assert pair.received == app.received
