"""What conditions and ranges leave of a whole response (RFC 9110 sections 13, 14 and 15.3.7).

The order is that of section 13.2.2: preconditions first, then ranges. Ranges are of the selected
representation, after its content coding (section 14.2), so their lengths and tags are its own.
"""

from __future__ import annotations

import secrets
from threading import Lock
from typing import Final

from h2log.app.conditional import precondition, select_ranges
from h2log.app.files.disk import Opened
from h2log.app.files.threads import in_thread
from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.clock import wall
from h2log.errors import HTTPError

__all__ = ["FileParts", "OpenWhole", "Part", "Whole", "all_of", "narrowed"]

_PIECE: Final = 64 * 1024
"""Bytes that are read at a time of several parts of a large file: what a stream queues at most."""
# What a 304 does not repeat (section 15.4.5): of the content that is not sent, or weaker than the
# tag that every response of ours has.
_OF_THE_CONTENT: Final = frozenset(
    ("content-type", "content-encoding", "last-modified", "accept-ranges", "content-length")
)


class Whole(Response):
    """A whole 200: the response, and what its conditions are compared with.

    `etag` is its entity tag, `modified` its date in epoch seconds, if it has one, `size` the length
    of its content. A large one has no content itself, that is in a file.
    """

    __slots__ = ("etag", "modified", "size")

    def __init__(
        self,
        content: bytes,
        headers: list[tuple[str, str]],
        *,
        etag: str,
        modified: int | None,
        size: int,
    ) -> None:
        super().__init__(content, 200, headers)
        self.etag = etag
        self.modified = modified
        self.size = size

    def header(self, name: str) -> str:
        """Return the value of a field, nothing without it."""
        return next((value for key, value in self.headers if key == name), "")


class OpenWhole(Whole):
    """A whole 200 of a large file that is kept open: what a part is sent from without looking.

    `opened` may have been closed meanwhile. A part of it is logged as a `Part`.
    """

    __slots__ = ("opened", "part_head")

    def __init__(self, whole: Whole, opened: Opened, route: str) -> None:
        super().__init__(
            b"", whole.headers, etag=whole.etag, modified=whole.modified, size=whole.size
        )
        self.opened = opened
        self.route = route
        self.part_head = b""
        """Owned by whoever sends it: what the header sections of its parts begin with."""


