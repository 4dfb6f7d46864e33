"""`AccessLogMiddleware` called as the ASGI specification says: what servers rarely do."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from h2log.access.record import Outcome
from h2log.asgi import AccessLogMiddleware
from h2log.errors import UsageError
from h2log.ids import request_id
from tests.integrations.lines import Lines
from tests.support import ROOT


class Server:
    """The server's side of calls: `messages` are received in turn, what is sent is kept."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.sent: list[Any] = []
        self.broken = False

    async def receive(self) -> Any:
        """Give the next message, then wait for ever."""
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        """Keep a message, or raise as for a client that is gone."""
        if self.broken:
            raise OSError("gone")
        self.sent.append(message)


def scope(kind: str = "http", path: str = "/", **more: Any) -> dict[str, Any]:
    """Return a scope."""
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "GET",
        "scheme": "https" if kind == "http" else "wss",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"example.org")],
        "client": ("192.0.2.1", 5000),
        "server": ("192.0.2.2", 443),
        **more,
    }


@pytest.fixture
def log(tmp_path: Path) -> Lines:
    """The log."""
    return Lines(tmp_path / "access.log")


def around(app: Any, log: Lines, **more: Any) -> AccessLogMiddleware:
    """Return the middleware around an application."""
    output = {"path": str(log.path), "format": "h2log-full", **more}
    return AccessLogMiddleware(app, settings={"log": {"access": [output]}})


START = {"type": "http.response.start", "status": 200, "headers": [(b"X-Request-ID", b"theirs")]}


async def test_trailers_end_a_response(log: Lines) -> None:
    """A response with trailers is complete with them."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send({"type": "http.response.body", "body": b"four"})
        assert not log.all()
        await send({"type": "http.response.trailers", "headers": []})

    server = Server()
    await around(app, log)(scope(path="/trailers"), server.receive, server.send)
    line = await log.one("/trailers")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.COMPLETE)
    names = [name.lower() for name, _ in server.sent[0]["headers"]]
    assert names == [b"x-request-id"]
    assert (line.version, line.stream, line.authority) == ("h2", None, "example.org")


async def test_a_file_that_the_server_sends(log: Lines) -> None:
    """`http.response.pathsend` completes the response, with the file's bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": __file__})

    server = Server()
    await around(app, log)(scope(path="/file"), server.receive, server.send)
    line = await log.one("/file")
    assert (line.sent, line.outcome) == (Path(__file__).stat().st_size, Outcome.COMPLETE)


async def test_send_that_raises(log: Lines) -> None:
    """OSError from `send` is a client that left; the application has it, too."""
    seen: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        server.broken = True
        try:
            await send({"type": "http.response.body", "body": b"four"})
        except OSError as error:
            seen.append(error)
            raise

    server = Server()
    with pytest.raises(OSError, match="gone"):
        await around(app, log)(scope(path="/gone"), server.receive, server.send)
    line = await log.one("/gone")
    assert (line.status, line.sent, line.outcome) == (200, 0, Outcome.PEER_LOST)
    assert seen


async def test_a_disconnect_after_the_response(log: Lines) -> None:
    """It changes nothing: the line was written."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body"})
        assert (await receive())["type"] == "http.disconnect"

    server = Server({"type": "http.disconnect"})
    await around(app, log)(scope(path="/late"), server.receive, server.send)
    assert (await log.one("/late")).outcome is Outcome.COMPLETE


async def test_cancelled(log: Lines) -> None:
    """An application that the server cancels is SHUTDOWN."""
    waits = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waits.set()
        await asyncio.Event().wait()

    server = Server()
    call = around(app, log)(scope(path="/cancelled"), server.receive, server.send)
    task = asyncio.create_task(call)
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await log.one("/cancelled")).outcome is Outcome.SHUTDOWN
    assert request_id.get() == "-"


async def test_content_of_every_kind(log: Lines) -> None:
    """What a server takes for bytes is counted in bytes; what it would not take is its affair."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for content in (memoryview(bytes(16)).cast("I"), bytearray(4), 5):
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body"})

    server = Server()
    await around(app, log)(scope(path="/kinds"), server.receive, server.send)
    assert (await log.one("/kinds")).sent == 20


