"""Error handlers: which one answers, and what goes on outwards."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from h2log.app.application import App
from h2log.app.middleware import CallNext, Continued, ErrorHandler
from h2log.app.patterns import RouteError
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import H2logError, HTTPError
from tests.unit.app.application_asking import ask, request


class MissingError(HTTPError):
    """An application's own error."""

    def __init__(self) -> None:
        super().__init__(404, "no such thing")


class TakenError(LookupError):
    """And one that is no HTTPError."""


def raising(error: BaseException) -> App:
    """Return an application that raises on `/plain` and `/async`, and answers `/ok`."""
    app = App()

    @app.get("/plain")
    def plain(request: Request) -> Response:
        raise error

    @app.get("/async")
    async def later(request: Request) -> Response:
        raise error

    app.get("/ok")(lambda request: Response.text("ok"))
    return app


def handler(mark: str, status: int = 400, *, plain: bool = False) -> ErrorHandler:
    """Return an error handler that answers with its mark and the error."""

    def answer(request: Request, error: Exception) -> Response:
        return Response.text(f"{mark}: {type(error).__name__}", status)

    async def later(request: Request, error: Exception) -> Response:
        return answer(request, error)

    return answer if plain else later


async def answered(app: App, target: str) -> Response:
    """Return the answer; whatever comes through is raised."""
    answer = app.answer(request(target), 0.0)
    return answer if isinstance(answer, Response) else await answer


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("error", "kinds", "chosen"),
    [
        (HTTPError(404), [404], 404),
        (HTTPError(404), [405, HTTPError], HTTPError),
        (HTTPError(404), [404, HTTPError], 404),
        (HTTPError(404), [404, HTTPError, H2logError, Exception], 404),
        (HTTPError(404), [Exception, H2logError], H2logError),
        (MissingError(), [404], 404),
        (MissingError(), [404, MissingError, HTTPError], MissingError),
        (MissingError(), [404, HTTPError], 404),
        (TakenError(), [LookupError, Exception], LookupError),
        (TakenError(), [LookupError, TakenError, Exception, 500], TakenError),
        (TakenError(), [Exception, 500], Exception),
        (TakenError(), [500], 500),
        (HTTPError(500), [500, Exception], 500),
        (HTTPError(500), [Exception], Exception),
    ],
)
async def test_the_most_specific_handler_answers(
    error: Exception, kinds: list[Any], chosen: Any, plain: bool
) -> None:
    """The exact class, or the status, or the nearest base; handlers plain and `async`."""
    app = raising(error)
    for kind in kinds:
        app.error(kind)(handler(str(kind), plain=plain))
    for target in ("/plain", "/async"):
        told = await ask(app, target)
        assert told[:2] == (400, f"{chosen}: {type(error).__name__}".encode())
    assert (await ask(app, "/ok")).body == b"ok"


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (HTTPError(404), [405, KeyError, MissingError]),
        (HTTPError(503), [500]),
        (TakenError(), [404, KeyError, HTTPError]),
    ],
)
async def test_what_no_handler_is_for_comes_through(error: Exception, kinds: list[Any]) -> None:
    """As it was raised, without a word of the handlers'."""
    app = raising(error)
    for kind in kinds:
        app.error(kind)(handler("no"))
    for target in ("/plain", "/async"):
        with pytest.raises(type(error)) as caught:
            await answered(app, target)
        assert caught.value is error
        assert caught.value.__context__ is None


async def test_what_the_application_itself_refuses_is_an_error() -> None:
    """404, 405 and 501 have handlers as what functions raise; the error has its fields."""
    app = App()
    app.get("/a")(lambda request: Response())

    @app.error(HTTPError)
    def page(request: Request, error: HTTPError) -> Response:
        return Response.html(f"<h1>{error.status}</h1>", error.status, error.headers)

    assert (await ask(app, "/nothing"))[:2] == (404, b"<h1>404</h1>")
    told = await ask(app, "/a", "POST")
    assert (told.status, told.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await ask(app, "/a", "BREW"))[:2] == (501, b"<h1>501</h1>")
    assert (await ask(app, "/a/")).status == 308
    assert (await ask(app, "/a", "OPTIONS")).status == 204


