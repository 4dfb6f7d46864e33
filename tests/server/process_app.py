"""An application for servers in processes of their own: `run tests.server.process_app:app`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

from h2log import App, Request, Response
from h2log.cli.serve import SAMPLE_SITE

app = App()
app.static(SAMPLE_SITE)


@app.get("/slow/{milliseconds}")
async def slow(request: Request) -> Response:
    """Take a while."""
    await asyncio.sleep(int(request.params["milliseconds"]) / 1000)
    return Response.text("at last")


@app.get("/forever")
async def forever(request: Request) -> Response:
    """Never answer."""
    await asyncio.Event().wait()
    return Response.text("never")


@app.get("/stream/{blocks}")
async def stream(request: Request) -> Response:
    """Send that many blocks of 64 KiB."""

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(int(request.params["blocks"])):
            yield bytes(65536)

    return Response(blocks())


@app.get("/state")
def state(request: Request) -> Response:
    """Say how many tasks there are, garbage collected."""
    gc.collect()
    tasks = [task.get_coro() for task in asyncio.all_tasks()]
    return Response.json({"tasks": len(tasks), "names": sorted(map(repr, tasks))})
