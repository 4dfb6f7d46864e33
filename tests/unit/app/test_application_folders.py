"""Folders of an application: which one answers, beside routes, mounts and each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from h2log.app.application import App
from h2log.app.patterns import RouteError
from h2log.app.response import Response
from h2log.errors import HTTPError, UsageError
from tests.unit.app.application_asking import ask, request

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return what makes a folder of files that have their own place as content."""

    def make(name: str, *files: str) -> Path:
        (tmp_path / name).mkdir()
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}:{file}")
        return tmp_path / name

    return make


@pytest.fixture
def app(folder: Folder) -> App:
    """Return an application with a route and two folders."""
    made = App()
    made.static(folder("outer", "file", "in/file", "inner"))
    made.static(folder("inner", "file"), at="/in")
    made.get("/hello/{name}")(lambda request: Response.text("hello"))
    return made


async def test_the_folder_with_the_longest_prefix_answers(app: App) -> None:
    """And no other one, whatever it has; its own path leads to its prefix."""
    assert (await ask(app, "/file")).body == b"outer:file"
    assert (await ask(app, "/in/file")).body == b"inner:file"
    assert (await ask(app, "/in/nothing")).status == 404
    assert (await ask(app, "/inner")).body == b"outer:inner"
    assert await ask(app, "/in?q") == (308, b"", {"location": "/in/?q"})
    for target in ("/file", "/nothing", "/in/file"):
        assert (await ask(app, target, "POST"))[::2] == (405, {"allow": "GET, HEAD, OPTIONS"})
        assert await ask(app, target, "OPTIONS") == (204, b"", {"allow": "GET, HEAD, OPTIONS"})
    assert (await ask(app, "*", "OPTIONS")).headers == {"allow": "GET, HEAD, OPTIONS"}


async def test_the_route_for_the_log_is_the_folders_prefix(app: App, folder: Folder) -> None:
    """With a star; through a mount, the whole of it."""
    outer = App()
    outer.mount("/app", app)
    for asked, target, route, mounted in (
        (app, "/in/file", "/in/*", ""),
        (app, "/nothing", "/*", ""),
        (outer, "/app/in/file", "/app/in/*", "/app"),
        (outer, "/app/nothing", "/app/*", "/app"),
    ):
        sent = request(target)
        await ask(asked, sent)
        assert (sent.route, sent.mounted) == (route, mounted)


async def test_a_prefix_that_is_coded_needlessly_is_redirected(app: App, folder: Folder) -> None:
    """One folder has one prefix: another spelling reaches no other folder's file."""
    app.static(folder("text", "é"), at="/é ü")
    assert (await ask(app, "/%69n/file?q")).headers == {"location": "/in/file?q"}
    assert (await ask(app, "/%69n")).headers == {"location": "/in/"}
    assert (await ask(app, "/%C3%A9%20%C3%BC/%C3%A9")).body == "text:é".encode()
    assert (await ask(app, "/%c3%a9%20\xc3\xbc/x")).headers == {"location": "/%C3%A9%20%C3%BC/x"}
    assert (await ask(app, "/in%2Ffile")).status == 404


async def test_a_route_is_preferred_to_a_folder(app: App) -> None:
    """Also for a method that only the folder would answer."""
    app.route("/file", ["put"])(lambda request: Response(b"put"))
    assert (await ask(app, "/file", "PUT")).body == b"put"
    assert (await ask(app, "/file"))[::2] == (405, {"allow": "OPTIONS, PUT"})
    app.get("/in/{x:path}")(lambda request: Response(b"route"))
    assert (await ask(app, "/in/file")).body == b"route"


async def test_a_file_is_preferred_to_a_redirect(folder: Folder) -> None:
    """The other form of a route is for what no folder has; a method no file has, goes there."""
    app = App()
    app.static(folder("site", "file", "dir/index.html"))
    for path in ("/file/", "/dir", "/users", "/posts/"):
        app.route(path, ("GET", "POST"))(lambda request: Response(b"route"))
    assert (await ask(app, "/file")).body == b"site:file"
    assert (await ask(app, "/dir/")).body == b"site:dir/index.html"
    assert (await ask(app, "/dir")).body == b"route"
    sent = request("/users/?q")
    assert (await ask(app, sent))[::2] == (308, {"location": "/users?q"})
    assert sent.route == ""
    assert (await ask(app, "/posts"))[::2] == (308, {"location": "/posts/"})
    assert (await ask(app, "/users/", "POST"))[::2] == (308, {"location": "/users"})
    assert (await ask(app, "/users/", "OPTIONS")).status == 204
    assert (await ask(app, "/nothing/")).status == 404


