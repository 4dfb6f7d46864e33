"""The lifespan protocol, state by state: what an application says, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

import pytest

from h2log.app.lifespan import Lifespan
from h2log.errors import StartupError
from tests.support import eventually

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BOTH: list[Literal["auto", "on"]] = ["auto", "on"]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def lifespan(
    call: App, mode: Literal["auto", "on"] = "auto", state: dict[str, Any] | None = None
) -> Lifespan:
    """Return the lifespan of an application called `shop:app`."""
    return Lifespan(call, {} if state is None else state, mode, "shop:app")


async def polite(scope: Any, receive: Receive, send: Send) -> None:
    """Do as the specification's example does, and note it in the state."""
    said = scope["state"].setdefault("said", [])
    while True:
        message = await receive()
        said.append(message["type"])
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def test_it_is_told_of_both() -> None:
    """In one call, whose state the requests share."""
    state: dict[str, Any] = {}
    life = lifespan(polite, "on", state)
    await life.start()
    assert state == {"said": ["lifespan.startup"]}
    await life.stop(10)
    assert state == {"said": ["lifespan.startup", "lifespan.shutdown"]}


async def test_the_scope() -> None:
    """Is that of the specification, and the same state object."""
    scopes: list[Any] = []
    state: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await polite(scope, receive, send)

    life = lifespan(app, state=state)
    await life.start()
    await life.stop(10)
    [scope] = scopes
    assert scope["type"] == "lifespan"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert scope["state"] is state


async def test_one_task_for_the_whole_life() -> None:
    """What is entered at the start is left in the same task; its context is its own."""
    tasks: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup():
            for _ in range(2):
                tasks.append(asyncio.current_task())
                variable.set("the lifespan's")
                message = await receive()
                await send({"type": f"{message['type']}.complete"})

    life = lifespan(app, "on")
    await life.start()
    assert variable.get() == "unset"
    await life.stop(10)
    assert tasks[0] is tasks[1] is not asyncio.current_task()


async def refusing(scope: Any, receive: Receive, send: Send) -> None:
    """Know nothing but HTTP."""
    raise ValueError(f"what is {scope['type']}?")


async def silent(scope: Any, receive: Receive, send: Send) -> None:
    """Take no part."""


async def impatient(scope: Any, receive: Receive, send: Send) -> None:
    """Begin with a response."""
    await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize("app", [refusing, silent, impatient])
