"""What is in a folder, as a page and as JSON."""

from __future__ import annotations

import asyncio
import gzip
import html
import json
import os
import re
import threading
from collections.abc import Hashable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin

import pytest

from h2log.app.files import listing
from h2log.app.static import StaticFolder
from tests.unit.app.asking import CACHE, ask

WHEN = 1_700_000_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with files of some sizes and dates, and what must not be listed."""
    root = tmp_path / "site"
    (root / "files" / "Inner").mkdir(parents=True)
    (root / "files" / "zone").mkdir()
    (root / "index.html").write_text("home")
    for place, (name, size) in enumerate({"b.txt": 10, "A.txt": 2000, "c.bin": 500}.items()):
        path = root / "files" / name
        path.write_bytes(b"x" * size)
        os.utime(path, (WHEN - place, WHEN - place))
    for name in ("Inner", "zone"):
        os.utime(root / "files" / name, (WHEN, WHEN))
    (tmp_path / "secret.txt").write_text("secret")
    (root / "files" / ".hidden").write_text("secret")
    (root / "files" / ".git").mkdir()
    (root / "files" / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "files" / "up").symlink_to("../..")
    (root / "files" / "dangling").symlink_to("nowhere")
    (root / "files" / "loop").symlink_to("loop")
    (root / "files" / "back\\slash").write_text("x")
    (root / "files" / "in.txt").symlink_to("b.txt")
    os.mkfifo(root / "files" / "pipe")
    return root


@pytest.fixture
def folder(site: Path) -> StaticFolder:
    """Return the folder, served with listings."""
    return StaticFolder(site, "/", CACHE, listing=True)


class Page(HTMLParser):
    """Reads a listing as a browser does: rows of link, size and time."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.hrefs: list[str] = []
        self.headings: list[str] = []
        self.title = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag != "script"
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
        elif tag == "a":
            (self.hrefs if self._in in ("td", "") else self.headings).append(values["href"] or "")
        if tag in ("td", "th", "title"):
            self._in = tag

    def handle_data(self, data: str) -> None:
        if self._in == "td":
            self.rows[-1][-1] += data
        elif self._in == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "title"):
            self._in = ""


async def test_a_folder_is_listed(folder: StaticFolder) -> None:
    """Folders first, then names in any case; nothing that would not be served."""
    reply = await ask(folder, "/files/")
    assert reply.status == 200
    page = Page(reply.body.decode())
    assert page.title == "/files/"
    assert page.rows[1:] == [
        ["../", "", ""],
        ["Inner/", "", "2023-11-14 22:13"],
        ["zone/", "", "2023-11-14 22:13"],
        ["A.txt", "2.0 KiB", "2023-11-14 22:13"],
        ["b.txt", "10 B", "2023-11-14 22:13"],
        ["c.bin", "500 B", "2023-11-14 22:13"],
        ["in.txt", "10 B", "2023-11-14 22:13"],
    ]
    assert page.hrefs[:3] == ["../", "./Inner/", "./zone/"]
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    policy = reply.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy)


async def test_every_link_leads_to_what_it_names(folder: StaticFolder) -> None:
    """What is listed is served, and is what the listing says."""
    found = json.loads((await ask(folder, "/files/", accept="application/json")).body)
    for item in found:
        reply = await ask(folder, urljoin("/files/", item["href"]))
        assert reply.status == 200
        if item["type"] == "file":
            assert len(reply.body) == item["size"]


async def test_a_listing_as_json(folder: StaticFolder) -> None:
    """For a client that prefers it."""
    reply = await ask(folder, "/files/?sort=size", accept="application/json, text/html;q=0.5")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["vary"] == "accept, accept-encoding"
    found = json.loads(reply.body)
    assert [item["name"] for item in found] == [
        "Inner", "zone", "b.txt", "in.txt", "c.bin", "A.txt"
    ]  # fmt: skip
    assert found[0] == {
        "name": "Inner",
        "href": "./Inner/",
        "type": "folder",
        "size": None,
        "modified": "2023-11-14T22:13:20Z",
    }


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "Inner/ zone/ A.txt b.txt c.bin in.txt"),
        ("?sort=name&order=desc", "zone/ Inner/ in.txt c.bin b.txt A.txt"),
        ("?sort=size", "Inner/ zone/ b.txt in.txt c.bin A.txt"),
        ("?sort=size&order=desc", "zone/ Inner/ A.txt c.bin in.txt b.txt"),
        ("?sort=time", "Inner/ zone/ c.bin A.txt b.txt in.txt"),
        ("?sort=time&order=DESC", "zone/ Inner/ in.txt b.txt A.txt c.bin"),
        ("?sort=nonsense&order=up", "Inner/ zone/ A.txt b.txt c.bin in.txt"),
        ("?sort=<script>", "Inner/ zone/ A.txt b.txt c.bin in.txt"),
    ],
)
async def test_a_listing_is_sorted(folder: StaticFolder, query: str, names: str) -> None:
    """By name, size or time, either way; what is no order is the usual one."""
    page = Page((await ask(folder, f"/files/{query}")).body.decode())
    assert [row[0] for row in page.rows[2:]] == names.split()


