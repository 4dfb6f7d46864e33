"""Asking an application without a server."""

from __future__ import annotations

from typing import NamedTuple

from h2log.app.application import App
from h2log.app.request import Request
from h2log.app.response import Response
from h2log.errors import HTTPError

__all__ = ["Told", "ask", "request"]


def request(
    target: str,
    method: str = "GET",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    protocol: str = "",
) -> Request:
    """Return a request."""
    return Request(
        method=method,
        target=target,
        scheme="https",
        authority="localhost",
        fields=fields,
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=None,
        protocol=protocol,
    )


class Told(NamedTuple):
    """What a client would be told; of an HTTPError the detail, and its fields."""

    status: int
    body: bytes
    headers: dict[str, str]


async def ask(
    app: App, target: str | Request, method: str = "GET", *, protocol: str = "", now: float = 0.0
) -> Told:
    """Return the answer; an HTTPError that comes through is one. Other exceptions are raised."""
    asked = request(target, method, protocol=protocol) if isinstance(target, str) else target
    try:
        answer = app.answer(asked, now)
        response = answer if isinstance(answer, Response) else await answer
    except HTTPError as error:
        return Told(error.status, error.detail.encode(), dict(error.headers))
    assert isinstance(response.body, bytes)
    return Told(response.status, response.body, dict(response.headers))