@pytest.mark.parametrize("at", ["files", "", "*", "/a//b", "/{x}", "/a?"])
def test_a_folder_is_below_a_path(app: App, tmp_path: Path, at: str) -> None:
    """A path that is none is a ValueError, which tells what it is for."""
    with pytest.raises(ValueError, match="a folder's path"):
        app.static(tmp_path, at=at)


@pytest.mark.parametrize("at", ["/", "/in", "/in/", "/%69n"])
def test_a_place_is_taken_once(app: App, tmp_path: Path, at: str) -> None:
    """With or without its last slash; both places are named."""
    with pytest.raises(RouteError, match="already") as caught:
        app.static(tmp_path, at=at)
    assert str(caught.value).count(f"{Path(__file__).name}:") == 2


def test_a_place_is_taken_once_through_mounts(app: App, tmp_path: Path) -> None:
    """In whatever order."""
    inner, other = App(), App()
    inner.static(tmp_path, at="/")
    with pytest.raises(RouteError, match=r"a folder at /in/ .* already"):
        app.mount("/in", inner)
    app.mount("/x", other)
    app.static(tmp_path, at="/x/y")
    with pytest.raises(RouteError, match="mounted at"):
        other.static(tmp_path, at="/y")


def test_a_wrong_folder_is_refused(app: App, tmp_path: Path) -> None:
    """When it is named, not when it is asked for."""
    with pytest.raises(FileNotFoundError):
        app.static(tmp_path / "nothing", at="/x")
    with pytest.raises(NotADirectoryError):
        app.static(tmp_path / "outer" / "file", at="/x")
    app.static(tmp_path, at="/x")


def test_a_folder_that_went_before_the_start_is_told(folder: Folder) -> None:
    """As a UsageError that names where it was registered."""
    app, inner = App(), App()
    gone = folder("gone")
    inner.static(gone)
    gone.rmdir()
    app.mount("/in", inner)
    with pytest.raises(UsageError, match=Path(__file__).name):
        app.prepare()


# Mounts


async def test_a_mounted_application_has_its_folders(folder: Folder) -> None:
    """Below its prefix, as often as it is mounted; redirects have the whole path."""
    app, inner = App(), App()
    inner.static(folder("files", "a", "dir/index.html"), at="/files")
    app.mount("/one", inner)
    app.mount("/two", inner)
    for prefix in ("/one", "/two"):
        assert (await ask(app, f"{prefix}/files/a")).body == b"files:a"
        assert (await ask(app, f"{prefix}/files/dir")).headers == {
            "location": f"{prefix}/files/dir/"
        }
        assert (await ask(app, f"{prefix}/files")).headers == {"location": f"{prefix}/files/"}
        kept = app.kept(f"{prefix}/files/a", 0.0)
        assert kept is not None
        assert kept.body == b"files:a"
    assert (await ask(app, "/files/a")).status == 404
    assert (await ask(inner, "/files/a")).body == b"files:a"


async def test_below_a_mount_only_its_folders_answer(folder: Folder) -> None:
    """What an outer folder has at the same path belongs to nobody."""
    app, inner = App(), App()
    app.static(folder("outer", "in/a", "in/b", "a", "404.html"))
    inner.static(folder("inner", "b"), at="/files")
    app.mount("/in", inner)
    assert (await ask(app, "/a")).body == b"outer:a"
    for target in ("/in/a", "/%69n/a", "/in/files/a", "/in"):
        assert (await ask(app, target)).body == b"Not Found"
        assert app.kept(target, 0.0) is None
    assert (await ask(app, "/in/files/b")).body == b"inner:b"
    assert (await ask(app, "/nothing")).body == b"outer:404.html"


