"""Early hints: 103 before the response, for clients that understand it (RFC 8297)."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os

import h11
import pytest

from h2log import App, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.wire import HEADERS, Http1Client, RawClient
from tests.support import Running, client_context, eventually, run

STYLE = "</style.css>; rel=preload; as=style"
SCRIPT = "</app.js>; rel=preload; as=script"
NAVIGATION = ("sec-fetch-mode", "navigate")
"""What browsers send when they go to a page."""


class Hints:
    """An application that gives hints."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.raised: list[str] = []
        self.app = App()
        self.app.get("/now")(self.now)
        self.app.get("/later")(self.later)
        self.app.get("/bad")(self.bad)
        self.app.get("/none")(self.none)

    def now(self, request: Request) -> Response:
        request.early_hints(STYLE)
        return Response.text("styled")

    async def later(self, request: Request) -> Response:
        request.early_hints(STYLE)
        request.early_hints(STYLE, SCRIPT)
        await self.go.wait()
        return Response.text("styled and scripted")

    def none(self, request: Request) -> Response:
        request.early_hints()
        return Response.text("plain")

    async def bad(self, request: Request) -> Response:
        values = ["</a>\r\nx: y", "</a>\n", "</a>\0", "</ä>", "\t</a>", " </a>", "</a> "]
        for value in values:
            try:
                request.early_hints(value)
            except ValueError:
                self.raised.append(value)
        return Response.text(str(len(values)))


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
async def test_curl_shows_both_responses(certs: Certificates, version: str) -> None:
    """103 with the link, then 200 with the content; one line, of the 200."""
    hints = Hints()
    async with Running(hints.app, certs) as server:
        done = await run("curl", "-sS", "--cacert", str(certs.ca), version, "-D", "-",
                         "-H", ": ".join(NAVIGATION),
                         "-o", os.devnull, f"{server.url}/now")  # fmt: skip
        first, second = done.text.replace("\r", "").strip().split("\n\n")
    assert first.split("\n")[0].split()[1] == "103"
    assert first.split("\n")[1:] == [f"link: {STYLE}"]
    assert second.split("\n")[0].split()[1] == "200"
    assert "link" not in second
    [line] = server.lines
    assert line.status == 200
    assert server.records[0].sent == len("styled")


async def test_hints_come_before_the_handler_is_through(certs: Certificates) -> None:
    """Each call is a 103 of its own, sent at once; the `h2` package takes them so."""
    hints = Hints()
    async with Running(hints.app, certs) as server, H2Client.connect(server) as client:
        stream = client.send("GET", "/later")
        await client.until(lambda: client.replies[stream].interim == [103, 103])
        assert client.replies[stream].status == 0
        hints.go.set()
        reply = await client.reply(stream)
        assert (reply.status, bytes(reply.body)) == (200, b"styled and scripted")
        assert (await client.get("/none")).interim == []
    assert server.outcomes == {"COMPLETE": 2}


async def test_hints_over_http1_are_read_by_h11(certs: Certificates) -> None:
    """An independent parser sees two informational responses, then the final one."""
    hints = Hints()
    parser = h11.Connection(h11.CLIENT)
    asked = h11.Request(method="GET", target="/later", headers=[("host", "x"), NAVIGATION])
    seen: list[h11.Event] = []
    async with Running(hints.app, certs) as server, Http1Client.connect(server) as client:
        client.send(parser.send(asked) + parser.send(h11.EndOfMessage()))
        async with asyncio.timeout(5):
            while not any(isinstance(event, h11.EndOfMessage) for event in seen):
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    if len(seen) == 2:
                        hints.go.set()
                    parser.receive_data(await client.reader.read(65536))
                elif isinstance(event, h11.Event):
                    seen.append(event)
    informational = [e for e in seen if isinstance(e, h11.InformationalResponse)]
    assert [e.status_code for e in informational] == [103, 103]
    links = [[v for n, v in e.headers if n == b"link"] for e in informational]
    assert links == [[STYLE.encode()], [STYLE.encode(), SCRIPT.encode()]]
    final = [e for e in seen if isinstance(e, h11.Response)]
    assert [e.status_code for e in final] == [200]


