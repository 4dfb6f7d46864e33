"""`h2log run --server hypercorn`: Hypercorn's protocol, h2log's lines."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from h2log.access.parsed import Line
from h2log.access.record import Outcome
from h2log.server.certificates import Certificates
from tests.integrations.hypercorn_process import Hypercorn
from tests.server.h2_client import H2Client
from tests.support import PATIENCE, Process, client_context, eventually, poll, run

APP = "tests.integrations.asgi_app:app"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certs: Certificates) -> Iterator[Hypercorn]:
    """A server over TLS."""
    with Hypercorn(tmp_path_factory.mktemp("secure") / "access.log", certs) as server:
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypercorn]:
    """One without."""
    with Hypercorn(tmp_path_factory.mktemp("plain") / "access.log", None) as server:
        yield server


def client(server: Hypercorn, *, http2: bool = True) -> httpx.AsyncClient:
    """Return an httpx client for a server."""
    verify = client_context(server.certs) if server.certs is not None else False
    return httpx.AsyncClient(base_url=server.url, http1=not http2, http2=http2, verify=verify)


async def talk(server: Hypercorn, data: bytes, *, eof: bool = False) -> bytes:
    """Send bytes in cleartext; return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    if eof:
        writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_line_says_what_was(secure: Hypercorn) -> None:
    """A request's line has its facts and Hypercorn's; what Hypercorn does not tell is missing."""
    async with client(secure) as asking:
        answer = await asking.get("/facts?a=1", headers={"user-agent": "test"})
    line = await secure.full.one("/facts?a=1")
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert answer.text == f"{line.session} {line.request}"
    assert answer.headers.get_list("x-request-id") == [line.request]
    assert (line.version, line.status, line.method, line.scheme) == ("h2", 200, "GET", "https")
    assert (line.outcome, line.stream, line.nth) == (Outcome.COMPLETE, 1, 1)
    assert (line.alpn, line.tls_version, line.user_agent) == ("h2", "TLSv1.3", "test")
    assert line.sent == len(answer.content)
    assert line.header_received is line.header_sent is None
    assert line.stalled_ms is line.blocked_ms is None


async def test_a_connection_is_a_session(secure: Hypercorn) -> None:
    """Requests of one connection share its session id, those of another have another."""
    sessions = []
    for version in (True, False):
        async with client(secure, http2=version) as asking:
            first, second = [(await asking.get(f"/same?{version}")).text for _ in range(2)]
        assert first.split()[0] == second.split()[0]
        assert first.split()[1] != second.split()[1]
        sessions.append(first.split()[0])
        lines = await secure.full.of(f"/same?{version}", 2)
        assert [line.nth for line in lines] == [1, 2]
        assert [line.stream for line in lines] == ([1, 3] if version else [1, 2])
    assert len(set(sessions)) == 2


async def test_curl_and_nghttp(secure: Hypercorn) -> None:
    """Independent clients have their lines over HTTP/1.1 and HTTP/2."""
    certs = secure.certs
    assert certs is not None
    url = secure.url.replace("127.0.0.1", "localhost")
    for option in ("--http1.1", "--http2"):
        done = await run("curl", "-s", option, "--cacert", str(certs.ca), f"{url}/curl{option}")
        assert done.code == 0
    assert (await secure.full.one("/curl--http1.1")).version == "1.1"
    assert (await secure.full.one("/curl--http2")).version == "h2"
    done = await run("nghttp", "-n", f"{secure.url}/nghttp")
    assert done.code == 0
    assert (await secure.full.one("/nghttp")).outcome is Outcome.COMPLETE


async def test_bodies_that_are_not_sent(secure: Hypercorn) -> None:
    """HEAD and 304 have lines without content."""
    async with client(secure) as asking:
        assert (await asking.head("/head")).status_code == 200
        assert (await asking.get("/not-modified")).status_code == 304
    assert (await secure.full.one("/head")).sent == 0
    line = await secure.full.one("/not-modified")
    assert (line.status, line.sent, line.outcome) == (304, 0, Outcome.COMPLETE)


