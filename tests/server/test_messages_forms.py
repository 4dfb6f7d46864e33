"""Forms and JSON over real connections: uploads, limits, and files that are closed at the end."""

from __future__ import annotations

import asyncio
import gc
import gzip
import hashlib
import json
import math
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from h2log import App, HTTPError, Request, Response
from h2log.app.uploads import Spool, UploadFile
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import Running, client_context, eventually, poll, run

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
MULTIPART = ("content-type", "multipart/form-data; boundary=XX")
MEGABYTE = 1024 * 1024


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    """Return a part of a multipart form."""
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--XX\r\ncontent-disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--XX--\r\n"


class Forms:
    """An application that reads forms, and keeps the files that it was given."""

    def __init__(self) -> None:
        self.kept: list[UploadFile] = []
        self.gate = asyncio.Event()
        self.entered = 0
        self.worked: list[bytes] = []
        self.app = App()
        for name in ("form", "gated", "fails", "later", "streams", "plain", "limits"):
            self.app.post(f"/{name}")(getattr(self, name))

    async def form(self, request: Request) -> Response:
        form = await request.form()
        self.kept += form.files
        told: list[list[object]] = []
        for name, value in form.pairs:
            if isinstance(value, str):
                told.append([name, value])
                continue
            digest = hashlib.sha256()
            async for piece in value:
                digest.update(piece)
            told.append([name, value.filename, value.content_type, value.size, digest.hexdigest()])
        return Response.json(told)

    async def gated(self, request: Request) -> Response:
        self.kept += (await request.form()).files
        self.entered += 1
        await self.gate.wait()
        return Response(b"")

    async def fails(self, request: Request) -> Response:
        self.kept += (await request.form()).files
        raise HTTPError(409) if request.query.get("how") == "http" else LookupError("why")

    async def later(self, request: Request) -> Response:
        form = await request.form()
        self.kept += form.files

        async def work() -> None:
            await self.gate.wait()
            for file in form.files:
                self.worked.append(await file.read())

        return Response(b"", background=work)

    async def streams(self, request: Request) -> Response:
        form = await request.form()
        self.kept += form.files
        file = form.file("f")
        assert file is not None
        return Response.stream(aiter(file))

    async def limits(self, request: Request) -> Response:
        form = await request.form(max_fields=2, max_files=1, max_field_bytes=1000)
        return Response.text(str(len(form)))

    def plain(self, request: Request) -> Response:
        return Response.text("not interested")

    @property
    def all_closed(self) -> bool:
        return bool(self.kept) and all(file.closed for file in self.kept)


def open_temporary_files() -> int:
    """Return how many temporary files this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith(tempfile.gettempdir() + "/")
        except FileNotFoundError:
            continue
    return count


@pytest.fixture
def forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forms]:
    """Files on the disk are in a folder of the test; none is open or left behind at its end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield Forms()
    poll(lambda: not open_temporary_files())
    assert not any(tmp_path.iterdir())


