"""What the frames of a WebSocket are held to: the size of messages, compression, floods.

wsproto reads the frames; an extension of it is asked about the head of every frame that comes and
has all payload pass through it, so the bounds are one. It is also permessage-deflate (RFC 7692):
wsproto's own inflates whatever comes, however much that becomes, and loses its place when a ping
stands between two fragments of a compressed message.

Most of what comes are whole messages of one frame, small and not compressed: there is nothing to
judge about one that is as it should be, and `simple_message` takes a fifth of wsproto's time for
it. Whatever else there is to a frame is left to wsproto. Our own messages are a head of two to ten
bytes, which nobody masks.
"""

from __future__ import annotations

import zlib
from io import StringIO
from typing import Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    Frame,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    RsvBits,
)

from h2log.clock import monotonic
from h2log.http2.budget import Budget, Purse
from h2log.server.websocket_handshake import DeflateTerms

__all__ = ["BUDGETS", "Bounds", "Frames", "Message", "Parts", "simple_message"]

Message = str | bytes
"""What is text, and what is not."""

BUDGETS: Final[dict[str, Budget]] = {
    # PING and PONG: browsers send none of their own accord, programs one each few seconds. The same
    # as for HTTP/2's.
    "websocket_control": Budget(100, 10),
    # Fragments without content that do not end their message: they are for nothing. RFC 6455 allows
    # them (section 5.4), and a library that streams may end with one.
    "websocket_empty_fragment": Budget(100, 10),
}
"""What a client may spend of frames that cost us more than it; see `http2/budget.py`. A spent one
closes its WebSocket with 1008."""

_TAIL: Final = b"\x00\x00\xff\xff"  # cut off each message (RFC 7692 section 7.2.1)
_MEMORY_LEVEL: Final = 5
"""16 KiB for what is being compressed, in proportion to the window."""
_MAX_FINALS: Final = 8
"""Final DEFLATE blocks in one message: they are allowed (RFC 7692 section 7.2.3.4), a library that
cannot flush ends with one, and each costs a new decompressor."""

_TEXT: Final = 0x81  # the last frame of a message, which is also its first
_BINARY: Final = 0x82
_RSV1: Final = 0x40
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127

_BAD_GATEWAY: Final = (1014).to_bytes(2, "big")
_TRY_AGAIN: Final = (1013).to_bytes(2, "big")

_NO_BITS: Final = RsvBits(False, False, False)
_COMPRESSED: Final = RsvBits(True, False, False)


class Frames(FrameProtocol):
    """wsproto's, which does not know the youngest close code, 1014 (IANA, RFC 6455 11.7)."""

    def _process_close(self, frame: Frame) -> Frame:
        payload = frame.payload
        if not isinstance(payload, bytes | bytearray) or payload[:2] != _BAD_GATEWAY:
            return super()._process_close(frame)
        known = super()._process_close(frame._replace(payload=_TRY_AGAIN + payload[2:]))
        assert isinstance(known.payload, tuple)
        return known._replace(payload=(1014, known.payload[1]))


