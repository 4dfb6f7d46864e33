"""A server of several processes, and what a test does to them."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, Process, poll, tool

__all__ = [
    "APP",
    "SOCKET",
    "Clients",
    "access",
    "alive",
    "children",
    "events",
    "fleet",
    "h2load",
    "notes",
    "owner",
    "replaced",
    "settings",
    "workers",
]

APP = "tests.workers.fleet_app:app"
SOCKET = "h2log.sock"
PAUSE = 0.01


def settings(folder: Path, text: str = "", form: str = "json") -> Path:
    """Write settings: an access log with all that is known, as JSON, a session log; and `text`."""
    path = folder / "h2log.toml"
    path.write_text(
        f'[log.session]\npath = "{folder / "session.log"}"\nformat = "json"\n'
        f'[[log.access]]\npath = "{folder / "access.log"}"\nformat = "{form}"\n'
        f"{text}\n"
    )
    return path


@contextmanager
def fleet(
    folder: Path,
    certs: Certificates | None,
    *arguments: str,
    target: str = APP,
    text: str = "",
    count: int = 2,
    noisy: bool = False,
) -> Iterator[Process]:
    """Serve `target` by `count` workers, all of which serve when the block begins."""
    config = settings(folder, text)
    server = Process(
        "run", target, "--workers", str(count), "--config", str(config), *arguments,
        certs=certs, log=folder / "access.log", noisy=noisy,
    )  # fmt: skip
    with server:
        yield server


def children(server: Process, module: str) -> list[int]:
    """Return the processes of the server that run `module`, by age."""
    found = []
    for number in _children(server.pid):
        try:
            command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if module.encode() in command and fields[0] != "Z":
            found.append((int(fields[19]), number))  # numbers begin anew some time
    return [number for _, number in sorted(found)]


def _children(pid: int) -> list[int]:
    """Return the children of a process; a look while one ends may miss another (proc(5))."""
    before: list[int] | None = None
    while True:
        found: list[int] = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                found += map(int, (task / "children").read_text().split())
        if sorted(found) == before:
            return before
        before = sorted(found)


def alive(pids: list[int]) -> list[int]:
    """Return those that still run; who has ended may wait for somebody to ask for its exit code."""
    found = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                found.append(pid)
    return found


def workers(server: Process) -> list[int]:
    """Return the processes that serve, or are about to."""
    return children(server, "h2log.workers.worker")


def replaced(server: Process, old: int, count: int = 2) -> bool:
    """Say whether `count` processes serve, and `old` is none of them."""
    now = workers(server)
    return len(now) == count and old not in now


def owner(server: Process) -> int:
    """Return the process that owns the log; waits for it when there is none."""
    found: list[int] = []

    def look() -> bool:
        found[:] = children(server, "h2log.workers.owner")
        return bool(found)

    poll(look)
    return found[0]


def access(folder: Path) -> list[dict[str, Any]]:
    """Return the access log's lines; a torn one raises."""
    return [line for line in _objects(folder / "access.log") if "h2log.note" not in line]


def notes(folder: Path) -> list[dict[str, Any]]:
    """Return what the access log says of lines that it lacks."""
    return [line for line in _objects(folder / "access.log") if "h2log.note" in line]


def events(folder: Path) -> list[dict[str, Any]]:
    """Return the session log's lines, without what it says of lines that it lacks."""
    return [line for line in _objects(folder / "session.log") if "h2log.note" not in line]


def _objects(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("ascii")
    return [json.loads(line) for line in text.splitlines() if not line.startswith("#")]


def h2load(server: Process, *arguments: str, path: str = "/") -> subprocess.Popen[str]:
    """Begin a load."""
    return subprocess.Popen(
        [tool("h2load"), *arguments, f"{server.url}{path}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


class Clients:
    """`count` threads that ask for `path`, each time over a connection of its own.

    Between two requests they rest for `PAUSE` seconds, and leave the processor to the server.
    `ids` are those of the responses, `failures` what went wrong.
    """

    def __init__(
        self, server: Process, path: str = "/", count: int = 2, *, http2: bool = True
    ) -> None:
        self.ids: list[str] = []
        self.failures: list[httpx.TransportError] = []
        self.statuses: set[int] = set()
        self._url = f"{server.url}{path}"
        self._context: ssl.SSLContext | bool = False
        if server.certs is not None:
            self._context = ssl.create_default_context(cafile=str(server.certs.ca))
        # httpx fails what is open on a connection when it gets a GOAWAY that lets it go on.
        self._http2 = http2
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 10) -> None:
        """Wait for so many more responses."""
        wanted = len(self.ids) + count
        poll(lambda: len(self.ids) >= wanted)

    def _ask(self) -> None:
        while not self._over.wait(PAUSE):
            try:
                with httpx.Client(
                    http2=self._http2, verify=self._context, timeout=PATIENCE
                ) as client:
                    answer = client.get(self._url)
            except httpx.TransportError as error:
                self.failures.append(error)
            else:
                self.ids.append(answer.headers["x-request-id"])
                self.statuses.add(answer.status_code)


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
