"""A gigabyte each way over HTTP/2 and TLS: the same to the last bit, in a few MiB of memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from h2log.server.certificates import Certificates
from tests.support import Process, tool

MEGABYTE = 1024 * 1024
GIGABYTE = 1024 * MEGABYTE
EXTRA = 8 * MEGABYTE
"""The most memory that a transfer of any size may take besides what the server has."""
WARM = 16 * MEGABYTE
"""Bytes of a first transfer: whatever is made once is there after it."""


class Files:
    """A file of a gigabyte, a smaller one, and their digests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.large, self.digest = self._make("large.bin", GIGABYTE)
        self.middle, self.middle_digest = self._make("middle.bin", 256 * MEGABYTE)
        self.small, self.small_digest = self._make("small.bin", WARM)

    def _make(self, name: str, size: int) -> tuple[Path, str]:
        path = self.folder / name
        digest = hashlib.sha256()
        block = os.urandom(MEGABYTE)
        with path.open("wb") as file:
            for number in range(size // MEGABYTE):
                piece = number.to_bytes(8, "big") + block[8:]
                file.write(piece)
                digest.update(piece)
        return path, digest.hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """They are removed at the end: pytest keeps its folders."""
    made = Files(tmp_path_factory.mktemp("gigabyte"))
    yield made
    for path in (made.large, made.middle, made.small):
        path.unlink()


@pytest.fixture
def server(
    certs: Certificates, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Process]:
    """A server in a process of its own that takes content of 2 GB."""
    settings = tmp_path / "settings.toml"
    settings.write_text('[limits]\nmax_body_bytes = "2GB"\n')
    monkeypatch.setenv("GIGABYTE_FOLDER", str(files.folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = ("run", "tests.server.gigabyte_app:app", "--config", str(settings))
    with Process(*arguments, certs=certs, log=tmp_path / "access.log") as running:
        yield running


def curl(server: Process, *arguments: str) -> list[str]:
    assert server.certs is not None
    return [tool("curl"), "-sS", "--http2", "--cacert", str(server.certs.ca), *arguments]


def answer(server: Process, *arguments: str) -> str:
    """Return what curl prints."""
    done = subprocess.run(curl(server, *arguments), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest_of(server: Process, path: str, *arguments: str) -> tuple[int, str]:
    """Return size and digest of what curl gets, never all of it in memory."""
    digest, size = hashlib.sha256(), 0
    command = curl(server, *arguments, f"{server.url}{path}")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(MEGABYTE):
            digest.update(piece)
            size += len(piece)
    assert process.returncode == 0
    return size, digest.hexdigest()


def status(server: Process, name: str) -> int:
    """Return a size of the process's in bytes, as `proc(5)` has it."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} here")


class Memory:
    """The most memory that a process has had in a block, beyond what it had at its beginning."""

    def __init__(self, server: Process) -> None:
        self._server = server

    def __enter__(self) -> Memory:
        # From now on VmHWM is the peak since now, and not since the start (proc(5), clear_refs).
        Path(f"/proc/{self._server.pid}/clear_refs").write_text("5")
        self._before = status(self._server, "VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.extra = status(self._server, "VmHWM") - self._before


def test_a_gigabyte_comes_in(server: Process, files: Files) -> None:
    """An upload that a handler reads as it comes."""
    url = f"{server.url}/upload"
    assert answer(server, "-T", str(files.small), url) == files.small_digest
    with Memory(server) as memory:
        assert answer(server, "-T", str(files.large), url) == files.digest
    assert memory.extra <= EXTRA


def test_a_gigabyte_goes_out(server: Process, files: Files) -> None:
    """A file that is read as it is sent."""
    assert digest_of(server, "/files/small.bin") == (WARM, files.small_digest)
    with Memory(server) as memory:
        assert digest_of(server, "/files/large.bin") == (GIGABYTE, files.digest)
    assert memory.extra <= EXTRA


def test_a_gigabyte_is_made_while_it_is_sent(server: Process, tmp_path: Path) -> None:
    """Pieces of a handler's own, with the digest behind them as a trailer."""
    fields = tmp_path / "fields"
    digest_of(server, f"/stream/{WARM}")
    with Memory(server) as memory:
        size, digest = digest_of(server, f"/stream/{GIGABYTE}", "-D", str(fields))
    assert size == GIGABYTE
    assert f"x-sum: {digest}" in fields.read_text("latin-1")
    assert memory.extra <= EXTRA


def test_a_large_file_of_a_form(server: Process, files: Files) -> None:
    """It goes to the disk as it comes, and is read from there."""
    url = f"{server.url}/form"
    assert answer(server, "-F", f"file=@{files.small}", url) == files.small_digest
    with Memory(server) as memory:
        assert answer(server, "-F", f"file=@{files.middle}", url) == files.middle_digest
    assert memory.extra <= EXTRA
