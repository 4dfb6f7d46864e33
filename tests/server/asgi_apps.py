"""Applications that use ASGI directly, the server that runs one, and who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from h2log.app.asgi import Asgi, AsgiApp, Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import Http1Client
from tests.support import Running

__all__ = ["TEXT", "Client", "Told", "body", "connected", "hello", "running", "start", "whole_body"]

TEXT = (b"content-type", b"text/plain")


def running(app: Asgi, certs: Certificates | None, **limits: Any) -> Running:
    """Return a server of `app`, which is not told of start and stop."""
    root_path = limits.pop("root_path", "")
    return Running(
        AsgiApp(app, "the test's application", root_path=root_path, lifespan="off"), certs, **limits
    )


async def start(send: Send, status: int = 200, *fields: tuple[bytes, bytes], **more: Any) -> None:
    """Send the start of a response."""
    await send({"type": "http.response.start", "status": status, "headers": list(fields), **more})


async def body(send: Send, content: bytes = b"", *, more: bool = False) -> None:
    """Send content."""
    await send({"type": "http.response.body", "body": content, "more_body": more})


async def whole_body(receive: Receive) -> bytes:
    """Return the content of the request."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with five bytes."""
    await start(send, 200, TEXT, (b"content-length", b"5"))
    await body(send, b"hello")


class Told:
    """The answer to a request, whichever protocol it came by."""

    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content


class Client:
    """Asks over HTTP/2 or HTTP/1.1."""

    def __init__(self, h2: H2Client | None, h1: Http1Client | None) -> None:
        self.h2 = h2
        self.h1 = h1

    async def ask(self, path: str = "/", method: str = "GET", content: bytes = b"") -> Told:
        """Send a request and return its answer."""
        if self.h2 is not None:
            stream = self.h2.send(method, path, end=not content)
            if content:
                await self.h2.send_body(stream, content)
            reply = await self.h2.reply(stream)
            return Told(reply.status, reply.headers, bytes(reply.body))
        assert self.h1 is not None
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
        if content:
            head += f"content-length: {len(content)}\r\n"
        self.h1.send(f"{head}\r\n".encode() + content)
        answer = await self.h1.answer(head=method == "HEAD")
        return Told(answer.status, answer.headers, answer.body)


@asynccontextmanager
async def connected(server: Running, protocol: str) -> AsyncIterator[Client]:
    """Connect by `protocol`."""
    if protocol == "h2":
        async with H2Client.connect(server) as h2:
            yield Client(h2, None)
    else:
        async with Http1Client.connect(server) as h1:
            yield Client(None, h1)
