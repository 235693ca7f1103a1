"""Policies by name, each with how it is run: searched with hindsight, for the peak, adaptive, all-knowing."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Final

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.baselines import Tell, adaptive, best_static, oracle, static_peak
from services.simulator.outcome import Outcome
from services.simulator.run import Case
from tradewind.domain.errors import InvalidField

# In the order of reports: baselines, the adaptive default, its ablations, what nobody can beat.
ORDER: Final = (
    "static-peak", "static", "static-resting", "static-packed", "static-packed-resting", "static-equipped", "latency",
    "energy", "energy-no-variants", "energy-no-partitions", "energy-no-power", "energy-no-easing",
    "energy-no-deadlines", "energy-no-pacing", "energy-no-resting", "energy-no-consolidation", "energy-no-packing",
    "oracle",
)  # fmt: skip

# The best fixed placement with hindsight, under these levers.
FIXED: Final = ("static", "static-resting", "static-packed", "static-packed-resting", "static-equipped")


def check_policy(name: str) -> str:
    """The name itself.

    Raises:
        InvalidField: there is no such policy; the nearest is suggested.
    """
    if name not in POLICIES:
        near = get_close_matches(name, POLICIES, 1, 0.0)[0]
        raise InvalidField("--policy", f"no policy {name!r}; did you mean {near!r}? Known: {', '.join(ORDER)}")
    return name


def run_policy(case: Case, name: str, tell: Tell) -> Outcome:
    """One policy over a case; baselines are searched for."""
    runs: dict[str, Callable[[Case, Tell], Outcome]] = {
        "static-peak": static_peak,
        "oracle": oracle,
    }
    if name in FIXED:
        return best_static(case, POLICIES[name], tell)
    if name in runs:
        return runs[name](case, tell)
    return adaptive(case, POLICIES[name], tell)
