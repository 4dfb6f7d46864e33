"""Which representation of a file a client gets, made how often, and named how."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from h2log.app.files import representation
from h2log.app.files.compression import MOST, compress
from h2log.app.files.disk import Opened
from h2log.app.files.negotiation import wish
from h2log.app.static import SMALL, StaticFolder
from tests.unit.app.asking import BROWSER, CACHE, Reply, ask

brotli: Any = pytest.importorskip("brotli")
zstandard: Any = pytest.importorskip("zstandard")

PAGE: Final = b"".join(b"<p>The way of request %d.</p>\n" % n for n in range(300))
WHEN: Final = 1_700_000_000
DECODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    "br": brotli.decompress,
    "zstd": lambda data: bytes(zstandard.ZstdDecompressor().decompress(data)),
    "gzip": gzip.decompress,
}
WISH: Final = wish("https", [(b"accept-encoding", BROWSER.encode())])


def put(path: Path, content: bytes, when: float = WHEN) -> None:
    """Write a file with a date."""
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a page."""
    root = tmp_path / "site"
    root.mkdir()
    put(root / "page.html", PAGE)
    return root


@pytest.fixture
def folder(site: Path) -> StaticFolder:
    """Return the folder, served at the root."""
    return StaticFolder(site, "/", CACHE)


def decoded(reply: Reply) -> bytes:
    """Return the content of a response without its coding."""
    return DECODERS[reply.headers.get("content-encoding", "")](reply.body)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (BROWSER, "br"),
        ("gzip, zstd", "zstd"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("br;q=0.1, gzip", "gzip"),
        ("identity, gzip;q=0.5", ""),
        ("deflate", ""),
        ("", ""),
        ("*", "br"),
        ("br;q=0, *", "zstd"),
        ("gzip;q=0", ""),
        ("identity;q=0", ""),  # disregarded, as section 12.4.1 allows
    ],
)
async def test_a_client_gets_the_coding_that_it_prefers(
    folder: StaticFolder, accepted: str, coding: str
) -> None:
    """With a tag of its own and Vary; twice, the second time from memory."""
    plain = await ask(folder, "/page.html")
    assert "content-encoding" not in plain.headers
    tag = plain.headers["etag"]
    for cache in ("miss", "hit"):
        reply = await ask(folder, "/page.html", accept_encoding=accepted)
        assert reply.status == 200
        assert reply.headers.get("content-encoding", "") == coding
        assert decoded(reply) == PAGE
        assert reply.headers["vary"] == "accept-encoding"
        assert reply.headers["etag"] == (f'{tag[:-1]}-{coding}"' if coding else tag)
        assert reply.cache == (cache if coding else "hit")
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.headers["last-modified"] == plain.headers["last-modified"]


async def test_each_coding_is_another_304(folder: StaticFolder) -> None:
    """RFC 9110 section 8.8.3.3: the tag of one coding is none of another's."""
    tags = {
        coding: (await ask(folder, "/page.html", accept_encoding=coding)).headers["etag"]
        for coding in ("br", "zstd", "gzip", "")
    }
    assert len(set(tags.values())) == 4
    for coding in tags:
        for other, tag in tags.items():
            reply = await ask(
                folder, "/page.html", accept_encoding=coding, if_none_match=f'"x", {tag}'
            )
            assert reply.status == (304 if coding == other else 200)
            if reply.status == 304:
                assert reply.headers["etag"] == tag
                assert reply.headers["vary"] == "accept-encoding"
                assert "content-encoding" not in reply.headers
    assert (
        await ask(folder, "/page.html", accept_encoding="br", if_match=tags["gzip"])
    ).status == 412


@pytest.mark.parametrize(
    ("name", "size", "encoded"),
    [
        ("a.txt", 1024, True),
        ("a.txt", 1023, False),
        ("a.js", 5000, True),
        ("a.svg", 5000, True),
        ("a.json", 5000, True),
        ("a.wasm", 5000, True),
        ("a.ttf", 5000, True),
        ("a.png", 5000, False),
        ("a.woff2", 5000, False),
        ("a.zip", 5000, False),
        ("a.gz", 5000, False),
        ("a.css.br", 5000, False),
        ("a.css.zst", 5000, False),
        ("a.mp4", 5000, False),
        ("a", 5000, False),
        ("a.txt", SMALL + 1, True),
        ("a.txt", MOST, True),
        ("a.txt", MOST + 1, False),
    ],
)
async def test_what_is_worth_it_is_compressed(
    site: Path, name: str, size: int, encoded: bool
) -> None:
    """Text and its like, from 1 KiB to 2 MiB; what is compressed already is left as it is."""
    folder = StaticFolder(site, "/", 4 * MOST)
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    put(site / name, content)
    reply = await ask(folder, f"/{name}", accept_encoding=BROWSER)
    assert reply.headers.get("content-encoding") == ("br" if encoded else None)
    assert decoded(reply) == content
    assert reply.body == content or encoded


