"""Fuzzes the HTTP/2 engine: any bytes, any application, any time, and what must hold all along.

Nothing but the engine is run: no sockets, no clock but the case's. What must hold: no exception
leaves the engine; the output is what a strict client accepts; each request is reported once and
each stream ends once; nothing that is kept for a peer grows over its bound; no byte costs much
more than others. The parsers are held against `hpack`.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from time import monotonic

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from case import decode, show  # noqa: E402 - the package beside this file comes first
from findings import replay, write  # noqa: E402
from workers import Plan, Tally, work  # noqa: E402

EXIT_FOUND = 1
EXIT_USAGE = 2
ENGINES = ("mutate", "hypothesis", "atheris")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Fuzzes the HTTP/2 engine and its parsers.",
        epilog="Exits with 1 if something broke; each is written as a file that --replay runs.",
    )
    add = parser.add_argument
    add("--count", type=_count, default=1_000_000, help="inputs (default: a million)")
    add("--seconds", type=float, default=0.0, help="stop after this time, whatever the count")
    add("--seed", type=int, help="the same seed, count and jobs make the same inputs")
    add("--engine", choices=[*ENGINES, "all"], default="mutate", help="what makes the inputs")
    add("--jobs", type=_count, default=2, help="processes (default: 2)")
    add("--out", type=Path, metavar="DIR", help="where findings go (default: a new directory)")
    add("--replay", type=Path, metavar="FILE", help="run one finding again")
    add("--install", action="store_true", help="pip-install atheris if it is missing")
    return parser.parse_args()


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


class Progress:
    """The line that says how far it is."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._began = monotonic()
        self._line = sys.stderr.isatty()
        self._next = self._began

    def show(self, engine: str, total: Tally) -> None:
        """Say it, about once a second on a terminal and each ten in a file."""
        now = monotonic()
        if now < self._next:
            return
        self._next = now + (1.0 if self._line else 10.0)
        done = sum(total.inputs.values())
        text = (
            f"{engine}: {done:,} of {self._count:,} inputs, {done / (now - self._began):,.0f}/s, "
            f"{total.requests:,} requests, {len(total.outcomes)} outcomes, "
            f"{total.paths:,} paths, {len(total.findings)} findings"
        )
        print(f"\r{text:<110}" if self._line else text, end="" if self._line else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    def end(self) -> None:
        """Leave the line."""
        if self._line:
            print(file=sys.stderr)


def _process(plan: Plan, put: Callable[[bytes], None]) -> None:
    def tell(tally: Tally) -> None:
        put(pickle.dumps((plan.worker, tally)))  # now, since the tally goes on changing

    try:
        work(plan, tell)
    except KeyboardInterrupt:
        pass
    except Exception:  # the fuzzer's own fault: it must be seen as one
        tell(Tally(done=True, error=traceback.format_exc()))


def _sum(latest: dict[int, Tally]) -> Tally:
    total = Tally()
    for tally in latest.values():
        total.add(tally)
        total.error = total.error or tally.error
    return total


def run(engine: str, count: int, seconds: float, seed: int, jobs: int) -> Tally:
    """Run an engine in `jobs` processes; return what they did."""
    latest: dict[int, Tally] = {}
    progress = Progress(count)
    source = _guided if engine == "atheris" else _forked
    try:
        for worker, tally in source(engine, count, seconds, seed, jobs):
            latest[worker] = tally
            progress.show(engine, _sum(latest))
    except KeyboardInterrupt:
        pass
    progress.end()
    return _sum(latest)


def _forked(
    engine: str, count: int, seconds: float, seed: int, jobs: int
) -> Iterator[tuple[int, Tally]]:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[bytes] = context.Queue()
    until = monotonic() + (seconds or 1e9)
    started = []
    for worker in range(jobs):
        share = count // jobs + (worker < count % jobs)
        plan = Plan(engine, seed, worker, share, until)
        started.append(context.Process(target=_process, args=(plan, queue.put), daemon=True))
        started[-1].start()
    running = set(range(jobs))
    while running:
        try:
            worker, tally = pickle.loads(queue.get(timeout=5.0))
        except Empty:
            for worker in list(running):
                if not started[worker].is_alive():
                    running.discard(worker)
                    yield worker, Tally(error=f"worker {worker} died")
            continue
        if tally.done:
            running.discard(worker)
        yield worker, tally
    for process in started:
        process.join()


def _guided(
    engine: str, count: int, seconds: float, seed: int, jobs: int
) -> Iterator[tuple[int, Tally]]:
    script = Path(__file__).with_name("guided.py")
    with tempfile.TemporaryDirectory() as directory:
        started = []
        for worker in range(jobs):
            share = count // jobs + (worker < count % jobs)
            tally = Path(directory, str(worker))
            numbers = (share, int(seconds), (seed + worker) % (1 << 31) or 1)
            command = [sys.executable, str(script), str(tally), *map(str, numbers)]
            output = Path(directory, f"{worker}.log")
            with output.open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            started.append((process, tally, output))
        running = set(range(jobs))
        while running:
            for worker in list(running):
                process, tally, output = started[worker]
                try:
                    process.wait(timeout=1.0)
                    running.discard(worker)
                except subprocess.TimeoutExpired:
                    pass
                if tally.exists():
                    yield worker, pickle.loads(tally.read_bytes())
                elif worker not in running:
                    yield worker, Tally(error=output.read_text()[-2000:])


def report(engine: str, total: Tally, seconds: float) -> None:
    """Print what was done and seen."""
    done = sum(total.inputs.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in total.inputs.most_common())
    print(f"\n{engine}: {done:,} inputs in {seconds:.0f} s, {done / seconds:,.0f} a second")
    print(f"  kinds      {kinds}")
    print(f"  bytes      {total.size:,} in, {total.requests:,} requests opened")
    print(f"  outcomes   {len(total.outcomes)} distinct, {total.paths:,} sets of them:")
    for outcome, count in sorted(total.outcomes.items()):
        print(f"    {count:>11,}  {outcome}")
    parsed = ", ".join(f"{name} {count:,}" for name, count in sorted(total.parsed.items()))
    print(f"  parsers    {parsed or 'not run'}")
    cost, data = total.worst_input
    what = show(decode(data))[-1][:80] if data else ""
    print(f"  worst cost of a byte: {cost:.1f} times PING's, in {len(data)} bytes that end: {what}")
    cost, name = total.worst_flood
    print(f"  worst cost of a byte in a flood: {cost:.1f} times PING's, {name}")
    near = ", ".join(f"{name} {share:.0%}" for name, share in sorted(total.near.items()))
    print(f"  of bounds  {near}")


def report_findings(total: Tally, out: Path | None) -> None:
    """Write the findings, and print what replays them."""
    directory = out if out is not None else Path(tempfile.mkdtemp(prefix="h2log-fuzz-"))
    directory.mkdir(parents=True, exist_ok=True)
    for key, finding in total.findings.items():
        path = write(finding, directory)
        print(f"FOUND {total.repeats[key]:,} times: {key}\n  scripts/fuzz --replay {path}")


def has_atheris(install: bool) -> bool:
    """Say whether Atheris is there, after installing it if that is wanted."""
    if importlib.util.find_spec("atheris") is None and install:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*command, "atheris"], check=False)
        importlib.invalidate_caches()
    return importlib.util.find_spec("atheris") is not None


