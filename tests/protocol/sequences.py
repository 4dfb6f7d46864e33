"""Sequences of frames for Hypothesis: mostly right, now and then not, or with bytes changed."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.protocol.frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    continuation,
    data,
    headers,
    literal,
    ping,
    plain,
    priority,
    push_promise,
    raw,
    rst_stream,
    settings,
    window_update,
)
from tests.protocol.ledger import Fields
from tests.protocol.wire import GET, POST

SIZED: Fields = [*POST, (b"content-length", b"5")]
HEADS: list[Fields] = [
    GET,
    POST,
    SIZED,
    [*GET, (b"cookie", b"a=b"), (b"cookie", b"c=d")],
    [*POST, (b"te", b"trailers"), (b"x-empty", b"")],
]
WRONG_HEADS: list[Fields] = [
    [],
    GET[:3],
    GET[1:],
    [*GET[:3], (b":path", b"")],
    [*GET, GET[0]],
    [*GET, (b":unknown", b"a")],
    [*GET, (b":status", b"200")],
    [*GET, (b"x", b"y"), (b":path", b"/")],
    [*GET, (b"X-Upper", b"a")],
    [*GET, (b"", b"a")],
    [*GET, (b"x y", b"a")],
    [*GET, (b"x", b"a\0")],
    [*GET, (b"x", b"a\r\nb: c")],
    [*GET, (b"x", b" a")],
    [*GET, (b"connection", b"close")],
    [*GET, (b"transfer-encoding", b"chunked")],
    [*GET, (b"te", b"gzip")],
    [*GET, (b"host", b"example.com")],
    [*POST, (b"content-length", b"x")],
    [*POST, (b"content-length", b"5"), (b"content-length", b"6")],
    [(b"x-sum", b"trailer")],
    [(b":method", b"CONNECT"), GET[2]],
    [*GET[:2], GET[3]],
    [*GET[:3], (b":path", b"index")],
]
TRAILERS: list[Fields] = [[], [(b"x-sum", b"1")], [(b":path", b"/")], [(b"X-Sum", b"1")]]

_INDEXED = literal(b"x-mark", b"kept", 0x40)
BLOCKS = [
    *map(plain, HEADS),
    *map(plain, HEADS),
    *map(plain, HEADS),
    plain(GET) + _INDEXED,
    plain(GET) + b"\xbe",  # the newest entry of the dynamic table
    b"\x20" + plain(GET),
    plain(GET) + b"\x80",
    plain(GET)[:-3],
    *map(plain, WRONG_HEADS),
    *map(plain, TRAILERS),
]

ids = st.sampled_from([1, 3, 3, 5, 5, 7, 9, 11, 2, 0])
sizes = st.sampled_from([0, 1, 5, 5, 100, 16_384])
pads = st.sampled_from([None, None, None, 0, 7, 255])

requests = st.builds(
    headers,
    st.sampled_from([1, 3, 5, 7, 9, 11, 13]),
    st.sampled_from([plain(fields) for fields in HEADS]),
    end=st.booleans(),
)
header_frames = st.builds(
    headers,
    ids,
    st.sampled_from(BLOCKS),
    end=st.booleans(),
    end_headers=st.sampled_from([True] * 7 + [False]),
    pad=pads,
    depends_on=st.sampled_from([None, None, None, 0, 1, 3]),
)
contents = st.builds(
    data, ids, st.binary(max_size=6) | sizes.map(bytes), end=st.booleans(), pad=pads
)
pairs = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 6, 0x99]),
    st.sampled_from([0, 1, 2, 100, 4096, 16_384, 65_535, 2**24 - 1, 2**31 - 1, 2**31]),
)
others = st.one_of(
    st.builds(priority, ids, st.sampled_from([0, 1, 3, 5])),
    st.builds(rst_stream, ids, st.sampled_from([0, 8, 99])),
    st.lists(pairs, max_size=2).map(lambda found: settings(*found)),
    st.just(raw(SETTINGS, 1, 0)),
    st.builds(ping, st.just(bytes(8)), ack=st.booleans()),
    st.builds(window_update, ids, st.sampled_from([0, 1, 1000, 2**30, 2**31 - 1])),
    st.builds(continuation, ids, st.sampled_from([b"", plain(GET)])),
    st.builds(push_promise, ids, st.just(2), st.just(b"")),
    st.builds(
        raw, st.sampled_from([0x1F, 0x7F, 0xFF]), st.integers(0, 255), ids, st.binary(max_size=9)
    ),
)
misshapen = st.builds(
    raw,
    st.sampled_from(
        [
            DATA,
            HEADERS,
            PRIORITY,
            RST_STREAM,
            SETTINGS,
            PUSH_PROMISE,
            PING,
            WINDOW_UPDATE,
            CONTINUATION,
        ]
    ),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]),
    ids,
    st.binary(max_size=12),
)
goaways = st.builds(
    raw, st.just(GOAWAY), st.just(0), st.sampled_from([0, 0, 1]), st.binary(max_size=12)
)

frames = st.one_of(requests, requests, header_frames, contents, contents, others, misshapen)
urgencies = st.builds(
    lambda number, value: raw(0x10, 0, 0, number.to_bytes(4, "big") + value),
    st.sampled_from([1, 3, 5, 7, 21, 0]),
    st.sampled_from([b"", b"u=0", b"u=7, i", b"i=?0", b"u=99, x", b"\xff"]),
)
any_frames = st.one_of(frames, frames, frames, frames, goaways, urgencies)


def changed(stream: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Return `stream` with bytes set, put in, or taken out: each edit is (where, how, byte)."""
    result = bytearray(stream)
    for where, how, byte in edits:
        pos = where % (len(result) + 1)
        if how == 0:
            result[pos : pos + 1] = bytes((byte,))
        elif how == 1:
            result.insert(pos, byte)
        else:
            del result[pos : pos + 1 + byte % 4]
    return bytes(result)


edits = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 2), st.integers(0, 255)), max_size=6
)
