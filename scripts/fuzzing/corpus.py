"""Valid conversations, which the mutator takes apart, and pieces to put in their place."""

from __future__ import annotations

from struct import Struct
from typing import Final

import case as cases
from case import Step
from hpack import Encoder

__all__ = ["BLOCKS", "Item", "conversations", "frame", "literal", "pieces", "steps_of"]

Item = bytes | tuple[int, int]
"""A frame, or a step that is none: its kind and its number."""

Fields = list[tuple[bytes, bytes]]

_HEAD: Final = Struct(">BHBBL").pack
_PAIR: Final = Struct(">HL").pack

GET: Final[Fields] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
]
POST: Final[Fields] = [(b":method", b"POST"), *GET[1:]]
BROWSER: Final[Fields] = [
    *GET[:3],
    (b":path", b"/article/a2e12610/06-request.html"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c=d"),
    (b"te", b"trailers"),
    (b"priority", b"u=1, i"),
]
CONNECT: Final[Fields] = [(b":method", b"CONNECT"), (b":authority", b"example.org:443")]
WEBSOCKET: Final[Fields] = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *GET[1:],
]
WRONG: Final[list[Fields]] = [
    [],
    GET[:3],
    GET[1:],
    [*GET[:3], (b":path", b"")],
    [*GET, GET[0]],
    [*GET, (b":unknown", b"a")],
    [*GET, (b"x", b"y"), (b":path", b"/")],
    [*GET, (b"X-Upper", b"a")],
    [*GET, (b"", b"a")],
    [*GET, (b"x", b"a\r\nb: c")],
    [*GET, (b"x", b" a")],
    [*GET, (b"connection", b"close")],
    [*GET, (b"te", b"gzip")],
    [*GET, (b"host", b"example.com")],
    [*GET, (b"host", b"example.org"), (b"host", b"example.org")],
    [*POST, (b"content-length", b"x")],
    [*POST, (b"content-length", b"5"), (b"content-length", b"6")],
    [*POST, (b"content-length", b"9" * 19)],
    [(b":method", b"G T"), *GET[1:]],
    [*GET[:2], (b":authority", b"user@example.org"), GET[3]],
    [(b":method", b"CONNECT"), *GET[1:]],
    [(b":method", b"GET"), (b":protocol", b"websocket"), *GET[1:]],
    [*GET, *((b"x-%d" % n, b"y" * 30) for n in range(101))],
    [*GET, (b"x-large", b"z" * 16_000)],
]


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Return a frame with exactly these parts."""
    return _HEAD(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, number) + payload


def headers(number: int, block: bytes, flags: int = 5) -> bytes:
    """Return a HEADERS frame; a whole request when `flags` say nothing else."""
    return frame(1, flags, number, block)


def data(number: int, content: bytes, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return frame(0, flags, number, content)


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(4, 0, 0, b"".join(_PAIR(key, value) for key, value in pairs))


def window(number: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(8, 0, number, increment.to_bytes(4, "big"))


def reset(number: int, code: int = 8) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(3, 0, number, code.to_bytes(4, "big"))


def urgency(number: int, value: bytes) -> bytes:
    """Return a PRIORITY_UPDATE frame."""
    return frame(0x10, 0, 0, number.to_bytes(4, "big") + value)


def literal(name: bytes, value: bytes, pattern: int = 0) -> bytes:
    """Return a field as a literal with short strings as they are: 0x40 is indexed."""
    return bytes((pattern,)) + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    size -= 127
    coded = bytearray((127,))
    while size >= 128:
        coded.append(size & 127 | 128)
        size >>= 7
    coded.append(size)
    return bytes(coded) + text


def plain(fields: Fields) -> bytes:
    """Return a header block of literals that touches no table."""
    return b"".join([literal(name, value) for name, value in fields])


_GET: Final = plain(GET)
_POST: Final = plain(POST)
_SIZED: Final = plain([*POST, (b"content-length", b"11")])
_PATHS: Final = [b"\x82\x87\x84", *(b"\x82\x87\x04" + _string(b"/%d" % n) for n in range(4))]

BLOCKS: Final[list[bytes]] = [
    _GET,
    _POST,
    _SIZED,
    *(block + b"\x01\x0bexample.org" for block in _PATHS),
    plain(BROWSER),
    Encoder().encode(BROWSER),
    Encoder().encode(BROWSER, huffman=False),
    plain(CONNECT),
    plain(WEBSOCKET),
    plain([*BROWSER, (b"content-length", b"0")]),
    *(plain(fields) for fields in WRONG),
    plain([(b"x-sum", b"1")]),
    literal(b"x-mark", b"kept", 0x40),
    _GET + literal(b"x-mark", b"kept", 0x40),
    _GET + b"\xbe",
    _GET + b"\xbf\xc0",
    b"\x20" + _GET,
    b"\x3f\xe1\x1f" + _GET,
    b"\x20\x3f\xe1\x1f" + _GET + literal(b"x" * 40, b"y" * 4000, 0x40),
    b"\x3f\xe2\x1f" + _GET,
    _GET + b"\x80",
    _GET[:-3],
    _GET + b"\xff\xff\xff\xff\xff\x7f",
    _GET + b"\x00\x81\xff\x00",
    _GET + literal(b"x" * 200, b"y", 0x40) * 20,
    _GET + literal(b"n" * 32, b"v" * 64, 0x40) * 32,  # the table is full to the byte
    b"\x3f\xe1\x07" + _GET + literal(b"n" * 32, b"v" * 64, 0x40) * 9,
    _GET + literal(b"x-bomb", b"y" * 3000, 0x40) + b"\xbe" * 400,
]
"""Header blocks, right and wrong."""

_DRAINED: Final = frame(6, 1, 0, b"h2log-go")


def conversations() -> list[list[Item]]:
    """Return what well-behaved peers say after their greeting."""
    encoder = Encoder()
    browser = [
        headers(n, encoder.encode([*BROWSER[:3], (b":path", b"/%d.css" % n), *BROWSER[4:]]))
        for n in range(1, 17, 2)
    ]
    again = [headers(n, BLOCKS[3]) for n in range(1, 9, 2)]
    paths = [headers(2 * n + 1, _PATHS[n % 5]) for n in range(8)]
    big = plain([*GET, (b"x-big", b"b" * 300)])
    upload: list[Item] = [headers(1, _POST, 4), *(data(1, bytes(16_384)) for _ in range(4))]
    return [
        [*browser],
        [*again],
        [*paths],
        [headers(1, _GET), window(0, 1000), headers(3, _GET), reset(1), headers(5, BLOCKS[3])],
        [headers(1, _SIZED, 4), data(1, b"hello "), data(1, b"world", 1), headers(3, _GET)],
        [headers(1, _POST, 4), data(1, b"\x03abc\0\0\0", 8), headers(1, literal(b"x-sum", b"1"))],
        [headers(1, _POST, 4), data(1, b""), headers(3, _POST, 4), data(3, b"x", 1), data(1, b"y")],
        [
            settings((4, 3), (1, 100)),
            headers(1, _GET),
            headers(3, _GET),
            window(1, 2),
            settings((4, 65_535)),
            headers(5, b"\x05" + b"\0\0\0\x03\x0f" + _POST + bytes(5), 0x2C),
            data(5, b"first", 0),
            frame(0xBE, 1, 5, b"extension"),
            frame(6, 0, 0, b"12345678"),
            headers(7, big[:100], 1),
            frame(9, 0, 7, big[100:110]),
            frame(9, 4, 7, big[110:]),
            data(5, b"second", 1),
            reset(5),
        ],
        [settings((4, 0)), *again, settings((4, 10)), settings((4, 100_000)), window(0, 100_000)],
        [
            settings((5, 20_000)),
            *again,
            window(0, 2**30),
            settings((5, 16_384), (1, 0)),
            *paths[4:],
        ],
        [
            urgency(1, b"u=0"),
            urgency(3, b"u=7, i"),
            headers(1, _GET),
            headers(3, _GET),
            urgency(1, b"u=5,i"),
            urgency(7, b"i=?0"),
            headers(5, plain([*GET, (b"priority", b"u=2")])),
            window(0, 200_000),
        ],
        [frame(2, 0, 1, b"\0\0\0\0\x0f"), headers(1, _GET), frame(2, 0, 1, b"\0\0\0\x03\x0f")],
        [headers(1, plain(CONNECT), 4), data(1, b"tunnel"), data(1, b"", 1)],
        [headers(1, plain(WEBSOCKET), 4), data(1, b"\x81\x05hello"), (cases.WRITE, 9), reset(1)],
        [*upload, data(1, b"", 1), headers(3, _GET)],
        [headers(1, _GET), frame(7, 0, 0, bytes(8)), headers(3, _GET)],
        [
            headers(1, _GET + literal(b"x-mark", b"kept", 0x40)),
            headers(3, _GET + b"\xbe"),
            headers(5, _GET + literal(b"x-other", b"new", 0x40)),
            headers(7, _GET + b"\xbe"),
            headers(9, b"\x20" + _GET),
            headers(11, _GET),
        ],
        [
            headers(1, _GET),
            headers(3, _GET),
            settings((4, 0)),  # below what was sent: the windows are negative
            window(0, 100_000),
            settings((4, 65_535)),
        ],
        [
            (cases.BLOCK, 0),
            headers(1, _GET),
            headers(3, _GET),
            (cases.ANSWER, 250),
            settings((4, 0)),
            (cases.UNBLOCK, 0),
            settings((4, 65_535)),
            window(0, 100_000),
        ],
        [headers(1, big[:60], 1), *(frame(9, 0, 1, big[n : n + 40]) for n in range(60, 300, 40))],
        [headers(1, _GET[:9], 1), frame(9, 0, 1, bytes(16_384)), frame(9, 4, 1, _GET[9:])],
        [headers(1, _POST, 4), (cases.DRAIN, 0), data(1, b"x"), _DRAINED, headers(3, _GET)],
        [(cases.DRAIN, 0), headers(1, _GET), (cases.TICK, 3), headers(3, _GET), (cases.TICK, 3)],
        [headers(1, _GET), (cases.BLOCK, 0), *paths[1:], frame(6, 0, 0, bytes(8)), (10, 0), (9, 0)],
        [headers(1, _POST, 4), (cases.TICK, 3), data(1, b"late"), (cases.TICK, 3), data(1, b"", 1)],
        [headers(101, _GET), headers(201, _POST, 4), data(201, b"x", 1), headers(203, _GET)],
        [*paths, *(reset(n) for n in range(1, 17, 2)), headers(17, _GET), (cases.SHUT, 0)],
        [settings(*((4, n & 1) for n in range(50))), headers(1, _GET), settings()],
        [headers(1, _POST, 4), headers(3, _POST, 4), (2, 1), (5, 200), (6, 0), (3, 1), (4, 0)],
    ]


def pieces() -> list[Item]:
    """Return frames and steps to put anywhere."""
    found: list[Item] = [
        *(headers(n, block, 5 - n % 4 // 2) for n, block in enumerate(BLOCKS, 1)),
        *(data(n, content) for n in (1, 3, 5) for content in (b"", b"hello", bytes(500))),
        data(1, bytes(16_384)),
        *(window(n, by) for n in (0, 1, 3) for by in (0, 1, 1000, 2**30, 2**31 - 1)),
        *(reset(n) for n in (0, 1, 3, 5)),
        *(settings((4, n)) for n in (0, 1, 100, 65_535, 2**31 - 1, 2**31)),
        *(settings((1, n)) for n in (0, 1, 4096, 2**32 - 1)),
        *(settings((5, n)) for n in (0, 16_384, 16_385, 2**24 - 1)),
        settings((2, 2)),
        settings((3, 0), (6, 0), (8, 1), (9, 1)),
        frame(4, 1, 0),
        *(urgency(n, value) for n in (0, 1, 3, 9, 2**31 - 1) for value in (b"", b"u=0", b"i;a=1")),
        frame(6, 0, 0, bytes(8)),
        _DRAINED,
        frame(7, 0, 0, bytes(8)),
        *(frame(2, 0, n, n.to_bytes(4, "big") + b"\x0f") for n in (1, 3, 9)),
        *(frame(9, flags, n, b"\x82") for n in (1, 3) for flags in (0, 4)),
        headers(1, b"\x82", 1) + frame(9, 0, 1, bytes(16_384)) * 5,
        headers(3, b"\x82", 1) + frame(9, 0, 3) * 8,
        frame(5, 4, 1, b"\0\0\0\x02"),
        *((cases.TICK, n) for n in range(len(cases.SECONDS))),
        *((kind, n) for kind in range(2, 8) for n in (0, 1, 2, 255)),
        *((kind, 0) for kind in range(8, 15)),
        *((kind, 0) for kind in (cases.BLOCK, cases.UNBLOCK, cases.FLUSH) for _ in range(3)),
    ]
    return found


def steps_of(items: list[Item], cuts: list[int]) -> list[Step]:
    """Return the steps of `items`: frames that follow each other are one, but for `cuts`.

    A cut is after so many bytes of all that is sent.
    """
    steps: list[Step] = []
    run: list[bytes] = []
    sent = 0

    def receive() -> None:
        nonlocal sent
        if not run:
            return
        whole = b"".join(run)
        run.clear()
        begin = 0
        for cut in cuts:
            if sent + begin < cut < sent + len(whole):
                steps.append((cases.RECEIVE, 0, whole[begin : cut - sent]))
                begin = cut - sent
        steps.append((cases.RECEIVE, 0, whole[begin:]))
        sent += len(whole)

    for item in items:
        if isinstance(item, bytes):
            run.append(item)
        else:
            receive()
            steps.append((*item, b""))
    receive()
    return steps
