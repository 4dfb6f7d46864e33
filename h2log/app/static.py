"""A folder's files as responses.

What is never served, always as 404: a name that begins with a dot, `..`, NUL, an encoded slash or
backslash, anything that is no regular file, and whatever a symbolic link leads to outside of the
folder. Files up to `SMALL` are kept in memory, whole and ready; a kept file is compared with the
disk at most once a second. Larger ones are read as they are sent.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from mimetypes import MimeTypes
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import aiofiles.os

from h2log.app.conditional import UNSATISFIABLE, precondition, select_range
from h2log.app.request import Request
from h2log.app.response import FileContent, Response
from h2log.clock import http_date, wall
from h2log.errors import HTTPError

__all__ = ["SMALL", "StaticFolder"]

SMALL: Final = 256 * 1024
"""Bytes of the largest file that is kept in memory (nginx's and Caddy's caches keep none; h2o's
first write is 64 KiB; a page's images and fonts are below this)."""
CHECK_INTERVAL: Final = 1.0
"""Seconds for which a kept file is believed (nginx's open_file_cache_valid: 60)."""
_ENTRY_OVERHEAD: Final = 2048
"""Bytes that an entry takes besides its content, so that many tiny files are bounded too."""

_USUAL_PATH: Final = 512
"""Characters of a URL path that `_ENTRY_OVERHEAD` covers."""

FILE_THREADS: Final = ThreadPoolExecutor(4, "h2log-files")
"""Read files; threads of our own, so that an application that keeps asyncio's busy cannot keep
files from being served."""
_OUR_TROUBLE: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO))

