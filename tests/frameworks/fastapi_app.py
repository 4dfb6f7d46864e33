"""FastAPI's tutorial application: `h2log run tests.frameworks.fastapi_app:app`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, FastAPI, Form, Request, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

from tests.frameworks import facts

released = facts.Released()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"started": facts.STARTED}
    print(facts.STOPPED, flush=True)


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    number: int
    double: int


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


@app.get("/items/{number}")
async def item(number: int) -> Item:
    return Item(number=number, double=2 * number)


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(facts.chunks(), media_type="text/plain")


@app.post("/upload")
async def upload(file: UploadFile, title: Annotated[str, Form()]) -> dict[str, Any]:
    content = await file.read()
    return {
        "title": title,
        "name": file.filename,
        "size": len(content),
        "digest": facts.digest(content),
    }


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    for number in range(3):
        yield ServerSentEvent(event="count", data=number)


@app.post("/background/{key}", status_code=202)
async def background(key: str, tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(released.wait, key)
    return {"accepted": True}


@app.post("/release/{key}", status_code=204)
async def release(key: str) -> None:
    released.release(key)


@app.get("/noted/{key}")
async def noted(key: str) -> dict[str, Any]:
    return facts.noted(key)


@app.get("/endless/{key}")
async def endless(key: str) -> StreamingResponse:
    return StreamingResponse(facts.ticks(key), media_type="text/plain")


@app.get("/polled/{key}")
async def polled(key: str, request: Request) -> StreamingResponse:
    """Ask after the client, and send nothing meanwhile."""

    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        while not await request.is_disconnected():
            await anyio.sleep(0.002)
        facts.note(key, "is_disconnected")

    return StreamingResponse(made(), media_type="text/plain")


@app.get("/group/{key}")
async def group(key: str, request: Request) -> StreamingResponse:
    """Listen for the client's going away beside the work, which is then cancelled."""

    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            async def work() -> None:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    facts.note(key, "cancelled")
                    raise

            tasks.start_soon(listen)
            tasks.start_soon(work)

    return StreamingResponse(made(), media_type="text/plain")


@app.get("/started")
async def started(request: Request) -> dict[str, str]:
    return {"started": request.state.started}


@app.get("/fail")
async def fail() -> None:
    raise RuntimeError("this is meant to fail")


@app.get("/broken")
async def broken() -> StreamingResponse:
    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("this is meant to break")

    return StreamingResponse(made(), media_type="text/plain")


@app.get("/place")
async def place(request: Request) -> dict[str, Any]:
    return facts.place(request.scope)


@app.get("/thread")
def thread() -> dict[str, Any]:
    return facts.in_thread()


@app.websocket("/chat/{key}")
async def chat(websocket: WebSocket, key: str) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat" if "chat" in offered else None)
    try:
        while (text := await websocket.receive_text()) != "bye":
            await websocket.send_json({"said": text, **facts.ids()})
    except WebSocketDisconnect as error:
        facts.note(key, f"disconnect {error.code}")
        return
    await websocket.close(4000, "bye")
