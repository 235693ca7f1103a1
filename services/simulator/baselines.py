"""The policies that adaptive ones are held against: best fixed placement with hindsight, peak provisioning, oracle.

`static` is searched for with the same solver and judged by the same simulation: over what is provisioned for, and over
which device types it may use, the cheapest run that still has the wanted attainment. It sees the whole reported part
of the trace before. What it does not use sleeps, as it does for every policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import sqrt
from typing import Final

from services.orchestrator.core.facts.policy import POLICIES, Policy
from services.orchestrator.core.facts.wish import Demand
from services.simulator.outcome import Outcome
from services.simulator.run import Case, demand_of, run
from services.simulator.trace import Trace

# Share of requests within both limits that a policy must reach to count.
WANTED_ATTAINMENT: Final = 0.99
# The provisioned rate is bisected to this factor, which is less than a replica of any fleet here.
_SEARCH_FACTOR: Final = 1.05
# It is looked for between these multiples of the mean rate and of the busiest ten seconds' rate.
_LEAST_RATE, _MOST_RATE = 0.6, 1.3
# Provisioning for the peak grows by this factor until attainment is reached, at most so often.
_PEAK_STEP: Final = 1.15
_PEAK_TRIES: Final = 10
# What an oracle looks ahead: waking a board and loading a replica take half of it.
FORESIGHT_S: Final = 300.0
Tell = Callable[[str, Outcome], None]


def best_static(case: Case, policy: Policy, tell: Tell, narrowings: Iterable[str] = ("",)) -> Outcome:
    """The cheapest fixed placement whose attainment is reached; the best attainment when none does.

    Args:
        narrowings: device types to search within, one after the other; "" is all of them together.
    """
    found: list[Outcome] = []
    for device_type in narrowings:
        found += _search(case, policy, device_type, tell)
    return _best(found)


def static_peak(case: Case, tell: Tell) -> Outcome:
    """The fastest variant on whole devices at the default clock, for the peak minute, raised until it attains."""
    policy = replace(POLICIES["static-peak"], levers=replace(POLICIES["static-peak"].levers, consolidation=True))
    seen = case.trace.between(case.from_s, float("inf"))
    rate, outcome = seen.peak_per_s(60.0), None
    for _ in range(_PEAK_TRIES):
        outcome = run(case, policy, demand_of(seen, rate, rate))
        tell(f"{rate:.3g}/s", outcome)
        if outcome.attainment >= WANTED_ATTAINMENT:
            break
        rate *= _PEAK_STEP
    assert outcome is not None
    return outcome


def oracle(case: Case, tell: Tell) -> Outcome:
    """The adaptive planner that knows the rates to come; the best of some ways to read them."""
    outcomes = []
    for window_s in (10.0, 30.0):
        outcome = run(case, POLICIES["oracle"], begin(case), foresee=foresight(case.trace, window_s))
        tell(f"peaks of {window_s:g} s", outcome)
        outcomes.append(outcome)
    return _best(outcomes)


def adaptive(case: Case, policy: Policy, tell: Tell) -> Outcome:
    """A policy that begins with what an operator would state: the busiest minute of the part that is for tuning."""
    outcome = run(case, policy, begin(case))
    tell("", outcome)
    return outcome


def begin(case: Case) -> Demand:
    """What an operator states at the start, from the tuning part, or from the first tenth without one."""
    known = case.trace.between(0.0, case.from_s or max(case.trace.length_s / 10.0, 60.0))
    return demand_of(known, known.peak_per_s(min(60.0, known.length_s)), known.rate_per_s(0.0, known.length_s))


def foresight(trace: Trace, window_s: float) -> Callable[[float], tuple[tuple[str, Demand], ...]]:
    """Demand of the next `FORESIGHT_S`: the busiest window in it, with the lengths to come."""

    def foresee(now_s: float) -> tuple[tuple[str, Demand], ...]:
        start = max(now_s, 0.0)
        left, right = (bisect_left(trace.arrival_s, t) for t in (start, start + FORESIGHT_S))
        count = max(right - left, 1)
        windows = int(FORESIGHT_S / window_s)
        peak = max(trace.rate_per_s(start + i * window_s, start + (i + 1) * window_s) for i in range(windows))
        rate, mean = (float(f"{v:.2g}") for v in (peak, (right - left) / FORESIGHT_S))
        prompts = sum(trace.prompt_tokens[left:right]) / count
        outputs = sum(trace.output_tokens[left:right]) / count
        # Coarse steps, so that it does not plan anew for every request.
        lengths = max(int(round(prompts, -2)), 64), max(int(round(outputs, -1)), 10)
        demand = Demand(max(rate, 0.01), *lengths, max(mean, 0.01))
        return ((trace.name, demand),)

    return foresee


def _search(case: Case, policy: Policy, device_type: str, tell: Tell) -> list[Outcome]:
    seen = case.trace.between(case.from_s, float("inf"))
    mean = len(seen) / max(seen.length_s, 1e-9)
    low, high = _LEAST_RATE * mean, _MOST_RATE * seen.peak_per_s(min(10.0, max(seen.length_s, 1.0)))
    found: list[Outcome] = []
    while high > low * _SEARCH_FACTOR:
        rate = sqrt(low * high)
        outcome = run(case, policy, demand_of(seen, rate, mean), device_type=device_type)
        tell(f"{device_type or 'all'} {rate:.3g}/s", outcome)
        found.append(outcome)
        # A rate that has no placement at all is beyond the devices, one that attains is more than needed.
        if outcome.attainment >= WANTED_ATTAINMENT or not outcome.started:
            high = rate
        else:
            low = rate
    return found


def _best(outcomes: list[Outcome]) -> Outcome:
    able = [o for o in outcomes if o.attainment >= WANTED_ATTAINMENT]
    if able:
        return min(able, key=lambda o: o.energy.total_j)
    return max(outcomes, key=lambda o: o.attainment)
