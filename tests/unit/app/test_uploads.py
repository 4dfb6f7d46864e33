"""Uploaded files: in memory or on the disk, closed whatever happens, with names that are safe."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.forms import FORM_MEMORY, FormLimits, parse_form
from h2log.app.headers import Headers
from h2log.app.uploads import SPOOL_BYTES, UploadFile
from h2log.errors import HTTPError
from tests.support import eventually
from tests.unit.app.multipart import END, MULTIPART, cut, field, file, parse, refused


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the temporary files that are open; they lie in a folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def count() -> int:
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
                found += os.readlink(f"/proc/self/fd/{name}").startswith(str(tmp_path))
        return found

    return count


@pytest.mark.parametrize("size", [SPOOL_BYTES, SPOOL_BYTES + 1, 3 * SPOOL_BYTES + 17])
async def test_a_large_file_is_on_the_disk(size: int, on_disk: Callable[[], int]) -> None:
    """From one byte above 1 MiB on; either way it is read, sought and iterated the same."""
    content = random.Random(size).randbytes(size)
    data = file("f", "big.bin", content) + field("after", b"1") + END
    form = await parse(MULTIPART, cut(data, 16_384))
    found = form.file("f")
    assert found is not None
    assert form.text("after") == "1"
    assert found.size == size
    assert found.in_memory == (size <= SPOOL_BYTES)
    assert on_disk() == (size > SPOOL_BYTES)
    assert await found.read(10) == content[:10]
    assert await found.seek(-5, os.SEEK_END) == size - 5
    assert await found.read() == content[-5:]
    assert await found.read(1) == b""
    assert await found.seek(1) == 1
    assert b"".join([piece async for piece in found]) == content[1:]
    assert await found.seek(0) == 0
    assert await found.read() == content
    form.close_soon()
    await eventually(lambda: not on_disk())
    with pytest.raises(ValueError, match="closed"):
        await found.read(1)


@pytest.mark.parametrize("size", [1, 2 * SPOOL_BYTES])
async def test_a_file_can_be_closed_before_the_end(size: int) -> None:
    """Twice is once; what it is can still be read, its content not any more."""
    form = await parse(MULTIPART, file("f", "x", bytes(size)) + END)
    [found] = form.files
    await found.close()
    await found.close()
    form.close_soon()
    await eventually(lambda: found._file.closed)
    assert repr(found) == f"<UploadFile 'f' 'x' {size} bytes>"
    with pytest.raises(ValueError, match="closed"):
        await found.read()


async def test_files_share_the_memory_of_their_form() -> None:
    """Small files too go to the disk once all together are more than 4 MiB."""
    content = os.urandom(800_000)
    data = b"".join(file(f"f{n}", "x", content) for n in range(8)) + END
    form = await parse(MULTIPART, cut(data, 60_000))
    memory = [found.size for found in form.files if found.in_memory]
    assert 0 < sum(memory) <= FORM_MEMORY
    assert len(memory) < 8
    assert [await found.read() for found in form.files] == [content] * 8
    form.close_soon()


async def test_a_form_that_fails_leaves_no_file(on_disk: Callable[[], int]) -> None:
    """Whatever goes wrong behind a large file: no descriptor stays open."""
    big = file("f", "x", bytes(2 * SPOOL_BYTES))

    async def breaks() -> AsyncIterator[bytes]:
        yield big
        raise HTTPError(408)

    await refused(MULTIPART, [big, b"--XX\r\nwrong header\r\n\r\n" + END])
    await refused(MULTIPART, [big])
    await refused(MULTIPART, [big, big, END], FormLimits(max_files=1))
    with pytest.raises(HTTPError) as caught:
        await parse_form(MULTIPART, breaks(), FormLimits())
    assert caught.value.status == 408
    await eventually(lambda: not on_disk())


async def test_a_full_disk_is_the_handlers_to_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the system raises comes through, and nothing stays open."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        await parse(MULTIPART, file("f", "x", bytes(2 * SPOOL_BYTES)) + END)


@pytest.mark.parametrize(
    ("filename", "basename"),
    [
        ("a.txt", "a.txt"),
        ("ä b.txt", "ä b.txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\a\\b.txt", "b.txt"),
        ("C:b.txt", "C_b.txt"),
        ("/etc/", "upload"),
        ("", "upload"),
        (".", "upload"),
        ("..", "upload"),
        ("...", "upload"),
        (".bashrc", "bashrc"),
        (" .x ", "x"),
        ("a\0b\r\nc.txt", "abc.txt"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("a\u200b.txt", "a.txt"),
        ('a<b>:"|?*.txt', "a_b______.txt"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("console", "console"),
        ("a.", "a"),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
        ("é" * 200 + ".txt", "é" * 125 + ".txt"),
        ("x." + "y" * 300, "x." + "y" * 253),
        ("\ud800a", "a"),
    ],
)
def test_a_basename_is_safe(filename: str, basename: str) -> None:
    """No folder, nothing hidden or invisible, no device, and short enough."""
    upload = UploadFile("f", filename, Headers(()))
    assert upload.basename == basename
    upload.close_soon()


@given(st.text())
def test_any_basename_is_safe(filename: str) -> None:
    """Whatever the client calls it: one name, in its folder, that can be created."""
    upload = UploadFile("f", filename, Headers(()))
    name = upload.basename
    upload.close_soon()
    assert name == os.path.basename(name)
    assert name not in ("", ".", "..")
    assert not name.startswith((".", " "))
    assert len(name.encode()) <= 255
    assert name.isprintable() or not name.isascii()
    assert not set(name) & set('/\\\0<>:"|?*')


async def test_threads_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is closed while a thread works with it is closed after that."""
    threads = ThreadPoolExecutor(4)
    monkeypatch.setattr("h2log.app.uploads.FILE_THREADS", threads)
    upload = UploadFile("f", "x", Headers(()))
    await upload.append(bytes(100_000), spool=True)
    await upload.complete()
    with upload._lock:  # as a thread that reads
        upload.close_soon()
        assert not upload._file.closed
    threads.shutdown()
    assert upload._file.closed
