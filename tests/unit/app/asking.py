"""Asking a folder without a server: requests, and what they are answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from h2log.app.files.partial import FileParts
from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.app.static import StaticFolder
from h2log.errors import HTTPError

__all__ = ["BROWSER", "CACHE", "Reply", "ask", "request"]

CACHE: Final = 1024 * 1024
BROWSER: Final = "gzip, deflate, br, zstd"
"""What browsers send as Accept-Encoding."""


@dataclass
class Reply:
    """What came back; of several fields with a name the last, and all of them in `fields`."""

    status: int
    headers: dict[str, str]
    body: bytes
    cache: str
    condition: str
    fields: list[tuple[str, str]]
    interim: list[list[tuple[str, str]]]


def request(
    target: str, method: str = "GET", scheme: str = "https", **fields: str | list[str]
) -> Request:
    """Return a request; keywords are header fields, a list is several of a name."""
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Request(
        method=method,
        target=target,
        scheme=scheme,
        authority="localhost",
        fields=tuple(pairs),
        client=("192.0.2.1", 40000),
        session_id="s",
        request_id="r",
        content=None,
    )


async def content_of(response: Response) -> bytes:
    """Return a response's content, wherever it is."""
    body = response.body
    if isinstance(body, FileContent):
        with body.file as file:
            file.seek(body.offset)
            return file.read(body.length) or b""
    if isinstance(body, FileParts):
        return b"".join([piece async for piece in body])
    assert isinstance(body, bytes)
    return body


async def ask(
    folder: StaticFolder,
    target: str,
    method: str = "GET",
    now: float = 0.0,
    scheme: str = "https",
    **fields: str | list[str],
) -> Reply:
    """Return what a folder answers, an HTTPError too."""
    asked = request(target, method, scheme, **fields)
    interim: list[list[tuple[str, str]]] = []
    asked._interim = lambda status, headers: interim.append(headers)
    try:
        answer = folder.answer(asked, now)
        response = answer if isinstance(answer, Response) else await answer
    except HTTPError as error:
        headers = list(error.headers)
        return Reply(
            error.status, dict(headers), b"", asked.cache, asked.condition, headers, interim
        )
    body = await content_of(response)
    headers = response.headers
    return Reply(
        response.status, dict(headers), body, asked.cache, asked.condition, headers, interim
    )
