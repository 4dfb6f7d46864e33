"""From the settings to what the HTTP/2 engine is to allow."""

from __future__ import annotations

from h2log.errors import UsageError
from h2log.http2.budget import BUDGETS, Budget
from h2log.http2.settings import EngineLimits
from h2log.server.session import Shared

__all__ = ["engine_limits"]


def engine_limits(shared: Shared) -> EngineLimits:
    """Return the engine's part of the limits. Raises UsageError for a budget that is none."""
    limits = shared.limits
    budgets = dict(BUDGETS)
    for name, budget in limits.budgets.items():
        if name not in budgets:
            known = ", ".join(sorted(budgets))
            raise UsageError(f"limits.budgets.{name}: unknown budget; there are {known}")
        budgets[name] = Budget(budget.burst, budget.rate)
    values = {name: getattr(limits, name) for name in EngineLimits._fields if name != "budgets"}
    # Without it no client may ask for a WebSocket (RFC 8441 section 3).
    values["extended_connect"] = limits.extended_connect or shared.asgi is not None
    return EngineLimits(**values, budgets=budgets)
