"""Rotation of real files: every line once, whole, in a file of the right name."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from h2log.access.formats import h2log_format
from h2log.errors import UsageError
from h2log.logfile import files as files_module
from h2log.logfile.rotation import Rotation
from h2log.logfile.writer import LogWriter
from h2log.reader.follow import follow
from tests.logfile.numbered import (
    Record,
    content,
    everything,
    files,
    line,
    numbers,
    put_many,
    written,
)
from tests.support import eventually

COUNT = 60_000


@pytest.mark.parametrize("current", ["file", "symlink"])
async def test_under_load_by_size_and_time_with_a_rename(tmp_path: Path, current: str) -> None:
    """Each 64 KiB and each second, renamed from outside in between: every number once."""
    log = tmp_path / "access.log"
    rules = Rotation.of(every=1, size="64KB", current=current)
    writer = LogWriter(str(log), line, 0.01, rotation=rules)
    await writer.open()
    begin = time.monotonic()
    for n in range(6):
        await put_many(writer, COUNT // 6)
        if n in (1, 3):
            await written(writer)
            os.rename(log.resolve(), tmp_path / f"moved-{n}")
        # A few lines now and then, until seconds have gone by as well.
        while time.monotonic() - begin < (n + 1) * 0.4:
            writer.put(Record())
            await asyncio.sleep(0.005)
    await writer.close()
    assert log.is_symlink() == (current == "symlink")
    assert sorted(numbers(everything(tmp_path))) == list(range(1, writer.sequence + 1))
    health = writer.health()
    assert (health.written, health.dropped) == (writer.sequence, 0)
    assert health.rotations >= COUNT * 45 // 65536
    assert 1 <= health.reopened <= 2
    assert all(path.stat().st_size <= 65536 for path in files(tmp_path))
    seconds = {path.name[:24] for path in tmp_path.glob("access-*")}
    assert len(seconds) >= 2


@pytest.mark.parametrize("current", ["file", "symlink"])
async def test_a_follower_reads_every_line_once(tmp_path: Path, current: str) -> None:
    """Across twenty rotations, compressed as they go, in order."""
    log = tmp_path / "access.log"
    rules = Rotation.of(every="daily", size="16KB", compress=True, current=current)
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    seen: list[bytes] = []

    async def read() -> None:
        async for one in follow(log, 0, 0.01):
            seen.append(one)  # noqa: PERF401 - looked at meanwhile

    reading = asyncio.create_task(read())
    writer.put(Record())
    await written(writer)
    # `follow` starts at the end: until it has opened the file, nothing more may be lost on it.
    await eventually(lambda: _is_followed(log.resolve()))
    while writer.health().rotations < 20:
        await put_many(writer, 200)  # less than a file
        await written(writer)
        # A file that came, went and was compressed between two looks no follower can give back.
        await eventually(lambda: seen and numbers(seen[-1])[0] == writer.sequence)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await writer.close()
    got = numbers(b"".join(seen))
    assert got == list(range(got[0], writer.sequence + 1))
    assert got[0] <= 2


def _is_followed(path: Path) -> bool:
    """Return whether the file is open twice: the writer has it, and the follower."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
        except OSError:
            continue
    return count >= 2


async def test_size_alone_gives_growing_numbers(tmp_path: Path) -> None:
    """The first file that ends is 1; the live one is the newest."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, rotation=Rotation.of(size=1000))
    await writer.open()
    await put_many(writer, 100)
    await writer.close()
    ended = sorted(tmp_path.glob("access.log.*"), key=lambda path: int(path.suffix[1:]))
    assert [path.suffix for path in ended] == [f".{n}" for n in range(1, len(ended) + 1)]
    assert numbers(b"".join(map(content, [*ended, log]))) == list(range(1, 101))
    again = LogWriter(str(log), line, rotation=Rotation.of(size=1000))
    await again.open()
    await put_many(again, 30)
    await again.close()
    assert (tmp_path / f"access.log.{len(ended) + 1}").exists()


async def test_a_line_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    """It is not cut, and no empty files are made for it."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), str, rotation=Rotation.of(size=100))
    await writer.open()
    for text in ("a" * 50, "b" * 500, "c" * 500, "d" * 50, "e" * 40):
        writer.put(text)
    await writer.close()
    lines = [path.read_text() for path in [*sorted(tmp_path.glob("access.log.*")), log]]
    assert lines == [
        "a" * 50 + "\n",
        "b" * 500 + "\n",
        "c" * 500 + "\n",
        f"{'d' * 50}\n{'e' * 40}\n",
    ]


