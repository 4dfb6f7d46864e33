"""`[limits.budgets]`: what a connection may spend is what the settings say."""

from __future__ import annotations

import pytest

from h2log import App
from h2log.config import Limits, build
from h2log.errors import UsageError
from h2log.http2.budget import BUDGETS, Budget
from h2log.server.certificates import Certificates
from h2log.server.dispatch import Dispatcher
from h2log.server.http2_limits import engine_limits
from h2log.server.server import Server
from h2log.server.session import Shared
from tests.server.abuse import CALM, flood, scene
from tests.server.wire import ACK, PING, RawClient, frame


def shared(limits: Limits) -> Shared:
    """Return what the connections of a server with these limits share."""

    def sink(record: object) -> None:
        raise AssertionError(f"nothing is served here: {record}")

    return Shared(Dispatcher(App()), limits, sink)


def test_budgets_by_default() -> None:
    """Without settings every budget is the engine's own."""
    assert engine_limits(shared(build({}).limits)).budgets == BUDGETS


def test_one_budget_is_overridden() -> None:
    """The named one is what was said, every other its default, and the defaults stay."""
    before = dict(BUDGETS)
    settings = build({"limits": {"budgets": {"ping": {"burst": 7, "rate": 0.5}}}})
    budgets = engine_limits(shared(settings.limits)).budgets
    assert budgets == {**BUDGETS, "ping": Budget(7, 0.5)}
    assert before == BUDGETS


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_every_budget_can_be_named(name: str) -> None:
    """Each has a name in the settings."""
    settings = build({"limits": {"budgets": {name: {"burst": 1, "rate": 0}}}})
    assert engine_limits(shared(settings.limits)).budgets[name] == Budget(1, 0)


def unknown() -> Limits:
    """Return limits with a budget that there is not."""
    return build({"limits": {"budgets": {"pings": {"burst": 1, "rate": 1}}}}).limits


def test_an_unknown_budget_is_a_usage_error() -> None:
    """The message names the key, and those that there are."""
    with pytest.raises(UsageError) as caught:
        engine_limits(shared(unknown()))
    text = str(caught.value)
    assert text.startswith("limits.budgets.pings: unknown budget")
    assert all(name in text for name in BUDGETS)


async def test_a_server_does_not_start_with_an_unknown_budget() -> None:
    """`start` raises it, and no socket is left bound."""
    settings = build(
        {
            "server": {"port": 0},
            "limits": {"budgets": {"pings": {"burst": 1, "rate": 1}}},
        }
    )

    def sink(record: object) -> None:
        raise AssertionError(f"nothing is served here: {record}")

    server = Server(App(), settings, sink, None)
    with pytest.raises(UsageError, match=r"limits\.budgets\.pings"):
        await server.start()
    assert server.addresses == [], "it has bound nothing"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"burst": 0, "rate": 1}, "burst"),
        ({"burst": -1, "rate": 1}, "burst"),
        ({"burst": 1, "rate": -1}, "rate"),
        ({"burst": "many", "rate": 1}, "burst"),
        ({"burst": 1.5, "rate": 1}, "burst"),
        ({"burst": 1}, "rate"),
        ({"rate": 1}, "burst"),
        ({"burst": 1, "rate": 1, "most": 2}, "most"),
        (5, "ping"),
    ],
)
def test_a_budget_of_wrong_values_is_a_usage_error(value: object, key: str) -> None:
    """The message names what is wrong by its place in the settings."""
    with pytest.raises(UsageError) as caught:
        build({"limits": {"budgets": {"ping": value}}}, "h2log.toml")
    text = str(caught.value)
    assert text.startswith("h2log.toml: limits.budgets")
    assert key in text


async def test_a_server_holds_clients_to_its_settings(certs: Certificates) -> None:
    """Five PING frames are answered where five are allowed, and none after them."""
    async with scene(certs, budgets={"ping": {"burst": 5, "rate": 0}}) as found:
        async with RawClient.connect(found.server) as client:
            done = await flood(client, lambda n: frame(PING, 0, 0, b"%08d" % n), 100)
        assert done.ended(CALM) == "the budget ping is spent"
        assert done.count(PING, ACK) == 5
