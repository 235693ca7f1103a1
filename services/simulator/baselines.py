"""The policies that adaptive ones are held against: best fixed placement with hindsight, peak provisioning, oracle.

`static` is searched for with the same solver and judged by the same simulation: over what is provisioned for, and over
which device types it may use, the cheapest run that still has the wanted attainment. It sees the whole reported part
of the trace before. What it does not use sleeps, as it does for every policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
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
# It looks again so often; in between nothing that it knows changes, so that nothing is planned anew.
FORESEEN_EVERY_S: Final = 60.0
# Windows whose busiest rate is provisioned for.
_PEAK_WINDOW_S: Final = 10.0
# What of that rate has to be provisioned for is found with hindsight: the capacity model errs on the safe side, and
# bursts within the windows on the other. By this factor up until enough requests are within the SLO, or down as long.
_SHARE_STEP: Final = 1.18
_SHARE_TRIES: Final = 5
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
    """The adaptive planner that knows the rates to come, and what share of them it has to provision for."""
    outcomes: list[Outcome] = []
    share, factor = 1.0, 1.0
    for _ in range(_SHARE_TRIES):
        outcome = run(case, POLICIES["oracle"], begin(case), foresee=foresight(case.trace, share))
        tell(f"{share:.0%} of the peak of {_PEAK_WINDOW_S:g} s", outcome)
        outcomes.append(outcome)
        attains = outcome.attainment >= WANTED_ATTAINMENT
        if factor != 1.0 and attains == (factor > 1.0):
            break
        factor = 1.0 / _SHARE_STEP if attains else _SHARE_STEP
        share *= factor
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


def foresight(trace: Trace, share: float) -> Callable[[float], tuple[tuple[str, Demand], ...]]:
    """A share of the busiest window's work until `FORESIGHT_S` after the next look, with the lengths to come."""

    @cache
    def at(start_s: float) -> tuple[tuple[str, Demand], ...]:
        end_s = start_s + FORESEEN_EVERY_S + FORESIGHT_S
        left, right = (bisect_left(trace.arrival_s, t) for t in (start_s, end_s))
        count = max(right - left, 1)
        starts = (start_s + i * _PEAK_WINDOW_S for i in range(int((end_s - start_s) / _PEAK_WINDOW_S)))
        prompts = max(sum(trace.prompt_tokens[left:right]) / count, 1.0)
        peak = max(_work_per_s(trace, t, prompts) for t in starts)
        rate, mean = (float(f"{v:.2g}") for v in (share * peak, (right - left) / (end_s - start_s)))
        outputs = sum(trace.output_tokens[left:right]) / count
        # Coarse steps, so that it does not plan anew for next to nothing.
        lengths = max(int(round(prompts, -2)), 64), max(int(round(outputs, -1)), 10)
        demand = Demand(max(rate, 0.01), *lengths, max(mean, 0.01))
        return ((trace.name, demand),)

    return lambda now_s: at(max(now_s, 0.0) // FORESEEN_EVERY_S * FORESEEN_EVERY_S)


def _work_per_s(trace: Trace, start_s: float, mean_tokens: float) -> float:
    """Requests a second of a window, or what its prompt tokens are in requests of mean length when that is more."""
    left, right = (bisect_left(trace.arrival_s, t) for t in (start_s, start_s + _PEAK_WINDOW_S))
    return max(right - left, sum(trace.prompt_tokens[left:right]) / mean_tokens) / _PEAK_WINDOW_S


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