class Bounds(Extension):
    """The bounds on one WebSocket's messages, and its compression.

    `terms` is what was agreed on, None for none; `max_message` the most bytes of a message that
    comes, decompressed; messages of less than `threshold` bytes are sent as they are. A frame that
    spends a budget raises SessionError.
    """

    name = "permessage-deflate"

    def __init__(self, terms: DeflateTerms | None, max_message: int, threshold: int) -> None:
        self._terms = terms
        self._max_message = max_message
        self._threshold = threshold
        self.taken = 0
        """Bytes of the frames that are through, their heads among them."""
        self._left = max_message  # bytes that the message may still have
        self._control = False  # the frame that is read is a control frame
        self._length = 0  # its payload's, as it was sent
        self._compressed = False  # the message that is read is
        self._finals = 0
        self._inflater: zlib._Decompress | None = None
        self._deflater: zlib._Compress | None = None
        self._purse = Purse(BUDGETS)

    def enabled(self) -> bool:
        """Take part."""
        return True

    def offer(self) -> bool | str:
        """Offer nothing: this is a server's."""
        return False

    def release(self) -> None:
        """Give back the memory of the compression: wsproto's circles hold it for a while yet."""
        self._inflater = None
        self._deflater = None

    # What comes

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Judge the head of a frame; return the reserved bits that it may have."""
        self._control = opcode.iscontrol()
        self._length = payload_length
        if self._control:
            if opcode is not Opcode.CLOSE:
                self._purse.spend("websocket_control", monotonic())
            return _NO_BITS
        allowed = _NO_BITS
        if opcode is not Opcode.CONTINUATION:  # a message begins
            self._left = self._max_message
            self._compressed = rsv.rsv1
            self._finals = 0
            if self._terms is not None:
                allowed = _COMPRESSED
        if payload_length > self._left and not self._compressed:
            return CloseReason.MESSAGE_TOO_BIG
        return allowed

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Take a piece of payload; return what it means."""
        if self._control:
            return data
        if self._compressed:
            return self._inflate(data)
        self._left -= len(data)
        return data

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """A frame is through; return what the end of a message still brings."""
        length = self._length  # coded in its shortest form, or it would not have come to this
        self.taken += length + (6 if length < 126 else 8 if length < 1 << 16 else 14)
        if self._control:
            return None
        if not fin:
            if not self._length:
                self._purse.spend("websocket_empty_fragment", monotonic())
            return None
        if not self._compressed:
            return None
        rest = self._inflate(_TAIL)
        if self._terms is not None and self._terms.client_fresh:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        """Return what `data` was compressed from, never more than the message may have."""
        made = b""
        while True:
            inflater = self._inflater
            if inflater is None:
                assert self._terms is not None
                bits = self._terms.client_bits or 15
                inflater = self._inflater = zlib.decompressobj(-max(bits, 9))
            try:
                piece = inflater.decompress(data, self._left + 1)
            except zlib.error:
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            made = made + piece if made else piece
            self._left -= len(piece)
            if self._left < 0:
                return CloseReason.MESSAGE_TOO_BIG
            if not inflater.eof:
                return made
            # What follows a final block is a stream of its own.
            data = inflater.unused_data
            self._inflater = None
            self._finals += 1
            if self._finals > _MAX_FINALS:
                return CloseReason.POLICY_VIOLATION
            if not data:
                return made

    # What is sent

    def outgoing(self, message: Message) -> tuple[bytes, bytes]:
        """Return a message as a frame's head and its payload, compressed where that is agreed."""
        if isinstance(message, str):
            first, payload = _TEXT, message.encode()
        else:
            first, payload = _BINARY, message
        if self._terms is not None and len(payload) >= self._threshold:
            first |= _RSV1
            payload = self._deflated(payload, self._terms)
        size = len(payload)
        if size < _LENGTH_16:
            return bytes((first, size)), payload
        if size < 1 << 16:
            return bytes((first, _LENGTH_16)) + size.to_bytes(2, "big"), payload
        return bytes((first, _LENGTH_64)) + size.to_bytes(8, "big"), payload

    def _deflated(self, payload: bytes, terms: DeflateTerms) -> bytes:
        deflater = self._deflater
        if deflater is None:
            # zlib's window of 2^9 reaches back 250 bytes, so it also does for one of 2^8.
            deflater = self._deflater = zlib.compressobj(
                wbits=-max(terms.server_bits, 9), memLevel=_MEMORY_LEVEL
            )
        made = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        if terms.server_fresh:
            self._deflater = None
        return made[: -len(_TAIL)]


def simple_message(data: bytes, at: int, most: int) -> tuple[Message, int] | None:
    """Return the message whose one frame begins at `at`, and where that ends.

    None when it is not all there, has more than `most` bytes or 64 KiB, or is anything but an
    uncompressed text or binary message that is in order.
    """
    start = at + 6
    if start > len(data):
        return None
    first = data[at]
    size = data[at + 1] - _MASKED
    if size < 0 or (first != _TEXT and first != _BINARY):
        return None
    if size >= _LENGTH_16:
        start += 2
        size = int.from_bytes(data[at + 2 : at + 4], "big") if size == _LENGTH_16 else 0
        if size < _LENGTH_16:
            return None
    end = start + size
    if end > len(data) or size > most:
        return None
    mask = data[start - 4 : start] * (size // 4 + 1)
    number = int.from_bytes(data[start:end], "big") ^ int.from_bytes(mask[:size], "big")
    payload = number.to_bytes(size, "big")
    if first == _BINARY:
        return payload, end
    try:
        return payload.decode(), end
    except UnicodeDecodeError:
        return None


class Parts:
    """A message of which a part has come: many small ones take no more than they are."""

    __slots__ = ("_bytes", "_text")

    def __init__(self, first: Message) -> None:
        self._text: StringIO | None = None
        self._bytes = bytearray()
        if isinstance(first, str):
            self._text = StringIO()
        self.add(first)

    def add(self, part: Message) -> None:
        """Add what comes next."""
        if self._text is not None and isinstance(part, str):
            self._text.write(part)
        elif isinstance(part, bytes):
            self._bytes += part

    def whole(self) -> Message:
        """Return all of it."""
        return bytes(self._bytes) if self._text is None else self._text.getvalue()
