"""One process of the fuzzer: it makes inputs, runs them, and tells its parent how it goes."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

import parsers
from case import PREFACE_SENT, RECEIVE, TICK, Case, Step, encode
from execute import Result, execute
from findings import Finding, finding_of
from floods import Scale, case_of, fixed, floods
from mutate import Mutator

__all__ = ["Plan", "Tally", "work"]

_TELL = 1.0
"""Seconds between reports."""
_COLLECT = 1000
"""Inputs between collections: one in the middle of an input would count as the input's cost."""


@dataclass
class Plan:
    """What one worker is to do."""

    engine: str
    seed: int
    worker: int
    count: int
    until: float
    """The monotonic time at which to stop."""


@dataclass
class Tally:
    """What was done, and what was seen; tallies add up."""

    inputs: Counter[str] = field(default_factory=Counter)
    """By kind."""
    size: int = 0
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    parsed: Counter[str] = field(default_factory=Counter)
    paths: int = 0
    """Different sets of outcomes of one input."""
    near: dict[str, float] = field(default_factory=dict)
    worst_input: tuple[float, bytes] = (0.0, b"")
    worst_flood: tuple[float, str] = (0.0, "")
    findings: dict[str, Finding] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    done: bool = False
    error: str = ""

    def add(self, other: Tally) -> None:
        """Add what another worker did."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.parsed += other.parsed
        self.repeats += other.repeats
        self.size += other.size
        self.requests += other.requests
        self.paths += other.paths
        self.worst_input = max(self.worst_input, other.worst_input)
        self.worst_flood = max(self.worst_flood, other.worst_flood)
        for name, share in other.near.items():
            self.near[name] = max(share, self.near.get(name, 0.0))
        for key, finding in other.findings.items():
            self.findings.setdefault(key, finding)

    def broke(self, finding: Finding) -> None:
        """Note a finding; the first of its kind is kept."""
        self.repeats[finding.key] += 1
        self.findings.setdefault(finding.key, finding)

    def learn(self, kind: str, result: Result) -> None:
        """Note what an input led to."""
        self.inputs[kind] += 1
        self.size += result.sent
        self.requests += result.requests
        self.outcomes.update(result.outcomes)
        for name, share in result.counters.items():
            if share > self.near.get(name, 0.0):
                self.near[name] = share


class Worker:
    """The loops of one process."""

    def __init__(self, plan: Plan, tell: Callable[[Tally], None]) -> None:
        self.plan = plan
        self.tally = Tally()
        self.random = Random(f"{plan.seed}/{plan.worker}")
        self.scale = Scale()
        self._tell = tell
        self._told = monotonic()
        self._paths: set[frozenset[str]] = set()
        self._collected = 0

    def left(self) -> bool:
        """Report now and then; say whether there is something left to do."""
        now = monotonic()
        if now - self._told > _TELL:
            self._told = now
            self._tell(self.tally)
        return now < self.plan.until

    def run(self, kind: str, case: Case) -> bool:
        """Run one case; say whether it led somewhere new."""
        self._collected += 1
        if self._collected % _COLLECT == 0:
            gc.collect()
        try:
            result = execute(case)
            cost = result.nanoseconds / self.scale.unit
            if cost > max(4.0, self.tally.worst_input[0]):  # is it the input, or the machine?
                again = [execute(case).nanoseconds for _ in range(4)]
                cost = min(result.nanoseconds, *again) / self.scale.unit
        except Exception as error:
            self.tally.inputs[kind] += 1
            self.tally.broke(finding_of("case", case, error))
            return False
        self.tally.learn(kind, result)
        if cost > self.tally.worst_input[0]:
            self.tally.worst_input = cost, encode(case)
        if result.outcomes in self._paths:
            return False
        self._paths.add(result.outcomes)
        self.tally.paths += 1
        return True

    def flood(self, number: int) -> None:
        """Run one flood: the known ones first, then any."""
        known = fixed()
        flood = known[number] if number < len(known) else floods(self.random)
        self.tally.inputs["flood"] += 1
        try:
            cost, case = self.scale.check(flood)
        except Exception as error:
            self.tally.broke(finding_of("flood", case_of(flood, 64_000), error))
            return
        self.tally.size += sum(len(data) for _, _, data in case.steps)
        self.tally.worst_flood = max(
            self.tally.worst_flood, (cost, f"{flood.name} {flood.unit[:24].hex()}")
        )

    def parse(self, number: int) -> None:
        """Run one input of the parsers, by turns."""
        name = parsers.PARSERS[number % len(parsers.PARSERS)]
        data = parsers.make(name, self.random)
        self.tally.inputs[name] += 1
        self.tally.size += sum(map(len, data))
        try:
            self.tally.parsed[f"{name}: {parsers.check(name, data)}"] += 1
        except Exception as error:
            self.tally.broke(finding_of(name, data, error))

    def mutate(self, count: int) -> None:
        """Run `count` inputs: conversations that are mutated, and a share of the rest."""
        mutator = Mutator(self.random)
        first = self.plan.worker == 0  # what is the same for all is run by one
        for case in mutator.seeds() if first else ():
            if not self.left():
                return
            self.run("seed", case)
        known = len(fixed())
        number = 0
        while sum(self.tally.inputs.values()) < count and (number % 64 or self.left()):
            if number % 12 == 0:
                self.parse(number // 12)
            if first and number < 64 * known and number % 64 == 0:
                self.flood(number // 64)
            elif number % 4000 == 0:
                self.flood(known)
            if self.run("mutated", mutator.next()):
                mutator.keep()
            number += 1

    def sequences(self, count: int) -> None:
        """Run `count` of the sequences that the protocol tests are made of."""
        for case in _drawn(self.plan.seed * 1009 + self.plan.worker, count, self.left):
            self.run("hypothesis", case)


def _drawn(seed: int, count: int, left: Callable[[], bool]) -> Iterator[Case]:
    """Draw from the tests' strategies. Needs `hypothesis`; draws none without it."""
    try:
        import hypothesis
        from hypothesis import strategies as st

        from tests.protocol import sequences
    except ImportError:
        return
    times = st.sampled_from([0, 0, 0, 0, 2, 6])
    steps: Any = st.lists(st.tuples(sequences.any_frames, times), max_size=30)

    def batch(size: int, number: int) -> list[Case]:
        found: list[Case] = []

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(st.binary(min_size=8, max_size=8), st.integers(0, 127), steps)
        def collect(script: bytes, profile: int, drawn: list[tuple[bytes, int]]) -> None:
            taken: list[Step] = []
            for data, seconds in drawn:
                taken.append((RECEIVE, 0, data))
                if seconds:
                    taken.append((TICK, seconds, b""))
            found.append(Case(PREFACE_SENT | profile, script, taken))

        collect()
        return found

    while count > 0 and left():
        cases = batch(min(count, 100), seed + count)
        yield from cases
        count -= max(1, len(cases))


def work(plan: Plan, tell: Callable[[Tally], None]) -> None:
    """Do what `plan` says; `tell` is called now and then, and at the end."""
    worker = Worker(plan, tell)
    gc.collect()
    gc.freeze()
    gc.disable()
    if plan.engine == "hypothesis":
        worker.sequences(plan.count)
    else:
        worker.sequences(min(plan.count // 200, 2000))
        worker.mutate(plan.count)
    worker.tally.done = True
    tell(worker.tally)