async def test_the_headings_turn_the_order_round(folder: StaticFolder) -> None:
    """Each sorts by its column; the one that did is the other way next time."""
    page = Page((await ask(folder, "/files/?sort=size")).body.decode())
    assert page.headings == [
        "?sort=name&order=asc",
        "?sort=size&order=desc",
        "?sort=time&order=asc",
    ]


NAMES = [
    b"<script>alert(1)</script>",
    b"<img src=x onerror=alert(1)>",
    b'"><script>alert(1)</script>',
    b"' onmouseover='alert(1)",
    b"&amp;",
    b"&lt;",
    b"javascript:alert(1)",
    b"http:",
    b"a b",
    b"a+b",
    b"a%2fb",
    b"100%",
    b"?x=1",
    b"#x",
    b"caf\xc3\xa9",
    b"caf\xe9",
    b"\xff\xfe",
    b"a\nb",
    b"a\rb",
    b"a\tb",
    b"\x01\x1f\x7f",
    b"\xe2\x80\xaeetxt.exe",
    b"]]>",
    b"{{x}}",
    b"${x}",
    b"`x`",
    b"-rf",
    b"~",
    b"*",
    b"CON",
    b"a" * 255,
]


async def test_names_are_escaped(site: Path, folder: StaticFolder) -> None:
    """Whatever a file is called: its link leads to it, and its name is only shown."""
    names = [name.replace(b"/", b"|") for name in NAMES]
    for name in names:
        (site / "files" / "zone" / os.fsdecode(name)).write_bytes(name)
    text = (await ask(folder, "/files/zone/")).body.decode()
    page = Page(text)
    shown = {row[0] for row in page.rows[2:]}
    assert shown == {name.decode("utf-8", "replace") for name in names}
    for href in page.hrefs[1:]:
        assert re.fullmatch(r"\./[A-Za-z0-9_.~%-]+", href)
        target = urljoin("https://localhost/files/zone/", href)
        assert target.startswith("https://localhost/files/zone/")
        reply = await ask(folder, target.removeprefix("https://localhost"))
        assert (reply.status, reply.body) == (200, unquote_to_bytes(href[2:]))
    assert "<script" not in text
    assert "<img" not in text
    found = json.loads((await ask(folder, "/files/zone/", accept="application/json")).body)
    assert {item["name"] for item in found} == {name.decode("utf-8", "replace") for name in names}


async def test_a_folder_s_own_name_is_escaped(site: Path, folder: StaticFolder) -> None:
    """In the title and in the heading; below a prefix with that."""
    (site / "<b>&").mkdir()
    reply = await ask(folder, "/%3Cb%3E%26/")
    assert html.escape("/<b>&/") in reply.body.decode()
    assert "<b>" not in reply.body.decode()
    below = StaticFolder(site, "/pub/", CACHE, listing=True)
    assert Page((await ask(below, "/pub/files/")).body.decode()).title == "/pub/files/"


async def test_the_root_is_listed_without_a_way_up(site: Path) -> None:
    """Where it has no index; a folder with one is that."""
    folder = StaticFolder(site, "/", CACHE, listing=True)
    assert (await ask(folder, "/")).body == b"home"
    (site / "index.html").unlink()
    page = Page((await ask(folder, "/", now=2.0)).body.decode())
    assert [row[0] for row in page.rows[1:]] == ["files/"]


async def test_a_listing_has_conditions(site: Path, folder: StaticFolder) -> None:
    """A tag of its content; no date, so conditions on dates are ignored (RFC 9110, 13.1.3)."""
    reply = await ask(folder, "/files/")
    assert "last-modified" not in reply.headers
    tag = reply.headers["etag"]
    assert (await ask(folder, "/files/", if_none_match=tag)).status == 304
    assert (await ask(folder, "/files/?sort=size", if_none_match=tag)).status == 200
    far = "Tue, 14 Nov 2090 22:13:20 GMT"
    assert (await ask(folder, "/files/", if_modified_since=far)).status == 200
    past = "Tue, 14 Nov 1990 22:13:20 GMT"
    assert (await ask(folder, "/files/", if_unmodified_since=past)).status == 200
    (site / "files" / "new").write_text("")
    assert (await ask(folder, "/files/", if_none_match=tag)).status == 200


