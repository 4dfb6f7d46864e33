"""Content of files between frame headers, in memory that is used again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from h2log.server.framed import BEFORE, MOST_FRAMED, FrameBuffer
from tests.protocol.frames import DataFrame, parse

CONTENT = os.urandom(3 * MOST_FRAMED)
FRAME = 16_384


@pytest.mark.parametrize("size", [1, FRAME - 1, FRAME, FRAME + 1, 4 * FRAME, MOST_FRAMED])
@pytest.mark.parametrize("end", [False, True])
def test_what_is_read_is_a_row_of_frames(tmp_path: Path, size: int, end: bool) -> None:
    """Full ones and the rest, of which the last alone may end the stream."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        for offset in (0, 77):
            assert buffer.read(file.fileno(), offset, size) == size
            frames = parse(bytes(buffer.framed(b"", 7, size, end)))
            content = b""
            for frame in frames:
                assert isinstance(frame, DataFrame)
                assert frame.stream_id == 7
                assert frame.end == (end and frame is frames[-1])
                content += frame.payload
            assert len(frames) == -(-size // FRAME)
            assert content == CONTENT[offset : offset + size]


def test_what_goes_before_is_right_before(tmp_path: Path) -> None:
    """As much as there is room for, or nothing."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        for before in (b"", b"before", os.urandom(BEFORE)):
            assert buffer.read(file.fileno(), 0, 10) == 10
            whole = bytes(buffer.framed(before, 1, 10, False))
            assert whole[: len(before)] == before
            assert whole[len(before) + 9 :] == CONTENT[:10]


def test_no_more_is_read_than_goes_out_at_once(tmp_path: Path) -> None:
    """Nor more than there is; of what is no file, nothing."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        assert buffer.read(file.fileno(), 0, len(CONTENT)) == MOST_FRAMED
        assert buffer.read(file.fileno(), len(CONTENT) - 10, FRAME) == 10
        assert buffer.read(file.fileno(), len(CONTENT), FRAME) == 0
    left, right = os.pipe()
    try:
        assert buffer.read(left, 0, 10) == 0
    finally:
        os.close(left)
        os.close(right)


def test_what_somebody_still_reads_is_not_written_over(tmp_path: Path) -> None:
    """A transport that is full may keep what it was given instead of a copy."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        kept = []
        for number in range(5):
            assert buffer.read(file.fileno(), number * 1000, 1000) == 1000
            kept.append(memoryview(buffer.framed(b"head", 1, 1000, True)).cast("b")[3:])
        for number, view in enumerate(kept):
            assert bytes(view)[10:] == CONTENT[number * 1000 : number * 1000 + 1000]
        del kept, view
        memory = buffer._memory
        assert buffer.read(file.fileno(), 0, 10) == 10
        assert buffer._memory is memory  # and what nobody reads is used again
