"""`h2log run` with applications of every interface, in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, Process, client_context

SOURCE = """
import contextvars
import json
import os
import pathlib
import threading

from h2log.ids import request_id, session_id

HERE = pathlib.Path(__file__).parent
variable = contextvars.ContextVar("variable", default="unset")

def note(text):
    with open(HERE / "said", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")

async def lifespan(scope, receive, send):
    variable.set("the lifespan's")
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            scope["state"]["greeting"] = "hello"
            scope["state"]["asked"] = []
        note(message["type"])
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    state = scope["state"]
    state["asked"].append(scope["path"])
    state["mine"] = True
    body = json.dumps({
        "version": scope["asgi"]["version"],
        "path": scope["path"],
        "root_path": scope["root_path"],
        "state": {key: state[key] for key in ("greeting", "asked")},
        "variable": variable.get(),
        "pid": os.getpid(),
    }).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

class Double:
    def __init__(self, scope):
        self.scope = scope
    async def __call__(self, receive, send):
        await app(self.scope, receive, send)

class Holder:
    inner = app

async def without_lifespan(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"plain"})

def make():
    return app

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database at 10.0.0.1"})

async def starting(scope, receive, send):
    if scope["type"] == "lifespan":
        print("starting", flush=True)
        try:
            await __import__("asyncio").Event().wait()
        finally:
            note("cancelled")

