"""The one way from a name to the bytes of a file inside a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from h2log.app.files import disk
from h2log.app.files.disk import Folder, Opened, Root, identity
from h2log.errors import HTTPError


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a file, and a secret beside it."""
    root = tmp_path / "site"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("inside")
    (root / "top").write_text("top")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "file").write_text("secret")
    return root


def content(found: Opened | Folder | None) -> bytes:
    """Return the content of an open file."""
    assert isinstance(found, Opened)
    return found.read(1000)[1]


@pytest.mark.parametrize("walks", [True, False])
def test_what_is_inside_is_opened(site: Path, monkeypatch: pytest.MonkeyPatch, walks: bool) -> None:
    """Files as such, folders as such, nothing else; also where the system cannot walk."""
    monkeypatch.setattr(disk, "_WALKS", walks)
    root = Root(site)
    assert content(root.open(str(site / "a/b/file"))) == b"inside"
    assert content(root.open(str(site / "top"))) == b"top"
    assert root.open(str(site / "a")) == Folder(str(site / "a"))
    assert root.open(str(site)) == Folder(str(site))
    for gone in ("nothing", "top/x", "../outside/b/file", "a\0b", "\udcff", "x" * 300):
        assert root.open(os.path.join(site, gone)) is None, gone
    with root.scan(Folder(str(site / "a"))) as found:
        assert [entry.name for entry in found] == ["b"]
    assert root.relative(str(site / "a/b/file")) == "a/b/file"


def test_a_root_at_the_top_of_all() -> None:
    """Its own slash is no other's."""
    root = Root("/")
    assert root.resolve("/etc/../etc") == "/etc"
    assert isinstance(root.open("/etc"), Folder)
    assert root.relative("/etc/x") == "etc/x"


@pytest.mark.parametrize("place", ["a", "a/b", "a/b/file"])
def test_what_takes_a_place_between_two_looks_is_not_followed(
    site: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A folder, or the file, that becomes a link outside after its name was resolved."""
    root = Root(site)
    resolve = Root.resolve
    outside = site.parent / "outside" / os.path.relpath(place, "a")

    def swapped(self: Root, file: str) -> str | None:
        found = resolve(self, file)
        (site / place).rename(site / "old")
        (site / place).symlink_to(outside)
        return found

    monkeypatch.setattr(Root, "resolve", swapped)
    assert root.open(str(site / "a/b/file")) is None
    assert (site / "a/b/file").read_text() == "secret"  # it would have been


def test_a_device_is_not_opened(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open one can be to do something with it."""
    os.mkfifo(site / "pipe")
    opened: list[Any] = []
    real = os.open

    def noting(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", noting)
    assert Root(site).open(str(site / "pipe")) is None
    assert "pipe" not in opened


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.EMFILE, 503), (errno.ENFILE, 503), (errno.ENOMEM, 503), (errno.EIO, 503),
     (errno.EACCES, None), (errno.ENOENT, None), (errno.ELOOP, None)],
)  # fmt: skip
def test_the_server_s_own_trouble_is_a_503(
    site: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int | None
) -> None:
    """What the file system refuses is not there; what we are short of is another matter."""

    def failing(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    root = Root(site)
    monkeypatch.setattr(os, "open", failing)
    if status is None:
        assert root.open(str(site / "top")) is None
    else:
        with pytest.raises(HTTPError) as raised:
            root.open(str(site / "top"))
        assert raised.value.status == status


def test_nothing_stays_open(site: Path) -> None:
    """Neither what was found, nor the way to it, whoever forgets it."""
    root = Root(site)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        root.open(str(site / "a/b/file"))
        root.open(str(site / "a"))
        root.open(str(site / "nothing"))
    found = root.open(str(site / "a/b/file"))
    assert isinstance(found, Opened)
    found.close()
    found.close()
    assert found.take() is None
    assert found.again() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_open_file_is_taken_once(site: Path) -> None:
    """Who took it has it, and a share of it reads the same file."""
    found = Root(site).open(str(site / "top"))
    assert isinstance(found, Opened)
    share = found.again()
    assert share is not None
    file = found.take()
    assert file is not None
    assert found.take() is None
    assert found.again() is None
    with file:
        assert file.read() == b"top"
    assert share.read_at(1, 10) == b"op"


def test_an_open_file_that_was_moved_is_shared_as_long_as_it_is_open(site: Path) -> None:
    """Who looked for it has it: that it was looked for keeps nothing open."""
    before = len(os.listdir("/proc/self/fd"))
    found = Root(site).open(str(site / "top"))
    assert isinstance(found, Opened)
    first, second = found.move(), found.move()
    assert first is not None
    assert second is not None
    assert len(os.listdir("/proc/self/fd")) == before + 1
    first.close()
    assert second.read_at(1, 10) == b"op"
    second.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert found.move() is None


def test_shares_of_a_file_have_one_descriptor_and_places_of_their_own(site: Path) -> None:
    """However many read it, and wherever; it is closed when the last of them is."""
    before = len(os.listdir("/proc/self/fd"))
    found = Root(site).open(str(site / "top"))
    assert isinstance(found, Opened)
    shares = [found.again() for _ in range(20)]
    files = [file for share in shares if share is not None and (file := share.take()) is not None]
    found.close()
    assert len(files) == 20
    assert len(os.listdir("/proc/self/fd")) == before + 1
    first, second = files[:2]
    assert (first.read(2), second.read(1), first.read(9), second.read()) == (
        b"to",
        b"t",
        b"p",
        b"op",
    )
    assert first.seek(-1, os.SEEK_END) == 2
    assert second.seek(1) == 1
    room = bytearray(8)
    assert (first.readinto(room), second.readinto(room)) == (1, 2)
    assert bytes(room[:2]) == b"op"
    for file in files:
        assert len(os.listdir("/proc/self/fd")) == before + 1
        file.close()
        assert file.closed
        with pytest.raises(ValueError, match="closed"):
            file.read(1)
        with pytest.raises(ValueError, match="closed"):
            file.fileno()
    assert len(os.listdir("/proc/self/fd")) == before


def test_identity(site: Path) -> None:
    """Of a regular file, through links; None of anything else."""
    (site / "link").symlink_to("top")
    assert identity(str(site / "link")) == identity(str(site / "top")) is not None
    for name in ("a", "nothing", "a\0b"):
        assert identity(str(site / name)) is None
