"""The least that one power budget has to be raised to, so that a wish is met: tried, never guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from services.orchestrator.core.facts.fleet import Budget

# A budget that does not do at so many times its own limit is not the one that binds.
_MOST_DOUBLINGS: Final = 6
# The answer is the least that does to this share of it.
_ROUNDING: Final = 0.01


def nearest_budget(budgets: Iterable[Budget], fits: Callable[[Budget], bool]) -> Budget | None:
    """The raised budget that does when every other stays, the least raise if several do alone; None when none does.

    Args:
        fits: whether the wish is met with this budget in place of the one of its scope.
    """
    found = [raised for budget in budgets if (raised := _raised(budget, fits))]
    own = {budget.scope: budget.limit_mw for budget in budgets}
    return min(found, key=lambda raised: (raised.limit_mw - own[raised.scope], raised.scope), default=None)


def _raised(budget: Budget, fits: Callable[[Budget], bool]) -> Budget | None:
    low, high = budget.limit_mw, 0.0
    for doubling in range(1, _MOST_DOUBLINGS + 1):
        high = budget.limit_mw * 2.0**doubling
        if fits(replace(budget, limit_mw=high)):
            break
        low = high
    else:
        return None
    while high > low * (1.0 + _ROUNDING):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(replace(budget, limit_mw=middle)) else (middle, high)
    return replace(budget, limit_mw=high)
