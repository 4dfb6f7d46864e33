"""From a handler's response to its reply: content of every kind, trailers, keep-alive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable
from functools import partial
from io import FileIO
from typing import Final

from h2log.access.exchange import Exchange
from h2log.app.events import KEEP_ALIVE, EventStream
from h2log.app.files.shared import SharedFile
from h2log.app.files.threads import in_thread
from h2log.app.response import NO_CONTENT_STATUS, FileContent, Response, lower_fields
from h2log.server.framed import MOST_FRAMED
from h2log.server.reply import Reply

__all__ = ["FILE_CHUNK", "deliver", "deliver_file_now", "deliver_now", "finish"]

FILE_CHUNK: Final = MOST_FRAMED
"""Bytes of a large file that are read at a time: a thread's round trip costs as much as copying
this many."""
_NO_WAIT: Final = getattr(os, "RWF_NOWAIT", None)  # Linux


def deliver_now(response: Response, exchange: Exchange, reply: Reply) -> None:
    """Send a response whose body is bytes.

    Raises ValueError and TypeError for a response that cannot be sent, before anything was.
    """
    if reply.closed:
        return
    body = response.body
    assert isinstance(body, bytes)
    bare = _bare(exchange, response)
    _check(response, None if bare else len(body))
    if response.trailers is None or bare:
        reply.answer(response, b"" if bare else body)
        return
    trailers = response.trailer_fields()
    reply.start(response, end=False)
    reply.write(body)
    reply.finish(trailers)


def deliver_file_now(response: Response, exchange: Exchange, reply: Reply) -> bool:
    """Send a response whose body is a small part of a file, if it has nothing to wait for.

    Says whether it was sent; else nothing was, also of one that cannot be sent.
    """
    content = response.body
    assert isinstance(content, FileContent)
    if not 0 < content.length <= MOST_FRAMED or response.trailers is not None:
        return False
    if reply.closed or _bare(exchange, response):
        return False
    try:
        _check(response, content.length)
        sent = reply.file_now(response, content)
    except (TypeError, ValueError):  # for `deliver` to tell
        return False
    if sent:
        content.file.close()
    return sent


async def deliver(response: Response, exchange: Exchange, reply: Reply) -> None:
    """Send a response of any kind; what its body holds open is closed at the end, always.

    Raises what the body raises, and as `deliver_now`; the response may have begun by then.
    """
    body = response.body
    if isinstance(body, FileContent):
        await _send_file(response, body, exchange, reply)
    elif isinstance(body, AsyncIterable):
        try:
            await _send_pieces(response, body, exchange, reply)
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
    elif isinstance(body, bytes):
        deliver_now(response, exchange, reply)
    else:
        raise TypeError(f"the response's body became {type(body).__name__}, expected bytes")


async def _send_pieces(
    response: Response, body: AsyncIterable[bytes], exchange: Exchange, reply: Reply
) -> None:
    if reply.closed:
        return
    bare = _bare(exchange, response)
    declared = _check(response, None)
    reply.start(response, end=bare)
    if bare:
        return
    sent = 0
    quiet = None
    if isinstance(body, EventStream) and body.keep_alive is not None and declared is None:
        quiet = _Quiet(reply, body.keep_alive)
    try:
        await reply.drain()
        async for piece in body:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(
                    f"the response's iterator gave {type(piece).__name__}, expected bytes"
                )
            if piece:
                sent += len(piece)
                if declared is not None and sent > declared:
                    raise ValueError(f"more content than its content-length of {declared}")
                reply.write(bytes(piece))
                if quiet is not None:
                    quiet.pause()
                await reply.drain()
                if quiet is not None:
                    quiet.begin()
            if reply.closed:
                return
    finally:
        if quiet is not None:
            quiet.end()
    if declared is not None and sent < declared:
        raise ValueError(f"{sent} bytes of content, less than its content-length of {declared}")
    finish(response, reply)


class _Quiet:
    """Sends a comment whenever a stream of events has been quiet for as long as it may."""

    __slots__ = ("_loop", "_reply", "_seconds", "_since", "_timer")

    def __init__(self, reply: Reply, seconds: float) -> None:
        self._reply = reply
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: float | None = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    def pause(self) -> None:
        """An event was sent, and its client may not take it yet."""
        self._since = None

    def begin(self) -> None:
        """It took it."""
        self._since = self._loop.time()

    def end(self) -> None:
        """Nothing more is sent."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._reply.closed:
            return
        # Events leave the timer alone: it looks, when it fires, how long ago the last one was.
        now = self._loop.time()
        since = now if self._since is None else self._since
        if now - since >= self._seconds:
            self._reply.write(KEEP_ALIVE)
            since = self._since = now
        self._timer = self._loop.call_at(since + self._seconds, self._look)