async def test_what_gets_no_smaller_is_sent_as_it_is(folder: StaticFolder, site: Path) -> None:
    """And is not tried again; that depends on the coding, so Vary is there."""
    put(site / "noise.txt", os.urandom(4000))
    for _ in range(2):
        reply = await ask(folder, "/noise.txt", accept_encoding=BROWSER)
        assert "content-encoding" not in reply.headers
        assert reply.headers["vary"] == "accept-encoding"
    assert reply.cache == "hit"


async def test_a_picture_does_not_vary(folder: StaticFolder, site: Path) -> None:
    """What is the same for all clients does not split their caches."""
    put(site / "a.png", PAGE)
    assert "vary" not in (await ask(folder, "/a.png", accept_encoding=BROWSER)).headers


async def test_compress_off(site: Path) -> None:
    """Nothing is compressed here; what is beside on the disk is served."""
    folder = StaticFolder(site, "/", CACHE, compress=False)
    reply = await ask(folder, "/page.html", accept_encoding=BROWSER)
    assert "content-encoding" not in reply.headers
    put(site / "page.html.gz", gzip.compress(PAGE))
    reply = await ask(folder, "/page.html", accept_encoding=BROWSER, now=9.0)
    assert reply.headers["content-encoding"] == "gzip"


# Compressed neighbours


MARK: Final = b"this is the neighbour's content, which nobody else could have made. " * 20
NEIGHBOURS: Final = {
    "br": (".br", brotli.compress(MARK)),
    "zstd": (".zst", zstandard.ZstdCompressor().compress(MARK)),
    "gzip": (".gz", gzip.compress(MARK)),
}


@pytest.mark.parametrize("name", ["page.html", "a.png", "empty"])
@pytest.mark.parametrize("coding", NEIGHBOURS)
async def test_a_neighbour_is_sent(
    folder: StaticFolder, site: Path, name: str, coding: str
) -> None:
    """Of whatever type and size: who put it there wants it to be sent."""
    put(site / name, b"" if name == "empty" else PAGE)
    suffix, content = NEIGHBOURS[coding]
    put(site / (name + suffix), content)
    for _ in range(2):
        reply = await ask(folder, f"/{name}", accept_encoding=coding)
        assert reply.headers["content-encoding"] == coding
        assert decoded(reply) == MARK
        assert reply.headers["vary"] == "accept-encoding"
        assert reply.headers["etag"].endswith(f'-{coding}"')
        plain = await ask(folder, f"/{name}", accept_encoding="")
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "accept-encoding"
        assert reply.headers["content-type"] == plain.headers["content-type"]
    assert reply.cache == "hit"


async def test_a_neighbour_has_its_own_tag(folder: StaticFolder, site: Path) -> None:
    """Compressed anew, with other bytes, it is another representation."""
    put(site / "page.html.gz", gzip.compress(PAGE, 1))
    first = await ask(folder, "/page.html", accept_encoding="gzip")
    put(site / "page.html.gz", gzip.compress(PAGE, 9), WHEN + 1)
    second = await ask(folder, "/page.html", accept_encoding="gzip", now=9.0)
    assert first.body != second.body
    assert first.headers["etag"] != second.headers["etag"]


@pytest.mark.parametrize(
    ("age", "used"), [(-3600, False), (-1, False), (0, True), (1, True), (3600, True)]
)
async def test_an_older_neighbour_is_ignored(
    folder: StaticFolder, site: Path, age: int, used: bool
) -> None:
    """It was made of another version; one of the same second may be a copy with its date."""
    put(site / "page.html.gz", gzip.compress(MARK), WHEN + age)
    reply = await ask(folder, "/page.html", accept_encoding="gzip")
    assert decoded(reply) == (MARK if used else PAGE)


