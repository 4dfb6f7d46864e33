"""Measuring a scenario: warm-up, then rounds in which every server has its run.

All servers of a scenario stay up for all its rounds, idle but for their own runs, and the order
turns from round to round. For `idle` each run has a fresh server, since memory that was freed
would be used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

import accounting
import client
from failure import BenchError
from load import IDLE_CONNECTIONS, Load, Loader
from peers import Peer, Site
from scenarios import Scenario
from servers import Server, free_port

__all__ = ["Outcome", "Plan", "Run", "measure"]

BASE = "h2log"
WARM_UPS, SETTLED = 5, 1.1
"""At most so many warm-ups, until one is not faster than the last by more than a tenth: a JIT
compiler makes a server several times faster in its first seconds."""
Item = TypeVar("Item")
IDLE_RUNS = 3
"""A fresh server for each run of `idle` takes time, and memory hardly varies."""


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    runs: int
    requests: int
    """The most requests of a run."""
    seconds: float
    """What a run of a slow server is cut down to."""
    clients: int
    streams: int
    server_cpu: int
    load_cpu: int


@dataclass
class Run:
    """One measurement."""

    figure: float
    """In the scenario's unit: what is compared."""
    load: Load | None = None
    cpu_seconds: float = 0.0
    others: float = 0.0
    """Share of the server's CPU that other processes of the machine used meanwhile."""
    log_lines: int | None = None
    log_expected: int | None = None
    pss_kib: float | None = None
    rss_kib: float | None = None


@dataclass
class Outcome:
    """What is known of a peer in a scenario."""

    peer: Peer
    runs: list[Run] = field(default_factory=list)
    failed: str | None = None
    left_out: str | None = None
    ratio: float | None = None
    """To h2log: the median over rounds of the two figures of the same round."""
    coding: str = ""
    """The content coding of what it sends."""
    content: int = 0
    """The bytes of that, for a request."""

    @property
    def figure(self) -> float:
        """The median of the runs."""
        return median(run.figure for run in self.runs)

    @property
    def measured(self) -> bool:
        """Whether there is a figure."""
        return bool(self.runs) and self.failed is None and self.left_out is None

    @property
    def mismatches(self) -> list[str]:
        """Say of each run whose log is not what it should be what is wrong."""
        return [
            f"run {number}: {run.log_lines} log lines, {run.log_expected} are due"
            for number, run in enumerate(self.runs, 1)
            if run.log_lines != run.log_expected
        ]