async def test_plain_handlers_need_no_await() -> None:
    """An application with error handlers still answers at once, errors too."""
    app = raising(HTTPError(404))
    app.error(404)(handler("plain", plain=True))
    for target in ("/ok", "/plain", "/nothing"):
        assert isinstance(app.answer(request(target), 0.0), Response)


# The nearest scope first


async def test_the_nearest_scope_answers_first() -> None:
    """The route's own, its application's, the one it is mounted in; however specific theirs."""
    app, inner = App(), App()

    def fails(request: Request) -> Response:
        raise {"taken": TakenError, "key": KeyError, "value": ValueError}[request.query["raise"]]

    inner.get("/own", errors={LookupError: handler("route"), 404: handler("route 404")})(fails)
    inner.get("/bare")(fails)
    inner.error(Exception)(handler("inner"))
    app.error(TakenError)(handler("outer"))
    app.get("/bare")(fails)
    app.mount("/in", inner)
    for target, body in (
        ("/in/own?raise=taken", b"route: TakenError"),
        ("/in/own?raise=key", b"route: KeyError"),
        ("/in/own?raise=value", b"inner: ValueError"),
        ("/in/bare?raise=taken", b"inner: TakenError"),
        ("/bare?raise=taken", b"outer: TakenError"),
    ):
        assert (await ask(app, target)).body == body
    with pytest.raises(KeyError):
        await ask(app, "/bare?raise=key")
    # Alone, it is its own.
    assert (await ask(inner, "/bare?raise=taken")).body == b"inner: TakenError"


async def test_what_nothing_answers_is_the_mounted_applications() -> None:
    """Of the one that is closest to the path; else the next one's."""
    app, middle, inner = App(), App(), App()
    app.mount("/m", middle)
    middle.mount("/i", inner)
    app.error(404)(handler("outer", 404))
    inner.error(404)(handler("inner", 404))
    middle.get("/i/route")(lambda request: Response())
    inner.error(405)(handler("inner", 405))
    for target, body in (
        ("/nothing", b"outer: HTTPError"),
        ("/m/nothing", b"outer: HTTPError"),
        ("/m/i/nothing", b"inner: HTTPError"),
        ("/m/i", b"inner: HTTPError"),
        ("/m/%69/nothing", b"inner: HTTPError"),
        ("/m/ix", b"outer: HTTPError"),
    ):
        assert (await ask(app, target))[:2] == (404, body)
    assert (await ask(app, "/m/i/route", "PUT")).body == b"inner: HTTPError"


async def test_a_handler_sees_the_prefix_of_its_own_application() -> None:
    """And the route of the request."""
    app, inner = App(), App()

    def tell(request: Request, error: Exception) -> Response:
        return Response.text(f"{request.mounted} {request.route}")

    async def fails(request: Request) -> Response:
        raise {"1": TakenError, "2": KeyError}[request.query["n"]]

    inner.get("/x")(fails)
    inner.error(TakenError)(tell)
    app.error(KeyError)(tell)
    app.mount("/in", inner)
    assert (await ask(app, "/in/x?n=1")).body == b"/in /in/x"
    assert (await ask(app, "/in/x?n=2")).body == b" /in/x"


@pytest.mark.parametrize("plain", [True, False])
async def test_what_a_handler_raises_goes_on_outwards(plain: bool) -> None:
    """The same error again, or another one; never to the same scope's handlers."""
    app, inner = App(), raising(TakenError())

    def swaps(request: Request, error: Exception) -> Response:
        raise KeyError("another") from error

    async def swaps_later(request: Request, error: Exception) -> Response:
        raise KeyError("another") from error

    inner.error(TakenError)(swaps if plain else swaps_later)
    inner.error(KeyError)(handler("never"))
    app.mount("/in", inner)
    with pytest.raises(KeyError):
        await ask(app, "/in/async")
    app.error(KeyError)(handler("outer"))
    for target in ("/in/plain", "/in/async"):
        assert (await ask(app, target)).body == b"outer: KeyError"


# Beside middleware