async def test_a_neighbour_comes_and_goes(folder: StaticFolder, site: Path) -> None:
    """Noticed at the next look at the disk, as a change of the file is."""
    path = site / "page.html.gz"
    assert decoded(await ask(folder, "/page.html", accept_encoding="gzip", now=0.0)) == PAGE
    put(path, gzip.compress(MARK))
    assert decoded(await ask(folder, "/page.html", accept_encoding="gzip", now=2.0)) == MARK
    path.unlink()
    assert decoded(await ask(folder, "/page.html", accept_encoding="gzip", now=4.0)) == PAGE
    put(path, gzip.compress(MARK))
    assert decoded(await ask(folder, "/page.html", accept_encoding="gzip", now=6.0)) == MARK
    put(site / "page.html", PAGE + b"new", WHEN + 100)
    assert (
        decoded(await ask(folder, "/page.html", accept_encoding="gzip", now=8.0)) == PAGE + b"new"
    )


async def test_the_best_there_is_is_taken(folder: StaticFolder, site: Path) -> None:
    """A preferred coding that is made here goes before a neighbour of another."""
    put(site / "page.html.gz", gzip.compress(MARK))
    assert decoded(await ask(folder, "/page.html", accept_encoding=BROWSER)) == PAGE
    quiet = StaticFolder(site, "/", CACHE, compress=False)
    assert decoded(await ask(quiet, "/page.html", accept_encoding=BROWSER)) == MARK


async def test_precompressed_off(site: Path) -> None:
    """Neighbours are files like others, and nothing else."""
    put(site / "page.html.gz", gzip.compress(MARK))
    folder = StaticFolder(site, "/", CACHE, precompressed=False)
    assert decoded(await ask(folder, "/page.html", accept_encoding="gzip")) == PAGE


async def test_a_compressed_file_by_its_own_name_is_that_file(
    folder: StaticFolder, site: Path
) -> None:
    """Never decoded by a client: an archive is what was asked for."""
    put(site / "page.html.gz", gzip.compress(MARK))
    reply = await ask(folder, "/page.html.gz", accept_encoding=BROWSER)
    assert reply.body == gzip.compress(MARK)
    assert reply.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in reply.headers
    assert (await ask(folder, "/gone.html")).status == 404
    put(site / "gone.html.gz", gzip.compress(MARK))  # a neighbour of nothing
    assert (await ask(folder, "/gone.html", accept_encoding="gzip")).status == 404


@pytest.mark.parametrize("kind", ["outside", "dangling", "folder", "pipe", "empty", "loop"])
async def test_a_neighbour_that_is_none(folder: StaticFolder, site: Path, kind: str) -> None:
    """A link to the outside above all: the file itself is sent."""
    secret = site.parent / "secret.gz"
    put(secret, gzip.compress(b"secret" * 100), WHEN + 50)
    path = site / "page.html.gz"
    match kind:
        case "outside":
            path.symlink_to(secret)
        case "dangling":
            path.symlink_to("nowhere")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "empty":
            put(path, b"")
        case "loop":
            path.symlink_to(path.name)
    for now in (0.0, 0.5, 2.0):
        reply = await ask(folder, "/page.html", accept_encoding="gzip", now=now)
        assert decoded(reply) == PAGE


async def test_a_neighbour_through_a_link_inside(folder: StaticFolder, site: Path) -> None:
    """A link is followed as for any file; it is beside the file that a link leads to."""
    (site / "store").mkdir()
    put(site / "store" / "x.gz", gzip.compress(MARK))
    (site / "page.html.gz").symlink_to("store/x.gz")
    (site / "alias.html").symlink_to("page.html")
    for target in ("/page.html", "/alias.html"):
        assert decoded(await ask(folder, target, accept_encoding="gzip")) == MARK


async def test_a_large_neighbour_is_read_as_it_is_sent(folder: StaticFolder, site: Path) -> None:
    """With its own length; ranges of it by its own tag, of the file's own bytes otherwise."""
    noise = os.urandom(SMALL * 2)
    put(site / "data.json", noise)
    packed = gzip.compress(noise, 0)
    put(site / "data.json.gz", packed)
    reply = await ask(folder, "/data.json", accept_encoding="gzip")
    assert reply.body == packed
    assert reply.headers["content-encoding"] == "gzip"
    tag = reply.headers["etag"]
    part = await ask(folder, "/data.json", accept_encoding="gzip", range="bytes=5-9", if_range=tag)
    assert (part.status, part.body) == (206, packed[5:10])
    assert part.headers["content-encoding"] == "gzip"
    assert part.headers["content-range"] == f"bytes 5-9/{len(packed)}"
    other = await ask(folder, "/data.json", accept_encoding="gzip", range="bytes=5-9")
    assert (other.status, other.body) == (206, noise[5:10])
    assert "content-encoding" not in other.headers


