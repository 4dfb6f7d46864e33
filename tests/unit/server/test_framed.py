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
            buffer.begin()
            assert buffer.add(file.fileno(), 7, offset, size, end) == size
            frames = parse(bytes(buffer.framed(b"")))
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
            buffer.begin()
            assert buffer.add(file.fileno(), 1, 0, 10, False) == 10
            whole = bytes(buffer.framed(before))
            assert whole[: len(before)] == before
            assert whole[len(before) + 9 :] == CONTENT[:10]


def test_no_more_is_read_than_there_is(tmp_path: Path) -> None:
    """The end of what was asked for is not there then; of what is no file, there is nothing."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        buffer.begin()
        assert buffer.add(file.fileno(), 1, len(CONTENT) - 10, FRAME, True) == 10
        assert buffer.add(file.fileno(), 3, len(CONTENT), FRAME, True) == 0
        [frame] = parse(bytes(buffer.framed(b"")))
        assert (frame.size, frame.flags) == (10, 0)
    left, right = os.pipe()
    try:
        assert buffer.add(left, 1, 0, 10, True) == 0
    finally:
        os.close(left)
        os.close(right)


def test_frames_of_several_files_share_a_write(tmp_path: Path) -> None:
    """As many as there is room for; one that is not full takes the room of one that is."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        buffer.begin()
        assert buffer.room == MOST_FRAMED
        asked = [(1, 1), (3, FRAME), (5, FRAME + 1), (1, 2), (3, MOST_FRAMED - 5 * FRAME)]
        for stream_id, size in asked:
            assert buffer.add(file.fileno(), stream_id, 5, size, stream_id == 5) == size
        assert buffer.room == 0
        frames = parse(bytes(buffer.framed(b"")))
        assert [(f.stream_id, f.size) for f in frames[:5]] == [
            (1, 1), (3, FRAME), (5, FRAME), (5, 1), (1, 2)
        ]  # fmt: skip
        assert [f.flags for f in frames] == [0, 0, 0, 1] + [0] * (len(frames) - 4)
        assert b"".join(f.payload for f in frames[5:]) == CONTENT[5 : 5 + asked[-1][1]]


def test_what_somebody_still_reads_is_not_written_over(tmp_path: Path) -> None:
    """A transport that is full may keep what it was given instead of a copy."""
    buffer = FrameBuffer()
    with (tmp_path / "content").open("w+b", buffering=0) as file:
        file.write(CONTENT)
        kept = []
        for number in range(5):
            buffer.begin()
            assert buffer.add(file.fileno(), 1, number * 1000, 1000, True) == 1000
            kept.append(memoryview(buffer.framed(b"head")).cast("b")[3:])
        for number, view in enumerate(kept):
            assert bytes(view)[10:] == CONTENT[number * 1000 : number * 1000 + 1000]
        del kept, view
        memory = buffer._memory
        buffer.begin()
        assert buffer._memory is memory  # and what nobody reads is used again
