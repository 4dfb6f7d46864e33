"""The long run: each of `CHECKS` starts a server of two workers, and says what it has found."""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from watch import Watch, sample, slope

from h2log.server.certificates import Certificates, make_certificates
from tests.support import Process, poll, tool
from tests.workers.fleet import Clients, access, fleet, h2load, notes, owner, workers
from tests.workers.steady import SteadyClients

Check = Callable[[Path, Certificates, argparse.Namespace], list[str]]

WARM = 200_000
"""Requests before memory is looked at: caches are full then."""
MOST_GROWTH = 1.0
"""MiB an hour."""


def load(server: Process, *arguments: str) -> int:
    """Run h2load to its end; return how many requests have succeeded. All must."""
    done = subprocess.run(
        [tool("h2load"), *arguments, f"{server.url}/"], capture_output=True, text=True, check=True
    )
    found = re.search(r"(\d+) total, \d+ started, \d+ done, (\d+) succeeded", done.stdout)
    assert found is not None and found[1] == found[2], done.stdout
    return int(found[2])


def count_lines(path: Path) -> int:
    """Return how many lines a file has, however large it is."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total += block.count(b"\n")
    return total


def long_load(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """Many requests and connections: memory, descriptors, and as many lines as requests."""
    faults = []
    with fleet(folder, certs) as server:
        total = load(server, "-n", str(WARM), "-c", "20", "-m", "10")
        time.sleep(3)
        pids = [server.pid, owner(server), *workers(server)]
        before = {pid: sample(pid) for pid in pids}
        with Watch(pids) as watch:
            while total < options.requests:
                total += load(server, "-n", "500000", "-c", "20", "-m", "10")
                print(f"  {total} requests", flush=True)
            connections = 0
            while connections < options.connections:
                total += load(server, "-n", "1000", "-c", "500")
                connections += 500
        time.sleep(5)
        for pid in pids:
            now = sample(pid)
            growth = slope(watch.samples[pid])
            took = watch.samples[pid][-1].at - watch.samples[pid][0].at
            print(
                f"  process {pid}: {before[pid].resident >> 20} MiB, {now.resident >> 20} MiB "
                f"after {took:.0f} s ({growth:+.2f} MiB/h), {now.descriptors} descriptors"
            )
            if growth > MOST_GROWTH and took > 600:
                faults.append(f"the memory of process {pid} grows by {growth:.2f} MiB an hour")
            if now.descriptors > before[pid].descriptors:
                faults.append(f"process {pid} has {now.descriptors} descriptors")
        if server.stop() != 0:
            faults.append("the exit code is not 0")
    lines = count_lines(folder / "access.log")
    print(f"  {total} requests, {lines} lines")
    if lines != total:
        faults.append(f"{total} requests have {lines} lines")
    return faults


def kills(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """A random worker is killed every two seconds: only what was open on it fails."""
    faults, slowest, count = [], 0.0, 0
    noted = folder / "notes"
    os.environ["FLEET_NOTES"] = str(noted)
    with fleet(folder, certs) as server:
        with Clients(server, count=2) as clients:
            until = time.monotonic() + options.kills
            while time.monotonic() < until:
                busy = h2load(server, "-D", "2", "-c", "4", "-m", "10")
                time.sleep(1)
                victim = random.choice(workers(server))
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                poll(lambda victim=victim: victim not in (now := workers(server)) and len(now) == 2)
                slowest = max(slowest, time.monotonic() - killed)
                count += 1
                busy.communicate()
        if server.stop() != 0:
            faults.append("the exit code is not 0")
    del os.environ["FLEET_NOTES"]
    ids = [line["h2log.request"] for line in access(folder)]
    print(f"  {count} kills, {len(ids)} lines, replaced within {slowest * 1000:.0f} ms")
    if slowest > 0.5:
        faults.append(f"a worker was started only after {slowest * 1000:.0f} ms")
    if len(ids) != len(set(ids)):
        faults.append("a request has two lines")
    if not set(noted.read_text().split()) <= set(ids):
        faults.append("a request has no line")
    if len(clients.failures) > count * 2:
        faults.append(f"{len(clients.failures)} requests failed")
    return faults


def reloads(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """SIGHUP with another certificate each time: no request fails."""
    faults = []
    pair = folder / "pair"
    shutil.copytree(certs.cert.parent, pair)
    mine = make_certificates(pair)
    with fleet(folder, mine, "--log-level", "info") as server:
        with Clients(server, http2=False) as clients, SteadyClients(server, depth=10) as steady:
            for n in range(options.reloads):
                make_certificates(pair, [f"n{n}.test"])
                server.signal(signal.SIGHUP)
                poll(lambda n=n: told(server) > n, 60)
                steady.more()
        if server.stop() != 0:
            faults.append("the exit code is not 0")
    count = len(clients.ids) + len(steady.ids)
    failures = [*clients.failures, *steady.failures]
    print(f"  {options.reloads} reloads, {count} requests, {len(failures)} failed")
    if failures or clients.statuses != {200}:
        faults.append(f"requests failed: {failures[:10]} {clients.statuses}")
    if not {*clients.ids, *steady.ids} <= {line["h2log.request"] for line in access(folder)}:
        faults.append("a request has no line")
    return faults


def told(server: Process) -> int:
    """Return how often the server has been reloaded."""
    return sum("reloaded: 2 workers are new" in line for line in server.stderr.lines)


def owners(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """The owner of the log is stopped for ten seconds, then killed, under load."""
    faults = []
    with fleet(folder, certs) as server:
        with Clients(server) as clients:
            busy = h2load(server, "-n", "300000", "-c", "4", "-m", "10")
            writer = owner(server)
            os.kill(writer, signal.SIGSTOP)
            time.sleep(10)
            os.kill(writer, signal.SIGCONT)
            for _ in range(5):
                writer = owner(server)
                os.kill(writer, signal.SIGKILL)
                poll(lambda writer=writer: owner(server) != writer)
                clients.more(50)
            text = busy.communicate()[0]
        if server.stop() != 0:
            faults.append("the exit code is not 0")
    ids = [line["h2log.request"] for line in access(folder)]
    counted = sum(note["lines"] for note in notes(folder))
    wanted = 300_000 + len(clients.ids)
    print(
        f"  {wanted} requests, {len(ids)} lines, {counted} counted as missing, "
        f"{len(clients.failures)} failed"
    )
    if clients.failures or "300000 succeeded" not in text:
        faults.append("requests failed")
    if len(ids) + counted != wanted or len(set(ids)) != len(ids):
        faults.append(f"{wanted} requests have {len(ids)} lines, and notes of {counted}")
    return faults


CHECKS: dict[str, Check] = {
    "kills": kills,
    "reloads": reloads,
    "owner": owners,
    "load": long_load,
}


def main() -> None:
    """Run the checks; exit code 1 when one finds fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--kills", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    options = parser.parse_args()
    failed = False
    for name in options.only:
        check = CHECKS[name]
        print(f"{name}: {check.__doc__}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"h2log-soak-{name}-"))
        certs = make_certificates(folder / "certs")
        faults = check(folder, certs, options)
        for fault in faults:
            print(f"  FAULT {fault}")
        failed = failed or bool(faults)
        if not faults:
            print("  good")
            shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
