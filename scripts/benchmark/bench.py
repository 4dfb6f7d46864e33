"""Measures h2log beside other servers: the same files, log, TLS and load, one after the other.

Servers run on one CPU and h2load on another. What is compared is CPU: what a server used from
just before a run until its log was complete, divided by the requests. It is the server's own and
hardly depends on what else the machine does; requests a second do, and are limited by h2load as
soon as a server is faster than it. Every run is checked: the first answer is looked at, its header
fields and all of its content; the others are 2xx over the scenario's protocol, with as many bytes
of content as that one for each (of WebSocket messages all content is looked at), and there are as
many log lines as requests, or WebSockets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import certificates
from folder import build_root
from measure import Outcome, Plan, measure
from peers import PACKAGES, PEERS
from report import results, show, summary
from rich.console import Console
from scenarios import SCENARIOS, Scenario

EXIT_FAILED = 1
EXIT_USAGE = 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    scenarios = "\n".join(f"  {one.name:<16}{one.what}" for one in SCENARIOS.values())
    peers = "\n".join(f"  {one.name:<18}{one.what}" for one in PEERS.values())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures h2log beside other servers.",
        epilog=f"scenarios:\n{scenarios}\n\npeers:\n{peers}\n\n"
        "Exits with 1 if a server failed or its log does not match what was asked.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scenario", nargs="+", choices=[*SCENARIOS, "all"], default=["hot"], metavar="NAME")
    add("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    add("--runs", type=_count, default=5, help="runs of each server, of which the median counts")
    add("-n", "--requests", type=_count, default=100_000, help="most requests of a run")
    add("--seconds", type=float, default=3.0, help="a run of a slow server is cut down to this")
    add("-c", "--clients", type=_count, default=10, help="connections")
    add("-m", "--streams", type=_count, default=10, help="concurrent requests of a connection")
    add("--quick", action="store_true", help="one short run")
    add("--json", type=Path, metavar="FILE", help="write everything measured there as well")
    add("--install-peers", action="store_true", help="pip-install the peers that are packages")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def cpus() -> tuple[int, int]:
    """Return the CPU of the servers and the CPU of the load."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


def prepare(options: argparse.Namespace, console: Console) -> Plan:
    """Install what was asked for, lift the limit on open files, choose CPUs."""
    if options.install_peers:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        for package in PACKAGES:
            if subprocess.run([*pip, package]).returncode:
                console.print(f"[yellow]{package} could not be installed; it is left out[/]")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server_cpu, load_cpu = cpus()
    if server_cpu == load_cpu:
        console.print("[yellow]one CPU only: the load disturbs the servers[/]")
    os.sched_setaffinity(0, {load_cpu})
    plan = Plan(
        runs=options.runs,
        requests=options.requests,
        seconds=options.seconds,
        clients=options.clients,
        streams=options.streams,
        server_cpu=server_cpu,
        load_cpu=load_cpu,
    )
    if options.quick:
        plan = replace(plan, runs=1, requests=min(plan.requests, 10_000), seconds=1.0)
    return plan


def main() -> int:
    """Measure, print, write; return the exit code."""
    options = arguments()
    console, progress = Console(), Console(stderr=True, style="dim", highlight=False)
    if shutil.which("h2load") is None:
        progress.print("bench: h2load is missing: apt install nghttp2-client", style="red")
        return EXIT_USAGE
    plan = prepare(options, progress)
    names = list(SCENARIOS) if "all" in options.scenario else list(dict.fromkeys(options.scenario))
    peers = [PEERS[name] for name in dict.fromkeys(options.peers)]
    measured: list[tuple[Scenario, list[Outcome]]] = []
    with tempfile.TemporaryDirectory(prefix="h2log-bench-") as folder:
        place = Path(folder)
        build_root(place / "root")
        certificate = certificates.make(place)
        for name in names:
            scenario = SCENARIOS[name]

            def say(text: str, name: str = name) -> None:
                progress.print(f"{name}  {text}")

            outcomes = measure(plan, scenario, peers, place, certificate, say)
            measured.append((scenario, outcomes))
            show(console, scenario, outcomes)
    for scenario, outcomes in measured:
        console.print(summary(scenario, outcomes), highlight=False, soft_wrap=True)
    if options.json is not None:
        tool = subprocess.run(["h2load", "--version"], capture_output=True, text=True).stdout
        text = json.dumps(results(plan, tool.strip(), measured), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n")
    wrong = any(one.failed or one.mismatches for _, outcomes in measured for one in outcomes)
    return EXIT_FAILED if wrong else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # However it is asked to end, servers are ended and the folder is removed first.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
