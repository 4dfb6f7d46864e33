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
from typing import Any

from vanish import vanishing
from watch import Sample, halves, sample, slope

from h2log.server.certificates import Certificates, make_certificates
from h2log.workers import control
from tests.support import Process, poll, tool
from tests.workers.fleet import SOCKET, Clients, access, fleet, h2load, notes, owner, workers
from tests.workers.steady import SteadyClients

Check = Callable[[Path, Certificates, argparse.Namespace], list[str]]

WARM = 12
"""Rounds before memory is looked at: caches are full then, and the allocator has what it keeps."""
STREAMS = ("-c", "20", "-m", "10")
CROWD = 500
"""Connections at a time."""
CHURN = 40
"""Times that so many connections come and go before memory is looked at."""
REST = 4.0
"""Seconds after the last connection: a worker gives memory back after 2.5 at the latest."""
MOST_GROWTH = 1.0
"""MiB an hour."""
LONG_ENOUGH = 600.0
"""Seconds from which on the slope is judged: in less, 0.2 MiB would be more, and no leak."""


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
    """Many requests and connections: memory, descriptors, tasks, and as many lines as requests."""
    faults: list[str] = []
    with fleet(folder, certs) as server:
        pids = {"supervisor": server.pid, "owner": owner(server)}
        pids |= {f"worker {n}": pid for n, pid in enumerate(workers(server), 1)}
        # Equal rounds; the first ones warm up. After each, all is at rest and is looked at.
        total = connections = 0
        samples: dict[str, list[Sample]] = {name: [] for name in pids}
        tasks: list[dict[str, int]] = []
        began = time.monotonic()
        for number in range(-WARM, options.rounds):
            if number == 0:
                began = time.monotonic()
            total += load(server, "-n", str(options.requests // options.rounds), *STREAMS)
            for _ in range(-(-options.connections // options.rounds // CROWD)):
                total += load(server, "-n", str(2 * CROWD), "-c", str(CROWD))
                connections += CROWD
            if number >= 0:  # not all at once: the longer it takes, the surer is a slope
                share = (number + 1) * options.minutes * 60 / options.rounds
                time.sleep(max(0.0, began + share - time.monotonic()))
            rest(folder)
            if number < -1:
                continue
            for name, pid in pids.items():
                samples[name].append(sample(pid))
            tasks.append(tasks_of(folder))
            if (number + 1) % 10 == 0:
                print(f"  {total} requests, {connections} connections", flush=True)
        if workers(server) != list(pids.values())[2:]:
            faults.append("a worker was replaced")
        for name, found in samples.items():
            faults += judge(name, found)
        for name, before in tasks[0].items():
            counts = {found.get(name) for found in tasks}
            if counts != {before}:
                faults.append(f"tasks of the {name}: {before} at first, later {counts}")
        print(f"  tasks at rest: {tasks[0]} at first, {tasks[-1]} at the end")
        if server.stop() != 0:
            faults.append("the exit code is not 0")
    lines = count_lines(folder / "access.log")
    print(f"  {total} requests over {connections} connections and more, {lines} lines")
    if lines != total:
        faults.append(f"{total} requests have {lines} lines")
    return faults


def rest(folder: Path) -> None:
    """Return when nobody is connected any more, and memory was given back."""
    poll(lambda: ask(folder)["total"]["connections"] == 0)
    time.sleep(REST)


def ask(folder: Path) -> dict[str, Any]:
    """Return what the server tells of itself."""
    return control.ask(str(folder / SOCKET), {"do": "status"}, 10.0)


def tasks_of(folder: Path) -> dict[str, int]:
    """Return how many tasks each process has."""
    found = ask(folder)
    told = {f"worker {n}": worker["tasks"] for n, worker in enumerate(found["workers"], 1)}
    return {"supervisor": found["tasks"], "owner": found["owner"]["tasks"], **told}


def judge(name: str, samples: list[Sample]) -> list[str]:
    """Print what a process has taken, after the warm-up and after each round; return the faults."""
    faults = []
    growth = slope([(found.at, found.own) for found in samples])
    own, peak = (halves(column) for column in zip(*[(s.own, s.peak) for s in samples], strict=True))
    took = samples[-1].at - samples[0].at
    print(
        f"  {name}: {own[0]:.2f} MiB at rest in the first half of {took:.0f} s, {own[1]:.2f} in "
        f"the second, {growth.likely:+.2f} MiB/h (95%: {growth.least:+.2f} to {growth.most:+.2f}); "
        f"at most {peak[0]:.0f} and {peak[1]:.0f} MiB under load; "
        f"{samples[0].descriptors} descriptors"
    )
    if took < LONG_ENOUGH:
        print(f"    told, not judged: {took:.0f} s are too short for growth by the hour")
    elif growth.likely > MOST_GROWTH:
        sure = "" if growth.least > MOST_GROWTH else ", perhaps: more --minutes would tell"
        faults.append(f"the memory of the {name} grows by {growth.likely:.2f} MiB an hour{sure}")
    elif growth.most > MOST_GROWTH:
        print(f"    that it is not more than {MOST_GROWTH:g} takes more --minutes to be sure of")
    descriptors = {found.descriptors for found in samples}
    if len(descriptors) > 1:
        faults.append(f"the {name} has {min(descriptors)} to {max(descriptors)} descriptors")
    return faults


def churn(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """Connections come and go while a few stay: what has gone leaves nothing, also without rest."""
    faults = []
    with fleet(folder, certs) as server:
        stay = h2load(server, "-D", "3600", "-c", "8", "-m", "1", "--rps", "1")
        try:
            pids = workers(server)
            held: dict[int, list[int]] = {pid: [] for pid in pids}
            for number in range(3 * CHURN):
                load(server, "-n", str(2 * CROWD), "-c", str(CROWD))
                for pid in pids:
                    if number >= CHURN:
                        held[pid].append(sample(pid).own)
        finally:
            stay.kill()
            stay.communicate()
        for pid, found in held.items():
            first, second = halves(found)
            print(f"  worker {pid}: {first:.1f} MiB, after as many connections again {second:.1f}")
            if second > first * 1.1:
                faults.append(f"the memory of worker {pid} has grown from {first:.1f} MiB")
        if server.stop() != 0:
            faults.append("the exit code is not 0")
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


def stops(folder: Path, certs: Certificates, options: argparse.Namespace) -> list[str]:
    """SIGTERM under load: slow responses are not cut, and clients that hang hold nobody up."""
    faults = []
    for name in ("slow", "hang"):
        (folder / name).mkdir()
    with fleet(folder / "slow", certs) as server:
        load = h2load(server, "-D", "600", "-c", "4", "-m", "10")
        slow = h2load(server, "-n", "50", "-c", "10", "-m", "5", path="/slow/5000")
        poll(lambda: ask(folder / "slow")["total"]["active"] >= 50)
        server.signal()
        code = server.wait(60)
        text = slow.communicate()[0]
        load.kill()
        load.communicate()
    lines = [line for line in access(folder / "slow") if line["url.path"] == "/slow/5000"]
    print(f"  {len(lines)} slow responses, exit code {code}")
    if code or "50 succeeded" not in text:
        faults.append(f"exit code {code}, and of 50 slow responses: {text}")
    if [line.get("http.response.status_code") for line in lines] != [200] * 50:
        faults.append("a slow response has no line, or another status")
    with fleet(folder / "hang", certs, "--drain-timeout", "2") as server:
        hang = h2load(server, "-n", "40", "-c", "4", "-m", "10", path="/forever")
        poll(lambda: ask(folder / "hang")["total"]["active"] == 40)
        began = time.monotonic()
        server.signal()
        code = server.wait(60)
        took = time.monotonic() - began
        hang.kill()
        hang.communicate()
    ends = [line["h2log.outcome"] for line in access(folder / "hang")]
    print(f"  40 requests that hang, exit code {code} after {took:.1f} s, two of them to drain")
    if code or took > 3:
        faults.append(f"the end took {took:.1f} s, exit code {code}")
    if ends != ["SHUTDOWN"] * 40:
        faults.append(f"requests that hang ended as {set(ends)}")
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
    "stop": stops,
    "vanish": vanishing,
    "churn": churn,
    "load": long_load,
}


def main() -> None:
    """Run the checks; exit code 1 when one finds fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=48, help="of the load: equal parts of it")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="that the load takes at least, with its rests"
    )
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
