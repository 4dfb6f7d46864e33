"""What a folder keeps in memory: how much, how long, and never the wrong thing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from h2log.app.response import Response
from h2log.app.static import SMALL, StaticFolder
from h2log.errors import HTTPError
from tests.unit.app.asking import CACHE, request

OVERHEAD: Final = 2048


async def load(folder: StaticFolder, target: str, now: float = 0.0) -> bytes | int:
    """Return a file's content, or the status of an error."""
    try:
        answer = folder.answer(request(target), now)
        response = answer if isinstance(answer, Response) else await answer
    except HTTPError as error:
        return error.status
    assert isinstance(response.body, bytes)
    return response.body


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return an empty folder."""
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def folder(site: Path) -> StaticFolder:
    """Return the folder, served at the root."""
    return StaticFolder(site, "/", CACHE)


async def test_what_was_answered_is_kept(folder: StaticFolder, site: Path) -> None:
    """The second answer is the same object, without waiting."""
    (site / "a").write_text("one")
    assert folder.kept("/a", 0.0) is None
    await load(folder, "/a")
    kept = folder.kept("/a", 0.0)
    assert kept is not None
    assert kept.body == b"one"
    assert folder.answer(request("/a"), 0.5) is kept
    assert folder.kept("/b", 0.0) is None


async def test_a_kept_file_is_believed_for_a_second(folder: StaticFolder, site: Path) -> None:
    """A changed file is noticed when a second has passed, at the next request."""
    (site / "a").write_text("one")
    await load(folder, "/a", now=100.0)
    (site / "a").write_text("two")
    os.utime(site / "a", (1e9, 1e9))
    assert await load(folder, "/a", now=101.0) == b"one"
    assert folder.kept("/a", 101.1) is None
    assert await load(folder, "/a", now=101.1) == b"two"


async def test_an_unchanged_file_stays(folder: StaticFolder, site: Path) -> None:
    """It is looked at again and again, and the same response goes on."""
    (site / "a").write_text("one")
    await load(folder, "/a", now=0.0)
    kept = folder.kept("/a", 0.0)
    assert all(folder.kept("/a", now / 2) is kept for now in range(20))


async def test_only_a_new_date_is_a_new_version(folder: StaticFolder, site: Path) -> None:
    """The same bytes with another date have another tag; nobody is told 304 by mistake."""
    (site / "a").write_text("one")
    os.utime(site / "a", ns=(10**18, 10**18))
    await load(folder, "/a", now=0.0)
    first = folder.kept("/a", 0.0)
    os.utime(site / "a", ns=(10**18, 10**18 + 1))
    await load(folder, "/a", now=2.0)
    second = folder.kept("/a", 2.0)
    assert first is not None and second is not None
    assert dict(first.headers)["etag"] != dict(second.headers)["etag"]


async def test_a_file_that_is_gone_is_gone(folder: StaticFolder, site: Path) -> None:
    """Its memory is given back, too."""
    (site / "a").write_text("one")
    await load(folder, "/a", now=0.0)
    (site / "a").unlink()
    assert await load(folder, "/a", now=2.0) == 404
    assert folder.memory.bytes == 0


async def test_a_replaced_file_is_the_new_one(folder: StaticFolder, site: Path) -> None:
    """Also when the new one has the size and the date of the old."""
    (site / "a").write_text("one")
    os.utime(site / "a", ns=(10**18, 10**18))
    await load(folder, "/a", now=0.0)
    (site / "b").write_text("two")
    os.utime(site / "b", ns=(10**18, 10**18))
    os.replace(site / "b", site / "a")
    assert await load(folder, "/a", now=2.0) == b"two"


async def test_a_file_that_became_a_folder_is_one(folder: StaticFolder, site: Path) -> None:
    """And is redirected to its slash."""
    (site / "a").write_text("one")
    await load(folder, "/a", now=0.0)
    (site / "a").unlink()
    (site / "a").mkdir()
    answer = folder.answer(request("/a"), 2.0)
    response = answer if isinstance(answer, Response) else await answer
    assert (response.status, response.headers) == (308, [("location", "/a/")])


async def test_a_retargeted_link_is_followed(folder: StaticFolder, site: Path) -> None:
    """To its new file inside; and to nothing when that lies outside."""
    (site / "v1").write_text("one")
    (site / "v2").write_text("two")
    (site.parent / "secret").write_text("xxx")
    link = site / "current"
    link.symlink_to("v1")
    assert await load(folder, "/current", now=0.0) == b"one"
    link.unlink()
    link.symlink_to("v2")
    assert await load(folder, "/current", now=2.0) == b"two"
    link.unlink()
    link.symlink_to("../secret")
    assert await load(folder, "/current", now=4.0) == 404


async def test_a_folder_that_became_a_link_outside_is_not_followed(
    folder: StaticFolder, site: Path
) -> None:
    """What was kept from below it is not served from the other place."""
    (site / "sub").mkdir()
    (site / "sub" / "a").write_text("in")
    outside = site.parent / "outside"
    outside.mkdir()
    (outside / "a").write_text("secret")
    assert await load(folder, "/sub/a", now=0.0) == b"in"
    (site / "sub").rename(site / "old")
    (site / "sub").symlink_to(outside)
    assert await load(folder, "/sub/a", now=2.0) == 404


async def test_memory_is_bounded(site: Path) -> None:
    """Whatever is asked for, what is kept costs no more than was allowed."""
    folder = StaticFolder(site, "/", 10 * (1000 + OVERHEAD))
    for n in range(30):
        (site / f"{n}").write_bytes(b"x" * 1000)
        await load(folder, f"/{n}", now=n / 1000)
        held = [m for m in range(30) if folder.kept(f"/{m}", 0.5) is not None]
        assert len(held) == min(n + 1, 10)
    assert folder.memory.bytes == 10 * (1000 + OVERHEAD)


async def test_many_empty_files_are_bounded_too(site: Path) -> None:
    """An entry costs more than its content."""
    folder = StaticFolder(site, "/", 10 * OVERHEAD)
    for n in range(50):
        (site / f"{n}").write_bytes(b"")
        await load(folder, f"/{n}")
    assert sum(folder.kept(f"/{n}", 0.0) is not None for n in range(50)) == 10


async def test_many_spellings_of_one_file_are_bounded_too(site: Path) -> None:
    """A path costs its length: long spellings of a tiny file do not multiply the memory."""
    name = "a" * 200
    for _ in range(5):
        site = site / name
    site.mkdir(parents=True)
    (site / name).write_bytes(b"")
    root = site.parents[4]
    limit = 40_000
    folder = StaticFolder(root, "/", limit)
    held = 0
    spelled = ["%61" * 200 for _ in range(6)]
    for n in range(100):
        path = "/" + "/".join(["a" * (n + 1) + "%61" * (199 - n), *spelled[1:]])
        assert await load(folder, path) == b""
        held = max(held, sum(len(kept) for kept in folder._addresses))
        assert folder.memory.bytes <= limit
    assert 0 < held <= limit
    assert len(folder.memory) == 1


async def test_what_is_used_stays(site: Path) -> None:
    """A file that is asked for every second outlives those that are asked for once or twice."""
    folder = StaticFolder(site, "/", 5 * (10 + OVERHEAD))
    for n in range(20):
        (site / f"{n}").write_bytes(b"x" * 10)
    await load(folder, "/0", now=0.0)
    for n in range(1, 20):
        await load(folder, f"/{n}", now=n * 2.0)
        assert folder.kept("/0", n * 2.0) is not None, n
        await load(folder, f"/{n}", now=n * 2.0)


async def test_what_is_new_and_asked_for_comes_in(site: Path) -> None:
    """When the memory is full of what nobody asks for any more."""
    folder = StaticFolder(site, "/", 5 * (10 + OVERHEAD))
    for n in range(6):
        (site / f"{n}").write_bytes(b"x" * 10)
    for n in range(5):
        await load(folder, f"/{n}")
    await load(folder, "/5")
    assert folder.kept("/5", 0.0) is None
    await load(folder, "/5")
    assert folder.kept("/5", 0.0) is not None
    assert len(folder.memory) == 5


@pytest.mark.parametrize(
    ("size", "cache_bytes", "kept"),
    [
        (SMALL, CACHE, True),
        (100, 100 + OVERHEAD, True),
        (100, 99 + OVERHEAD, False),
        (0, 0, False),
    ],
)
async def test_what_does_not_fit_is_served_all_the_same(
    site: Path, size: int, cache_bytes: int, kept: bool
) -> None:
    """A file that may not be kept is read each time."""
    (site / "a").write_bytes(b"x" * size)
    folder = StaticFolder(site, "/", cache_bytes)
    assert await load(folder, "/a") == b"x" * size
    assert (folder.kept("/a", 0.0) is not None) is kept


async def test_one_large_file_does_not_empty_the_memory(site: Path) -> None:
    """What is too large to be kept pushes nothing out."""
    folder = StaticFolder(site, "/", 5000)
    (site / "small").write_bytes(b"x")
    (site / "large").write_bytes(b"x" * 6000)
    await load(folder, "/small")
    await load(folder, "/large")
    assert folder.kept("/small", 0.0) is not None


async def test_requests_at_once_count_a_file_once(folder: StaticFolder, site: Path) -> None:
    """Fifty that miss at the same time leave one entry and its cost."""
    (site / "a").write_bytes(b"x" * 100)
    assert await asyncio.gather(*(load(folder, "/a") for _ in range(50))) == [b"x" * 100] * 50
    assert folder.memory.bytes == 100 + OVERHEAD


async def test_a_file_that_is_being_written_is_never_half_a_response(
    folder: StaticFolder, site: Path
) -> None:
    """Each answer is a beginning of the file with its own length, range by range."""
    path = site / "grows"
    path.write_bytes(b"")
    program = f"""
