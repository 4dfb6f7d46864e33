"""The application of the benchmark for `h2log run`."""

from __future__ import annotations

from h2log import App, Response

app = App()


@app.get("/json")
async def greet(request: object) -> Response:
    """Make JSON for each request."""
    return Response.json({"hello": "world", "numbers": [1, 2, 3]})
