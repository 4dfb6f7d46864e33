"""What handlers get wrong: a 500 for the client, and for the log what it was and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from io import FileIO
from typing import Any

import pytest

from h2log import App, Request, Response
from h2log.access.record import Outcome
from h2log.app.response import FileContent
from h2log.server.background import ends_task
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import Running, eventually


async def pieces() -> AsyncIterator[bytes]:
    """Yield a little."""
    yield b"ab"
    yield b"cd"


async def coroutine() -> Response:
    """Return what a handler should have awaited."""
    return Response(b"")


def changed(**values: object) -> Response:
    """Return a response of which something was changed to what it could not have been made with."""
    response = Response(b"abc")
    for name, value in values.items():
        setattr(response, name, value)
    return response


def sized(value: str, body: Any = b"abc") -> Response:
    """Return a response with a length of its own."""
    return Response(body, 200, {"content-length": value})


RETURNED: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "returned NoneType, expected Response; is a return missing?"),
    "str": (lambda: "a", "returned str, expected Response; make one with Response(...)"),
    "bytes": (lambda: b"a", "returned bytes, expected Response; make one with"),
    "dict": (lambda: {"a": 1}, "returned dict, expected Response; make one with Response.json"),
    "list": (lambda: [1], "returned list, expected Response; make one with Response.json(...)"),
    "tuple": (lambda: ("a", 200), "returned tuple, expected Response; see Response"),
    "the class": (lambda: Response, "returned type, expected Response; see Response"),
    "status": (lambda: changed(status=99), "the response's status became 99"),
    "status text": (lambda: changed(status="200"), "the response's status became '200'"),
    "body": (lambda: changed(body=None), "the response's body became NoneType, expected bytes"),
    "body text": (lambda: changed(body="a"), "the response's body became str, expected bytes"),
    "headers": (lambda: changed(headers=None), "headers are pairs of texts, or a mapping"),
    "header type": (lambda: changed(headers=[("a", 1)]), "a header is a name and a value that"),
    "header name": (lambda: changed(headers=[("a b", "1")]), "invalid header name 'a b'"),
    "header line": (lambda: changed(headers=[("a", "1\n2")]), "invalid value of header a"),
    "trailers": (lambda: changed(trailers=7), "headers are pairs of texts, or a mapping, got 7"),
    "length": (lambda: sized("7"), "3 bytes of content, not its content-length of 7"),
    "no length": (lambda: sized("-3"), "invalid content-length '-3'"),
    "no number": (lambda: sized("three"), "invalid content-length 'three'"),
    "other digits": (lambda: sized("\xb3"), "invalid content-length '\xb3'"),
    "two lengths": (
        lambda: Response(b"abc", 200, [("content-length", "3"), ("Content-Length", "4")]),
        "several values of content-length: 3, 4",
    ),
    "a stream's length": (lambda: sized("x", pieces()), "invalid content-length 'x'"),
    "a file's length": (
        lambda: sized("7", FileContent(FileIO(__file__), 0, 10)),
        "10 bytes of content, not its content-length of 7",
    ),
}


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("wrong", RETURNED)
async def test_what_cannot_be_sent_is_500(
    certs: Certificates, wrong: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On both protocols, from plain and async handlers; logged under the request's ids."""
    make, said = RETURNED[wrong]
    app = App()

    @app.get("/plain")
    def plain(request: Request) -> Any:
        return make()

    @app.get("/async")
    async def later(request: Request) -> Any:
        return make()

    @app.get("/ok")
    def fine(request: Request) -> Response:
        return Response.text("ok")

    async with (
        Running(app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get(f"/{kind}")
        answer = await one.get(f"/{kind}")
        for status, body in ((reply.status, bytes(reply.body)), (answer.status, answer.body)):
            assert status == 500
            assert body.startswith(b"500 Internal Server Error\n")
            assert b"Response" not in body
        assert (await two.get("/ok")).status == 200
        assert (await one.get("/ok")).status == 200
    assert server.outcomes == {"HANDLER_ERROR": 2, "COMPLETE": 2}
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    for error, record in zip(errors, server.records, strict=False):
        assert vars(error)["request_id"] == record.id
        assert error.exc_info is not None
        assert isinstance(error.exc_info[1], TypeError | ValueError)
        assert said in str(error.exc_info[1])


async def test_a_handler_that_forgot_to_await_is_told(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """With the remedy, its route, and no warning of a coroutine that was never awaited."""
    app = App()

    @app.get("/users/{id:int}")
    async def handler(request: Request) -> Any:
        return coroutine()

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        assert (await two.get("/users/7")).status == 500
    [error] = [record for record in caplog.records if record.exc_info]
    assert error.exc_info is not None
    assert str(error.exc_info[1]) == (
        "the handler of GET /users/{id:int} returned coroutine, expected Response; "
        "is an await missing?"
    )


async def test_names_that_were_added_in_capitals_are_sent_in_small_letters(
    certs: Certificates,
) -> None:
    """A list is a list: what a handler or middleware appends to it is still a good field."""
    app = App()

    @app.get("/")
    def handler(request: Request) -> Response:
        response = Response.text("a")
        response.headers.append(("X-Added", "1"))
        response.headers.append(("Content-Length", "1"))
        response.headers.append(("X-Request-ID", "forged"))
        return response

    async with (
        Running(app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get("/")
        assert (reply.headers["x-added"], reply.headers["content-length"]) == ("1", "1")
        assert reply.headers["x-request-id"] != "forged"
        answer = await one.get("/")
        assert (answer.headers["x-added"], answer.headers["content-length"]) == ("1", "1")


STREAMED: dict[str, tuple[list[Any], str | None, str]] = {
    "text": (["a"], None, "the response's iterator gave str, expected bytes"),
    "none": ([b"a", None], None, "the response's iterator gave NoneType, expected bytes"),
    "too much": ([b"abc", b"d"], "3", "more content than its content-length of 3"),
    "too little": ([b"a"], "3", "1 bytes of content, less than its content-length of 3"),
}


@pytest.mark.parametrize("wrong", STREAMED)
async def test_a_stream_that_goes_wrong_is_visibly_incomplete(
    certs: Certificates, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its header has gone: the stream is reset, the connection of HTTP/1.1 cut; it is closed."""
    given, length, said = STREAMED[wrong]
    closed = []
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Response:
        async def body() -> AsyncIterator[Any]:
            try:
                for piece in given:
                    yield piece
            finally:
                closed.append(True)

        return Response(body(), 200, {} if length is None else {"content-length": length})

    async with (
        Running(app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get("/")
        assert (reply.status, reply.ended, reply.reset) == (200, False, 2)
        one.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\r\n0\r\n" not in await one.rest()
        assert closed == [True, True]
    assert server.outcomes == {"HANDLER_ERROR": 2}
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [said] * 2


class Source:
    """A body that is no generator, and wants to be closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        return bytes(1000)

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_body_is_closed_once_nobody_reads_it(certs: Certificates) -> None:
    """Also one that was never begun, for HEAD or 304, and that of a client that has gone."""
    made: list[Source] = []
    app = App()

    @app.get("/{status:int}")
    async def handler(request: Request) -> Response:
        made.append(Source())
        return Response(made[-1], request.params["status"])

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        await two.request("HEAD", "/200")
        await two.get("/304")
        stream = two.send("GET", "/200")
        await two.until(lambda: two.replies[stream].body)
        two.reset(stream)
        await server.logged(3)
        await eventually(lambda: not server.shared.dispatcher.tasks)
    assert [source.closed for source in made] == [1, 1, 1]


# What is no Exception


class Panic(BaseException):
    """As extensions in Rust raise it (pyo3's PanicException)."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("in the extension"),
    "generator exit": GeneratorExit,
    "exit": lambda: SystemExit(3),
    "cancelled": asyncio.CancelledError,
    "group": lambda: BaseExceptionGroup("several", [Panic(), LookupError()]),
}
BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


@BOTH_LOOPS
@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("kind", ["plain", "async", "trailers", "async-trailers"])
async def test_what_is_no_exception_is_500_too(
    certs: Certificates, kind: str, raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a handler raises ends its request, and no other of its connection."""
    app = App()
    waiting = asyncio.Event()

    def fails() -> Any:
        raise RAISED[raised]()

    @app.get("/plain")
    def plain(request: Request) -> Response:
        return Response(fails())

    @app.get("/async")
    async def later(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(fails())

    @app.get("/trailers")
    def trailers(request: Request) -> Response:
        return Response(b"a", trailers=fails)

    @app.get("/async-trailers")
    async def async_trailers(request: Request) -> Response:
        return Response(b"a", trailers=fails)

    @app.get("/sibling")
    async def sibling(request: Request) -> Response:
        await waiting.wait()
        return Response.text("alive")

    async with (
        Running(app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        other = two.send("GET", "/sibling")
        assert (await two.get(f"/{kind}")).status == 500
        answer = await one.get(f"/{kind}")
        assert (answer.status, answer.body[:4]) == (500, b"500 ")
        waiting.set()
        assert bytes((await two.reply(other)).body) == b"alive"
        assert bytes((await one.get("/sibling")).body) == b"alive"
    assert server.outcomes == {"HANDLER_ERROR": 2, "COMPLETE": 2}
    errors = [record for record in caplog.records if record.exc_info]
    assert [type(record.exc_info[1]) for record in errors if record.exc_info] == [
        type(RAISED[raised]())
    ] * 2


@BOTH_LOOPS
@pytest.mark.parametrize("raised", RAISED)
async def test_what_is_no_exception_ends_a_stream_visibly(
    certs: Certificates, raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After the first piece: reset, or the connection of HTTP/1.1 cut, and told."""
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            raise RAISED[raised]()

        return Response(body())

    async with (
        Running(app, certs) as server,
        H2Client.connect(server) as two,
        Http1Client.connect(server) as one,
    ):
        reply = await two.get("/")
        assert (reply.status, reply.ended, reply.reset) == (200, False, 2)
        one.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\r\n0\r\n" not in await one.rest()
    assert server.outcomes == {"HANDLER_ERROR": 2}
    assert len([record for record in caplog.records if record.exc_info]) == 2


@BOTH_LOOPS
async def test_a_client_that_goes_still_cancels_its_handler(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The cancellation comes through: it is no fault of the handler's, and nothing is logged."""
    app = App()
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @app.get("/")
    async def handler(request: Request) -> Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("GET", "/")
        await entered.wait()
        two.reset(stream)
        await cancelled.wait()
    assert server.outcomes == {"CLIENT_RESET": 1}
    assert not caplog.records


async def test_what_is_closed_ends() -> None:
    """The GeneratorExit of who closes a task is its end: to answer would be to go on."""

    async def waits() -> None:
        task = asyncio.current_task()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            told.append(ends_task(error, task))
            raise

    told: list[bool] = []
    loop = asyncio.get_running_loop()
    coroutine = waits()
    task = loop.create_task(coroutine)
    await asyncio.sleep(0)
    coroutine.close()
    assert told == [True]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await task


# What an error handler of the application has answered


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize(
    ("status", "outcome"), [(500, Outcome.HANDLER_ERROR), (503, Outcome.HANDLER_ERROR)]
)
async def test_an_answered_exception_is_logged_all_the_same(
    certs: Certificates,
    kind: str,
    status: int,
    outcome: Outcome,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client has the error handler's page, the log the traceback, the line HANDLER_ERROR."""
    app = App()

    @app.get("/plain")
    def plain(request: Request) -> Response:
        raise LookupError("why")

    @app.get("/async")
    async def later(request: Request) -> Response:
        raise LookupError("why")

    @app.error(LookupError)
    def sorry(request: Request, error: Exception) -> Response:
        return Response.html("<p>sorry", status)

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        reply = await two.get(f"/{kind}")
        assert (reply.status, bytes(reply.body)) == (status, b"<p>sorry")
    [record] = server.records
    assert (record.status, record.outcome) == (status, outcome)
    [error] = [record for record in caplog.records if record.exc_info]
    assert vars(error)["request_id"] == record.id
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], LookupError)
    assert error.getMessage() == f"an error handler answered GET /{kind}"


async def test_a_failure_without_an_error_is_no_error_of_the_handler(
    certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """What an application says failed is logged; below 500 the request is COMPLETE."""
    app = App()

    @app.get("/")
    def handler(request: Request) -> Response:
        request.failure = LookupError("why")
        return Response(b"", 404)

    async with Running(app, certs) as server, H2Client.connect(server) as two:
        assert (await two.get("/")).status == 404
    assert server.outcomes == {"COMPLETE": 1}
    assert len([record for record in caplog.records if record.exc_info]) == 1


# What the record takes over


@pytest.mark.parametrize("way", ["answered", "reset", "abort", "http1"])
async def test_the_record_knows_the_user_and_the_route(certs: Certificates, way: str) -> None:
    """Also of a request that its client gave up while it was being answered."""
    app = App()
    entered = asyncio.Event()

    @app.get("/users/{id:int}")
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0)
        request.user = "ada"
        entered.set()
        if way != "answered":
            await asyncio.Event().wait()
        return Response(b"")

    async with Running(app, certs) as server:
        if way == "http1":
            async with Http1Client.connect(server) as one:
                one.send(b"GET /users/7 HTTP/1.1\r\nHost: x\r\n\r\n")
                await entered.wait()
                one.writer.transport.abort()
                await server.logged(1)
        else:
            async with H2Client.connect(server) as two:
                stream = two.send("GET", "/users/7")
                await entered.wait()
                if way == "reset":
                    two.reset(stream)
                elif way == "abort":
                    two.abort()
                else:
                    await two.reply(stream)
                await server.logged(1)
    [record] = server.records
    assert record.detail is not None
    assert (record.detail.user, record.detail.route) == ("ada", "/users/{id:int}")
