"""Litestar's tutorial application: `h2log run tests.frameworks.litestar_app:app`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body
from litestar.response import ServerSentEvent, Stream

from tests.frameworks import facts

released = facts.Released()
Asked = Request[Any, Any, State]
Socket = WebSocket[Any, Any, State]


@contextlib.asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.started = facts.STARTED
    yield
    print(facts.STOPPED, flush=True)


@get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


@get("/items/{number:int}")
async def item(number: int) -> dict[str, int]:
    return {"number": number, "double": 2 * number}


@get("/stream")
async def stream() -> Stream:
    return Stream(facts.chunks(), media_type="text/plain")


@dataclass
class Upload:
    title: str
    file: UploadFile


@post("/upload", status_code=200)
async def upload(
    data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    content = await data.file.read()
    return {
        "title": data.title,
        "name": data.file.filename,
        "size": len(content),
        "digest": facts.digest(content),
    }


@get("/events")
async def events() -> ServerSentEvent:
    async def made() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)

    return ServerSentEvent(made(), event_type="count")


@post("/background/{key:str}", status_code=202)
async def background(key: str) -> Response[dict[str, bool]]:
    return Response({"accepted": True}, background=BackgroundTask(released.wait, key))


@post("/release/{key:str}", status_code=204)
async def release(key: str) -> None:
    released.release(key)


@get("/noted/{key:str}")
async def noted(key: str) -> dict[str, Any]:
    return facts.noted(key)


@get("/endless/{key:str}")
async def endless(key: str) -> Stream:
    return Stream(facts.ticks(key), media_type="text/plain")


@get("/started")
async def started(state: State) -> dict[str, str]:
    return {"started": state.started}


@get("/fail")
async def fail() -> None:
    raise RuntimeError("this is meant to fail")


@get("/broken")
async def broken() -> Stream:
    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("this is meant to break")

    return Stream(made(), media_type="text/plain")


@get("/place")
async def place(request: Asked) -> dict[str, Any]:
    return facts.place(request.scope)


@get("/thread", sync_to_thread=True)
def thread() -> dict[str, Any]:
    return facts.in_thread()


@websocket("/chat/{key:str}")
async def chat(socket: Socket, key: str) -> None:
    offered = socket.scope["subprotocols"]
    await socket.accept(subprotocols="chat" if "chat" in offered else None)
    try:
        while (text := await socket.receive_text()) != "bye":
            await socket.send_json({"said": text, **facts.ids()})
    except WebSocketDisconnect as error:
        facts.note(key, f"disconnect {error.code}")
        return
    await socket.close(4000, "bye")


app = Litestar(
    [
        hello,
        item,
        stream,
        upload,
        events,
        background,
        release,
        noted,
        endless,
        started,
        fail,
        broken,
        place,
        thread,
        chat,
    ],
    lifespan=[lifespan],
)
