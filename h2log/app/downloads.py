"""A file that a handler answers with, wherever it lies: opened when the response is sent."""

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
from h2log.app.response import FileAt, FileContent, Response
from h2log.clock import http_date, wall
from h2log.errors import HTTPError

__all__ = ["with_file"]

# Not O_NOFOLLOW: the path is the application's own. A pipe must not keep the thread that opens it.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


async def with_file(response: Response, request: Request) -> Response:
    """Return what `response`, whose body is a `FileAt`, is for `request`: its conditions decide.

    The file's type, date and tag are added where the response does not have them; only a 200 to GET
    or HEAD is conditional. Raises HTTPError 404 when there is no such file, 412 and 416 as its
    conditions are, and 503 when the server is short of descriptors.
    """
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
