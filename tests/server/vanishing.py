"""Clients that vanish at random points of requests to `vanish_app`, and what must be left of them.

A client makes up to three requests on a connection, of both protocols: it waits for an answer that
never comes, uploads, downloads without end, has a WebSocket. What it sends is cut at any byte; it
may read a little; then it resets its streams, closes, or is gone without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hpack

from tests.protocol import frames
from tests.server.h2_client import H2Client
from tests.support import PATIENCE, Process, client_context

__all__ = ["TARGET", "State", "settled", "state", "unlogged", "vanish"]

TARGET = "tests.server.vanish_app:app"
TOGETHER = 32
PATIENCES = (0.0, 0.0, 0.001, 0.005, 0.02)
KINDS = ("wait", "sleep", "down", "up", "whole", "chat")
PIECES, PIECE = 8, bytes(4096)
UPGRADE = [
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
# A masked binary message of 64 bytes (RFC 6455 section 5.2); the mask of zeros changes nothing.
MESSAGE = b"\x82\xc0" + bytes(4) + bytes(64)
MESSAGES = 5
LINGER = struct.pack("ii", 1, 0)

Way = Literal["reset", "close", "abort", "linger"]


@dataclass(frozen=True)
class Plan:
    """What one client does."""

    protocol: str
    sent: bytes
    patience: float
    """Seconds for which it reads what comes."""
    resets: bytes
    """What it sends then."""
    way: Way


def _http1(kind: str) -> bytes:
    path = b"up" if kind == "whole" else kind.encode()
    if kind in ("up", "whole"):
        length = PIECES * len(PIECE)
        head = b"POST /%b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        missing = kind == "up"
        return head % (path, length + missing) + PIECES * PIECE
    if kind == "chat":
        fields = b"".join(b"%b: %b\r\n" % field for field in UPGRADE)
        head = b"GET /chat HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
        return head + b"upgrade: websocket\r\n" + fields + b"\r\n" + MESSAGES * MESSAGE
    return b"GET /%b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path


def _http2(kind: str, stream_id: int) -> list[bytes]:
    """Return the frames of a request."""
    path = b"/up" if kind == "whole" else b"/" + kind.encode()
    method = {"up": b"POST", "whole": b"POST", "chat": b"CONNECT"}.get(kind, b"GET")
    fields = [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path),
    ]
    if kind == "chat":
        fields += [(b":protocol", b"websocket"), *UPGRADE[:1]]
    # Each block has an encoder of its own, so that it means the same in any order.
    block = hpack.Encoder().encode(fields)
    content = {"up": PIECES * [PIECE], "whole": PIECES * [PIECE], "chat": MESSAGES * [MESSAGE]}
    data = content.get(kind, [])
    flags = frames.END_HEADERS | (0 if data else frames.END_STREAM)
    made = [frames.raw(frames.HEADERS, flags, stream_id, block)]
    made += [frames.raw(frames.DATA, 0, stream_id, piece) for piece in data]
    if kind == "whole":
        made.append(frames.raw(frames.DATA, frames.END_STREAM, stream_id))
    return made


def _plan(chance: random.Random) -> Plan:
    way: Way = chance.choice(("reset", "close", "abort", "linger"))
    patience = chance.choice(PATIENCES)
    kinds = [chance.choice(KINDS) for _ in range(chance.choice((1, 1, 2, 3)))]
    if chance.random() < 0.4:
        sent = _http1(kinds[0])
        if chance.random() < 0.5:
            sent = sent[: chance.randrange(len(sent))]
        return Plan("http/1.1", sent, patience, b"", way)
    parts = [frames.PREFACE + frames.settings()]
    streams = range(1, 2 * len(kinds), 2)
    for kind, stream_id in zip(kinds, streams, strict=True):
        parts += _http2(kind, stream_id)
    if way == "reset":
        # Whole frames, so that those that reset are ones.
        parts = parts[: chance.randint(1, len(parts))]
        opened = sum(part[3] == frames.HEADERS for part in parts[1:])
        resets = b"".join(map(frames.rst_stream, streams[:opened]))
        return Plan("h2", b"".join(parts), patience, resets, way)
    sent = b"".join(parts)
    if chance.random() < 0.5:
        sent = sent[: chance.randrange(len(sent))]
    return Plan("h2", sent, patience, b"", way)


async def _vanish(server: Process, contexts: dict[str, ssl.SSLContext], plan: Plan) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=contexts.get(plan.protocol)
    )
    with contextlib.suppress(OSError, ssl.SSLError):
        writer.write(plan.sent)
        if plan.patience:
            async with asyncio.timeout(plan.patience):
                while await reader.read(4096):
                    pass
    if plan.way == "reset":
        writer.write(plan.resets)
    if plan.way == "linger":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    if plan.way in ("abort", "linger"):
        writer.transport.abort()
    else:
        writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def vanish(server: Process, count: int, seed: int) -> None:
    """Have `count` clients vanish, some of them at the same time."""
    contexts = {}
    if server.certs is not None:
        contexts = {name: client_context(server.certs, name) for name in ("h2", "http/1.1")}
    chance = random.Random(seed)
    plans = (_plan(chance) for _ in range(count))

    async def some(plans: Iterator[Plan]) -> None:
        for plan in plans:
            await _vanish(server, contexts, plan)

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(some(plans))


# What is left


State = dict[str, int]


async def state(server: Process) -> State:
    """Ask the application what there is."""
    async with H2Client.connect(server) as client:
        answer = await client.get("/state")
        found: State = json.loads(answer.body)
        return found


async def settled(server: Process, before: State, more: int) -> State:
    """Ask until there is no more than before, but for `more` objects; return the last answer."""
    most = before | {"objects": before["objects"] + more}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                now = await state(server)
                if all(now[name] <= most[name] for name in most):
                    return now
    return now


def _objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def unlogged(access: Path, sessions: Path, calls: Path) -> tuple[int, Counter[str], list[str]]:
    """Compare the logs of a server that has stopped; return lines, how they ended, and faults.

    Every session says how many requests it has opened, and the application which it was called for.
    """
    lines, faults = _objects(access), []
    ids = [line["h2log.request"] for line in lines]
    if len(set(ids)) != len(ids):
        faults.append(f"{len(ids) - len(set(ids))} requests have two lines")
    called = calls.read_text().split()
    if missing := set(called) - set(ids):
        faults.append(f"{len(missing)} requests that the application has seen have no line")
    if len(set(called)) != len(called):
        faults.append("the application was called twice for a request")
    counted = Counter(line["h2log.session"] for line in lines)
    for session in _objects(sessions):
        if session["h2log.event"] != "session.closed":
            continue
        opened = session["h2log.session.requests"]
        if counted.pop(session["h2log.session.id"], 0) != opened:
            faults.append(f"a session's {opened} requests do not have as many lines: {session}")
    if counted:
        faults.append(f"{len(counted)} sessions with requests were not closed")
    ends = Counter(str(line.get("h2log.outcome")) for line in lines)
    if "None" in ends:
        faults.append(f"{ends['None']} lines do not say how the request ended")
    return len(lines), ends, faults