async def test_a_boundary_that_was_missed_is_caught_up(tmp_path: Path) -> None:
    """Yesterday's file has yesterday's name once the server is started today."""
    log = tmp_path / "access.log"
    log.write_text(f"1 {'x' * 40}\n")
    yesterday = time.time() - 86_400
    os.utime(log, (yesterday, yesterday))
    writer = LogWriter(str(log), line, rotation=Rotation.of(every="daily"))
    await writer.open()
    await eventually(lambda: writer.health().rotations == 1)
    await writer.close()
    name = datetime.fromtimestamp(yesterday).strftime("access-%Y-%m-%d.log")
    assert (tmp_path / name).read_text().startswith("1 xxx")
    assert log.read_bytes() == b""


async def test_the_pattern_and_the_counter(tmp_path: Path) -> None:
    """A name that is taken gets a number before its suffix, also when only a .gz has it."""
    log = tmp_path / "access.log"
    today = datetime.now().strftime("access_%Y-%m-%d")
    (tmp_path / f"{today}.log.gz").write_bytes(gzip.compress(b""))
    writer = LogWriter(str(log), line, rotation=Rotation.of(size=500, name="access_%Y-%m-%d.log"))
    await writer.open()
    await put_many(writer, 25)
    await writer.close()
    names = sorted(path.name for path in tmp_path.glob("access_*"))
    assert names == [f"{today}.1.log", f"{today}.2.log", f"{today}.log.gz"]


async def test_no_file_is_renamed_over_another_log(tmp_path: Path) -> None:
    """Two logs that were given the same pattern lose nothing."""
    rules = Rotation.of(size=500, name="all-%Y.log")
    writers = [LogWriter(str(tmp_path / f"{name}.log"), line, rotation=rules) for name in "ab"]
    for writer in writers:
        await writer.open()
    for _ in range(20):
        for writer in writers:
            await put_many(writer, 10)
            await written(writer)
    for writer in writers:
        await writer.close()
    assert sorted(numbers(everything(tmp_path))) == sorted([*range(1, 201)] * 2)


async def test_an_idle_log_rotates_too(tmp_path: Path) -> None:
    """At the boundary, without a line; and an empty one does not."""
    log = tmp_path / "access.log"
    writer = LogWriter(str(log), line, 0.01, rotation=Rotation.of(every=1))
    await writer.open()
    await put_many(writer, 1)
    await eventually(lambda: writer.health().rotations == 1)
    first = time.time()
    await eventually(lambda: time.time() > first + 1.1)
    await writer.close()
    assert writer.health().rotations == 1
    assert log.read_bytes() == b""
    assert len(list(tmp_path.glob("access-*.log"))) == 1


async def test_a_link_leads_to_the_file_of_the_period(tmp_path: Path) -> None:
    """A second start goes on in it; a log that was a file becomes one that has ended."""
    log = tmp_path / "access.log"
    rules = Rotation.of(every="yearly", current="symlink")
    log.write_text(f"7 {'x' * 40}\n")
    for _ in range(2):
        writer = LogWriter(str(log), line, rotation=rules)
        await writer.open()
        await put_many(writer, 5)
        await writer.close()
    year = datetime.now().strftime("%Y")
    assert os.readlink(log) == f"access-{year}.1.log"
    assert numbers(log.read_bytes()) == [1, 2, 3, 4, 5] * 2
    assert (tmp_path / f"access-{year}.log").read_text().startswith("7 xxx")
    log.unlink()
    writer = LogWriter(str(log), line, 0.001, rotation=rules)
    await writer.open()
    assert os.readlink(log) == f"access-{year}.2.log"
    log.unlink()
    await eventually(lambda: _again(writer, log))
    await writer.close()
    assert numbers(log.read_bytes()) == list(range(1, writer.sequence + 1))


