"""What is printed, and the JSON of the same."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from measure import BASE, Outcome, Plan, Run
from rich.console import Console
from rich.table import Table
from scenarios import Scenario

__all__ = ["machine", "results", "show", "summary", "targets"]

PER_MEGABYTE = "µs/MB"
NOISE = 0.05
"""From this share of the server's CPU on, other processes are worth a remark."""


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the servers."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def _remarks(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Say what the figure of a peer hides, or why there is none."""
    if outcome.left_out is not None:
        return [f"left out: {outcome.left_out}"]
    if outcome.failed is not None:
        return [f"FAILED: {outcome.failed}"]
    remarks = []
    if scenario.packed:
        remarks.append(f"sends {outcome.content:,} bytes of {outcome.coding or 'plain content'}")
    if not outcome.peer.writes(scenario):
        what = "WebSocket" if scenario.echo else "request"
        remarks.append(f"logs no line for a {what}")
    remarks += (f"LOG MISMATCH: {mismatch}" for mismatch in outcome.mismatches)
    others = max(run.others for run in outcome.runs)
    if others > NOISE:
        remarks.append(f"other processes used {others:.0%} of its CPU in a run")
    return remarks


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _speed(scenario: Scenario, runs: list[Run]) -> str:
    """Return the column that says how much came, or for `idle` the other measure of memory."""
    if scenario.name == "idle":
        return _number(median(run.rss_kib or 0.0 for run in runs))
    loads = [run.load for run in runs if run.load is not None]
    if scenario.unit == PER_MEGABYTE:
        return f"{median(load.content / load.seconds / 1e6 for load in loads):,.0f}"
    return f"{median(load.rate for load in loads):,.0f}"


class Target(NamedTuple):
    """What h2log may need at most beside a peer, and what it has needed."""

    peer: str
    most: float
    share: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.share <= self.most

    @property
    def text(self) -> str:
        """Say it."""
        return (
            f"target {'reached' if self.met else 'MISSED'}: {BASE} needs {self.share:.3f} of what "
            f"{self.peer} needs, at most {self.most:.3f}"
        )


def targets(scenario: Scenario, outcomes: list[Outcome]) -> list[Target]:
    """Compare with the scenario's targets, for the peers that have a figure beside h2log's."""
    return [
        Target(outcome.peer.name, scenario.targets[outcome.peer.name], 1 / outcome.ratio)
        for outcome in outcomes
        if outcome.peer.name in scenario.targets and outcome.measured and outcome.ratio
    ]


def show(console: Console, scenario: Scenario, outcomes: list[Outcome]) -> None:
    """Print the table of a scenario, and below it what there is to remark."""
    rate = {"idle": "RSS", "large": "MB/s"}.get(scenario.name, "requests/s")
    rate = "messages/s" if scenario.echo else rate
    compared = "PSS" if scenario.name == "idle" else "CPU"
    table = Table(
        title=f"{scenario.name}: {scenario.what} ({compared} in {scenario.unit})",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("server", no_wrap=True)
    for head in (rate, compared, "min", "max", f"x {BASE}", "runs"):
        table.add_column(head, justify="right", no_wrap=True)
    for outcome in outcomes:
        if not outcome.measured:
            table.add_row(outcome.peer.name, *("-" for _ in table.columns[1:]))
            continue
        runs, figures = outcome.runs, [run.figure for run in outcome.runs]
        requests = [run.load.requests for run in runs if run.load is not None]
        table.add_row(
            outcome.peer.name,
            _speed(scenario, runs),
            _number(outcome.figure),
            _number(min(figures)),
            _number(max(figures)),
            "-" if outcome.ratio is None else f"{outcome.ratio:.2f}",
            f"{len(runs)} x {requests[0]:,}" if requests else str(len(runs)),
        )
    console.print(table)
    for outcome in outcomes:
        for remark in _remarks(scenario, outcome):
            line = f"  {outcome.peer.name}: {remark}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for target in targets(scenario, outcomes):
        line = f"  {target.text}"
        style = "green" if target.met else "red"
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    console.print()


def summary(scenario: Scenario, outcomes: list[Outcome]) -> str:
    """Return a scenario in a line: h2log's figure, the others as multiples of it."""
    unit = scenario.unit.partition("/")
    words = []
    for outcome in sorted(outcomes, key=lambda one: one.peer.name != BASE):
        name = outcome.peer.name
        if outcome.failed is not None:
            words.append(f"{name} failed")
        elif outcome.measured and (name == BASE or outcome.ratio is None):
            short = unit[0] if unit[2] == "request" else scenario.unit
            words.append(f"{name} {_number(outcome.figure)} {short}")
        elif outcome.measured:
            words.append(f"{name} x{outcome.ratio:.2f}")
        if outcome.measured and scenario.packed:
            words[-1] += f" ({outcome.coding or 'plain'})"
        if outcome.measured and outcome.mismatches:
            words[-1] += " (log mismatch)"
    return f"{scenario.name}: {'  '.join(words) or 'nothing measured'}"


def _run(run: Run) -> dict[str, Any]:
    values = asdict(run)
    if run.load is not None:
        values["load"] |= {
            "requests_per_second": run.load.rate,
            "megabytes_per_second": run.load.content / run.load.seconds / 1e6,
            "tls": sorted(run.load.tls),
        }
    return values


def results(
    plan: Plan, load_tool: str, measured: list[tuple[Scenario, list[Outcome]]]
) -> dict[str, Any]:
    """Return everything as JSON has it."""
    scenarios = {}
    for scenario, outcomes in measured:
        peers = {}
        for outcome in outcomes:
            entry: dict[str, Any] = {"what": outcome.peer.what}
            if outcome.left_out is not None:
                entry["left_out"] = outcome.left_out
            else:
                entry["version"] = outcome.peer.version()
                entry["failed"] = outcome.failed
                entry["median"] = outcome.figure if outcome.measured else None
                entry[f"ratio_to_{BASE}"] = outcome.ratio
                entry["content_encoding"] = outcome.coding
                entry["content_bytes"] = outcome.content
                entry["log_mismatches"] = outcome.mismatches
                entry["runs"] = [_run(run) for run in outcome.runs]
            peers[outcome.peer.name] = entry
        scenarios[scenario.name] = {
            "what": scenario.what,
            "unit": scenario.unit,
            "peers": peers,
            "targets": [
                target._asdict() | {"met": target.met} for target in targets(scenario, outcomes)
            ],
        }
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine() | {"load_tool": load_tool},
        "plan": asdict(plan),
        "scenarios": scenarios,
    }