async def stuck_at_the_stop(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await __import__("asyncio").Event().wait()
    await without_lifespan(scope, receive, send)

def wsgi(environ, start_response):
    content = environ["wsgi.input"]
    body = json.dumps({
        "path": environ["PATH_INFO"],
        "script": environ["SCRIPT_NAME"],
        "method": environ["REQUEST_METHOD"],
        "content": content.read().decode(),
        "thread": threading.current_thread().name,
        "session": session_id.get(),
        "request": request_id.get(),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module of applications."""
    (tmp_path / "shop.py").write_text(SOURCE)
    return tmp_path


def serving(
    folder: Path, certs: Certificates | None, target: str, *arguments: str, noisy: bool = False
) -> Process:
    """Serve an application of `folder`."""
    return Process(
        "run", target, "--app-dir", str(folder), *arguments,
        certs=certs, log=folder / "log", noisy=noisy,
    )  # fmt: skip


def client(server: Process) -> httpx.Client:
    """Return a client over HTTP/2."""
    if server.certs is None:
        return httpx.Client(http1=False, http2=True, base_url=server.url)
    return httpx.Client(verify=client_context(server.certs), http2=True, base_url=server.url)


def said(folder: Path) -> list[str]:
    """Return what the application has noted, without the processes."""
    return [line.split()[0] for line in (folder / "said").read_text().splitlines()]


@pytest.mark.parametrize(
    ("target", "arguments", "version"),
    [
        ("shop:app", [], "3.0"),
        ("shop:Holder.inner", ["--root-path", "/api"], "3.0"),
        ("shop:make", ["--factory"], "3.0"),
        ("shop:Double", [], "2.0"),
        ("shop:make", ["--factory", "--workers", "2"], "3.0"),
    ],
)
def test_asgi(
    folder: Path, certs: Certificates, target: str, arguments: list[str], version: str
) -> None:
    """Each interface, over HTTPS: the lifespan's state is shared, and each request has its own."""
    root = "/api" if "--root-path" in arguments else ""
    with serving(folder, certs, target, *arguments) as server:
        with client(server) as asking:
            first = asking.get("/one").json()
            second = asking.get("/two").json()
        assert (first["version"], first["root_path"]) == (version, root)
        assert (first["path"], second["path"]) == (f"{root}/one", f"{root}/two")
        assert first["state"] == {"greeting": "hello", "asked": [f"{root}/one"]}
        assert second["state"]["asked"] == [f"{root}/one", f"{root}/two"]
        assert first["variable"] == "unset"
        assert server.stop() == 0
    assert [line.status for line in server.lines] == [200, 200]
    workers = 2 if "--workers" in arguments else 1
    assert sorted(said(folder)) == ["lifespan.shutdown"] * workers + ["lifespan.startup"] * workers
    pids = {line.split()[1] for line in (folder / "said").read_text().splitlines()}
    assert len(pids) == workers


def test_wsgi(folder: Path, certs: Certificates) -> None:
    """In threads, which know the ids; it is told of no lifespan."""
    with serving(folder, certs, "shop:wsgi", "--root-path", "/api") as server:
        with client(server) as asking:
            answer = asking.post("/cart", content=b"a" * 100_000)
        told = answer.json()
        assert (told["path"], told["script"], told["method"]) == ("/cart", "/api", "POST")
        assert told["content"] == "a" * 100_000
        assert told["thread"].startswith("WSGI")
        assert told["request"] == answer.headers["x-request-id"]
        assert server.stop() == 0
    [line] = server.lines
    assert (line.request, line.session) == (told["request"], told["session"])


def test_it_says_what_it_serves(folder: Path) -> None:
    """At info level: the interface, and whether there is a lifespan."""
    with serving(folder, None, "shop:without_lifespan", "--log-level", "info") as server:
        with client(server) as asking:
            assert asking.get("/").text == "plain"
        assert server.stop() == 0
    text = "\n".join(server.stderr.end())
    assert (
        "shop:without_lifespan is an ASGI 3 application: HTTP and WebSocket, lifespan auto" in text
    )
    assert "shop:without_lifespan has no lifespan" in text


def test_the_settings_may_say_everything(folder: Path) -> None:
    """A section `[app]`, without an argument; the argument and the options win."""
    (folder / "h2log.toml").write_text(
        f'[app]\ntarget = "shop:make"\nfactory = true\ndir = "{folder}"\nroot_path = "/shop"\n'
        'lifespan = "on"\n'
    )
    for arguments, root in (((), "/shop"), (("shop:app", "--no-factory", "--root-path", ""), "")):
        command = ("run", *arguments, "--config", str(folder / "h2log.toml"))
        with Process(*command, certs=None, log=folder / "log") as server:
            with client(server) as asking:
                assert asking.get("/one").json()["root_path"] == root
            assert server.stop() == 0


def test_formats_may_be_there_too(folder: Path) -> None:
    """What the log's settings name is found in `--app-dir`, by every process."""
    (folder / "formats.py").write_text("def line(record):\n    return f'own {record.facts.path}'\n")
    arguments = ("--access-format", "python:formats:line", "--workers", "2")
    with serving(folder, None, "shop:app", *arguments) as server:
        with client(server) as asking:
            assert asking.get("/one").status_code == 200
        assert server.stop() == 0
    assert (folder / "log").read_text() == "own /one\n"


def test_help_has_groups() -> None:
    """What is about the application comes first, in a section of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", "--help"], capture_output=True, text=True
    )
    sections = [line for line in done.stdout.splitlines() if line and line[0] != " "]
    assert sections[1:3] == ["Application:", "Server:"]
    assert {"Development:", "Listening:", "Certificate:", "Log:"} <= set(sections)
    application = done.stdout.partition("Application:")[2].partition("\n\n")[0]
    for option in ("--factory", "--app-dir", "--interface", "--root-path", "--lifespan"):
        assert f"\n  {option} " in application


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to an end that it finds itself."""
    return subprocess.run(
        [sys.executable, "-m", "h2log", "run", *arguments, "--insecure", "--port", "0"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["shop:failing"],
            3,
            "h2log: the application failed at its start: no database at 10.0.0.1",
        ),
        (
            ["shop:failing", "--workers", "2"],
            3,
            "h2log: the application failed at its start: no database at 10.0.0.1",
        ),
        (
            ["shop:without_lifespan", "--lifespan", "on"],
            3,
            "h2log: the application failed at its start: AssertionError (",
        ),
        ([], 2, "h2log: nothing to run: the application must be MODULE:ATTR, such as myapp:app"),
        (
            ["shop:app", "--reload-dir", "."],
            2,
            "h2log: --reload-dir, --reload-include and --reload-exclude go with --reload",
        ),
        (["shop:app", "--app-dir", "away"], 2, "h2log: no folder away; name the one"),
        (
            ["shop:app", "--root-path", "api/"],
            2,
            "h2log: flag --root-path: app.root_path: expected",
        ),
    ],
)
def test_a_start_that_fails(folder: Path, arguments: list[str], code: int, text: str) -> None:
    """One line says why, and the exit code whose fault it is."""
    done = run(folder, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith(text.removesuffix("(").rstrip()), done.stderr
    assert "Traceback" not in done.stderr or "--lifespan" in arguments


def test_a_stop_that_takes_too_long(folder: Path) -> None:
    """It is cancelled after `drain_timeout`, with a warning."""
    arguments = ("shop:stuck_at_the_stop", "--drain-timeout", "0.1")
    with serving(folder, None, *arguments) as server:
        assert server.stop() == 0
    assert "has not completed its stop within 0.1 s" in "\n".join(server.stderr.end())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_starts(folder: Path, number: signal.Signals) -> None:
    """The start is given up, and nothing is served."""
    with subprocess.Popen(
        [sys.executable, "-m", "h2log", "run", "shop:starting", "--insecure", "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "starting\n"
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            assert process.stdout.read() == ""
            assert "asked to stop before the application was ready" in process.stderr.read()
        finally:
            process.kill()
    assert said(folder) == ["cancelled"]