class Part:
    """What a part of a large file was answered with: the bytes from `first` to `last`."""

    __slots__ = ("_first", "_last", "_whole")

    def __init__(self, whole: OpenWhole, first: int, last: int) -> None:
        self._whole = whole
        self._first = first
        self._last = last

    @property
    def route(self) -> str:
        """The folder's pattern."""
        return self._whole.route

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields."""
        return [*self._whole.headers, _span(self._first, self._last, self._whole.size)]

    def content_length(self) -> int:
        """Return the length of the part."""
        return self._last - self._first + 1


def _span(first: int, last: int, size: int) -> tuple[str, str]:
    return ("content-range", f"bytes {first}-{last}/{size}")


class FileParts:
    """Several parts of an open file, each behind its head, read as they are sent."""

    def __init__(self, opened: Opened, parts: list[tuple[bytes, int, int]], end: bytes) -> None:
        self._opened = opened
        self._parts = iter([*parts, (end, 0, 0)])
        self._at = self._left = 0
        self._reading = Lock()
        self._closed = False
        self.length = sum(len(head) + size for head, _, size in parts) + len(end)
        """Bytes of all of it."""

    def __aiter__(self) -> FileParts:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        if self._left:
            piece = await in_thread(self._read)
            if not piece:
                raise OSError("the file became shorter while it was sent")
            self._at += len(piece)
            self._left -= len(piece)
            return piece
        head, self._at, self._left = next(self._parts, (b"", 0, 0))
        if not head:
            self._close()
            raise StopAsyncIteration
        return head

    def _read(self) -> bytes:
        """Read the next piece; in a thread."""
        with self._reading:
            piece = b"" if self._closed else self._opened.read_at(self._at, min(self._left, _PIECE))
        if self._closed:
            self._close()
        return piece

    async def aclose(self) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        self._closed = True
        # A thread that reads closes it at its end: closed under it, its number could be another
        # file's by now.
        if self._reading.acquire(blocking=False):
            try:
                self._opened.close()
            finally:
                self._reading.release()


def all_of(whole: Whole, opened: Opened | None = None) -> Response:
    """Return the whole response, where `opened`, if any, is the file with its content."""
    return whole if opened is None else _file(200, whole.headers, opened, 0, whole.size)


def narrowed(request: Request, whole: Whole, opened: Opened | None = None) -> Response:
    """Return what a GET or HEAD is answered with, where without its conditions it is `whole`.

    `opened` is the file with the content, when that is not in `whole`; it is closed when the
    response needs none of it. Notes on the request what decided. Raises HTTPError 412 and 416.
    """
    try:
        return _narrowed(request, whole, opened)
    except HTTPError:
        if opened is not None:
            opened.close()
        raise


def _narrowed(request: Request, whole: Whole, opened: Opened | None) -> Response:
    headers = request.headers
    status = precondition(headers, whole.etag, whole.modified)
    if status is not None:
        tags = "if-match" in headers or "if-none-match" in headers
        request.condition = "etag" if tags else "date"
    if status == 304:
        if opened is not None:
            opened.close()
        kept = [pair for pair in whole.headers if pair[0] not in _OF_THE_CONTENT]
        return Response(b"", 304, kept)
    if status is not None:
        raise HTTPError(status)
    ranges = None
    if request.method == "GET":  # a Range is defined for GET alone (section 14.2)
        ranges = select_ranges(headers, whole.etag, whole.modified, whole.size, wall())
    if ranges is None:
        return all_of(whole, opened)
    request.condition = "range"
    if not ranges:
        raise HTTPError(416, headers=(("content-range", f"bytes */{whole.size}"),))
    if len(ranges) == 1:
        [(first, last)] = ranges
        span = _span(first, last, whole.size)
        if opened is not None:
            return _file(206, [*whole.headers, span], opened, first, last - first + 1)
        assert isinstance(whole.body, bytes)
        return Response(whole.body[first : last + 1], 206, [*whole.headers, span])
    if whole.header("content-encoding"):
        # Its field would be said of the parts' frame too, which is not encoded.
        request.condition = ""
        return all_of(whole, opened)
    return _several(whole, ranges, opened)


def _file(
    status: int, headers: list[tuple[str, str]], opened: Opened, offset: int, length: int
) -> Response:
    file = opened.take()
    assert file is not None
    return Response(FileContent(file, offset, length), status, headers)


def _several(whole: Whole, ranges: list[tuple[int, int]], opened: Opened | None) -> Response:
    """Return a multipart/byteranges of the parts (section 14.6)."""
    boundary = secrets.token_hex(16)
    media = whole.header("content-type")
    parts = []
    delimiter = f"--{boundary}"
    for first, last in ranges:
        head = (
            f"{delimiter}\r\ncontent-type: {media}\r\n"
            f"content-range: bytes {first}-{last}/{whole.size}\r\n\r\n"
        )
        parts.append((head.encode("latin-1"), first, last - first + 1))
        delimiter = f"\r\n--{boundary}"
    end = f"{delimiter}--\r\n".encode()
    headers = [pair for pair in whole.headers if pair[0] != "content-type"]
    headers.insert(0, ("content-type", f"multipart/byteranges; boundary={boundary}"))
    if opened is not None:
        body = FileParts(opened, parts, end)
        return Response(body, 206, [*headers, ("content-length", str(body.length))])
    content = whole.body
    assert isinstance(content, bytes)
    pieces = [piece for head, at, size in parts for piece in (head, content[at : at + size])]
    return Response(b"".join([*pieces, end]), 206, headers)
