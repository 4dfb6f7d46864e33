"""What an output of the access log may be told: when to write, by what function, for whom."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from h2log.access import parse_line
from tests.support import poll

COMMAND = (sys.executable, "-m", "h2log")
TO_STDOUT = ("--insecure", "--access-log", "-", "--access-format", "dev")
SERVER = "[server]\nport = 0\ninsecure = true\n"
APP = """
from collections.abc import AsyncIterator
import asyncio
import h2log.access
from h2log import App, Request, Response

app = App()
gate = asyncio.Event()

h2log.access.token("shout", lambda record, argument: record.facts.method + "!")

@app.get("/slow")
async def slow(request: Request) -> Response:
    await gate.wait()
    return Response.text("done")

@app.post("/open")
async def open_gate(request: Request) -> Response:
    gate.set()
    return Response.text("open")

def line(record):
    return f"{record.facts.method} {record.status}\\nsecond" if record.status < 400 else None

def found(record):
    return record.status == 200

not_callable = 5
"""


@contextmanager
def serving(folder: Path, settings: str, stdout: int = subprocess.PIPE) -> Iterator[str]:
    """Run the application with these settings in `folder`; yield its address."""
    (folder / "h2log.toml").write_text(SERVER + settings)
    (folder / "mine.py").write_text(APP)
    with subprocess.Popen(
        [*COMMAND, "run", "mine:app"],
        cwd=folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")},
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.send_signal(signal.SIGTERM)
        _, errors = server.communicate()
        assert (server.returncode, errors) == (0, "")


def client(url: str) -> httpx.Client:
    """Return a client that speaks HTTP/2."""
    return httpx.Client(http1=False, http2=True, base_url=url)


def lines(path: Path) -> list[str]:
    """Return the lines that a file has so far."""
    return path.read_text().splitlines() if path.exists() else []


def test_immediate_writes_at_the_arrival(tmp_path: Path) -> None:
    """The line stands in its file while the request goes on; the other file has it at the end."""
    outputs = (
        '[[log.access]]\npath = "arrived.log"\nimmediate = true\n'
        '[[log.access]]\npath = "arrived.json"\nformat = "json"\nimmediate = true\n'
        '[[log.access]]\npath = "done.json"\nformat = "json"\n'
    )
    with serving(tmp_path, outputs) as url, client(url) as first, client(url) as other:
        thread = threading.Thread(target=first.get, args=("/slow",), daemon=True)
        thread.start()
        poll(lambda: len(lines(tmp_path / "arrived.json")) == 1)
        assert lines(tmp_path / "done.json") == []
        other.get("/absent")
        other.post("/open")
        thread.join(timeout=30)
    opened = [parse_line("json", line) for line in lines(tmp_path / "arrived.json")]
    done = [parse_line("json", line) for line in lines(tmp_path / "done.json")]
    assert [line.target for line in opened] == ["/slow", "/absent", "/open"]
    assert [line.sequence for line in opened] == [1, 2, 3]
    assert {line.outcome for line in opened} == {None}
    assert {line.milliseconds for line in opened} == {None}
    assert {line.request for line in opened} == {line.request for line in done}
    assert sorted(line.status or 0 for line in done) == [200, 200, 404]
    assert all(
        '"h2log.immediate":true' in line and "h2log.outcome" not in line
        for line in lines(tmp_path / "arrived.json")
    )
    columns = [line.split("\t") for line in lines(tmp_path / "arrived.log")]
    assert [row[1:3] for row in columns] == [["-", "-"]] * 3


def test_immediate_has_refused_requests_too(tmp_path: Path) -> None:
    """What is opened and refused at once has its line in both, over both protocols."""
    arrived_at = '[[log.access]]\npath = "arrived.log"\nimmediate = true\n'
    outputs = f'{arrived_at}[[log.access]]\npath = "done.log"\n'
    with (
        serving(tmp_path, outputs) as url,
        client(url) as two,
        httpx.Client(base_url=url) as one,
    ):
        two.get("/" + "x" * 40_000)
        one.get("/absent")
        one.get("/", headers={"x-long": "x" * 70_000})
    arrived = [parse_line("h2log", line) for line in lines(tmp_path / "arrived.log")]
    done = [parse_line("h2log", line) for line in lines(tmp_path / "done.log")]
    assert [line.status for line in done] == [431, 404, 431]
    assert [line.request for line in arrived] == [line.request for line in done]


def test_functions_of_the_application(tmp_path: Path) -> None:
    """A format and a predicate can be its functions, a token its own; a line stays one line."""
    outputs = (
        '[[log.access]]\npath = "a.log"\nformat = "python:mine:line"\n'
        '[[log.access]]\npath = "b.log"\nformat = ":shout :status"\nskip = "python:mine:found"\n'
    )
    with serving(tmp_path, outputs) as url, client(url) as one:
        one.post("/open")
        one.get("/absent")
    assert lines(tmp_path / "a.log") == ["POST 200\\x0Asecond"]
    assert lines(tmp_path / "b.log") == ["GET! 404"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('format = "python:mine:absent"', "mine has no attribute 'absent'"),
        ('format = "python:nowhere:line"', "no module 'nowhere' here"),
        ('format = "python:mine"', "'mine' must be MODULE:ATTR"),
        ('format = "python:mine:not_callable"', "is int, expected a function of a record"),
        ('skip = "python:mine:absent"', "mine has no attribute 'absent'"),
        ('timezone = "Nowhere"', "expected utc, local or a name such as Europe/Berlin"),
    ],
)
def test_a_mistake_in_them_is_told_at_start(tmp_path: Path, setting: str, said: str) -> None:
    """With the file, the key and what is wrong, in one line."""
    (tmp_path / "mine.py").write_text(APP)
    (tmp_path / "h2log.toml").write_text(f"{SERVER}[[log.access]]\n{setting}\n")
    done = subprocess.run(
        [*COMMAND, "run", "mine:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"h2log: h2log.toml: log.access[0].{setting.split(' ')[0]}: ")
    assert said in line


def test_dates_by_the_clock_of_a_zone(tmp_path: Path) -> None:
    """Each output has its own: here noon in UTC is not noon in Kathmandu."""
    formats = [("utc", "utc"), ("Asia/Kathmandu", "east")]
    outputs = "".join(
        f'[[log.access]]\npath = "{name}.log"\nformat = ":date[%H:%M %z]"\ntimezone = "{zone}"\n'
        for zone, name in formats
    )
    with serving(tmp_path, outputs) as url, client(url) as one:
        one.get("/absent")
    [here], [there] = lines(tmp_path / "utc.log"), lines(tmp_path / "east.log")
    assert (here[-5:], there[-5:]) == ("+0000", "+0545")
    minutes = [int(text[:2]) * 60 + int(text[3:5]) for text in (here, there)]
    assert (minutes[1] - minutes[0]) % 1440 == 345


def on_terminal(folder: Path, arguments: Sequence[str], **environ: str) -> bytes:
    """Run the server on a terminal, send a request, return what it wrote to the terminal."""
    ours, theirs = os.openpty()
    written = b""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    try:
        with subprocess.Popen(
            [*COMMAND, "serve", str(folder), "--port", "0", *arguments],
            cwd=folder,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env={**environment, **environ},
        ) as server:
            # With our end of it open too, a server that fails would be waited for without end.
            os.close(theirs)
            theirs = -1
            while b"\n" not in written:
                written += os.read(ours, 65536)
            address = re.search(rb"http://[0-9.:]+", written)
            assert address is not None
            with client(address[0].decode()) as one:
                one.get("/absent")
            while b"/absent" not in written:
                written += os.read(ours, 65536)
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return written


def test_dev_has_colours_on_a_terminal(tmp_path: Path) -> None:
    """By status, as morgan's; without them where NO_COLOR is set."""
    coloured = on_terminal(tmp_path, TO_STDOUT)
    assert b"GET /absent \x1b[33m404\x1b[0m" in coloured
    plain = on_terminal(tmp_path, TO_STDOUT, NO_COLOR="1")
    assert b"GET /absent 404 " in plain


def test_a_pipe_gets_no_colours(tmp_path: Path) -> None:
    """What is read by a program is text."""
    with subprocess.Popen(
        [*COMMAND, "serve", ".", "--port", "0", *TO_STDOUT],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        with client(server.stdout.readline().strip()) as one:
            one.get("/absent")
        assert server.stdout.readline().startswith("GET /absent 404 ")
        server.send_signal(signal.SIGTERM)


def test_the_settings_shown_have_them(tmp_path: Path) -> None:
    """`config show` names each with its default."""
    done = subprocess.run(
        [*COMMAND, "config", "show", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    shown = json.loads(done.stdout)
    assert shown["log.access[0].immediate"] == {"value": False, "source": "default"}
    assert shown["log.access[0].timezone"] == {"value": "utc", "source": "default"}
