"""A real server whose logs go to a syslog collector and to a logger of its application."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log.access.lines import parse
from h2log.server.certificates import Certificates
from tests.logfile.collector import KINDS, StreamCollector, collector_of, with_options
from tests.support import Process, poll

APP = """
import logging
from h2log import App, Request, Response

handler = logging.FileHandler("heard.log", delay=True)
handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(h2log)s %(message)s"))
logger = logging.getLogger("mine.access")
logger.addHandler(handler)
logger.setLevel("DEBUG")
logger.propagate = False

app = App()

@app.get("/")
async def index(request: Request) -> Response:
    return Response.text("index")
"""
SETTINGS = """
[server]
port = 0
insecure = true

[[log.access]]
path = "logger:mine.access?level=debug"

[[log.access]]
path = "{url}"
format = "combined"

[log.session]
path = "{url}"

[log.app]
path = "{url}"
level = "info"
"""


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_messages(kind: str, tmp_path: Path, certs: Certificates) -> None:
    """Each has its own when the server has ended, however short it ran."""
    with collector_of(kind, tmp_path, certs) as collector:
        with Process("serve", certs=None, log=with_options(collector, certs)) as server:
            with httpx.Client(http1=False, http2=True, base_url=server.url) as client:
                for n in range(100):
                    client.get(f"/{n}")
            assert server.stop() == 0
        poll(lambda: len(collector.received) >= 100)
        lines = [parse(message.text) for message in collector.messages]
    assert [line.path for line in lines] == [f"/{n}" for n in range(100)]
    assert {message.process for message in collector.messages} == {str(server.pid)}


def test_a_collector_that_is_down_does_not_stop_requests() -> None:
    """They are answered, and their lines come when it is back."""
    with StreamCollector() as collector:
        with Process("serve", certs=None, log=collector.url) as server:
            with httpx.Client(http1=False, http2=True, base_url=server.url) as client:
                client.get("/0")
                poll(lambda: len(collector.received) == 1)
                collector.stop()
                for n in range(1, 100):
                    assert client.get(f"/{n}").status_code == 404
                server.stderr.wait(lambda line: "Connection refused; serving goes on" in line)
                collector.start()
                poll(lambda: len(collector.received) == 100)
            assert server.stop() == 0
        lines = [parse(message.text) for message in collector.messages]
    assert [line.path for line in lines] == [f"/{n}" for n in range(100)]


def test_all_logs_by_a_file(tmp_path: Path) -> None:
    """Access log, session log and the application's, each known by its MSGID; and a logger."""
    (tmp_path / "mine.py").write_text(APP)
    with StreamCollector() as collector:
        (tmp_path / "h2log.toml").write_text(SETTINGS.format(url=collector.url))
        with subprocess.Popen(
            [sys.executable, "-m", "h2log", "run", "mine:app"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().strip()
                with httpx.Client(http1=False, http2=True, base_url=url) as client:
                    for path in ("/", "/absent"):
                        client.get(path)
            finally:
                server.send_signal(signal.SIGTERM)
            _, errors = server.communicate()
            assert (server.returncode, errors) == (0, "")
        poll(lambda: len(collector.received) >= 5)
        messages = collector.messages
    texts = {
        name: [message.text for message in messages if message.id == name]
        for name in ("access", "session", "application")
    }
    assert ['"GET / HTTP/2.0" 200' in texts["access"][0], len(texts["access"])] == [True, 2]
    header, opened, closed = texts["session"]
    assert header.startswith("#Fields: ")
    assert (opened.split("\t")[1], closed.split("\t")[1]) == ("opened", "closed")
    heard = (tmp_path / "heard.log").read_text().splitlines()
    begin = "mine.access DEBUG access "
    assert all(text.startswith(begin) for text in heard)
    lines = [parse(text.removeprefix(begin)) for text in heard]
    assert [(line.path, line.status) for line in lines] == [("/", 200), ("/absent", 404)]
