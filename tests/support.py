"""A server to test: in this process, or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import pytest

from h2log.access.formats import h2log_format
from h2log.access.lines import AccessLine, is_note, parse
from h2log.access.record import AccessRecord, Session
from h2log.app.application import App
from h2log.app.asgi import AsgiApp
from h2log.config import build
from h2log.server.certificates import Certificates
from h2log.server.http2_leg import Http2Leg
from h2log.server.server import Server
from h2log.server.session import Leg
from h2log.server.tls import tls_context

__all__ = [
    "PATIENCE",
    "Done",
    "Process",
    "Running",
    "accepts",
    "client_context",
    "eventually",
    "fill",
    "free_port",
    "poll",
    "run",
    "tool",
]

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0
"""Seconds within which what is waited for has to happen, on a slow and busy machine too."""


def client_context(certs: Certificates, *alpn: str) -> ssl.SSLContext:
    """Return a client's TLS side that trusts only our authority and offers `alpn`."""
    context = ssl.create_default_context(cafile=str(certs.ca))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


# Programs


def tool(name: str) -> str:
    """Return the path of a program; the test skips where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """What it printed."""
        return self.stdout.decode("utf-8", "replace")


async def run(name: str, *arguments: str, timeout: float = 30.0) -> Done:
    """Run a program to its end, with the loop going on."""
    process = await asyncio.create_subprocess_exec(
        tool(name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, stdout, stderr.decode("utf-8", "replace"))


async def eventually(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Let the loop go on until `condition` holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody has, for servers that cannot tell which they got.

    It is below those that the system gives to who asks for any, or to who connects: between now
    and the server's start nobody gets it by chance. None is given twice.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, max(first, 20_000))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),  # somebody has it
        ):
            tcp.bind(("", port))
            udp.bind(("", port))
            if port not in _given:
                _given.add(port)
                return port


def fill(disk: Path, free: int) -> Path:
    """Fill a file system but for about `free` bytes; return the file that does."""
    stuffing = disk / "stuffing"
    with stuffing.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):  # others may write meanwhile: no sum says how much
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - free)
    return stuffing


# A server in this process


class _Legs(set[Leg]):
    """The open connections, remembering the session of each that ever was."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}

    def add(self, leg: Leg) -> None:
        session: Session = cast(Any, leg)._session
        self.sessions[session.id] = session
        super().add(leg)


class Running:
    """A real server on a free port of this loop, its records in a list.

    Use: `async with Running(app, certs, stall_timeout=1) as server`; keywords are `limits`, other
    settings in `websocket`, `server` and `tls`, no certificates are cleartext. At the end it stops,
    and checks what holds for every test: each request that any connection opened has exactly one
    record, with an id of its own and a line that parses; no connection, task or held byte is left.
    """

    def __init__(
        self,
        app: App | AsgiApp,
        certs: Certificates | None,
        *,
        patience: float = 2.0,
        websocket: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
        **limits: float,
    ) -> None:
        self.certs = certs
        self.records: list[AccessRecord] = []
        self._line = h2log_format()
        self._patience = patience
        pair = {} if certs is None else {"cert": str(certs.cert), "key": str(certs.key)}
        settings = build(
            {
                "server": {"host": "127.0.0.1", "port": 0, **(server or {})},
                "tls": {**pair, **(tls or {})},
                "limits": limits,
                "websocket": websocket or {},
            },
            "the test's limits",
        )
        context = None if certs is None else tls_context(settings.tls)
        self.server = Server(app, settings, self.records.append, context)
        self.shared = self.server._shared
        self._legs = self.shared.legs = _Legs()

    async def __aenter__(self) -> Self:
        self._tasks_before = asyncio.all_tasks()
        await self.server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.server.stop(self._patience)
        if error is None:
            asgi = self.shared.asgi
            tasks = self.shared.dispatcher.tasks if asgi is None else asgi.tasks
            await eventually(lambda: not self.shared.legs and not tasks)
            self.check()

    @property
    def url(self) -> str:
        """The address to give to a client."""
        return self.server.url

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.server.addresses[0][1]

    @property
    def sessions(self) -> list[Session]:
        """Every connection's session whose protocol became known."""
        return list(self._legs.sessions.values())

    @property
    def lines(self) -> list[AccessLine]:
        """The access lines of the records so far, parsed."""
        return [parse(self._line(record).removesuffix("\n")) for record in self.records]

    @property
    def outcomes(self) -> Counter[str]:
        """How many requests ended how."""
        return Counter(r.outcome.value if r.outcome else "none" for r in self.records)

    @property
    def h2_legs(self) -> list[Http2Leg]:
        """The open HTTP/2 connections."""
        return [leg for leg in self.shared.legs if isinstance(leg, Http2Leg)]

    async def leg(self) -> Http2Leg:
        """Wait for the one HTTP/2 connection."""
        await eventually(lambda: self.h2_legs)
        [leg] = self.h2_legs
        return leg

    async def logged(self, count: int, timeout: float = PATIENCE) -> list[AccessRecord]:
        """Wait until `count` requests have ended; return their records."""
        try:
            await eventually(lambda: len(self.records) >= count, timeout)
        except TimeoutError:
            pytest.fail(f"{len(self.records)} of {count} requests have a record")
        return self.records

    async def record(self, path: str) -> AccessRecord:
        """Wait for the one record of `path`."""

        def found() -> list[AccessRecord]:
            return [record for record in self.records if record.facts.path == path]

        try:
            await eventually(found)
        except TimeoutError:
            pytest.fail(f"no record of {path}")
        [record] = found()
        return record

    def check(self) -> None:
        """One record for each opened request, ids unique, lines that parse, nothing left."""
        counted = Counter(record.session.id for record in self.records)
        opened = {s.id: s.requests for s in self.sessions if s.requests}
        assert counted == opened, "a request has no record, or two"
        assert len({record.id for record in self.records}) == len(self.records)
        assert all(record.outcome is not None for record in self.records)
        for line, record in zip(self.lines, self.records, strict=True):
            assert (line.session, line.request) == (record.session.id, record.id)
        assert not self.shared.legs
        assert not self.shared.dispatcher.tasks


