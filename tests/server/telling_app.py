"""An application that tells what it takes its client for, also in a process of its own."""

from __future__ import annotations

from h2log import App, Request, Response

__all__ = ["app", "telling"]


def telling() -> App:
    """Return an application that says whom it takes for its client, and how it was asked."""
    app = App()

    @app.get("/")
    def tell(request: Request) -> Response:
        client, port = request.client
        return Response.json(
            {
                "client": client,
                "port": port,
                "scheme": request.scheme,
                "authority": request.authority,
            }
        )

    return app


app = telling()
