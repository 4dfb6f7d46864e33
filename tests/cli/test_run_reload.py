"""`h2log run --reload`: another process has the new code, and nobody is refused meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import Process, poll
from tests.workers.fleet import Clients, alive, children, workers

pytest.importorskip("watchfiles")

SOURCE = """
import pathlib
text = "{text}" or (pathlib.Path(__file__).parent / "text.txt").read_text()

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


def write(folder: Path, text: str) -> None:
    """Write an application that answers with `text`, in one step."""
    fresh = folder / "fresh.tmp"
    fresh.write_text(SOURCE.format(text=text))
    fresh.rename(folder / "shop.py")


def reloading(folder: Path, *arguments: str) -> Process:
    """Serve the application of `folder`, and watch it."""
    return Process(
        "run", "shop:app", "--app-dir", str(folder), "--reload", "--log-level", "info",
        *arguments, certs=None, log=folder / "log",
    )  # fmt: skip


def answers(server: Process, text: str) -> bool:
    """Say whether a new connection is answered with `text`."""
    return httpx.get(server.url).text == text


def test_it_follows_the_source(tmp_path: Path) -> None:
    """New code is served without a refused connection; broken code is told, and the old stays."""
    write(tmp_path, "first")
    with reloading(tmp_path) as server:
        line = server.stdout.wait(lambda line: line.startswith("reloading"))
        assert line.split(maxsplit=1)[1] == f"when *.py in {tmp_path} changes"
        with Clients(server, count=1, http2=False) as clients:
            assert answers(server, "first")
            [before] = workers(server)
            write(tmp_path, "other")  # as many letters as before
            server.stderr.wait(lambda line: "shop.py changed: reloading" in line)
            poll(lambda: answers(server, "other"))
            (tmp_path / "shop.py").write_text("def app(:\n")
            line = server.stderr.wait(lambda line: "the old workers go on: cannot import" in line)
            assert "SyntaxError" in line and "shop.py, line 1" in line
            clients.more(3)
            assert answers(server, "other")
            write(tmp_path, "third")
            poll(lambda: answers(server, "third"))
            clients.more(3)
        assert not clients.failures
        assert clients.statuses == {200}
        poll(lambda: len(workers(server)) == 1)
        assert workers(server) != [before]
        assert server.stop() == 0
    assert len(server.lines) >= len(clients.ids)


def test_what_counts(tmp_path: Path) -> None:
    """Files that are included, and none that is excluded, hidden, or a log."""
    (tmp_path / "text.txt").write_text("one")
    (tmp_path / "parts" / "old").mkdir(parents=True)
    write(tmp_path, "")
    arguments = ("--reload-include", "*.txt", "--reload-include", "log*")
    with reloading(tmp_path, *arguments, "--reload-exclude", "parts/old") as server:
        assert answers(server, "one")
        (tmp_path / "parts" / "old" / "part.py").write_text("")
        (tmp_path / ".hidden.py").write_text("")
        (tmp_path / "readme.md").write_text("")
        (tmp_path / "fresh.tmp").write_text("two")
        (tmp_path / "fresh.tmp").rename(tmp_path / "text.txt")
        poll(lambda: answers(server, "two"))
        (tmp_path / "parts" / "part.py").write_text("")
        server.stderr.wait(lambda line: "parts/part.py changed: reloading" in line)
        assert server.stop() == 0
    told = [line for line in server.stderr.end() if "changed: reloading" in line]
    assert [line.rpartition(") ")[2] for line in told] == [
        "text.txt changed: reloading",
        "parts/part.py changed: reloading",
    ]


def test_the_interrupt_ends_all(tmp_path: Path) -> None:
    """Ctrl-C goes to every process of the terminal: none is left, none complains."""
    write(tmp_path, "first")
    with reloading(tmp_path) as server:
        pids = [*workers(server), *children(server, "h2log.workers.owner")]
        assert len(pids) == 2
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        poll(lambda: not alive(pids))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--reload-dir", "nowhere"], 2, "nowhere to watch; name an existing one"),
        ([], 2, "cannot import shop: SyntaxError"),
    ],
)
def test_a_start_that_fails(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    """As without it: one line, and the exit code."""
    (tmp_path / "shop.py").write_text("def app(:\n")
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", "shop:app", "--insecure", "--port", "0",
         "--reload", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("h2log: ") and text in line
