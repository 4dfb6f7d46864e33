"""A file as a response: found when it is sent, with its conditions, ranges and name to save."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from h2log import App, HTTPError, Request, Response, UserSessions
from h2log.app.middleware import CallNext
from h2log.app.response import FileContent, attachment
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client, Reply
from tests.server.wire import Http1Client
from tests.support import Running, client_context, eventually, run


class Files:
    """An application that answers with files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = os.urandom(600_000)
        (folder / "report.pdf").write_bytes(self.content)
        (folder / "small.txt").write_bytes(b"0123456789")
        (folder / "empty.txt").write_bytes(b"")
        os.mkfifo(folder / "pipe")
        self.worked = 0
        self.app = App()
        self.app.get("/plain/{path:path}")(self.plain)
        self.app.get("/async/{path:path}")(self.later)
        self.app.get("/own/{path:path}")(self.own)
        self.app.get("/gone/{path:path}")(self.gone)
        self.app.get("/any")(self.any)
        self.app.get("/save")(self.save)
        self.app.post("/plain/{path:path}")(self.plain)

    def plain(self, request: Request) -> Response:
        return Response.file(self.folder / request.params["path"])

    async def later(self, request: Request) -> Response:
        return Response.file(str(self.folder / request.params["path"])).after(self.work)

    def own(self, request: Request) -> Response:
        fields = {"ETag": '"mine"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        response = Response.file(self.folder / request.params["path"], "text/x-own", headers=fields)
        response.set_cookie("a", "1")
        return response

    def gone(self, request: Request) -> Response:
        return Response.file(self.folder / request.params["path"], status=410)

    async def any(self, request: Request) -> Response:
        return Response.file(self.folder / request.query["path"]).after(self.work)

    def save(self, request: Request) -> Response:
        return Response.file(self.folder / "small.txt", download=request.query["as"])

    def work(self) -> None:
        self.worked += 1


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_a_file_is_sent_whole(certs: Certificates, files: Files) -> None:
    """From plain and async handlers, over both protocols, with what is known of it."""
    async with (
        Running(files.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        for kind in ("plain", "async"):
            reply = await two.get(f"/{kind}/report.pdf")
            assert (reply.status, reply.body == files.content) == (200, True)
            assert reply.headers["content-type"] == "application/pdf"
            assert reply.headers["content-length"] == "600000"
            assert reply.headers["accept-ranges"] == "bytes"
            assert reply.headers["etag"].startswith('"')
            assert "last-modified" in reply.headers
            answer = await one.get(f"/{kind}/report.pdf")
            assert (answer.status, answer.body == files.content) == (200, True)
            reply = await two.request("HEAD", f"/{kind}/report.pdf")
            assert (reply.status, reply.headers["content-length"]) == (200, "600000")
            reply = await two.get(f"/{kind}/empty.txt")
            assert (reply.status, bytes(reply.body)) == (200, b"")
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert server.outcomes == {"COMPLETE": 8}
    assert files.worked == 4


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ([], 200, b"0123456789"),
        ([("if-none-match", "{etag}")], 304, b""),
        ([("if-none-match", '"x"')], 200, b"0123456789"),
        ([("if-modified-since", "{date}")], 304, b""),
        ([("if-match", '"x"')], 412, None),
        ([("range", "bytes=2-4")], 206, b"234"),
        ([("range", "bytes=-3")], 206, b"789"),
        ([("range", "bytes=20-")], 416, None),
        ([("range", "bytes=2-4"), ("if-range", "{etag}")], 206, b"234"),
        ([("range", "bytes=2-4"), ("if-range", '"x"')], 200, b"0123456789"),
    ],
)
async def test_conditions_decide(
    certs: Certificates,
    files: Files,
    fields: list[tuple[str, str]],
    status: int,
    body: bytes | None,
) -> None:
    """As for a folder's file (RFC 9110 sections 13 and 14); the record says which did."""
    async with Running(files.app, certs) as server, H2Client.connect(server) as two:
        whole = await two.get("/plain/small.txt")
        etag, date = whole.headers["etag"], whole.headers["last-modified"]
        sent = [(n, v.replace("{etag}", etag).replace("{date}", date)) for n, v in fields]
        reply = await two.get("/async/small.txt", *sent)
        assert reply.status == status
        if body is not None:
            assert bytes(reply.body) == body
        if status == 206:
            assert reply.headers["content-range"].endswith("/10")
        if status == 304:
            assert reply.headers["etag"] == etag
    assert files.worked == 1  # whatever became of the response
    wanted = {200: "", 206: "range", 416: "range", 304: "date", 412: "etag"}[status]
    if status == 304 and fields[0][0] == "if-none-match":
        wanted = "etag"
    assert server.records[1].condition == wanted


async def test_what_the_application_says_of_a_file_stays(certs: Certificates, files: Files) -> None:
    """Its type, tag, date and cookies; the conditions are compared with those."""
    async with Running(files.app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get("/own/small.txt")
        assert reply.headers["content-type"] == "text/x-own"
        assert (reply.headers["etag"], reply.headers["last-modified"]) == (
            '"mine"',
            "Thu, 01 Jan 2026 00:00:00 GMT",
        )
        reply = await two.get("/own/small.txt", ("if-none-match", '"mine"'))
        assert (reply.status, reply.headers["set-cookie"][:4]) == (304, "a=1;")
        since = ("if-modified-since", "Fri, 02 Jan 2026 00:00:00 GMT")
        assert (await two.get("/own/small.txt", since)).status == 304
        reply = await two.get("/gone/small.txt", ("range", "bytes=2-4"))
        assert (reply.status, bytes(reply.body)) == (410, b"0123456789")
        reply = await two.request("POST", "/plain/small.txt", [("if-match", '"x"')])
        assert (reply.status, bytes(reply.body)) == (200, b"0123456789")


@pytest.mark.parametrize("path", ["absent", "pipe", ".", "small.txt/x", "a%00b", "x" * 300])
async def test_what_is_no_file_is_404(
    certs: Certificates, files: Files, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing there, a folder, a pipe, a name that none can have: no error of the handler."""
    async with (
        Running(files.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        assert (await two.get(f"/any?path={path}")).status == 404
        assert (await one.get(f"/any?path={path}")).status == 404
    assert server.outcomes == {"COMPLETE": 2}
    assert files.worked == 2
    assert not caplog.records


NAMES = [
    ("a.txt", 'attachment; filename="a.txt"'),
    ("a b (1).txt", 'attachment; filename="a b (1).txt"'),
    ("é€.txt", "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A9%E2%82%AC.txt"),
    ('a"b\\c.txt', "attachment; filename=\"a_b_c.txt\"; filename*=UTF-8''a%22b%5Cc.txt"),
    ("a%20b.txt", "attachment; filename=\"a_20b.txt\"; filename*=UTF-8''a%2520b.txt"),
    ("a/b;c.txt", "attachment; filename=\"a_b_c.txt\"; filename*=UTF-8''a%2Fb%3Bc.txt"),
    (
        "a\r\nX-Evil: 1",
        "attachment; filename=\"a__X-Evil_ 1\"; filename*=UTF-8''a%0D%0AX-Evil%3A%201",
    ),
]


@pytest.mark.parametrize(("name", "value"), NAMES)
def test_a_name_to_save(name: str, value: str) -> None:
    """In ASCII, and where that is not all of it also as it is; one line whatever it is."""
    assert attachment(name) == value
    plain, mark, coded = value.partition("; filename*=UTF-8''")
    assert unquote(coded) == name if mark else plain == f'attachment; filename="{name}"'
    assert value.isprintable()


async def test_clients_save_it_under_that_name(
    certs: Certificates, files: Files, tmp_path: Path
) -> None:
    """curl takes the name; httpx sees the field."""
    async with Running(files.app, certs) as server:
        done = await run(
            "curl", "-sS", "--cacert", str(certs.ca), "-OJ", "--output-dir", str(tmp_path),
            f"{server.url}/save?as=a%20b.txt",
        )  # fmt: skip
        assert done.code == 0, done.stderr
        assert (tmp_path / "a b.txt").read_bytes() == b"0123456789"
        async with httpx.AsyncClient(http2=True, verify=client_context(certs)) as client:
            response = await client.get(f"{server.url}/save", params={"as": "é.txt"})
            assert response.headers["content-disposition"].endswith("UTF-8''%C3%A9.txt")
            assert response.content == b"0123456789"


async def test_a_client_that_goes_leaves_no_file_open(certs: Certificates, files: Files) -> None:
    """In the middle of it, and before it was opened."""

    def open_files() -> list[str]:
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                continue
        return [path for path in found if path.startswith(str(files.folder))]

    async with Running(files.app, certs) as server:
        async with H2Client.connect(server, credit=False) as two:
            streams = [two.send("GET", "/plain/report.pdf") for _ in range(5)]
            replies: list[Reply] = [two.replies[stream] for stream in streams]
            await two.until(lambda: any(reply.body for reply in replies))
            late = two.send("GET", "/plain/report.pdf")
            two.reset(late)
            await server.logged(1)
            two.abort()
        await server.logged(6)
    assert open_files() == []
    assert server.outcomes == {"CLIENT_RESET": 1, "PEER_LOST": 5}


def test_a_path_is_one() -> None:
    """What is none is a TypeError at once."""
    wrong: Any = 7
    with pytest.raises(TypeError, match="PathLike"):
        Response.file(wrong)


# What surrounds the handler


class Surrounded(Files):
    """The same, inside of middleware that adds to each response and counts what it sees."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[int] = []
        self.answered: list[int] = []
        self.app.use(self.adds)
        for status in (404, 412):
            self.app.error(status)(self.page)

    async def adds(self, request: Request, call_next: CallNext) -> Response:
        try:
            response = await call_next(request)
        except HTTPError as error:
            self.seen.append(error.status)
            headers = (*error.headers, ("set-cookie", "added=1"))
            raise HTTPError(error.status, error.detail, headers) from error
        self.seen.append(response.status)
        response.headers.append(("set-cookie", "added=1"))
        return response

    def page(self, request: Request, error: HTTPError) -> Response:
        self.answered.append(error.status)
        return Response.html(f"<h1>{error.status}", error.status)


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("small.txt", [], 200),
        ("small.txt", [("if-none-match", "*")], 304),
        ("small.txt", [("range", "bytes=2-4")], 206),
        ("small.txt", [("range", "bytes=20-")], 416),
        ("small.txt", [("if-match", '"x"')], 412),
        ("absent", [], 404),
    ],
)
async def test_middleware_sees_what_became_of_the_file(
    certs: Certificates,
    tmp_path: Path,
    kind: str,
    path: str,
    fields: list[tuple[str, str]],
    status: int,
) -> None:
    """Its status, an error as an exception; what it adds is sent; error handlers answer errors."""
    files = Surrounded(tmp_path)
    async with Running(files.app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get(f"/{kind}/{path}", *fields)
        assert (reply.status, reply.headers["set-cookie"]) == (status, "added=1")
        assert files.seen == [status]
        if status in (404, 412):
            assert (files.answered, bytes(reply.body)) == ([status], f"<h1>{status}".encode())
        if status == 416:
            assert reply.headers["content-range"] == "bytes */10"
    assert server.outcomes == {"COMPLETE": 1}


@pytest.mark.parametrize("where", ["alone", "errors", "middleware", "route"])
async def test_an_error_keeps_what_is_not_the_files(
    certs: Certificates, files: Files, where: str
) -> None:
    """A cookie of the handler's, and the work that it left; not the type or age of the file."""

    async def handler(request: Request) -> Response:
        own = {"Cache-Control": "max-age=9", "Content-Type": "text/x-own", "X-Own": "1"}
        response = Response.file(files.folder / "absent", headers=own, download="a.txt")
        response.set_cookie("a", "1")
        return response.after(files.work)

    def page(request: Request, error: HTTPError) -> Response:
        return Response.html("<h1>gone", 404).after(files.work)

    async def through(request: Request, call_next: CallNext) -> Response:
        return await call_next(request)

    app = App()
    app.get("/", errors={404: page} if where == "route" else None)(handler)
    if where == "errors":
        app.error(404)(page)
    if where == "middleware":
        app.use(through)
    async with Running(app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get("/")
        assert (reply.status, reply.headers["x-own"]) == (404, "1")
        assert reply.headers["set-cookie"].startswith("a=1;")
        assert not {"cache-control", "content-disposition"} & set(reply.headers)
        assert reply.headers["content-type"] != "text/x-own"
        works = 2 if where in ("errors", "route") else 1
        await eventually(lambda: files.worked == works)
        await eventually(lambda: not server.shared.dispatcher.background.tasks)
    assert server.outcomes == {"COMPLETE": 1}


async def test_who_logs_in_stays_so_though_the_file_is_not_there(
    certs: Certificates, files: Files
) -> None:
    """The cookie with the new id of a user session is in the 404, and is a user session's."""
    sessions = UserSessions("x" * 32)
    app = App()
    app.use(sessions)

    @app.get("/login")
    def login(request: Request) -> Response:
        request.user_session["name"] = "ada"
        request.user_session.regenerate()
        return Response.file(files.folder / "absent")

    @app.get("/who")
    def who(request: Request) -> Response:
        return Response.text(request.user_session.get("name", "nobody"))

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        for _ in range(2):
            reply = await two.get("/login")
            cookie = reply.headers["set-cookie"].partition(";")[0]
            assert (reply.status, reply.headers["cache-control"]) == (404, "no-store")
            assert bytes((await two.get("/who", ("cookie", cookie))).body) == b"ada"


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("way", ["another", "raises", "again", "late", "cancelled"])
async def test_a_file_that_middleware_drops_is_closed(
    certs: Certificates, files: Files, way: str
) -> None:
    """At once, and not when the collector comes round: it answers otherwise, raises, or is gone."""
    kept: list[Response] = []
    late = asyncio.Event()
    waits = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(request: Request, call_next: CallNext) -> None:
        await late.wait()
        kept.append(await call_next(request))

    async def drops(request: Request, call_next: CallNext) -> Response:
        if way == "late":
            tasks.append(asyncio.create_task(later(request, call_next)))
            return Response.text("other")
        kept.append(await call_next(request))
        if way == "raises":
            raise HTTPError(409)
        if way == "cancelled":
            waits.set()
            await asyncio.Event().wait()
        if way == "again":
            return await call_next(request)
        return Response.text("other")

    app = App()
    app.mount("/in", files.app)
    app.use(drops)
    async with Running(app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("GET", "/in/plain/report.pdf")
        if way == "cancelled":
            await waits.wait()
            two.reset(stream)
            await server.logged(1)
        else:
            reply = await two.reply(stream)
            assert reply.status == (409 if way == "raises" else 200)
            assert (bytes(reply.body) == files.content) == (way == "again")
        late.set()
        await asyncio.gather(*tasks)
        await eventually(lambda: kept and all(was_closed(response) for response in kept))


@pytest.mark.parametrize("way", ["same", "part", "stream"])
async def test_a_file_that_middleware_passes_on_is_sent(
    certs: Certificates, files: Files, way: str
) -> None:
    """As it is, as another part of it, or through a stream of the middleware's own."""

    async def read(content: FileContent) -> AsyncIterator[bytes]:
        with content.file as file:
            while piece := file.read(100_000):
                yield piece

    async def passes(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        body = response.body
        assert isinstance(body, FileContent)
        if way == "stream":
            return Response(read(body))
        return Response(body if way == "same" else FileContent(body.file, 10, body.length - 10))

    files.app.use(passes)
    async with Running(files.app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get("/plain/report.pdf")
        assert bytes(reply.body) == files.content[10 if way == "part" else 0 :]
    assert server.outcomes == {"COMPLETE": 1}


def was_closed(response: Response) -> bool:
    """Say whether the file of a response is closed."""
    assert isinstance(response.body, FileContent)
    return response.body.file.closed