def _again(writer: LogWriter, log: Path) -> bool:
    writer.put(Record())
    return log.is_symlink()


async def test_somebody_elses_link_stays(tmp_path: Path) -> None:
    """What it leads to is rotated where it is."""
    (tmp_path / "far").mkdir()
    log = tmp_path / "access.log"
    (tmp_path / "far" / "real.log").touch()
    log.symlink_to("far/real.log")
    writer = LogWriter(str(log), line, rotation=Rotation.of(size=500))
    await writer.open()
    await put_many(writer, 25)
    await writer.close()
    assert log.is_symlink()
    assert {path.name for path in (tmp_path / "far").iterdir()} == {
        "real.log",
        "real.log.1",
        "real.log.2",
    }
    assert sorted(numbers(everything(tmp_path))) == list(range(1, 26))


async def test_retention_counts_compressed_files(tmp_path: Path) -> None:
    """The newest stay, compressed or not, and what is not of this log is not touched."""
    log = tmp_path / "access.log"
    for stranger in ("access.log.old", "other.log.1", "access.log.1.bak"):
        (tmp_path / stranger).write_text("")
    rules = Rotation.of(size=500, keep=3, compress="gzip", settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules)
    await writer.open()
    for _ in range(10):
        await put_many(writer, 20)
        await written(writer)
    last = writer.health().rotations

    def kept() -> set[str]:
        return {path.name for path in tmp_path.glob("access.log.[0-9]*")}

    wanted = {f"access.log.{n}.gz" for n in range(last - 2, last + 1)} | {"access.log.1.bak"}
    await eventually(lambda: kept() == wanted)
    await writer.close()
    data = [*sorted((path for path in tmp_path.glob("*.gz")), key=_number), log]
    found = numbers(b"".join(map(content, data)))
    assert found == list(range(found[0], 201))
    assert (tmp_path / "other.log.1").exists() and (tmp_path / "access.log.old").exists()


def _number(path: Path) -> int:
    found = re.search(r"\.([0-9]+)\.gz", path.name)
    assert found is not None
    return int(found[1])


async def test_retention_by_age(tmp_path: Path) -> None:
    """What is older goes at the start already."""
    old, young = tmp_path / "access.log.1", tmp_path / "access.log.2.gz"
    for path, age in ((old, 3 * 86_400), (young, 86_400)):
        path.write_bytes(b"x\n")
        os.utime(path, (time.time() - age,) * 2)
    writer = LogWriter(
        str(tmp_path / "access.log"), line, rotation=Rotation.of(size=500, keep="2d")
    )
    await writer.open()
    await eventually(lambda: not old.exists())
    await writer.close()
    assert young.exists()


async def test_compression_that_was_interrupted_is_done_at_the_next_start(tmp_path: Path) -> None:
    """What it had begun is removed; where only the removal was missing, that is done."""
    begun, packed = tmp_path / "access.log.1", tmp_path / "access.log.2"
    begun.write_bytes(b"one\n")
    (tmp_path / ".access.log.1.gz.part").write_bytes(b"\x1f\x8b torn")
    packed.write_bytes(b"two\n")
    (tmp_path / "access.log.2.gz").write_bytes(gzip.compress(b"two\n"))
    for path in (packed, tmp_path / "access.log.2.gz"):
        os.utime(path, ns=(10**18, 10**18))
    (tmp_path / ".other.gz.part").write_bytes(b"")
    reserved = tmp_path / "access.log.3"
    reserved.touch()
    os.utime(reserved, ns=(10**18, 10**18))
    rules = Rotation.of(size=500, compress="gzip", settle=0.0)
    writer = LogWriter(str(tmp_path / "access.log"), line, rotation=rules)
    await writer.open()
    await eventually(lambda: not (begun.exists() or packed.exists() or reserved.exists()))
    await writer.close()
    (tmp_path / ".other.gz.part").unlink()
    assert {path.name: content(path) for path in files(tmp_path)} == {
        "access.log": b"",
        "access.log.1.gz": b"one\n",
        "access.log.2.gz": b"two\n",
    }


