"""An application that takes and gives a gigabyte: `run tests.server.gigabyte_app:app`.

`GIGABYTE_FOLDER` is the folder whose files it serves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator

from h2log import App, Request, Response

app = App()
app.static(os.environ["GIGABYTE_FOLDER"], at="/files")


@app.put("/upload")
async def upload(request: Request) -> Response:
    """Return the digest of the content, read as it comes."""
    digest = hashlib.sha256()
    async for piece in request:
        digest.update(piece)
    return Response.text(digest.hexdigest())


@app.post("/form")
async def form(request: Request) -> Response:
    """Return the digest of a form's file."""
    digest = hashlib.sha256()
    file = (await request.form()).file("file")
    assert file is not None
    async for piece in file:
        digest.update(piece)
    return Response.text(digest.hexdigest())


@app.get("/stream/{size:int}")
async def stream(request: Request) -> Response:
    """Send that many bytes, made as they are sent; their digest is the trailer."""
    digest = hashlib.sha256()
    left: int = request.params["size"]

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal left
        n = 0
        while left:
            piece = n.to_bytes(8, "big") * 8192
            piece = piece[:left]
            digest.update(piece)
            left -= len(piece)
            n += 1
            yield piece

    return Response(pieces(), trailers=lambda: {"x-sum": digest.hexdigest()})
