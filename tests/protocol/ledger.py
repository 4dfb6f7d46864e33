"""What a client knows of the connection, and what it lets the server send for that (RFC 9113).

A `Ledger` reads both directions and is independent of the engine. `got` raises AssertionError at
the first frame that the server was not allowed to send: over a window or the frame size, on a
stream that is idle or closed, inside a header block, or a header block that a strict decoder
does not accept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder

from tests.protocol.frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_31,
    MAX_FRAME_SIZE,
    PREFACE,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
    split,
)

Fields = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    """What came back on one stream."""

    window: int
    sections: list[Fields] = field(default_factory=list)  # interim ones, the final one, trailers
    content: bytes = b""
    frames: int = 0  # of DATA
    ended: bool = False
    reset: int | None = None
    cancelled: bool = False  # we sent RST_STREAM
    finished: bool = False  # we sent END_STREAM

    @property
    def status(self) -> bytes | None:
        """The final response's status."""
        found = [dict(section).get(b":status") for section in self.sections]
        final = [status for status in found if status is not None and status[:1] != b"1"]
        assert len(final) < 2, f"two final responses: {final}"
        return final[0] if final else None

    @property
    def complete(self) -> bool:
        """Whether a whole response came."""
        return self.ended and self.status is not None


class Ledger:
    """One connection as its client sees it."""

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        """Bytes that the server may send on the connection."""
        self.receive_window = DEFAULT_WINDOW
        """Bytes that we may send on the connection."""
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = DEFAULT_FRAME_SIZE
        self.answers: dict[int, Answer] = {}
        self.goaways: list[GoAwayFrame] = []
        self.pings: list[bytes] = []
        """Payloads of PINGs that the server answered."""
        self.decoder = Decoder()
        self._unacknowledged: list[list[tuple[int, int]]] = []
        self._greeted = False
        self._block: list[bytes] | None = None
        self._block_head: HeadersFrame | None = None
        self._unsent = b""  # what we sent of a frame that is not whole yet
        self._preface = len(PREFACE)  # how much of it is still to be sent

    # What we send

    def sent(self, output: bytes) -> None:
        """Note what we send, whether it keeps the rules or not."""
        skipped = min(self._preface, len(output))
        self._preface -= skipped
        frames, self._unsent = split(self._unsent + output[skipped:])
        for frame in frames:
            self._note(frame)

    def _note(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        if isinstance(frame, DataFrame) and frame.end and stream_id in self.answers:
            self.answers[stream_id].finished = True
        match frame:
            case HeadersFrame() | ContinuationFrame() if stream_id & 1:
                answer = self.answers.setdefault(stream_id, Answer(self.initial_window))
                if isinstance(frame, HeadersFrame) and frame.end:
                    answer.finished = True
            case DataFrame():
                self.receive_window -= frame.size
            case RstStreamFrame() if frame.size == 4 and stream_id in self.answers:
                self.answers[stream_id].cancelled = True
            case SettingsFrame() if not frame.ack and frame.size % 6 == 0 and not stream_id:
                self._unacknowledged.append(frame.values)
            case WindowUpdateFrame() if frame.size == 4:
                if stream_id == 0:
                    self.window += frame.increment
                elif stream_id in self.answers:
                    self.answers[stream_id].window += frame.increment
            case _:
                pass

    # What the server sends

    def got(self, frames: Iterable[Frame]) -> None:
        """Check what the server sent."""
        for frame in frames:
            self._check(frame)

    def _check(self, frame: Frame) -> None:
        if not self._greeted:
            assert isinstance(frame, SettingsFrame) and not frame.ack, "SETTINGS come first"
            self._greeted = True
        assert frame.size <= self.max_frame, f"{frame.size} bytes, over {self.max_frame}"
        if self._block is not None:
            assert isinstance(frame, ContinuationFrame), "a header block is contiguous"
        match frame:
            case DataFrame() | HeadersFrame() | ContinuationFrame():
                self._check_response(frame)
            case RstStreamFrame():
                assert frame.size == 4
                answer = self._answer(frame)
                assert answer.reset is None, f"stream {frame.stream_id} was reset twice"
                assert not (answer.ended and answer.finished), f"{frame} is on a closed stream"
                answer.reset = frame.code
            case WindowUpdateFrame():
                assert frame.size == 4 and frame.increment > 0
                if frame.stream_id == 0:
                    self.receive_window += frame.increment
                    assert self.receive_window <= MAX_31
                else:
                    assert self._answer(frame).reset is None
            case SettingsFrame():
                assert frame.stream_id == 0
                if frame.ack:
                    assert not frame.payload
                    self._apply(self._unacknowledged.pop(0))
            case PingFrame():
                assert frame.stream_id == 0 and frame.size == 8
                if frame.ack:
                    self.pings.append(frame.payload)
            case GoAwayFrame():
                assert frame.stream_id == 0 and frame.size >= 8
                if self.goaways:
                    last = self.goaways[-1].last_stream_id
                    assert frame.last_stream_id <= last, "GOAWAY may not raise its last stream"
                self.goaways.append(frame)
            case _:
                raise AssertionError(f"a server does not send {frame}")

    def _answer(self, frame: Frame) -> Answer:
        assert frame.stream_id in self.answers, f"{frame} is on an idle stream"
        return self.answers[frame.stream_id]

    def _check_response(self, frame: Frame) -> None:
        answer = self._answer(frame)
        assert not answer.ended, f"{frame} is after END_STREAM"
        assert answer.reset is None, f"{frame} is after RST_STREAM"
        if isinstance(frame, DataFrame):
            assert answer.status is not None, "DATA is before HEADERS"
            answer.window -= frame.size
            self.window -= frame.size
            assert not frame.size or answer.window >= 0, (
                f"{-answer.window} over the stream's window"
            )
            assert not frame.size or self.window >= 0, (
                f"{-self.window} over the connection's window"
            )
            answer.content += frame.payload
            answer.frames += 1
            answer.ended = frame.end
            return
        if isinstance(frame, HeadersFrame):
            self._block, self._block_head = [], frame
        assert self._block is not None and self._block_head is not None
        assert frame.stream_id == self._block_head.stream_id
        self._block.append(frame.payload)
        if frame.flags & END_HEADERS:
            fields = self.decoder.decode(b"".join(self._block), raw=True)
            answer.sections.append([(bytes(name), bytes(value)) for name, value in fields])
            answer.ended = self._block_head.end
            self._block = None

    def _apply(self, values: list[tuple[int, int]]) -> None:
        for key, value in values:
            if key == INITIAL_WINDOW_SIZE:
                for answer in self.answers.values():
                    answer.window += value - self.initial_window
                self.initial_window = value
            elif key == MAX_FRAME_SIZE:
                self.max_frame = value
            elif key == HEADER_TABLE_SIZE:
                self.decoder.max_allowed_table_size = value
