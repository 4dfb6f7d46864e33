"""Work after the response: when it runs, what is logged of it, and that a stop waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from h2log import App, HTTPError, Request, Response
from h2log.ids import request_id, session_id
from h2log.logfile.applog import IdFilter
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import DATA, WINDOW_UPDATE, Http1Client, RawClient
from tests.support import Running, eventually

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
RAISING = ("fails", "cancels", "quits", "panics", "exits")


class Heard(logging.Handler):
    """Keeps what the application's log says, with the ids that stand beside it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(IdFilter())
        self.heard: list[tuple[str, str, str, BaseException | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        ids = str(vars(record)["session_id"]), str(vars(record)["request_id"])
        error = record.exc_info[1] if record.exc_info else None
        self.heard.append((record.getMessage(), *ids, error))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A handler on the log that failures of handlers go to."""
    handler = Heard()
    logging.getLogger("h2log.app").addHandler(handler)
    yield handler
    logging.getLogger("h2log.app").removeHandler(handler)


class Works:
    """An application that leaves work behind in every way that it can."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        self.done: list[tuple[str, str, str]] = []
        self.lines: Callable[[], int] = lambda: -1
        self.lines_at_work: list[int] = []
        self.app = App()
        for name in ("plain", "later", "stream", "large", "several", "endless", "broken"):
            self.app.get(f"/{name}")(getattr(self, name))
        self.app.get("/ok")(lambda request: Response.text("ok"))

    async def work(self, what: str = "work") -> None:
        self.begun.append(what)
        self.lines_at_work.append(self.lines())
        await self.gate.wait()
        self.done.append((what, session_id.get(), request_id.get()))

    def plain(self, request: Request) -> Response:
        return Response(b"plain", background=self.work)

    async def later(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(b"later", background=self.work)

    def stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"stream"

        return Response.stream(pieces()).after(self.work)

    def large(self, request: Request) -> Response:
        return Response(bytes(500_000), background=self.work)

    async def endless(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield bytes(10_000)

        return Response.stream(pieces()).after(self.work)

    async def broken(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            raise LookupError("in the middle")

        return Response.stream(pieces()).after(self.work)

    async def several(self, request: Request) -> Response:
        async def fails() -> None:
            self.begun.append("fails")
            raise LookupError("why")

        async def cancels() -> None:
            self.begun.append("cancels")
            raise asyncio.CancelledError

        def quits() -> None:
            self.begun.append("quits")
            raise SystemExit(3)

        def panics() -> None:
            self.begun.append("panics")
            raise BaseExceptionGroup("several", [SystemExit(3)])

        async def exits() -> None:
            self.begun.append("exits")
            raise GeneratorExit

        response = Response(b"several", background=[fails, cancels, quits, panics, exits])
        return response.after(self.begun.append, "plain").after(self.work, what="last")


@BOTH_LOOPS
@pytest.mark.parametrize("name", ["plain", "later", "stream"])
async def test_work_follows_the_response(certs: Certificates, name: str) -> None:
    """It begins when the line is written, goes on behind it, and knows the ids of its request."""
    works = Works()
    async with (
        Running(works.app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        works.lines = lambda: len(server.records)
        assert (await two.get(f"/{name}")).body == name.encode()
        await eventually(lambda: len(works.begun) == 1)
        assert (await one.get(f"/{name}")).body == name.encode()
        await eventually(lambda: len(works.begun) == 2)
        assert works.lines_at_work == [1, 2]
        assert works.done == []
        assert (await two.get("/ok")).status == 200
        assert (await one.get("/ok")).status == 200
        works.gate.set()
        await eventually(lambda: len(works.done) == 2)
        await eventually(lambda: not server.shared.dispatcher.background.tasks)
    ids = {(record.session.id, record.id) for record in server.records[:2]}
    assert {(session, request) for _, session, request in works.done} == ids
    assert server.outcomes == {"COMPLETE": 4}


async def test_work_waits_until_the_response_was_taken(certs: Certificates) -> None:
    """As long as some of it waits for the client's window, it has not been handed over."""
    works = Works()
    async with Running(works.app, certs) as server, RawClient.connect(server) as client:
        client.send(WINDOW_UPDATE, 0, 0, (10**6).to_bytes(4, "big"))
        client.get(1, b"/large")
        got = 0
        while got < 65_535:
            got += len((await client.expect(DATA, 1)).payload)
        client.get(3, b"/ok")
        await server.logged(1)
        assert works.begun == []
        client.send(WINDOW_UPDATE, 0, 1, (10**6).to_bytes(4, "big"))
        await eventually(lambda: works.begun)
        works.gate.set()
        await eventually(lambda: works.done)


@BOTH_LOOPS
@pytest.mark.parametrize("way", ["reset", "abort", "http1"])
async def test_work_outlives_its_client(certs: Certificates, way: str) -> None:
    """A client that goes, before or during it, cancels the response and never the work."""
    works = Works()
    async with Running(works.app, certs) as server:
        if way == "http1":
            async with Http1Client.connect(server) as one:
                one.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
                await one.reader.read(1000)
                one.writer.transport.abort()
        else:
            async with H2Client.connect(server) as two:
                stream = two.send("GET", "/endless")
                await two.until(lambda: two.replies[stream].body)
                assert works.begun == []
                if way == "reset":
                    two.reset(stream)
                    await server.logged(1)
                else:
                    two.abort()
        await eventually(lambda: works.begun)
        await eventually(lambda: not server.shared.legs and not server.shared.dispatcher.tasks)
        assert works.done == []
        works.gate.set()
        await eventually(lambda: works.done)
    assert server.outcomes == {"CLIENT_RESET" if way == "reset" else "PEER_LOST": 1}
    assert works.done[0][2] == server.records[0].id


async def test_a_response_that_fails_still_leaves_its_work(certs: Certificates) -> None:
    """The handler has returned it: what it left to do is done."""
    works = Works()
    works.gate.set()
    async with Running(works.app, certs) as server, H2Client.connect(server) as two:
        assert (await two.get("/broken")).reset == 2
        await eventually(lambda: works.done)
    assert server.outcomes == {"HANDLER_ERROR": 1}


async def test_a_handler_that_fails_leaves_none(certs: Certificates) -> None:
    """Without a response there is nothing behind it."""
    works = Works()

    @works.app.get("/fails")
    async def fails(request: Request) -> Response:
        Response(b"", background=works.work)
        raise HTTPError(409)

    async with Running(works.app, certs) as server, H2Client.connect(server) as two:
        assert (await two.get("/fails")).status == 409
        assert (await two.get("/ok")).status == 200
        assert not server.shared.dispatcher.background.tasks
    assert works.begun == []


async def test_work_that_fails_is_logged(certs: Certificates, heard: Heard) -> None:
    """Under its request's ids and its name, with its traceback; what comes next is done."""
    works = Works()
    works.gate.set()
    async with Running(works.app, certs) as server, H2Client.connect(server) as two:
        assert (await two.get("/several")).status == 200
        await eventually(lambda: works.done)
        assert (await two.get("/ok")).status == 200
    assert works.begun == [*RAISING, "plain", "last"]
    [record] = [record for record in server.records if record.facts.path == "/several"]
    assert record.outcome is not None
    assert record.outcome.value == "COMPLETE"
    assert [(session, request) for _, session, request, _ in heard.heard] == [
        (record.session.id, record.id)
    ] * len(RAISING)
    names = [type(error).__name__ for *_, error in heard.heard]
    assert names == [
        "LookupError", "CancelledError", "SystemExit", "BaseExceptionGroup", "GeneratorExit",
    ]  # fmt: skip
    for name, (text, *_) in zip(RAISING, heard.heard, strict=True):
        assert text == (f"background work Works.several.<locals>.{name} of GET /several failed")


@BOTH_LOOPS
async def test_a_stop_waits_for_work(certs: Certificates, heard: Heard) -> None:
    """For as long as it would for requests; it ends as soon as the work does."""
    works = Works()
    async with Running(works.app, certs) as server:
        async with H2Client.connect(server) as two:
            assert (await two.get("/plain")).status == 200
            await eventually(lambda: works.begun)
        stopping = asyncio.create_task(server.server.stop(30))
        await eventually(lambda: server.shared.draining and not server.shared.legs)
        assert not stopping.done()
        works.gate.set()
        await asyncio.wait_for(stopping, 10)
        assert len(works.done) == 1
    assert heard.heard == []


@BOTH_LOOPS
async def test_a_stop_does_not_wait_forever(certs: Certificates, heard: Heard) -> None:
    """After `drain_timeout` what is not done is cancelled, and the log says what that was."""
    works = Works()
    async with Running(works.app, certs) as server:
        async with H2Client.connect(server) as two:
            assert (await two.get("/several")).status == 200
            await eventually(lambda: "last" in works.begun)
        heard.heard.clear()
        began = time.monotonic()
        await server.server.stop(0.1)
        assert time.monotonic() - began < 10
        assert works.done == []
    [record] = server.records
    assert heard.heard == [
        (
            "background work Works.work of GET /several was not finished: the server stops",
            record.session.id,
            record.id,
            None,
        )
    ]


async def test_work_of_requests_that_the_stop_cuts(certs: Certificates, heard: Heard) -> None:
    """A response that is cut when the time is up leaves its work to be told of, not done."""
    works = Works()
    async with Running(works.app, certs, patience=0.1) as server:
        async with H2Client.connect(server, credit=False) as two:
            stream = two.send("GET", "/endless")
            await two.until(lambda: two.replies[stream].body)
            await server.server.stop(0.1)
        await eventually(lambda: not server.shared.dispatcher.background.tasks)
    assert works.done == []
    assert server.outcomes == {"SHUTDOWN": 1}
    assert [text for text, *_ in heard.heard] == [
        "background work Works.work of GET /endless was not finished: the server stops"
    ]


async def test_work_that_comes_too_late(certs: Certificates, heard: Heard) -> None:
    """Of a handler that the stop did not wait for any more: it is told of, and not begun."""
    works = Works()
    entered = asyncio.Event()

    @works.app.get("/stubborn")
    async def stubborn(request: Request) -> Response:
        entered.set()
        while not works.gate.is_set():  # whatever tells it to stop
            try:
                await works.gate.wait()
            except asyncio.CancelledError:
                continue
        return Response(b"", background=works.work)

    async with Running(works.app, certs, patience=0.1) as server:
        async with H2Client.connect(server) as two:
            two.send("GET", "/stubborn")
            await entered.wait()
            await server.server.stop(0.1)
        works.gate.set()
        await eventually(lambda: not server.shared.dispatcher.tasks)
    assert works.begun == []
    assert server.outcomes == {"SHUTDOWN": 1}
    assert [text for text, *_ in heard.heard] == [
        "background work Works.work of GET /stubborn was not finished: the server stops"
    ]