# Ranges and codings: RFC 9110 section 14.2


async def test_a_range_is_of_the_file_itself(folder: StaticFolder) -> None:
    """Whatever codings the client takes, a part without If-Range is one of identity."""
    for _ in range(2):
        reply = await ask(folder, "/page.html", accept_encoding=BROWSER, range="bytes=10-19")
        assert (reply.status, reply.body) == (206, PAGE[10:20])
        assert reply.headers["content-range"] == f"bytes 10-19/{len(PAGE)}"
        assert reply.headers["vary"] == "accept-encoding"
        assert "content-encoding" not in reply.headers


async def test_a_broken_download_of_a_coding_goes_on(folder: StaticFolder) -> None:
    """If-Range with the tag of an encoded representation gives a part of just that."""
    whole = await ask(folder, "/page.html", accept_encoding=BROWSER)
    part = await ask(
        folder,
        "/page.html",
        accept_encoding=BROWSER,
        range="bytes=100-",
        if_range=whole.headers["etag"],
    )
    assert (part.status, part.headers["content-encoding"]) == (206, "br")
    assert whole.body[:100] + part.body == whole.body
    # Who does not take that coding any more gets all of what it does take.
    plain = await ask(folder, "/page.html", range="bytes=100-", if_range=whole.headers["etag"])
    assert (plain.status, plain.body) == (200, PAGE)
    # Several parts of an encoded one are not sent: all of it is.
    several = await ask(
        folder,
        "/page.html",
        accept_encoding=BROWSER,
        range="bytes=0-1,200-201",
        if_range=whole.headers["etag"],
    )
    assert (several.status, several.body) == (200, whole.body)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
async def test_if_match_says_of_what_a_part_is_to_be(
    folder: StaticFolder, site: Path, coding: str, beside: bool
) -> None:
    """RFC 9110 section 13.1.1: the tag of an encoded representation does match, while that is to be
    had; from disk and from memory, made here and found beside the file."""
    if beside:
        suffix, content = NEIGHBOURS[coding]
        put(site / f"page.html{suffix}", content)
    plain = (await ask(folder, "/page.html")).headers["etag"]
    whole = await ask(folder, "/page.html", accept_encoding=coding)
    tag = whole.headers["etag"]

    async def part(match: str, accepted: str = BROWSER, **more: Any) -> Reply:
        fresh = StaticFolder(site, "/", CACHE)
        first, again = [
            await ask(one, "/page.html", accept_encoding=accepted, range="bytes=9-", if_match=match,
                      **more)
            for one in (folder, fresh)
        ]  # fmt: skip
        assert (first.status, first.body) == (again.status, again.body)
        return first

    for match in (tag, f'"old-{coding}", {tag}', f'"old", {tag}'):
        reply = await part(match)
        assert (reply.status, reply.headers["content-encoding"]) == (206, coding)
        assert reply.body == whole.body[9:]
    for match in ("*", plain, f"{tag}, {plain}", f'{plain}, "old-{coding}"'):
        reply = await part(match)
        assert (reply.status, reply.body) == (206, PAGE[9:])
    for match in ('"old"', f'"old-{coding}"', f"W/{tag}"):
        assert (await part(match)).status == 412
    assert (await part(tag, "")).status == 412  # the client does not take it any more
    # With If-Range too, both have to be true of one representation.
    reply = await part(f"{tag}, {plain}", if_range=tag)
    assert (reply.status, reply.body) == (206, whole.body[9:])
    reply = await part(plain, if_range=tag)
    assert (reply.status, reply.body) == (200, PAGE)