async def test_an_application_mounted_at_the_root_leaves_the_folder(folder: Folder) -> None:
    """Of two with the same path, the one that has a folder there answers for it."""
    app, inner = App(), App()
    app.static(folder("outer", "a"))
    inner.get("/b")(lambda request: Response(b"b"))
    app.mount("/", inner)
    assert (await ask(app, "/a")).body == b"outer:a"
    assert (await ask(app, "/b")).body == b"b"


# From memory


async def test_what_is_kept_is_what_would_be_answered(app: App) -> None:
    """Only files that were answered are in memory, and never under a route's path."""
    assert app.kept("/file", 0.0) is None
    await ask(app, "/file")
    for _ in range(2):
        kept = app.kept("/file", 0.0)
        assert kept is not None
        assert kept.body == b"outer:file"
    await ask(app, "/hello/x")
    assert app.kept("/hello/x", 0.0) is None


@pytest.mark.parametrize("pattern", ["/404.html", "/{page}", "/{p:path}", "/404.{x}"])
async def test_a_page_in_memory_does_not_hide_a_route(folder: Folder, pattern: str) -> None:
    """A folder's own 404 page is in memory, at a path that may be a route's."""
    app = App()
    app.static(folder("site", "404.html"), at="/")
    if pattern == "/404.{x}":  # a mount
        app.mount("/404.html", App())
    else:
        app.get(pattern)(lambda request: Response(b"route"))
        app.get("/x/y/z", errors={})(lambda request: Response(b"route"))
    await ask(app, "/no/such/file.txt")
    assert app.kept("/404.html", 0.0) is None
    told = await ask(app, "/404.html")
    assert told.body == (b"Not Found" if pattern == "/404.{x}" else b"route")


async def test_a_route_that_comes_later_hides_what_is_kept(app: App) -> None:
    """At once."""
    await ask(app, "/file")
    assert app.kept("/file", 0.0) is not None
    app.get("/file")(lambda request: Response(b"route"))
    assert app.kept("/file", 0.0) is None
    assert (await ask(app, "/file")).body == b"route"
    assert app.kept("/file", 0.0) is None
    assert app.kept("/in/file", 0.0) is None
    await ask(app, "/in/file")
    assert app.kept("/in/file", 0.0) is not None


