"""Uploaded files: in memory or on the disk, closed whatever happens, with names that are safe."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import resource
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.forms import FORM_MEMORY, FormLimits, parse_form
from h2log.app.headers import Headers
from h2log.app.uploads import SPOOL_BYTES, Spool, UploadFile
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
    assert found.closed
    assert repr(found) == f"<UploadFile 'f' 'x' {size} bytes>"
    with pytest.raises(ValueError, match="closed"):
        await found.read()


async def test_files_share_the_memory_of_their_form(on_disk: Callable[[], int]) -> None:
    """Small files too go to the disk once all together are more than 4 MiB."""
    content = os.urandom(800_000)
    data = b"".join(file(f"f{n}", "x", content) for n in range(8)) + END
    form = await parse(MULTIPART, cut(data, 60_000))
    memory = [found.size for found in form.files if found.in_memory]
    assert on_disk() == 1
    assert 0 < sum(memory) <= FORM_MEMORY
    assert len(memory) < 8
    assert [await found.read() for found in form.files] == [content] * 8
    form.close_soon()


async def test_files_on_the_disk_share_a_descriptor(on_disk: Callable[[], int]) -> None:
    """However many there are; each is read by itself, and the place is free when all are closed."""
    contents = [random.Random(n).randbytes(50_000 + 777 * n) for n in range(95)]
    large = random.Random(99).randbytes(2 * SPOOL_BYTES)
    parts = [file("f", f"{n}", content) for n, content in enumerate(contents)]
    parts.insert(3, file("large", "x", large))
    form = await parse(MULTIPART, cut(b"".join(parts) + END, 60_000))
    assert on_disk() == 1
    disk = [found for found in form.files if not found.in_memory]
    assert len(disk) > 10
    found = [f for f in form.files if f.name == "f"]
    heads = [await f.read(10) for f in found]
    rests = await asyncio.gather(*(f.read() for f in found))
    assert [head + rest for head, rest in zip(heads, rests, strict=True)] == contents
    stored = form.file("large")
    assert stored is not None
    assert await stored.read() == large
    with pytest.raises(ValueError, match="no position"):
        await stored.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        await stored.seek(0, 7)
    assert await stored.seek(10, os.SEEK_END) == len(large) + 10
    assert await stored.read() == b""
    for other in disk[1:]:
        await other.close()
    assert await disk[0].seek(5) == 5
    assert on_disk() == 1
    form.close_soon()
    await eventually(lambda: not on_disk())


async def test_a_server_without_descriptors_says_so(
    on_disk: Callable[[], int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 for the client, one message a while for the log, and nothing stays open."""
    monkeypatch.setattr(Spool, "_told_at", -math.inf)
    content = file("f", "x", bytes(2 * SPOOL_BYTES)) + END
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(name) for name in os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as opened:
        # The limit is on numbers: those below it have to be taken.
        while opened.enter_context(open(os.devnull)).fileno() < most:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            for _ in range(3):
                error = await refused(MULTIPART, content)
                assert (error.status, "no room for files" in error.detail) == (503, True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    [told] = caplog.records
    assert told.getMessage().startswith("files of forms cannot be stored: [Errno 24]")
    assert not on_disk()
    form = await parse(MULTIPART, content)
    form.close_soon()
    await eventually(lambda: not on_disk())


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


async def test_a_wrong_folder_is_the_handlers_to_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the system raises of it comes through, and nothing stays open."""
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


async def test_threads_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, on_disk: Callable[[], int]
) -> None:
    """A file that is closed while a thread works with it is closed after that."""
    threads = ThreadPoolExecutor(4)
    monkeypatch.setattr("h2log.app.uploads.FILE_THREADS", threads)
    upload = UploadFile("f", "x", Headers(()))
    await upload.append(bytes(100_000), spool=True)
    await upload.complete()
    with upload._spool.lock:  # as a thread that reads
        upload.close_soon()
        assert on_disk() == 1
    threads.shutdown()
    assert not on_disk()
