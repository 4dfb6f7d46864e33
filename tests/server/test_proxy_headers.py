"""Forwarded and X-Forwarded-*: from a real nginx, and from who has no right to them."""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from h2log.access.formats import compile as compile_format
from h2log.app.asgi import AsgiApp
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.proxies import nginx
from tests.server.telling_app import telling
from tests.server.wire import Http1Client
from tests.support import Process, Running, run

TRUSTED = {"proxy_headers": ["127.0.0.0/8"]}
NGINX = (
    "X-Forwarded-For $proxy_add_x_forwarded_for",
    "X-Forwarded-Proto https",
    "X-Forwarded-Host $http_host",
)


async def ask(port: int, *arguments: str) -> dict[str, object]:
    """Ask `/` of nginx with curl; return what the application tells."""
    done = await run("curl", "-sS", *arguments, f"http://127.0.0.1:{port}/")
    assert done.code == 0, done.stderr
    told: dict[str, object] = json.loads(done.text)
    return told


async def test_nginx_tells_who_asked(tmp_path: Path) -> None:
    """The client, the scheme and the host that nginx says; what the client said before is nothing.

    The client has another address of this machine, which is not trusted: there the walk ends.
    """
    only = {"proxy_headers": ["127.0.0.1"]}
    async with Running(telling(), None, server=only) as server:
        with nginx(tmp_path, f"http://127.0.0.1:{server.port}", *NGINX) as port:
            told = await ask(
                port, "--interface", "127.0.0.9", "-H", "X-Forwarded-For: 6.6.6.6", "-H",
                "Host: shop.example",
            )  # fmt: skip
        [record] = await server.logged(1)
    assert told == {
        "client": "127.0.0.9", "port": 0, "scheme": "https", "authority": "shop.example",
    }  # fmt: skip
    assert record.client == ("127.0.0.9", 0)
    assert record.session.client == "127.0.0.1"


async def test_nginx_at_a_unix_socket(tmp_path: Path) -> None:
    """Peers of a Unix socket are trusted as `unix`; the list goes on to the left of them."""
    place = tmp_path / "h2log.sock"
    settings = {"unix": str(place), "proxy_headers": ["unix", "127.0.0.1"]}
    async with Running(telling(), None, server=settings):
        with nginx(tmp_path, f"http://unix:{place}", *NGINX) as port:
            told = await ask(port, "-H", "X-Forwarded-For: 6.6.6.6, 192.0.2.7")
            assert (told["client"], told["scheme"]) == ("192.0.2.7", "https")
            told = await ask(port, "-H", "X-Forwarded-For: 192.0.2.7, nonsense")
            assert told["client"] == "127.0.0.1"  # nginx's own client: it is trusted


@pytest.mark.parametrize("count", [1, 2])
async def test_the_command(tmp_path: Path, count: int) -> None:
    """`--proxy-headers`, repeated or with commas, by one process and by several."""
    log = tmp_path / "access.log"
    arguments = ["run", "tests.server.telling_app:app", "--workers", str(count)]
    arguments += ["--proxy-headers", "unix,10.0.0.0/8", "--proxy-headers", "127.0.0.1"]
    arguments += ["--access-format", ":remote-addr"]
    with Process(*arguments, certs=None, log=log) as server:
        with nginx(tmp_path, f"http://127.0.0.1:{server.port}", *NGINX) as port:
            told = await ask(port, "-H", "X-Forwarded-For: 192.0.2.7, 10.0.0.1")
        assert server.stop() == 0
    assert (told["client"], told["scheme"]) == ("192.0.2.7", "https")
    assert log.read_text() == "192.0.2.7\n"


FORWARDED = ("forwarded", 'for="[2001:db8::1]:4711";proto=https;host=a.example')
LINE = compile_format(":remote-addr :url")


