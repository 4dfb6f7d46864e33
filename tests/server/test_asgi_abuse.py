"""ASGI applications that do what none should, and what is true all the same."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from h2log.access.record import Outcome
from h2log.app.asgi import Asgi, Message, Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.asgi_apps import body, connected, hello, running, start
from tests.server.h2_client import H2Client
from tests.server.wire import (
    DATA,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Http1Client,
    RawClient,
    get_fields,
)
from tests.support import eventually

PATH = "http.response.pathsend"


@pytest.fixture(params=["h2", "1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Return each protocol in turn."""
    found: str = request.param
    return found


# Cancelled calls


async def test_a_call_that_cancels_itself(
    certs: Certificates, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that is cancelled while nobody stops the server is an error: 500."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).status == 500
        await eventually(lambda: server.records)
        assert server.records[0].outcome is Outcome.HANDLER_ERROR
    assert "the call for GET / was cancelled" in caplog.text


async def test_a_call_that_is_cancelled_before_it_begins(certs: Certificates) -> None:
    """Requests whose tasks were cancelled at birth do not stay open."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task() and "HttpCall" in repr(task.get_coro()):
                task.cancel()
        await hello(scope, receive, send)

    async with running(app, certs) as server, RawClient.connect(server) as client:
        fields = client.block(get_fields(b"/"))
        # Together, so that the calls of all of them are made before the first begins.
        for stream in range(1, 11, 2):
            client.send(HEADERS, 4 | END_STREAM, stream, fields)
        await server.logged(5)
        ends = [record.outcome for record in server.records]
        assert ends.count(Outcome.COMPLETE) == 1
        assert ends.count(Outcome.HANDLER_ERROR) == 4
        asgi = server.shared.asgi
        assert asgi is not None and not asgi.tasks


async def test_work_behind_the_response_that_the_stop_cuts_off(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """What a call still does when the server has no more time is told as unfinished."""
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        began.set()
        await asyncio.Event().wait()

    server = running(app, certs, patience=0.1)
    async with server, H2Client.connect(server) as client:
        assert (await client.get("/")).status == 200
        await began.wait()
    assert server.records[0].outcome is Outcome.COMPLETE
    [told] = [r for r in caplog.records if r.name == "h2log.app"]
    assert told.levelno == logging.WARNING
    assert "GET / was cancelled before it had returned" in told.getMessage()


async def test_a_call_that_cannot_be_cancelled(certs: Certificates) -> None:
    """One that swallows its cancellation keeps neither the stop nor the line."""
    stop = asyncio.Event()
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    server = running(app, certs, patience=0.1)
    async with server, H2Client.connect(server) as client:
        client.send("GET", "/")
        await began.wait()
        await server.server.stop(0.1)
        assert server.records[0].outcome is Outcome.SHUTDOWN
        stop.set()


async def test_calls_that_were_given_up(certs: Certificates) -> None:
    """A connection has no more of them run than it may have open; later there is room again."""
    go = asyncio.Event()
    running_now = most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await go.wait()
        running_now -= 1
        await hello(scope, receive, send)

    server = running(app, certs, max_streams=10)
    async with server, RawClient.connect(server) as client:
        fields = client.block(get_fields(b"/"))
        for stream in range(1, 201, 2):
            client.send(HEADERS, 4 | END_STREAM, stream, fields)
            client.send(RST_STREAM, 0, stream, b"\0\0\0\x08")
        client.send(HEADERS, 4 | END_STREAM, 201, fields)
        assert client.fields(await client.expect(HEADERS, 201))[":status"] == "503"
        assert most <= 10
        go.set()
        asgi = server.shared.asgi
        await eventually(lambda: asgi is not None and not asgi.tasks)
        client.send(HEADERS, 4 | END_STREAM, 203, fields)
        assert client.fields(await client.expect(HEADERS, 203))[":status"] == "200"
        await server.logged(102)


# Files


async def test_a_large_file_under_a_timeout(certs: Certificates, tmp_path: Path) -> None:
    """A file whose sending the application breaks off is reset: no stream stays half sent."""
    file = tmp_path / "large"
    file.write_bytes(bytes(3_000_000))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        async with asyncio.timeout(0.05):
            await send({"type": PATH, "path": str(file)})

    async with running(app, certs) as server:
        async with H2Client.connect(server, window=65_535, credit=False) as client:
            reply = await client.reply(client.send("GET", "/"))
            assert (reply.status, reply.reset) == (200, 2)
        [record] = await server.logged(1)
        assert record.outcome is Outcome.HANDLER_ERROR
        assert record.sent == 65_535


async def test_a_file_and_other_content(certs: Certificates, protocol: str, tmp_path: Path) -> None:
    """While a file is looked for nothing else may be sent: the response would be a mixture."""
    file = tmp_path / "small"
    file.write_bytes(b"file")
    raised: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        sending = asyncio.ensure_future(send({"type": PATH, "path": str(file)}))
        await asyncio.sleep(0)
        try:
            await body(send, b"other", more=True)
        except RuntimeError as error:
            raised.append(error)
        await sending

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).content == b"file"
    assert "a file is being sent" in str(raised[0])


async def test_no_file_and_then_content(certs: Certificates, protocol: str) -> None:
    """An application may answer otherwise when its file is not there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        with pytest.raises(RuntimeError, match="cannot send"):
            await send({"type": PATH, "path": "/there/is/no/such/file"})
        await body(send, b"instead")

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).content == b"instead"


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "nul"])
async def test_what_is_no_file(certs: Certificates, tmp_path: Path, kind: str) -> None:
    """A folder or pipe in place of a file is an error, and leaves no descriptor open."""
    path = str(tmp_path / "it")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "nul":
        path += "\0"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await send({"type": PATH, "path": path})

    async with running(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.get("/")).status == 500
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            assert (await client.get("/")).status == 500
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_call_that_is_cancelled_while_its_file_is_opened(
    certs: Certificates, tmp_path: Path
) -> None:
    """The file is closed all the same."""
    file = tmp_path / "large"
    file.write_bytes(bytes(300_000))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        sending = asyncio.ensure_future(send({"type": PATH, "path": str(file)}))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        await body(send, b"instead")

    def opened() -> int:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return sum(os.path.lexists(link) and os.path.realpath(link) == str(file) for link in links)

    async with running(app, certs) as server, H2Client.connect(server) as client:
        assert (await client.get("/")).body == b"instead"
        await eventually(lambda: not opened())


