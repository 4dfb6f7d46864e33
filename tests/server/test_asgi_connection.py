"""What an ASGI application is told of its connection: client, server, scheme, host, TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from h2log.app.asgi import AsgiApp, Receive, Scope, Send
from h2log.server.certificates import Certificates
from tests.server.h2_client import H2Client
from tests.server.test_client_certificates import (
    Clients,
    clients,  # noqa: F401 - a fixture
    curl,
    pem,
)
from tests.server.wire import Http1Client
from tests.support import Running, run

FORWARDED = ("forwarded", 'for="[2001:db8::1]:4711";proto=https;host=a.example')


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the scope has of the connection."""
    told = {name: scope[name] for name in ("client", "server", "scheme")}
    told["host"] = [value.decode() for name, value in scope["headers"] if name == b"host"]
    told["tls"] = scope["extensions"].get("tls")
    body = json.dumps(told).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def telling() -> AsgiApp:
    """Return the application."""
    return AsgiApp(tell, "tell", lifespan="off")


async def asked(server: Running, protocol: str, *fields: tuple[str, str]) -> dict[str, Any]:
    """Ask `/` with fields; return what the application tells."""
    body: bytes | bytearray
    if protocol == "h2":
        async with H2Client.connect(server) as client:
            body = (await client.get("/", *fields)).body
    else:
        async with Http1Client.connect(server) as plain:
            body = (await plain.get("/", *(f"{name}: {value}" for name, value in fields))).body
    told: dict[str, Any] = json.loads(body)
    return told


@pytest.mark.parametrize("protocol", ["h2", "1.1"])
async def test_a_trusted_proxy_s_word(protocol: str) -> None:
    """Client, scheme and host are those that it tells; without a word they are the connection's."""
    async with Running(telling(), None, server={"proxy_headers": ["127.0.0.1"]}) as server:
        told = await asked(server, protocol, FORWARDED)
        assert told["client"] == ["2001:db8::1", 4711]
        assert (told["scheme"], told["host"], told["tls"]) == ("https", ["a.example"], None)
        told = await asked(server, protocol)
        assert told["client"][0] == "127.0.0.1"
        assert (told["scheme"], told["server"]) == ("http", ["127.0.0.1", server.port])
        assert told["host"] != ["a.example"]


@pytest.mark.parametrize("protocol", ["h2", "1.1"])
async def test_nobody_else_s(protocol: str) -> None:
    """A header is a header."""
    async with Running(telling(), None) as server:
        told = await asked(server, protocol, FORWARDED)
    assert (told["client"][0], told["scheme"]) == ("127.0.0.1", "http")
    assert told["host"] != ["a.example"]


async def test_a_unix_socket(tmp_path: Path) -> None:
    """Its client has no address; the server's is the path and None."""
    path = tmp_path / "h2log.sock"
    async with Running(telling(), None, server={"unix": str(path)}) as server:
        done = await run("curl", "-sS", "--unix-socket", str(path), "http://localhost/")
        await server.logged(1)
    told = json.loads(done.text)
    assert (told["client"], told["server"], told["host"]) == (
        None,
        [str(path), None],
        ["localhost"],
    )


async def test_the_tls_extension(certs: Certificates, clients: Clients) -> None:  # noqa: F811
    """Over TLS it is there, with the client's certificate."""
    tls = {"client_ca": str(clients.ca), "client_cert": "required"}
    async with Running(telling(), certs, tls=tls) as server:
        done = await curl(server, certs, clients.known)
        await server.logged(1)
    told = json.loads(done.text)
    assert told["scheme"] == "https"
    assert told["tls"]["client_cert_chain"] == [pem(clients.known.cert), pem(clients.middle.cert)]
    assert told["tls"]["client_cert_name"].startswith("CN=Zoë,")
    assert told["tls"]["tls_version"] == 0x0304
