"""Starting and ending processes: pinned to a CPU, in a group of their own, never left behind."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import client
import echo
from accounting import LogTail, processes
from failure import BenchError
from peers import Peer, Site
from scenarios import ECHOED, Scenario

__all__ = ["Server", "free_port", "pinned"]

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def free_port() -> int:
    """Return a port that is free now; the kernel does not hand it out again soon."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pinned(cpu: int) -> Callable[[], None]:
    """Return what a new process does first: stay on `cpu`, and end when the benchmark does."""

    def prepare() -> None:
        os.sched_setaffinity(0, {cpu})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


class Server:
    """A running server. Use it as a context manager: however that ends, the server ends."""

    def __init__(
        self, peer: Peer, site: Site, scenario: Scenario, cpu: int, tls: ssl.SSLContext
    ) -> None:
        self.peer = peer
        self.site = site
        self.scenario = scenario
        self.cpu = cpu
        self.tls = tls
        self.port = site.port
        self.log = LogTail(site.log)
        self.answer = client.Answer()
        """To the first request, which is as those of the load."""

    def __enter__(self) -> Server:
        output, errors = self._output, self._errors
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                self.peer.command(self.site, self.scenario),
                cwd=self.site.place,
                env=self.peer.environment(self.site),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=pinned(self.cpu),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The first process, which leads the group."""
        return self.process.pid

    @property
    def _output(self) -> Path:
        return self.site.place / "stdout"

    @property
    def _errors(self) -> Path:
        return self.site.place / "stderr"

    def last_words(self) -> str:
        """Return the last lines of what the server said."""
        own = ("error.log", "own.log")
        for file in (self._errors, *(self.site.place / name for name in own), self._output):
            if file.exists() and (text := file.read_text(errors="replace").strip()):
                return "; ".join(line.strip() for line in text.splitlines()[-3:])
        return "it said nothing"

    def check_alive(self) -> None:
        """Raise BenchError if the server's first process has ended."""
        if (code := self.process.poll()) is not None:
            raise BenchError(f"the server ended with {code}: {self.last_words()}")

    def _wait_until_ready(self) -> None:
        """Ask until the server answers; raise BenchError if it does not in time."""
        deadline = time.monotonic() + START_TIMEOUT
        reason = "it does not listen"
        while time.monotonic() < deadline:
            self.check_alive()
            if not self.port:
                found = re.search(rb"https://127\.0\.0\.1:(\d+)", self._output.read_bytes())
                self.port = int(found[1]) if found else 0
            if self.port:
                scenario = self.scenario
                path = scenario.paths[0]
                try:
                    self.answer = self._ask(path)
                except (OSError, BenchError) as error:
                    reason = str(error)
                else:
                    fault = scenario.fault(self.answer, self.site.root, self.peer.codings)
                    if fault:
                        raise BenchError(f"the server answers {path} with {fault}")
                    return
            time.sleep(0.02)
        raise BenchError(f"not ready in {START_TIMEOUT:g} s ({reason}): {self.last_words()}")

    def _ask(self, path: str) -> client.Answer:
        """Ask once, as the load will."""
        scenario = self.scenario
        if scenario.echo:
            return echo.fetch(self.port, path, ECHOED, self.tls)
        fetch = client.fetch if scenario.protocol == "h2" else client.fetch_http1
        return fetch(self.port, path, scenario.headers, self.tls, scenario.upload)

    def stop(self) -> None:
        """End the server's processes: asked first, then killed."""
        alive = processes(self.pid)
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None and not any(_runs(pid) for pid in alive):
                break
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass


def _runs(pid: int) -> bool:
    """Tell whether a process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
