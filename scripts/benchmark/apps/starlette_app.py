"""The application of the benchmark for Starlette: JSON on a path, and the same 300 routes.

Starlette tries its routes in turn; the one without a number in it comes first.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def greet(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world", "numbers": [1, 2, 3]})


def resource(name: str) -> list[Route]:
    """Return the routes of a resource."""

    async def index(request: Request) -> JSONResponse:
        return JSONResponse({"resource": name})

    async def one(request: Request) -> JSONResponse:
        return JSONResponse({"resource": name, "id": request.path_params["id"]})

    async def part(request: Request) -> JSONResponse:
        return JSONResponse({"resource": name, **request.path_params})

    return [
        Route(f"/api/{name}", index),
        Route(f"/api/{name}/{{id:int}}", one),
        Route(f"/api/{name}/{{id:int}}/{{part}}", part),
    ]


app = Starlette(
    routes=[
        Route("/json", greet),
        *(route for number in range(100) for route in resource(f"resource-{number:03}")),
    ]
)
