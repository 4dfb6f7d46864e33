"""Quart's tutorial application: `h2log run tests.frameworks.quart_app:app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, ResponseReturnValue, current_app, request, websocket
from quart.utils import run_sync

from tests.frameworks import facts

app = Quart(__name__)
released = facts.Released()


@app.before_serving
async def start() -> None:
    current_app.config["STARTED"] = facts.STARTED


@app.after_serving
async def stop() -> None:
    print(facts.STOPPED, flush=True)


@app.get("/")
async def hello() -> ResponseReturnValue:
    return {"hello": "world"}


@app.get("/items/<int:number>")
async def item(number: int) -> ResponseReturnValue:
    return {"number": number, "double": 2 * number}


@app.get("/stream")
async def stream() -> ResponseReturnValue:
    return Response(facts.chunks(), content_type="text/plain")


@app.post("/upload")
async def upload() -> ResponseReturnValue:
    form, files = await request.form, await request.files
    content = files["file"].read()
    return {
        "title": form["title"],
        "name": files["file"].filename,
        "size": len(content),
        "digest": facts.digest(content),
    }


@app.get("/events")
async def events() -> ResponseReturnValue:
    async def made() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"event: count\ndata: %d\n\n" % number

    return Response(made(), content_type="text/event-stream")


@app.post("/background/<key>")
async def background(key: str) -> ResponseReturnValue:
    app.add_background_task(released.wait, key)
    return {"accepted": True}, 202


@app.post("/release/<key>")
async def release(key: str) -> ResponseReturnValue:
    released.release(key)
    return "", 204


@app.get("/noted/<key>")
async def noted(key: str) -> ResponseReturnValue:
    return facts.noted(key)


@app.get("/endless/<key>")
async def endless(key: str) -> ResponseReturnValue:
    return Response(facts.ticks(key), content_type="text/plain")


@app.get("/started")
async def started() -> ResponseReturnValue:
    return {"started": current_app.config["STARTED"]}


@app.get("/fail")
async def fail() -> ResponseReturnValue:
    raise RuntimeError("this is meant to fail")


@app.get("/broken")
async def broken() -> ResponseReturnValue:
    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("this is meant to break")

    return Response(made(), content_type="text/plain")


@app.get("/place")
async def place() -> ResponseReturnValue:
    return facts.place(request.scope)


@app.get("/thread")
async def thread() -> ResponseReturnValue:
    answer: dict[str, Any] = await run_sync(facts.in_thread)()
    return answer


@app.websocket("/chat/<key>")
async def chat(key: str) -> None:
    offered = websocket.requested_subprotocols
    await websocket.accept(subprotocol="chat" if "chat" in offered else None)
    try:
        while (text := await websocket.receive()) != "bye":
            await websocket.send_json({"said": text, **facts.ids()})
    except asyncio.CancelledError:
        facts.note(key, "disconnect")
        raise
    await websocket.close(4000, "bye")