with open({str(path)!r}, "ab", buffering=0) as file:
    while True:
        file.write(b"0123456789" * 50)
        if file.tell() > {SMALL // 2}:
            file.truncate(0)
"""
    seen: set[str] = set()
    now = 0.0
    with subprocess.Popen([sys.executable, "-c", program]) as writer:
        try:
            async with asyncio.timeout(20):
                while len(seen) < 500:
                    now += 2.0
                    await asyncio.sleep(0)  # a turn of the loop, for the time limit
                    answer = folder.answer(request("/grows"), now)
                    response = answer if isinstance(answer, Response) else await answer
                    assert isinstance(response.body, bytes)
                    etag = dict(response.headers)["etag"]
                    assert len(response.body) == int(etag.strip('"').partition("-")[2], 16)
                    seen.add(etag)
        finally:
            writer.kill()


async def test_odd_spellings_do_not_push_out_the_usual_one(
    folder: StaticFolder, site: Path
) -> None:
    """A client that invents spellings of a file keeps nobody from the short way to it."""
    (site / "page.html").write_text("page")
    (site / "ü").write_text("u")
    for usual in ("/page.html", "/page", "/%C3%BC"):
        await load(folder, usual)
    letters = [f"%{ord(letter):02x}" for letter in "page"]
    for n in range(1, 16):
        spelled = "".join(odd if n >> k & 1 else "page"[k] for k, odd in enumerate(letters))
        assert await load(folder, f"/{spelled}.html") == b"page"
    assert await load(folder, "/%c3%bc") == await load(folder, "/%c3%BC") == b"u"
    for usual in ("/page.html", "/page", "/%C3%BC"):
        assert folder.kept(usual, 0.0) is not None
    assert len(folder._addresses) <= 2 * 8