async def test_a_listing_is_compressed(folder: StaticFolder) -> None:
    """Under another tag."""
    plain = await ask(folder, "/files/")
    packed = await ask(folder, "/files/", accept_encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("coding", ["gzip", ""])
async def test_a_part_of_a_listing_is_of_what_was_listed(folder: StaticFolder, coding: str) -> None:
    """In the coding in which it was sent: If-Match names just that (RFC 9110 section 14.2)."""
    whole = await ask(folder, "/files/", accept_encoding=coding)
    part = await ask(
        folder,
        "/files/",
        accept_encoding=coding,
        range="bytes=10-19",
        if_match=whole.headers["etag"],
    )
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers.get("content-encoding", "") == coding


class Held:
    """Listings that wait until they may be made, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.made = 0
        scan = listing.scan

        def held(*of: Any) -> Any:
            self.made += 1
            assert self.go.wait(20)
            return scan(*of)

        monkeypatch.setattr(listing, "scan", held)


async def test_listings_keep_no_file_from_being_read(
    site: Path, folder: StaticFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are asked for, in however many orders."""
    held = Held(monkeypatch)
    orders = [f"?sort={sort}&order={way}" for sort in ("name", "size", "time")
              for way in ("asc", "desc")]  # fmt: skip
    listings = [
        asyncio.create_task(ask(folder, f"/files/{order}", accept=accept))
        for order in orders
        for accept in ("text/html", "application/json")
    ]
    while not held.made:
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        for name in ("A.txt", "b.txt", "c.bin"):
            assert (await ask(folder, f"/files/{name}")).status == 200
    assert held.made == 1
    held.go.set()
    assert {reply.status for reply in await asyncio.gather(*listings)} == {200}
    assert held.made == len(listings)


async def test_listings_asked_for_at_once_are_made_once(
    site: Path, folder: StaticFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder in the same order, form and coding; each other by itself."""
    (site / "link").symlink_to("files")  # the same folder by another name: another heading
    held = Held(monkeypatch)
    begun: list[object] = []
    fly = folder._flights.run

    def run(key: Hashable, *work: Any, **more: Any) -> Any:
        begun.append(key)
        return fly(key, *work, **more)

    monkeypatch.setattr(folder._flights, "run", run)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/files/", {}),
        ("/link/", {}),
        ("/files/?sort=size", {}),
        ("/files/", {"accept": "application/json"}),
        ("/files/", {"accept_encoding": "gzip"}),
    ]
    tasks = [
        asyncio.create_task(ask(folder, target, **fields))
        for _ in range(10)
        for target, fields in asked
    ]
    while len(begun) < 2 * len(tasks):  # each looks for the folder, then asks for what is in it
        await asyncio.sleep(0)
    held.go.set()
    replies = await asyncio.gather(*tasks)
    assert held.made == len(asked)
    assert len({reply.body for reply in replies}) == len(asked)
    assert Page(replies[1].body.decode()).title == "/link/"


async def test_a_listing_has_an_end(
    site: Path, folder: StaticFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder with very many names so many are listed, and it is said that there are more."""
    monkeypatch.setattr(listing, "MOST_LISTED", 3)
    reply = await ask(folder, "/files/")
    assert len(Page(reply.body.decode()).rows) == 2 + 3
    assert b"Only 3 names are listed." in reply.body


async def test_listing_is_off(site: Path) -> None:
    """Unless it is asked for: names are told to nobody."""
    folder = StaticFolder(site, "/", CACHE)
    assert (await ask(folder, "/files/")).status == 404
    assert (await ask(folder, "/files")).headers["location"] == "/files/"


async def test_hidden_folders_and_those_outside_are_not_listed(folder: StaticFolder) -> None:
    """By no name."""
    for target in ("/files/.git/", "/files/up/", "/files/out.txt/", "/files/pipe/", "/files//"):
        assert (await ask(folder, target)).status == 404


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (10 * 1024, "10 KiB"),
        (1023 * 1024, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**63, "8.0 EiB"),
        (None, ""),
    ],
)
def test_a_size_is_three_digits_and_a_unit(size: int | None, shown: str) -> None:
    """As a person reads it."""
    assert listing._size(size) == shown


def test_a_date_beyond_all_calendars_is_none() -> None:
    """And no error."""
    assert listing._when(2.0**60) == ""
    assert listing._when(-1.0) == "1969-12-31T23:59:59Z"