@pytest.mark.parametrize("http2", [True, False])
async def test_uploads(secure: Hypercorn, http2: bool) -> None:
    """Content that was received is counted."""
    async with client(secure, http2=http2) as asking:
        answer = await asking.post(f"/length?{http2}", content=b"x" * 100_000)
    # The path decides; httpx keeps the query.
    assert answer.text == "100000"
    line = await secure.full.one(f"/length?{http2}")
    assert (line.received, line.sent, line.outcome) == (100_000, 6, Outcome.COMPLETE)


async def test_content_for_what_was_answered(secure: Hypercorn) -> None:
    """An upload that nobody reads does no harm to the connection, or to others."""
    async with H2Client.connect(secure) as asking:
        upload = asking.send("POST", "/unread", end=False)
        assert (await asking.reply(upload)).status == 200
        asking.conn.send_data(upload, b"x" * 10_000)
        asking.flush()
        assert (await asking.get("/afterwards")).status == 200
    assert (await secure.full.one("/unread")).outcome is Outcome.COMPLETE
    assert (await secure.full.one("/afterwards")).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("http2", [True, False])
async def test_applications_that_fail(secure: Hypercorn, http2: bool) -> None:
    """An exception, or a return without a response, is Hypercorn's 500 and HANDLER_ERROR."""
    for path in ("/raise", "/nothing", "/raise-after"):
        async with client(secure, http2=http2) as asking:
            assert (await asking.get(f"{path}?{http2}")).status_code == 500
        line = await secure.full.one(f"{path}?{http2}")
        assert (line.status, line.outcome) == (500, Outcome.HANDLER_ERROR)


async def test_an_application_that_exits(secure: Hypercorn) -> None:
    """`sys.exit` ends its request, not the connection or the server."""
    async with H2Client.connect(secure) as asking:
        assert (await asking.get("/exit")).status == 500
        assert (await asking.get("/after-exit")).status == 200
    line = await secure.full.one("/exit")
    assert (line.status, line.outcome) == (500, Outcome.HANDLER_ERROR)
    assert (await secure.full.one("/after-exit")).session == line.session


async def test_an_exception_after_the_start(secure: Hypercorn) -> None:
    """It leaves the status that was sent, and HANDLER_ERROR."""
    async with client(secure, http2=False) as asking:
        with pytest.raises(httpx.RemoteProtocolError):
            await asking.get("/raise-late")
    line = await secure.full.one("/raise-late")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.HANDLER_ERROR)


async def test_an_exception_after_the_start_over_http2(secure: Hypercorn) -> None:
    """Its client gets what there was, and then sees that it is not all; nor does it stay open."""
    async with H2Client.connect(secure) as asking:
        stream = asking.send("GET", "/raise-late?h2")
        reply = await asking.reply(stream)
        assert (reply.status, bytes(reply.body), reply.reset) == (200, b"some", 2)
        assert asking.conn.open_outbound_streams == 0
    line = await secure.full.one("/raise-late?h2")
    assert (line.status, line.sent, line.outcome) == (200, 4, Outcome.HANDLER_ERROR)
    assert (line.reset_by, line.reset_code) == ("server", 2)


async def test_a_client_that_resets(secure: Hypercorn) -> None:
    """RST_STREAM is CLIENT_RESET with its code; others of the connection go on."""
    async with H2Client.connect(secure) as asking:
        waiting = asking.send("GET", "/wait?reset")
        assert (await asking.get("/beside")).status == 200
        asking.reset(waiting, 8)
        assert (await asking.get("/after")).status == 200
    line = await secure.full.one("/wait?reset")
    assert (line.outcome, line.status) == (Outcome.CLIENT_RESET, None)
    assert (line.reset_by, line.reset_code) == ("client", 8)
    assert (await secure.full.one("/beside")).session == line.session


@pytest.mark.parametrize("path", ["/wait", "/endless"])
async def test_a_client_that_vanishes(secure: Hypercorn, path: str) -> None:
    """A lost connection is PEER_LOST for all that is open on it."""
    async with H2Client.connect(secure) as asking:
        one, two = (asking.send("GET", f"{path}?vanish{n}") for n in range(2))
        if path == "/endless":
            await asking.until(lambda: asking.replies[one].body and asking.replies[two].body)
        else:
            await asking.get("/here")
        asking.abort()
    for n in range(2):
        assert (await secure.full.one(f"{path}?vanish{n}")).outcome is Outcome.PEER_LOST


