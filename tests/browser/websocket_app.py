"""An ASGI application with one page, which talks to one WebSocket."""

from __future__ import annotations

from h2log.app.asgi import Receive, Scope, Send

PAGE = b"""<!doctype html><title>WebSocket</title><link rel="icon" href="data:,">
<pre id="log"></pre>
<script>
const log = (text) => { document.querySelector("#log").textContent += text + "\\n" };
const socket = new WebSocket("wss://" + location.host + "/talk?room=1", ["v1", "v2"]);
socket.binaryType = "arraybuffer";
const large = "\\u00e4 long text ".repeat(10000);
socket.onopen = () => {
  log("open " + socket.protocol + " " + socket.extensions);
  socket.send("small");
  socket.send(large);
  socket.send(new Uint8Array([0, 255, 128]));
  socket.send("bye");
};
socket.onmessage = ({ data }) => {
  if (data === large) log("large");
  else log(typeof data === "string" ? data : new Uint8Array(data).join());
};
socket.onclose = ({ code, reason, wasClean }) => log(`closed ${code} ${reason} ${wasClean}`);
</script>
"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the page, and send back what comes until it is `bye`."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 3210, "reason": "goodbye"})
            return
        await send({**message, "type": "websocket.send"})