def main() -> int:
    """Run the command line; return the exit code."""
    options = arguments()
    if options.replay is not None:
        try:
            print(replay(options.replay))
        except OSError as error:
            print(f"scripts/fuzz: {error}", file=sys.stderr)
            return EXIT_USAGE
        except Exception:
            traceback.print_exc()
            return EXIT_FOUND
        return 0
    engines = list(ENGINES) if options.engine == "all" else [options.engine]
    if "atheris" in engines and not has_atheris(options.install):
        print("scripts/fuzz: atheris is missing; --install gets it", file=sys.stderr)
        engines.remove("atheris")
        if not engines:
            return EXIT_USAGE
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}, {options.jobs} jobs; again: scripts/fuzz --engine {options.engine} "
          f"--count {options.count} --jobs {options.jobs} --seed {seed}")  # fmt: skip
    code = 0
    for engine in engines:
        began = monotonic()
        total = run(engine, options.count, options.seconds, seed, options.jobs)
        report(engine, total, monotonic() - began)
        if total.findings:
            report_findings(total, options.out)
            code = EXIT_FOUND
        if total.error:
            print(f"scripts/fuzz: the fuzzer itself failed: {total.error}", file=sys.stderr)
            code = EXIT_USAGE
    return code


if __name__ == "__main__":
    sys.exit(main())