async def test_a_client_that_vanishes_over_http1(plain: Hypercorn) -> None:
    """So over HTTP/1.1."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.read(100)
    writer.transport.abort()
    line = await plain.full.one("/endless")
    assert (line.outcome, line.status, line.version) == (Outcome.PEER_LOST, 200, "1.1")
    assert line.sent is not None and line.sent > 0


async def test_malformed_requests(plain: Hypercorn) -> None:
    """What h11 refuses has its line, with the status that was answered."""
    assert b" 400 " in await talk(plain, b"GET /bad HTTP/1.1\r\nhost: x\r\nbad field\r\n\r\n")
    line = await plain.full.one("/bad")
    assert (line.status, line.outcome, line.method) == (400, Outcome.MALFORMED, "GET")
    big = b"GET /big HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * 200_000 + b"\r\n\r\n"
    assert b" 431 " in await talk(plain, big)
    line = await plain.full.one("/big")
    assert (line.status, line.outcome) == (431, Outcome.MALFORMED)


async def test_malformed_content(plain: Hypercorn) -> None:
    """Chunks that are none end the request that they belong to: one line."""
    head = b"POST /length?chunks HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b" 400 " in await talk(plain, head + b"5\r\nhello\r\nnone\r\n")
    line = await plain.full.one("/length?chunks")
    assert (line.status, line.received, line.outcome) == (400, 5, Outcome.MALFORMED)


async def test_half_a_head(plain: Hypercorn) -> None:
    """A client that leaves in the middle of a head is PEER_LOST."""
    await talk(plain, b"GET /half HTTP/1.1\r\nho", eof=True)
    assert (await plain.full.one("/half")).outcome is Outcome.PEER_LOST


async def test_keep_alive(plain: Hypercorn) -> None:
    """Pipelined requests each have a line, in order, of one session."""
    request = b"GET /pipe HTTP/1.1\r\nhost: x\r\n"
    data = request + b"\r\n" + request + b"\r\n" + request + b"connection: close\r\n\r\n"
    assert (await talk(plain, data)).count(b"HTTP/1.1 200") == 3
    lines = await plain.full.of("/pipe", 3)
    assert [line.nth for line in lines] == [1, 2, 3]
    assert len({line.session for line in lines}) == 1


async def test_http1_0(plain: Hypercorn) -> None:
    """HTTP/1.0 is named in the line."""
    assert b" 200 " in await talk(plain, b"GET /old HTTP/1.0\r\n\r\n")
    assert (await plain.full.one("/old")).version == "1.0"


async def test_prior_knowledge(plain: Hypercorn) -> None:
    """Cleartext HTTP/2 is h2, without TLS."""
    async with H2Client.connect(plain) as asking:
        assert (await asking.get("/prior")).status == 200
    line = await plain.full.one("/prior")
    assert (line.version, line.alpn, line.tls_version) == ("h2", None, None)


async def test_a_broken_connection(plain: Hypercorn) -> None:
    """A violation that ends the connection is SERVER_RESET for what is open on it."""
    async with H2Client.connect(plain, check=False) as asking:
        asking.send("GET", "/wait?broken")
        await asking.get("/before-broken")
        asking.send("GET", "/never", [("Upper", "case")])
        with pytest.raises(ConnectionResetError):
            await asking.until(lambda: False)
    assert (await plain.full.one("/wait?broken")).outcome is Outcome.SERVER_RESET

    def unheard() -> list[Line]:
        return [line for line in plain.full.all() if line.method is None and line.stream == 5]

    await eventually(unheard)
    [refused] = unheard()
    assert (refused.outcome, refused.reset_code) == (Outcome.SERVER_RESET, 1)


@pytest.mark.parametrize("ending", ["client", "application", "raise", "lost"])
async def test_websockets(plain: Hypercorn, ending: str) -> None:
    """A WebSocket has one line, at its end, with its bytes."""
    target = f"/socket?{ending}"
    async with connect(f"ws://127.0.0.1:{plain.port}{target}") as socket_:
        assert socket_.response is not None
        named = socket_.response.headers["x-request-id"]
        await socket_.send("hello")
        assert await socket_.recv() == "hello"
        assert not [line for line in plain.full.all() if line.target == target]
        if ending == "application":
            await socket_.send("close")
        elif ending == "raise":
            await socket_.send("raise")
        elif ending == "lost":
            socket_.transport.abort()
        if ending != "client":
            await socket_.wait_closed()
    line = await plain.full.one(target)
    ways = {"raise": Outcome.HANDLER_ERROR, "lost": Outcome.PEER_LOST}
    assert (line.status, line.outcome) == (101, ways.get(ending, Outcome.COMPLETE))
    assert line.request == named
    assert line.received is not None and line.received >= 11  # a masked frame
    assert line.sent is not None and line.sent >= 7


async def test_a_websocket_that_is_refused(plain: Hypercorn) -> None:
    """It has the status that Hypercorn answers."""
    with pytest.raises(Exception, match="403"):
        async with connect(f"ws://127.0.0.1:{plain.port}/refused"):
            pass
    line = await plain.full.one("/refused")
    assert (line.status, line.outcome) == (403, Outcome.COMPLETE)


async def test_h2load(secure: Hypercorn) -> None:
    """Each of many requests has one line, with an id of its own."""
    done = await run("h2load", "-n", "500", "-c", "10", "-m", "10", f"{secure.url}/load")
    assert "500 succeeded" in done.text
    lines = await secure.full.of("/load", 500)
    assert len({line.request for line in lines}) == 500
    assert len({line.session for line in lines}) == 10


# Stopping


async def _started(server: Hypercorn, path: str, count: int) -> list[asyncio.Task[Any]]:
    """Begin requests; return when the server has all of them."""
    verify = client_context(server.certs) if server.certs else False

    async def ask(n: int) -> httpx.Response:
        async with httpx.AsyncClient(verify=verify, timeout=30) as asking:
            return await asking.get(f"{server.url}{path}?{n}")

    return [asyncio.create_task(ask(n)) for n in range(count)]


async def test_term_under_load(tmp_path: Path, certs: Certificates) -> None:
    """SIGTERM loses no line: what was answered has one, and the exit code is 0."""
    with Hypercorn(tmp_path / "access.log", certs) as server:
        load = await asyncio.create_subprocess_exec(
            *("h2load", "-n", "100000", "-c", "4", "-m", "10", f"{server.url}/load"),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.to_thread(poll, lambda: len(server.full.all()) > 200)
        code = await asyncio.to_thread(server.stop)
        output = (await load.communicate())[0].decode()
    found = re.search(r"status codes: (\d+) 2xx", output)
    assert found is not None, output
    lines = server.full.all()
    complete = [line for line in lines if line.outcome is Outcome.COMPLETE]
    assert code == 0
    assert len(complete) >= int(found[1]) > 200 - 40  # that may have been on their way
    assert len({line.request for line in lines}) == len(lines)
    assert [line.sequence for line in lines] == list(range(1, len(lines) + 1))


async def test_requests_finish_after_term(tmp_path: Path, certs: Certificates) -> None:
    """What is open at SIGTERM is answered, and COMPLETE."""
    with Hypercorn(tmp_path / "access.log", certs) as server:
        async with H2Client.connect(server) as asking:
            slow = asking.send("GET", "/slow")
            await asking.get("/here")
            server.signal()
            assert (await asking.reply(slow)).status == 200
        assert await asyncio.to_thread(server.wait) == 0
    assert (await server.full.one("/slow")).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("hurry", [True, False])
async def test_requests_that_do_not_finish(
    tmp_path: Path, certs: Certificates, hurry: bool
) -> None:
    """Past the drain time, or at a second signal, they are SHUTDOWN; nothing looks like a fault."""
    options = () if hurry else ("--drain-timeout", "0.2")
    with Hypercorn(tmp_path / "access.log", certs, *options, noisy=False) as server:
        async with H2Client.connect(server) as asking:
            asking.send("GET", "/sleep")
            await asking.get("/here")
            server.signal()
            if hurry:
                await asyncio.to_thread(_no_listener, server.port)
                server.signal(signal.SIGINT)
            assert await asyncio.to_thread(server.wait) == 0
    assert (await server.full.one("/sleep")).outcome is Outcome.SHUTDOWN


def _no_listener(port: int) -> None:
    """Wait until nobody listens."""

    def refused() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) != 0

    poll(refused)


# Logs, settings, mistakes


async def test_rotation_and_json(tmp_path: Path) -> None:
    """Hypercorn's lines go to the same outputs: files that rotate, objects, the session log."""
    settings = tmp_path / "h2log.toml"
    settings.write_text(
        f"""
        [log.session]
        path = "{tmp_path}/session.log"
        [[log.access]]
        path = "{tmp_path}/access.log"
        format = "json"
        rotate = {{ size = "4KB" }}
        """
    )
    log = tmp_path / "access.log"
    with Process(
        *("run", APP, "--server", "hypercorn", "--config", str(settings)), certs=None, log=log
    ) as server:
        async with httpx.AsyncClient(base_url=server.url) as asking:
            for n in range(40):
                await asking.get(f"/json/{n}")
        await eventually(lambda: "\tclosed\t" in (tmp_path / "session.log").read_text())
        assert server.stop() == 0
    files = sorted(tmp_path.glob("access*"))
    assert len(files) > 1
    text = "".join(file.read_text() for file in files)
    assert all(f'"/json/{n}"' in text for n in range(40))
    sessions = [line.split("\t") for line in (tmp_path / "session.log").read_text().splitlines()]
    assert [line[1] for line in sessions[1:]] == ["opened", "closed"]
    assert sessions[2][5] == "1.1" and sessions[2][10] == "client_closed"
    assert sessions[2][12:14] == ["40", "COMPLETE=40"]