_TYPES: Final = MimeTypes(filenames=())
for _suffix, _type in {
    ".avif": "image/avif",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".toml": "application/toml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}.items():
    _TYPES.add_type(_type, _suffix)
_TEXT_TYPES: Final = frozenset(
    ("application/json", "application/manifest+json", "application/xml", "image/svg+xml")
)


def media_type(path: str) -> str:
    """Return the media type of a file by its name, with `charset=utf-8` where it is text."""
    found, encoding = _TYPES.guess_type(path)
    if encoding is not None:  # a.tar.gz is served as it is, not as a decoded tar
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if found is None:
        return "application/octet-stream"
    if found.startswith("text/") or found in _TEXT_TYPES:
        return f"{found}; charset=utf-8"
    return found


def _segments(path: str) -> list[str] | None:
    """Return the file names that a raw URL path means, None when it may mean none.

    The last is empty when the path ends with a slash.
    """
    names = []
    for part in path.split("/"):
        name = unquote_to_bytes(part.encode("latin-1", "replace"))
        if name[:1] == b"." or b"/" in name or b"\\" in name or b"\0" in name:
            return None
        names.append(os.fsdecode(name))
    if "" in names[:-1]:
        return None
    return names


class _Version:
    """What identifies a file's content on the disk, and the fields that follow from it."""

    __slots__ = ("etag", "identity", "modified", "size")

    def __init__(self, found: os.stat_result) -> None:
        self.identity = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        self.size = found.st_size
        self.modified = int(found.st_mtime)
        self.etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    def same(self, found: os.stat_result) -> bool:
        return self.identity == (
            found.st_dev,
            found.st_ino,
            found.st_mtime_ns,
            found.st_size,
        )


class _Kept:
    """A small file in memory."""

    __slots__ = ("checked", "cost", "file", "response", "version")

    def __init__(
        self, path: str, file: str, version: _Version, response: Response, now: float
    ) -> None:
        self.file = file
        self.version = version
        self.response = response
        self.checked = now
        self.cost = version.size + _ENTRY_OVERHEAD + max(0, len(path) - _USUAL_PATH)


class _Found:
    """What a URL path means on the disk: a small file's content, or a large one, open."""

    __slots__ = ("_descriptor", "content", "file", "version")

    def __init__(
        self, file: str, version: _Version, content: bytes | None, descriptor: int = -1
    ) -> None:
        self.file = file
        self.version = version
        self.content = content
        self._descriptor = descriptor

    def adopt(self) -> FileIO:
        """Return the open file; whoever has it closes it."""
        file = FileIO(self._descriptor, "rb")
        self._descriptor = -1
        return file

    def __del__(self) -> None:
        # Found in a thread for a request that was cancelled meanwhile: nobody else will close it.
        if self._descriptor >= 0:
            os.close(self._descriptor)


class StaticFolder:
    """Answers GET and HEAD with the files of `root`; a folder's file is its `index.html`.

    `prefix` is the part of the URL path that stands for the folder; `cache_bytes` bounds the
    memory for small files. Raises FileNotFoundError or NotADirectoryError for a wrong root.
    """

    def __init__(self, root: str | os.PathLike[str], prefix: str, cache_bytes: int) -> None:
        self.root = os.path.realpath(root, strict=True)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(f"{root} is not a folder")
        self._inside = os.path.join(self.root, "")
        self._prefix = prefix
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0

    # From memory

    def kept(self, path: str, now: float) -> Response | None:
        """Return the whole response for a plain GET or HEAD of a raw URL path, if it is in memory.

        `now` is the monotonic time; once a second the file on the disk is looked at.
        """
        entry = self._kept.get(path)
        if entry is None:
            return None
        if now - entry.checked > CHECK_INTERVAL:
            try:
                fresh = entry.version.same(os.stat(entry.file))
            except OSError:
                fresh = False
            if not fresh:
                self._drop(path)
                return None
            entry.checked = now
            self._kept.move_to_end(path)
        return entry.response

    def _drop(self, path: str) -> None:
        entry = self._kept.pop(path, None)
        if entry is not None:
            self._kept_bytes -= entry.cost

    def _keep(self, path: str, entry: _Kept) -> None:
        self._drop(path)
        if entry.cost > self._cache_bytes:
            return
        self._kept[path] = entry
        self._kept_bytes += entry.cost
        while self._kept_bytes > self._cache_bytes:
            self._drop(next(iter(self._kept)))

    # Answering

    def answer(self, request: Request, now: float) -> Response | Awaitable[Response]:
        """Answer a request for something below the prefix; awaits only for what is not in memory.

        Raises HTTPError 404 and 405.
        """
        if request.method not in ("GET", "HEAD"):
            raise HTTPError(405, headers=(("allow", "GET, HEAD, OPTIONS"),))
        path = request.raw_path
        response = self.kept(path, now)
        if response is None:
            request.cache = "miss"
            return self._load(request, path, now)
        request.cache = "hit"
        entry = self._kept[path]
        body = response.body
        assert isinstance(body, bytes)
        special = self._special(request, entry.version, response)
        if special is None:
            return response
        if isinstance(special, Response):
            return special
        first, last = special
        return self._partial(response, entry.version, first, last, body[first : last + 1])

    async def _load(self, request: Request, path: str, now: float) -> Response:
        found = await _find_in_thread(self, path, executor=FILE_THREADS)
        if isinstance(found, str):
            _, mark, query = request.target.partition("?")
            return Response.redirect(found + mark + query, 308)
        if found is None:
            return await self._not_found(now)
        headers = self._headers(found.file, found.version)
        if found.content is not None:
            response = Response(found.content, 200, headers)
            self._keep(path, _Kept(path, found.file, found.version, response, now))
            special = self._special(request, found.version, response)
            if special is None:
                return response
            if isinstance(special, Response):
                return special
            first, last = special
            piece = found.content[first : last + 1]
            return self._partial(response, found.version, first, last, piece)
        file = found.adopt()
        whole = Response(FileContent(file, 0, found.version.size), 200, headers)
        try:
            special = self._special(request, found.version, whole)
        except HTTPError:
            file.close()
            raise
        if special is None:
            return whole
        if isinstance(special, Response):
            file.close()
            return special
        first, last = special
        content = FileContent(file, first, last - first + 1)
        return self._partial(whole, found.version, first, last, content)

    def _headers(self, file: str, version: _Version) -> list[tuple[str, str]]:
        return [
            ("content-type", media_type(file)),
            # Never in the future (RFC 9110 section 8.8.2.1), whatever the file system says.
            ("last-modified", http_date(min(version.modified, int(wall())))),
            ("etag", version.etag),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
        ]

    def _special(
        self, request: Request, version: _Version, whole: Response
    ) -> Response | tuple[int, int] | None:
        """Return what conditions make of the whole response: another, a range, or None."""
        headers = request.headers
        status = precondition(headers, version.etag, version.modified)
        if status is not None:
            tags = "if-match" in headers or "if-none-match" in headers
            request.condition = "etag" if tags else "date"
        if status == 304:  # RFC 9110 section 15.4.5: what a 200 would have said of the content
            kept = [pair for pair in whole.headers if pair[0] != "content-type"]
            return Response(b"", 304, kept)
        if status is not None:
            raise HTTPError(status)
        if request.method != "GET":  # a Range is defined for GET alone (section 14.2)
            return None
        wanted = select_range(headers, version.etag, version.modified, version.size)
        if wanted is not None:
            request.condition = "range"
        if wanted == UNSATISFIABLE:
            raise HTTPError(416, headers=(("content-range", f"bytes */{version.size}"),))
        return wanted

    def _partial(
        self,
        whole: Response,
        version: _Version,
        first: int,
        last: int,
        content: bytes | FileContent,
    ) -> Response:
        span = ("content-range", f"bytes {first}-{last}/{version.size}")
        return Response(content, 206, [*whole.headers, span])

    async def _not_found(self, now: float) -> Response:
        """Return the folder's own 404 page, if it has one."""
        path = self._prefix + "404.html"
        page = self.kept(path, now)
        if page is None:
            found = await _find_in_thread(self, path, executor=FILE_THREADS)
            if not isinstance(found, _Found) or found.content is None:
                raise HTTPError(404)
            page = Response(found.content, 200, self._headers(found.file, found.version))
            self._keep(path, _Kept(path, found.file, found.version, page, now))
        return Response(page.body, 404, [("content-type", "text/html; charset=utf-8")])

    # On the disk: these block, and run in a thread

    def _find(self, path: str) -> _Found | str | None:
        """Find what a raw URL path means; a text is where a folder without its slash leads."""
        names = _segments(path[len(self._prefix) :])
        if names is None:
            return None
        folder = not names[-1]
        file = os.path.join(self.root, *names[:-1], names[-1] or "index.html")
        try:
            resolved = os.path.realpath(file, strict=True)
            if not resolved.startswith(self._inside):
                # The root itself, asked for without its slash, is inside too.
                return self._slash(path) if resolved == self.root and not folder else None
            # What was resolved is opened, and nothing that took its place: neither a link, nor a
            # pipe that would wait for its other end.
            descriptor = os.open(resolved, os.O_RDONLY | _OPEN_FLAGS)
        except ValueError:
            return None
        except OSError as error:
            if error.errno in _OUR_TROUBLE:
                raise HTTPError(503) from None
            return None
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode) and not folder:
                return self._slash(path)
            if not stat.S_ISREG(found.st_mode):
                return None
            version = _Version(found)
            if version.size > SMALL:
                large = _Found(file, version, None, descriptor)
                descriptor = -1
                return large
            return _Found(file, *_read_version(descriptor, version))
        except OSError:
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _slash(self, path: str) -> str:
        # Rebuilt from what it means, so that it cannot begin with two slashes: another host.
        names = path.encode("latin-1", "replace").strip(b"/").split(b"/")
        parts = [quote(unquote_to_bytes(name), safe="") for name in names if name]
        return "/" + "".join(f"{part}/" for part in parts)


_OPEN_FLAGS: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


def _read_version(descriptor: int, version: _Version) -> tuple[_Version, bytes]:
    """Read a small file, and what identifies just that content, also while it is being written."""
    content = b""
    for _ in range(3):
        content = _read_all(descriptor, min(version.size, SMALL))
        found = os.fstat(descriptor)
        if version.same(found) and len(content) == version.size:
            return version, content
        version = _Version(found)
    version.size = len(content)
    version.etag = f'"{time.time_ns():x}-{len(content):x}"'
    version.identity = (-1, -1, -1, -1)  # never the same again: the next look reads it anew
    return version, content


def _read_all(descriptor: int, size: int) -> bytes:
    """Read `size` bytes from the start of a file, less where it ends before."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    pieces = []
    left = size
    while left > 0 and (piece := os.read(descriptor, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


_find_in_thread = aiofiles.os.wrap(StaticFolder._find)
