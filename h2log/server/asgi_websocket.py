"""One WebSocket of an ASGI application: its `receive` and `send`, and how its call ends.

The states of a call (ASGI, WebSocket specification 2.5):

    CONNECT --websocket.accept--> ACCEPTED --websocket.close, or the client's--> CLOSED
      CONNECT --websocket.close: 403--> CLOSED
      CONNECT --websocket.http.response.start--> DENIAL --websocket.http.response.body--> BODY
      DENIAL, BODY --the last of them--> CLOSED
      any but CLOSED --the client goes away--> LOST

A message that its state does not have is the application's mistake, a RuntimeError; in CLOSED and
LOST it is an OSError, since one task may close what another still sends on.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from h2log.access.exchange import Exchange
from h2log.access.record import Outcome
from h2log.app.asgi import Asgi, Message
from h2log.app.response import NO_CONTENT_STATUS
from h2log.config import WebSocketSettings
from h2log.errors import HTTPError
from h2log.server.asgi_calls import Host
from h2log.server.asgi_lost import ClientGoneError, only_lost
from h2log.server.asgi_notes import take_notes
from h2log.server.background import ends_task
from h2log.server.content import ContentBuffer
from h2log.server.heads import ResponseHead, response_head
from h2log.server.reply import Reply
from h2log.server.websocket import WebSocket
from h2log.server.websocket_codes import ABNORMAL, NORMAL, check_code
from h2log.server.websocket_handshake import Handshake, read_handshake

__all__ = ["WebSocketCall", "WebSocketHost", "WebSockets"]

_CONNECT: Final = 0
_DENIAL: Final = 1
_BODY: Final = 2
_ACCEPTED: Final = 3
_CLOSED: Final = 4
_LOST: Final = 5

_SCHEMES: Final = {"http": "ws", "https": "wss"}
_OWN_FIELDS: Final = frozenset(
    (
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"content-length",
    )
)
"""What an application must not answer a handshake with: the server says it, or it has no sense."""


class WebSockets(set["WebSocketCall"]):
    """Those of a server whose call has not returned."""

    going = False
    """The server stops."""

    def end(self) -> None:
        """Tell every client that the server goes away, and those who come yet (RFC 6455, 7.4.1)."""
        self.going = True
        for call in list(self):
            call.go_away()


class WebSocketHost(Host, Protocol):
    """What a call needs of the one who makes it; see `AsgiHost`."""

    websockets: WebSockets


class WebSocketCall:
    """A call of the application for one WebSocket, which has `receive` and `send`.

    Raises HTTPError for a request that is no handshake in order. `scope` is what WebSockets have in
    common with requests.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_connected",
        "_content",
        "_exchange",
        "_handshake",
        "_head",
        "_host",
        "_left",
        "_reply",
        "_scope",
        "_sent",
        "_settings",
        "_state",
        "_waiters",
        "_websocket",
        "task",
    )

    def __init__(
        self,
        host: WebSocketHost,
        call: Asgi,
        scope: dict[str, Any],
        exchange: Exchange,
        reply: Reply,
        content: ContentBuffer | None,
        settings: WebSocketSettings,
    ) -> None:
        if content is None:
            raise HTTPError(400, "the request has ended, a WebSocket goes on")
        upgrade = exchange.session.protocol != "h2"
        self._handshake: Handshake = read_handshake(
            exchange.facts.fields, upgrade=upgrade, compression=settings.compression
        )
        self._host = host
        self._call = call
        self._exchange = exchange
        self._reply = reply
        self._content = content
        self._settings = settings
        self._state = _CONNECT
        self._connected = False  # the application was told of websocket.connect
        self._websocket: WebSocket | None = None
        self._head: ResponseHead | None = None  # of a denial
        self._sent = 0  # bytes of its content
        self._left = False  # the client is gone, and the call goes on
        self._waiters: list[asyncio.Future[None]] = []
        self.task: asyncio.Task[None] | None = None
        """The task that `run` is."""
        self._scope = scope
        scope["type"] = "websocket"
        scope["scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        scope["subprotocols"] = list(self._handshake.subprotocols)
        scope.pop("method", None)
        extensions = scope["extensions"]
        for name in [name for name in extensions if name.startswith("http.")]:
            del extensions[name]
        extensions["websocket.http.response"] = {}
        reply.on_lost = self._lost
        reply.noting = self._note
        host.websockets.add(self)

    # The task

    async def run(self) -> None:
        """Call the application, and see to it that the WebSocket ends."""
        try:
            await self._call(self._scope, self.receive, self.send)
            self._returned()
        except BaseException as error:
            if ends_task(error, self.task):
                self._cancelled(error)
                raise
            self._failed(error)
        finally:
            self._let_go()
            self._host.done(self.task)

    def not_begun(self) -> None:
        """The task was cancelled before it began: the application itself must have done it."""
        self._cancelled(asyncio.CancelledError())
        self._let_go()

    def _let_go(self) -> None:
        """The call is over. Closing may still take a while: the stream has what it needs for it."""
        self._note()
        self._host.websockets.discard(self)
        if self._left:
            self._host.left(self._exchange, -1)
        websocket = self._websocket
        if websocket is not None:
            websocket.on_over = None
        self._reply.on_lost = None if websocket is None or websocket.over else websocket.lost
        self._reply.noting = None

    def _note(self) -> None:
        take_notes(self._scope, self._exchange)

    def _cancelled(self, error: BaseException) -> None:
        """The task is made to end; a server that stops has ended the request before."""
        if isinstance(error, asyncio.CancelledError):
            if self._state < _CLOSED and (self._websocket is None or self._websocket.open):
                self._host.tell("the call for %s %s was cancelled", self._exchange, error)
            if self._state < _ACCEPTED:
                self._end_as_error()
            elif self._state == _ACCEPTED and self._websocket is not None:
                self._websocket.fail()
        elif self._state < _ACCEPTED:
            self._host.give_up(Outcome.SHUTDOWN, self._exchange, self._reply)
        elif self._websocket is not None:
            self._websocket.go_away()

    def _returned(self) -> None:
        state = self._state
        if state == _ACCEPTED:
            assert self._websocket is not None
            self._websocket.close(NORMAL, "")
        elif state < _ACCEPTED:
            wanted = {
                _CONNECT: "websocket.accept",
                _DENIAL: "websocket.http.response.body",
                _BODY: "last websocket.http.response.body",
            }[state]
            message = "the application returned from %s %s without a %s"
            self._host.tell(message, self._exchange, None, wanted)
            self._end_as_error()

    def _failed(self, error: BaseException) -> None:
        gone = self._state == _LOST or (self._websocket is not None and not self._websocket.open)
        if gone and (only_lost(error) or type(error).__name__ == "WebSocketDisconnect"):
            return  # it was told so, and had no other answer: Starlette raises the latter
        self._host.tell("unhandled exception for %s %s", self._exchange, error)
        if self._state == _ACCEPTED:
            assert self._websocket is not None
            self._websocket.fail()
        elif self._state < _ACCEPTED:
            self._end_as_error()

    def _end_as_error(self) -> None:
        host, exchange, reply = self._host, self._exchange, self._reply
        begun = self._state == _BODY
        self._note()
        self._finish(_CLOSED)
        exchange.verdict = Outcome.HANDLER_ERROR
        if begun:
            host.give_up(Outcome.HANDLER_ERROR, exchange, reply)
        else:
            host.refuse(HTTPError(500), exchange, reply)

    def _lost(self) -> None:
        """The client is gone, or the server gives it up."""
        self._leave()
        if self._websocket is not None:
            self._websocket.lost()
        if self._state < _ACCEPTED:
            self._finish(_LOST)

    def _leave(self) -> None:
        """Nobody is there any more, and the call goes on."""
        if not self._left:
            self._left = True
            self._host.left(self._exchange, 1)

    def _finish(self, state: int) -> None:
        """There is no WebSocket, and there will be none: whoever waits in `receive` is told."""
        self._state = state
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def go_away(self) -> None:
        """The server stops: an open WebSocket is closed, one that is asked for when it opens."""
        if self._websocket is not None:
            self._websocket.go_away()

    # The application's side

    async def receive(self) -> dict[str, Any]:
        """Return the next event: the connect, then messages, then, again and again, its end."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while self._state < _ACCEPTED:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        websocket = self._websocket
        if websocket is None:
            return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        message = await websocket.receive()
        if message is None:
            code, reason = websocket.code, websocket.reason
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: Message) -> None:
        """Take an event, and return when there is room for more.

        Raises RuntimeError for one out of order, OSError when the WebSocket is closed, and
        ValueError or TypeError for what cannot be sent.
        """
        kind = message["type"]
        state = self._state
        if state == _CONNECT:
            self._note()
        if state == _ACCEPTED:
            websocket = self._websocket
            assert websocket is not None
            if kind == "websocket.send":
                await websocket.send(_content(message))
                return
            if kind == "websocket.close":
                self._close(websocket, message)
                return
            raise RuntimeError(f"expected 'websocket.send' or 'websocket.close', got {kind!r}")
        if state == _CONNECT:
            if kind == "websocket.accept":
                self._accept(message)
                return
            if kind == "websocket.close":
                self._finish(_CLOSED)
                self._host.refuse(HTTPError(403), self._exchange, self._reply)
                return
            if kind == "websocket.http.response.start":
                self._deny(message)
                return
            raise RuntimeError(
                "expected 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start', got {kind!r}"
            )
        if state <= _BODY:
            if kind == "websocket.http.response.body":
                await self._body(message)
                return
            raise RuntimeError(f"expected 'websocket.http.response.body', got {kind!r}")
        raise ClientGoneError("the client is gone" if state == _LOST else "the WebSocket is closed")

    def _accept(self, message: Message) -> None:
        checked = response_head(200, message.get("headers") or ())
        for name, _ in checked.fields:
            if name in _OWN_FIELDS:
                remedy = "; use the key subprotocol" if name == b"sec-websocket-protocol" else ""
                raise ValueError(f"{name.decode()} is not the application's to send{remedy}")
        answer = self._handshake.answer(message.get("subprotocol"))
        status = 101 if self._handshake.key is not None else 200
        # Not remembered: the accept differs each time.
        head = ResponseHead(status, (*answer, *checked.fields))
        websocket = self._websocket = WebSocket(
            self._exchange, self._reply, self._content, self._settings, self._handshake.deflate
        )
        websocket.on_over = self._leave
        self._reply.switch(head)
        self._finish(_ACCEPTED)
        websocket.start()
        if self._host.websockets.going:
            websocket.go_away()

    def _close(self, websocket: WebSocket, message: Message) -> None:
        code = message.get("code", NORMAL)
        reason = message.get("reason") or ""
        if not isinstance(reason, str):
            raise TypeError(f"the reason is {type(reason).__name__}, expected str")
        checked = check_code(NORMAL if code is None else code)
        if not websocket.open:
            raise ClientGoneError("the WebSocket is closed")
        websocket.close(checked, reason)
        self._state = _CLOSED

    # Denial Response

    def _deny(self, message: Message) -> None:
        status = message["status"]
        if status < 200:
            raise ValueError(f"the status of a response is from 200 to 599, not {status}")
        if status < 300 and self._handshake.key is None:
            raise ValueError(f"over HTTP/2 a status of {status} accepts the WebSocket")
        self._head = response_head(status, message.get("headers") or ())
        self._state = _DENIAL

    async def _body(self, message: Message) -> None:
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"the body is {type(body).__name__}, expected bytes")
        head, reply = self._head, self._reply
        assert head is not None
        bare = head.status in NO_CONTENT_STATUS
        body = b"" if bare else bytes(body)
        self._sent += len(body)
        if head.length is not None and not bare:
            if self._sent > head.length:
                raise ValueError(f"more content than the content-length of {head.length}")
            if last and self._sent < head.length:
                raise ValueError(
                    f"{self._sent} bytes of content, not its content-length of {head.length}"
                )
        if last:
            begun = self._state == _BODY
            self._finish(_CLOSED)
            if not begun:
                reply.whole(head, body)
            else:
                reply.write(body, end=True)
                await reply.drain()
            return
        if self._state == _DENIAL:
            self._state = _BODY
            reply.start_head(head, end=False)
        if body:
            reply.write(body)
        await reply.drain()
        if self._state == _LOST:
            raise ClientGoneError("the client is gone")


def _content(message: Message) -> str | bytes:
    """Return the one content of a message. Raises TypeError for none, both, and other types."""
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        raise TypeError("a websocket.send has text or bytes, one of them")
    if isinstance(text, str):
        return text
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    wrong = text if text is not None else data
    raise TypeError(f"a websocket.send has text or bytes, not {type(wrong).__name__}")