def test_a_certificate_that_changes(tmp_path: Path, certs: Certificates) -> None:
    """SIGHUP takes the certificate as it is now."""
    pair = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    pair[0].write_bytes(Path(certs.cert).read_bytes())
    pair[1].write_bytes(Path(certs.key).read_bytes())
    from h2log.server.certificates import make_certificates

    other = make_certificates(tmp_path / "other")
    log = tmp_path / "access.log"
    own = Certificates(**{**vars_of(certs), "cert": pair[0], "key": pair[1]})
    with Process("run", APP, "--server", "hypercorn", certs=own, log=log) as server:
        before = ssl.get_server_certificate(("127.0.0.1", server.port))
        pair[0].write_bytes(Path(other.cert).read_bytes())
        pair[1].write_bytes(Path(other.key).read_bytes())
        server.signal(signal.SIGHUP)
        poll(lambda: ssl.get_server_certificate(("127.0.0.1", server.port)) != before)


def vars_of(certs: Certificates) -> dict[str, Any]:
    """Return the paths of certificates by name."""
    return {name: getattr(certs, name) for name in certs.__dataclass_fields__}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--workers", "2"), "without several workers"),
        (("--max-requests", "5"), "without replacing workers"),
        (("--reload",), "--reload is of h2log's own server"),
        (("--http3", "--insecure"), "HTTP/3 is always over TLS"),
        (("--proxy-headers", "127.0.0.1"), "without the word of proxies"),
    ],
)
async def test_what_hypercorn_cannot_do(options: tuple[str, ...], text: str) -> None:
    """It is refused with one line, and exit code 2."""
    done = await _refused(APP, *options, *(() if "--http3" in options else ("--insecure",)))
    assert text in done


async def test_an_app_of_h2log() -> None:
    """An h2log.App is not for Hypercorn."""
    assert "leave out --server hypercorn" in await _refused(
        "tests.server.telling_app:app", "--insecure"
    )


async def test_http3_is_hypercorns() -> None:
    """h2log's own server says that it has no HTTP/3."""
    assert "add --server hypercorn" in await _refused(APP, "--http3", backend="h2log")


async def _refused(app: str, *options: str, backend: str = "hypercorn") -> str:
    import sys

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "h2log", "run", app, "--server", backend, "--port", "0", *options),
        *("--access-log", "-"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2, errors
    [line] = errors.decode().splitlines()
    return line
