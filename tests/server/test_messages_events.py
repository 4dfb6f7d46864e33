"""Server-sent events over real connections: at once, kept alive, and over when nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from h2log import App, Request, Response
from h2log.app.events import Event
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client, Reply
from tests.server.wire import DATA, END_STREAM, Http1Client, RawClient
from tests.support import PATIENCE, Running, client_context, eventually, run, tool

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


class Ticker:
    """Events that come when a test says so, and a count of who still listens."""

    def __init__(self, keep_alive: float | None = 15.0) -> None:
        self.queue: asyncio.Queue[Event | str | None] = asyncio.Queue()
        self.listening = 0
        self.closed = 0
        self.asked: list[str] = []
        self._keep_alive = keep_alive
        self.app = App()
        self.app.get("/ticks")(self.ticks)
        self.app.get("/flood")(self.flood)
        self.app.get("/wrong")(self.wrong)

    async def ticks(self, request: Request) -> Response:
        self.asked.append(request.last_event_id)

        async def events() -> AsyncIterator[Event | str]:
            self.listening += 1
            try:
                while (event := await self.queue.get()) is not None:
                    yield event
            finally:
                self.listening -= 1
                self.closed += 1

        return Response.events(events(), self._keep_alive)

    async def flood(self, request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            self.listening += 1
            try:
                while True:
                    yield "x" * 10_000
            finally:
                self.closed += 1

        return Response.events(events(), self._keep_alive)

    async def wrong(self, request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "a"
            yield 7  # type: ignore[misc]  # that is what is wrong

        return Response.events(events())


async def more(client: H2Client, reply: Reply) -> None:
    """Read until more content has come."""
    before = len(reply.body)
    await client.until(lambda: len(reply.body) > before)


@BOTH_LOOPS
async def test_events_arrive_one_by_one(certs: Certificates) -> None:
    """The header before the first event, and each event before the next one exists."""
    ticker = Ticker()
    async with (
        Running(ticker.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        stream = two.send("GET", "/ticks", [("last-event-id", "41")])
        reply = two.replies[stream]
        await two.until(lambda: reply.status)
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["cache-control"] == "no-store"
        assert not reply.body
        events: list[Event | str] = ["a", Event("b\nc", "kind", "42", 1000), Event(comment="d")]
        for event in events:
            ticker.queue.put_nowait(event)
            await more(two, reply)
        ticker.queue.put_nowait(None)
        await two.reply(stream)
        assert reply.body == (
            b"data: a\n\nid: 42\nevent: kind\nretry: 1000\ndata: b\ndata: c\n\n: d\n\n"
        )
        one.send(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        await one.reader.readuntil(b"\r\n\r\n")
        for text in ("a", "b"):
            ticker.queue.put_nowait(text)
            assert f"data: {text}".encode() in await one.reader.readuntil(b"\n\n")
        ticker.queue.put_nowait(None)
        assert await one.reader.readuntil(b"0\r\n\r\n")
    assert ticker.asked == ["41", ""]
    assert (ticker.listening, ticker.closed) == (0, 2)
    assert server.outcomes == {"COMPLETE": 2}


@BOTH_LOOPS
async def test_silence_is_filled_with_comments(certs: Certificates) -> None:
    """One each `keep_alive` seconds without an event, over both protocols, until it ends."""
    ticker = Ticker(keep_alive=0.05)
    async with (
        Running(ticker.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        stream = two.send("GET", "/ticks")
        reply = two.replies[stream]
        await two.until(lambda: reply.body == b":\n\n" * 3)
        ticker.queue.put_nowait("a")
        await two.until(lambda: b"data: a\n\n:\n\n:\n\n" in reply.body)
        ticker.queue.put_nowait(None)
        await two.reply(stream)
        one.send(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        await one.reader.readuntil(b"3\r\n:\n\n\r\n3\r\n:\n\n\r\n")
        ticker.queue.put_nowait(None)
        await one.reader.readuntil(b"0\r\n\r\n")
        head = await two.request("HEAD", "/ticks")
        assert (head.status, bytes(head.body)) == (200, b"")
    assert server.outcomes == {"COMPLETE": 3}


@pytest.mark.parametrize("keep_alive", [None, 3600.0])
async def test_silence_may_be_long(certs: Certificates, keep_alive: float | None) -> None:
    """Without keep-alive, or before its time, nothing but events is sent."""
    ticker = Ticker(keep_alive)
    async with Running(ticker.app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("GET", "/ticks")
        await two.until(lambda: two.replies[stream].status)
        await two.request("HEAD", "/ticks")
        ticker.queue.put_nowait("a")
        ticker.queue.put_nowait(None)
        assert (await two.reply(stream)).body == b"data: a\n\n"


@BOTH_LOOPS
@pytest.mark.parametrize("way", ["reset", "abort", "http1"])
async def test_a_listener_that_goes_ends_its_source(certs: Certificates, way: str) -> None:
    """At its next await, whether it left politely or not; the line says which."""
    ticker = Ticker(keep_alive=0.01)
    async with Running(ticker.app, certs) as server:
        if way == "http1":
            async with Http1Client.connect(server) as one:
                one.send(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
                await one.reader.readuntil(b":\n\n")
                one.writer.transport.abort()
        else:
            async with H2Client.connect(server) as two:
                stream = two.send("GET", "/ticks")
                await two.until(lambda: two.replies[stream].body)
                assert ticker.listening == 1
                if way == "reset":
                    two.reset(stream)
                    await eventually(lambda: ticker.closed == 1)
                else:
                    two.abort()
        await eventually(lambda: ticker.closed == 1)
        await server.logged(1)
        await eventually(lambda: not server.shared.dispatcher.tasks)
    assert ticker.listening == 0
    assert server.outcomes == {"CLIENT_RESET" if way == "reset" else "PEER_LOST": 1}


async def test_a_listener_that_does_not_read_holds_its_source(certs: Certificates) -> None:
    """Events wait for it, no comments pile up, and after `stall_timeout` it is gone."""
    ticker = Ticker(keep_alive=0.001)
    async with (
        Running(ticker.app, certs, stall_timeout=1.0) as server,
        H2Client.connect(server, credit=False) as two,
    ):
        stream = two.send("GET", "/flood")
        await two.until(lambda: len(two.replies[stream].body) == 65_535)
        [open_stream] = (await server.leg())._conn.streams.values()
        assert open_stream.queued <= 64 * 1024 + 10_010
        with contextlib.suppress(ConnectionResetError):
            await two.reply(stream)
        await eventually(lambda: ticker.closed == 1)
        assert b"\n:\n" not in bytes(two.replies[stream].body)
    assert server.outcomes == {"TIMEOUT": 1}


async def test_what_is_no_event_ends_the_stream(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Visibly: it is reset, and the log names what was given."""
    async with Running(Ticker().app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get("/wrong")
        assert (reply.status, bytes(reply.body), reply.reset) == (200, b"data: a\n\n", 2)
    assert server.outcomes == {"HANDLER_ERROR": 1}
    [error] = [record for record in caplog.records if record.exc_info]
    assert error.exc_info is not None
    assert str(error.exc_info[1]) == "the response's events gave int, expected Event or str"


async def test_many_listeners_on_one_connection(certs: Certificates) -> None:
    """Each has its stream and its events, one that does not read among them."""
    app = App()
    gate = asyncio.Event()

    @app.get("/count/{n}")
    async def count(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            for text in ("a", "b", "c"):
                yield f"{text}{request.params['n']}"
            await gate.wait()
            yield "end"

        return Response.events(events())

    @app.get("/flood")
    async def flood(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            while True:
                yield "x" * 10_000

        return Response.events(events())

    async with Running(app, certs) as server, H2Client.connect(server, credit=False) as two:
        full = two.send("GET", "/flood")
        two.conn.increment_flow_control_window(100_000)
        await two.until(lambda: len(two.replies[full].body) == 65_535)
        streams = [two.send("GET", f"/count/{n}") for n in range(50)]
        await two.until(lambda: all(two.replies[s].body.count(b"\n\n") == 3 for s in streams))
        gate.set()
        for n, stream in enumerate(streams):
            wanted = f"data: a{n}\n\ndata: b{n}\n\ndata: c{n}\n\ndata: end\n\n"
            assert (await two.reply(stream)).body == wanted.encode()
        two.reset(full)
        await server.logged(51)
    assert server.outcomes == {"COMPLETE": 50, "CLIENT_RESET": 1}


async def test_real_clients_listen(certs: Certificates) -> None:
    """httpx over both protocols and curl see each event as it is sent."""
    ticker = Ticker()
    async with Running(ticker.app, certs) as server:
        for two in (True, False):
            async with (
                httpx.AsyncClient(http2=two, verify=client_context(certs)) as client,
                client.stream("GET", f"{server.url}/ticks") as response,
            ):
                lines = response.aiter_lines()
                for text in ("a", "b"):
                    ticker.queue.put_nowait(Event(text, id=text))
                    assert [await anext(lines) for _ in range(3)] == [
                        f"id: {text}",
                        f"data: {text}",
                        "",
                    ]
                ticker.queue.put_nowait(None)
        for item in ("a", "b", None):
            ticker.queue.put_nowait(item)
        done = await run("curl", "-sSN", "--cacert", str(certs.ca), f"{server.url}/ticks")
        assert done.text == "data: a\n\ndata: b\n\n"
        ticker.queue.put_nowait("c")
        ticker.queue.put_nowait(None)
        assert (await run("nghttp", f"{server.url}/ticks")).text == "data: c\n\n"
    assert server.outcomes == {"COMPLETE": 4}


EVENT_SOURCE = """
const source = new EventSource("/ticks");
const seen = [];
source.onmessage = (event) => { seen.push(`${event.lastEventId}:${event.data}`); tell(); };
source.addEventListener("kind", (event) => { seen.push(`kind:${event.data}`); tell(); });
function tell() { if (seen.length === 3) fetch("/seen", {method: "POST", body: seen.join("|")}); }
"""


async def test_a_browser_listens(
    certs: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Chromium's EventSource reads data, type and id, and says where it was when it comes again."""
    chromium = tool("chromium")
    ticker = Ticker(keep_alive=0.05)
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @ticker.app.get("/page")
    def page(request: Request) -> Response:
        return Response.html(f"<!doctype html><script>{EVENT_SOURCE}</script>")

    @ticker.app.post("/seen")
    async def told(request: Request) -> Response:
        seen.set_result((await request.body()).decode())
        return Response(b"", 204)

    for event in (Event("a\nb", id="é7", retry=10), None, Event("c", "kind"), "d"):
        ticker.queue.put_nowait(event)
    profile = tmp_path_factory.mktemp("chromium")
    async with Running(ticker.app, certs) as server:
        browser = await asyncio.create_subprocess_exec(
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
            "--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-port=0",
            f"{server.url}/page",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                told_text = await seen
        finally:
            browser.kill()
            await browser.wait()
        await eventually(lambda: not server.shared.legs)
    assert told_text == "é7:a\nb|kind:c|é7:d"
    assert ticker.asked == ["", "é7"]
    assert ticker.listening == 0


async def test_a_stop_ends_streams_of_events(certs: Certificates) -> None:
    """They have no end of their own: the stream is complete, and its client connects anew."""
    app = App()
    ended: list[str] = []

    @app.get("/ticks")
    async def ticks(request: Request) -> Response:
        async def made() -> AsyncIterator[Event]:
            try:
                yield Event("first")
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

        return Response.events(made())

    async with Running(app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/ticks")
        assert b"first" in (await client.expect(DATA, 1)).payload
        stopping = asyncio.create_task(server.server.stop(PATIENCE * 100))
        assert (await client.expect(DATA, 1, END_STREAM)).payload == b""
        await stopping
    assert ended == ["ended"]
    assert server.outcomes == {"COMPLETE": 1}
