"""An application for several processes: it notes what it was asked, and says who answers."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from h2log import App, Request, Response

app = App()
_logger = logging.getLogger("fleet")


def note(request: Request) -> None:
    """Put the request's id into a file, where it stays whatever becomes of this process."""
    path = os.environ.get("FLEET_NOTES")
    if path:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{request.id}\n".encode())
        os.close(file)


@app.get("/")
def index(request: Request) -> Response:
    """Say which process answers."""
    note(request)
    return Response.text(str(os.getpid()))


@app.get("/slow/{milliseconds}")
async def slow(request: Request) -> Response:
    """Take a while."""
    note(request)
    await asyncio.sleep(int(request.params["milliseconds"]) / 1000)
    return Response.text(str(os.getpid()))


@app.get("/gated")
async def gated(request: Request) -> Response:
    """Answer when the test has opened the gate."""
    note(request)
    while not os.path.exists(os.environ["FLEET_GATE"]):
        await asyncio.sleep(0.01)
    return Response.text(str(os.getpid()))


@app.get("/forever")
async def forever(request: Request) -> Response:
    """Never answer."""
    note(request)
    await asyncio.Event().wait()
    return Response.text("never")


@app.get("/block/{seconds}")
def block(request: Request) -> Response:
    """Hold the whole process up."""
    note(request)
    time.sleep(float(request.params["seconds"]))
    return Response.text("blocked")


@app.get("/grow/{megabytes}")
def grow(request: Request) -> Response:
    """Take memory, for good."""
    _hoard.append(b"\1" * (1024 * 1024 * int(request.params["megabytes"])))
    return Response.text(str(os.getpid()))


_hoard: list[bytes] = []


@app.get("/say/{text}")
def say(request: Request) -> Response:
    """Log something."""
    _logger.warning("said %s", request.params["text"])
    return Response.text(str(os.getpid()))


@app.get("/exit/{code}")
def leave(request: Request) -> Response:
    """End the process."""
    note(request)
    os._exit(int(request.params["code"]))
