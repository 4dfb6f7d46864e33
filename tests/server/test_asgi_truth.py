"""Applications that do anything in any order: a line says what its client has seen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from h2log.access.record import Outcome
from h2log.app.asgi import Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.asgi_apps import body, running, start, whole_body
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import PATIENCE

SCRIPTS = 400
Step = Callable[[Receive, Send], Awaitable[object]]


def _start(status: int, *fields: tuple[bytes, bytes], trailers: bool = False) -> Step:
    return lambda receive, send: start(send, status, *fields, trailers=trailers)


def _body(size: int, *, more: bool) -> Step:
    return lambda receive, send: body(send, b"x" * size, more=more)


def _raising(error: BaseException) -> Step:
    async def step(receive: Receive, send: Send) -> None:
        raise error

    return step


def _message(**message: object) -> Step:
    return lambda receive, send: send(message)


async def _cancel(receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _together(receive: Receive, send: Send) -> None:
    await asyncio.gather(*[body(send, bytes(50_000), more=True) for _ in range(3)])


async def _behind(receive: Receive, send: Send) -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            await body(send, b"later", more=True)

    _tasks.add(task := asyncio.ensure_future(later()))
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()


def _steps(folder: Path) -> dict[str, list[Step]]:
    small, large = folder / "small", folder / "large"
    small.write_bytes(bytes(1000))
    large.write_bytes(bytes(600_000))

    def file(path: Path) -> Step:
        return _message(type="http.response.pathsend", path=str(path))

    many = [(b"x-%d" % number, b"v" * 1000) for number in range(40)]
    return {
        "receive": [
            lambda receive, send: receive(),
            lambda receive, send: whole_body(receive),
            lambda receive, send: asyncio.sleep(0),
        ],
        "first": [
            lambda receive, send: asyncio.sleep(0),
            _message(type="http.response.early_hint", links=[b"</a>; rel=preload"]),
            _raising(KeyError("first")),
        ],
        "start": [
            _start(200),
            _start(200, (b"content-length", b"3000")),
            _start(200, (b"trailer", b"x-t"), trailers=True),
            _start(200, *many),
            _start(204),
            _start(304, (b"content-length", b"0")),
            _start(404),
            _start(503),
        ],
        "then": [
            _body(1000, more=True),
            _body(100_000, more=True),
            _body(0, more=True),
            _together,
            _behind,
            file(small),
            file(large),
            file(folder),
            _cancel,
            lambda receive, send: asyncio.sleep(0),
            _raising(KeyError("then")),
            _raising(OSError("then")),
            _raising(SystemExit(3)),
            _raising(asyncio.CancelledError()),
        ],
        "last": [
            _body(0, more=False),
            _body(1000, more=False),
            _body(200_000, more=False),
            _message(type="http.response.trailers", headers=[(b"x-t", b"1")]),
            _raising(KeyError("last")),
        ],
    }


def _script(chance: Random, steps: dict[str, list[Step]]) -> list[Step]:
    made = chance.choices(steps["receive"]) + chance.choices(steps["first"], k=chance.randrange(2))
    if chance.random() < 0.95:
        made.append(chance.choice(steps["start"]))
    made += chance.choices(steps["then"], k=chance.randrange(3))
    return made + chance.choices(steps["last"], k=chance.randrange(3))


class _Seen:
    """What a client has seen of an answer."""

    status = 0
    size = 0
    ended = False
    id = ""


async def _ask_http2(client: H2Client, path: str, method: str, content: bytes) -> _Seen:
    stream = client.send(method, path, end=not content)
    if content:
        await client.send_body(stream, content)
    reply = await client.reply(stream)
    seen = _Seen()
    seen.status, seen.size, seen.ended = reply.status, len(reply.body), reply.ended
    seen.id = reply.headers.get("x-request-id", "")
    return seen


async def _ask_http1(client: Http1Client, path: str, method: str, content: bytes) -> _Seen:
    length = f"content-length: {len(content)}\r\n" if content else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n{length}\r\n"
    client.send(head.encode() + content)
    seen = _Seen()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        section = await client.reader.readuntil(b"\r\n\r\n")
        first, *rest = section.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in rest)}
        seen.status, seen.id = int(first.split(" ")[1]), fields["x-request-id"]
        if method == "HEAD" or seen.status in (204, 304):
            # A connection that is closed now is all that tells of what goes wrong yet.
            seen.ended = True
            return seen
        if "content-length" in fields:
            left = int(fields["content-length"])
            while left and (piece := await client.reader.read(left)):
                seen.size += len(piece)
                left -= len(piece)
            seen.ended = not left
            return seen
        while size := int(await client.reader.readuntil(b"\r\n"), 16):
            await client.reader.readexactly(size + 2)
            seen.size += size
        while await client.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        seen.ended = True
    return seen


@pytest.mark.parametrize("protocol", ["h2", "1.1"])
async def test_lines_are_true(certs: Certificates, protocol: str, tmp_path: Path) -> None:
    """Status and size are those that came; COMPLETE is what ended, and only that."""
    chance = Random(f"lines are true over {protocol}")
    steps = _steps(tmp_path)
    scripts = [_script(chance, steps) for _ in range(SCRIPTS)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in scripts[int(scope["path"][1:])]:
            await step(receive, send)

    async with running(app, certs) as server:
        for number in range(SCRIPTS):
            method = chance.choice(["GET", "GET", "HEAD", "POST"])
            content = bytes(chance.randrange(1, 50_000)) if method == "POST" else b""
            path = f"/{number}"
            if protocol == "h2":
                async with H2Client.connect(server) as h2:
                    seen = await _ask_http2(h2, path, method, content)
                    record = await server.record(path)
            else:
                async with Http1Client.connect(server) as http1:
                    async with asyncio.timeout(PATIENCE):
                        seen = await _ask_http1(http1, path, method, content)
                    record = await server.record(path)
            told = (number, method, seen.__dict__, record.status, record.sent, record.outcome)
            assert record.outcome in (Outcome.COMPLETE, Outcome.HANDLER_ERROR), told
            if seen.status:
                assert (record.status, record.id) == (seen.status, seen.id), told
            bare = method == "HEAD" or seen.status in (204, 304)
            if seen.ended:
                assert record.sent == seen.size, told
            else:
                assert record.outcome is Outcome.HANDLER_ERROR, told
            if seen.ended and not bare and seen.status < 500:
                assert record.outcome is Outcome.COMPLETE, told
        assert len({record.outcome for record in server.records}) == 2