async def test_links_over_http2(certs: Certificates) -> None:
    """A link is a field of its own; the interim section ends nothing."""
    async with Running(Hints().app, certs) as server, RawClient.connect(server) as client:
        client.get(1, b"/now")
        interim = await client.expect(HEADERS, 1)
        assert client.fields(interim) == {":status": "103", "link": STYLE}
        assert interim.flags & 1 == 0
        assert client.fields(await client.expect(HEADERS, 1))[":status"] == "200"


async def test_no_hints_for_http10(certs: Certificates) -> None:
    """HTTP/1.0 has no interim responses (RFC 9110 section 15.2)."""
    async with Running(Hints().app, certs) as server, Http1Client.connect(server) as client:
        client.send(b"GET /now HTTP/1.0\r\nHost: x\r\nSec-Fetch-Mode: navigate\r\n\r\n")
        said = await client.rest()
    assert said.startswith(b"HTTP/1.1 200 ") and b"103" not in said.split(b"\r\n\r\n")[0]
    assert said.endswith(b"\r\n\r\nstyled")


async def test_no_hints_for_clients_that_do_not_know_them(certs: Certificates) -> None:
    """Python's own client takes a 103 for the response: it is sent none."""
    async with Running(Hints().app, certs) as server:

        def ask() -> tuple[int, bytes, str | None]:
            asking = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
            with contextlib.closing(asking):
                asking.request("GET", "/now")
                answer = asking.getresponse()
                return answer.status, answer.read(), answer.getheader("link")

        context = client_context(certs, "http/1.1")
        assert await asyncio.to_thread(ask) == (200, b"styled", None)
        async with Http1Client.connect(server) as client:
            for mode in ("cors", "no-cors", "same-origin", "websocket"):
                answer = await client.get("/now", f"Sec-Fetch-Mode: {mode}")
                assert (answer.status, answer.body) == (200, b"styled")


@pytest.mark.parametrize("version", ["h2", "1.1", "1.0"])
async def test_a_link_that_is_no_field_value(certs: Certificates, version: str) -> None:
    """ValueError, whatever the protocol; nothing was sent of it, and the response goes on."""
    hints = Hints()
    async with Running(hints.app, certs) as server:
        if version == "h2":
            async with H2Client.connect(server) as two:
                reply = await two.get("/bad")
                assert (reply.status, reply.interim) == (200, [])
                count = bytes(reply.body)
        else:
            async with Http1Client.connect(server) as one:
                one.send(f"GET /bad HTTP/{version}\r\nHost: x\r\n\r\n".encode())
                answer = await one.answer()
                assert answer.status == 200
                count = answer.body
    assert len(hints.raised) == int(count), hints.raised


async def test_hints_after_the_client_has_gone(certs: Certificates) -> None:
    """They go nowhere, and nothing comes of it."""
    gone = asyncio.Event()
    done = asyncio.Event()
    app = App()

    @app.get("/")
    async def root(request: Request) -> Response:
        try:
            gone.set()
            await asyncio.Event().wait()
        finally:
            request.early_hints(STYLE)
            done.set()
        return Response.text("never")

    async with Running(app, certs) as server:
        for connect in (H2Client.connect, Http1Client.connect):
            gone.clear()
            done.clear()
            async with connect(server) as client:
                if isinstance(client, H2Client):
                    client.reset(client.send("GET", "/"))
                    client.send("GET", "/")
                else:
                    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await eventually(gone.is_set)
                client.writer.transport.abort()
            await eventually(done.is_set)
    assert set(server.outcomes) == {"CLIENT_RESET", "PEER_LOST"}
