"""Floods: one frame over and over. What a byte costs must not depend on how many came before.

The cost is compared with that of PING frames, the cheapest thing that is answered, so that it does
not depend on the machine; it is measured again before it counts, since a machine has other work.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

import case as cases
from application import HEAD_ONLY, HOLD, PREPARED, STREAMED
from case import Case
from client import Broken
from corpus import BLOCKS, Item, frame, pieces, steps_of
from execute import begin

__all__ = ["MOST", "Flood", "Scale", "case_of", "fixed", "floods"]

MOST: Final = 60.0
"""How many times the cost of PING a byte may cost at most."""
GROWTH: Final = 4.0
"""How much more a byte may cost in a flood eight times as long."""

_SHORT, _LONG = 8_000, 64_000
_OPEN: Final = [frame(1, 4, 2 * n + 1, BLOCKS[1]) for n in range(100)]
_GET: Final = b"\x82\x87\x84\x01\x0bexample.org"


class Flood(NamedTuple):
    """What comes before, and what is then repeated; HEADERS each on a stream of its own."""

    name: str
    profile: int
    script: bytes
    before: list[Item]
    unit: bytes


def _settings(*values: int) -> bytes:
    pairs = b"".join([b"\0\x04" + value.to_bytes(4, "big") for value in values])
    return frame(4, 0, 0, pairs)


def fixed() -> list[Flood]:
    """Return the floods that are known to have hurt servers."""
    wide = cases.PREFACE_SENT | 1
    blocked: list[Item] = [(cases.BLOCK, 0)]
    hold, streamed, bare = bytes((HOLD,)) * 8, bytes((STREAMED,)) * 8, bytes((HEAD_ONLY,)) * 8
    request = frame(1, 5, 1, _GET)
    return [
        Flood("PING", wide, hold, [], frame(6, 0, 0, bytes(8))),
        Flood("PING, unread", wide, hold, blocked, frame(6, 0, 0, bytes(8))),
        Flood("SETTINGS, unread", wide, hold, blocked, frame(4, 0, 0)),
        Flood("requests", wide, bytes((PREPARED,)) * 8, [], request),
        Flood("requests without content, unread", wide, bare, blocked, request),
        Flood("early answers", wide, bare, [], frame(1, 4, 1, BLOCKS[1])),
        Flood("requests over the limit", wide, hold, [*_OPEN], request),
        Flood("window sizes with 100 streams", wide, streamed, [*_OPEN], _settings(*(0, 1) * 1300)),
        Flood(
            "window sizes of waiting streams",
            wide,
            streamed,
            [_settings(0), *_OPEN],
            _settings(*(0, 9) * 1300),
        ),
        Flood("WINDOW_UPDATE", wide, streamed, [*_OPEN], frame(8, 0, 199, b"\0\0\0\1")),
        Flood("WINDOW_UPDATE of all", wide, streamed, [*_OPEN], frame(8, 0, 0, b"\0\0\0\1")),
        Flood("small DATA", wide, hold, [*_OPEN], frame(0, 0, 1, b"x")),
        Flood("padding", wide, hold, [*_OPEN], frame(0, 8, 1, b"\x09" + bytes(9))),
        Flood("HPACK references", wide, hold, [], frame(1, 5, 3, BLOCKS[-1])),
        Flood("table sizes", wide, hold, [], frame(1, 5, 1, b"\x20" * 16_000)),
        Flood("table entries", wide, hold, [], frame(1, 5, 1, b"\x40\0\0" * 5000)),
        Flood("gaps", wide, hold, [], frame(1, 5, 1, _GET + b"\x40\x01a\x01b")),
        Flood("unknown frames", wide, hold, [], frame(0x77, 0, 0)),
        Flood("cookies", wide, hold, [], frame(1, 5, 1, _GET + b"\x60\x01a" * 99)),
    ]


def floods(random: Random) -> Flood:
    """Make a flood of anything, in any state."""
    found = pieces()
    before: list[Item] = []
    if random.random() < 0.5:
        before += _OPEN
    before += random.choices(found, k=random.randrange(4))
    if random.random() < 0.4:
        before.append((cases.BLOCK, 0))
    unit = b""
    while not unit:
        parts = random.choices(found, k=1 + random.randrange(3))
        unit = b"".join([part for part in parts if isinstance(part, bytes) and len(part) < 4000])
    script = random.randbytes(8)
    profile = cases.PREFACE_SENT | random.choice((1, 1, 2, 3, 7))
    return Flood("any", profile, script, before, unit)


def case_of(flood: Flood, size: int) -> Case:
    """Return the case of so many bytes of a flood; the last step is the flood."""
    parts = []
    number = 301
    sent = 0
    while sent < size:
        unit = flood.unit
        pos = 0
        while pos < len(unit):
            end = pos + 9 + int.from_bytes(unit[pos : pos + 3], "big")
            part = unit[pos:end]
            if part[3] == 1:
                part = part[:5] + number.to_bytes(4, "big") + part[9:]
                number += 4 if flood.name == "gaps" else 2
            parts.append(part)
            sent += len(part)
            pos = end
    steps = steps_of(flood.before, [])
    return Case(flood.profile, flood.script, [*steps, (cases.RECEIVE, 0, b"".join(parts))])


def last_cost(case: Case) -> float:
    """Return what a byte of the last step costs, in nanoseconds. Whatever is wrong is raised."""
    run = begin(case)
    for step in case.steps[:-1]:
        run.step(*step)
    run.check_bounds()
    run.costs = 0.0
    run.step(*case.steps[-1])
    run.check_bounds()
    run.finish()
    return run.costs


class Scale:
    """What things cost on this machine."""

    def __init__(self) -> None:
        ping = case_of(fixed()[0], _SHORT)
        self.unit = min(last_cost(ping) for _ in range(9))

    def weigh(self, case: Case) -> float:
        """Return the cost of a byte of the last step, in units."""
        cost = last_cost(case)
        if cost > MOST / 2 * self.unit:
            cost = min(cost, *(last_cost(case) for _ in range(4)))
        return cost / self.unit

    def check(self, flood: Flood) -> tuple[float, Case]:
        """Return the cost of a byte of a flood, and the case. Too much of it is raised."""
        long = case_of(flood, _LONG)
        cost = self.weigh(long)
        if cost > MOST:
            raise Broken(f"costly: a byte costs {cost:.0f} times a byte of PING ({flood.name})")
        if cost > 4.0:
            again = self.weigh(case_of(flood, _SHORT))
            if cost > GROWTH * again and self.weigh(long) > GROWTH * again:
                raise Broken(f"quadratic: a byte costs {cost:.1f}, in a short flood {again:.1f}")
        return cost, long
