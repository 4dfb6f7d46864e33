"""A user session as a mapping: what it holds, what it refuses, what it knows of its changes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2log.app.user_session import MAX_BYTES, UserSession
from h2log.app.user_session_store import StoredSession, StoreError

KEY = "k" * 43


def loaded(**values: object) -> UserSession:
    """Return a user session as it comes from a store."""
    encoded = {name: msgspec.msgpack.encode(value) for name, value in values.items()}
    return UserSession(KEY, StoredSession(encoded, 100.0, 200.0))


@dataclasses.dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        -0.0,
        math.inf,
        "",
        "ä\0\n",
        b"\0\xff",
        [],
        [1, [2, {"a": None}]],
        {},
        {"a": {"b": [1]}, "c": b"d"},
        {1: "a", None: "b"},
        datetime(2026, 11, 20, 9, 30, 1, 500, tzinfo=UTC),
    ],
    ids=repr,
)
def test_what_goes_in_comes_out(value: object) -> None:
    """At once, and from the store."""
    session = UserSession()
    session["value"] = value
    assert session["value"] == value
    assert type(session["value"]) is type(value)
    again = UserSession(KEY, StoredSession(session.changes().values, 0.0, 1.0))
    assert again["value"] == value
    assert type(again["value"]) is type(value)


@pytest.mark.parametrize(
    ("value", "seen"),
    [((1, (2,)), [1, [2]]), ({3}, [3]), (Point(1, 2), {"x": 1, "y": 2}), (bytearray(b"a"), b"a")],
)
def test_what_becomes_another_kind_does_so_at_once(value: object, seen: object) -> None:
    """Nobody is surprised by it with the next request."""
    session = UserSession()
    session["value"] = value
    assert session["value"] == seen


def circle() -> list[Any]:
    """Return a list that has itself as its only item."""
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "value", [object(), print, 2**64, "\ud800", circle(), {"a": [object()]}, 1j, math], ids=repr
)
def test_a_value_that_cannot_be_kept_is_a_type_error(value: object) -> None:
    """It names the value and what may be kept; nothing is changed."""
    session = loaded(value=1)
    with pytest.raises(TypeError, match=r"cannot keep 'value', .*: it keeps None|it keeps None"):
        session["value"] = value
    assert session["value"] == 1
    assert not session.modified


@pytest.mark.parametrize("name", [1, None, b"name", ("a",)])
def test_a_name_is_a_text(name: Any) -> None:
    """Any other is a TypeError that shows it."""
    session = UserSession()
    with pytest.raises(TypeError, match="has a text as its name"):
        session[name] = 1
    with pytest.raises(TypeError, match="cannot keep"):
        session["\udcff"] = 1
    assert session.id is None


def test_a_mapping() -> None:
    """Everything that a dictionary does."""
    session = loaded(a=1, b=[2])
    assert (len(session), sorted(session), "a" in session, "c" in session) == (2, ["a", "b"], 1, 0)
    assert session.get("c") is None
    assert session.get("c", 3) == 3
    with pytest.raises(KeyError, match="c"):
        session["c"]
    with pytest.raises(KeyError, match="c"):
        del session["c"]
    assert session.setdefault("a", 9) == 1
    assert not session.modified
    assert session.setdefault("c", []) == []
    assert session.pop("b") == [2]
    session.update({"d": 4}, e=5)
    assert dict(session) == {"a": 1, "c": [], "d": 4, "e": 5}
    assert session == {"a": 1, "c": [], "d": 4, "e": 5}
    session.clear()
    assert (dict(session), bool(session)) == ({}, False)


def test_a_copy_is_kept() -> None:
    """What is put in belongs to the user session; what is taken out of it, too."""
    basket = ["apple"]
    session = UserSession()
    session["basket"] = basket
    basket.append("worm")
    session["basket"].append("pear")
    assert session["basket"] == ["apple", "pear"]
    assert msgspec.msgpack.decode(session.changes().values["basket"]) == ["apple", "pear"]


@pytest.mark.parametrize(
    ("change", "changed", "removed"),
    [
        (lambda s: None, set(), set()),
        (lambda s: s["a"], set(), set()),
        (lambda s: (s["a"], s["list"], s.get("x"), len(s), list(s.items())), set(), set()),
        (lambda s: s.update(a=2), {"a"}, set()),
        (lambda s: s.update(a=1), {"a"}, set()),
        (lambda s: s.update(new=2), {"new"}, set()),
        (lambda s: s["list"].append(3), {"list"}, set()),
        (lambda s: s["map"]["deep"].update(more=1), {"map"}, set()),
        (lambda s: s.pop("a"), set(), {"a"}),
        (lambda s: (s.pop("a"), s.update(a=7)), {"a"}, set()),
        (lambda s: (s.update(new=1), s.pop("new")), set(), set()),
        (lambda s: s.clear(), set(), {"a", "list", "map"}),
        (lambda s: (s["list"].append(1), s.pop("list")), set(), {"list"}),
    ],
)
def test_it_knows_what_was_changed(
    change: Callable[[UserSession], object], changed: set[str], removed: set[str]
) -> None:
    """By name: what was put in, also the same again, what was changed in place, and taken out."""
    session = loaded(a=1, list=[1, 2], map={"deep": {}})
    change(session)
    found = session.changes()
    assert (set(found.changed), set(found.removed)) == (changed, removed)
    assert session.modified == bool(changed or removed)
    assert (found.origin, found.key, found.destroyed) == (KEY, KEY, False)
    assert set(found.values) == set(session)


NAMES = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("grow"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("look"), NAMES, st.just(0)),
    st.tuples(st.just("take"), NAMES, st.just(0)),
    st.tuples(st.just("clear"), NAMES, st.just(0)),
    st.tuples(st.just("destroy"), NAMES, st.just(0)),
)


@given(st.dictionaries(NAMES, st.lists(st.integers(0, 3))), st.lists(STEPS, max_size=12))
def test_its_changes_make_what_it_shows(
    before: dict[str, list[int]], steps: list[tuple[str, str, int]]
) -> None:
    """Whatever is done with it, it is what a dictionary would be, and its changes lead there."""
    session, expected = loaded(**before), {name: [*items] for name, items in before.items()}
    stored = {name: msgspec.msgpack.encode(items) for name, items in before.items()}
    for step, name, number in steps:
        if step == "put":
            session[name], expected[name] = [number], [number]
        elif step == "grow" and name in expected:
            session[name].append(number)
            expected[name].append(number)
        elif step == "look":
            assert session.get(name) == expected.get(name)
        elif step == "take":
            assert session.pop(name, None) == expected.pop(name, None)
        elif step == "clear":
            session.clear()
            expected.clear()
        elif step == "destroy":
            session.destroy()
            expected.clear()
    assert session == expected
    found = session.changes()
    kept = {} if found.destroyed else {n: v for n, v in stored.items() if n not in found.removed}
    kept.update(found.changed)
    assert kept == found.values
    assert {name: msgspec.msgpack.decode(value) for name, value in kept.items()} == expected
    assert session.modified or expected == before
    assert session._size == sum(len(n.encode()) + len(v) for n, v in session._encoded.items())


def test_no_id_while_there_is_nothing_to_keep() -> None:
    """Reading gives none; putting in does, of 256 bits, and another one each time."""
    session = UserSession()
    assert (session.get("a"), session.id, session.created, session.modified) == (
        None,
        None,
        None,
        False,
    )
    ids = set()
    for _ in range(100):
        session = UserSession()
        session["a"] = 1
        assert session.id is not None
        assert len(session.id) == 43
        ids.add(session.id)
    assert len(ids) == 100


def test_regenerate_changes_the_id_alone() -> None:
    """Values and beginning stay; one that does not exist gets no id by it."""
    session = loaded(a=1)
    session.regenerate()
    found = session.changes()
    assert (dict(session), session.created, session.modified) == ({"a": 1}, 100.0, True)
    assert found.origin == KEY
    assert found.key == session.id != KEY
    assert (found.changed, found.removed) == ({}, frozenset())
    nothing = UserSession()
    nothing.regenerate()
    assert (nothing.id, nothing.modified) == (None, False)


def test_destroy_empties_it() -> None:
    """What is put in afterwards begins a new one, with another id."""
    session = loaded(a=1, b=2)
    session["c"] = 3
    session.destroy()
    assert (dict(session), session.id, session.created, session.modified) == ({}, None, None, True)
    assert session.destroyed == KEY
    session["d"] = 4
    found = session.changes()
    assert (set(found.values), set(found.changed), found.removed) == ({"d"}, {"d"}, frozenset())
    assert (found.destroyed, found.origin) == (True, KEY)
    assert found.key not in (None, KEY)
    nothing = UserSession()
    nothing.destroy()
    assert (nothing.destroyed, nothing.modified) == (None, False)


def test_it_has_a_size() -> None:
    """What would be larger is refused with what to do, also when it grew in place."""
    session = UserSession()
    session["a"] = b"x" * (MAX_BYTES - 100)
    with pytest.raises(ValueError, match=r"'b' would take .* keep what is large elsewhere"):
        session["b"] = b"x" * 200
    assert "b" not in session
    session["a"] = b"y" * (MAX_BYTES - 50)  # in the place of the other
    del session["a"]
    session["list"] = []
    session["list"].append(b"x" * MAX_BYTES)
    with pytest.raises(ValueError, match="would take"):
        session.changes()


def test_what_was_spoilt_in_place_is_named() -> None:
    """The handler's mistake shows when its user session is kept."""
    session = loaded(list=[])
    session["list"].append(object())
    with pytest.raises(TypeError, match="cannot keep 'list'"):
        session.changes()


