"""Making load: h2load, its report read and checked; `echo.py` for WebSockets; idle connections."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from failure import BenchError
from scenarios import Scenario
from servers import Server, pinned

__all__ = ["IDLE_CONNECTIONS", "Load", "Loader", "parse"]

# One cipher for all, or the servers' different preferences would be part of the figures.
CIPHER = "TLS_AES_128_GCM_SHA256"
RUN_TIMEOUT = 180.0
IDLE_CONNECTIONS = 1_000
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass
class Load:
    """What h2load saw of a run: all of its processes together."""

    requests: int = 0
    logged: int = 0
    """How many lines the log should have: requests, or WebSockets."""
    seconds: float = 0.0
    content: int = 0
    """Bytes of DATA frames."""
    traffic: int = 0
    """Bytes received, frames and all."""
    latency_ms: float = 0.0
    """The mean; of several processes, the mean of their means."""
    tls: set[str] = field(default_factory=set)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / max(self.seconds, 1e-6)


def _find(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        last = "; ".join(text.strip().splitlines()[-3:])
        raise BenchError(f"h2load's report is not understood: {last}")
    return found


def parse(text: str, requests: int, wanted: str = "h2") -> Load:
    """Read h2load's report; raise BenchError unless all `requests` succeeded with 2xx.

    `wanted` is the protocol over which they have to have gone.
    """
    done = _find(
        r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, "
        r"(\d+) failed, (\d+) errored, (\d+) timeout",
        text,
    )
    codes = _find(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    good = int(done[1]) == int(done[2]) == int(codes[1]) == requests
    # Of an HTTP/1.1 answer without a reason phrase, as Hypercorn's are, h2load counts no status at
    # all, and calls it failed. It has come whole; what is in it the sum of the content shows.
    silent = wanted != "h2" and not any(map(int, codes.groups()))
    if not good and not (silent and int(done[1]) == int(done[3]) == requests):
        raise BenchError(
            f"of {requests} requests {done[2]} succeeded, {done[3]} failed, {done[4]} errored, "
            f"{done[5]} timed out; {codes[0]}"
        )
    protocol = _find(r"Application protocol: (\S+)", text)[1]
    if protocol != wanted:
        raise BenchError(f"the server speaks {protocol}, not {wanted}")
    took = _find(r"finished in ([\d.]+)(us|ms|s|m)\b", text)
    traffic = _find(r"traffic: \S+ \((\d+)\) total, .*, \S+ \((\d+)\) data", text)
    latency = _find(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m)\b", text)
    version = _find(r"TLS Protocol: (\S+)", text)[1]
    cipher = _find(r"Cipher: (\S+)", text)[1]
    return Load(
        requests=requests,
        logged=requests,
        seconds=float(took[1]) * UNITS[took[2]],
        content=int(traffic[2]),
        traffic=int(traffic[1]),
        latency_ms=float(latency[1]) * UNITS[latency[2]] * 1e3,
        tls={f"{version} {cipher}"},
    )


class Loader:
    """Runs the load of a scenario against servers, from one CPU."""

    def __init__(
        self, scenario: Scenario, place: Path, cpu: int, clients: int, streams: int
    ) -> None:
        self.scenario = scenario
        self.place = place
        self.cpu = cpu
        self.clients = scenario.clients or clients
        self.streams = scenario.streams or streams
        self._fresh = itertools.count(1)

    @property
    def least(self) -> int:
        """The fewest requests that use every connection and stream."""
        return self.clients * self.streams

    @property
    def round(self) -> int:
        """The fewest requests with which every connection has asked for every path."""
        return self.clients * len(self.scenario.paths)

    def whole(self, requests: float) -> int:
        """Round a number of requests to one that all connections share evenly."""
        return max(self.least, int(requests) // self.clients * self.clients)

    def run(self, server: Server, requests: int) -> Load:
        """Make `requests` (a whole number of the clients) requests and check the answers."""
        if self.scenario.echo:
            load = self._echo(server, requests)
        elif self.scenario.waves:
            # h2load opens all its connections at the start, and opens none later: a wave each.
            waves = [
                self._together(server, [(self.clients, self.clients)])
                for _ in range(requests // self.clients)
            ]
            load = _sum(waves)
            load.seconds = sum(wave.seconds for wave in waves)
        elif self.scenario.fresh:
            # Every client of one h2load asks for the same URLs, so each is a process of its own.
            load = self._together(server, [(1, requests // self.clients)] * self.clients)
        else:
            load = self._together(server, [(self.clients, requests)])
        server.check_alive()
        expected = requests * len(server.answer.content)
        if load.content != expected:
            raise BenchError(f"{load.content} bytes of content came, {expected} should have")
        return load

    def _together(self, server: Server, parts: list[tuple[int, int]]) -> Load:
        """Run an h2load for each (clients, requests) of `parts` at the same time."""
        started: list[tuple[subprocess.Popen[str], int]] = []
        with ExitStack() as stack:
            # URLs first: what is started later starts together.
            commands = [
                self._command(server, clients, requests, number)
                for number, (clients, requests) in enumerate(parts)
            ]
            for command, (_clients, requests) in zip(commands, parts, strict=True):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
                    preexec_fn=pinned(self.cpu),
                )
                stack.enter_context(process)
                stack.callback(process.kill)
                started.append((process, requests))
            loads = []
            for process, requests in started:
                try:
                    text, _ = process.communicate(timeout=RUN_TIMEOUT)
                except subprocess.TimeoutExpired:
                    raise BenchError(f"h2load had not ended after {RUN_TIMEOUT:g} s") from None
                loads.append(parse(text, requests, self.scenario.protocol))
        return _sum(loads)

    def _echo(self, server: Server, messages: int) -> Load:
        """Send WebSocket messages, and have all of them come back."""
        here = Path(__file__).parent
        path, cert = self.scenario.paths[0], server.site.cert
        words = (server.port, path, cert, self.clients, self.streams, messages)
        command = [sys.executable, str(here / "echo.py"), *map(str, words)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT,
                start_new_session=True,
                preexec_fn=pinned(self.cpu),
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"echo.py had not ended after {RUN_TIMEOUT:g} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise BenchError(f"WebSockets: {said[-1] if said else 'echo.py failed'}")
        found = json.loads(done.stdout)
        return Load(
            requests=messages,
            logged=self.clients,
            seconds=found["seconds"],
            content=found["content"],
            traffic=found["traffic"],
            tls={found["tls"]},
        )

    def _command(self, server: Server, clients: int, requests: int, number: int) -> list[str]:
        origin = f"https://127.0.0.1:{server.port}"
        command = ["h2load", "-n", str(requests), "-c", str(clients), "-m", str(self.streams)]
        command.append(f"--tls13-ciphers={CIPHER}")
        if self.scenario.protocol != "h2":
            command.append("--h1")
        if self.scenario.upload:
            content = self.place / "upload"
            content.write_bytes(self.scenario.upload)
            command += ["-d", str(content)]
        for name, value in self.scenario.headers.items():
            command += ["-H", f"{name}: {value}"]
        if not self.scenario.fresh and len(self.scenario.paths) == 1:
            return [*command, origin + self.scenario.paths[0]]
        file = self.place / f"uris-{number}"
        with file.open("w") as out:
            out.writelines(f"{origin}{path}\n" for path in self._paths(requests))
        return [*command, "-i", str(file)]

    def _paths(self, requests: int) -> Iterator[str]:
        if not self.scenario.fresh:
            yield from self.scenario.paths
            return
        for number in itertools.islice(self._fresh, requests):
            yield f"{self.scenario.paths[0]}?q={number}"

    @contextmanager
    def hold(self, server: Server, count: int = IDLE_CONNECTIONS) -> Iterator[None]:
        """Open idle connections, yield, and check that the server has left all of them open."""
        here = Path(__file__).parent
        words = (server.port, self.scenario.paths[0], count, server.site.cert)
        with subprocess.Popen(
            [sys.executable, str(here / "client.py"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=pinned(self.cpu),
        ) as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                assert process.stderr is not None
                if process.stdout.readline() != "ready\n":
                    said = process.stderr.read().strip().splitlines()
                    raise BenchError(f"idle connections: {said[-1] if said else 'no answer'}")
                yield
                process.stdin.write("\n")
                process.stdin.flush()
                still = int(process.stdout.readline() or 0)
                if still != count:
                    raise BenchError(f"the server closed {count - still} of {count} connections")
            finally:
                process.kill()


def _sum(loads: list[Load]) -> Load:
    """Return several loads as one; the longest is as long as all."""
    return Load(
        requests=sum(load.requests for load in loads),
        logged=sum(load.logged for load in loads),
        seconds=max(load.seconds for load in loads),
        content=sum(load.content for load in loads),
        traffic=sum(load.traffic for load in loads),
        latency_ms=sum(load.latency_ms for load in loads) / len(loads),
        tls=set().union(*(load.tls for load in loads)),
    )