async def _send_file(
    response: Response, content: FileContent, exchange: Exchange, reply: Reply
) -> None:
    """Send a part of a file, reading the next piece while the last one goes out."""
    reading: asyncio.Future[bytes] | None = None
    piece: bytes | bytearray | None
    try:
        if reply.closed:
            return
        bare = _bare(exchange, response)
        trailing = response.trailers is not None and not bare
        _check(response, None if bare else content.length)
        reply.start(response, end=bare or not (content.length or trailing))
        if bare:
            return
        offset, left = content.offset, content.length
        descriptor = content.file.fileno()
        while left and not reply.closed:
            sent = await reply.send_file(descriptor, offset, left, not trailing)
            offset += sent
            left -= sent
            if not left or reply.closed:
                break
            size = await reply.room(min(left, FILE_CHUNK))
            if not size:
                return
            piece = _read_now(descriptor, size, offset)
            if piece is None:
                read = partial(_read, content.file, size, offset)
                reading = asyncio.ensure_future(in_thread(read))
                piece = await asyncio.shield(reading)
            if not piece:
                raise OSError("the file became shorter while it was sent")
            offset += len(piece)
            left -= len(piece)
            reply.write(piece, end=not (left or trailing))
            if len(piece) < size:
                reply.give_back(size - len(piece))
        if trailing:
            finish(response, reply)
    finally:
        if reading is not None and not reading.done():
            # A thread is reading: closed under it, its number could be another file's by now.
            reading.add_done_callback(lambda done: _close(content.file, done))
        else:
            content.file.close()


def _read_now(descriptor: int, size: int, offset: int) -> bytearray | None:
    """Return what the system has of a piece in memory; None where it would have to wait for it.

    A thread's round trip costs as much as the reading itself.
    """
    if _NO_WAIT is None:
        return None
    piece = bytearray(size)
    try:
        count = os.preadv(descriptor, (piece,), offset, _NO_WAIT)
    except OSError:  # not in memory, or a file system that cannot tell: the thread says what is
        return None
    if not count:
        return None
    del piece[count:]
    return piece


def _read(file: FileIO | SharedFile, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):  # others may have the same open file, and its position
        return os.pread(file.fileno(), size, offset)
    file.seek(offset)
    return file.read(size)


def _close(file: FileIO | SharedFile, reading: asyncio.Future[bytes]) -> None:
    file.close()
    if not reading.cancelled():
        reading.exception()  # nobody else will ask for it


def finish(response: Response, reply: Reply) -> None:
    """End a response whose content is sent, with its trailers if it has some."""
    if response.trailers is None:
        reply.write(b"", end=True)
    elif not reply.closed:
        reply.finish(response.trailer_fields())


def _bare(exchange: Exchange, response: Response) -> bool:
    """Say whether the response has no content whatever its body (RFC 9110 section 6.4.1)."""
    return exchange.facts.method == "HEAD" or response.status in NO_CONTENT_STATUS


def _check(response: Response, length: int | None) -> int | None:
    """Check what a handler may have changed since it made the response; return its content-length.

    `length` is the content's, where it is known and sent. Raises ValueError and TypeError.
    """
    status: object = response.status  # a handler's code may be untyped
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"the response's status became {status!r}, expected from 200 to 599")
    fields = response.headers = lower_fields(response.headers)
    declared = {value for name, value in fields if name == "content-length"}
    if not declared:
        return None
    if len(declared) > 1:
        raise ValueError(f"several values of content-length: {', '.join(sorted(declared))}")
    [value] = declared
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"invalid content-length {value!r}")
    if length is not None and int(value) != length:
        raise ValueError(f"{length} bytes of content, not its content-length of {value}")
    return int(value)