@pytest.mark.parametrize("protocol", ["h2", "1.1"])
async def test_the_log_has_the_effective_client(protocol: str) -> None:
    """Each request of a connection has its own; without a word it is the peer."""
    async with Running(telling(), None, server=TRUSTED) as server:
        if protocol == "h2":
            async with H2Client.connect(server) as client:
                bodies = [(await client.get("/", *fields)).body for fields in ((FORWARDED,), ())]
        else:
            async with Http1Client.connect(server) as plain:
                lines = [f"{FORWARDED[0]}: {FORWARDED[1]}"]
                bodies = [bytearray((await plain.get("/", *fields)).body) for fields in (lines, [])]
        first, second = (json.loads(body) for body in bodies)
        records = await server.logged(2)
    assert first == {
        "client": "2001:db8::1", "port": 4711, "scheme": "https", "authority": "a.example",
    }  # fmt: skip
    assert (second["client"], second["scheme"]) == ("127.0.0.1", "http")
    assert second["authority"] != "a.example"
    assert [LINE(record) for record in records] == ["2001:db8::1 /\n", "127.0.0.1 /\n"]


@pytest.mark.parametrize("trusted", [{}, {"proxy_headers": ["10.0.0.0/8", "unix"]}])
async def test_nobody_else_is_believed(trusted: dict[str, object]) -> None:
    """By default, and from a peer that is not trusted: the fields are fields as any."""
    async with Running(telling(), None, server=trusted) as server:
        async with Http1Client.connect(server) as client:
            told = json.loads(
                (await client.get("/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")).body
            )
        [record] = await server.logged(1)
    assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")
    assert record.origin is None


async def test_both_kinds_that_differ_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one that the proxy has not written could be the client's: the remedy is told."""
    both = ["Forwarded: for=6.6.6.6", "X-Forwarded-For: 1.1.1.1"]
    async with (
        Running(telling(), None, server=TRUSTED) as server,
        Http1Client.connect(server) as client,
    ):
        for _ in range(3):
            assert json.loads((await client.get("/", *both)).body)["client"] == ""
    [line] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "name the one that your proxy writes with server.forwarded_header" in line
    named = {**TRUSTED, "forwarded_header": "x-forwarded"}
    async with (
        Running(telling(), None, server=named) as server,
        Http1Client.connect(server) as client,
    ):
        assert json.loads((await client.get("/", *both)).body)["client"] == "1.1.1.1"


async def test_a_client_cannot_take_the_proxy_s_address(tmp_path: Path) -> None:
    """What it adds to nginx's fields does not make it 127.0.0.1: it is nobody, and `-` in the line.

    An ASGI application is given no client.
    """
    seen: list[object] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["client"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    asgi = AsgiApp(app, "the test's application", lifespan="off")
    only = {"proxy_headers": ["127.0.0.1"]}
    async with Running(asgi, None, server=only) as server:
        with nginx(tmp_path, f"http://127.0.0.1:{server.port}", *NGINX) as port:
            for more in ((), ("-H", "Forwarded: for=127.0.0.1"), ("-H", 'Forwarded: "')):
                await ask(port, "--interface", "127.0.0.9", *more)
        records = await server.logged(3)
    assert seen == [("127.0.0.9", 0), None, None]
    assert [LINE(record) for record in records] == ["127.0.0.9 /\n", "- /\n", "- /\n"]


async def test_a_file_in_memory_is_sent_for_the_told_scheme(
    certs: Certificates, tmp_path: Path
) -> None:
    """Strict-Transport-Security is for clients that came by TLS, to the proxy or to us."""
    (tmp_path / "page.txt").write_text("a")
    app = telling()
    app.static(tmp_path, at="/files", security=True)
    secure = ("x-forwarded-proto", "https")
    async with Running(app, None, server=TRUSTED) as server:
        async with H2Client.connect(server) as client:
            for fields in ((secure,), (), (secure,), ()):
                answer = await client.get("/files/page.txt", *fields)
                assert ("strict-transport-security" in answer.headers) is bool(fields)
        async with Http1Client.connect(server) as plain:
            for lines in (["X-Forwarded-Proto: https"], []):
                found = await plain.get("/files/page.txt", *lines)
                assert ("strict-transport-security" in found.headers) is bool(lines)
        records = await server.logged(6)
    assert [record.cache for record in records][2:] == ["hit"] * 4
