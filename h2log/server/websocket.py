"""One WebSocket over a two-way stream of bytes: messages, pings, and how it ends (RFC 6455).

The states:

    OPEN --our Close--> CLOSING --the client's Close--> OVER
      OPEN --the client's Close, answered with ours--> OVER
      OPEN --a fault of either side, after a Close that says so--> OVER
      CLOSING --no Close for `close_timeout`--> OVER
      OPEN, CLOSING --the stream is gone--> OVER

What comes is read when it comes, and pings are answered then, whether or not the application
receives; when it leaves too many messages waiting nothing more is read, and the client's windows
fill. wsproto reads the frames, but those of `simple_message`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from wsproto.frame_protocol import CloseReason, Frame, Opcode, ParseFailed

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.clock import monotonic
from h2log.config import WebSocketSettings
from h2log.errors import SessionError
from h2log.server.asgi_lost import ClientGoneError
from h2log.server.background import ids_of
from h2log.server.content import ContentBuffer
from h2log.server.reply import Reply
from h2log.server.websocket_codes import ABNORMAL, GOING_AWAY, INTERNAL, POLICY
from h2log.server.websocket_frames import Bounds, Frames, Message, Parts, simple_message
from h2log.server.websocket_handshake import DeflateTerms

__all__ = ["WebSocket"]

_logger = logging.getLogger("h2log.websocket")

_UNDRAINED: Final = 16 * 1024
"""Bytes that are sent before it is asked again whether there is room: small messages of one turn go
out together."""
_TURN: Final = 256 * 1024
_MESSAGE: Final = 2048
"""Bytes that are sent before the loop has a turn, and what each message counts besides, though
there is room for more: see `asgi_http`."""
_APART: Final = 16 * 1024
"""Bytes of the largest message that is copied to be behind its head."""

_PING_SIZE: Final = 4
"""Bytes of a ping that no other is likely to have (as `websockets`)."""


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()
    OVER = auto()


class WebSocket:
    """A WebSocket that was accepted: `reply.switch` was called. One task may receive, any may send.

    It ends the stream, and decides what the request's line says of its end: COMPLETE after both
    Close frames, MALFORMED for a client that broke the protocol, SERVER_RESET for one that went
    over a bound, TIMEOUT for one that left a ping or our Close without an answer, SHUTDOWN when
    that Close was the server's, HANDLER_ERROR for a fault of the application's. Who loses the
    stream decides for it otherwise.
    """

    __slots__ = (
        "_bounds",
        "_content",
        "_deadline",
        "_exchange",
        "_fed",
        "_frames",
        "_heard",
        "_late",
        "_messages",
        "_parts",
        "_paused",
        "_reading",
        "_reply",
        "_sending",
        "_settings",
        "_state",
        "_timer",
        "_turn",
        "_undrained",
        "_waiters",
        "_waiting",
        "code",
        "on_over",
        "reason",
    )

    def __init__(
        self,
        exchange: Exchange,
        reply: Reply,
        content: ContentBuffer,
        settings: WebSocketSettings,
        terms: DeflateTerms | None,
    ) -> None:
        self._exchange = exchange
        self._reply = reply
        self._content = content
        self._settings = settings
        self._bounds = Bounds(terms, settings.max_message, settings.compression_threshold)
        self._frames = Frames(client=False, extensions=[self._bounds])
        self._fed = 0  # bytes that wsproto was given
        self._state = _State.OPEN
        self._messages: deque[Message] = deque()
        self._waiting = 0  # the size of them all
        self._parts: Parts | None = None
        self._paused = False  # the application leaves too much waiting: nothing is read
        self._reading = False
        self._undrained = 0  # bytes that were sent since `drain` was asked last
        self._turn = 0  # what was sent since the loop had one
        self._sending = 0  # senders that wait for the client to take something
        self._heard = False  # something has come since the ping that waits for an answer
        self._late = Outcome.TIMEOUT  # what it is when the client does not answer our Close
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None  # of the next ping, or of the client's Close
        self._deadline: asyncio.TimerHandle | None = None  # of the answer to a ping
        self.code = ABNORMAL
        """Why it has ended, as the application is told: the client's code, or ours."""
        self.reason = ""
        self.on_over: Callable[[], None] | None = None
        """Called, if set, when it is over."""

    def start(self) -> None:
        """Read from now on."""
        content = self._content
        content.listen(self._told)
        if self._settings.ping_interval:
            self._ping_later()
        self._told()

    @property
    def open(self) -> bool:
        """Neither side has closed it."""
        return self._state is _State.OPEN

    @property
    def over(self) -> bool:
        """Nothing more is sent or received."""
        return self._state is _State.OVER

    # The application's side

    async def receive(self) -> Message | None:
        """Return the next message; None when it is over, and `code` and `reason` tell why."""
        while not self._messages:
            if self._state is not _State.OPEN:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        message = self._messages.popleft()
        self._waiting -= len(message)
        self._go_on()
        return message

    async def send(self, message: Message) -> None:
        """Send a message; return when there is room for more. Raises OSError when it is closed."""
        if self._state is not _State.OPEN:
            raise ClientGoneError("the WebSocket is closed")
        reply = self._reply
        head, payload = self._bounds.outgoing(message)
        if len(payload) > _APART:
            reply.write(head)
            reply.write(payload)
        else:
            reply.write(head + payload)
        self._undrained += len(head) + len(payload)
        self._turn += len(payload) + _MESSAGE
        if self._undrained < _UNDRAINED and self._turn < _TURN:
            return
        self._undrained = 0
        self._sending += 1
        try:
            await reply.drain()
            if self._turn >= _TURN:
                self._turn = 0
                await asyncio.sleep(0)
        finally:
            self._sending -= 1
        if self.over:
            raise ClientGoneError("the WebSocket is closed")

    def close(self, code: int, reason: str) -> None:
        """Begin to close; what has come and was not received is thrown away.

        Raises ValueError for a reason that is not UTF-8.
        """
        self._close(code, reason)
        self._messages.clear()
        self._waiting = 0

    # The server's side

    def go_away(self) -> None:
        """Close it because the server stops; the application still gets what has come before."""
        self._late = Outcome.SHUTDOWN
        self._close(GOING_AWAY, "the server stops")

    def fail(self) -> None:
        """The application has failed: tell the client."""
        if self._state is not _State.OVER:
            self._fail(INTERNAL, "", Outcome.HANDLER_ERROR)

    def lost(self) -> None:
        """The stream is gone."""
        if self._state is not _State.OVER:
            self._over()

    def _close(self, code: int, reason: str) -> None:
        if self._state is not _State.OPEN:
            return
        last = self._frames.close(code, reason)  # raises for a reason that is no text
        self._state = _State.CLOSING
        self.code, self.reason = code, reason
        self._reply.write(last)
        self._cancel()
        self._await_close(self._settings.close_timeout)
        self._wake()
        self._go_on()

    def _await_close(self, seconds: float) -> None:
        held = self._content.held_for()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, lambda: self._unanswered(held))

    def _unanswered(self, held_before: float) -> None:
        held = self._content.held_for() - held_before
        if held > 0:  # nothing was read meanwhile
            self._await_close(held)
        elif self._reply.waiting:  # our own Close has not come to the client
            self._await_close(self._settings.close_timeout)
        else:
            self._end(self._late)

    def _fail(self, code: int, reason: str, verdict: Outcome) -> None:
        """End it for a fault, after a Close that says which (RFC 6455 section 7.1.7)."""
        last = b""
        if self._state is _State.OPEN:
            self.code, self.reason = code, reason
            last = bytes(self._frames.close(code, reason))
        self._end(verdict, last)

    def _end(self, verdict: Outcome, last: bytes = b"") -> None:
        """End our side of the stream after `last`, and settle how the request has ended."""
        reply, exchange = self._reply, self._exchange
        self._over()
        if verdict is Outcome.COMPLETE:
            reply.write(last, end=True)
            return
        if last:
            reply.write(last)
        exchange.verdict = verdict
        reply.note()
        exchange.finish(verdict, monotonic())
        reply.write(b"", end=True)

    def _over(self) -> None:
        self._state = _State.OVER
        self._cancel()
        self._content.listen(None)
        self._reply.on_lost = None
        self._bounds.release()
        self._parts = None
        self._wake()
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # What comes

    def _full(self) -> bool:
        settings = self._settings
        return self._state is _State.OPEN and (
            len(self._messages) >= settings.max_queue or self._waiting >= settings.max_message
        )

    def _go_on(self) -> None:
        """Read on if reading was stopped, and need not be any more."""
        if self._paused and not self._full():
            self._paused = False
            self._told()

    def _told(self) -> None:
        """Something has come, or the end."""
        if self._reading or self._paused or self._state is _State.OVER:
            return
        self._reading = True
        try:
            self._read()
        except ParseFailed as error:
            self._refuse(error)
        except SessionError as error:
            self._tell(logging.WARNING, POLICY, error.detail)
            self._fail(POLICY, error.detail, Outcome.SERVER_RESET)
        except Exception:
            _logger.exception("a WebSocket failed", extra=ids_of(self._exchange))
            self._fail(INTERNAL, "", Outcome.HANDLER_ERROR)
        finally:
            self._reading = False

    def _read(self) -> None:
        frames, content = self._frames, self._content
        while True:
            for frame in frames.received_frames():
                self._take(frame)
                if self._state is _State.OVER:
                    return
                if self._full():
                    self._paused = True
                    return
            piece = content.take()
            if not piece:
                break
            self._heard = True
            if self._parts is None and self._fed == self._bounds.taken:
                piece = self._take_simple(piece)
            self._fed += len(piece)
            frames.receive_bytes(piece)
            if self._full():
                self._paused = True
                return
        if content.finished:  # the client has ended the stream without a word
            if self._state is _State.OPEN:
                self.code, self.reason = ABNORMAL, ""
            self._end(Outcome.PEER_LOST)

    def _take_simple(self, piece: bytes) -> bytes:
        """Take the messages that a piece begins with; return what is wsproto's to judge."""
        most = self._settings.max_message
        at = 0
        while self._state is _State.OPEN and not self._full():
            found = simple_message(piece, at, most)
            if found is None:
                break
            message, at = found
            self._messages.append(message)
            self._waiting += len(message)
        if at:
            self._wake()
        return piece[at:] if at else piece

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        payload = frame.payload
        if opcode is Opcode.PING:
            if self._state is _State.OPEN:
                assert isinstance(payload, bytes)
                self._reply.write(self._frames.pong(payload))
        elif opcode is Opcode.CLOSE:
            assert isinstance(payload, tuple)
            self._closed(*payload)
        elif opcode is not Opcode.PONG and self._state is _State.OPEN:
            assert isinstance(payload, str | bytes)
            self._add(payload, frame.message_finished)

    def _add(self, part: Message, last: bool) -> None:
        parts = self._parts
        if not last:
            if parts is None:
                self._parts = Parts(part)
            else:
                parts.add(part)
            return
        if parts is not None:
            parts.add(part)
            part = parts.whole()
            self._parts = None
        self._messages.append(part)
        self._waiting += len(part)
        self._wake()

    def _closed(self, code: int, reason: str | None) -> None:
        """The client's Close has come: with ours, which it may be the answer to, that was all."""
        last = b""
        if self._state is _State.OPEN:
            self.code, self.reason = int(code), reason or ""
            last = bytes(self._frames.close(code))
        self._end(Outcome.COMPLETE, last)

    def _refuse(self, error: ParseFailed) -> None:
        """The client has broken the protocol, or gone over the bound on messages."""
        verdict = Outcome.MALFORMED
        code, reason = int(error.code), str(error)
        if code == CloseReason.MESSAGE_TOO_BIG:
            verdict = Outcome.SERVER_RESET
            reason = f"a message of more than {self._settings.max_message} bytes"
        elif code == CloseReason.POLICY_VIOLATION:
            verdict = Outcome.SERVER_RESET
            reason = "too many final blocks in a compressed message"
        elif code == CloseReason.INVALID_FRAME_PAYLOAD_DATA:
            text = isinstance(error.__context__, UnicodeDecodeError)
            reason = "the text is not UTF-8" if text else "the compressed data is invalid"
        self._tell(logging.DEBUG, code, reason)
        self._fail(code, reason, verdict)

    def _tell(self, level: int, code: int, reason: str) -> None:
        exchange = self._exchange
        _logger.log(
            level,
            "closed a WebSocket of %s with %d: %s",
            exchange.client[0],
            code,
            reason,
            extra=ids_of(exchange),
        )

    # Keeping alive

    def _ping_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._settings.ping_interval, self._ping)

    def _ping(self) -> None:
        """Send a ping, unless it is us, or output that waits, who would keep it from being heard.

        For a client that does not take what waits for it there is `limits.stall_timeout`.
        """
        self._ping_later()
        if self._paused or self._sending:
            return
        self._reply.write(self._frames.ping(os.urandom(_PING_SIZE)))
        if self._deadline is None and self._settings.ping_timeout:
            self._heard = False
            self._wait(self._settings.ping_timeout)

    def _wait(self, seconds: float) -> None:
        held = self._content.held_for()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(seconds, lambda: self._silent(held))

    def _silent(self, held_before: float) -> None:
        """Whatever has come since the ping is an answer: what is large is in a pong's way."""
        self._deadline = None
        if self._heard or self._paused or self._sending:
            return
        held = self._content.held_for() - held_before
        if held > 0:  # nothing was read meanwhile
            self._wait(held)
            return
        self._tell(logging.DEBUG, INTERNAL, "no answer to a ping")
        last = self._frames.close(INTERNAL, "no answer to a ping")
        self.reason = "no answer to a ping"
        self._end(Outcome.TIMEOUT, bytes(last))