class Bench:
    """The measurement of one scenario."""

    def __init__(
        self,
        plan: Plan,
        scenario: Scenario,
        place: Path,
        certificate: tuple[Path, Path],
        say: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.scenario = scenario
        self.place = place
        self.certificate = certificate
        self.tls = client.context(certificate[0], scenario.protocol)
        self.say = say
        self.loader = Loader(scenario, place, plan.load_cpu, plan.clients, plan.streams)
        self.servers = 0

    @contextmanager
    def server(self, peer: Peer) -> Iterator[Server]:
        """Start a server; end it at the end."""
        self.servers += 1
        place = self.place / f"{self.scenario.name}-{self.servers}-{peer.name}"
        place.mkdir()
        port = 0 if peer.chooses_port else free_port()
        site = Site(place, self.place / "root", *self.certificate, port)
        with Server(peer, site, self.scenario, self.plan.server_cpu, self.tls) as server:
            yield server

    def warm_up(self, server: Server) -> int:
        """Warm a server up; return how many requests its runs have."""
        loader, most = self.loader, self.plan.requests
        load = loader.run(server, loader.whole(max(2 * loader.least, loader.round)))
        asked, rate = load.logged + 1, 0.0  # one asked whether it is ready
        for _ in range(WARM_UPS):
            if load.rate < rate * SETTLED:
                break
            rate = load.rate
            load = loader.run(server, loader.whole(min(most / 2, rate * self.plan.seconds / 4)))
            asked += load.logged
        self.settled(server, asked)
        return loader.whole(min(most, load.rate * self.plan.seconds))

    def settled(self, server: Server, requests: int) -> tuple[int, int] | tuple[None, None]:
        """Wait for the log of `requests`; return lines found and expected, None without a log."""
        if not server.peer.writes(self.scenario):
            return None, None
        return server.log.settle(requests), requests

    def run(self, server: Server, requests: int) -> Run:
        """Make and measure one run. Its log is part of the server's cost."""
        cpu = self.plan.server_cpu
        busy, start = accounting.busy_seconds(cpu), time.monotonic()
        before = accounting.cpu_seconds(server.pid)
        load = self.loader.run(server, requests)
        lines, expected = self.settled(server, load.logged)
        used = accounting.cpu_seconds(server.pid) - before
        took = time.monotonic() - start
        others = (accounting.busy_seconds(cpu) - busy - used) / took
        large = self.scenario.unit == "µs/MB"
        figure = used * 1e6 / (load.content / 1e6 if large else requests)
        return Run(figure, load, used, max(0.0, others), lines, expected)

    def idle(self, server: Server) -> Run:
        """Measure the memory of idle connections."""
        warm = self.loader.run(server, self.loader.least)
        self.settled(server, warm.requests + 1)
        before = accounting.memory_kib(server.pid)
        with self.loader.hold(server):
            lines, expected = self.settled(server, IDLE_CONNECTIONS)
            after = accounting.memory_kib(server.pid)
        pss, rss = ((b - a) / IDLE_CONNECTIONS for a, b in zip(before, after, strict=True))
        return Run(pss, log_lines=lines, log_expected=expected, pss_kib=pss, rss_kib=rss)

    def load_rounds(self, outcomes: list[Outcome]) -> None:
        """Measure all peers in interleaved runs."""
        with ExitStack() as stack:
            ready: list[tuple[Outcome, Server, int]] = []
            for outcome in outcomes:
                self.say(f"{outcome.peer.name}: start and warm-up")
                with _failing(outcome):
                    server = stack.enter_context(self.server(outcome.peer))
                    outcome.coding = server.answer.fields.get("content-encoding", "")
                    outcome.content = len(server.answer.content)
                    ready.append((outcome, server, self.warm_up(server)))
            for turn in range(self.plan.runs):
                for outcome, server, requests in _turned(ready, turn):
                    if outcome.failed is not None:
                        continue
                    self.say(f"{outcome.peer.name}: run {turn + 1}, {requests:,} requests")
                    with _failing(outcome):
                        outcome.runs.append(self.run(server, requests))

    def idle_rounds(self, outcomes: list[Outcome]) -> None:
        """Measure all peers, a fresh server for each run."""
        for turn in range(min(self.plan.runs, IDLE_RUNS)):
            for outcome in _turned(outcomes, turn):
                if outcome.failed is not None:
                    continue
                self.say(f"{outcome.peer.name}: run {turn + 1}, {IDLE_CONNECTIONS:,} connections")
                with _failing(outcome), self.server(outcome.peer) as server:
                    outcome.runs.append(self.idle(server))


def _turned(items: list[Item], turn: int) -> list[Item]:
    """Return the items, another of them first each turn."""
    split = turn % len(items) if items else 0
    return items[split:] + items[:split]


@contextmanager
def _failing(outcome: Outcome) -> Iterator[None]:
    """Note why a peer has no figure, and go on with the others."""
    try:
        yield
    except BenchError as error:
        outcome.failed = str(error)
    except OSError as error:
        outcome.failed = f"{type(error).__name__}: {error}"


def measure(
    plan: Plan,
    scenario: Scenario,
    peers: list[Peer],
    place: Path,
    certificate: tuple[Path, Path],
    say: Callable[[str], None],
) -> list[Outcome]:
    """Measure a scenario; return an outcome for every peer, the ones left out as well."""
    outcomes = []
    for peer in peers:
        left_out = peer.refuses(scenario)
        if left_out is None and (how := peer.missing()) is not None:
            left_out = f"missing here: {how}"
        outcomes.append(Outcome(peer, left_out=left_out))
    present = [outcome for outcome in outcomes if outcome.left_out is None]
    bench = Bench(plan, scenario, place, certificate, say)
    if scenario.name == "idle":
        bench.idle_rounds(present)
    else:
        bench.load_rounds(present)
    base = next((o for o in outcomes if o.peer.name == BASE and o.measured), None)
    if base is not None:
        for outcome in outcomes:
            if outcome.measured:
                pairs = zip(outcome.runs, base.runs, strict=True)
                outcome.ratio = median(own.figure / its.figure for own, its in pairs)
    return outcomes
