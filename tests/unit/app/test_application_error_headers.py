"""What an error came with reaches the client, also when a handler answers it."""

from __future__ import annotations

from h2log.app.application import App
from h2log.app.middleware import CallNext
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError
from tests.unit.app.application_asking import ask

PAGE = Response.html("<h1>no</h1>", 404)


def build() -> App:
    """Return an application whose middleware gives a cookie to errors, and that has a page."""
    app = App()

    @app.middleware
    async def cookie(request: Request, call_next: CallNext) -> Response:
        try:
            return await call_next(request)
        except HTTPError as error:
            fields = (("Set-Cookie", "a=b"), ("content-type", "text/plain"))
            raise HTTPError(error.status, "", (*error.headers, *fields)) from error

    @app.error(404)
    async def absent(request: Request, error: HTTPError) -> Response:
        return PAGE

    @app.error(405)
    def wrong(request: Request, error: HTTPError) -> Response:
        return Response.text("wrong", 405)

    @app.post("/only")
    def only(request: Request) -> Response:
        return Response.text("posted")

    return app


async def test_a_cookie_of_middleware_reaches_the_client() -> None:
    """The page's own fields stay, and the page itself is not changed for the next request."""
    app = build()
    for _ in range(2):
        response = await ask(app, "/absent")
        assert response.status == 404
        assert response.headers == {
            "content-type": "text/html; charset=utf-8",
            "set-cookie": "a=b",
        }
    assert [name for name, _ in PAGE.headers] == ["content-type"]


async def test_a_405_has_its_allow() -> None:
    """As RFC 9110 section 15.5.6 asks of every one."""
    response = await ask(build(), "/only")
    assert response.headers["allow"] == "OPTIONS, POST"
