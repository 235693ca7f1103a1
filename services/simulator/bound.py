"""The least energy that any policy could take for a trace on these device models: no placement, no queue, no forecast.

Each request is served where it costs least: its prompt alone, its tokens in the batch that is best for it among those
that keep TPOT and fit the cache, always full. A board is on only while it works; everything else sleeps all the time.
Slices are left out: here they take a share of a board's speed for the same share of its power, or more.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from services.simulator.devices.boards import Board
from services.simulator.devices.menu import Menu
from services.simulator.engine.cost import StepCost
from services.simulator.run import Case
from services.simulator.trace import Trace

Column = NDArray[numpy.float64]


def least_j(case: Case) -> float | None:
    """Joules of the reported part; None for profiles of a store, whose figures are of loads, not of steps."""
    if not isinstance(case.menu, Menu):
        return None
    seen = case.trace.between(case.from_s, float("inf"))
    boards = {g.board.name for g in case.cluster.groups}
    points = [p for p in case.menu.points if p.board.name in boards and not p.kind.startswith("mig/")]
    costs = numpy.stack([_requests_j(p.cost, p.board, seen, case.limits.tpot_s) for p in points])
    least = costs.min(axis=0)
    # One that no point serves within TPOT is charged nothing: the bound stays a bound.
    served = float(least[numpy.isfinite(least)].sum())
    asleep_w = sum(g.board.sleep_w * g.count for g in case.cluster.groups)
    return served + asleep_w * (case.trace.length_s - case.from_s)


def _requests_j(cost: StepCost, board: Board, trace: Trace, tpot_s: float) -> Column:
    """What each request takes above boards asleep."""
    prompts, outputs = (numpy.array(v, dtype=float) for v in (trace.prompt_tokens, trace.output_tokens))
    prefill_s = cost.prefill_token_s * prompts + cost.prefill_square_s * prompts**2
    later = numpy.maximum(outputs - 1.0, 0.0)
    context = prompts + later / 2.0
    best = numpy.where(later > 0.0, numpy.inf, 0.0)
    for n in range(1, cost.most_sequences + 1):
        step_s = cost.decode_s[n] + cost.context_s * n * context
        fits = (step_s <= tpot_s) & ((n == 1) | (n * (prompts + outputs) <= cost.cache_tokens))
        joules = later * step_s / n * (cost.decode_power_w[n] - board.sleep_w)
        best = numpy.where(fits, numpy.minimum(best, joules), best)
    return numpy.asarray(prefill_s * (cost.prefill_power_w - board.sleep_w) + best)
