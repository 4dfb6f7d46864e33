"""Flask's tutorial application: `h2log run --interface wsgi tests.frameworks.flask_app:app`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

from tests.frameworks import facts

app = Flask(__name__)


@app.get("/")
def hello() -> dict[str, str]:
    return {"hello": "world"}


@app.get("/items/<int:number>")
def item(number: int) -> dict[str, int]:
    return {"number": number, "double": 2 * number}


@app.get("/stream")
def stream() -> Response:
    def made() -> Iterator[bytes]:
        for number in range(facts.CHUNKS):
            yield b"chunk %d\n" % number

    return Response(made(), content_type="text/plain")


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    content = file.read()
    return {
        "title": request.form["title"],
        "name": file.filename,
        "size": len(content),
        "digest": facts.digest(content),
    }


@app.get("/fail")
def fail() -> Response:
    raise RuntimeError("this is meant to fail")


@app.get("/thread")
def thread() -> dict[str, Any]:
    return facts.in_thread()