# Once, and for all


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is read from the disk and what is compressed."""
    counted: Counter[str] = Counter()
    read = Opened.read

    def counting_read(opened: Opened, most: int) -> Any:
        counted[os.path.basename(opened.resolved)] += 1
        return read(opened, most)

    def counting_compress(content: bytes, coding: str, *, quick: bool = False) -> bytes | None:
        counted[coding] += 1
        return compress(content, coding, quick=quick)

    monkeypatch.setattr(Opened, "read", counting_read)
    monkeypatch.setattr(representation, "compress", counting_compress)
    return counted


async def test_requests_at_once_cause_one_read_and_one_compression(
    folder: StaticFolder, work: Counter[str]
) -> None:
    """Fifty that miss at the same time, by several wishes and spellings."""
    targets = ["/page.html", "/page", "/p%61ge.html"]
    replies = await asyncio.gather(
        *(
            ask(folder, targets[n % 3], accept_encoding=accepted)
            for n in range(50)
            for accepted in (BROWSER, "gzip", "")
        )
    )
    assert {decoded(reply) for reply in replies} == {PAGE}
    assert work["br"] == work["gzip"] == 1
    assert work["page.html"] <= len(targets)  # spelled differently they are different look-ups
    await ask(folder, "/page.html", accept_encoding="gzip;q=1.0, br;q=0.9, zstd;q=0.1")
    await ask(folder, "/%70age.html", accept_encoding=BROWSER)
    assert work["br"] == work["gzip"] == 1
    assert work["page.html"] <= len(targets)
    assert len(folder._flights) == 0


async def test_a_request_that_is_cancelled_stops_nobody_else(
    folder: StaticFolder, work: Counter[str]
) -> None:
    """The first that asked goes away; the others get what it asked for, read once."""
    tasks = [asyncio.create_task(ask(folder, "/page.html")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(replies[0], asyncio.CancelledError)
    assert all(isinstance(reply, Reply) and reply.body == PAGE for reply in replies[1:])
    assert work["page.html"] == 1
    assert len(folder._flights) == 0


async def test_when_all_are_cancelled_nothing_is_left(folder: StaticFolder) -> None:
    """Not a flight, and the next one that asks is answered."""
    tasks = [asyncio.create_task(ask(folder, "/page.html")) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(folder._flights) == 0
    assert (await ask(folder, "/page.html")).body == PAGE


async def test_each_version_is_compressed_anew(
    folder: StaticFolder, site: Path, work: Counter[str]
) -> None:
    """And no other than the current one is sent."""
    for n in range(3):
        put(site / "page.html", PAGE + b"%d" % n, WHEN + n)
        for _ in range(3):
            reply = await ask(folder, "/page.html", accept_encoding="br", now=n * 2.0)
            assert decoded(reply) == PAGE + b"%d" % n
    assert work["br"] == 3


async def test_the_short_way_knows_codings(folder: StaticFolder) -> None:
    """What was answered once is kept by wish: the same object for every client that wishes so."""
    assert folder.kept("/page.html", 0.0, WISH) is None
    await ask(folder, "/page.html", accept_encoding=BROWSER)
    kept = folder.kept("/page.html", 0.0, WISH)
    assert kept is not None
    assert dict(kept.headers)["content-encoding"] == "br"
    assert folder.kept("/page.html", 0.0) is None
    await ask(folder, "/page.html")
    plain = folder.kept("/page.html", 0.0)
    assert plain is not None
    assert plain.body == PAGE
    await ask(folder, "/page.html", accept_encoding="br")
    assert folder.kept("/page.html", 0.0, "br,identity") is kept


async def test_what_is_kept_is_accounted_for(folder: StaticFolder) -> None:
    """Content and encoded contents; when the file goes all of it does."""
    await ask(folder, "/page.html")
    before = folder.memory.bytes
    reply = await ask(folder, "/page.html", accept_encoding="br")
    assert folder.memory.bytes >= before + len(reply.body)
    [entry] = folder.memory.entries.values()
    assert folder.memory.bytes == entry.cost == entry.weigh()


async def test_without_memory_nothing_is_compressed(site: Path, work: Counter[str]) -> None:
    """A result that cannot stay is not worth making for each request again."""
    folder = StaticFolder(site, "/", 0)
    for _ in range(3):
        reply = await ask(folder, "/page.html", accept_encoding=BROWSER)
        assert reply.body == PAGE
        assert reply.headers["vary"] == "accept-encoding"
    assert not set(work) & set(DECODERS)


async def test_wishes_of_many_kinds_are_bounded(folder: StaticFolder) -> None:
    """However a client weighs the codings: not all of their orders are prepared."""
    for n in range(300):
        accepted = f"br;q=0.{n % 7}, gzip;q=0.{n % 5}, zstd;q=0.{n % 3}, identity;q=0.{n % 2}"
        assert decoded(await ask(folder, "/page.html", accept_encoding=accepted)) == PAGE
    [entry] = folder.memory.entries.values()
    assert len(entry.shown) <= 16
    assert len(entry.wholes) <= 4
