"""The application of the benchmark's 300 routes for `h2log run`: three for each resource."""

from __future__ import annotations

from h2log import App, Request, Response

app = App()


def resource(name: str) -> None:
    """Register the routes of a resource."""

    @app.get(f"/api/{name}")
    async def index(request: Request) -> Response:
        return Response.json({"resource": name})

    @app.get(f"/api/{name}/{{id:int}}")
    async def one(request: Request) -> Response:
        return Response.json({"resource": name, "id": request.params["id"]})

    @app.get(f"/api/{name}/{{id:int}}/{{part}}")
    async def part(request: Request) -> Response:
        return Response.json({"resource": name, **request.params})


for number in range(100):
    resource(f"resource-{number:03}")
