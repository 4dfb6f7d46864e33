"""Content and cookies over real connections: JSON of a type, uploads as they come."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec

from h2log import App, Request, Response
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.support import Running, client_context, run


class Age(msgspec.Struct):
    age: int


class User(msgspec.Struct):
    user: Age


async def test_json_that_is_no_such_type_is_told(certs: Certificates) -> None:
    """422 names the field; 400 and 415 what is wrong; 200 where nothing is."""
    app = App()

    @app.post("/user")
    async def user(request: Request) -> Response:
        return Response.json((await request.json(User)).user.age)

    of_json = ("content-type", "application/json")
    async with Running(app, certs) as server, H2Client.connect(server) as two:

        async def posted(body: bytes, *fields: tuple[str, str]) -> tuple[int, str]:
            reply = await two.request("POST", "/user", fields, body)
            return reply.status, bytes(reply.body).decode()

        assert await posted(b'{"user": {"age": 7}}', of_json) == (200, "7")
        assert await posted(b'{"user": {"age": "7"}}', of_json) == (
            422,
            "422 Unprocessable Content\n$.user.age: expected int, got str\n",
        )
        status, text = await posted(b'{"user"', of_json)
        assert (status, text) == (
            400,
            "400 Bad Request\nmalformed JSON: Input data was truncated\n",
        )
        status, text = await posted(b'{"user": {"age": 7}}')
        assert (status, "got no content-type" in text) == (415, True)
        reply = await two.request("POST", "/user", [("content-type", "text/plain")], b"{}")
        assert (reply.status, reply.headers["accept"]) == (415, "application/json")
    assert server.outcomes == {"COMPLETE": 5}


async def test_cookies_come_back(certs: Certificates, tmp_path: Path) -> None:
    """What a response sets, httpx and curl send again, over both protocols, coded values too."""
    app = App()

    @app.get("/set")
    def set_them(request: Request) -> Response:
        response = Response.text("")
        response.set_cookie("plain", "1", path="/")
        response.set_cookie("coded", 'é;,"= %', max_age=60)
        response.set_cookie("__Host-id", "abc")
        response.set_cookie("elsewhere", "1", path="/elsewhere")
        return response

    @app.get("/unset")
    def unset(request: Request) -> Response:
        response = Response.text("")
        response.delete_cookie("__Host-id")
        return response

    @app.get("/get")
    def get_them(request: Request) -> Response:
        return Response.json(dict(sorted(request.cookies.items())))

    three = {"__Host-id": "abc", "coded": 'é;,"= %', "plain": "1"}
    two_of_them = {name: three[name] for name in ("coded", "plain")}
    async with Running(app, certs) as server:
        for two in (True, False):
            async with httpx.AsyncClient(
                http2=two, verify=client_context(certs), base_url=server.url
            ) as client:
                assert (await client.get("/set")).headers.get_list("set-cookie")[0] == (
                    "plain=1; Path=/; Secure; HttpOnly; SameSite=Lax"
                )
                assert (await client.get("/get")).json() == three
                await client.get("/unset")
                assert (await client.get("/get")).json() == two_of_them
        for version in ("--http2", "--http1.1"):
            jar = str(tmp_path / f"jar{version}")
            curl = ("curl", "-sS", "--cacert", str(certs.ca), version, "-b", jar, "-c", jar)
            await run(*curl, f"{server.url}/set")
            assert json.loads((await run(*curl, f"{server.url}/get")).text) == three
            await run(*curl, f"{server.url}/unset")
            assert json.loads((await run(*curl, f"{server.url}/get")).text) == two_of_them
        async with H2Client.connect(server) as raw:  # split, as HTTP/2 clients do
            reply = await raw.get("/get", ("cookie", "a=1"), ("cookie", "b=2; c=3"))
            assert json.loads(bytes(reply.body)) == {"a": "1", "b": "2", "c": "3"}


async def test_a_request_is_read_by_iteration(certs: Certificates) -> None:
    """`async for piece in request` is the upload as it comes, echoed while it does."""
    app = App()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request:
                yield piece

        return Response.stream(pieces())

    body = os.urandom(3_000_000)
    async with Running(app, certs) as server, H2Client.connect(server) as two:
        stream = two.send("POST", "/echo", end=False)
        sending = asyncio.create_task(two.send_body(stream, body))
        await sending
        assert (await two.reply(stream)).body == body
    assert server.outcomes == {"COMPLETE": 1}