async def test_middleware_is_between_a_routes_handlers_and_its_applications() -> None:
    """It sees responses of the former and exceptions for the latter, which answer its own too."""
    app = App()
    seen: list[str] = []

    @app.middleware
    async def sees(request: Request, call_next: CallNext) -> Response:
        if "refuse" in request.query:
            raise HTTPError(403)
        try:
            response = await call_next(request)
        except Exception as error:
            seen.append(type(error).__name__)
            raise
        seen.append(str(response.status))
        return response

    def fails(request: Request) -> Response:
        raise TakenError

    app.get("/own", errors={TakenError: handler("route", 409)})(fails)
    app.get("/bare")(fails)
    app.error(Exception)(handler("app", 500))
    assert (await ask(app, "/own")).body == b"route: TakenError"
    assert (await ask(app, "/bare")).body == b"app: TakenError"
    assert (await ask(app, "/own?refuse")).body == b"app: HTTPError"
    assert (await ask(app, "/nothing")).body == b"app: HTTPError"
    assert seen == ["409", "TakenError", "HTTPError"]


async def test_outer_middleware_sees_what_a_mounted_application_answered() -> None:
    """Its error handlers are inside."""
    app, inner = App(), raising(TakenError())
    statuses: list[int] = []

    @app.middleware
    async def sees(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        statuses.append(response.status)
        return response

    inner.error(TakenError)(handler("inner", 409))
    app.mount("/in", inner)
    await ask(app, "/in/plain")
    await ask(app, "/in/async")
    assert statuses == [409, 409]


async def test_a_folders_errors_have_handlers(tmp_path: Path) -> None:
    """Unless it has a page of its own."""
    (tmp_path / "site").mkdir()
    app = App()
    app.static(tmp_path / "site")
    app.error(404)(handler("app", 404))
    app.error(405)(handler("app", 405, plain=True))
    assert (await ask(app, "/nothing"))[:2] == (404, b"app: HTTPError")
    assert (await ask(app, "/nothing", "PUT"))[:2] == (405, b"app: HTTPError")
    (tmp_path / "site" / "404.html").write_text("page")
    assert (await ask(app, "/nothing"))[:2] == (404, b"page")


# For the log


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "noted"),
    [
        (TakenError(), 500, True),
        (TakenError(), 503, True),
        (TakenError(), 404, False),
        (TakenError(), 200, False),
        (HTTPError(503), 503, False),
        (HTTPError(404), 500, False),
    ],
)
async def test_an_unexpected_exception_is_left_for_the_log(
    error: Exception, status: int, noted: bool, plain: bool
) -> None:
    """`request.failure`, when the client is told that the server failed, and not else."""
    app = raising(error)
    app.error(Exception)(handler("x", status, plain=plain))
    for target in ("/plain", "/async"):
        asked = request(target)
        assert (await ask(app, asked)).status == status
        assert asked.failure is (error if noted else None)


# What is registered


@pytest.mark.parametrize("kind", [200, 399, 600, 0, -1])
def test_a_status_is_that_of_an_error(kind: int) -> None:
    """From 400 to 599."""
    with pytest.raises(RouteError, match=f"not {kind} "):
        App().error(kind)(handler("x"))


@pytest.mark.parametrize("kind", ["404", 404.0, True, None, BaseException, KeyboardInterrupt, int])
def test_a_kind_is_a_status_or_an_exceptions_class(kind: Any) -> None:
    """What ends a task or a process is no error."""
    with pytest.raises(TypeError):
        App().error(kind)(handler("x"))
    with pytest.raises(TypeError):
        App().get("/", errors={kind: handler("x")})(lambda request: Response())


def test_a_kind_has_one_handler() -> None:
    """In one application; both places are named."""
    app = App()
    for kind in (404, KeyError):
        app.error(kind)(handler("x"))
        with pytest.raises(RouteError, match="two handlers") as caught:
            app.error(kind)(handler("y"))
        assert str(caught.value).count(f"{Path(__file__).name}:") == 2
    app.error(405)(handler("z"))
    App().error(404)(handler("x"))


async def test_handlers_may_come_while_it_serves() -> None:
    """Also of a mounted application."""
    app, inner = App(), App()
    app.mount("/in", inner)
    assert (await ask(app, "/in/x")).body == b"Not Found"
    inner.error(404)(handler("inner", 404))
    assert (await ask(app, "/in/x")).body == b"inner: HTTPError"