async def test_who_has_no_lifespan(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Is served without one, and that is no fault: a debug line has the exception."""
    caplog.set_level("DEBUG")
    life = lifespan(app)
    await life.start()
    await life.stop(10)
    assert "shop:app has no lifespan" in caplog.text
    assert max(record.levelno for record in caplog.records) == logging.INFO


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (refusing, "ValueError: what is lifespan? ("),
        (silent, "without lifespan.startup.complete"),
        (impatient, "expected 'lifespan.startup.complete' or 'lifespan.startup.failed'"),
    ],
)
async def test_who_has_to_have_one(app: App, reason: str) -> None:
    """With `on` that is a failure of the start."""
    with pytest.raises(StartupError, match="the application failed at its start: ") as found:
        await lifespan(app, "on").start()
    assert reason in str(found.value)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"message": "no database"}, "no database"),
        ({"message": ""}, "it does not say why"),
        ({}, "it does not say why"),
        ({"message": "Traceback\n  File\nOSError: gone\n"}, "OSError: gone"),
        (
            {"message": "1 error for Settings\n\n  url\n  required\n"},
            "1 error for Settings; url; required",
        ),
    ],
)
async def test_a_start_that_fails(
    mode: Literal["auto", "on"],
    message: dict[str, str],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The message is the error's, in one line, and nothing is logged besides."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})
        await receive()

    with pytest.raises(StartupError) as found:
        await lifespan(app, mode).start()
    assert str(found.value) == f"the application failed at its start: {text}"
    assert not caplog.records


async def test_a_traceback_for_a_message(caplog: pytest.LogCaptureFixture) -> None:
    """As Starlette sends it, and raises after it: the line has its place, the log the traceback."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        try:
            raise OSError("no database")
        except OSError:
            await send({"type": "lifespan.startup.failed", "message": "Traceback…\nOSError: no"})
            raise

    with pytest.raises(StartupError, match=r"OSError: no database \(.*test_lifespan.py, line \d+"):
        await lifespan(app).start()
    [record] = caplog.records
    assert record.exc_info is not None


async def test_it_may_clean_up_after_a_failed_start() -> None:
    """It is not cancelled while it closes what it had opened."""
    closed = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no"})
        for _ in range(5):
            await asyncio.sleep(0)
        closed.set()

    with pytest.raises(StartupError):
        await lifespan(app).start()
    assert closed.is_set()


async def test_an_application_that_leaves() -> None:
    """SystemExit at the start is a failure, whatever the mode."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise SystemExit("no licence")

    with pytest.raises(StartupError, match="SystemExit: no licence"):
        await lifespan(app).start()


async def test_a_crash_while_it_is_served(caplog: pytest.LogCaptureFixture) -> None:
    """Is logged when it happens; it is not told of the stop."""
    crash = asyncio.Event()
    over = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await crash.wait()
            raise ZeroDivisionError
        finally:
            over.set()

    life = lifespan(app)
    await life.start()
    crash.set()
    await over.wait()
    await asyncio.sleep(0)
    [record] = caplog.records
    assert "failed in its lifespan and is not told of the stop" in record.getMessage()
    assert record.exc_info is not None
    await life.stop(0)
    assert len(caplog.records) == 1


async def test_who_returns_after_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Has nothing to do at the stop, and that is all right; also with `on`."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    life = lifespan(app, "on")
    await life.start()
    await life.stop(0)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_stop_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """Is cancelled, with a warning."""
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    life = lifespan(app)
    await life.start()
    await life.stop(0.01)
    assert cancelled.is_set()
    [record] = caplog.records
    assert record.getMessage() == (
        "shop:app has not completed its stop within 0.01 s: it is cancelled"
    )


@pytest.mark.parametrize("raises", [False, True])
async def test_a_stop_that_fails(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Is logged, with the message and what it raised."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "Traceback\nstill busy"})
        if raises:
            raise ZeroDivisionError

    life = lifespan(app)
    await life.start()
    await life.stop(10)
    [record] = caplog.records
    assert record.getMessage() == "shop:app failed at its stop: still busy"
    assert bool(record.exc_info) == raises


async def test_a_crash_at_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Ends the waiting, and is logged."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ZeroDivisionError

    life = lifespan(app)
    await life.start()
    await life.stop(60)
    [record] = caplog.records
    assert record.getMessage() == "shop:app failed at its stop"


async def test_who_asks_for_more() -> None:
    """After its stop is complete there is nothing more to come: it is let go at once."""
    ended = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
        finally:
            ended.set()

    life = lifespan(app)
    await life.start()
    async with asyncio.timeout(30):
        await life.stop(600)
    assert ended.is_set()


async def test_the_stop_comes_to_who_was_busy() -> None:
    """`receive` has it also for one that asks late."""
    busy = asyncio.Event()
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await busy.wait()
        heard.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    life = lifespan(app)
    await life.start()
    asyncio.get_running_loop().call_soon(busy.set)
    await life.stop(60)
    assert heard == ["lifespan.shutdown"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("lifespan.startup.complete", "expected nothing when its start is complete"),
        ("lifespan.shutdown.complete", "expected nothing when its start is complete"),
        ("http.response.start", "expected nothing when its start is complete"),
    ],
)
async def test_what_nobody_asked_for(message: str, text: str) -> None:
    """Raises where it is sent, with what was expected."""
    errors: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await send({"type": message})
        except RuntimeError as error:
            errors.append(str(error))
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    life = lifespan(app)
    await life.start()
    await life.stop(60)
    assert errors == [f"{text}, got {message!r}"]


async def test_a_start_that_is_given_up() -> None:
    """Its task does not stay."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    starting = asyncio.create_task(lifespan(app).start())
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert cancelled.is_set()


async def test_a_start_that_takes_long_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at a terminal where nothing stands is told what is waited for."""
    monkeypatch.setattr("h2log.app.lifespan._LONG", 0.001)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await eventually(lambda: caplog.messages)
        await polite(scope, receive, send)

    await lifespan(app).start()
    [message] = caplog.messages
    assert message.startswith("shop:app has not completed its start within 0.001 s")
    caplog.clear()
    monkeypatch.setattr("h2log.app.lifespan._LONG", 10.0)
    await lifespan(polite).start()
    assert not caplog.messages