# A server in a process of its own


class _Output:
    """What a process prints, gathered by a thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._gather, args=(stream,), daemon=True)
        self._thread.start()

    def _gather(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """Whole lines so far."""
        with self._changed:
            return list(self._lines)

    def wait(self, wanted: Callable[[str], bool], timeout: float = PATIENCE) -> str:
        """Return the first line that is `wanted`, waiting for it."""

        def found() -> bool:
            return self._ended or any(map(wanted, self._lines))

        with self._changed:
            self._changed.wait_for(found, timeout)
            for line in self._lines:
                if wanted(line):
                    return line
        raise AssertionError(f"not printed: {self.lines}")

    def end(self) -> list[str]:
        """Return every line, after the process has ended."""
        self._thread.join(PATIENCE)
        return self.lines


class Process:
    """`python -m h2log COMMAND TARGET --port 0` in a process of its own.

    Use: `with Process("serve", certs=certs, log=path) as server`. It has announced its address
    when the block begins; the block's end stops it if it still runs. No traceback may have been
    printed by then, unless `noisy`.
    """

    def __init__(
        self,
        *arguments: str,
        certs: Certificates | None,
        log: Path | str,
        noisy: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        self.certs = certs
        self._noisy = noisy
        self._pass_fds = pass_fds
        self._command = [sys.executable, "-m", "h2log", *arguments, "--port", "0"]
        self._command += ["--access-log", str(log)]
        if certs is None:
            self._command.append("--insecure")
        else:
            self._command += ["--cert", str(certs.cert), "--key", str(certs.key)]

    def __enter__(self) -> Self:
        self.popen = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        assert self.popen.stdout is not None and self.popen.stderr is not None
        self.stdout = _Output(self.popen.stdout)
        self.stderr = _Output(self.popen.stderr)
        try:
            self.url = self.stdout.wait(lambda line: line.startswith("http"))
        except AssertionError:
            self._end()
            pytest.fail(f"the server did not start: {self.stderr.lines}")
        port = self.url.rpartition(":")[2]
        self.port = int(port) if port.isdigit() else 0  # a Unix socket has none
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end()
        if error is None and not self._noisy:
            assert "Traceback" not in "\n".join(self.stderr.end()), self.stderr.lines

    def _end(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(PATIENCE)
        self.stdout.end()
        self.stderr.end()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server still runs after {timeout} s")

    def stop(self) -> int:
        """Ask it to stop, and wait; return the exit code."""
        self.signal()
        return self.wait()

    @property
    def lines(self) -> list[AccessLine]:
        """The access log so far, parsed; a line that does not parse raises ValueError.

        While it runs, the log may end in the middle of a line that is being written just now.
        """
        running = self.popen.poll() is None
        if self.log == "-":
            text = [line for line in self.stdout.lines if "\t" in line]
        else:
            whole = Path(self.log).read_text("ascii")
            text = (whole[: whole.rfind("\n") + 1] if running else whole).splitlines()
        return [parse(line) for line in text if not is_note(line)]

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def accepts(path: Path) -> bool:
    """Tell whether somebody listens on a Unix socket: its file is there a moment before."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def poll(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Look again and again until `condition` holds; fails when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s")
        time.sleep(0.005)