async def test_what_is_remembered_of_paths_is_bounded(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many spellings of a file are answered from memory, and only so many are remembered."""
    monkeypatch.setattr("h2log.app.table._MAX_CLEAR", 16)
    app = App()
    app.static(folder("site", "aaaaaa"))
    app.get("/x")(lambda request: Response())
    for letters in product(("a", "%61"), repeat=6):
        target = f"/{''.join(letters)}"
        await ask(app, target)
        assert app.kept(target, 0.0) is not None
        [(_, _, clear)] = app._kept
        assert clear is not None
        assert target in clear
        assert len(clear) <= 16


async def test_a_converter_that_fails_keeps_nothing(folder: Folder) -> None:
    """What it raises is the request's, never the connection's."""
    app = App()
    app.converter("broken", lambda text: 1 // (text != "404.html"))
    app.static(folder("site", "404.html", "b"))
    app.get("/{x:broken}")(lambda request: Response())
    await ask(app, "/no/such")
    assert app.kept("/404.html", 0.0) is None
    with pytest.raises(ZeroDivisionError):
        await ask(app, "/404.html")


# Falling through


async def test_a_folder_may_fall_through_to_the_next(folder: Folder) -> None:
    """What it lacks is looked for in the folder registered next for the path, and so on."""
    app = App(static_fallthrough=True)
    app.static(folder("theme", "style.css", "deep/a"), at="/assets")
    app.static(folder("base", "style.css", "base.css"), at="/assets")
    app.static(folder("site", "assets/site.css", "assets/base.css", "deep"), fallthrough=False)
    for target, body in (
        ("/assets/style.css", b"theme:style.css"),
        ("/assets/base.css", b"base:base.css"),
        ("/assets/site.css", b"site:assets/site.css"),
        ("/assets/deep/a", b"theme:deep/a"),
        ("/deep", b"site:deep"),
    ):
        for _ in range(2):
            assert (await ask(app, target)).body == body
            assert (await ask(app, target, "HEAD")).body == body
    assert (await ask(app, "/assets/nothing")).status == 404
    assert (await ask(app, "/assets/style.css", "POST")).status == 405


async def test_a_new_file_in_front_is_found(folder: Folder) -> None:
    """What another folder keeps in memory does not hide it."""
    app = App()
    theme = folder("theme")
    app.static(theme, fallthrough=True)
    app.static(folder("base", "a"))
    assert (await ask(app, "/a")).body == b"base:a"
    assert app.kept("/a", 0.0) is None
    (theme / "a").write_text("new")
    assert (await ask(app, "/a")).body == b"new"
    kept = app.kept("/a", 0.0)
    assert kept is not None
    assert kept.body == b"new"


async def test_the_first_page_of_those_that_lack_a_file_is_shown(folder: Folder) -> None:
    """Of several folders' 404 pages; none is better than a file, or a route's other form."""
    app = App(static_fallthrough=True)
    app.static(folder("bare", "a"), at="/x")
    app.static(folder("one", "b", "404.html"), at="/x")
    app.static(folder("two", "c", "404.html"), at="/x")
    app.get("/x/route")(lambda request: Response())
    for name, file in (("bare", "a"), ("one", "b"), ("two", "c")):
        assert (await ask(app, f"/x/{file}"))[:2] == (200, f"{name}:{file}".encode())
    assert (await ask(app, "/x/nothing"))[:2] == (404, b"one:404.html")
    assert (await ask(app, "/x/route/")).headers == {"location": "/x/route"}


async def test_nothing_falls_out_of_a_mount(folder: Folder) -> None:
    """The last folder of a mounted application is the last."""
    app, inner = App(), App()
    app.static(folder("outer", "in/a", "in/files/a"))
    inner.static(folder("files"), at="/files", fallthrough=True)
    inner.static(folder("inner", "b", "files/c"), fallthrough=True)
    app.mount("/in", inner)
    assert (await ask(app, "/in/files/a")).status == 404
    assert (await ask(app, "/in/a")).status == 404
    assert (await ask(app, "/in/files/c")).body == b"inner:files/c"


async def test_only_what_is_not_there_falls_through(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error of a folder is the answer: a condition that fails, a range, trouble."""
    app = App()
    app.static(folder("one", "a"), fallthrough=True)
    app.static(folder("two", "a"))
    for fields, status in (
        (((b"if-match", b'"x"'),), 412),
        (((b"range", b"bytes=100-"),), 416),
    ):
        for _ in range(2):
            assert (await ask(app, request("/a", fields=fields))).status == status


async def test_an_answer_that_nobody_awaits_is_closed(app: App) -> None:
    """A client that goes at once leaves no coroutine behind that was never awaited."""
    answer = app.answer(request("/file"), 0.0)
    assert not isinstance(answer, Response)
    answer.close()  # type: ignore[attr-defined]
    with pytest.raises(HTTPError):
        await app.answer(request("/nothing"), 0.0)  # type: ignore[misc]


# Options


async def test_a_folder_has_its_options(folder: Folder) -> None:
    """Wherever it is served; a wrong one is told when it is registered."""
    app, inner = App(), App()
    inner.static(folder("site", "a.html", "deep/b"), listing=True, clean_urls=False)
    app.mount("/in", inner)
    assert (await ask(app, "/in/a")).status == 404
    assert b"b" in (await ask(app, "/in/deep/")).body
    with pytest.raises(UsageError, match="nothing"):
        app.static(folder("other"), at="/o", nothing=True)  # type: ignore[call-arg]
    assert (await ask(app, "/o/")).status == 404


def test_all_folders_can_be_told(folder: Folder) -> None:
    """What serves each: once for every place where it is."""
    app, inner = App(), App()
    one, two = folder("one"), folder("two")
    inner.static(one, at="/files")
    app.static(two)
    app.mount("/a", inner)
    app.mount("/bb", inner)
    assert [Path(served.root) for served in app.folders()] == [one, one, two]
    again = list(app.folders())
    app.get("/x")(lambda request: Response())
    assert list(app.folders()) == again
