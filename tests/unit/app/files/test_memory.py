"""What stays in memory: bounded by bytes, kept by use, and by how often it is asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.files.memory import OUT, Memory
from h2log.app.files.sketch import MOST_FREQUENT, FrequencySketch


class Thing:
    """Something to keep."""

    def __init__(self, key: str, cost: int = 1) -> None:
        self.key = key
        self.cost = cost
        self.part = OUT


def memory(limit: int) -> tuple[Memory[Thing], list[str]]:
    """Return a memory, and the keys that had to leave it."""
    dropped: list[str] = []
    return Memory(limit, lambda thing: dropped.append(thing.key)), dropped


def ask(kept: Memory[Thing], key: str, cost: int = 1) -> bool:
    """Ask for something as a folder does; say whether it was there."""
    found = kept.entries.get(key)
    if found is not None:
        kept.used(found)
        return True
    kept.put(Thing(key, cost))
    return False


def test_there_is_room_until_there_is_none() -> None:
    """Everything is taken while it fits; the account is exact."""
    kept, dropped = memory(10)
    assert all(kept.put(Thing(str(n))) for n in range(10))
    assert (kept.bytes, len(kept), dropped) == (10, 10, [])
    assert not kept.put(Thing("large", 11))
    assert kept.put(Thing("3", 1))  # in the place of the other "3"
    assert (kept.bytes, len(kept), dropped) == (10, 10, ["3"])
    kept.drop(kept.entries["3"])
    assert (kept.bytes, len(kept)) == (9, 9)


def test_what_is_asked_for_once_pushes_nothing_out() -> None:
    """A scan of a thousand others leaves what is in use where it is."""
    kept, _ = memory(100)
    for _ in range(3):
        for n in range(100):
            ask(kept, f"used {n}")
    for n in range(1000):
        ask(kept, f"scanned {n}")
    assert sum(f"used {n}" in kept.entries for n in range(100)) >= 98


def test_what_becomes_popular_comes_in() -> None:
    """Asked for again and again it is soon there, in the place of what nobody asks for."""
    kept, _ = memory(100)
    for n in range(100):
        ask(kept, f"old {n}")
    hits = [ask(kept, "new") for _ in range(5)]
    assert hits[-1]
    assert kept.bytes <= 100


def test_what_was_popular_does_not_stay_for_ever() -> None:
    """When the taste changes the memory follows."""
    kept, _ = memory(64)
    for _ in range(20):
        for n in range(64):
            ask(kept, f"then {n}")
    for _ in range(200):
        for n in range(64):
            ask(kept, f"now {n}")
    assert sum(f"now {n}" in kept.entries for n in range(64)) >= 60


def test_a_large_one_has_to_be_worth_as_much_as_all_that_would_leave() -> None:
    """One that would push out ten that are used twice needs more than twice itself."""
    kept, _ = memory(10)
    for _ in range(2):
        for n in range(10):
            ask(kept, f"small {n}")
    for _ in range(4):
        ask(kept, "large", 10)
    assert "large" not in kept.entries
    assert len(kept) == 10


def test_what_grows_pushes_out_what_is_least_used() -> None:
    """The grown one goes last, and only when it is too large by itself."""
    kept, dropped = memory(10)
    things = [Thing(str(n)) for n in range(10)]
    for thing in things:
        kept.put(thing)
    kept.used(things[0])
    assert kept.grown(things[5], 4)
    assert dropped == ["1", "2", "3"]
    assert kept.bytes == 10
    assert not kept.grown(things[5], 11)
    assert (kept.bytes, len(kept)) == (0, 0)
    assert not kept.grown(things[5], 3)
    assert things[5].cost == 3


@given(
    st.integers(0, 60),
    st.lists(
        st.tuples(st.sampled_from(["put", "used", "grown", "drop"]), st.integers(0, 9),
                  st.integers(0, 20)),
        max_size=60,
    ),
)  # fmt: skip
def test_the_account_is_always_right(limit: int, steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens: no more than the limit, each thing once, told when it leaves."""
    kept, _ = memory(limit)
    things = {n: Thing(str(n)) for n in range(10)}
    for what, n, cost in steps:
        thing = things[n]
        if what == "put" and thing.part == OUT:
            thing.cost = cost
            kept.put(thing)
        elif what == "used":
            kept.used(thing)
        elif what == "grown":
            kept.grown(thing, cost)
        elif what == "drop":
            kept.drop(thing)
        inside = [thing for thing in things.values() if thing.part != OUT]
        assert kept.bytes == sum(thing.cost for thing in inside) <= limit
        assert set(kept.entries) == {thing.key for thing in inside}
        assert sum(map(len, kept._parts)) == len(inside)
        for part, size in zip(kept._parts, kept._sizes, strict=True):
            assert size == sum(thing.cost for thing in part.values())


def test_it_beats_least_recently_used_where_most_is_asked_for_once() -> None:
    """Of the popular tenth, mixed with three times as many that come once, most are hits."""
    dice = random.Random(1)
    kept, _ = memory(50)
    hits = asked = 0
    for n in range(20_000):
        if dice.random() < 0.25:
            asked += 1
            hits += ask(kept, f"popular {dice.randrange(50)}")
        else:
            ask(kept, f"once {n}")
    assert hits / asked > 0.8


# The sketch


def test_a_sketch_never_counts_too_little() -> None:
    """Until it halves: what collides counts more, nothing counts less."""
    sketch = FrequencySketch(1024)
    dice = random.Random(2)
    counts: dict[str, int] = {}
    for _ in range(2500):
        key = str(dice.randrange(400))
        sketch.count(key)
        counts[key] = counts.get(key, 0) + 1
        assert sketch.frequency(key) >= min(counts[key], MOST_FREQUENT)
    assert sketch.frequency("never") <= 15


def test_a_sketch_forgets() -> None:
    """After many counts of others, what was counted often counts half, and half of that."""
    sketch = FrequencySketch(16)
    for _ in range(15):
        sketch.count("a")
    assert sketch.frequency("a") == 15
    for _ in range(25):
        sketch.count("b")
    assert sketch.frequency("a") <= 8
    for _ in range(20):
        sketch.count("b")
    assert sketch.frequency("a") <= 4


@pytest.mark.parametrize("width", [0, -1, 3, 100, 1 << 17])
def test_a_sketch_has_a_width_that_it_can_use(width: int) -> None:
    """A power of two, and no more than the bits of a hash can tell apart."""
    with pytest.raises(ValueError, match="power of two"):
        FrequencySketch(width)