async def test_a_websocket_that_fails_early(log: Lines) -> None:
    """What a server answers then is not known, where we do not know the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError

    server = Server()
    with pytest.raises(KeyError):
        await around(app, log)(scope("websocket", "/early"), server.receive, server.send)
    line = await log.one("/early")
    assert (line.status, line.outcome) == (None, Outcome.HANDLER_ERROR)


async def test_an_exception_after_the_response(log: Lines) -> None:
    """The response was whole: COMPLETE; the exception goes on to the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"x"})
        raise KeyError("background")

    server = Server()
    with pytest.raises(KeyError):
        await around(app, log)(scope(path="/background"), server.receive, server.send)
    assert (await log.one("/background")).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("raises", [True, False])
async def test_a_500_that_is_answered_before_it_is_raised(log: Lines, raises: bool) -> None:
    """Frameworks answer 500 for an exception, then raise it: HANDLER_ERROR; by itself, COMPLETE."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": 500})
        await send({"type": "http.response.body", "body": b"sorry"})
        if raises:
            raise KeyError("why")

    server = Server()
    with contextlib.suppress(KeyError):
        await around(app, log)(scope(path="/sorry"), server.receive, server.send)
    line = await log.one("/sorry")
    assert (line.status, line.sent) == (500, 5)
    assert line.outcome is (Outcome.HANDLER_ERROR if raises else Outcome.COMPLETE)


async def test_a_route(log: Lines) -> None:
    """The route that a framework leaves in the scope is in the line."""

    class Route:
        path = "/items/{id}"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        await send(START)
        await send({"type": "http.response.body", "body": b"x"})

    server = Server()
    await around(app, log)(scope(path="/items/3"), server.receive, server.send)
    assert (await log.one("/items/3")).route == "/items/{id}"


async def test_who_waits_for_a_disconnect_has_the_end_of_the_response(log: Lines) -> None:
    """Servers tell of it as of a client that left, and before their `send` has returned."""
    told, heard = asyncio.Event(), asyncio.Event()

    class Telling(Server):
        async def receive(self) -> Any:
            await told.wait()
            return {"type": "http.disconnect"}

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                told.set()
                await heard.wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            await receive()
            heard.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            await send(START)
            await send({"type": "http.response.body", "body": b"four"})

    server = Telling()
    await around(app, log)(scope(path="/told"), server.receive, server.send)
    line = await log.one("/told")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.COMPLETE)


@pytest.mark.parametrize(
    ("length", "outcome"),
    [(b"4", Outcome.COMPLETE), (b"5", Outcome.PEER_LOST), (None, Outcome.PEER_LOST)],
)
async def test_a_client_that_has_all_may_leave(
    log: Lines, length: bytes | None, outcome: Outcome
) -> None:
    """The header has told it that nothing more comes, before the application said so."""
    fields = [] if length is None else [(b"content-length", length)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"four", "more_body": True})
        await receive()

    server = Server({"type": "http.disconnect"})
    await around(app, log)(scope(path="/left"), server.receive, server.send)
    assert (await log.one("/left")).outcome is outcome


async def test_a_denied_websocket(log: Lines) -> None:
    """A denial response has its status and bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    server = Server({"type": "websocket.connect"})
    await around(app, log)(scope("websocket", "/denied"), server.receive, server.send)
    line = await log.one("/denied")
    assert (line.status, line.sent, line.outcome) == (401, 2, Outcome.COMPLETE)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (1000, Outcome.COMPLETE),
        (1001, Outcome.COMPLETE),
        (1006, Outcome.PEER_LOST),
        (1012, Outcome.SHUTDOWN),
    ],
)
async def test_codes_of_websockets(log: Lines, code: int, outcome: Outcome) -> None:
    """The code of a disconnect says how a WebSocket ended; over HTTP/2 its status is 200."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    server = Server({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": code})
    await around(app, log)(scope("websocket", "/code"), server.receive, server.send)
    line = await log.one("/code")
    assert (line.status, line.scheme, line.outcome) == (200, "https", outcome)


async def test_one_line_however_often_it_is_wrapped(log: Lines, tmp_path: Path) -> None:
    """The outer one writes the line; the inner one leaves it to that, and opens no file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body"})

    other = Lines(tmp_path / "other.log")
    server = Server()
    await around(around(app, other), log)(scope(path="/once"), server.receive, server.send)
    await log.one("/once")
    assert not other.path.exists()


async def test_sessions_by_address(log: Lines) -> None:
    """Where nothing of a connection can be seen, its address and port are its session."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body"})

    middleware = around(app, log)
    server = Server()
    clients = [("192.0.2.1", 1), ("192.0.2.1", 1), ("192.0.2.1", 2), None, None]
    for client in clients:
        await middleware(scope(path="/by", client=client), server.receive, server.send)
    lines = await log.of("/by", 5)
    assert lines[0].session == lines[1].session
    assert len({line.session for line in lines}) == 4


async def test_a_line_when_a_request_arrives(log: Lines) -> None:
    """`immediate` is a line at the start, here too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await log.one("/arrives")).event == "open"
        await send(START)
        await send({"type": "http.response.body"})

    server = Server()
    middleware = around(app, log, immediate=True)
    await middleware(scope(path="/arrives"), server.receive, server.send)
    await log.one("/arrives")


