"""Starlette's tutorial application: `h2log run tests.frameworks.starlette_app:app`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.frameworks import facts

released = facts.Released()


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"started": facts.STARTED}
    print(facts.STOPPED, flush=True)


async def hello(request: Request) -> Response:
    return JSONResponse({"hello": "world"})


async def item(request: Request) -> Response:
    number = request.path_params["number"]
    return JSONResponse({"number": number, "double": 2 * number})


async def stream(request: Request) -> Response:
    return StreamingResponse(facts.chunks(), media_type="text/plain")


async def upload(request: Request) -> Response:
    async with request.form() as form:
        file, title = form["file"], form["title"]
        assert isinstance(file, UploadFile)
        content = await file.read()
        return JSONResponse(
            {
                "title": title,
                "name": file.filename,
                "size": len(content),
                "digest": facts.digest(content),
            }
        )


async def events(request: Request) -> Response:
    async def made() -> AsyncIterator[str]:
        for number in range(3):
            yield f"event: count\ndata: {number}\n\n"

    return StreamingResponse(made(), media_type="text/event-stream")


async def background(request: Request) -> Response:
    task = BackgroundTask(released.wait, request.path_params["key"])
    return JSONResponse({"accepted": True}, status_code=202, background=task)


async def release(request: Request) -> Response:
    released.release(request.path_params["key"])
    return Response(status_code=204)


async def noted(request: Request) -> Response:
    return JSONResponse(facts.noted(request.path_params["key"]))


async def endless(request: Request) -> Response:
    return StreamingResponse(facts.ticks(request.path_params["key"]), media_type="text/plain")


async def polled(request: Request) -> Response:
    """Ask after the client, and send nothing meanwhile."""

    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        while not await request.is_disconnected():
            await anyio.sleep(0.002)
        facts.note(request.path_params["key"], "is_disconnected")

    return StreamingResponse(made(), media_type="text/plain")


async def group(request: Request) -> Response:
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
                    facts.note(request.path_params["key"], "cancelled")
                    raise

            tasks.start_soon(listen)
            tasks.start_soon(work)

    return StreamingResponse(made(), media_type="text/plain")


async def started(request: Request) -> Response:
    return JSONResponse({"started": request.state.started})


async def fail(request: Request) -> Response:
    raise RuntimeError("this is meant to fail")


async def broken(request: Request) -> Response:
    async def made() -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("this is meant to break")

    return StreamingResponse(made(), media_type="text/plain")


async def place(request: Request) -> Response:
    return JSONResponse(facts.place(request.scope))


async def thread(request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(facts.in_thread))


async def chat(websocket: WebSocket) -> None:
    key = websocket.path_params["key"]
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat" if "chat" in offered else None)
    try:
        while (text := await websocket.receive_text()) != "bye":
            await websocket.send_json({"said": text, **facts.ids()})
    except WebSocketDisconnect as error:
        facts.note(key, f"disconnect {error.code}")
        return
    await websocket.close(4000, "bye")


async def surround(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Surround a request by a task group of anyio, as BaseHTTPMiddleware does."""
    response = await call_next(request)
    response.headers["x-surrounded"] = "yes"
    return response


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", hello),
        Route("/items/{number:int}", item),
        Route("/stream", stream),
        Route("/upload", upload, methods=["POST"]),
        Route("/events", events),
        Route("/background/{key}", background, methods=["POST"]),
        Route("/release/{key}", release, methods=["POST"]),
        Route("/noted/{key}", noted),
        Route("/endless/{key}", endless),
        Route("/polled/{key}", polled),
        Route("/group/{key}", group),
        Route("/started", started),
        Route("/fail", fail),
        Route("/broken", broken),
        Route("/place", place),
        Route("/thread", thread),
        WebSocketRoute("/chat/{key}", chat),
        Mount(
            "/surrounded",
            routes=[
                Route("/", hello),
                Route("/upload", upload, methods=["POST"]),
                Route("/endless/{key}", endless),
                Route("/group/{key}", group),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=surround)],
        ),
    ],
)