@pytest.mark.parametrize("size", [10, 600_000])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_file_with_trailers(
    certs: Certificates, tmp_path: Path, size: int, method: str
) -> None:
    """Trailers follow a file as they follow other content."""
    file = tmp_path / "file"
    file.write_bytes(b"a" * size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"content-length", b"%d" % size), trailers=True)
        await send({"type": PATH, "path": str(file)})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async with running(app, certs) as server, H2Client.connect(server) as client:
        reply = await client.reply(client.send(method, "/"))
        if method == "GET":
            assert (len(reply.body), reply.trailers) == (size, [("x-sum", "1")])
        else:
            assert (len(reply.body), reply.ended) == (0, True)


async def test_a_file_that_shrinks(
    certs: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that becomes shorter while it is sent is an error that the client sees."""
    file = tmp_path / "large"
    file.write_bytes(bytes(8_000_000))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200)
        await send({"type": PATH, "path": str(file)})

    async with running(app, certs) as server:
        async with H2Client.connect(server, window=65_535, credit=False) as client:
            stream = client.send("GET", "/")
            await client.until(lambda: len(client.replies[stream].body) == 65_535)
            os.truncate(file, 1000)
            client.conn.increment_flow_control_window(10_000_000)
            client.conn.increment_flow_control_window(10_000_000, stream)
            client.flush()
            assert (await client.reply(stream)).reset == 2
        [record] = await server.logged(1)
        assert record.outcome is Outcome.HANDLER_ERROR
        assert record.status == 200
    assert "became shorter" in caplog.text


# What is whose


async def test_an_oserror_of_the_applications_own(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the client is gone a fault that is not of its absence is logged like any other."""
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        began.set()
        await receive()
        raise FileNotFoundError("the database is gone")

    async with running(app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/")
        await began.wait()
        client.reset(stream)
        [record] = await server.logged(1)
        assert record.outcome is Outcome.CLIENT_RESET
        await eventually(lambda: "the database is gone" in caplog.text)


async def _ends_by_cause(send: Send) -> None:
    try:
        await start(send)
        await body(send)
    except OSError as error:
        raise LookupError("the framework's own") from error


async def _ends_in_a_group(send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(start(send))


async def _ends_by_another(send: Send) -> None:
    try:
        await start(send)
    except OSError:
        raise ConnectionResetError("the framework's own")  # noqa: B904


@pytest.mark.parametrize("ends", [_ends_by_cause, _ends_in_a_group, _ends_by_another])
async def test_what_only_says_that_the_client_is_gone(
    certs: Certificates, caplog: pytest.LogCaptureFixture, ends: Callable[[Send], object]
) -> None:
    """What frameworks make of the OSError of `send` is no fault."""
    began = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        began.set()
        await receive()
        try:
            await ends(send)  # type: ignore[misc]
        finally:
            ended.set()

    async with running(app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/")
        await began.wait()
        client.reset(stream)
        await ended.wait()
        asgi = server.shared.asgi
        await eventually(lambda: asgi is not None and not asgi.tasks)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_nothing_of_a_scope_is_another_requests(certs: Certificates, protocol: str) -> None:
    """What is put in any part of a scope stays in it: a next request does not find it."""
    seen: list[str] = []

    def spoil(part: object) -> None:
        if isinstance(part, dict):
            for value in list(part.values()):
                spoil(value)
            part["secret"] = "spoiled"
        elif isinstance(part, list):
            part.append((b"secret", b"spoiled"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(repr({**scope, "state": None}))
        spoil(scope)
        await hello(scope, receive, send)

    async with running(app, certs) as server:
        for _ in range(2):
            async with connected(server, protocol) as client:
                await client.ask()
                await client.ask()
    assert len(seen) == 4
    assert not [one for one in seen if "spoiled" in one]


async def test_a_request_of_another_version(certs: Certificates) -> None:
    """A scope has the version of its own request, not of the connection's first."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["http_version"])
        await hello(scope, receive, send)

    async with running(app, certs) as server, Http1Client.connect(server) as client:
        await client.get("/")
        client.send(b"GET / HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert (await client.answer()).body == b"hello"
    assert seen == ["1.1", "1.0"]


async def test_hosts_that_differ(certs: Certificates) -> None:
    """What is remembered of a head never has the host, path or fields of another one."""
    seen: list[tuple[str, object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["path"], dict(scope["headers"])))
        await hello(scope, receive, send)

    async with running(app, certs) as server, RawClient.connect(server) as client:
        asked = []
        stream = 1
        for path in (b"/a", b"/b", b"/a"):
            for host in (b"one", b"two"):
                for secret in (b"s1", b"s2"):
                    for _ in range(3):
                        fields = get_fields(path, (b"authorization", secret))
                        fields[2] = (b":authority", host)
                        client.headers(stream, fields)
                        await client.expect(DATA, stream)
                        asked.append((path.decode(), {b"host": host, b"authorization": secret}))
                        stream += 2
    assert seen == asked


async def test_contexts_of_pipelined_requests(certs: Certificates) -> None:
    """A request that came behind another one has none of its context variables."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set(scope["path"])
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    async with running(app, certs) as server, Http1Client.connect(server) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(5)))
        for _ in range(5):
            assert (await client.answer()).status == 200
    assert seen == ["none"] * 5


async def test_a_length_that_is_told_twice(certs: Certificates) -> None:
    """Fields that agree on the length become one: clients refuse two (RFC 9110 section 8.6)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"content-length", b"5"), (b"Content-Length", b"5"))
        await body(send, b"hello")

    async with running(app, certs) as server:
        async with Http1Client.connect(server) as plain:
            plain.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await plain.rest()).count(b"content-length") == 1
        async with RawClient.connect(server) as client:
            client.get(1, b"/")
            block = (await client.expect(HEADERS, 1)).payload
            found = client._decoder.decode(block, raw=True)
            assert [name for name, _ in found].count(b"content-length") == 1


async def test_te_is_not_for_responses(certs: Certificates, protocol: str) -> None:
    """It is left out: in HTTP/2 clients end the connection for it (RFC 9113 section 8.2.2)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, (b"te", b"gzip"), (b"x", b"y"))
        await body(send, b"hello")

    async with running(app, certs) as server, connected(server, protocol) as client:
        answer = await client.ask()
        assert answer.content == b"hello"
        assert "te" not in answer.headers


# Several tasks at once


async def test_two_tasks_receive(certs: Certificates, protocol: str) -> None:
    """Whoever receives, content comes once, and nobody waits for ever."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got = 0

        async def take() -> None:
            nonlocal got
            while (message := await receive())["type"] == "http.request":
                got += len(message["body"])
                if not message["more_body"]:
                    break

        await asyncio.wait([asyncio.ensure_future(take()) for _ in range(2)], timeout=0.1)
        await start(send)
        await body(send, b"%d" % got)

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask("/", "POST", bytes(200_000))).content == b"200000"


async def test_several_tasks_send(certs: Certificates) -> None:
    """All who wait for a window go on when it opens, and when the client is gone."""
    ended: list[list[BaseException | None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        pieces = [body(send, bytes(100_000), more=True) for _ in range(4)]
        ended.append(await asyncio.gather(*pieces, return_exceptions=True))
        if scope["path"] == "/whole":
            await body(send)

    async with running(app, certs) as server:
        async with H2Client.connect(server, window=65_535) as client:
            assert len((await client.get("/whole")).body) == 400_000
        async with H2Client.connect(server, window=65_535, credit=False) as client:
            stream = client.send("GET", "/")
            await client.until(lambda: len(client.replies[stream].body) == 65_535)
            client.reset(stream)
            await eventually(lambda: len(ended) == 2)
    assert ended[0] == [None] * 4
    # What the first has sent fitted the window and what may wait.
    assert [isinstance(error, OSError) for error in ended[1]] == [False, True, True, True]


async def test_sending_when_the_call_has_returned(certs: Certificates, protocol: str) -> None:
    """What a task sends that the call has left behind raises, and changes nothing."""
    raised: list[Exception] = []
    tasks = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def later() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            try:
                await body(send, b"late", more=True)
            except RuntimeError as error:
                raised.append(error)
            assert await receive() == {"type": "http.disconnect"}

        await start(send)
        tasks.append(asyncio.ensure_future(later()))

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask()).status == 500
        await tasks[0]
    assert "the response is complete" in str(raised[0])


# What the log tells


class _Route:
    path = "/items/{id}"


async def _noted_and_lost(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _Route()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _noted_and_failed(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _Route()
    raise KeyError("x")


@pytest.mark.parametrize("app", [_noted_and_lost, _noted_and_failed])
async def test_the_route_of_a_request_that_was_not_answered(certs: Certificates, app: Asgi) -> None:
    """The line has the route that a framework has found, whatever became of the request."""
    async with running(app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/items/5")
        if app is _noted_and_lost:
            asgi = server.shared.asgi
            await eventually(lambda: asgi is not None and asgi.tasks)
            await asyncio.sleep(0)
            client.send(RST_STREAM, 0, 1, b"\0\0\0\x08")
        [record] = await server.logged(1)
        assert record.detail is not None
        assert record.detail.route == "/items/{id}"


class _Secretive:
    @property
    def path(self) -> str:
        raise LookupError("not yet")


async def test_a_route_that_cannot_be_asked(certs: Certificates, protocol: str) -> None:
    """What another framework keeps as its route may raise: the request is answered all the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = _Secretive()
        if scope["path"] == "/fails":
            raise KeyError("x")
        await hello(scope, receive, send)

    async with running(app, certs) as server, connected(server, protocol) as client:
        assert (await client.ask("/")).content == b"hello"
        assert (await client.ask("/fails")).status == 500
        outcomes = [record.outcome for record in await server.logged(2)]
    assert outcomes == [Outcome.COMPLETE, Outcome.HANDLER_ERROR]


# Many and small


async def test_many_small_pieces(certs: Certificates, protocol: str) -> None:
    """Content in pieces of one byte is that content, both ways."""
    count = 20_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        got = 0
        while more:
            message: Message = await receive()
            got += len(message["body"])
            more = message["more_body"]
        await start(send)
        for _ in range(got):
            await body(send, b"x", more=True)
        await body(send)

    async with running(app, certs) as server:
        if protocol == "h2":
            async with RawClient.connect(server) as client:
                fields = get_fields(b"/")
                fields[0] = (b":method", b"POST")
                client.headers(1, fields, end=False)
                client.writer.write(b"\0\0\1\0\0\0\0\0\1x" * count)
                client.send(DATA, END_STREAM, 1)
                size = 0
                ended = False
                while not ended:
                    found = await client.expect(DATA, 1)
                    size += len(found.payload)
                    ended = bool(found.flags & END_STREAM)
                assert size == count
        else:
            async with Http1Client.connect(server) as plain:
                plain.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
                plain.send(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
                assert len((await plain.answer()).body) == count
        [record] = await server.logged(1)
        assert (record.received, record.sent) == (count, count)


async def test_small_pieces_without_end(certs: Certificates, protocol: str) -> None:
    """An application that only sends does not keep others from being answered."""
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["path"] == "/other":
            return await hello(scope, receive, send)
        await start(send)
        while True:
            sent += 1
            await body(send, b"x" if scope["path"] == "/small" else b"", more=True)

    async with running(app, certs) as server:
        async with connected(server, protocol) as other:
            for path in (b"/small", b"/empty"):
                async with Http1Client.connect(server) as client:
                    client.send(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path)
                    before = sent
                    await eventually(lambda before=before: sent > before)  # type: ignore[misc]
                    assert (await other.ask("/other")).content == b"hello"
                    client.writer.transport.abort()
        await server.logged(4)


@pytest.mark.parametrize("host", ["", "user@localhost", "local\\host", "localhost#", ":pass@"])
async def test_rfc9110_4_2_a_host_in_the_target(certs: Certificates, host: str) -> None:
    """A host that a field could not have comes to no application in an absolute target either."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await hello(scope, receive, send)

    async with running(app, certs) as server, Http1Client.connect(server) as client:
        assert (await client.get(f"http://{host}/path")).status == 400
        assert (await client.get("http://other:1/path")).status == 200
        assert server.records[0].outcome is Outcome.MALFORMED
    [scope] = seen
    assert scope["headers"] == [(b"host", b"other:1")]