async def test_the_lifespan_is_the_applications(log: Lines) -> None:
    """What an application says of its start and stop goes to the server; then the log is closed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.failed", "message": "why"})
        else:
            await send(START)
            await send({"type": "http.response.body"})

    middleware = around(app, log)
    server = Server({"type": "lifespan.startup"})
    living = asyncio.create_task(middleware({"type": "lifespan"}, server.receive, server.send))
    while not server.sent:
        await asyncio.sleep(0)
    assert log.path.exists()
    one = Server()
    await middleware(scope(path="/lived"), one.receive, one.send)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    await log.one("/lived")


async def test_lines_after_the_end(log: Lines) -> None:
    """A request that ends after the lifespan did has its line all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send(START)
        await send({"type": "http.response.body"})

    middleware = around(app, log)
    server = Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await middleware({"type": "lifespan"}, server.receive, server.send)
    kinds = [message["type"] for message in server.sent]
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    one = Server()
    await middleware(scope(path="/late"), one.receive, one.send)
    await log.one("/late")


PROGRAM = """
import asyncio
from h2log.asgi import AccessLogMiddleware

async def app(scope, receive, send):
    if scope["path"] == "/open":
        opened.set()
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

settings = {"log": {"access": [{"path": "LOG", "format": "h2log-full", "flush_interval": "60s"}]}}
middleware = AccessLogMiddleware(app, settings=settings)
opened = asyncio.Event()

async def ask(path):
    scope = {"type": "http", "path": path, "http_version": "1.1", "method": "GET"}
    async def send(message): pass
    await middleware(scope, None, send)

loop = asyncio.new_event_loop()
loop.run_until_complete(ask("/done"))
task = loop.create_task(ask("/open"))
loop.run_until_complete(opened.wait())
raise SystemExit(3)
"""


def test_a_process_that_just_ends(log: Lines) -> None:
    """Its lines are written, those of open requests as SHUTDOWN, though its loop was left."""
    program = PROGRAM.replace("LOG", str(log.path))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 3
    outcomes = {line.target: line.outcome for line in log.all()}
    assert outcomes == {"/done": Outcome.COMPLETE, "/open": Outcome.SHUTDOWN}


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    """They are refused when the middleware is made."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Never called."""

    with pytest.raises(UsageError, match=r"log\.access"):
        AccessLogMiddleware(app, settings={"log": {"access": [{"nothing": 1}]}})
    with pytest.raises(UsageError, match=r"missing\.toml"):
        AccessLogMiddleware(app, settings=tmp_path / "missing.toml")


async def test_clients_of_a_proxy(log: Lines) -> None:
    """A client that a proxy tells of has no port, and no session with what else is told of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body"})

    middleware = around(app, log)
    server = Server()
    for _ in range(2):
        asked = scope(path="/proxied", client=("203.0.113.1", 0))
        await middleware(asked, server.receive, server.send)
    first, second = await log.of("/proxied", 2)
    assert first.session != second.session
    assert (first.client, first.port) == ("203.0.113.1", None)


TWICE = """
import asyncio, os
from h2log.asgi import AccessLogMiddleware

async def app(scope, receive, send):
    if scope["path"] == "/left-open":
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

settings = {"log": {"access": [{"path": "LOG", "format": "h2log-full", "flush_interval": "60s"}]}}
middleware = AccessLogMiddleware(app, settings=settings)

async def ask(path):
    async def send(message): pass
    scope = {"type": "http", "path": path, "http_version": "1.1", "method": "GET"}
    await middleware(scope, None, send)

asyncio.run(ask("/first"))
loop = asyncio.new_event_loop()
left = loop.create_task(ask("/left-open"))
loop.run_until_complete(ask("/second"))
child = os.fork()
if child == 0:
    asyncio.run(ask("/child"))
else:
    _, status = os.waitpid(child, 0)
    raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_loops_and_forks(log: Lines) -> None:
    """It outlives a loop; a forked process writes what is its own, and nothing a second time."""
    program = TWICE.replace("LOG", str(log.path))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 0
    targets = sorted(line.target for line in log.all() if line.target is not None)
    assert targets == ["/child", "/first", "/left-open", "/second"]
