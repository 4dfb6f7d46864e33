"""Requests that mean harm to a log, as bytes of the wire, and what a line has to tell of each."""

from __future__ import annotations

import random
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from tests.server.wire import END_HEADERS, END_STREAM, HEADERS, frame

__all__ = [
    "WHOLE",
    "Sent",
    "block",
    "hostile_h1",
    "hostile_h2",
    "plain_h1",
    "request_frames",
    "undecodable",
    "wait",
]

_CONTINUATION: Final = 9
_FRAME: Final = 16_384

NASTY: Final = (
    # control characters, and what some reader takes for the end of a line
    *(b"\x00", b"\x01", b"\x07", b"\t", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1b[31m"),
    *(b"\x1b]0;x\x07", b"\x1c\x1d\x1e\x1f", b"\x7f", b"\x85", b"\x9b31m", b" ", b"\r\n#dropped"),
    *(text.encode() for text in ("\u2028", "\u2029", "\u0085", "\u202e", "\u200b", "\ufeff")),
    # UTF-8, and what is none: surrogates, overlong, cut short, beyond Unicode
    *(text.encode() for text in ("é", "日本", "😀", "e\u0301", "\ufffe", "＂")),
    *(b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xff\xfe", b"\xc3", b"\xe2\x80", b"\xc0\xaf", b"\x80"),
    *(b"\xf4\x90\x80\x80", b"\xf0\x82\x82\xac", b"\xe2\x80\xa8\xe2"),
    # what the formats are made of, and texts that look as if they were escaped
    *(b'"', b'""', b"\\", b"\\\\", b'\\"', b"\\x0A", b"\\x22", b"\\x", b"\\xZZ"),
    *(b"\\u2028", b"\\n"),
    *(b'{"a":1}', b'"}', b'","b":"c', b'"}\n{"a":"', b"{}", b"null"),
    *(b"[", b"]", b"] ", b'" 200 5 "'),
    *(b"#", b"#Fields: a b", b"#dropped lines=1 seq=1-1", b"-", b" - ", b"%s%d%n", b"{0}", b"%%"),
    # what is escaped the way of URLs stays as it is
    *(b"%0d%0a", b"%0A#", b"%00", b"%22", b"%5C", b"%E2%80%A8", b"%", b"%zz", b"+"),
    # other languages' ends
    *(b"${jndi:ldap://x/a}", b"<script>", b"'", b"`id`", b"$(id)", b"';--", b"|", b"||"),
    *(b"?", b"?a=", b"&b=", b";", b":", b"//", b"/../", b"?q=1?r=2"),
)
"""Pieces of what is sent: none has a name of a secret, for those are not shown."""

_BAD_IN_PATH: Final = re.compile(rb"[\x00-\x20\x7f]").search
_BAD_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_IN_PATH: Final = [piece for piece in NASTY if not _BAD_IN_PATH(piece)]
_IN_VALUE: Final = [piece for piece in NASTY if not _BAD_IN_VALUE(piece)]
_IN_H1_TARGET: Final = [piece for piece in NASTY if re.fullmatch(rb"[\x21-\x7e]+", piece)]

_METHODS: Final = (
    *(b"POST", b"HEAD", b"OPTIONS", b"get", b"#", b"#dropped", b"-", b"M!#$%&'*+-.^_`|~0"),
)
_BAD_METHODS: Final = (
    *(b"", b"GE T", b"G\x00T", b"G\nET", b"\xff", b'"GET"', b"[", b"\\x0A", b"A" * 99 + b":"),
)
_AUTHORITIES: Final = (
    *(b"localhost:0", b"[::1]:443", b"x:99999", b":80", b"a:b:c", b'a"b', b"\xff.example", b"-"),
)
_BAD_AUTHORITIES: Final = (b"h\x00st", b"a b", b"a\nb", b"a/b", b"a\\b", b"a?b", b"\x7f")
_SCHEMES: Final = (b"http", b"HTTPS", b"x+y-z.1")
_BAD_SCHEMES: Final = (b"", b"1x", b"ht tp", b"h\ttp", b'"')
_IDS: Final = (
    *(b"req-1", b"a" * 200, b'"quoted"', b"\\x0A", b"{}", b"#1", b"-"),
    # what is no id, and is not told
    *(b"", b"a" * 201, b"two words", b"tab\there", b"\xc3\xa9"),
)
_TRACE: Final = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_LATER: Final = b"cc" + _TRACE[2:]
# What is told of each `traceparent`: W3C Trace Context, section 3.2.
_TRACES: Final = (
    (_TRACE, _TRACE),
    (_LATER + b"-what\tthe-future holds", _LATER),
    (_TRACE + b"-more", None),
    (_TRACE.upper(), None),
    (b"ff" + _TRACE[2:], None),
    (_TRACE.replace(b"0af7651916cd43dd8448eb211c80319c", b"0" * 32), None),
    (_TRACE + b'"', None),
    (b"", None),
    (b"\\x0A", None),
)
_USERS: Final = (
    *(b"Aladdin", b"a b", b'"', b"[x] ", b"\n", b"\t", b"\\x0A", b"#", b"-", b""),
    *(b"\xff\xfe", "ü".encode()),
)

# RFC 7541, appendix A
_NAMES: Final = {
    b":authority": 1,
    b":method": 2,
    b":path": 4,
    b":scheme": 6,
    b"authorization": 23,
    b"host": 38,
    b"referer": 51,
    b"user-agent": 58,
}
_huffman: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode

Field = tuple[bytes, bytes]

WHOLE: Final = (
    *("target", "method", "scheme", "authority", "user_agent", "referrer"),
    *("request_id", "traceparent", "user"),
)
"""What a line may tell of what was sent, by the names of a `Line`."""


@dataclass(slots=True)
class Sent:
    """A request, and what its line has to tell: texts of latin-1, a character a byte."""

    version: str
    told: dict[str, str | None]
    other: str | None = None
    """The value of `x-any`."""
    sure: bool = True
    """All of `told` was taken; else it depends on whether the request was."""
    status: int | None = None
    """What the client saw: of a response its status, and of some the id."""
    id: str | None = None
    fields: list[Field] = field(default_factory=list)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")


def _sent(version: str, pseudo: dict[bytes, bytes], fields: Sequence[Field]) -> Sent:
    """Return what a request's line has to tell; fields come once each."""
    given = dict(fields)
    path, authority = pseudo.get(b":path", b""), pseudo.get(b":authority", b"")
    theirs = given.get(b"x-request-id", b"")
    told = {
        "target": _text(path or authority or b"-"),
        "method": _text(pseudo.get(b":method") or None),
        "scheme": _text(pseudo.get(b":scheme") or None),
        "authority": _text(authority or None),
        "user_agent": _text(given.get(b"user-agent")),
        "referrer": _text(given.get(b"referer")),
        "request_id": _text(theirs) if re.fullmatch(rb"[!-~]{1,200}", theirs) else None,
        "traceparent": _text(dict(_TRACES).get(given.get(b"traceparent", b""))),
        "user": None,
    }
    return Sent(version, told, _text(given.get(b"x-any")))


# HTTP/2


def _integer(value: int, bits: int, first: int) -> bytes:
    """Return an integer with a prefix (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    coded = bytearray((first | most,))
    value -= most
    while value >= 128:
        coded.append(value & 127 | 128)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def _string(raw: bytes, huffman: bool) -> bytes:
    if huffman:
        raw = _huffman(raw)
    return _integer(len(raw), 7, 128 if huffman else 0) + raw


def block(fields: Sequence[Field], dice: random.Random | None = None) -> bytes:
    """Return a header block of literals, whatever is in them; `dice` choose how they are coded."""
    coded = []
    for name, value in fields:
        kind, bits, huffman = 0x00, 4, False
        if dice is not None and (roll := dice.random()) < 0.3:
            # never indexed, or with incremental indexing; some as Huffman's
            kind, bits = (0x10, 4) if roll < 0.2 else (0x40, 6)
            huffman = roll > 0.28 and len(value) < 100
        index = _NAMES.get(name, 0)
        coded.append(_integer(index, bits, kind))
        if not index:
            coded.append(_string(name, huffman))
        coded.append(_string(value, huffman))
    return b"".join(coded)


def request_frames(stream: int, coded: bytes) -> bytes:
    """Return HEADERS, and CONTINUATION for what does not fit, of a request without content."""
    pieces = [coded[at : at + _FRAME] for at in range(0, len(coded), _FRAME)] or [b""]
    frames = []
    for n, piece in enumerate(pieces):
        flags = (END_STREAM if n == 0 else 0) | (END_HEADERS if piece is pieces[-1] else 0)
        frames.append(frame(_CONTINUATION if n else HEADERS, flags, stream, piece))
    return b"".join(frames)


def wait(number: int) -> Sent:
    """Return a request that is never answered."""
    pseudo = {
        b":method": b"GET",
        b":scheme": b"https",
        b":authority": b"localhost",
        b":path": b"/wait?n=%d" % number,
    }
    made = _sent("h2", pseudo, [])
    made.fields = list(pseudo.items())
    return made


def undecodable() -> tuple[Sent, bytes]:
    """Return a request of which nothing can be read, and its block: too large an integer."""
    return Sent("h2", {"target": "-", **dict.fromkeys(WHOLE[1:])}), b"\xff" * 7


def hostile_h2(number: int, dice: random.Random) -> Sent:
    """Return one of any number of requests; about a third are malformed."""
    bad = dice.random() < 0.25

    def piece(good: Sequence[bytes], any_: Sequence[bytes]) -> bytes:
        return dice.choice(any_ if bad else good)

    def value(pieces: Sequence[bytes] = _IN_VALUE) -> bytes:
        inner = b"".join([piece(pieces, NASTY) for _ in range(dice.randrange(1, 4))])
        return b"v%d%bz" % (number, inner)

    roll = dice.random()
    path = b"/%d%b%b" % (number, piece(_IN_PATH, NASTY), piece(_IN_PATH, NASTY))
    pseudo = {
        b":method": b"GET",
        b":scheme": b"https",
        b":authority": b"localhost",
        b":path": path,
    }
    fields = {b"user-agent": value()}
    if dice.random() < 0.5:
        fields[b"referer"] = dice.choice((b"https://x.test/%b", b"%b")) % value()
    if dice.random() < 0.3:
        fields[b"x-any"] = value()
    if dice.random() < 0.2:
        fields[b"x-request-id"] = dice.choice(_IDS)
    if dice.random() < 0.2:
        fields[b"traceparent"] = dice.choice(_TRACES)[0]
    if roll < 0.10:
        pseudo[b":method"] = piece(_METHODS, _BAD_METHODS)
    elif roll < 0.18:
        pseudo[b":authority"] = piece(_AUTHORITIES, _BAD_AUTHORITIES)
    elif roll < 0.21:
        pseudo[b":scheme"] = piece(_SCHEMES, _BAD_SCHEMES)
    elif roll < 0.23:
        del pseudo[dice.choice(list(pseudo))]
    elif roll < 0.24:
        pseudo = {b":method": b"CONNECT", b":authority": piece(_AUTHORITIES, NASTY)}
    elif roll < 0.27:
        pseudo[b":path"] = dice.choice((b"", b"*", b"#", b"#dropped lines=1", b"a", b"-", b"?a=1"))
    elif roll < 0.272:
        pseudo[b":path"] = (path + dice.choice(_IN_PATH) * 8192)[:8192]
    elif roll < 0.274:
        fields[b"user-agent"] = (value() * 1000)[:6000] + b"z"
        fields[b"referer"] = b"https://x.test/" + b"y" * 9000
    elif roll < 0.30:
        fields = {}  # a block whose path alone differs from others'
    elif roll < 0.32:
        fields[dice.choice((b"user-agent", b"referer"))] = b""
    made = _sent("h2", pseudo, list(fields.items()))
    if dice.random() < 0.2:
        user = dice.choice(_USERS) + dice.choice((b"", b"%d" % number))
        fields[b"authorization"] = b"Basic " + b64encode(user + b":pw")
        made.told["user"] = _text(user or None)
    made.fields = [*pseudo.items(), *fields.items()]
    return made


# HTTP/1.1


def plain_h1(number: int, dice: random.Random) -> tuple[Sent, bytes]:
    """Return a request that any server takes, and its bytes: one that may be followed by others."""
    path = b"/%d%b%b" % (number, dice.choice(_IN_H1_TARGET), dice.choice(_IN_H1_TARGET))
    agent = b"v%d%bz" % (number, dice.choice([p for p in _IN_VALUE if p.isascii()]))
    fields = [(b"host", b"localhost"), (b"user-agent", agent), (b"x-any", b"\xc3\xa9%d" % number)]
    return _h1(path, fields)


def hostile_h1(number: int, dice: random.Random) -> tuple[Sent, bytes]:
    """Return a request, and its bytes, that may be refused: the last one of its connection."""
    path, agent = b"/%d" % number, b"v%d" % number
    if dice.random() < 0.5:
        path += b"a%bz" % dice.choice(NASTY)
    else:
        agent += b"a%bz" % dice.choice(NASTY)
    fields = [(b"host", b"localhost"), (b"user-agent", agent), (b"connection", b"close")]
    made, raw = _h1(path, fields)
    made.sure = False
    made.told["target"] = _text(re.split(rb"\r?\n| ", path, maxsplit=1)[0])
    return made, raw


def _h1(path: bytes, fields: list[Field]) -> tuple[Sent, bytes]:
    pseudo = {b":method": b"GET", b":scheme": b"https", b":authority": b"localhost", b":path": path}
    lines = [b"GET %b HTTP/1.1" % path, *(b"%b: %b" % pair for pair in fields)]
    return _sent("1.1", pseudo, fields), b"\r\n".join(lines) + b"\r\n\r\n"