@pytest.mark.parametrize("wrong", [None, "text", 7])
async def test_what_is_no_response_is_told(wrong: Any) -> None:
    """By whom it was returned; what the function returned is an error like any other."""
    app = App()
    app.get("/plain")(lambda request: wrong)

    @app.get("/async")
    async def later(request: Request) -> Any:
        return wrong

    app.error(KeyError)(lambda request, error: wrong)

    @app.get("/error")
    def fails(request: Request) -> Response:
        raise KeyError

    for target, who in (("/plain", "handler"), ("/async", "handler"), ("/error", "error handler")):
        with pytest.raises(
            TypeError, match=f"the {who} of GET /.* {type(wrong).__name__}, expected"
        ):
            await ask(app, target)
    app.error(TypeError)(handler("told"))
    assert (await ask(app, "/plain")).body == b"told: TypeError"
    assert (await ask(app, "/async")).body == b"told: TypeError"


# What is awaited


async def test_what_is_not_begun_leaves_nothing_behind() -> None:
    """Closed, the function's own coroutine is closed too, also below several scopes."""
    app, inner = App(), raising(TakenError())
    inner.error(404)(handler("inner"))
    app.error(404)(handler("outer"))
    app.mount("/in", inner)
    answer = app.answer(request("/in/async"), 0.0)
    assert isinstance(answer, Coroutine)
    answer.close()
    answer.close()
    answer = app.answer(request("/in/async"), 0.0)
    assert isinstance(answer, Coroutine)
    with pytest.raises(KeyError):
        answer.throw(KeyError("thrown"))
    # An error handler's, whose request ends before it begins.
    app.error(TakenError)(handler("later"))
    answer = app.answer(request("/in/plain"), 0.0)
    assert isinstance(answer, Coroutine)
    answer.close()


async def test_a_continued_answer_is_a_coroutine() -> None:
    """It can be sent to, thrown into and closed at any time, as asyncio does."""
    closed: list[str] = []

    class Waits:
        def __await__(self) -> Any:
            got: str = yield "waiting"
            return got

    async def inner() -> Response:
        try:
            return Response.text(await Waits())
        finally:
            closed.append("inner")

    async def step(answer: Any) -> Response:
        response: Response = await answer
        return response

    made = Continued(inner(), step)
    assert made.send(None) == "waiting"
    with pytest.raises(StopIteration) as stop:
        made.send("sent")
    assert stop.value.value.body == b"sent"
    made = Continued(inner(), step)
    made.send(None)
    with pytest.raises(KeyError, match="thrown"):
        made.throw(KeyError, "thrown")
    made = Continued(inner(), step)
    made.send(None)
    made.close()
    assert closed == ["inner"] * 3


async def test_cancelling_is_no_error() -> None:
    """What is no Exception passes every handler: the request is over."""

    class Over(BaseException):
        pass

    app = raising(Over())
    app.error(Exception)(handler("never"))
    app.error(500)(handler("never"))
    for target in ("/plain", "/async"):
        with pytest.raises(Over):
            await ask(app, target)


def errors() -> int:
    """Return how many HTTPErrors there are."""
    return sum(isinstance(found, HTTPError) for found in gc.get_objects())


@pytest.mark.parametrize(
    ("target", "method"),
    [("/nothing", "GET"), ("/a", "POST"), ("/a", "BREW"), ("/files/nothing", "GET")],
)
async def test_a_refusal_is_no_garbage_that_stays(tmp_path: Path, target: str, method: str) -> None:
    """No error is left behind that only the collector finds."""
    app = App(static_fallthrough=True)
    app.static(tmp_path, at="/files")
    app.get("/a")(lambda request: Response())
    gc.collect()
    gc.disable()
    try:
        # Threads that looked for a file may each still hold their last, and no more.
        await asyncio.gather(*[ask(app, target, method) for _ in range(8)])
        before = errors()
        for _ in range(20):
            assert (await ask(app, target, method)).status >= 400
        assert errors() - before <= 4
    finally:
        gc.enable()