async def test_compressed_files_keep_their_time_and_mode(tmp_path: Path) -> None:
    """Retention by age goes by the last line, and readers may still read."""
    log = tmp_path / "access.log"
    old = tmp_path / "access.log.1"
    old.write_bytes(b"one\n")
    os.chmod(old, 0o640)
    os.utime(old, ns=(10**18, 10**18))
    rules = Rotation.of(size=500, compress="gzip", settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules, file_mode=0o600)
    await writer.open()
    packed = tmp_path / "access.log.1.gz"
    await eventually(lambda: packed.exists() and not old.exists())
    await put_many(writer, 15)
    await writer.close()
    assert (packed.stat().st_mtime_ns, packed.stat().st_mode & 0o777) == (10**18, 0o640)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("access.log*")} == {0o600, 0o640}


async def test_closing_waits_for_no_compression(tmp_path: Path) -> None:
    """The thread ends soon, the file stays as it is, and nothing half is left."""
    log = tmp_path / "access.log"
    (tmp_path / "access.log.1").write_bytes(os.urandom(1024 * 1024) * 200)
    rules = Rotation.of(size=500, compress="gzip", settle=0.0)
    writer = LogWriter(str(log), line, rotation=rules)
    await writer.open()
    await eventually(lambda: (tmp_path / ".access.log.1.gz.part").exists())
    await writer.close()
    await eventually(lambda: not [t for t in threading.enumerate() if "archive" in t.name])
    assert {path.name for path in files(tmp_path)} == {"access.log", "access.log.1"}


async def test_each_file_begins_with_its_header(tmp_path: Path) -> None:
    """Also after a rename from outside, and not again at a second start."""

    class Format:
        header = "#Fields: number text"

        def __call__(self, record: Record) -> str:
            return line(record)

    log = tmp_path / "access.log"
    for turn in range(2):
        writer = LogWriter(str(log), Format(), rotation=Rotation.of(size=1000))
        await writer.open()
        await put_many(writer, 50)
        await written(writer)
        log.rename(tmp_path / f"moved-{writer.sequence}-{turn}")
        writer.reopen()
        await put_many(writer, 10)
        await writer.close()
    found = files(tmp_path)
    assert len(found) >= 7
    for path in found:
        first, rest = path.read_bytes().split(b"\n", 1)
        assert first == b"#Fields: number text"
        assert numbers(rest)
        assert path.stat().st_size <= 1000


async def test_a_folder_that_takes_no_new_files_only_delays_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines go on in the file that is open; the trouble is told once, and so is its end."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody who may not write there")
    monkeypatch.setattr(files_module, "_FIRST_RETRY", 0.05)
    log = tmp_path / "logs" / "access.log"
    writer = LogWriter(str(log), line, 0.001, rotation=Rotation.of(size=1000))
    await writer.open()
    os.seteuid(65534)  # for all threads: the folders above are closed to them now
    try:
        await put_many(writer, 500)
        await written(writer)
    finally:
        os.seteuid(0)
    assert writer.health().rotations == 0
    assert writer.health().failures > 0
    await eventually(lambda: _rotated(writer))
    await writer.close()
    assert sorted(numbers(everything(tmp_path))) == list(range(1, writer.sequence + 1))
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(" ")[0] for text in told] == ["cannot", "can"]


def _rotated(writer: LogWriter) -> int:
    writer.put(Record())
    return writer.health().rotations


async def test_standard_output_and_devices_do_not_rotate() -> None:
    """A rule for them is no error; there is nothing to do."""
    writer = LogWriter("/dev/null", line, rotation=Rotation.of(every=1, size=100, keep=1))
    await writer.open()
    await put_many(writer, 100)
    await writer.close()
    assert (writer.written, writer.health().rotations) == (100, 0)


async def test_a_size_rule_needs_no_default_format(tmp_path: Path) -> None:
    """The pattern must not be the log's own name."""
    with pytest.raises(UsageError, match=r"rotate\.name"):
        LogWriter(
            str(tmp_path / "access.log"),
            h2log_format(),
            rotation=Rotation.of(size=1000, name="access.log"),
        )
