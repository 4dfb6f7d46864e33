"""A strict client: what RFC 9113 lets a server send, judged from nothing but the bytes.

It reads both directions, shares no code with the engine, and raises `Broken` at the first byte of
output that a client need not accept. It also knows, from what was sent, which requests were opened
and what must end the connection.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from hpack import Decoder, HPACKError

__all__ = ["CONTENT", "Broken", "Client", "View"]

CONTENT = bytes(range(251)) * 400
"""What every response's content is cut from: a byte says its place, modulo 251."""

_HEAD = Struct(">BHBBL").unpack_from
_MAX_31 = 2**31 - 1
_FULL = 16_384
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Blocks that leave no trace in a decoder, and what they say: status and whether all is in order.
_pure: dict[bytes, tuple[int, str | None]] = {}


class Broken(AssertionError):
    """The engine did what it must not do; the message says what."""


class View:
    """One stream as its client sees it."""

    __slots__ = (
        "cancelled",
        "content",
        "ended",
        "final",
        "finished",
        "heads",
        "received",
        "reset",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self.content: list[bytes] = []  # of the request, as it was sent
        self.finished = False  # we sent END_STREAM
        self.cancelled = False  # we sent RST_STREAM
        self.heads = 0
        self.final = False
        self.received = 0  # bytes of the response's content
        self.ended = False
        self.reset: int | None = None


class Client:
    """One connection as its client sees it."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_id",
        "_decoder",
        "_greeted",
        "_in",
        "_in_flags",
        "_in_id",
        "_initial",
        "_max_frame",
        "_out",
        "_preface",
        "_unacked",
        "blocks",
        "codes",
        "doomed",
        "frames",
        "goaway",
        "last",
        "last_kind",
        "opened",
        "pings",
        "room",
        "streams",
        "window",
    )

    def __init__(self) -> None:
        self._out = b""  # what we sent of a frame that is not whole yet
        self._preface = len(_PREFACE)
        self._block: list[bytes] | None = None
        self._block_id = self._block_flags = 0
        self._in: list[bytes] | None = None
        self._in_id = self._in_flags = 0
        self._initial = 65_535
        self._max_frame = _FULL
        self._unacked: deque[list[tuple[int, int]]] = deque()
        self._decoder: Decoder | None = None
        self._greeted = False
        self.window = 65_535
        """Bytes that the server may send."""
        self.room = 65_535
        """Bytes that we may send."""
        self.streams: dict[int, View] = {}
        self.opened: list[int] = []
        """The requests that were sent whole, in order."""
        self.blocks: list[tuple[int, bytes]] = []
        """Every header block that was sent, and its stream."""
        self.last = 0
        self.doomed = ""
        """Why the server must end the connection, if it must."""
        self.pings: deque[bytes] = deque()
        self.goaway: tuple[int, int] | None = None
        """The last GOAWAY's stream and code."""
        self.frames = 0
        self.last_kind = -1
        self.codes: set[int] = set()
        """Codes of RST_STREAM that came."""

    # What we send

    def sent(self, data: bytes) -> None:
        """Note what we send, whether it keeps the rules or not."""
        if self.doomed:
            return
        data = self._out + data
        pos = 0
        if self._preface:
            seen = data[: self._preface]
            if not _PREFACE[-self._preface :].startswith(seen):
                self.doomed = "preface"
                return
            self._preface -= len(seen)
            pos = len(seen)
        size = len(data)
        while size - pos >= 9:
            high, low, kind, flags, number = _HEAD(data, pos)
            length = high << 16 | low
            if length > _FULL:
                self.doomed = "frame size"
                return
            end = pos + 9 + length
            if end > size:
                break
            self._note(kind, flags, number & _MAX_31, data[pos + 9 : end])
            if self.doomed:
                return
            pos = end
        self._out = data[pos:]

    def _note(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != 9 or number != self._block_id):
            self.doomed = "a frame in a header block"
        elif kind == 1:
            self._note_headers(flags, number, payload)
        elif kind == 0:
            self.room -= len(payload)
            view = self.streams.get(number)
            if view is None:
                return
            content = payload
            if flags & 8:
                if not payload or payload[0] >= len(payload):
                    return  # an error while the stream is open, and else thrown away
                content = payload[1 : len(payload) - payload[0]]
            if not view.finished:
                view.content.append(content)
                view.finished = bool(flags & 1)
        elif kind == 9:
            if self._block is None:
                self.doomed = "CONTINUATION"
                return
            self._block.append(payload)
            if flags & 4:
                block, self._block = b"".join(self._block), None
                self._note_block(self._block_id, self._block_flags, block)
        elif kind == 3:
            if len(payload) != 4 or not number:
                self.doomed = "RST_STREAM"
            elif number in self.streams:
                self.streams[number].cancelled = True
        elif kind == 4:
            if number or (payload if flags & 1 else len(payload) % 6):
                self.doomed = "SETTINGS"
            elif not flags & 1:
                self._unacked.append(
                    [
                        (
                            int.from_bytes(payload[pos : pos + 2], "big"),
                            int.from_bytes(payload[pos + 2 : pos + 6], "big"),
                        )
                        for pos in range(0, len(payload), 6)
                    ]
                )
        elif kind == 8:
            if len(payload) != 4:
                self.doomed = "WINDOW_UPDATE"
                return
            increment = int.from_bytes(payload, "big") & _MAX_31
            if not number:
                self.window += increment
                if not increment:
                    self.doomed = "WINDOW_UPDATE"
            elif number in self.streams:
                self.streams[number].window += increment
        elif kind == 6:
            if len(payload) != 8 or number:
                self.doomed = "PING"
            elif not flags & 1:
                self.pings.append(payload)
        elif kind == 5:
            self.doomed = "PUSH_PROMISE"

    def _note_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            self.doomed = "HEADERS on an even stream"
            return
        if flags & 8:
            if not payload or payload[0] >= len(payload):
                self.doomed = "padding"
                return
            payload = payload[1 : len(payload) - payload[0]]
        if flags & 0x20:
            if len(payload) < 5:
                self.doomed = "priority"
                return
            payload = payload[5:]
        if number <= self.last and number not in self.streams:
            self.doomed = "HEADERS on a stream that was skipped"
        elif flags & 4:
            self._note_block(number, flags, payload)
        else:
            self._block, self._block_id, self._block_flags = [payload], number, flags

    def _note_block(self, number: int, flags: int, block: bytes) -> None:
        self.blocks.append((number, block))
        if number > self.last:
            self.last = number
            self.opened.append(number)
            view = self.streams[number] = View(self._initial)
        else:
            view = self.streams[number]
        if flags & 1:
            view.finished = True

    def begun(self) -> int:
        """Return the request whose header block is not whole yet, 0 for none."""
        return self._block_id if self._block is not None and self._block_id > self.last else 0

    # What the server sends

    def got(self, data: bytes, racing: bool) -> None:
        """Check what the server sent; `racing` when we may have sent more before it was made."""
        pos, size = 0, len(data)
        while pos < size:
            if size - pos < 9:
                raise Broken("the output ends inside a frame's head")
            high, low, kind, flags, number = _HEAD(data, pos)
            length = high << 16 | low
            end = pos + 9 + length
            if end > size:
                raise Broken(f"the output ends inside a frame of type {kind}, {length} bytes")
            if length > self._max_frame:
                raise Broken(f"a frame of {length} bytes, over {self._max_frame}")
            if number > _MAX_31:
                raise Broken("the reserved bit is set")
            self._check(kind, flags, number, data[pos + 9 : end], racing)
            self.frames += 1
            self.last_kind = kind
            pos = end

    def _check(self, kind: int, flags: int, number: int, payload: bytes, racing: bool) -> None:
        if not self._greeted:
            if kind != 4 or flags & 1:
                raise Broken(f"the first frame is of type {kind}, not SETTINGS")
            self._greeted = True
        if self._in is not None and (kind != 9 or number != self._in_id):
            raise Broken("a header block is not contiguous")
        if kind == 0 or kind == 1:
            self._check_message(kind, flags, number, payload)
        elif kind == 9:
            if self._in is None or flags & ~4:
                raise Broken("CONTINUATION without HEADERS, or with other flags")
            self._in.append(payload)
            if flags & 4:
                block, self._in = b"".join(self._in), None
                self._check_block(self.streams[number], self._in_flags, block)
        elif kind == 3:
            if len(payload) != 4:
                raise Broken("RST_STREAM is not 4 bytes")
            view = self._view(number, "RST_STREAM")
            if view.reset is not None:
                raise Broken(f"stream {number} is reset twice")
            if view.ended and view.finished and not racing:
                raise Broken(f"RST_STREAM on stream {number}, which is closed")
            view.reset = int.from_bytes(payload, "big")
            self.codes.add(view.reset)
        elif kind == 8:
            increment = int.from_bytes(payload, "big")
            if len(payload) != 4 or not 0 < increment <= _MAX_31:
                raise Broken(f"WINDOW_UPDATE by {payload.hex()}")
            if not number:
                self.room += increment
                if self.room > _MAX_31:
                    raise Broken("our window is over its bound")
            else:
                view = self._view(number, "WINDOW_UPDATE")
                if view.reset is not None or (view.finished and not racing):
                    raise Broken(f"WINDOW_UPDATE on stream {number}, which has ended")
        elif kind == 4:
            self._check_settings(flags, number, payload)
        elif kind == 6:
            if len(payload) != 8 or number:
                raise Broken("PING is not 8 bytes on stream 0")
            if flags & 1 and (not self.pings or self.pings.popleft() != payload):
                raise Broken("a PING is acknowledged that was not sent, or out of turn")
        elif kind == 7:
            if len(payload) < 8 or number:
                raise Broken("GOAWAY is shorter than 8 bytes, or on a stream")
            last = int.from_bytes(payload[:4], "big")
            if self.goaway is not None and last > self.goaway[0]:
                raise Broken(f"GOAWAY raises its last stream to {last}")
            self.goaway = last, int.from_bytes(payload[4:8], "big")
        else:
            raise Broken(f"a server does not send frames of type {kind}")

    def _check_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % 6 or (flags & 1 and payload):
            raise Broken("SETTINGS are misshapen")
        if not flags & 1:
            return
        if not self._unacked:
            raise Broken("SETTINGS are acknowledged that were not sent")
        for key, value in self._unacked.popleft():
            if key == 4:
                for view in self.streams.values():
                    view.window += value - self._initial
                self._initial = value
            elif key == 5:
                self._max_frame = value
            elif key == 1:
                if self._decoder is None:
                    self._decoder = Decoder()
                self._decoder.max_allowed_table_size = min(value, 1 << 20)

    def _view(self, number: int, what: str) -> View:
        view = self.streams.get(number)
        if view is None:
            raise Broken(f"{what} on stream {number}, which is idle")
        return view

    def _check_message(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        view = self._view(number, "DATA or HEADERS")
        if view.ended or view.reset is not None:
            raise Broken(f"a frame of type {kind} on stream {number}, which has ended")
        if self.goaway is not None and number > self.goaway[0]:
            raise Broken(f"a response on stream {number}, over GOAWAY's {self.goaway[0]}")
        if kind == 1:
            if flags & ~5:
                raise Broken(f"HEADERS with flags {flags:#x}")
            if flags & 4:
                self._check_block(view, flags, payload)
            else:
                self._in, self._in_id, self._in_flags = [payload], number, flags
            return
        if flags & ~1:
            raise Broken(f"DATA with flags {flags:#x}")
        if not view.final:
            raise Broken("DATA before the final header section")
        size = len(payload)
        if size:
            view.window -= size
            self.window -= size
            if view.window < 0:
                raise Broken(f"DATA is {-view.window} over the window of stream {number}")
            if self.window < 0:
                raise Broken(f"DATA is {-self.window} over the connection's window")
            place = view.received % 251
            if payload != CONTENT[place : place + size]:
                raise Broken(f"the content of stream {number} is not what was given")
            view.received += size
        view.ended = bool(flags & 1)

    def _check_block(self, view: View, flags: int, block: bytes) -> None:
        known = _pure.get(block) if self._decoder is None else None
        if known is None:
            known = self._read_block(block)
        status, fault = known
        if fault is not None:
            raise Broken(f"a header block: {fault}")
        view.heads += 1
        if view.final:
            if status or not flags & 1:
                raise Broken("trailers with a status, or that do not end the stream")
        elif not status:
            raise Broken("a header section without a status")
        elif status >= 200:
            view.final = True
        elif flags & 1:
            raise Broken("an interim response ends the stream")
        view.ended = bool(flags & 1)

    def _read_block(self, block: bytes) -> tuple[int, str | None]:
        decoder = self._decoder or Decoder()
        try:
            fields = [(bytes(n), bytes(v)) for n, v in decoder.decode(block, raw=True)]
        except HPACKError as error:
            return 0, f"{type(error).__name__}: {error}"
        status, fault = 0, None
        for place, (name, value) in enumerate(fields):
            if name == b":status" and not place:
                status = int(value)
            elif name[:1] == b":" or name != name.lower() or not name:
                fault = f"the field {name!r}"
        if len(decoder.header_table.dynamic_entries):
            self._decoder = decoder
        elif len(_pure) < 4096 and self._decoder is None:
            _pure[block] = status, fault
        return status, fault