@BOTH_LOOPS
async def test_a_form_arrives_whole(certs: Certificates, forms: Forms) -> None:
    """Fields and files, small and large, in many windows, over both protocols; closed after it."""
    big = os.urandom(5 * MEGABYTE)
    body = part("a", b"1") + part("f", big, "b.bin") + part("g", b"x", "s") + part("a", b"2") + END
    wanted = [
        ["a", "1"],
        ["f", "b.bin", "", len(big), hashlib.sha256(big).hexdigest()],
        ["g", "s", "", 1, hashlib.sha256(b"x").hexdigest()],
        ["a", "2"],
    ]
    async with (
        Running(forms.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.request("POST", "/form", [MULTIPART], body)
        assert (reply.status, json.loads(bytes(reply.body))) == (200, wanted)
        one.send(
            b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=XX\r\n\r\n" % len(body)
        )
        one.send(body)
        assert json.loads((await one.answer()).body) == wanted
        await eventually(lambda: forms.all_closed)
        reply = await two.request(
            "POST", "/form", [("content-type", "application/x-www-form-urlencoded")], b"a=1&b=%20"
        )
        assert json.loads(bytes(reply.body)) == [["a", "1"], ["b", " "]]
    assert len(forms.kept) == 4
    assert server.outcomes == {"COMPLETE": 3}


async def test_real_clients_send_forms(certs: Certificates, forms: Forms, tmp_path: Path) -> None:
    """httpx and curl, over both protocols, with names and types as they code them."""
    content = os.urandom(2 * MEGABYTE)
    path = tmp_path / "naïve file.bin"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    try:
        async with Running(forms.app, certs) as server:
            for two in (True, False):
                async with httpx.AsyncClient(http2=two, verify=client_context(certs)) as client:
                    response = await client.post(
                        f"{server.url}/form",
                        data={"a": ["é", "2"]},
                        files={"f": ("naïve.bin", content, "application/x-thing")},
                    )
                    assert response.json() == [
                        ["a", "é"],
                        ["a", "2"],
                        ["f", "naïve.bin", "application/x-thing", len(content), digest],
                    ]
                    response = await client.post(f"{server.url}/form", data={"a b": "é&="})
                    assert response.json() == [["a b", "é&="]]
            for version in ("--http2", "--http1.1"):
                done = await run(
                    "curl", "-sS", "--cacert", str(certs.ca), version, "-F", "a=é",
                    "-F", f"f=@{path};type=text/x-thing", f"{server.url}/form",
                )  # fmt: skip
                assert json.loads(done.text) == [
                    ["a", "é"],
                    ["f", "naïve file.bin", "text/x-thing", len(content), digest],
                ]
                done = await run(
                    "curl", "-sS", "--cacert", str(certs.ca), version,
                    "--data-urlencode", "a b=é&", "-d", "c", f"{server.url}/form",
                )  # fmt: skip
                assert json.loads(done.text) == [["a b", "é&"], ["c", ""]]
    finally:
        path.unlink()


@BOTH_LOOPS
async def test_files_are_closed_however_the_request_ends(certs: Certificates, forms: Forms) -> None:
    """An error of the handler or an HTTPError: nothing that was opened stays open."""
    body = part("f", bytes(2 * MEGABYTE), "b") + part("g", b"x", "s") + END
    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        assert (await two.request("POST", "/fails", [MULTIPART], body)).status == 500
        assert (await two.request("POST", "/fails?how=http", [MULTIPART], body)).status == 409
        await eventually(lambda: forms.all_closed)
    assert len(forms.kept) == 4
    assert server.outcomes == {"HANDLER_ERROR": 1, "COMPLETE": 1}


@BOTH_LOOPS
@pytest.mark.parametrize("way", ["reset", "abort", "http1"])
async def test_files_are_closed_when_the_client_goes(
    certs: Certificates, forms: Forms, way: str
) -> None:
    """While the handler works with them, it is cancelled at its next await, and they are closed."""
    body = part("f", bytes(2 * MEGABYTE), "b") + part("g", b"x", "s") + END
    async with Running(forms.app, certs) as server:
        if way == "http1":
            async with Http1Client.connect(server) as one:
                one.send(
                    b"POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
                    b"Content-Type: multipart/form-data; boundary=XX\r\n\r\n" % len(body)
                )
                one.send(body)
                await eventually(lambda: forms.entered)
                one.writer.transport.abort()
        else:
            async with H2Client.connect(server) as two:
                stream = two.send("POST", "/gated", [MULTIPART], end=False)
                await two.send_body(stream, body)
                await eventually(lambda: forms.entered)
                if way == "reset":
                    two.reset(stream)
                    await server.logged(1)
                else:
                    two.abort()
        await eventually(lambda: forms.all_closed)
    assert server.outcomes == {"CLIENT_RESET" if way == "reset" else "PEER_LOST": 1}


@BOTH_LOOPS
@pytest.mark.parametrize("way", ["reset", "abort"])
async def test_a_client_that_goes_in_the_middle_of_an_upload(
    certs: Certificates, forms: Forms, way: str
) -> None:
    """The handler waits for the form and is cancelled there; what was stored is gone."""
    before = open_temporary_files()
    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("POST", "/form", [MULTIPART], end=False)
        await two.send_body(stream, part("f", bytes(3 * MEGABYTE), "b")[:-100_000], end=False)
        await eventually(lambda: open_temporary_files() > before)
        if way == "reset":
            two.reset(stream)
            await server.logged(1)
        else:
            two.abort()
            await server.logged(1)
        await eventually(lambda: open_temporary_files() == before)
    assert forms.kept == []
    assert server.outcomes == {"CLIENT_RESET" if way == "reset" else "PEER_LOST": 1}


async def test_files_are_open_as_long_as_they_are_needed(certs: Certificates, forms: Forms) -> None:
    """For a response that streams one, and for background work; closed after that."""
    content = os.urandom(2 * MEGABYTE)
    body = part("f", content, "b") + END
    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        reply = await two.request("POST", "/streams", [MULTIPART], body)
        assert reply.body == content
        await eventually(lambda: forms.all_closed)
        assert (await two.request("POST", "/later", [MULTIPART], body)).status == 200
        await server.logged(2)
        assert not forms.all_closed
        forms.gate.set()
        await eventually(lambda: forms.worked)
        assert forms.worked == [content]
        await eventually(lambda: forms.all_closed)


@pytest.mark.parametrize(
    ("fields", "body", "status", "said"),
    [
        ([("content-type", "text/plain")], b"a=1", 415, "got text/plain"),
        ([], b"a=1", 415, "got no content-type"),
        ([MULTIPART], part("a", b"1"), 400, "ends before its last boundary"),
        ([MULTIPART], b"nonsense", 400, "malformed form"),
        ([MULTIPART], part("a", b"1") * 3 + END, 413, "more than 2 fields"),
        ([MULTIPART], part("a", b"1", "f") * 2 + END, 413, "more than 1 files"),
        ([MULTIPART], part("a", b"1" * 1000) + END, 413, "larger than 1000 bytes"),
        ([MULTIPART], part("a", bytes(400_000), "f") + END, 413, "larger than 300000 bytes"),
        ([MULTIPART], part("a", b"1", "x" * 5000) + END, 400, "Maximum header size"),
    ],
)
async def test_a_form_that_cannot_be_taken(
    certs: Certificates,
    forms: Forms,
    fields: list[tuple[str, str]],
    body: bytes,
    status: int,
    said: str,
) -> None:
    """Its client is told why, over both protocols, and the connection lives on."""
    async with (
        Running(forms.app, certs, max_body_bytes=300_000) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.request("POST", "/limits", fields, body)
        assert (reply.status, said in bytes(reply.body).decode()) == (status, True), reply.body
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        one.send(
            f"POST /limits HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"{lines}\r\n".encode()
        )
        one.send(body)
        answer = await one.answer()
        assert (answer.status, said in answer.body.decode()) == (status, True), answer.body
        assert (await two.request("POST", "/plain")).status == 200
        assert (await one.get("/plain", method="POST")).status == 200
    assert server.outcomes == {"COMPLETE": 4}


async def test_a_full_disk_is_told(
    certs: Certificates,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """503, no error of the handler; what fits in memory is taken, and all is once there is room."""
    forms = Forms()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setattr(Spool, "_told_at", -math.inf)
    large = part("f", bytes(5 * MEGABYTE), "b") + END
    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        with (disk / "rest").open("wb", 0) as rest:
            os.posix_fallocate(rest.fileno(), 0, 61 * MEGABYTE)
        reply = await two.request("POST", "/form", [MULTIPART], large)
        assert (reply.status, b"no room for files" in reply.body) == (503, True)
        small = part("f", b"x", "b") + END
        assert (await two.request("POST", "/form", [MULTIPART], small)).status == 200
        (disk / "rest").unlink()
        assert (await two.request("POST", "/form", [MULTIPART], large)).status == 200
        await eventually(lambda: not open_temporary_files())
    assert server.outcomes == {"COMPLETE": 3}
    [told] = caplog.records
    assert (told.exc_info, "No space left" in told.getMessage()) == (None, True)


@pytest.mark.parametrize("coding", ["gzip", "br, identity", "GZIP", "x-unknown"])
@pytest.mark.parametrize("path", ["form", "json"])
async def test_content_that_is_coded_is_415(
    certs: Certificates, forms: Forms, path: str, coding: str
) -> None:
    """It is not taken for malformed: the client is told to send it without (RFC 9110, 12.5.3)."""

    @forms.app.post("/json")
    async def json_(request: Request) -> Response:
        return Response.json(await request.json())

    kind = MULTIPART if path == "form" else ("content-type", "application/json")
    body = part("a", b"1") + END if path == "form" else b"[1]"
    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        fields = [kind, ("content-encoding", coding)]
        reply = await two.request("POST", f"/{path}", fields, gzip.compress(body))
        assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
        assert f"got content-encoding {coding}".encode() in reply.body
        for plain in ("identity", "Identity"):
            fields = [kind, ("content-encoding", plain)]
            assert (await two.request("POST", f"/{path}", fields, body)).status == 200
    assert server.outcomes == {"COMPLETE": 3}


def requests() -> list[Request]:
    """Return those that are alive."""
    return [found for found in gc.get_objects() if isinstance(found, Request)]


async def test_a_request_is_freed_when_it_is_over(certs: Certificates, forms: Forms) -> None:
    """With all that it holds, and not when the collector comes round: nothing holds it in turn."""
    body = part("f", b"x", "s") + END

    @forms.app.get("/stream")
    def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield request.id.encode()

        return Response.stream(pieces()).after(lambda: None)

    async with Running(forms.app, certs) as server, H2Client.connect(server) as two:
        gc.collect()
        gc.disable()
        others = requests()  # that other tests have left
        try:
            for _ in range(5):
                assert (await two.request("POST", "/form", [MULTIPART], body)).status == 200
                assert (await two.request("POST", "/plain")).status == 200
                assert (await two.get("/stream")).status == 200
            await eventually(lambda: not server.shared.dispatcher.background.tasks)
            await eventually(lambda: len(requests()) == len(others))
        finally:
            gc.enable()
