"""Compression of files that have ended: gzip and zstd, off the loop, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from h2log.errors import UsageError
from h2log.logfile import archive as archive_module
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from tests.logfile.numbered import content, everything, line, numbers, put_many, written
from tests.support import eventually

METHODS = {"gzip": ".gz", "zstd": ".zst"}


@pytest.mark.parametrize("current", ["file", "symlink"])
@pytest.mark.parametrize("method", METHODS)
async def test_every_line_is_in_some_file(tmp_path: Path, method: str, current: str) -> None:
    """The live file is plain, all others are compressed soon, and nothing is left beside them."""
    log = tmp_path / "access.log"
    rules = Rotation.of(
        every="yearly", size="8KB", compress=method, current=current, settle=0.0, timezone="utc"
    )
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    for _ in range(10):
        await put_many(writer, 200)
        await written(writer)
    live = Path(writer.health().file).name

    def plain() -> list[str]:
        paths = [path for path in tmp_path.iterdir() if not path.is_symlink()]
        return [path.name for path in paths if path.suffix != METHODS[method]]

    await eventually(lambda: plain() == [live])
    await writer.close()
    packed = list(tmp_path.glob(f"*{METHODS[method]}"))
    assert len(packed) == writer.health().rotations >= 10
    assert all(path.stat().st_size < 4096 for path in packed)
    assert sorted(numbers(everything(tmp_path))) == list(range(1, 2001))


@pytest.mark.parametrize(("method", "program"), [("gzip", "gzip"), ("zstd", "zstd")])
async def test_the_programs_read_it(tmp_path: Path, method: str, program: str) -> None:
    """What everybody else takes to read such files, with its check of what is in them."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    log = tmp_path / "access.log"
    data = b"".join(b"%d some line or other\n" % n for n in range(100_000))
    (tmp_path / "access.log.1").write_bytes(data)
    rules = Rotation.of(size="1MB", compress=method, settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules)
    await writer.open()
    packed = tmp_path / f"access.log.1{METHODS[method]}"
    await eventually(lambda: packed.exists() and not (tmp_path / "access.log.1").exists())
    await writer.close()
    done = subprocess.run([program, "-dc", packed], capture_output=True, check=True)
    assert done.stdout == data == content(packed)


@pytest.mark.parametrize("method", METHODS)
async def test_in_a_thread_of_its_own(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loop nor the writer of lines has anything to do with it."""
    threads: set[str] = set()
    compressor = archive_module._compressor

    def watched(name: str) -> Any:
        make = compressor(name)
        assert make is not None

        def opened(raw: IO[bytes]) -> Any:
            threads.add(threading.current_thread().name)
            return make(raw)

        return opened

    monkeypatch.setattr(archive_module, "_compressor", watched)
    rules = Rotation.of(size=1000, compress=method, settle=0.0)
    writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, rotation=rules)
    await writer.open()
    await put_many(writer, 100)
    await written(writer)
    await eventually(lambda: list(tmp_path.glob(f"*{METHODS[method]}")))
    await writer.close()
    assert threads == {"h2log-log-archive"}


async def test_zstd_that_was_interrupted(tmp_path: Path) -> None:
    """What it had begun is removed, what was ready is kept, and the rest is done."""
    begun, packed = tmp_path / "access.log.1", tmp_path / "access.log.2"
    begun.write_bytes(b"one\n")
    (tmp_path / ".access.log.1.zst.part").write_bytes(b"torn")
    rules = Rotation.of(size=500, compress="zstd", settle=0.0)
    writer = LogWriter(str(tmp_path / "access.log"), line, rotation=rules)
    await writer.open()
    await eventually(lambda: not begun.exists())
    await writer.close()
    # The next time, as if the process had been killed between the rename and the removal.
    done = tmp_path / "access.log.1.zst"
    packed.write_bytes(b"one\n")
    os.rename(done, tmp_path / "access.log.2.zst")
    status = (tmp_path / "access.log.2.zst").stat()
    os.utime(packed, ns=(status.st_mtime_ns, status.st_mtime_ns))
    writer = LogWriter(str(tmp_path / "access.log"), line, rotation=rules)
    await writer.open()
    await eventually(lambda: not packed.exists())
    await writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["access.log", "access.log.2.zst"]
    assert content(tmp_path / "access.log.2.zst") == b"one\n"


async def test_a_change_of_method(tmp_path: Path) -> None:
    """Files that are compressed in the other way are kept, and counted, as they are."""
    for n, method in enumerate(("gzip", "zstd", "gzip")):
        rules = Rotation.of(size=1000, compress=method, keep=100, settle=0.0)
        writer = LogWriter(str(tmp_path / "access.log"), line, 0.001, rotation=rules)
        await writer.open()
        await put_many(writer, 100)
        await written(writer)
        await eventually(lambda: not list(tmp_path.glob("access.log.*[0-9]")))
        await writer.close()
        assert len(numbers(everything(tmp_path))) == (n + 1) * 100
    assert {path.suffix for path in tmp_path.glob("access.log.*")} == {".gz", ".zst"}
    rules = Rotation.of(size=1000, compress="zstd", keep=1, settle=0.0)
    writer = LogWriter(str(tmp_path / "access.log"), line, rotation=rules)
    await writer.open()
    await eventually(lambda: len(list(tmp_path.glob("access.log.*"))) == 1)
    await writer.close()


async def test_zstd_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is refused, and the remedy is told."""
    for module in ("compression", "compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as caught:
        LogWriter(str(tmp_path / "a.log"), line, rotation=Rotation.of(size=1, compress="zstd"))
    assert str(caught.value) == (
        "rotate.compress: zstd needs Python 3.14 or the package zstandard; "
        "pip install 'h2log[zstd]', or use gzip"
    )


async def test_what_is_small_once_it_is_compressed_stays(tmp_path: Path) -> None:
    """A file counts with what it has on the disk then, not with what it had before."""
    log = tmp_path / "access.log"
    (tmp_path / "access.log.1").write_bytes(b"the same line again and again\n" * 10_000)
    rules = Rotation.of(size="1MB", keep="50KB", compress="zstd", settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules)
    await writer.open()
    await eventually(lambda: not (tmp_path / "access.log.1").exists())
    await writer.close()
    assert (tmp_path / "access.log.1.zst").stat().st_size < 1024


async def test_what_cannot_be_compressed_counts_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The bound of the disk holds all the same."""
    for n in (1, 2, 3):
        (tmp_path / f"access.log.{n}").write_bytes(b"x" * 2000 + b"\n")
        os.utime(tmp_path / f"access.log.{n}", (10**9 + n,) * 2)
        (tmp_path / f"access.log.{n}.gz").touch()  # somebody else's
        os.utime(tmp_path / f"access.log.{n}.gz", (10**9 + n + 0.5,) * 2)
    rules = Rotation.of(size="1MB", keep="5KB", compress="gzip", settle=0.0)
    writer = LogWriter(str(tmp_path / "access.log"), line, rotation=rules)
    await writer.open()
    await eventually(lambda: not (tmp_path / "access.log.1").exists())
    await writer.close()
    assert (tmp_path / "access.log.2").exists() and (tmp_path / "access.log.3").exists()
    assert "access.log.1.gz is there already" in caplog.text