@pytest.mark.parametrize(
    "look",
    [len, list, bool, dict, lambda s: s.id, lambda s: s.created, lambda s: "a" in s, dict.fromkeys],
)
def test_looking_is_noticed(look: Callable[[UserSession], object]) -> None:
    """Whatever is asked of it; its representation alone tells nothing of it."""
    session = loaded(a=1)
    assert repr(session)
    assert not session.accessed
    look(session)
    assert session.accessed
    assert not session.modified


def test_after_the_response_began_nothing_can_be_changed() -> None:
    """Reading goes on; a change says why it is refused."""
    session = loaded(a=1)
    session.seal()
    assert session["a"] == 1
    for change in (
        lambda: session.update(a=2),
        lambda: session.pop("a"),
        session.clear,
        session.destroy,
        session.regenerate,
    ):
        with pytest.raises(RuntimeError, match="the response has begun"):
            change()
    assert dict(session) == {"a": 1}


def test_without_its_store_every_use_is_the_failure() -> None:
    """Reading as well as writing; only its representation is there."""
    failure = StoreError("no connection to redis.example:6379")
    session = UserSession(failure=failure)
    uses: list[Callable[[], object]] = [
        lambda: session["a"],
        lambda: session.get("a"),
        lambda: session.update(a=1),
        lambda: session.id,
        lambda: session.created,
        lambda: len(session),
        lambda: list(session),
        lambda: "a" in session,
        session.clear,
        session.destroy,
        session.regenerate,
    ]
    for use in uses:
        with pytest.raises(StoreError) as caught:
            use()
        assert caught.value is failure
    assert not session.modified
    assert repr(session) == "<UserSession, not available>"


def test_its_representation_tells_no_secrets() -> None:
    """Neither id nor values: it may stand in a log."""
    session = loaded(password="hunter2")
    assert repr(session) == "<UserSession of 1 values>"
