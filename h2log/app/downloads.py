"""A file that a handler answers with, wherever it lies: opened right behind the handler.

What surrounds the handler, middleware and error handlers, is around this too: a file that is not
there is a 404 of the handler's, and a condition that is not met a 412.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from h2log.app.conditional import http_time
from h2log.app.files.disk import Opened, Version, tell_trouble
from h2log.app.files.media import media_type
from h2log.app.files.partial import Whole, narrowed
from h2log.app.files.threads import in_thread
from h2log.app.request import Request
from h2log.app.response import FileAt, FileContent, Response, Work
from h2log.clock import http_date, wall
from h2log.errors import HTTPError

__all__ = ["FileError", "with_file"]

# Not O_NOFOLLOW: the path is the application's own. A pipe must not keep the thread that opens it.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
# What a response says of its file is not said of an error in its place.
_OF_THE_FILE: Final = frozenset(
    (
        "accept-ranges", "cache-control", "content-disposition", "content-encoding",
        "content-language", "content-length", "content-location", "content-range", "content-type",
        "digest", "content-digest", "repr-digest", "etag", "expires", "last-modified", "link",
        "trailer",
    )
)  # fmt: skip


class FileError(HTTPError):
    """A file that a handler answered with cannot be sent: it is not there, or was not asked for.

    `headers` are also those of the handler's response that are not the file's, a cookie for one;
    `background` is the work that it left to do.
    """

    def __init__(self, error: HTTPError, response: Response) -> None:
        own = {name.lower() for name, _ in error.headers}
        kept = [
            pair for pair in response.headers if pair[0] not in _OF_THE_FILE and pair[0] not in own
        ]
        super().__init__(error.status, error.detail, (*error.headers, *kept))
        self.background: list[Work] = list(response.background or ())


async def with_file(response: Response, request: Request) -> Response:
    """Return what `response`, whose body is a `FileAt`, is for `request`: its conditions decide.

    The file's type, date and tag are added where the response does not have them; only a 200 to GET
    or HEAD is conditional. Raises FileError, an HTTPError: 404 when there is no such file, 412 and
    416 as its conditions are, and 503 when the server is short of descriptors.
    """
    try:
        return await _with_file(response, request)
    except HTTPError as error:
        raise FileError(error, response) from None


async def _with_file(response: Response, request: Request) -> Response:
    body = response.body
    assert isinstance(body, FileAt)
    opened = await in_thread(lambda: _open(body.path))
    version = opened.version
    headers = list(response.headers)
    given = dict(headers)
    for name, value in (
        ("content-type", media_type(body.path)),
        # Never in the future (RFC 9110 section 8.8.2.1), whatever the file system says.
        ("last-modified", http_date(min(version.modified, int(wall())))),
        ("etag", f'"{version.tag}"'),
        ("accept-ranges", "bytes"),
    ):
        if name not in given:
            headers.append((name, value))
    validators = dict(headers)
    etag, modified = validators["etag"], http_time(validators["last-modified"])
    if response.status == 200 and request.method in ("GET", "HEAD"):
        whole = Whole(b"", headers, etag=etag, modified=modified, size=version.size)
        made = narrowed(request, whole, opened)
    else:
        file = opened.take()
        assert file is not None
        made = Response(FileContent(file, 0, version.size), response.status, headers)
    made.trailers = response.trailers
    made.background = response.background
    return made


def _open(path: str) -> Opened:
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # a NUL
        raise HTTPError(404) from None
    except OSError as error:
        tell_trouble(error)
        raise HTTPError(404) from None
    opened = Opened(descriptor, path, Version(os.fstat(descriptor)))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise HTTPError(404)
    return opened
